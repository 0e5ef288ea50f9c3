"""The joined and aggregated columns of one event, from what a store holds. Pure.

Belongs here: searching runs and series, the aggregates. Does not belong here: their form (``held.py``), the
view's function (``transform.py``). The values are those of ``mlops_assets.features.view.compute``, to the
bit: an event at t sees what became known in [t - length, t), sums are exact and rounded once.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from serve.online.held import HeldView, Line, Run, Series, Values, join_key
from serve.schema import OnlineJoin, OnlineRolling

Read = Mapping[str, bytes | None]
"""What was read of a store, by key."""
Floats = list[float]
_EXACT = 2.0**53


class Keys(NamedTuple):
    """Where the values of an event lie, by line and by join; None: a key is missing, and nothing matches."""

    lines: Sequence[str | None]
    joins: Sequence[str | None]

    def all(self) -> list[str]:
        """Those that are there."""
        return [key for key in (*self.lines, *self.joins) if key is not None]


def keys_for(held: HeldView, event: Values) -> Keys:
    """The keys of a store that the columns of an event are computed from."""
    return Keys(
        [line.key(event) for line in held.lines],
        [join_key(number, join, event) for number, join in enumerate(held.view.joins)],
    )


def columns(held: HeldView, event: Values, keys: Keys, read: Read) -> dict[str, Any]:
    """Every joined and aggregated column of an event, None where missing; values as a store has them.

    Raises OverflowError for a sum that no float holds.
    """
    at = event[held.view.event_timestamp] if held.view.event_timestamp else None
    made: dict[str, Any] = {}
    for join, key in zip(held.view.joins, keys.joins, strict=True):
        content = None if key is None else read.get(key)
        names = [f"{join.prefix}{name}" for name in join.columns]
        found = _joined(join, content, at)
        made.update(zip(names, found or [None] * len(names), strict=True))
    lines = {
        line.number: _Past(line, None if key is None else read.get(key), at)
        for line, key in zip(held.lines, keys.lines, strict=True)
    }
    for one in held.view.rolling:
        made[one.name] = lines[held.line(one).number].aggregate(one)
    return made


def _joined(join: OnlineJoin, content: bytes | None, at: int | None) -> Sequence[Any] | None:
    series = Series(content)
    if join.timestamp is None or join.tolerance_us is None:
        return series.columns(0) if len(series.known) else None
    if at is None:
        return None
    last = bisect_left(series.known, at) - 1
    return series.columns(last) if last >= 0 and series.known[last] >= at - join.tolerance_us else None


class _Past:
    """The run of one line for one event; what several aggregates need of it is looked for once."""

    def __init__(self, line: Line, content: bytes | None, at: int | None) -> None:
        self._run = Run(None if at is None else content, len(line.values))
        self._line, self._at = line, at or 0
        self._end = bisect_left(self._run.known, self._at)
        self._found: dict[tuple[int, int | None, str | None], tuple[Sequence[int], Floats]] = {}

    def aggregate(self, of: OnlineRolling) -> float | None:
        known, values = self._counted(of)
        return AGGREGATES[of.aggregate](known, values, of.above)

    def _counted(self, of: OnlineRolling) -> tuple[Sequence[int], Floats]:
        """When the rows that count became known, and their values."""
        asked = (of.window_us, of.longest_delay_us, of.value)
        if asked not in self._found:
            self._found[asked] = self._search(of)
        return self._found[asked]

    def _search(self, of: OnlineRolling) -> tuple[Sequence[int], Floats]:
        run, end = self._run, self._end
        begin = bisect_left(run.known, self._at - of.window_us, 0, end)
        known = run.known[begin:end].tolist()
        values: Floats = []
        if of.value is not None:
            values = run.values[self._line.values.index(of.value)][begin:end].tolist()
        if of.longest_delay_us is not None and run.slack > of.longest_delay_us:
            own, limit = run.own[begin:end], of.longest_delay_us
            counts = [moment - event <= limit for moment, event in zip(known, own, strict=True)]
            known, values = list(compress(known, counts)), list(compress(values, counts))
        if not all(value == value for value in values):
            counts = [value == value for value in values]
            known, values = list(compress(known, counts)), list(compress(values, counts))
        return known, values


def _quotient(values: Floats, divisor: int) -> float:
    """The sum divided by a whole number, rounded once."""
    if all(map(float.is_integer, values)) and sum(map(abs, values)) < _EXACT:
        return sum(values, 0.0) / divisor
    ratios = [value.as_integer_ratio() for value in values]
    # Denominators are powers of two: the largest is a multiple of all others. A quotient of integers is
    # rounded once, whatever their size.
    common = max(down for _, down in ratios)
    return sum(up * (common // down) for up, down in ratios) / (common * divisor)


def _mean(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    return _quotient(values, len(values)) if values else None


def _sum(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    return _quotient(values, 1) if values else 0.0


def _count(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    return float(len(known))


def _share(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    assert above is not None
    return sum(value > above for value in values) / len(values) if values else None


def _maximum(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    return max(values) if values else None


def _last(known: Sequence[int], values: Floats, above: float | None) -> float | None:
    return max(values[bisect_left(known, known[-1]) :]) if values else None


AGGREGATES: Mapping[str, Callable[[Sequence[int], Floats, float | None], float | None]] = {
    "mean": _mean,
    "sum": _sum,
    "count": _count,
    "share": _share,
    "max": _maximum,
    "last": _last,
}
"""From the rows that count to a number; None stands for missing."""
