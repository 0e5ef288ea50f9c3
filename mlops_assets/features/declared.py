"""Declared features against the computed frame: types, nulls and ranges, by partition.

Belongs here: bringing features into their declared types and saying what does not fit. Does not belong
here: computing them (``view.py``), what happens to a bad partition (``assets/feature_view.py``).
The rules are those the HTTP contract holds a request to, so a model never trains on what it would refuse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlops_assets.data.conversion import EXACT, LARGEST, SMALLEST
from mlops_assets.data.schema import ColumnType, Misfit, conform
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

What = Literal["feature", "column"]


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
    """A feature, or a column kept beside them, that breaks its declaration: which rule, in how many rows of
    which partition.
    """

    partition: str | None
    feature: str
    declared: str
    observed: str
    rows: int
    what: What = "feature"

    def __str__(self) -> str:
        return (
            f"{self.what} {self.feature!r} must be {self.declared}, but {self.rows} rows are {self.observed}"
        )


@dataclass(frozen=True)
class DeclaredFeatures:
    """The table of a view: kept columns and features in declared types; what was seen; what is wrong.

    ``failed`` says of partitions that no feature could be computed for why: ``frame`` has no row of theirs.
    """

    frame: "pd.DataFrame"
    observed: Sequence[Observed]
    problems: Sequence[Problem]
    failed: Mapping[str, str] = field(default_factory=dict)

    def reasons(self) -> dict[str, list[str]]:
        """{partition: what is wrong}; "all" stands for unpartitioned data."""
        found = {partition: [reason] for partition, reason in self.failed.items()}
        for problem in self.problems:
            found.setdefault(problem.partition or "all", []).append(str(problem))
        return found


def declare(
    computed: "pd.DataFrame",
    features: Sequence[FeatureSpec],
    *,
    keep: Mapping[str, ColumnType],
    event_timestamp: str | None = None,
    partition_column: str | None = None,
    failed: Mapping[str, str] | None = None,
) -> DeclaredFeatures:
    """The columns ``keep``, then the features in their declared order, all in their declared types.

    A feature that is also kept (a join key) appears once. Every row has the time of its event, where the view
    has one. ``failed`` is passed on. Raises DataError naming
    the features and the available columns when the frame lacks one: no row of any partition could be right.
    """
    absent = sorted({feature.name for feature in features} | set(keep) - set(computed.columns))
    absent = [name for name in absent if name not in computed.columns]
    if absent:
        raise DataError(
            f"The view declares {absent}, which no join, rolling aggregate or function produced. "
            f"Available columns: {', '.join(map(str, computed.columns))}."
        )
    source = computed.reset_index(drop=True)
    columns = stored_columns(keep, features)
    typed = conform(_with_categories(source, features, keep), columns)
    partitions = source[partition_column] if partition_column else None
    observed, problems = [], []
    for name, kind in keep.items():
        if name not in {feature.name for feature in features}:
            problems += _misfits(name, kind, typed.misfits.get(name), partitions, what="column")
    if event_timestamp is not None and event_timestamp not in typed.misfits:
        timeless = typed.frame[event_timestamp].isna().to_numpy(dtype=np.bool_)
        problems += _problems(event_timestamp, "present", "missing", timeless, partitions, what="column")
    for feature in features:
        values = typed.frame[feature.name]
        misfit = typed.misfits.get(feature.name)
        problems += _misfits(feature.name, feature.type, misfit, partitions)
        lost = np.zeros(len(values), dtype=np.bool_) if misfit is None else misfit.rows
        missing = values.isna().to_numpy(dtype=np.bool_) & ~lost
        if not feature.nullable:
            problems += _problems(feature.name, "present", "missing", missing, partitions)
        observed.append(_observed(feature, values))
        if feature.categories is not None:
            outside = (values.notna() & ~values.isin(feature.categories)).to_numpy(dtype=np.bool_)
            problems += _problems(
                feature.name, f"one of {', '.join(feature.categories)}", "another value", outside, partitions
            )
        if feature.type in ("number", "integer"):
            problems += _out_of_range(feature, values, partitions)
    return DeclaredFeatures(typed.frame, observed, problems, dict(failed or {}))


def category_text(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Whole numbers as the texts that they are as categories; all else, what is missing too, as it is."""
    import pandas as pd
    import pyarrow as pa

    if pd.api.types.is_integer_dtype(values.dtype):
        texts = pa.array(values, from_pandas=True).cast(pa.string())
        return pd.Series(texts.to_pandas(), index=values.index)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if values.dtype != object or "integer" not in pd.api.types.infer_dtype(values, skipna=True):
        return values
    found = [str(value) if _is_whole(value) else value for value in values]
    return pd.Series(found, index=values.index, dtype=object)


def _is_whole(value: object) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and SMALLEST <= int(value) <= LARGEST  # type: ignore[call-overload]


def _with_categories(
    source: "pd.DataFrame", features: Sequence[FeatureSpec], keep: Mapping[str, ColumnType]
) -> "pd.DataFrame":
    """The frame with its categories as text; a column that is also kept, like a join key, stays as it is."""
    names = [feature.name for feature in features if feature.type == "category" and feature.name not in keep]
    changed = {}
    for name in names:
        values = source[name]
        # A column that comes twice is a frame; conforming says so.
        texts = category_text(values) if values.ndim == 1 else values
        if texts is not values:
            changed[name] = texts
    return source.assign(**changed) if changed else source


def stored_columns(keep: Mapping[str, ColumnType], features: Sequence[FeatureSpec]) -> dict[str, ColumnType]:
    """Every column of a view's table, by its type, in order."""
    specs: dict[str, ColumnType] = {feature.name: COLUMN_TYPES[feature.type] for feature in features}
    return {**{name: kind for name, kind in keep.items() if name not in specs}, **specs}


def _misfits(
    name: str, kind: str, misfit: Misfit | None, partitions: Any, *, what: What = "feature"
) -> list[Problem]:
    if misfit is None:
        return []
    declared, observed = f"{kind} ({misfit.reason})", f"like {misfit.example}"
    return _problems(name, declared, observed, misfit.rows, partitions, what=what)


def _out_of_range(feature: FeatureSpec, values: "pd.Series[Any]", partitions: Any) -> list[Problem]:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    problems = []
    if feature.type == "integer":
        # A model takes 64-bit floats, and so the HTTP contract refuses what one does not hold exactly.
        beyond = ((values > EXACT) | (values < -EXACT)).fillna(False).to_numpy(dtype=np.bool_)
        problems += _problems(feature.name, "within -2^53 and 2^53", "beyond", beyond, partitions)
    if feature.minimum is not None:
        low = numbers < feature.minimum
        seen = f"as low as {np.nanmin(numbers):g}" if low.any() else ""
        problems += _problems(feature.name, f"at least {feature.minimum:g}", seen, low, partitions)
    if feature.maximum is not None:
        high = numbers > feature.maximum
        seen = f"as high as {np.nanmax(numbers):g}" if high.any() else ""
        problems += _problems(feature.name, f"at most {feature.maximum:g}", seen, high, partitions)
    return problems


def _problems(
    name: str,
    declared: str,
    observed: str,
    rows: NDArray[np.bool_],
    partitions: Any,
    *,
    what: What = "feature",
) -> list[Problem]:
    if not rows.any():
        return []
    if partitions is None:
        return [Problem(None, name, declared, observed, int(rows.sum()), what)]
    counts = partitions[rows].value_counts().sort_index()
    return [Problem(str(key), name, declared, observed, int(count), what) for key, count in counts.items()]


def _observed(feature: FeatureSpec, values: "pd.Series[Any]") -> Observed:
    null_share = float(values.isna().mean()) if len(values) else 0.0
    minimum = maximum = None
    if feature.type in ("number", "integer") and values.notna().any():
        minimum, maximum = float(values.min()), float(values.max())
    return Observed(feature.name, feature.type, null_share, minimum, maximum)
