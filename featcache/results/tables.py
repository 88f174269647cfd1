"""Records as rows of plain cells, and those as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from featcache.extras import require_extra

if TYPE_CHECKING:
    from pandas import DataFrame

SUMMARY = "summary"
"""The table of one row that every record has."""

Row = dict[str, Any]
Rows = Sequence[Row]

_ENDS = ("low", "high")


def row_of(record: Any) -> Row:
    """The single values of a record by name; those of its parts behind the part's name.

    Both ends of an interval are columns: "ci95_low" and "ci95_high". What holds records or names
    values is a table of its own, and left out.
    """
    row: Row = {}
    for name, (kind, value) in _fields(record).items():
        if kind == "part" and value is not None:
            row |= {f"{name}_{inner}": one for inner, one in row_of(value).items()}
        elif kind == "interval" and value is not None:
            row |= {f"{name}_{end}": one for end, one in zip(_ENDS, value, strict=True)}
        elif kind in ("value", "values"):
            row[name] = value
    return row


def tables_of(record: Any) -> dict[str, Rows]:
    """The tables of a record: its summary, and each field that holds several things."""
    found = _fields(record)
    values = row_of(record)
    single = {name: value for name, value in values.items() if _kind(found, name) != "values"}
    tables: dict[str, Rows] = {SUMMARY: [single]}
    for name, (kind, value) in found.items():
        if isinstance(value, Mapping):
            tables[name] = [_named(str(key), one) for key, one in value.items()]
        elif kind in ("table", "values"):
            several = value or ()
            tables[name] = [row_of(one) if is_dataclass(one) else {name: one} for one in several]
    return tables


def frame_of(rows: Rows) -> DataFrame:
    """A data frame of rows, columns in the order in which they appear.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    return pandas().DataFrame(list(rows))


def pandas() -> Any:
    """The library, once it is needed.

    Raises:
        MissingExtraError: it is not installed.
    """
    require_extra("a data frame", ("pandas",), "frames", "take to_json()")
    import pandas

    return pandas


def _fields(record: Any) -> dict[str, tuple[str, Any]]:
    """Kind and value of each field."""
    kinds = _kinds(type(record))
    return {f.name: (kinds[f.name], getattr(record, f.name)) for f in fields(record)}


def _kind(found: dict[str, tuple[str, Any]], name: str) -> str:
    return found[name][0] if name in found else "value"


def _named(key: str, value: Any) -> Row:
    return {"name": key} | (row_of(value) if is_dataclass(value) else {"value": value})


@cache
def _kinds(record: type) -> dict[str, str]:
    """By field, what it is declared to hold: none of it may be there to be seen."""
    hints = get_type_hints(record)
    return {f.name: _kind_of(hints[f.name]) for f in fields(record)}


def _kind_of(hint: Any) -> str:
    (first, *_) = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    inner = get_args(first)
    if is_dataclass(first):
        return "part"
    if get_origin(first) is tuple:
        several = is_dataclass(inner[0]) or get_origin(inner[0]) is tuple
        if inner == (float, float):
            return "interval"
        return "table" if several else "values"
    holder = get_origin(first) or first
    return "table" if isinstance(holder, type) and issubclass(holder, Mapping) else "value"
