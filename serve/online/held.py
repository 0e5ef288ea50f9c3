"""What a store holds for a view: which rows go where, and their form as bytes. Pure.

Belongs here: the lines of a view, keys and values of a store. Does not belong here: what is computed of them
(``evaluate.py``), which of them change (``applying.py``), any store (``stores/``).

A *line* is what aggregates with the same keys and the same ``known_at`` look back on. Of each line a store
has one run per key: its rows by the time they became known. A join with a timestamp has one series per key,
a join by key one row. Every row that stands in a run or series is held once by itself as well, so that a new
version of it can take the place of the old one. Equality of keys is that of their declared types.
"""

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from serve.schema import ColumnKind, OnlineJoin, OnlineRolling, OnlineView

HEAD = "head"
"""Key of the store's ``Head``."""
ROWS = "="
"""Keys of the rows themselves start with it."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Values = Mapping[str, Any]
"""Columns of a row: None where missing, timestamps in microseconds, dates as ISO text, else plain values."""

encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_NUMBER = 8
"""Bytes of a time or a value in a run. Runs are in the machine's order, which is little-endian everywhere."""


@dataclass(frozen=True)
class Head:
    """What a store knew, and when.

    ``applied``: per source how far it was read: a dataset's Delta version, or the next offset of a topic's
    partition. ``as_of``: Unix seconds at which that was everything there was. ``since``: the earliest event,
    in microseconds, that the rows suffice for; None: any. Where streams are followed, ``complete`` is up to
    which Unix seconds each of them was read to its end, ``judged`` by which rules their records became rows,
    and ``first`` the first day that is held, as text.
    """

    applied: Mapping[str, int]
    as_of: float
    since: int | None = None
    complete: Mapping[str, float] = field(default_factory=dict)
    judged: str | None = None
    first: str | None = None

    def to_bytes(self) -> bytes:
        """Equal heads give equal bytes."""
        head = {"applied": dict(sorted(self.applied.items())), "as_of": self.as_of, "since": self.since}
        complete = dict(sorted(self.complete.items())) or None
        followed = {"complete": complete, "judged": self.judged, "first": self.first}
        return encode(head | {name: one for name, one in followed.items() if one is not None}).encode()

    @classmethod
    def of(cls, content: bytes) -> "Head":
        return cls(**json.loads(content))


@dataclass(frozen=True)
class Line:
    """One line of a view. ``window`` and ``delay`` are the longest that an aggregate of it has."""

    number: int
    keys: tuple[str, ...]
    known_at: str
    values: tuple[str, ...]
    window: int
    delay: int | None

    def key(self, row: Values) -> str | None:
        """Where the run for a row's keys lies; None: one is missing, and nothing matches it."""
        found = key_of(row, self.keys)
        return None if found is None else f"{self.number}:{found}"


class RunRow(NamedTuple):
    """A row in a run: when it became known, its own event, its values (None: missing)."""

    known: int
    own: int
    values: tuple[float | None, ...]


class Run:
    """The rows of one key in a line, by the time they became known. ``slack``: the longest delay in it."""

    __slots__ = ("known", "own", "slack", "values")

    def __init__(self, content: bytes | None, values: int) -> None:
        numbers = memoryview(content or b"").cast("q")
        self.slack = numbers[0] if content else 0
        count = (len(numbers) - 1) // (2 + values) if content else 0
        self.known, self.own = numbers[1 : 1 + count], numbers[1 + count : 1 + 2 * count]
        floats: Any = memoryview(content or b"").cast("d")
        self.values = [
            floats[1 + (2 + position) * count : 1 + (3 + position) * count] for position in range(values)
        ]

    def entries(self) -> list[RunRow]:
        """The rows one by one."""
        columns = [[None if value != value else value for value in column] for column in self.values]
        rows = zip(*columns, strict=True) if columns else [()] * len(self.known)
        return [
            RunRow(known, own, tuple(row))
            for known, own, row in zip(self.known.tolist(), self.own.tolist(), rows, strict=True)
        ]


def run_bytes(entries: Iterable[RunRow]) -> bytes | None:
    """The form of a run; None for one without rows."""
    ordered = sorted(entries, key=lambda entry: entry.known)
    if not ordered:
        return None
    slack = max(entry.known - entry.own for entry in ordered)
    times = array("q", [slack])
    times.extend(entry.known for entry in ordered)
    times.extend(entry.own for entry in ordered)
    values = array("d")
    for position in range(len(ordered[0].values)):
        column = (entry.values[position] for entry in ordered)
        values.extend(math.nan if value is None else value for value in column)
    return times.tobytes() + values.tobytes()


Fact = tuple[int, tuple[Any, ...]]
"""A row of a series: when it became known, and the columns that the join takes of it."""


class Series:
    """The rows of one key in a join with a timestamp, by the time they became known."""

    def __init__(self, content: bytes | None) -> None:
        self._content = content or b""
        self.known = memoryview(b"").cast("q")
        if content:
            count = int.from_bytes(content[:_NUMBER], "little")
            self.known = memoryview(content)[_NUMBER : _NUMBER * (1 + count)].cast("q")
            ends = memoryview(content)[_NUMBER * (1 + count) : _NUMBER * (1 + 2 * count)].cast("q")
            self._ends, self._begin = ends, _NUMBER * (1 + 2 * count)

    def columns(self, position: int) -> list[Any]:
        """The joined columns of one row."""
        start = self._ends[position - 1] if position else 0
        found = self._content[self._begin + start : self._begin + self._ends[position]]
        return list(json.loads(found))

    def facts(self) -> list[Fact]:
        """The rows one by one."""
        return [(known, tuple(self.columns(at))) for at, known in enumerate(self.known)]


def series_bytes(facts: Iterable[Fact]) -> bytes | None:
    """The form of a series; None for one without rows. The one that counts of a moment is its last."""
    ordered = sorted(facts, key=_rank)
    if not ordered:
        return None
    texts = [encode(columns).encode() for _, columns in ordered]
    ends, reached = array("q"), 0
    for text in texts:
        reached += len(text)
        ends.append(reached)
    known = array("q", [known for known, _ in ordered])
    return b"".join([len(ordered).to_bytes(_NUMBER, "little"), known.tobytes(), ends.tobytes(), *texts])


def _rank(fact: Fact) -> tuple[int, tuple[tuple[bool, Any], ...]]:
    # As pandas sorts: a missing value comes after every other.
    known, columns = fact
    return known, tuple((value is None, 0 if value is None else value) for value in columns)


class HeldView:
    """Where the rows of a view's datasets stand in its store."""

    def __init__(self, view: OnlineView) -> None:
        self.view = view
        grouped: dict[tuple[tuple[str, ...], str], list[OnlineRolling]] = {}
        for one in view.rolling:
            grouped.setdefault((one.keys, one.known_at), []).append(one)
        self.lines = tuple(
            Line(
                number,
                keys,
                known_at,
                tuple(sorted({one.value for one in of if one.value is not None})),
                max(one.window_us for one in of),
                None
                if any(one.longest_delay_us is None for one in of)
                else max(one.longest_delay_us or 0 for one in of),
            )
            for number, ((keys, known_at), of) in enumerate(grouped.items())
        )

    def line(self, of: OnlineRolling) -> Line:
        """The line that an aggregate looks back on."""
        return self._by_aggregate[(of.keys, of.known_at)]

    @cached_property
    def _by_aggregate(self) -> dict[tuple[tuple[str, ...], str], Line]:
        return {(line.keys, line.known_at): line for line in self.lines}

    def joins(self, dataset: str) -> list[tuple[int, OnlineJoin]]:
        """The joins with a dataset, with their numbers."""
        return [(number, one) for number, one in enumerate(self.view.joins) if one.dataset == dataset]

    def columns(self, dataset: str) -> tuple[str, ...]:
        """The columns of a dataset that a store needs, sorted."""
        wanted: set[str] = set()
        if dataset == self.view.base:
            for line in self.lines:
                wanted |= {*line.keys, line.known_at, *line.values, str(self.view.event_timestamp)}
        for _, join in self.joins(dataset):
            wanted |= {*join.keys, *join.columns, *([join.timestamp] if join.timestamp else [])}
        return tuple(sorted(wanted))

    def entry(self, line: Line, row: Values) -> RunRow | None:
        """A row as it stands in a run; None: it is never known, or too late for any aggregate of the line."""
        own, known = row[str(self.view.event_timestamp)], row[line.known_at]
        if own is None or known is None:
            return None
        known = max(known, own)
        if line.delay is not None and known - own > line.delay:
            return None
        values = tuple(None if row[name] is None else float(row[name]) for name in line.values)
        return RunRow(known, own, values)


def join_key(number: int, join: OnlineJoin, row: Values) -> str | None:
    """Where the series, or the row, for a row's keys lies; None: one is missing, and nothing matches it."""
    found = key_of(row, join.keys)
    return None if found is None else f"j{number}:{found}"


def row_key(dataset: str, identity: Sequence[Any]) -> str:
    """Where a row itself lies; ``identity`` is its partition, if any, and the values of its primary key."""
    return f"{ROWS}{dataset}:{encode(list(identity))}"


def partition_prefix(dataset: str, partition: str) -> str:
    """What the keys of all rows of a partition start with."""
    return row_key(dataset, [partition])[:-1] + ","


def key_of(row: Values, names: Sequence[str]) -> str | None:
    """The values of keys as one text; None when one is missing."""
    values = values_of(row, names)
    return None if values is None else key_text(values)


def values_of(row: Values, names: Sequence[str]) -> tuple[Any, ...] | None:
    """The values of keys; None when one is missing."""
    values = tuple([row[name] for name in names])
    return None if None in values else values


def key_text(values: Sequence[Any]) -> str:
    """The values of keys as one text. 0.0 and -0.0 are one key, as they are equal."""
    return encode([value + 0.0 if type(value) is float else value for value in values])


# -- values ------------------------------------------------------------------------------------------


def held_value(value: Any, kind: ColumnKind) -> Any:
    """A plain value as a store has it: aware datetimes as microseconds, dates as text, NaN as None."""
    if value is None or value != value:
        return None
    if kind == "timestamp":
        return (value - EPOCH) // timedelta(microseconds=1)
    return value.isoformat() if kind == "date" else value


def plain_value(value: Any, kind: ColumnKind) -> Any:
    """The same value as a transform gets it: a datetime in UTC, a date, or as it is."""
    if value is None:
        return None
    if kind == "timestamp":
        return EPOCH + timedelta(microseconds=value)
    return date.fromisoformat(value) if kind == "date" else value
