"""What the training rows teach about each input: category dictionaries, examples, golden rows. Pure.

Belongs here: filling declared feature specs from data. Does not belong here: encoding with them
(``serve/scoring.py``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.schema import FeatureSpec, FeatureValue

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 250
"""The most categories a dictionary holds; the rarest beyond it are scored as missing."""


def with_dictionaries(frame: "pd.DataFrame", features: Sequence[FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """The specs with ``categories`` (most frequent first, then by name) and ``example`` filled in.

    A dictionary or example that was declared stays as it is. Depends on the rows, not on their order.
    """
    filled = []
    for feature in features:
        values = frame[feature.name].dropna()
        changes: dict[str, Any] = {}
        if feature.type == "category" and feature.categories is None:
            counts = values.astype(str).value_counts()
            ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
            changes["categories"] = tuple(str(name) for name, _ in ranked[:MAX_CATEGORIES])
        if feature.example is None and len(values):
            typical = (
                values.astype(str).mode()[0]
                if feature.type == "category"
                else values.quantile(0.5, interpolation="nearest")
                if feature.type != "boolean"
                else bool(values.mode()[0])
            )
            changes["example"] = plain_value(typical, feature)
        filled.append(feature.model_copy(update=changes))
    return tuple(filled)


def plain_value(value: Any, feature: FeatureSpec) -> FeatureValue:
    """A cell of a frame as the JSON value of the HTTP contract; missing is None."""
    import pandas as pd

    if value is None or pd.isna(value):
        return None
    if feature.type == "category":
        return str(value)
    if feature.type == "boolean":
        return bool(value)
    if feature.type == "integer":
        return int(value)
    return float(value)


def row_values(
    frame: "pd.DataFrame", position: int, features: Sequence[FeatureSpec]
) -> dict[str, FeatureValue]:
    """One row as the ``features`` object of a request."""
    return {feature.name: plain_value(frame[feature.name].iloc[position], feature) for feature in features}


def golden_positions(frame: "pd.DataFrame", features: Sequence[FeatureSpec], *, count: int) -> list[int]:
    """Positions of rows that together show as much as possible: spread evenly, and with missing values.

    First the row with the most missing values among nullable features, then rows at equal distances.
    Only rows that the contract accepts (required values present, within range) are taken.
    """
    valid = np.ones(len(frame), dtype=bool)
    for feature in features:
        values = frame[feature.name]
        if not feature.nullable:
            valid &= values.notna().to_numpy()
        if feature.minimum is not None:
            valid &= ~(values < feature.minimum).fillna(False).to_numpy(dtype=bool)
        if feature.maximum is not None:
            valid &= ~(values > feature.maximum).fillna(False).to_numpy(dtype=bool)
        if feature.type == "category" and feature.unseen == "reject":
            valid &= (values.isna() | values.astype(str).isin(feature.categories or ())).to_numpy()
    candidates = np.flatnonzero(valid)
    if not len(candidates):
        return []
    missing = frame[[feature.name for feature in features]].isna().sum(axis=1).to_numpy()
    chosen = [int(candidates[np.argmax(missing[candidates])])]
    for position in np.linspace(0, len(candidates) - 1, num=count, dtype=np.int64):
        if int(candidates[position]) not in chosen:
            chosen.append(int(candidates[position]))
    return chosen[:count]
