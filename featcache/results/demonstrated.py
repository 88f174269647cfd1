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
    """What `demo` did: the main job on handwritten digits and the embedded default.

    Attributes:
        extract: of the digits. probe: of their features, with a sweep over depth.
        predictions: of a few pictures by the saved classifier.
        seconds: of the whole.
        plot: path of the drawn sweep.
    """

    extract: ExtractResult
    probe: ProbeResult
    predictions: tuple[Prediction, ...]
    seconds: float
    plot: str

    _main: ClassVar[str] = "predictions"
    _shown: ClassVar[tuple[str, ...]] = ("predictions",)

    def _headline(self) -> dict[str, str]:
        return self.probe._headline() | {"seconds": f"{self.seconds:.0f}", "plot": self.plot}
