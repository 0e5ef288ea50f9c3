"""The baseline every model must beat: what one would say knowing only the training outcomes. Pure."""

import numpy as np
from numpy.typing import NDArray

from serve.schema import Task

Array = NDArray[np.float64]


def baseline_scores(task: Task, train_target: Array, rows: int, classes: int) -> Array:
    """Scores for ``rows`` rows that see no feature: base rate, class shares, or mean of the training part.

    Shape (rows,), or (rows, classes) for multiclass.
    """
    if task == "multiclass":
        shares = np.bincount(train_target.astype(np.int64), minlength=classes) / len(train_target)
        return np.tile(shares, (rows, 1))
    return np.full(rows, float(train_target.mean()))


def describe_baseline(task: Task, train_target: Array) -> str:
    """What the baseline says, in words."""
    if task == "binary":
        return f"the base rate {train_target.mean():.3f}"
    return (
        "the class shares of the training part"
        if task == "multiclass"
        else f"the mean {train_target.mean():.4g}"
    )
