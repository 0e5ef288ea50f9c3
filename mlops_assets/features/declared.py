"""Declared features against the computed frame: types, nulls and ranges, by partition.

Belongs here: bringing features into their declared types and saying what does not fit. Does not belong
here: computing them (``view.py``), what happens to a bad partition (``components/feature_view.py``).
The rules are those the HTTP contract holds a request to, so a model never trains on what it would refuse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.data.schema import ColumnType, conform
from mlops_assets.errors import DataError
from serve.schema import FeatureSpec, FeatureType

if TYPE_CHECKING:
    import pandas as pd

COLUMN_TYPES: Mapping[FeatureType, ColumnType] = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "category": "string",
}


@dataclass(frozen=True)
class Observed:
    """What a feature looks like over all rows: share of nulls, and range if it is a number."""

    feature: str
    type: FeatureType
    null_share: float
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class Problem:
    """A feature that breaks its declaration: which rule, in how many rows of which partition."""

    partition: str | None
    feature: str
    declared: str
    observed: str
    rows: int

    def __str__(self) -> str:
        return f"feature {self.feature!r} must be {self.declared}, but {self.rows} rows are {self.observed}"


@dataclass(frozen=True)
class Declared:
    """The table of a view: kept columns and features in declared types; what was seen; what is wrong."""

    frame: "pd.DataFrame"
    observed: Sequence[Observed]
    problems: Sequence[Problem]


def declare(
    computed: "pd.DataFrame",
    features: Sequence[FeatureSpec],
    *,
    keep: Sequence[str],
    partition_column: str | None = None,
) -> Declared:
    """The columns ``keep`` as they are, then the features in their declared order and types.

    A feature that is also kept (a join key) appears once, typed. Raises DataError naming the features
    and the available columns when the frame lacks one: no row of any partition could be right.
    """
    import pandas as pd

    absent = sorted({feature.name for feature in features} | set(keep) - set(computed.columns))
    absent = [name for name in absent if name not in computed.columns]
    if absent:
        raise DataError(
            f"The view declares {absent}, which no join, rolling aggregate or function produced. "
            f"Available columns: {', '.join(map(str, computed.columns))}."
        )
    source = computed.reset_index(drop=True)
    typed = conform(source, {feature.name: COLUMN_TYPES[feature.type] for feature in features})
    partitions = source[partition_column] if partition_column else None
    observed, problems = [], []
    for feature in features:
        values = typed.frame[feature.name]
        wrong = typed.wrong.get(feature.name)
        if wrong is not None:
            example = typed.examples[feature.name]
            problems += _problems(feature, feature.type, f"like {example}", wrong, partitions)
        lost = np.zeros(len(values), dtype=np.bool_) if wrong is None else wrong
        missing = values.isna().to_numpy(dtype=np.bool_) & ~lost
        if not feature.nullable:
            problems += _problems(feature, "present", "missing", missing, partitions)
        observed.append(_observed(feature, values))
        if feature.categories is not None:
            outside = (values.notna() & ~values.isin(feature.categories)).to_numpy(dtype=np.bool_)
            problems += _problems(
                feature, f"one of {', '.join(feature.categories)}", "another value", outside, partitions
            )
        if feature.type in ("number", "integer"):
            problems += _out_of_range(feature, values, partitions)
    kept = source[[name for name in keep if name not in typed.frame.columns]]
    return Declared(pd.concat([kept, typed.frame], axis=1), observed, problems)


def _out_of_range(feature: FeatureSpec, values: "pd.Series[Any]", partitions: Any) -> list[Problem]:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    problems = []
    if feature.minimum is not None:
        low = numbers < feature.minimum
        seen = f"as low as {np.nanmin(numbers):g}" if low.any() else ""
        problems += _problems(feature, f"at least {feature.minimum:g}", seen, low, partitions)
    if feature.maximum is not None:
        high = numbers > feature.maximum
        seen = f"as high as {np.nanmax(numbers):g}" if high.any() else ""
        problems += _problems(feature, f"at most {feature.maximum:g}", seen, high, partitions)
    return problems


def _problems(
    feature: FeatureSpec, declared: str, observed: str, rows: NDArray[np.bool_], partitions: Any
) -> list[Problem]:
    if not rows.any():
        return []
    if partitions is None:
        return [Problem(None, feature.name, declared, observed, int(rows.sum()))]
    counts = partitions[rows].value_counts().sort_index()
    return [Problem(str(key), feature.name, declared, observed, int(count)) for key, count in counts.items()]


def _observed(feature: FeatureSpec, values: "pd.Series[Any]") -> Observed:
    null_share = float(values.isna().mean()) if len(values) else 0.0
    minimum = maximum = None
    if feature.type in ("number", "integer") and values.notna().any():
        minimum, maximum = float(values.min()), float(values.max())
    return Observed(feature.name, feature.type, null_share, minimum, maximum)
