"""Answers of keys, recomputed by the offline view from the rows that had been applied. Pure.

Belongs here: recomputing logged rows, which features differ. Does not belong here: reading the log and the
lake (``assets/replayed.py``), computing online (``serve/online/``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.data.schema import ColumnType, conform
from mlops_assets.errors import DataError
from mlops_assets.features.declared import declare
from mlops_assets.features.view import View, compute
from mlops_assets.training.dictionary import plain_value
from serve.schema import FeatureSpec, FeatureValue

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LoggedRow:
    """One row of an answer to keys: what came, and the features that were scored."""

    answer_id: str
    row: int
    entity: Mapping[str, Any]
    request: Mapping[str, Any]
    features: Mapping[str, FeatureValue]

    @property
    def key(self) -> str:
        """Its join keys as text."""
        return json.dumps(dict(self.entity), ensure_ascii=False)


@dataclass(frozen=True)
class Skew:
    """A feature that was answered with another value than the offline view gives."""

    answer_id: str
    row: int
    key: str
    feature: str
    answered: FeatureValue
    offline: FeatureValue

    def __str__(self) -> str:
        return (
            f"feature {self.feature!r} of {self.key} was {self.answered!r} in the answer and is "
            f"{self.offline!r} offline (answer {self.answer_id}, row {self.row})"
        )


@dataclass(frozen=True)
class ReplayedView:
    """The offline view that answers are held against; ``types`` are those of its base."""

    view: View
    base: str
    types: Mapping[str, ColumnType]
    features: Sequence[FeatureSpec]


def skews(
    rows: Sequence[LoggedRow], replayed: ReplayedView, tables: "Mapping[str, pd.DataFrame]"
) -> list[Skew]:
    """Every feature of the rows that the view has another value for, given these tables.

    A row of the log is an event of the base that nothing looks back on: neither another event, nor itself.
    Raises DataError when the view cannot be computed.
    """
    import pandas as pd

    sent = pd.DataFrame([{**one.entity, **one.request} for one in rows], dtype=object)
    kinds = {name: kind for name, kind in replayed.types.items() if name in sent}
    for name in (name for name, kind in kinds.items() if kind == "timestamp"):
        sent[name] = pd.to_datetime(sent[name], utc=True, format="ISO8601")
    for name in (name for name, kind in kinds.items() if kind == "string"):
        sent[name] = [one if one is None else str(one) for one in sent[name]]
    typed = conform(sent, kinds)
    if typed.misfits:
        raise DataError(f"logged requests do not fit the types of dataset {replayed.base!r}: {typed.misfits}")
    earlier = tables.get(replayed.base)
    base = typed.frame if earlier is None else pd.concat([earlier, typed.frame], ignore_index=True)
    events = np.arange(len(base)) >= len(base) - len(rows)
    computed = compute(replayed.view, base, tables, events=events, past=~events)
    made = declare(computed, replayed.features, keep={}).frame
    found = []
    for feature in replayed.features:
        for number, one in enumerate(rows):
            offline = plain_value(made[feature.name].iloc[number], feature)
            answered = one.features.get(feature.name)
            if answered != offline:
                found.append(Skew(one.answer_id, one.row, one.key, feature.name, answered, offline))
    return found
