"""One public function a command: a frozen request in, a record out.

    requests       what can be asked
    extracting     extract, extract_each
    opened         open_cache
    probes         probe
    comparing      compare
    predicting     predict, list_backbones
    networks       layers
    caches         info
    upkeep         verify, prune
    repairing      repair
    demonstration  demo

Every function takes either its request or the request's fields:
`extract("pets/", backbone="resnet50")` is `extract(ExtractRequest("pets/", backbone="resnet50"))`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featcache.lean import collector_paused

if TYPE_CHECKING:
    from featcache.api.caches import info
    from featcache.api.comparing import compare
    from featcache.api.demonstration import demo
    from featcache.api.extracting import extract, extract_each
    from featcache.api.networks import layers
    from featcache.api.opened import ExtractedCache, FeatureCache, FeatureRows, open_cache
    from featcache.api.predicting import list_backbones, predict
    from featcache.api.probes import probe
    from featcache.api.repairing import repair
    from featcache.api.requests import (
        CompareRequest,
        ExtractRequest,
        PredictRequest,
        ProbeRequest,
        Progress,
        TrainingOptions,
    )
    from featcache.api.upkeep import prune, verify

__all__ = [
    "CompareRequest",
    "ExtractRequest",
    "ExtractedCache",
    "FeatureCache",
    "FeatureRows",
    "PredictRequest",
    "ProbeRequest",
    "Progress",
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
]

_HOMES = {
    "caches": ("info",),
    "comparing": ("compare",),
    "demonstration": ("demo",),
    "extracting": ("extract", "extract_each"),
    "networks": ("layers",),
    "opened": ("ExtractedCache", "FeatureCache", "FeatureRows", "open_cache"),
    "predicting": ("list_backbones", "predict"),
    "probes": ("probe",),
    "requests": (
        *("CompareRequest", "ExtractRequest", "PredictRequest", "ProbeRequest"),
        *("Progress", "TrainingOptions"),
    ),
    "repairing": ("repair",),
    "upkeep": ("prune", "verify"),
}


def __getattr__(name: str) -> Any:
    """Load a command's file when it is first asked for: `verify` needs no network library."""
    for home, names in _HOMES.items():
        if name in names:
            with collector_paused():
                return getattr(import_module(f"featcache.api.{home}"), name)
    raise AttributeError(f"module 'featcache.api' has no attribute {name!r}")
