"""The same comparison on every value of a column. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.compare import Comparison, compare
from mlops_assets.evaluation.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
MAX_VALUES = 20


@dataclass(frozen=True)
class Slice:
    """Rows where ``column`` is ``value``, and how the challenger does on them."""

    column: str
    value: str
    comparison: Comparison


def compare_slices(
    columns: "Mapping[str, pd.Series]",
    metric: Metric,
    target: Array,
    challenger: Array,
    other: Array,
    *,
    groups: NDArray[np.int64] | None,
    confidence: float,
    min_rows: int,
) -> list[Slice]:
    """One entry per column and value with at least ``min_rows`` rows, the 20 largest values a column."""
    found: list[Slice] = []
    for name, series in columns.items():
        values = series.astype("object").where(series.notna(), "(missing)").astype(str).to_numpy()
        names, counts = np.unique(values, return_counts=True)
        largest: Sequence[str] = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:MAX_VALUES]]
        for value in largest:
            rows = values == value
            if rows.sum() >= min_rows:
                part = compare(
                    metric,
                    target[rows],
                    challenger[rows],
                    other[rows],
                    groups=None if groups is None else groups[rows],
                    confidence=confidence,
                )
                found.append(Slice(name, value, part))
    return found
