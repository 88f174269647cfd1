"""The map of the features as the page draws it: dots, class names, and a picture for each dot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from featcache.errors import CacheMissingError
from featcache.report.pictures import Pictures, Sheet
from featcache.report.projections import Projection, features_of, projections, sampled_rows
from featcache.report.rows import ResultRows
from featcache.store.cache import Cache

COLOURED = 10
"""Classes that have a colour each; of more, only mistakes stand out."""

NAMED = 30
"""Classes whose names stand in the map."""

_TIP = 96
"""Pixels of a side of the picture that a dot shows."""


@dataclass(frozen=True)
class Dot:
    """A picture in the map.

    Attributes:
        number: of its tile, and so of its rules in the style sheet.
        look: classes of the style sheet.
        name, given, predicted: as said when pointed at; predicted is "" where it is not judged.
        share: probability of what was predicted; None of several labels.
        reason: why its picture is not there, else "".
    """

    number: int
    look: str
    name: str
    given: str
    predicted: str
    share: float | None
    reason: str


@dataclass(frozen=True)
class Label:
    """The name of a class: its rule's identity, and to which side it is written."""

    identity: str
    name: str
    look: str
    rule: str


@dataclass(frozen=True, eq=False)
class Plane:
    """One projection: its dots, and where classes are."""

    key: str
    projection: Projection
    dots: tuple[Dot, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Projections of some pictures.

    Attributes:
        planes: one a projection.
        shown: pictures in them; of: of how many.
        legend: classes with a colour each.
        rules: of the style sheet.
    """

    planes: tuple[Plane, ...]
    shown: int
    of: int
    legend: tuple[str, ...]
    rules: str


def feature_map(
    cache: Cache, cut: str, rows: ResultRows, pictures: Pictures, most: int
) -> FeatureMap | None:
    """Of at most so many pictures; None where there are too few, or their features are gone."""
    chosen = sampled_rows(len(rows), most)
    try:
        features, there = features_of(cache, cut, rows.hashes[chosen])
    except CacheMissingError:
        return None
    chosen, found = chosen[there], projections(features)
    if not found:
        return None
    sheet = pictures.sheet([rows.picture(row) for row in chosen.tolist()])
    coloured = not rows.several and len(rows.classes) <= COLOURED
    named = not rows.several and len(rows.classes) <= NAMED
    planes: list[Plane] = []
    rules = [_sheet_rules(sheet, len(chosen))]
    for key, projection in zip("pt", found, strict=False):
        at = projection.at * (1, -1) + (0, 1)
        dots = tuple(
            _dot(number, row, rows, at[number], sheet, coloured=coloured)
            for number, row in enumerate(chosen.tolist())
        )
        rules += [_at(f"{key}{number}", *at[number]) for number in range(len(chosen))]
        labels = list(_labels(key, rows, chosen, at)) if named and key == "t" else []
        rules += [label.rule for label in labels]
        planes.append(Plane(key, projection, dots, tuple(labels)))
    legend = rows.classes if coloured else ()
    return FeatureMap(tuple(planes), len(chosen), len(rows), legend, "".join(rules))


def _dot(
    number: int, row: int, rows: ResultRows, at: np.ndarray, sheet: Sheet, *, coloured: bool
) -> Dot:
    judged, wrong = bool(rows.judged[row]), bool(rows.judged[row] and not rows.right[row])
    looks = [f"k{int(rows.targets[row])}"] if coloured else []
    looks += ["w"] * wrong + ["l"] * bool(at[0] > 0.5) + ["u"] * bool(at[1] > 0.5)
    return Dot(
        number=number,
        look=" ".join(looks),
        name=rows.name(row),
        given="; ".join(rows.given_to(row)),
        predicted="; ".join(rows.predicted_of(row)) if judged else "",
        share=float(rows.probabilities[row].max()) if judged and not rows.several else None,
        reason=sheet.reasons.get(number, "" if sheet.uri else "too large for the page"),
    )


def _labels(key: str, rows: ResultRows, chosen: np.ndarray, at: np.ndarray) -> Iterator[Label]:
    """Each class that is there, where it is densest."""
    for code, name in enumerate(rows.classes):
        own = at[rows.targets[chosen] == code]
        if len(own):
            identity, (left, top) = f"{key}n{code}", own[_densest(own)]
            look = "l" if left > 0.66 else "r" if left < 0.33 else ""
            yield Label(identity, name, look, _at(identity, left, top))


def _densest(at: np.ndarray) -> int:
    """Which of some points (m, 2) has a quarter of the others nearest."""
    apart = np.sort(np.linalg.norm(at[:, None] - at, axis=2), axis=1)
    return int(apart[:, len(at) // 4].argmin())


def _at(identity: str, left: float, top: float) -> str:
    return f"#{identity}{{left:{100 * left:.2f}%;top:{100 * top:.2f}%}}\n"


def _sheet_rules(sheet: Sheet, count: int) -> str:
    """The sheet behind every picture of the map, and where in it each lies."""
    if sheet.uri is None:
        return ""
    size = f"{_TIP * sheet.columns}px {_TIP * sheet.rows}px"
    rules = [f'.map b{{background-image:url("{sheet.uri}");background-size:{size}}}\n']
    for number in range(count):
        left, top = _TIP * (number % sheet.columns), _TIP * (number // sheet.columns)
        rules.append(f".q{number}{{background-position:-{left}px -{top}px}}\n")
    return "".join(rules)
