"""The same comparison on every value of a column. Pure.

Belongs here: which rows make a slice, and its comparison. Does not belong here: how much a slice may
lose (``gate.py``).
"""

from collections.abc import Mapping
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
    """One entry per column and value with at least ``min_rows`` rows, the 20 largest values a column.

    ``confidence`` holds for all slices together (Bonferroni 1936): among twenty slices of an equal
    model one would otherwise look proven worse every time.
    """
    chosen: list[tuple[str, str, NDArray[np.bool_]]] = []
    for name, series in columns.items():
        values = series.astype("object").where(series.notna(), "(missing)").astype(str).to_numpy()
        names, counts = np.unique(values, return_counts=True)
        for position in np.argsort(-counts, kind="stable")[:MAX_VALUES]:
            if counts[position] >= min_rows:
                chosen.append((name, str(names[position]), values == names[position]))
    return [
        Slice(
            name,
            value,
            compare(
                metric,
                target[rows],
                challenger[rows],
                other[rows],
                groups=None if groups is None else groups[rows],
                confidence=1 - (1 - confidence) / len(chosen),
            ),
        )
        for name, value, rows in chosen
    ]
