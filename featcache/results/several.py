"""Several records of one kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from featcache.results.looking import html_table
from featcache.results.record import MOST_ROWS, Record
from featcache.results.tables import frame_of, row_of

if TYPE_CHECKING:
    from pandas import DataFrame

Item = TypeVar("Item", bound=Record, covariant=True)


class Records(tuple[Item, ...], Generic[Item]):
    """Records of one kind: a tuple that is a table in a notebook, and gives a data frame.

    `fc.Records(fc.probe(cache) for cache in caches).to_frame()` is a row for each result.
    """

    __slots__ = ()

    def __new__(cls, records: Iterable[Item] = ()) -> Self:
        """Take them in their order."""
        return super().__new__(cls, records)

    def to_json(self) -> list[Any]:
        """Each as `Record.to_json` gives it."""
        return [record.to_json() for record in self]

    def to_frame(self) -> DataFrame:
        """A row for each, of all its single values; see `Record.to_frame`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return frame_of([row_of(record) for record in self])

    def __repr__(self) -> str:
        kind = type(self[0]).__name__ if self else "record"
        return f"<{type(self).__name__}: {len(self)} of {kind}>"

    def _repr_html_(self) -> str:
        """A table of the first of them, for a notebook."""
        rows = [row_of(record) for record in self[: 2 * MOST_ROWS]]
        more = "to_frame()" if len(self) > len(rows) else ""
        return html_table(rows, title="", total=len(self), more=more)
