"""A declared view as a replica computes it, and rows of tables as its store has them. Pure.

Belongs here: from the offline view to ``serve.schema.OnlineView``, from frames to a store's rows. Does not
belong here: computing one event and the form of a store (``serve/online/``), the offline computation
(``view.py``), filling a store (``assets/online_features.py``).
"""

import ast
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.data.schema import ColumnType
from mlops_assets.features.point_in_time import NEVER, microseconds
from mlops_assets.features.view import Join, View
from serve.online.applying import Change
from serve.schema import OnlineJoin, OnlineRolling, OnlineView

if TYPE_CHECKING:
    import pandas as pd

MICROSECOND = timedelta(microseconds=1)
Types = Mapping[str, Mapping[str, ColumnType]]
"""{dataset: {column: its declared type}}."""


def online_view(view: View, types: Types, **declared: Any) -> OnlineView:
    """The view for a replica. ``declared``: the fields of ``OnlineView`` that a view does not have itself."""
    base = types[declared["base"]]
    columns = {name: base[name] for name in (*declared["entity"], *declared["request"])}
    return OnlineView(
        event_timestamp=view.event_timestamp,
        columns=columns,
        joins=tuple(_join(join, types[join.dataset]) for join in view.joins),
        rolling=tuple(
            OnlineRolling(
                name=one.name,
                keys=tuple(one.of.keys),
                known_at=one.of.known_at,
                window_us=one.of.window // MICROSECOND,
                aggregate=one.of.aggregate,
                value=one.of.value,
                above=one.of.above,
                longest_delay_us=_micros(view.longest_delay(one.of.window)),
            )
            for one in view.rolling
        ),
        **declared,
    )


def _join(join: Join, types: Mapping[str, ColumnType]) -> OnlineJoin:
    return OnlineJoin(
        dataset=join.dataset,
        keys=tuple(join.keys),
        columns=tuple(join.columns),
        kinds={name: types[name] for name in join.columns},
        prefix=join.prefix,
        timestamp=join.timestamp,
        tolerance_us=_micros(join.tolerance),
    )


def _micros(length: timedelta | None) -> int | None:
    return None if length is None else length // MICROSECOND


def changes_of(
    dataset: str,
    frame: "pd.DataFrame",
    types: Mapping[str, ColumnType],
    *,
    identity: Sequence[str],
    columns: Sequence[str],
) -> list[Change]:
    """Every row of a dataset as the state that a store has to take over, by its primary key."""
    held = {name: held_column(frame[name], types[name]) for name in dict.fromkeys([*identity, *columns])}
    return [
        Change(
            dataset,
            tuple(held[name][position] for name in identity),
            {name: held[name][position] for name in columns},
        )
        for position in range(len(frame))
    ]


def held_column(values: "pd.Series[Any]", kind: ColumnType) -> list[Any]:
    """A column as a store has it: plain values, times in microseconds, None where missing."""
    if kind == "timestamp":
        return [None if moment == NEVER else moment for moment in microseconds(values).tolist()]
    missing = values.isna().to_numpy(dtype=np.bool_)
    makers: Mapping[str, Any] = {"number": float, "integer": int, "boolean": bool, "date": _day}
    make = makers.get(kind, str)
    return [None if lost else make(value) for value, lost in zip(values.tolist(), missing, strict=True)]


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports; "." stands for its own."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).partition(".")[0])
    return found


def _day(value: date) -> str:
    return value.isoformat()
