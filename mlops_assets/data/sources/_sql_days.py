"""Days of rows in a database: what their column holds, which predicate takes them, which day a row is of.

Belongs here: pure translations of days into bounds, expressions and keys. Does not belong here: talking to
the database (``sql.py``).

A day is a calendar day of the declared time zone. A timestamp without a zone is UTC, as in every conversion;
of a text the first ten characters are its day.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import sqlalchemy as sa

from mlops_assets.data.sources._spans import Span
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

DayKind = Literal["date", "timestamp", "instant", "text"]
"""What a column of days holds: dates, timestamps without a zone, with one, or ISO 8601 text."""
UTC = "UTC"
DAY_LENGTH = 10


@dataclass(frozen=True)
class Days:
    """The column of days ``column``, in the time zone ``zone``; ``where`` is what errors call the source."""

    column: str
    kind: DayKind
    zone: str
    where: str

    @classmethod
    def told_by(cls, value: Any, column: str, zone: str, where: str) -> "Days":
        """As a value of the column tells; DataError for one that says no day."""
        if isinstance(value, dt.datetime):
            return cls(column, "timestamp" if value.tzinfo is None else "instant", zone, where)
        if isinstance(value, dt.date):
            return cls(column, "date", zone, where)
        if isinstance(value, str):
            if zone != UTC:
                raise DataError(
                    f"{where}: column {column!r} holds text, like {value[:40]!r}, whose days are written "
                    f"out and not of the time zone {zone}. Leave time_zone out, or make the day in a query."
                )
            return cls(column, "text", zone, where)
        raise DataError(
            f"{where}: column {column!r} holds {type(value).__name__}, like {str(value)[:40]!r}, which says "
            "no day: it is a date, a timestamp or ISO 8601 text. Make the day in a query."
        )

    def within(self, some: Sequence[Span]) -> sa.ColumnElement[bool]:
        """The predicate of the spans' rows, with bound values only, as an index takes it."""
        column: sa.ColumnClause[Any] = sa.column(self.column)
        return sa.or_(
            *(sa.and_(column >= self._bound(one.first), column < self._bound(one.after)) for one in some)
        )

    def _bound(self, day: dt.date) -> Any:
        if self.kind == "date":
            return day
        if self.kind == "text":
            return day.isoformat()
        start = self._start(day)
        return start if self.kind == "instant" else start.replace(tzinfo=None)

    def _start(self, day: dt.date) -> dt.datetime:
        """The first instant of a day."""
        return dt.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone)).astimezone(dt.UTC)

    def expression(self, dialect: str) -> sa.ColumnElement[Any]:
        """The day of a row, as the database computes it; DataError where it cannot."""
        column: sa.ColumnClause[Any] = sa.column(self.column)
        if self.kind == "date":
            return column
        if self.kind == "text":
            return sa.func.substr(column, 1, DAY_LENGTH)
        if dialect == "postgresql":
            utc, zone = (sa.cast(sa.literal(name), sa.Text) for name in (UTC, self.zone))
            instant = sa.func.timezone(utc, column) if self.kind == "timestamp" else column
            return sa.cast(sa.func.timezone(zone, instant), sa.Date)
        if self.kind == "timestamp" and self.zone == UTC:
            return sa.cast(column, sa.Date)
        raise DataError(
            f"{self.where}: days of the time zone {self.zone} of column {self.column!r} can be counted on "
            "PostgreSQL only. Make the day in a query and name it as day_column."
        )

    def keys(self, values: "pa.ChunkedArray[Any]", asked: Sequence[str]) -> "pa.Array[Any]":
        """The day of each row among ``asked``, as text."""
        import pyarrow as pa
        import pyarrow.compute as pc

        array = values.combine_chunks()
        if pa.types.is_null(array.type):
            return array.cast(pa.string())
        if self.kind == "date" and pa.types.is_date(array.type):
            return array.cast(pa.string())
        if self.kind == "text" and pa.types.is_string(array.type):
            return pc.utf8_slice_codeunits(array, 0, DAY_LENGTH)
        if self.kind in ("timestamp", "instant") and pa.types.is_timestamp(array.type):
            days = sorted(set(asked))
            starts = [self._start(dt.date.fromisoformat(day)) for day in days]
            bounds = pa.array(starts, pa.timestamp("us", tz=UTC)).cast(pa.int64()).to_numpy()
            micros = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
            positions = np.searchsorted(bounds, micros, side="right") - 1
            return pa.array(days, pa.string()).take(pa.array(positions))
        raise DataError(f"{self.where}: column {self.column!r} holds values of several types: {array.type}.")


def day_text(value: Any) -> str:
    """A day that the database computed, as the key of its partition."""
    if isinstance(value, dt.datetime):
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, dt.date) else str(value)
