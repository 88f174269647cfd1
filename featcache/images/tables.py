"""Pictures listed in a CSV: path,label[,split][,group]."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.errors import PictureError, SourceError, SourceMissingError
from featcache.images.files import absolute, read_file, regular_stat, root_missing, stat_key
from featcache.images.labels import SPLITS, label_warnings
from featcache.images.listing import Listing, Sample
from featcache.naming import folder_safe, name_some, shown

COLUMNS = ("path", "label", "split", "group")
_MISSING = ("nan", "<na>", "#n/a")
"""What tables of numbers, data frames and spreadsheets write where there is nothing."""

_NO_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None

    @property
    def meaning(self) -> tuple[object, ...]:
        return self.labels, self.split, self.group


class CsvSource:
    """Pictures that a CSV names, in its order; relative paths start at the CSV's folder.

    Several labels are written `a;b`; an empty label means unlabelled, an empty split none.

    Args:
        location: the CSV file, in UTF-8 (with or without a byte order mark).
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._file = Path(absolute(location))
        self._root = str(self._file.parent)
        self.name = folder_safe(self._file.stem)
        self.locator = {"kind": "csv", "location": str(self._file)}

    def scan(self) -> Listing:
        """List the pictures in the order of the CSV; see `Source.scan`."""
        records = self._records()
        columns, warnings = self._columns(next(records, (1, []))[1])
        rows: dict[str, _Row] = {}
        repeated = 0
        for line, fields in records:
            row = self._row(line, fields, columns)
            first = rows.setdefault(row.path, row)
            if first is not row:
                self._must_agree(first, row)
                repeated += 1
        self._refuse_missing_values(rows.values())
        samples, skips = self._find(rows)
        passed_over = {"repeated row": repeated} if repeated else {}
        return Listing(samples, passed_over, skips, (*warnings, *label_warnings(samples)))

    def read(self, path: str) -> bytes | np.ndarray:
        """Bytes of one picture; see `Source.read`."""
        return read_file(self._root, path)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Every record that is not a blank line, with the number of its first line."""
        line = 1
        if not self._file.is_file():
            raise root_missing(str(self._file))
        try:
            with self._file.open(
                encoding="utf-8-sig", errors="surrogateescape", newline=""
            ) as text:
                reader = csv.reader(text, strict=True)
                for fields in reader:
                    if fields:
                        yield line, fields
                    line = reader.line_num + 1
        except csv.Error as error:
            raise self._wrong(line, f"not valid CSV ({error})") from error
        except FileNotFoundError as error:
            raise root_missing(str(self._file)) from error
        except OSError as error:
            raise SourceError(f"{shown(str(self._file))}: {error.strerror}") from error

    def _columns(self, header: list[str]) -> tuple[list[str], list[str]]:
        """Names of the columns, and warnings about those that are not used."""
        columns = [name.strip().lower() for name in header]
        missing = [name for name in COLUMNS[:2] if name not in columns]
        if missing:
            raise self._wrong(
                1,
                f"the header ({name_some(header) or 'none'}) lacks {name_some(missing)}; "
                "it must be path,label[,split][,group], in UTF-8",
            )
        if twice := [name for name in COLUMNS if columns.count(name) > 1]:
            raise self._wrong(1, f"the header names {name_some(twice)} twice")
        unused = [name for name in columns if name not in COLUMNS]
        return columns, [f"columns that are not used: {name_some(unused)}"] if unused else []

    def _row(self, line: int, fields: list[str], columns: list[str]) -> _Row:
        if len(fields) != len(columns):
            raise self._wrong(
                line,
                f"{len(fields)} fields where the header has {len(columns)}; a field that holds a "
                'comma needs "quotes"',
            )
        values = dict(zip(columns, fields, strict=True))
        if not values["path"].strip():
            raise self._wrong(line, "the path is empty")
        if bad := [name for name in COLUMNS[1:] if _NO_UTF8.search(values.get(name, ""))]:
            raise self._wrong(line, f"the {bad[0]} is not UTF-8; save the CSV as UTF-8")
        return _Row(
            line=line,
            path=self._relative(values["path"]),
            labels=_labels(values["label"]),
            split=self._split(line, values.get("split", "")),
            group=values.get("group", "").strip() or None,
        )

    def _relative(self, path: str) -> str:
        return posixpath.normpath(path).removeprefix(f"{self._root.rstrip('/')}/")

    def _split(self, line: int, value: str) -> str | None:
        name = value.strip().lower()
        if name and name not in SPLITS:
            raise self._wrong(
                line, f"unknown split {shown(value)!r}; use train, val or test, or leave it empty"
            )
        return SPLITS.get(name)

    def _must_agree(self, first: _Row, row: _Row) -> None:
        if first.meaning != row.meaning:
            raise self._wrong(
                row.line,
                f"{shown(row.path)} stands in line {first.line} with another label, split or "
                "group; several labels of one picture are written a;b",
            )

    def _refuse_missing_values(self, rows: Iterable[_Row]) -> None:
        """A label or group that stands for none is not to become a class, or one large group."""
        wrong = [(row, name) for row in rows for name in (*row.labels, row.group) if _missing(name)]
        if wrong:
            row, name = wrong[0]
            raise self._wrong(
                row.line,
                f"{name!r} stands for a missing value, in {len(wrong)} rows; leave the field empty "
                "where a picture has no label or group, or remove those rows",
            )

    def _find(self, rows: dict[str, _Row]) -> tuple[list[Sample], list[tuple[str, str]]]:
        samples: list[Sample] = []
        skips: list[tuple[str, str]] = []
        for row in rows.values():
            try:
                key = stat_key(regular_stat(Path(self._root, row.path)))
            except PictureError as error:
                skips.append((row.path, str(error)))
            else:
                samples.append(Sample(row.path, row.labels, row.split, row.group, key))
        if not rows:
            raise SourceError(f"{shown(str(self._file))}: lists no pictures below its header")
        if not samples:
            path, reason = skips[0]
            raise SourceMissingError(
                f"{shown(str(self._file))}: none of its {len(rows)} pictures can be found, the "
                f"first is {shown(path)} ({reason}); relative paths start at the CSV's folder"
            )
        return samples, skips

    def _wrong(self, line: int, problem: str) -> SourceError:
        return SourceError(f"{shown(str(self._file))}:{line}: {problem}")


def _missing(name: str | None) -> bool:
    return name is not None and name.lower() in _MISSING


def _labels(field: str) -> tuple[str, ...]:
    """`a; b;a` -> ("a", "b")."""
    return tuple(dict.fromkeys(label.strip() for label in field.split(";") if label.strip()))
