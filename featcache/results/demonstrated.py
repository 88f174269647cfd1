"""What `demo` did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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

    _main: ClassVar[str] = "predictions"
    _shown: ClassVar[tuple[str, ...]] = ("predictions",)

    def _headline(self) -> dict[str, str]:
        return self.probe._headline() | {"seconds": f"{self.seconds:.0f}", "plot": self.plot}
