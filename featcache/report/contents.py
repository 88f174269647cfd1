"""What the page says: a kept result, its rows and its pictures, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.api.kept_results import KeptResult
from featcache.evaluation.suspects import suspects
from featcache.report import charts
from featcache.report.charts import Chart
from featcache.report.class_scores import ClassScore, Confused, class_scores, most_confused
from featcache.report.commands import Reproduction, reproduction
from featcache.report.maps import FeatureMap, feature_map
from featcache.report.pictures import Pictures, Thumbnail, shares_uri
from featcache.report.provenance import Facts, provenance
from featcache.report.reliability import Diagram, reliability
from featcache.report.rows import ResultRows, rows_of
from featcache.results import ProbeResult

CELLS = 30
"""Classes whose confusion matrix is a table; of more, it is a picture."""

_PAIRS = 12
_SUSPECTS = 24
_TWINS = 24

_BLUE = (45, 125, 195)
"""Of the picture of a confusion matrix, on dark and on light ground."""


@dataclass(frozen=True)
class Card:
    """A picture, what it was given, and what is said of it instead.

    Attributes:
        picture, name: of it.
        given, said: labels.
        p_given, p_said: their probabilities; None of several labels.
    """

    picture: Thumbnail
    name: str
    given: tuple[str, ...]
    said: tuple[str, ...]
    p_given: float | None = None
    p_said: float | None = None


@dataclass(frozen=True)
class Twins:
    """Pictures with the same bytes: (name, labels, split) of each."""

    picture: Thumbnail
    members: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Limits:
    """How much goes into the page.

    Attributes:
        mistakes: pictures in the gallery, at most. points: in the map.
    """

    mistakes: int = 48
    points: int = 600


@dataclass(frozen=True, eq=False)
class Page:
    """Everything the templates draw.

    Attributes:
        name: of the pictures. result: the record.
        backbone: its name. chance: share of the most frequent class; None of several labels.
        matrix_uri: the confusion matrix as a picture, where it has too many classes for a table.
        judged, mistaken: how many rows have held-out probabilities, and how many are wrong.
        gallery, suspects, overlaps, duplicates: with pictures, at most so many of
            suspect_count, overlap_count and duplicate_count; suspects is None where there are no
            probabilities of one label.
        missing: why no picture can be shown, else None.
        reliability, feature_map: None where there is nothing to draw.
    """

    name: str
    identity: str
    result: ProbeResult
    backbone: str
    chance: float | None
    paths: tuple[Chart, ...]
    shots: Chart | None
    depths: Chart | None
    sizes: Chart | None
    classes: tuple[ClassScore, ...]
    confused: tuple[Confused, ...]
    matrix_uri: str | None
    reliability: Diagram | None
    judged: int
    mistaken: int
    gallery: tuple[Card, ...]
    suspects: tuple[Card, ...] | None
    suspect_count: int
    overlaps: tuple[Twins, ...]
    overlap_count: int
    duplicates: tuple[Twins, ...]
    duplicate_count: int
    feature_map: FeatureMap | None
    provenance: tuple[Facts, ...]
    reproduction: Reproduction
    missing: str | None
    pictures_shown: int
    pictures_left_out: int


Step = Callable[[], None]
"""Called after each part of the page."""

STEPS = 5


def page_of(kept: KeptResult, limits: Limits, step: Step) -> Page:
    """The page of a result.

    Args:
        kept: the result.
        limits: how much goes into it.
        step: called `STEPS` times.
    """
    rows, pictures, result = rows_of(kept), Pictures(kept.cache), kept.result
    step()
    gallery = tuple(_mistakes(rows, pictures, limits.mistakes))
    step()
    found = _suspects(result, rows)
    doubted = None if found is None else tuple(_doubted(rows, pictures, found))
    step()
    across, within = _twins(rows)
    overlaps = tuple(_shown_twins(rows, pictures, across))
    duplicates = tuple(_shown_twins(rows, pictures, within))
    step()
    mapped = None
    if limits.points:
        mapped = feature_map(kept.cache, result.cut, rows, pictures, limits.points)
    step()
    return Page(
        name=_name(kept),
        identity=kept.identity,
        result=result,
        backbone=kept.cache.manifest.backbone["name"],
        chance=_chance(result),
        paths=charts.path_charts(result),
        shots=charts.shots_chart(result.shots),
        depths=charts.depths_chart(result.unfreeze, result.recommended_depth),
        sizes=charts.sizes_chart(result.data_sizes),
        classes=class_scores(result, rows),
        confused=most_confused(result, _PAIRS),
        matrix_uri=_matrix(result),
        reliability=reliability(rows),
        judged=int(rows.judged.sum()),
        mistaken=len(rows.mistakes),
        gallery=gallery,
        suspects=doubted,
        suspect_count=len(found or ()),
        overlaps=overlaps,
        overlap_count=len(across),
        duplicates=duplicates,
        duplicate_count=len(within),
        feature_map=mapped,
        provenance=provenance(kept),
        reproduction=reproduction(kept),
        missing=pictures.missing,
        pictures_shown=pictures.shown,
        pictures_left_out=pictures.left_out,
    )


def _name(kept: KeptResult) -> str:
    """What the pictures are called: the last part of where they come from."""
    location = kept.cache.manifest.source["location"]
    return (
        Path(location).stem if kept.cache.manifest.source["kind"] == "csv" else Path(location).name
    )


def _chance(result: ProbeResult) -> float | None:
    """The share of the most frequent class among the rows of the estimate."""
    matrix = np.array(result.confusion, np.int64)
    return float(matrix.sum(axis=1).max() / matrix.sum()) if matrix.size else None


def _matrix(result: ProbeResult) -> str | None:
    matrix = np.array(result.confusion, np.int64)
    if len(matrix) <= CELLS:
        return None
    return shares_uri(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), _BLUE)


def _mistakes(rows: ResultRows, pictures: Pictures, most: int) -> Iterator[Card]:
    for row in rows.mistakes[:most].tolist():
        given, said = rows.given_to(row), rows.predicted_of(row)
        shares = rows.probabilities[row]
        own = None if rows.several else float(shares[int(rows.targets[row])])
        theirs = None if rows.several else float(shares.max())
        yield Card(pictures.thumbnail(rows.picture(row)), rows.name(row), given, said, own, theirs)


def _suspects(result: ProbeResult, rows: ResultRows) -> list[int] | None:
    """Rows whose label is likely wrong, the worst first, whether or not they were asked for."""
    if rows.several or not rows.judged.any():
        return None
    known = np.flatnonzero(~np.isnan(rows.probabilities).any(axis=1))
    found = suspects(rows.probabilities[known], rows.targets[known].astype(np.int64))
    return known[found.flagged].tolist()


def _doubted(rows: ResultRows, pictures: Pictures, found: list[int]) -> Iterator[Card]:
    for row in found[:_SUSPECTS]:
        shares = rows.probabilities[row]
        said = int(shares.argmax())
        yield Card(
            pictures.thumbnail(rows.picture(row)),
            rows.name(row),
            rows.given_to(row),
            (rows.classes[said],),
            float(shares[int(rows.targets[row])]),
            float(shares[said]),
        )


def _twins(rows: ResultRows) -> tuple[list[list[int]], list[list[int]]]:
    """Pictures of the same bytes: across classes or splits, and within one of each."""
    across: list[list[int]] = []
    within: list[list[int]] = []
    for same in rows.twins():
        kinds = {(rows.given_to(row), rows.splits[row]) for row in same}
        (across if len(kinds) > 1 else within).append(same)
    return across, within


def _shown_twins(rows: ResultRows, pictures: Pictures, found: list[list[int]]) -> Iterator[Twins]:
    for same in found[:_TWINS]:
        members = tuple(
            (rows.name(row), "; ".join(rows.given_to(row)), rows.splits[row]) for row in same
        )
        yield Twins(pictures.thumbnail(rows.picture(same[0])), members)
