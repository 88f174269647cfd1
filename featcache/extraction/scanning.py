"""What a source holds now, as an index; contents are hashed only where a stat key cannot vouch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.errors import PictureError
from featcache.extraction.pipeline import Slot
from featcache.images.ahead import in_order
from featcache.images.sources import Listing, Sample, Source, content_hash
from featcache.naming import shown
from featcache.store.index import NO_GROUP, NO_SPLIT, NO_STAT, SPLITS, Index, hashes_of, opaque
from featcache.store.strings import Strings

SETTLED_NS = 2_000_000_000
"""A file changed this shortly before a scan could change again under the same stat key."""

_HASHING_THREADS, _HASHED_AHEAD = 4, 127
_HASHED_AT_ONCE = 16
"""Files a thread hashes at once: from file to file threads would wait for the interpreter's lock
for longer than hashing takes."""

_NAMED = 5


@dataclass(frozen=True)
class Changes:
    """How a source differs from an index: samples by path, old beside new."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return any((self.new, self.changed, self.missing, self.relabelled, self.moved))


@dataclass(frozen=True, eq=False)
class Scan:
    """A source as it is now.

    Attributes:
        index: what the cache's index should be.
        passed_over: files that are no samples, counted by reason.
        warnings: what a person should know, by name.
        hashed: how many contents had to be read.
        started_ns: the clock when the scan began; None where the source was not looked at.
    """

    index: Index
    passed_over: dict[str, int]
    warnings: tuple[str, ...]
    hashed: int
    started_ns: int | None


def scan(
    source: Source,
    known: Index | None = None,
    *,
    settled_before_ns: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """List a source and hash what is not known.

    Args:
        source: where the samples are.
        known: an earlier index; a file whose path and stat key it holds is not read again.
        settled_before_ns: trust a stat key only if the file's last change is older than this
            (the clock at the last scan); None trusts none.
        progress: called with (hashed, to be hashed).

    Raises:
        SourceError, SourceMissingError: the source cannot be read as pictures.
    """
    started_ns = time.time_ns()
    listing = source.scan()
    hashes = _known_hashes(listing.samples, known, settled_before_ns)
    unknown = [i for i, content in enumerate(hashes) if content is None]
    failures: dict[int, str] = {}
    for done, (i, outcome) in enumerate(_hash_all(source, listing.samples, unknown), 1):
        if isinstance(outcome, str):
            failures[i] = outcome
        else:
            hashes[i] = outcome
        if progress:
            progress(done, len(unknown))
    index = _build(listing, hashes, failures)
    return Scan(
        index,
        listing.passed_over,
        (*listing.warnings, *duplicate_warnings(index)),
        len(unknown),
        started_ns,
    )


def _known_hashes(
    samples: Sequence[Sample], known: Index | None, settled_before_ns: int | None
) -> list[bytes | None]:
    if known is None or settled_before_ns is None:
        return [None] * len(samples)
    rows = {path: row for row, path in enumerate(known.paths)}
    stats = [tuple(stat) for stat in known.stats.tolist()]
    contents = known.hashes.tobytes()
    settled = settled_before_ns - SETTLED_NS

    def vouched(sample: Sample) -> bytes | None:
        row, stat = rows.get(sample.path), sample.stat
        if row is None or stat is None or stats[row] != tuple(stat):
            return None
        if max(stat.mtime_ns, stat.ctime_ns) >= settled:
            return None
        return contents[32 * row : 32 * row + 32]

    return [vouched(sample) for sample in samples]


def _hash_all(
    source: Source, samples: Sequence[Sample], rows: Sequence[int]
) -> Iterable[tuple[int, bytes | str]]:
    """(row, content hash) or (row, reason it cannot be read), in order."""

    def hash_one(i: int) -> bytes | str:
        try:
            return content_hash(source.read(samples[i].path))
        except PictureError as error:
            return str(error)

    outcomes = in_order(
        hash_one, rows, threads=_HASHING_THREADS, ahead=_HASHED_AHEAD, at_once=_HASHED_AT_ONCE
    )
    with closing(outcomes):
        yield from zip(rows, outcomes, strict=True)


def _build(listing: Listing, hashes: Sequence[bytes | None], failures: dict[int, str]) -> Index:
    rows = [i for i, content in enumerate(hashes) if content is not None]
    samples = [listing.samples[i] for i in rows]
    label_names = sorted({label for sample in samples for label in sample.labels})
    label_code = {name: code for code, name in enumerate(label_names)}
    group_names = sorted({sample.group for sample in samples if sample.group is not None})
    group_code: dict[str | None, int] = {name: code for code, name in enumerate(group_names)}
    group_code[None] = NO_GROUP
    split_code: dict[str | None, int] = {name: code for code, name in enumerate(SPLITS)}
    split_code[None] = NO_SPLIT
    skips = [*listing.skips, *((listing.samples[i].path, why) for i, why in failures.items())]
    contents = hashes_of(hashes[i] or b"" for i in rows)
    return Index(
        paths=Strings.of(sample.path for sample in samples),
        hashes=contents,
        label_names=Strings.of(label_names),
        label_offsets=np.cumsum([0, *(len(s.labels) for s in samples)], dtype=np.int64),
        label_codes=np.array([label_code[x] for s in samples for x in s.labels], np.int32),
        splits=np.array([split_code[s.split] for s in samples], np.int8),
        group_names=Strings.of(group_names),
        groups=np.array([group_code[s.group] for s in samples], np.int64),
        stats=np.array([s.stat or NO_STAT for s in samples], np.int64).reshape(-1, 4),
        skip_paths=Strings.of(path for path, _ in skips),
        skip_reasons=Strings.of(why for _, why in skips),
    )


def duplicate_warnings(index: Index) -> list[str]:
    """Contents that stand under two labels or in two splits, by name."""
    _, inverse, counts = np.unique(opaque(index.hashes), return_inverse=True, return_counts=True)
    rows_of: dict[int, list[int]] = {}
    for row in np.flatnonzero(counts[inverse] > 1).tolist():
        rows_of.setdefault(int(inverse[row]), []).append(row)
    labels = [r for r in rows_of.values() if len(_labellings(index, r)) > 1]
    splits = [r for r in rows_of.values() if len({int(index.splits[row]) for row in r}) > 1]
    warnings: list[str] = []
    if labels:
        warnings.append(
            f"{len(labels)} picture(s) stand under different labels, byte for byte the same: "
            f"{_pairs(index, labels)}; at most one label is right"
        )
    if splits:
        warnings.append(
            f"{len(splits)} picture(s) stand in two splits, byte for byte the same: "
            f"{_pairs(index, splits)}; a test on them is no test"
        )
    return warnings


def _labellings(index: Index, rows: list[int]) -> set[frozenset[str]]:
    """The different sets of labels that rows have; none at all contradicts no other."""
    return {frozenset(labels) for row in rows if (labels := index.labels_of(row))}


def _pairs(index: Index, groups: list[list[int]]) -> str:
    named = [" = ".join(shown(index.paths[row]) for row in rows[:3]) for rows in groups[:_NAMED]]
    more = len(groups) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def compare(old: Index, new: Index) -> Changes:
    """How two indices of one source differ."""
    if _same_but_stats(old, new):
        return Changes()
    before, now = _facts(old), _facts(new)
    gone = [path for path in before if path not in now]
    came = [path for path in now if path not in before]
    moved = _moves(before, now, gone, came)
    sources, targets = {a for a, _ in moved}, {b for _, b in moved}
    both = [path for path in now if path in before]
    return Changes(
        new=tuple(path for path in came if path not in targets),
        changed=tuple(path for path in both if before[path][0] != now[path][0]),
        missing=tuple(path for path in gone if path not in sources),
        relabelled=tuple(
            path for path in both if before[path][0] == now[path][0] and before[path] != now[path]
        ),
        moved=tuple(moved),
    )


def _same_but_stats(old: Index, new: Index) -> bool:
    ours, theirs = old.arrays(), new.arrays()
    return all(np.array_equal(ours[k], theirs[k]) for k in ours if k != "stats")


def _facts(index: Index) -> dict[str, tuple[bytes, tuple[str, ...], int, str | None]]:
    """By path: content, labels, split, group."""
    names, groups = list(index.label_names), list(index.group_names)
    codes, offsets = index.label_codes.tolist(), index.label_offsets.tolist()
    contents = index.hashes.tobytes()
    return {
        path: (
            contents[32 * row : 32 * row + 32],
            tuple(names[c] for c in codes[offsets[row] : offsets[row + 1]]),
            int(index.splits[row]),
            groups[index.groups[row]] if index.groups[row] != NO_GROUP else None,
        )
        for row, path in enumerate(index.paths)
    }


def _moves(
    before: dict[str, tuple[bytes, tuple[str, ...], int, str | None]],
    now: dict[str, tuple[bytes, tuple[str, ...], int, str | None]],
    gone: list[str],
    came: list[str],
) -> list[tuple[str, str]]:
    """(old path, new path) where the same content left one and appeared at another."""
    places: dict[bytes, list[str]] = {}
    for path in reversed(gone):
        places.setdefault(before[path][0], []).append(path)
    return [(places[now[path][0]].pop(), path) for path in came if places.get(now[path][0])]


def path_counts(changes: Changes) -> Counter[str]:
    """How many samples of each kind of change."""
    return Counter(
        new=len(changes.new),
        changed=len(changes.changed),
        missing=len(changes.missing),
        relabelled=len(changes.relabelled),
        moved=len(changes.moved),
    )


class Places:
    """Where contents lie: for each, the first path of an index that holds it."""

    def __init__(self, index: Index) -> None:
        self._paths = index.paths
        self._keys, self._rows = np.unique(opaque(index.hashes), return_index=True)

    def slots(self, contents: npt.NDArray[np.void]) -> list[Slot]:
        """A slot for each content, all of which the index must hold."""
        rows = self._rows[np.searchsorted(self._keys, contents)].tolist()
        return [
            Slot(content.tobytes(), self._paths[row])
            for content, row in zip(contents, rows, strict=True)
        ]
