"""What `demo` did."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.results.extracted import ExtractResult
from featcache.results.predicted import Prediction
from featcache.results.probed import ProbeResult
from featcache.results.record import Record


@dataclass(frozen=True)
class DemoResult(Record):
    """The main job on the embedded default; the plot's path."""

    extract: ExtractResult
    probe: ProbeResult
    predictions: tuple[Prediction, ...]
    seconds: float
    plot: str
