"""The joined and aggregated columns of one event, from what a store holds. Pure.

Belongs here: searching runs and series, the aggregates. Does not belong here: their form (``held.py``), which
of them are kept (``kept.py``), the view's function (``transform.py``). The values are those of
``mlops_assets.features.view.compute``, to the bit: an event at t sees what became known in [t - length, t),
sums are exact and rounded once.

What does not depend on the event is made once: of a view the searches (``EventColumns``), of a run the rows
that count and their running sums (``Past``), so that a mean is two searches and one division.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, compress
from typing import Any, NamedTuple

from serve.online.held import HeldView, Run, Series, Values, key_text, values_of
from serve.schema import OnlineJoin

Place = tuple[Any, ...]
"""Where values of a store lie: the number of the line, or of the join after all lines, and the values."""
_LARGEST_TERM = 1 << 128
"""Running sums of larger terms would take more memory than they spare time."""


class Counted:
    """The rows of a run that count for some aggregates: when each became known, and its value."""

    def __init__(self, run: Run, column: int | None, longest_delay: int | None) -> None:
        self.known: Sequence[int] = run.known
        self._values: memoryview | array[float] | None = None if column is None else run.values[column]
        if longest_delay is not None and run.slack > longest_delay:
            self._keep([known - own <= longest_delay for known, own in zip(run.known, run.own, strict=True)])
        if self._values is not None and any(map(math.isnan, self._values)):
            self._keep([value == value for value in self._values])
        self._sums: tuple[Sequence[int], int] | None = None
        self._above: dict[float, Sequence[int]] = {}

    def _keep(self, counts: Sequence[bool]) -> None:
        self.known = array("q", compress(self.known, counts))
        if self._values is not None:
            self._values = array("d", compress(self._values, counts))

    def values(self, begin: int, end: int) -> list[float]:
        """The values of some rows."""
        assert self._values is not None
        found: list[Any] = self._values[begin:end].tolist()
        return found

    def quotient(self, begin: int, end: int, divisor: int) -> float:
        """The sum of some values divided by a whole number, rounded once."""
        if self._sums is None:
            self._sums = _running_sums(self.values(0, len(self.known)))
        sums, common = self._sums
        if sums:
            return (sums[end] - sums[begin]) / (common * divisor)
        return _quotient(self.values(begin, end), divisor)

    def above(self, begin: int, end: int, limit: float) -> int:
        """How many of some values are above a limit."""
        counts = self._above.get(limit)
        if counts is None:
            above = (value > limit for value in self.values(0, len(self.known)))
            counts = self._above[limit] = array("q", accumulate(above, initial=0))
        return counts[end] - counts[begin]


class Past:
    """The run of one line for every event that asks for it."""

    def __init__(self, content: bytes | None, values: int) -> None:
        self._run = Run(content, values)
        self._counted: dict[tuple[int | None, int | None], Counted] = {}

    def counted(self, asked: tuple[int | None, int | None]) -> Counted:
        """The rows that count where a column (None: no value) and a longest delay are asked for."""
        found = self._counted.get(asked)
        if found is None:
            found = self._counted[asked] = Counted(self._run, *asked)
        return found


class Joined:
    """The series of one join, or its row, for every event that asks for it."""

    def __init__(self, content: bytes | None, join: OnlineJoin) -> None:
        self._series, self._tolerance = Series(content), join.tolerance_us
        self._by_key_alone = join.timestamp is None or join.tolerance_us is None
        self._columns: dict[int, Sequence[Any]] = {}

    def columns(self, at: int | None) -> Sequence[Any] | None:
        """The joined columns of an event at that moment."""
        known = self._series.known
        if self._by_key_alone:
            return self._of(0) if len(known) else None
        if at is None:
            return None
        last = bisect_left(known, at) - 1
        return self._of(last) if last >= 0 and known[last] >= at - (self._tolerance or 0) else None

    def _of(self, position: int) -> Sequence[Any]:
        found = self._columns.get(position)
        if found is None:
            found = self._columns[position] = self._series.columns(position)
        return found


Parsed = Past | Joined


class _Search(NamedTuple):
    """Aggregates that the same rows of one line count for."""

    line: int
    asked: tuple[int | None, int | None]
    aggregates: Sequence[tuple[str, int, "Aggregate", float | None]]


class EventColumns:
    """What of a view is the same for every event."""

    def __init__(self, held: HeldView) -> None:
        view = held.view
        self._at, self._lines, self._joins = view.event_timestamp, held.lines, view.joins
        self._keys = [*(line.keys for line in held.lines), *(join.keys for join in view.joins)]
        self._names = [tuple(f"{join.prefix}{name}" for name in join.columns) for join in view.joins]
        searches: dict[tuple[int, tuple[int | None, int | None]], _Search] = {}
        for one in view.rolling:
            line = held.line(one)
            asked = (None if one.value is None else line.values.index(one.value), one.longest_delay_us)
            search = searches.setdefault((line.number, asked), _Search(line.number, asked, []))
            aggregate = (one.name, one.window_us, AGGREGATES[one.aggregate], one.above)
            searches[line.number, asked] = search._replace(aggregates=[*search.aggregates, aggregate])
        self._searches = tuple(searches.values())
        self._nothing = {line.number: Past(None, len(line.values)) for line in held.lines}

    def places(self, event: Values) -> list[Place | None]:
        """Where the values of an event lie, by line and then by join; None: a key is missing."""
        found: list[Place | None] = []
        for number, names in enumerate(self._keys):
            values = values_of(event, names)
            found.append(None if values is None else (number, *values))
        return found

    def key(self, place: Place) -> str:
        """The key of a store for a place."""
        number, *values = place
        joins = number - len(self._lines)
        return f"{number}:{key_text(values)}" if joins < 0 else f"j{joins}:{key_text(values)}"

    def parsed(self, place: Place, content: bytes | None) -> Parsed:
        """What lies at a place, ready for any event."""
        number = place[0]
        if number < len(self._lines):
            return Past(content, len(self._lines[number].values))
        return Joined(content, self._joins[number - len(self._lines)])

    def columns(self, event: Values, found: Sequence[Parsed | None]) -> dict[str, Any]:
        """Every joined and aggregated column of an event; ``found`` is what lies at its ``places``.

        Raises OverflowError for a sum that no float holds.
        """
        at = event[self._at] if self._at else None
        made: dict[str, Any] = {}
        first_join = len(self._lines)
        for number, names in enumerate(self._names, start=first_join):
            joined = found[number]
            values = joined.columns(at) if type(joined) is Joined else None
            made.update(zip(names, values or [None] * len(names), strict=True))
        for line, asked, aggregates in self._searches:
            past = found[line]
            if at is None or type(past) is not Past:
                past = self._nothing[line]
            counted = past.counted(asked)
            known = counted.known
            end = bisect_left(known, at or 0)
            for name, window, aggregate, above in aggregates:
                begin = bisect_left(known, (at or 0) - window, 0, end)
                made[name] = aggregate(counted, begin, end, above)
        return made


def _running_sums(values: Sequence[float]) -> tuple[Sequence[int], int]:
    """Exact sums of the first n values as whole numbers, and what they are multiples of a part of.

    No sums where a term is too large to be worth it, or is no number.
    """
    if all(map(float.is_integer, values)):
        terms, common = list(map(int, values)), 1
    else:
        if not all(map(math.isfinite, values)):
            return (), 1
        ratios = [value.as_integer_ratio() for value in values]
        # Denominators are powers of two: the largest is a multiple of all others.
        common = max(down for _, down in ratios)
        if common > _LARGEST_TERM:
            return (), 1
        terms = [up * (common // down) for up, down in ratios]
    if terms and max(map(abs, terms)) > _LARGEST_TERM:
        return (), 1
    sums = list(accumulate(terms, initial=0))
    try:
        return array("q", sums), common
    except OverflowError:
        return sums, common


def _quotient(values: Sequence[float], divisor: int) -> float:
    """The sum divided by a whole number, rounded once."""
    ratios = [value.as_integer_ratio() for value in values]
    common = max(down for _, down in ratios)
    # A quotient of integers is rounded once, whatever their size.
    return sum(up * (common // down) for up, down in ratios) / (common * divisor)


Aggregate = Callable[[Counted, int, int, float | None], float | None]


def _mean(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    return rows.quotient(begin, end, end - begin) if end > begin else None


def _sum(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    return rows.quotient(begin, end, 1) if end > begin else 0.0


def _count(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    return float(end - begin)


def _share(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    assert above is not None
    return rows.above(begin, end, above) / (end - begin) if end > begin else None


def _maximum(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    return max(rows.values(begin, end)) if end > begin else None


def _last(rows: Counted, begin: int, end: int, above: float | None) -> float | None:
    if end == begin:
        return None
    return max(rows.values(bisect_left(rows.known, rows.known[end - 1], begin, end), end))


AGGREGATES: Mapping[str, Aggregate] = {
    "mean": _mean,
    "sum": _sum,
    "count": _count,
    "share": _share,
    "max": _maximum,
    "last": _last,
}
"""From the rows that count, ``begin`` to ``end``, to a number; None stands for missing."""
