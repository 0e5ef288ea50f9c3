"""Point-in-time joins and aggregates: what was known strictly before an event.

Belongs here: functions of data frames that add to each event what had become known before it. Does not
belong here: which joins and aggregates a view has (``view.py``), reading tables (``resources/lake.py``).

One rule holds everywhere: an event at time t sees what became known in [t - length, t). Something known
at t itself is not seen. Results do not depend on the order of the rows, nor on other rows being present
that are not in the window, to the last bit: the same day computed alone or within a year is the same.

Keys match when they are equal; a missing key matches nothing. Timestamps are pandas datetimes of any
unit, compared in microseconds; one without a time zone is taken as UTC. Missing timestamps are never known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError, UnknownName

if TYPE_CHECKING:
    import pandas as pd

Aggregate = Literal["mean", "sum", "count", "share", "max", "last"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = np.iinfo(np.int64).max
"""Microseconds of a missing timestamp: after every event."""

_THREADS = 2
_DIGITS = 53
_EXACT = 2**_DIGITS


def as_of_join(
    events: "pd.DataFrame",
    known: "pd.DataFrame",
    *,
    keys: Sequence[str],
    event_time: str,
    known_at: str,
    tolerance: timedelta,
    columns: Sequence[str],
    prefix: str = "",
) -> "pd.DataFrame":
    """``events`` with ``columns`` of the last row of ``known`` before each event.

    The last row is the one with the greatest ``known_at`` in [event - tolerance, event) among those with
    equal ``keys``; of several with the same time, the one that sorts last by ``columns``. Without such a
    row the columns are missing. Rows, their order and index, and all columns of ``events`` stay.

    Raises DataError when a column is absent, is not a timestamp, or is in ``events`` already.
    """
    import duckdb
    import pandas as pd

    _require(events, [*keys, event_time], "events")
    _require(known, [*keys, known_at, *columns], "the joined table")
    times = microseconds(known[known_at])
    candidates = known.loc[times != NEVER, list(dict.fromkeys([*keys, known_at, *columns]))]
    candidates = candidates.sort_values([known_at, *columns], kind="stable")
    candidates = candidates.drop_duplicates([*keys, known_at], keep="last").reset_index(drop=True)
    event_codes, known_codes = _key_codes(events, candidates, keys)
    left = pd.DataFrame(
        {"position": np.arange(len(events)), "key": event_codes, "at": microseconds(events[event_time])}
    )
    right = pd.DataFrame(
        {
            "row": np.arange(len(candidates)),
            "key": known_codes,
            "at": microseconds(candidates[known_at]),
        }
    )
    with duckdb.connect(":memory:", config={"threads": _THREADS}) as connection:
        connection.register("events", left[(left["key"] >= 0) & (left["at"] != NEVER)])
        connection.register("known", right[right["key"] >= 0])
        found = connection.execute(
            """
            SELECT events.position, known.row
            FROM events ASOF JOIN known ON events.key = known.key AND events.at > known.at
            WHERE known.at >= events.at - ?
            """,
            [_length(tolerance)],
        ).fetchnumpy()
    rows = np.full(len(events), -1, dtype=np.int64)
    rows[found["position"]] = found["row"]
    return _with_columns(events, candidates, rows, columns, prefix)


def left_join(
    events: "pd.DataFrame",
    table: "pd.DataFrame",
    *,
    keys: Sequence[str],
    columns: Sequence[str],
    prefix: str = "",
) -> "pd.DataFrame":
    """``events`` with ``columns`` of the one row of ``table`` that has equal ``keys``; missing without one.

    For facts that do not change over time. Raises DataError when ``table`` has two rows for one key:
    which of them is meant would be a guess, and joining both would add events.
    """
    _require(events, keys, "events")
    _require(table, [*keys, *columns], "the joined table")
    repeated = table[table[list(keys)].notna().all(axis=1) & table.duplicated(list(keys), keep=False)]
    if len(repeated):
        example = repeated.iloc[0][list(keys)].to_dict()
        raise DataError(
            f"The joined table has {len(repeated)} rows whose key {list(keys)} is not unique, for example "
            f"{example}. Make the key unique, or declare a timestamp to join the last row before the event."
        )
    event_codes, table_codes = _key_codes(events, table, keys)
    row_of = np.full(int(max(event_codes.max(initial=-1), table_codes.max(initial=-1))) + 2, -1, np.int64)
    row_of[table_codes] = np.arange(len(table))
    row_of[-1] = -1
    return _with_columns(events, table, row_of[event_codes], columns, prefix)


@dataclass(frozen=True)
class RollingAggregate:
    """An aggregate of the rows that became known in [event - window, event) and have the event's ``keys``.

    A row becomes known at ``known_at``, but never before its own event: so no row sees itself, and none sees
    an event after its own. Where a ``value`` is named, only rows that have one count; booleans count as 0
    and 1.

    mean, max, last: of ``value``; NaN when there are no rows; ``last`` of several known at the same time is
    the greatest. share: of the rows with ``value`` greater than ``above``; NaN when there are none. sum:
    0 when there are none. count: how many rows.

    Raises UnknownName for another aggregate, ValueError on an argument that is missing or too many.
    """

    keys: Sequence[str]
    known_at: str
    window: timedelta
    aggregate: Aggregate
    value: str | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise UnknownName("aggregate", self.aggregate, AGGREGATES)
        if self.aggregate != "count" and self.value is None:
            raise ValueError(f"aggregate {self.aggregate!r} needs a value")
        if (self.aggregate == "share") != (self.above is not None):
            raise ValueError("aggregate 'share' needs above, and only it takes above")


class PastRows:
    """Rows prepared for many aggregates over them: keys and times are encoded once, not once each.

    ``events`` marks the rows that are events, ``past`` those that are looked back on (all if None).
    """

    def __init__(
        self,
        frame: "pd.DataFrame",
        event_time: str,
        events: NDArray[np.bool_] | None = None,
        past: NDArray[np.bool_] | None = None,
    ) -> None:
        _require(frame, [event_time], "the base")
        self._frame, self._past = frame, past
        self._own = microseconds(frame[event_time])
        self._events = slice(None) if events is None else events
        self._at = self._own[self._events]
        self._codes: dict[tuple[str, ...], tuple[Integers, NDArray[np.intp]]] = {}
        self._known: dict[str, tuple[Integers, Integers, Integers]] = {}
        self._bounds: dict[tuple[str, int], Integers] = {}

    def rolling(self, of: RollingAggregate, longest_delay: timedelta | None = None) -> Floats:
        """One number per event, in their order.

        A row known later than ``longest_delay`` after its own event is never counted. Raises DataError when a
        column is absent or has the wrong type.
        """
        keys, known_at, value = tuple(of.keys), of.known_at, of.value
        _require(self._frame, [*keys, known_at, *([value] if value else [])], "the base")

        codes, event_order = self._coded(keys)
        known, ranks, moments = self._ranked(known_at)
        counted = (codes >= 0) & (known != NEVER)
        if self._past is not None:
            counted &= self._past
        if longest_delay is not None:
            counted &= known - self._own <= _length(longest_delay)
        values = _numbers(self._frame, value) if value else None
        if values is not None:
            counted &= ~np.isnan(values)
        # One integer per (key, moment), so that one search finds both; ranks keep it far from overflow.
        width = len(moments) + 1
        line = codes[counted] * width + ranks[counted]
        of_counted = np.zeros(len(line)) if values is None else values[counted]
        # Ties are ordered by value, so that the last one does not depend on the order of the rows.
        order = np.lexsort((of_counted, line)) if of.aggregate == "last" else np.argsort(line)
        line, ordered = line[order], of_counted[order]

        event_codes = codes[self._events][event_order] * width
        begin = self._bound(known_at, _length(of.window))[event_order]
        end = self._bound(known_at, 0)[event_order]
        first = np.searchsorted(line, event_codes + begin)
        last = np.searchsorted(line, event_codes + end)
        nothing = (event_codes < 0) | (self._at[event_order] == NEVER)
        first[nothing] = last[nothing] = 0
        if of.above is not None:
            ordered = (ordered > of.above).astype(np.float64)
        result = np.empty(len(event_order))
        result[event_order] = _aggregated(ordered, first, last, of.aggregate)
        return result

    def _coded(self, keys: tuple[str, ...]) -> tuple[Integers, NDArray[np.intp]]:
        """Key codes of all rows, and an order of the events in which searches are quick: key, then time."""
        if keys not in self._codes:
            codes = _codes(self._frame, keys)
            self._codes[keys] = codes, np.lexsort((self._at, codes[self._events]))
        return self._codes[keys]

    def _ranked(self, known_at: str) -> tuple[Integers, Integers, Integers]:
        """When rows became known, the rank of that moment, and the moments."""
        if known_at not in self._known:
            known = microseconds(self._frame[known_at])
            never = (known == NEVER) | (self._own == NEVER)
            known = np.where(never, NEVER, np.maximum(known, self._own))
            moments, ranks = np.unique(known, return_inverse=True)
            self._known[known_at] = known, ranks.astype(np.int64), moments
        return self._known[known_at]

    def _bound(self, known_at: str, length: int) -> Integers:
        """Per event, the rank of the first moment at or after (event - length)."""
        bound = (known_at, length)
        if bound not in self._bounds:
            moments = self._ranked(known_at)[2]
            self._bounds[bound] = np.searchsorted(moments, self._at - length).astype(np.int64)
        return self._bounds[bound]


def microseconds(times: "pd.Series[Any]") -> Integers:
    """Microseconds since 1970 UTC, ``NEVER`` where missing. DataError when it is not a timestamp column."""
    import pandas as pd

    if not pd.api.types.is_datetime64_any_dtype(times.dtype):
        raise DataError(f"column {times.name!r} has type {times.dtype}, not a timestamp")
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None) if times.dt.tz is not None else times
    numbers = utc.to_numpy().astype("datetime64[us]").astype(np.int64)
    return np.where(times.isna().to_numpy(), NEVER, numbers)


def _aggregated(ordered: Floats, first: Integers, last: Integers, aggregate: Aggregate) -> Floats:
    count = (last - first).astype(np.float64)
    if aggregate == "count":
        return count
    empty = last <= first
    if aggregate == "last":
        return np.where(empty, np.nan, np.append(ordered, np.nan)[last - 1])
    if aggregate == "max":
        return _range_maximum(ordered, first, last)
    if aggregate == "sum":
        return _range_sum(ordered, first, last, np.ones_like(count))
    sums = _range_sum(ordered, first, last, np.where(empty, 1.0, count))
    return np.where(empty, np.nan, sums)


def _range_sum(ordered: Floats, first: Integers, last: Integers, divisor: Floats) -> Floats:
    """Sum over each range divided by ``divisor`` (whole numbers), rounded once.

    Sums of floats depend on what was added before; sums of integers do not. So the numbers are added as
    integers: directly when they are whole, else as multiples of the smallest digit that any of them has.
    Raises DataError for a result beyond what a float holds.
    """
    if np.all(ordered == np.trunc(ordered)) and np.abs(ordered).max(initial=0) < _EXACT / (len(ordered) + 1):
        whole = np.concatenate([[0], np.cumsum(ordered.astype(np.int64))])
        return (whole[last] - whole[first]) / divisor
    fractions, exponents = np.frexp(ordered)
    digits = (fractions * _EXACT).astype(np.int64)
    least = int(exponents[digits != 0].min(initial=0))
    sums: list[int] = [0]
    for digit, exponent in zip(digits.tolist(), exponents.tolist(), strict=True):
        # Zero has an exponent of its own, and may be below the least of the others.
        sums.append(sums[-1] + (digit << (exponent - least) if digit else 0))
    # In Python a quotient of integers is rounded once, whatever their size.
    up, down = max(least - _DIGITS, 0), max(_DIGITS - least, 0)
    try:
        return np.array(
            [
                ((sums[end] - sums[start]) << up) / (int(parts) << down)
                for start, end, parts in zip(first.tolist(), last.tolist(), divisor.tolist(), strict=True)
            ],
            dtype=np.float64,
        )
    except OverflowError as error:
        raise DataError("a sum of its values is beyond the largest number, 1.8e308") from error


def _range_maximum(ordered: Floats, first: Integers, last: Integers) -> Floats:
    """Maximum over each range, from maxima over all ranges of a power of two: two of them cover any range."""
    result = np.full(len(first), np.nan)
    lengths = last - first
    level, maxima = 1, ordered
    while True:
        mine = (lengths >= level) & (lengths < 2 * level)
        result[mine] = np.maximum(maxima[first[mine]], maxima[last[mine] - level])
        if not (lengths >= 2 * level).any():
            return result
        maxima = np.maximum(maxima[: len(maxima) - level], maxima[level:])
        level *= 2


def _numbers(frame: "pd.DataFrame", name: str) -> Floats:
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(frame[name].dtype):
        raise DataError(f"column {name!r} has type {frame[name].dtype}; an aggregate needs numbers")
    numbers = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        raise DataError(f"column {name!r} has {int(np.isinf(numbers).sum())} infinite values")
    if pd.api.types.is_integer_dtype(frame[name].dtype):
        beyond = int(((frame[name] > _EXACT) | (frame[name] < -_EXACT)).sum())
        if beyond:
            raise DataError(
                f"column {name!r} has {beyond} whole numbers beyond 2^53: no float holds them all"
            )
    return numbers


def _codes(frame: "pd.DataFrame", keys: Sequence[str]) -> Integers:
    """One integer per combination of key values; -1 when any is missing. Without keys all rows are one."""
    import pandas as pd

    codes = np.zeros(len(frame), dtype=np.int64)
    missing = np.zeros(len(frame), dtype=np.bool_)
    for key in keys:
        own, values = pd.factorize(frame[key])
        missing |= own < 0
        codes = codes * (len(values) + 1) + own
        # Renumbered at every step: products of many keys would not fit.
        codes = pd.factorize(codes)[0].astype(np.int64)
    return np.where(missing, -1, codes)


def _key_codes(
    events: "pd.DataFrame", table: "pd.DataFrame", keys: Sequence[str]
) -> tuple[Integers, Integers]:
    import pandas as pd

    both = pd.DataFrame(
        {key: pd.concat([events[key], table[key]], ignore_index=True) for key in keys},
        index=range(len(events) + len(table)),
    )
    codes = _codes(both, keys)
    return codes[: len(events)], codes[len(events) :]


def _with_columns(
    events: "pd.DataFrame", table: "pd.DataFrame", rows: Integers, columns: Sequence[str], prefix: str
) -> "pd.DataFrame":
    """``events`` with ``columns`` of ``table`` at ``rows``; -1 stands for no row."""
    import pandas as pd

    names = {column: f"{prefix}{column}" for column in columns}
    taken = sorted(set(names.values()) & set(events.columns))
    if taken:
        raise DataError(f"Joined columns {taken} exist in the events already. Give the join a prefix.")
    added = {}
    for column, name in names.items():
        values = table[column]
        if (rows < 0).any() and pd.api.types.is_bool_dtype(values.dtype):
            values = values.astype("boolean")
        elif (rows < 0).any() and pd.api.types.is_integer_dtype(values.dtype):
            values = values.astype("Int64")
        found = values.reset_index(drop=True).reindex(rows)
        found.index = events.index
        added[name] = found
    joined = pd.concat([events, pd.DataFrame(added, index=events.index)], axis=1)
    assert len(joined) == len(events)
    return joined


def _length(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def _require(frame: "pd.DataFrame", columns: Sequence[str], what: str) -> None:
    absent = sorted(set(columns) - set(frame.columns))
    if absent:
        raise DataError(f"Columns {absent} are not in {what}. It has: {', '.join(map(str, frame.columns))}.")
