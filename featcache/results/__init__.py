"""The typed, frozen records that commands return. `to_json` gives the keys of `--json`."""

from featcache.results.compared import BackbonePair, BackboneScore, CompareResult
from featcache.results.demonstrated import DemoResult
from featcache.results.exported import CacheExport, ClassifierExport
from featcache.results.extracted import (
    ChangeCounts,
    ExtractProfile,
    ExtractResult,
    FeatureInfo,
    PrecisionChange,
    Skip,
    ViewSet,
)
from featcache.results.kept import (
    DamagedFile,
    InfoResult,
    PruneResult,
    RepairResult,
    Staleness,
    StreamInfo,
    VerifyResult,
)
from featcache.results.networks import BackboneRow, LayerRow
from featcache.results.predicted import LabelProbability, Prediction
from featcache.results.probed import ProbeResult
from featcache.results.record import Record
from featcache.results.reported import ReportResult
from featcache.results.scores import (
    Calibration,
    Comparison,
    DataSize,
    DepthScore,
    Difference,
    Estimate,
    HeadScore,
    LayerScore,
    MlpScore,
    Overlap,
    PathPoint,
    Shots,
    Suspect,
    Tta,
)
from featcache.results.several import Records

__all__ = [
    "BackbonePair",
    "BackboneRow",
    "BackboneScore",
    "CacheExport",
    "Calibration",
    "ChangeCounts",
    "ClassifierExport",
    "CompareResult",
    "Comparison",
    "DamagedFile",
    "DataSize",
    "DemoResult",
    "DepthScore",
    "Difference",
    "Estimate",
    "ExtractProfile",
    "ExtractResult",
    "FeatureInfo",
    "HeadScore",
    "InfoResult",
    "LabelProbability",
    "LayerRow",
    "LayerScore",
    "MlpScore",
    "Overlap",
    "PathPoint",
    "PrecisionChange",
    "Prediction",
    "ProbeResult",
    "PruneResult",
    "Record",
    "Records",
    "RepairResult",
    "ReportResult",
    "Shots",
    "Skip",
    "Staleness",
    "StreamInfo",
    "Suspect",
    "Tta",
    "VerifyResult",
    "ViewSet",
]
