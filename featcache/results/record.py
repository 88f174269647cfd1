"""What all records have in common: JSON, data frames, and how they look in a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from featcache.errors import TableError
from featcache.results.looking import Shown, cell, html_table
from featcache.results.tables import SUMMARY, Rows, frame_of, tables_of

if TYPE_CHECKING:
    from pandas import DataFrame

_SHORTEST = 8
"""Facts of a record that says nothing else of itself."""

MOST_ROWS = 10
"""Of a table in a notebook."""


def _plain(value: Any) -> Any:
    """Records, tuples and mappings as JSON's own types; what is no number in JSON is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _kinds(record: type) -> dict[str, Any]:
    """Declared types of the fields that a record is made of."""
    hints = get_type_hints(record)
    return {f.name: hints[f.name] for f in fields(record) if f.init}


def _made(record: type, document: Any) -> Any:
    if not isinstance(document, Mapping):
        raise ValueError(f"{record.__name__}: {document!r:.40} is no object")  # noqa: TRY004
    kinds = _kinds(record)
    given = {name: document[name] for name in kinds if name in document}
    try:
        return record(**{name: _typed(kinds[name], value) for name, value in given.items()})
    except TypeError as error:
        raise ValueError(f"{record.__name__}: {error}") from error


def _typed(kind: Any, value: Any) -> Any:
    """What `_plain` made of a value of a declared type, as it was."""
    if isinstance(kind, type) and issubclass(kind, dict) and kind is not dict:
        (kind,) = kind.__orig_bases__  # pyright: ignore[reportAttributeAccessIssue] - of a generic
    inner = get_args(kind)
    if kind is float and value is None:  # JSON has no other word for it
        return math.nan
    if get_origin(kind) is UnionType:
        if value is None and NoneType in inner:
            return None
        kinds = [k for k in inner if k is not NoneType]
        return _typed(next((k for k in kinds if type(value) is k), kinds[0]), value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], item) for item in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _typed(inner[1], item) for name, item in value.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return _made(kind, value)
    if not isinstance(value, _PLAIN.get(get_origin(kind) or kind, object)):
        raise ValueError(f"{value!r:.40} is not of type {kind}")  # noqa: TRY004
    return value


_PLAIN: dict[Any, Any] = {
    bool: bool,
    str: str,
    int: int,
    float: (float, int),
    dict: dict,
    tuple: tuple,
}
"""By declared type, what JSON has for it."""


class Record(Shown):
    """Parent of what commands return."""

    _main: ClassVar[str] = SUMMARY
    """The table that `to_frame` gives unless another is named."""

    _shown: ClassVar[tuple[str, ...]] = ()
    """The tables that stand in a notebook, as far as they have rows."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep dataclasses from printing every number of a record."""
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):
            cls.__repr__ = Shown.__repr__

    def to_json(self) -> dict[str, Any]:
        """The record as JSON's own types, with the keys that `--json` prints.

        JSON has no infinity and no NaN: such a number is null.
        """
        return _plain(self)

    def to_frame(self, table: str | None = None) -> DataFrame:
        """One of the record's tables as a pandas data frame.

        Args:
            table: a field that holds several things ("path", "skipped"), a row for each; or
                "summary", one row of all single values, those of parts named after the part
                ("estimate_accuracy"). None: the record's main table. It has no rows where nothing
                of the kind was asked for or found.

        Raises:
            MissingExtraError: pandas is not installed.
            TableError: there is no such table.
        """
        return frame_of(self._rows(table or self._main))

    def tables(self) -> tuple[str, ...]:
        """Names of the tables that `to_frame` gives."""
        return tuple(self._tables())

    def _rows(self, table: str) -> Rows:
        tables = self._tables()
        if table not in tables:
            there = ", ".join(tables)
            raise TableError(f"{type(self).__name__} has no table {table!r}; there are: {there}")
        return tables[table]

    def _tables(self) -> dict[str, Rows]:
        return tables_of(self)

    def _headline(self) -> dict[str, str]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        told = {
            name.replace("_", " "): cell(len(value) if isinstance(value, (tuple, dict)) else value)
            for name, value in values.items()
            if not is_dataclass(value) and value is not None
        }
        return dict(list(told.items())[:_SHORTEST])

    def _repr_html_(self) -> str:
        """Headline and tables, for a notebook."""
        parts = [super()._repr_html_()]
        for name in self._shown:
            if rows := self._rows(name):
                more = f"to_frame({name!r})" if len(rows) > MOST_ROWS else ""
                parts.append(html_table(rows[:MOST_ROWS], title=name, total=len(rows), more=more))
        return "".join(parts)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The record that `to_json` made plain; keys that are no fields are passed over.

        Raises:
            ValueError: a field is missing or does not fit.
        """
        return _made(cls, document)
