"""What `compare` found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from featcache import plots
from featcache.naming import shown
from featcache.results.looking import listed
from featcache.results.record import Record
from featcache.results.scores import Difference
from featcache.rounding import digits, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class BackboneScore(Record):
    """A backbone: its size, its costs, and its head on pictures that were held out.

    Attributes:
        name: of the network, with its cache's where two are of one network. cache: its folder.
        backbone: name of the network. size: (H, W) of its pictures in pixels.
        multiplications: of convolutions and linear layers in one forward pass of a picture,
            counted, not timed; attention's own products are left out.
        params_total: numbers in the network without its own classifier, and in the new head;
            running means and variances of BatchNorm among them, as Keras counts.
        params_trainable: numbers that train at the depth: of the head, and of the units above the
            cut. params_non_trainable: all others, and all running means and variances.
        width: numbers a picture that the head gets.
        extract_seconds: of all extractions that computed something for the cache, from its log;
            None where the log does not account for all rows. images_per_second: over the
            extractions that the log knows; None without any. together: how many backbones they
            were made with in one pass, 1 where each had its own.
        probe_seconds: of fitting and scoring; None where an earlier probe was taken whose time
            nothing tells.
        accuracy, ci95, mean_per_class, log_loss: as in `Estimate`.
        train_accuracy: on the pictures that the heads were fitted on; overfitting: how much higher
            that is.
        result: of the findings in the cache; None where none are kept.
    """

    name: str
    cache: str
    backbone: str
    size: tuple[int, int]
    multiplications: int
    params_total: int
    params_trainable: int
    params_non_trainable: int
    width: int
    extract_seconds: float | None
    images_per_second: float | None
    together: int
    probe_seconds: float | None
    accuracy: float
    ci95: tuple[float, float]
    mean_per_class: float
    log_loss: float | None
    train_accuracy: float | None
    result: str | None = None
    overfitting: float | None = field(init=False)

    def __post_init__(self) -> None:
        trained = self.train_accuracy
        object.__setattr__(
            self, "overfitting", None if trained is None else trained - self.accuracy
        )


@dataclass(frozen=True)
class BackbonePair(Record):
    """Two backbones on the same pictures.

    Attributes:
        first, second: their names.
        difference: accuracy of the second minus that of the first, paired.
        adjusted_p: its p_value adjusted for all pairs that were compared (Holm 1979).
    """

    first: str
    second: str
    difference: Difference
    adjusted_p: float


@dataclass(frozen=True)
class CompareResult(Record):
    """Backbones beside each other, on the same held-out pictures.

    Attributes:
        backbones: the cheapest first, by multiplications a picture.
        pairs: each two of them, the cheaper one first.
        recommended: name of the cheapest that is shown to be within the margin of the best; None
            where that is undecided. advice: why, in a sentence.
        head, depth: that were compared. margin: accuracy one gives away for a cheaper backbone.
        n: pictures that were held out, the same of all. n_common: pictures that all caches have
            rows of. classes: names, the same of all.
        method: which pictures were held out, and how.
        seconds: of the whole. warnings: what a person should know, by name.
    """

    backbones: tuple[BackboneScore, ...]
    pairs: tuple[BackbonePair, ...]
    recommended: str | None
    advice: str
    head: str
    depth: int
    margin: float
    n: int
    n_common: int
    classes: tuple[str, ...]
    method: str
    seconds: float
    warnings: tuple[str, ...] = ()

    _main: ClassVar[str] = "backbones"
    _shown: ClassVar[tuple[str, ...]] = ("backbones", "pairs")

    def _headline(self) -> dict[str, str]:
        best = max(self.backbones, key=lambda row: row.accuracy)
        accuracy = percent(best.accuracy, digits(best.ci95))
        return {
            "recommended": shown(self.recommended or "undecided"),
            "best": f"{shown(best.name)}, {accuracy} of {self.n} pictures",
            "backbones": listed(row.name for row in self.backbones),
            "head": f"{self.head}, depth {self.depth}",
            "advice": shown(self.advice),
        }

    def plot(self) -> Figure:
        """Accuracy with its interval, the cheapest first."""
        rows = self.backbones
        accuracy, ends = [row.accuracy for row in rows], [row.ci95 for row in rows]
        title = "by backbone, the cheapest first"
        return plots.figure(
            [plots.layers_panel([row.name for row in rows], accuracy, ends, title=title)]
        )
