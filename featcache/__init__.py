"""Feature-cache linear probing: run a frozen backbone once, then train heads in seconds.

    import featcache as fc
    cache = fc.extract("pets/", backbone="resnet50")
    result = fc.probe(cache, save="pets.fc")
    print(result)
    result.plot()
    X, y = cache.features(split="train"), cache.labels(split="train")
    fc.predict("pets.fc", ["photo.jpg"])

Names are loaded when first used, so importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from featcache.lean import collector_paused

if TYPE_CHECKING:
    from featcache.api import (
        CompareRequest,
        ExtractedCache,
        ExtractRequest,
        FeatureCache,
        FeatureRows,
        PredictRequest,
        ProbeRequest,
        TrainingOptions,
        compare,
        demo,
        extract,
        extract_each,
        info,
        layers,
        list_backbones,
        open_cache,
        predict,
        probe,
        prune,
        repair,
        verify,
    )
    from featcache.errors import FeatcacheError
    from featcache.export import export_cache, export_classifier
    from featcache.recipe import Preprocessing
    from featcache.report import write_report
    from featcache.results import (
        CacheExport,
        ClassifierExport,
        CompareResult,
        DemoResult,
        ExtractResult,
        InfoResult,
        Prediction,
        ProbeResult,
        PruneResult,
        Records,
        RepairResult,
        ReportResult,
        VerifyResult,
    )
    from featcache.serve import classifier_app, serve_classifier
    from featcache.transformer import FeatureExtractor

__version__ = version("featcache")

_HOMES = {
    "featcache.api": (
        "CompareRequest",
        "ExtractRequest",
        "ExtractedCache",
        "FeatureCache",
        "FeatureRows",
        "PredictRequest",
        "ProbeRequest",
        "TrainingOptions",
        "compare",
        "demo",
        "extract",
        "extract_each",
        "info",
        "layers",
        "list_backbones",
        "open_cache",
        "predict",
        "probe",
        "prune",
        "repair",
        "verify",
    ),
    "featcache.errors": ("FeatcacheError",),
    "featcache.export": ("export_cache", "export_classifier"),
    "featcache.recipe": ("Preprocessing",),
    "featcache.report": ("write_report",),
    "featcache.results": (
        "CacheExport",
        "ClassifierExport",
        "CompareResult",
        "DemoResult",
        "ExtractResult",
        "InfoResult",
        "Prediction",
        "ProbeResult",
        "PruneResult",
        "Records",
        "RepairResult",
        "ReportResult",
        "VerifyResult",
    ),
    "featcache.transformer": ("FeatureExtractor",),
    "featcache.serve": ("classifier_app", "serve_classifier"),
}

__all__ = [
    "CacheExport",
    "ClassifierExport",
    "CompareRequest",
    "CompareResult",
    "DemoResult",
    "ExtractRequest",
    "ExtractResult",
    "ExtractedCache",
    "FeatcacheError",
    "FeatureCache",
    "FeatureExtractor",
    "FeatureRows",
    "InfoResult",
    "PredictRequest",
    "Prediction",
    "Preprocessing",
    "ProbeRequest",
    "ProbeResult",
    "PruneResult",
    "Records",
    "RepairResult",
    "ReportResult",
    "TrainingOptions",
    "VerifyResult",
    "__version__",
    "classifier_app",
    "compare",
    "demo",
    "export_cache",
    "export_classifier",
    "extract",
    "extract_each",
    "info",
    "layers",
    "list_backbones",
    "open_cache",
    "predict",
    "probe",
    "prune",
    "repair",
    "serve_classifier",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            with collector_paused():
                value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'featcache' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
