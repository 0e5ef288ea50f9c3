"""A declared feature view computed from frames: joins, rolling aggregates, a function, declared features.

Belongs here: the order of these steps, and what a look back of so many days means. Does not belong here:
how a join or an aggregate is computed (``point_in_time.py``), whether the values are valid
(``declared.py``), the declaration as YAML (``documents/feature_view.py``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.features.point_in_time import PastRows, RollingAggregate, as_of_join, left_join

if TYPE_CHECKING:
    import pandas as pd

CLOCK_CHANGE = timedelta(hours=1)
"""A local day may be this much shorter than 24 hours, so this much of the look back is not counted on."""


@dataclass(frozen=True)
class Join:
    """Columns of another dataset: of its last row known before the event, or by key alone.

    ``timestamp`` is the column that says when a row became known; ``tolerance`` goes with it.
    """

    dataset: str
    keys: Sequence[str]
    columns: Sequence[str]
    timestamp: str | None = None
    tolerance: timedelta | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Rolling:
    """A column ``name`` with an aggregate of earlier base rows."""

    name: str
    of: RollingAggregate


@dataclass(frozen=True)
class View:
    """What is computed. ``lookback`` is how far back rows are read for a day: None means all of them."""

    event_timestamp: str | None = None
    joins: Sequence[Join] = ()
    rolling: Sequence[Rolling] = ()
    lookback: timedelta | None = None
    transform: Callable[["pd.DataFrame"], "pd.DataFrame"] | None = None

    def longest_delay(self, window: timedelta) -> timedelta | None:
        """How late a row may become known and still count in ``window``; None: however late.

        A day computed alone reads only ``lookback`` of earlier rows. A row that became known so late that
        its own day lies before that must not count when a whole year is computed in one go either.
        """
        return None if self.lookback is None else self.lookback - CLOCK_CHANGE - window


def compute(
    view: View,
    base: "pd.DataFrame",
    joined: Mapping[str, "pd.DataFrame"],
    *,
    events: NDArray[np.bool_] | None = None,
    past: NDArray[np.bool_] | None = None,
) -> "pd.DataFrame":
    """The base rows marked by ``events`` (all if None) with every joined, rolling and computed column.

    ``base`` also holds the earlier rows that the aggregates look back on, marked by ``past`` (all rows if
    None); ``joined`` holds the datasets by name. Rows keep their order; the index is 0..n-1.

    Raises DataError naming the join, aggregate or function when a column is absent, a name is taken twice,
    the function raises, or does not give one row per event.
    """
    import pandas as pd

    base = base.reset_index(drop=True)
    chosen = base if events is None else base[events].reset_index(drop=True)
    frame = chosen
    for join in view.joins:
        with_join = _as_of if join.timestamp is not None else _by_key
        try:
            frame = with_join(view, join, frame, joined[join.dataset])
        except DataError as error:
            raise DataError(f"join with dataset {join.dataset!r}: {error}") from error
    aggregates: dict[str, Any] = {}
    history = PastRows(base, _event_timestamp(view), events, past) if view.rolling else None
    for one in view.rolling:
        if one.name in frame.columns:
            raise DataError(f"rolling {one.name!r}: the base or a join has a column of that name already")
        assert history is not None
        try:
            aggregates[one.name] = history.rolling(one.of, view.longest_delay(one.of.window))
        except DataError as error:
            raise DataError(f"rolling {one.name!r}: {error}") from error
    frame = pd.concat([frame, pd.DataFrame(aggregates, index=frame.index)], axis=1)
    return transformed(view, frame)


def compute_by_partition(
    view: View,
    base: "pd.DataFrame",
    joined: Mapping[str, "pd.DataFrame"],
    *,
    partition_column: str,
    partitions: Sequence[str],
    looks_back_on: Callable[[str], Collection[str]],
) -> "tuple[pd.DataFrame, dict[str, str]]":
    """As ``compute`` for the base rows of ``partitions``, and {partition: reason} of those that fail.

    When all together fail, each is computed by itself, on the partitions that it ``looks_back_on``; the
    others lose nothing by that, since no row depends on which partitions are computed with it. Raises
    DataError when every partition fails.
    """
    import pandas as pd

    of_row = base[partition_column]

    def one(wanted: Collection[str], rows: "pd.DataFrame") -> "pd.DataFrame":
        events = rows[partition_column].isin(wanted).to_numpy(dtype=bool)
        return compute(view, rows, joined, events=events)

    try:
        return one(partitions, base), {}
    except DataError:
        if len(partitions) == 1:
            raise
    made: list[pd.DataFrame] = []
    reasons: dict[str, str] = {}
    for key in partitions:
        try:
            made.append(one([key], base[of_row.isin(looks_back_on(key))]))
        except DataError as error:
            reasons[key] = str(error)
            last = error
    if not made:
        raise last
    return pd.concat(made, ignore_index=True), reasons


def _as_of(view: View, join: Join, frame: "pd.DataFrame", table: "pd.DataFrame") -> "pd.DataFrame":
    if join.timestamp is None or join.tolerance is None:
        raise DataError("a timestamp and a tolerance go together")
    return as_of_join(
        frame,
        table,
        keys=join.keys,
        event_time=_event_timestamp(view),
        known_at=join.timestamp,
        tolerance=join.tolerance,
        columns=join.columns,
        prefix=join.prefix,
    )


def _by_key(view: View, join: Join, frame: "pd.DataFrame", table: "pd.DataFrame") -> "pd.DataFrame":
    return left_join(frame, table, keys=join.keys, columns=join.columns, prefix=join.prefix)


def _event_timestamp(view: View) -> str:
    if view.event_timestamp is None:
        raise DataError("needs an event_timestamp; the view declares none")
    return view.event_timestamp


def transformed(view: View, frame: "pd.DataFrame") -> "pd.DataFrame":
    """The joined frame as the view's function makes it, where there is one.

    DataError naming the function when it raises, or does not give one row per event.
    """
    import pandas as pd

    transform = view.transform
    if transform is None:
        return frame
    name = f"{transform.__module__}.{transform.__qualname__}"
    try:
        result = transform(frame.copy())
    except Exception as error:  # the declaration's own code: whatever it raises is about these rows
        raise DataError(f"{name} failed with {type(error).__name__}: {error}") from error
    if not isinstance(result, pd.DataFrame):
        raise DataError(f"{name} returned a {type(result).__name__}, not a DataFrame")
    if len(result) != len(frame) or not result.index.equals(frame.index):
        raise DataError(
            f"{name} returned {len(result)} rows for {len(frame)} events; it must keep rows, order and index"
        )
    return result
