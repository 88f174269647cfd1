"""`compare`: backbones on the same pictures, what each costs, and the cheapest that is enough."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.common_rows import CommonRows, common_rows
from featcache.api.judging import Judged, judged_by_probe, judged_by_sweep
from featcache.api.requests import CompareRequest, PathLike, Progress
from featcache.backbones.factory import is_factory_name
from featcache.backbones.registry import Backbone, load_from_locator
from featcache.backbones.size import BackboneSize, size_of
from featcache.classifier.joined import trusted_name
from featcache.errors import CacheMismatchError, ProbeError
from featcache.evaluation.pairwise import against_first
from featcache.evaluation.recommendation import Recommendation, holm, recommend
from featcache.probing import LabelledRows, ViewChoice, labelled_rows
from featcache.recipe import PENULTIMATE
from featcache.results import BackbonePair, BackboneScore, CompareResult, Difference
from featcache.store import journal
from featcache.store.cache import Cache
from featcache.unfreezing import ladder

Bools = npt.NDArray[np.bool_]

_UNREAD = 1
"""Bytes of memory with which features stay where they are until they are asked for."""


def compare(
    *caches: PathLike | CompareRequest, progress: Progress | None = None, **options: Any
) -> CompareResult:
    """Compare backbones on the pictures that all their caches have, and say which is enough.

    Each is probed on the plain view with the same folds, as `probe` does, which keeps its findings
    in the cache; an earlier probe of the same question is taken as it is. The cheapest is the one
    of the fewest multiplications a picture.

    Args:
        *caches: folders of caches, or a request.
        progress: called with (stage, done, total).
        **options: the other fields of `CompareRequest`.

    Raises:
        StoreError: a cache cannot be used. ProbeError: the pictures cannot be compared; names
            classes and labels that differ. ClassifierError: code that nobody vouched for.
    """
    started = time.perf_counter()
    request = _request(caches, options)
    opened = _opened(request)
    networks = [_network(cache, request) for cache in opened]
    common = common_rows(opened, [_rows(cache, _UNREAD) for cache in opened])
    found = [
        _entrant(cache, network, number, request, common, progress)
        for number, (cache, network) in enumerate(zip(opened, networks, strict=True))
    ]
    found.sort(key=lambda each: (each.size.products, each.size.parameters))
    result = _result(request, _with_names(found), common)
    for each in found:
        each.judged.forget()
    return replace(result, seconds=round(time.perf_counter() - started, 3))


@dataclass(frozen=True, eq=False)
class _Entrant:
    """A backbone that is compared.

    Attributes:
        cache: its cache. backbone: its network, of any weights. size: of it.
        judged: what its head says of the pictures. name: tells it from the others.
    """

    cache: Cache
    backbone: Backbone
    size: BackboneSize
    judged: Judged
    name: str


def _request(
    caches: Sequence[PathLike | CompareRequest], options: dict[str, Any]
) -> CompareRequest:
    if len(caches) == 1 and isinstance(caches[0], CompareRequest):
        if options:
            raise TypeError(
                "a CompareRequest is complete; change its fields with dataclasses.replace, not "
                "beside"
            )
        return caches[0]
    return CompareRequest(
        tuple(cache for cache in caches if not isinstance(cache, CompareRequest)), **options
    )


def _opened(request: CompareRequest) -> list[Cache]:
    folders = [Path(cache) for cache in request.caches]
    counts = Counter(folder.resolve() for folder in folders)
    twice = [folder for folder in folders if counts[folder.resolve()] > 1]
    if twice:
        raise ProbeError(f"{twice[0]}: is given twice; give each cache once")
    if len(folders) < 2:
        raise ProbeError(
            f"{len(folders)} cache to compare; give two or more of the same pictures, as "
            "`featcache extract DATA --backbone resnet50,mobilenet_v3_large` makes them"
        )
    return [Cache(folder, trust=request.trust) for folder in folders]


def _network(cache: Cache, request: CompareRequest) -> Backbone:
    """A cache's network, of any weights, to be counted; a person's own runs only if vouched for."""
    manifest = cache.manifest
    name = trusted_name(manifest.backbone["name"], _vouched(cache, request))
    locator = (
        manifest.backbone["locator"] if is_factory_name(name) else {"kind": "random", "seed": 0}
    )
    return load_from_locator(name, locator, preprocessing=manifest.recipe.preprocessing)


def _vouched(cache: Cache, request: CompareRequest) -> str | None:
    """The cache's network, where its code is vouched for."""
    name = cache.manifest.backbone["name"]
    return name if name in request.backbones else None


def _rows(cache: Cache, memory: int) -> LabelledRows:
    return labelled_rows(cache, PENULTIMATE, memory, ViewChoice(1))


def _entrant(
    cache: Cache,
    network: Backbone,
    number: int,
    request: CompareRequest,
    common: CommonRows,
    progress: Progress | None,
) -> _Entrant:
    """Probe a cache, or train its last units."""
    asked = request.probing(cache.folder, _vouched(cache, request))
    data = common.of(number, _rows(cache, request.memory))
    told = _told(network.name, progress)
    judge = judged_by_sweep if request.depth else judged_by_probe
    return _Entrant(cache, network, size_of(network), judge(cache, asked, data, told), network.name)


def _told(name: str, progress: Progress | None) -> Progress | None:
    """Fits are told with the network that they are of."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(
        f"fitting {name}" if stage == "fit" else stage, done, total
    )


def _with_names(found: Sequence[_Entrant]) -> list[_Entrant]:
    """Those of one network are told apart by their caches."""
    counts = Counter(each.name for each in found)
    return [
        replace(each, name=f"{each.name} ({each.cache.folder.name})")
        if counts[each.name] > 1
        else each
        for each in found
    ]


def _result(
    request: CompareRequest, found: Sequence[_Entrant], common: CommonRows
) -> CompareResult:
    first = found[0].judged
    _refuse_other_rows(found)
    right = np.stack([each.judged.right for each in found], axis=1)  # (S, D, n)
    names = [each.name for each in found]
    advice = recommend(
        right, first.groups, margin=request.margin, names=names, solved=not request.depth
    )
    return CompareResult(
        backbones=tuple(_score(each, request.depth) for each in found),
        pairs=_pairs(names, right, first.groups),
        recommended=_advised(advice, names),
        advice=advice.reason,
        head=request.head,
        depth=request.depth,
        margin=request.margin,
        n=right.shape[2],
        n_common=common.count,
        classes=first.classes,
        method=first.method,
        seconds=0.0,
        warnings=(*common.warnings, *_warnings(found)),
    )


def _refuse_other_rows(found: Sequence[_Entrant]) -> None:
    first = found[0].judged
    for each in found[1:]:
        if not np.array_equal(each.judged.hashes, first.hashes):
            raise CacheMismatchError(
                f"{each.cache.folder}: other pictures were held out than in "
                f"{found[0].cache.folder}; a cache was changed meanwhile, so compare again"
            )


def _advised(advice: Recommendation, names: Sequence[str]) -> str | None:
    return None if advice.depth is None else names[advice.depth]


def _warnings(found: Sequence[_Entrant]) -> list[str]:
    """Of each backbone, by its name; what is said of all alike once."""
    said = [(each.name, warning) for each in found for warning in each.judged.warnings]
    counts = Counter(warning for _, warning in said)
    alike = [warning for warning, count in counts.items() if count == len(found)]
    return [*alike, *(f"{name}: {text}" for name, text in said if text not in alike)]


def _pairs(
    names: Sequence[str], right: Bools, groups: npt.NDArray[np.int64]
) -> tuple[BackbonePair, ...]:
    """Every two of them, the cheaper one first."""
    places = list(combinations(range(len(names)), 2))
    found = [against_first(right[:, list(pair)], groups)[0] for pair in places]
    adjusted = holm([pair.p_value for pair in found]).tolist()
    return tuple(
        BackbonePair(
            names[a],
            names[b],
            Difference(pair.difference, pair.ci95, pair.p_value, pair.method, len(groups)),
            p,
        )
        for (a, b), pair, p in zip(places, found, adjusted, strict=True)
    )


def _score(each: _Entrant, depth: int) -> BackboneScore:
    network, size, judged = each.backbone, each.size, each.judged
    head = len(judged.classes) * (network.width + 1)
    total = size.parameters + size.statistics + head
    trained = head + ladder(network, (0, depth) if depth else (0,))[-1].trained
    seconds, rate, together = _extraction(each.cache)
    return BackboneScore(
        name=each.name,
        cache=str(each.cache.folder),
        backbone=network.name,
        size=network.preprocessing.size,
        multiplications=size.products,
        params_total=total,
        params_trainable=trained,
        params_non_trainable=total - trained,
        width=network.width,
        extract_seconds=seconds,
        images_per_second=rate,
        together=together,
        probe_seconds=judged.seconds,
        accuracy=judged.accuracy,
        ci95=judged.ci95,
        mean_per_class=judged.mean_per_class,
        log_loss=judged.log_loss,
        train_accuracy=judged.train_accuracy,
        result=judged.result,
    )


def _extraction(cache: Cache) -> tuple[float | None, float | None, int]:
    """Seconds, pictures a second, and backbones of one pass, of the extractions the log knows."""
    lines = [line for line in journal.every(cache.folder, "extract") if _tells(line)]
    seconds, pictures = (float(sum(line[key] for line in lines)) for key in ("seconds", "computed"))
    if not lines or seconds <= 0:
        return None, None, 1
    whole = pictures >= len(cache.stream())
    together = max(_whole_number(line.get("together")) for line in lines)
    return round(seconds, 3) if whole else None, round(pictures / seconds, 1), together


def _tells(line: dict[str, Any]) -> bool:
    """Whether a line of the log says how long something was computed."""
    numbers = (line.get("seconds"), line.get("computed"))
    return all(isinstance(number, int | float) and number > 0 for number in numbers)


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 1
