"""Charts as geometry: what is to be drawn where; the template `charts.svg.jinja` draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featcache.report.numbers import percent, short
from featcache.report.scales import Axis, linear_axis, log_axis, named_axis, spread
from featcache.results import DataSize, DepthScore, ProbeResult, Shots

_LABEL_GAP = 15.0
"""Pixels between labels at the ends of lines."""

_RULE_GAP = 14.0
"""Pixels between what one rule says and the next."""

_CHARACTER = 7.4
"""Pixels of a label's character, about."""


@dataclass(frozen=True)
class Series:
    """Values along a line.

    Attributes:
        name: said at its end; "" says nothing.
        x, y: values. low, high: ends of their intervals, empty for none.
        look: class of its marks in the style sheet.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    look: str = "a"


@dataclass(frozen=True)
class Rule:
    """A vertical line at a value of x, and what it says."""

    at: float
    text: str
    look: str = ""


@dataclass(frozen=True)
class Mark:
    """A point: pixels; ends of its interval; what it says when pointed at."""

    x: float
    y: float
    top: float | None
    bottom: float | None
    text: str


@dataclass(frozen=True)
class Line:
    """A placed series: its marks, where its name stands."""

    name: str
    look: str
    marks: tuple[Mark, ...]
    label_y: float

    @property
    def points(self) -> str:
        """Of a polyline."""
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True)
class PlacedRule:
    """A placed rule; `anchor` says on which side of it the text stands."""

    x: float
    y: float
    text: str
    look: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """Series in axes; all places are in pixels, and the plot lies between left, top, right, bottom.

    Attributes:
        title: of the chart.
        series: lines, drawn in this order.
        x, y: axes.
        rules: vertical lines.
        width, height: of the whole.
    """

    title: str
    series: tuple[Series, ...]
    x: Axis
    y: Axis
    rules: tuple[Rule, ...] = ()
    width: float = 520.0
    height: float = 290.0

    @property
    def left(self) -> float:
        """Where the plot begins."""
        return 58.0

    @property
    def right(self) -> float:
        """Where it ends; names of lines stand beyond."""
        longest = max((len(one.name) for one in self.series), default=0)
        return self.width - max(14.0, 12 + _CHARACTER * longest)

    @property
    def top(self) -> float:
        """Below what the rules say."""
        return 30.0 + _RULE_GAP * max(len(self.rules) - 1, 0)

    @property
    def bottom(self) -> float:
        """Above the ticks of x."""
        return self.height - 46

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places and texts."""
        return [(self.left + at * (self.right - self.left), t) for at, t in self.x.placed_ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places and texts."""
        return [(self.bottom - at * (self.bottom - self.top), t) for at, t in self.y.placed_ticks]

    @property
    def lines(self) -> list[Line]:
        """The series, placed, with their names apart from one another."""
        placed = [tuple(self._mark(one, k) for k in range(len(one.x))) for one in self.series]
        ends = spread([marks[-1].y + 4 for marks in placed], _LABEL_GAP, self.top, self.bottom)
        return [
            Line(one.name, one.look, marks, end)
            for one, marks, end in zip(self.series, placed, ends, strict=True)
        ]

    @property
    def placed_rules(self) -> list[PlacedRule]:
        """The rules, each a little lower; all but the first point to the left where they can."""
        return [self._placed_rule(rule, number) for number, rule in enumerate(self.rules)]

    def _across(self, value: float) -> float:
        return self.left + self.x.share(value) * (self.right - self.left)

    def _up(self, value: float) -> float:
        return self.bottom - self.y.share(value) * (self.bottom - self.top)

    def _mark(self, one: Series, k: int) -> Mark:
        top = bottom = None
        if one.low:
            top, bottom = (
                max(self._up(one.high[k]), self.top),
                min(self._up(one.low[k]), self.bottom),
            )
        return Mark(self._across(one.x[k]), self._up(one.y[k]), top, bottom, self._said(one, k))

    def _said(self, one: Series, k: int) -> str:
        """What a point says when pointed at."""
        value = percent if self.y.ticks[0][1].endswith("%") else short
        where = dict(self.x.ticks).get(self.x.scale(one.x[k])) or short(one.x[k])
        interval = f" ({value(one.low[k])} to {value(one.high[k])})" if one.low else ""
        name = f"{one.name}, " if one.name else ""
        return f"{name}{self.x.label}: {where}, {self.y.label}: {value(one.y[k])}{interval}"

    def _placed_rule(self, rule: Rule, number: int) -> PlacedRule:
        at, long = self._across(rule.at), _CHARACTER * len(rule.text) + 6
        leftward = at + long > self.right or (number > 0 and at - long > self.left)
        anchor = "end" if leftward else "start"
        return PlacedRule(at, 24.0 + _RULE_GAP * number, rule.text, rule.look, anchor)


def path_charts(result: ProbeResult) -> tuple[Chart, ...]:
    """Held-out loss with its standard error, and accuracy, over the candidates."""
    path, votes = result.path, result.best_C is None
    if not path:
        return ()
    at = [float((p.neighbours if votes else p.C) or 0) for p in path]
    label = "k, neighbours that vote" if votes else "C (to the right: less regularisation)"
    x = log_axis(label, at, at if votes and len(at) <= 8 else ())
    best = float((result.best_neighbours if votes else result.best_C) or 0)
    rules = (Rule(best, f"chosen: {best:.3g}", "chosen"),)
    if result.one_error_C is not None and result.one_error_C != best:
        rules += (Rule(result.one_error_C, f"one s.e.: {result.one_error_C:.3g}"),)
    return (_loss_chart(result, at, x, rules), _accuracy_chart(result, at, x, rules))


def _loss_chart(result: ProbeResult, at: list[float], x: Axis, rules: tuple[Rule, ...]) -> Chart:
    squared = result.path[0].log_loss is None
    name = "squared error" if squared else "log-loss, nats"
    loss = [_number(p.squared_error if squared else p.log_loss) for p in result.path]
    errors = [p.log_loss_error for p in result.path]
    low = high = ()
    if not squared and all(e is not None for e in errors):
        low = [value - (e or 0) for value, e in zip(loss, errors, strict=True)]
        high = [value + (e or 0) for value, e in zip(loss, errors, strict=True)]
    y = linear_axis(f"held-out {name}", [*loss, *low, *high], short, (0.0, math.inf))
    title = f"Held-out {name.partition(',')[0]}"
    title += ", ± one standard error" if low else ""
    return Chart(title, (Series("", at, loss, low, high, "b"),), x, y, rules)


def _accuracy_chart(
    result: ProbeResult, at: list[float], x: Axis, rules: tuple[Rule, ...]
) -> Chart:
    accuracy = [p.accuracy for p in result.path]
    y = linear_axis("held-out accuracy", accuracy, _whole, (0.0, 1.0))
    return Chart("Held-out accuracy", (Series("", at, accuracy),), x, y, rules)


def shots_chart(shots: Sequence[Shots]) -> Chart | None:
    """Accuracy by pictures a class, with intervals."""
    if not shots:
        return None
    at, mean = [float(k) for k in range(len(shots))], [s.mean for s in shots]
    low, high = zip(*(s.ci95 for s in shots), strict=True)
    y = linear_axis("accuracy", [*mean, *low, *high], _whole, (0.0, 1.0))
    x = named_axis("pictures a class", [str(s.shots) for s in shots])
    return Chart("Accuracy by pictures a class", (Series("", at, mean, low, high),), x, y)


def depths_chart(scores: Sequence[DepthScore], recommended: int | None) -> Chart | None:
    """Held-out accuracy by depth with intervals, training accuracy beside it."""
    if not scores:
        return None
    at = [float(k) for k in range(len(scores))]
    held, train = [s.accuracy for s in scores], [s.train_accuracy for s in scores]
    low, high = zip(*(s.ci95 for s in scores), strict=True)
    y = linear_axis("accuracy", [*held, *train, *low, *high], _whole, (0.0, 1.0))
    x = named_axis("depth: units that train", [str(s.depth) for s in scores])
    depths = [s.depth for s in scores]
    rules = ()
    if recommended in depths:
        rules = (Rule(float(depths.index(recommended)), "recommended", "chosen"),)
    both = Series("training", at, train, look="mute"), Series("held out", at, held, low, high)
    return Chart("Accuracy by depth", both, x, y, rules)


def sizes_chart(sizes: Sequence[DataSize]) -> Chart | None:
    """A line a depth over the number of training pictures."""
    if not sizes:
        return None
    at = [float(size.n_train) for size in sizes]
    depths = [score.depth for score in sizes[0].scores]
    lines = [
        Series(
            f"depth {depth}",
            at,
            [size.scores[k].accuracy for size in sizes],
            look=_shade(k, depths),
        )
        for k, depth in enumerate(depths)
    ]
    y = linear_axis("held-out accuracy", [v for line in lines for v in line.y], _whole, (0.0, 1.0))
    x = log_axis("training pictures", at, at)
    return Chart("Depth by data size", tuple(lines), x, y)


def _shade(k: int, depths: Sequence[int]) -> str:
    """One of five shades, the deeper the darker."""
    return f"s{round(4 * k / max(len(depths) - 1, 1))}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _whole(share: float) -> str:
    """A share as per cent with the decimals that it needs."""
    return f"{100 * share:.4g}%"
