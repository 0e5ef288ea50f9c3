"""Real rows in a model package that hold a transform on one row to the one on frames.

Belongs here: which rows, what both transforms make of them. Does not belong here: proving them where they are
loaded (``serve/online/transform.py``), golden rows of the model itself (``training/package.py``).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.assets.feature_view import FeatureTable, joined_columns
from mlops_assets.assets.online_filling import moment_text
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.errors import DataError
from mlops_assets.features.declared import declare
from mlops_assets.features.online import held_column
from mlops_assets.features.view import compute, transformed
from mlops_assets.resources.lake import Lake
from mlops_assets.training.dictionary import plain_value
from serve.online.transform import ExampleMismatch, TransformFailed, column_kinds, verify_examples
from serve.schema import ColumnKind, OnlineExample, OnlineView

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 16


def with_examples(lake: Lake, served: OnlineTable, *, until: str) -> OnlineView:
    """The view with rows for which its transform on one row has to give the offline features.

    They are of the newest day with rows up to ``until``, of all rows where the base has no partitions: the
    same rows for the same tables. Raises DataError when there are none, when the two transforms differ, and
    when the one on frames needs a column of the base that does not come with the request.
    """
    view, table = served.online, served.table
    if view.transform is None:
        return view
    base, day = _newest_day(lake, table, until)
    joined = {
        name: _with_lookback(lake, table, name, columns, day)
        for name, columns in joined_columns(table.declared).items()
    }
    partitions = table.base.partitions
    chosen = (base[partitions.column] == day).to_numpy(dtype=np.bool_) if partitions else None
    given = compute(replace(table.view, transform=None), base, joined, events=chosen)
    # Of the base, a transform sees online what comes with the request, and so nothing else may matter.
    kinds = column_kinds(view)
    made = declare(transformed(table.view, given[list(kinds)]), table.declared.features, keep={}).frame
    places = np.unique(np.linspace(0, len(given) - 1, num=EXAMPLES, dtype=np.int64))
    rows = {name: _texts(given[name].iloc[places], kind) for name, kind in kinds.items()}
    examples = tuple(
        OnlineExample(
            row={name: values[number] for name, values in rows.items()},
            features={
                one.name: plain_value(made[one.name].iloc[place], one) for one in table.declared.features
            },
        )
        for number, place in enumerate(places.tolist())
    )
    proven = view.model_copy(update={"examples": examples})
    try:
        verify_examples(proven, table.declared.features)
    except (ExampleMismatch, TransformFailed) as error:
        raise DataError(str(error)) from error
    return proven


def _texts(values: "pd.Series[Any]", kind: ColumnKind) -> list[Any]:
    """A column as a request has it."""
    held = held_column(values, kind)
    return [None if one is None else moment_text(one) for one in held] if kind == "timestamp" else held


def _newest_day(lake: Lake, table: FeatureTable, until: str) -> "tuple[pd.DataFrame, str | None]":
    """Rows of the base up to a day, in the order of time and keys, and that day; None: there are no days."""
    declared, columns = table.declared, list(table.base.columns)
    day = None
    if table.base.partitions is not None:
        days = lake.partition_keys(table.base.table().name)
        day = max((key for key in days if key <= until), default=days[0] if days else "")
    base = _with_lookback(lake, table, declared.base, columns, day)
    if base.empty:
        raise DataError(f"dataset {declared.base!r} has no rows that could be examples")
    by = [*([declared.event_timestamp] if declared.event_timestamp else []), *declared.entity.join_keys]
    return base.sort_values(by, kind="stable"), day


def _with_lookback(
    lake: Lake, table: FeatureTable, name: str, columns: Sequence[str], day: str | None
) -> "pd.DataFrame":
    declared = table.datasets[name]
    if day is None or declared.partitions is None:
        return declared.table().read(lake, columns=columns)
    return lake.read(
        declared.table().name,
        partitions=table.with_lookback([day], declared.partitions),
        partition_column=declared.partitions.column,
        columns=columns,
    )
