"""The gap between predicted and observed rates (Naeini et al. 2015), and how large it is by chance."""

from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


def expected_calibration_error(target: Array, scores: Array) -> float | None:
    """Mean gap between predicted and observed rate over 15 bins of equal size; None for no rows."""
    if not len(target):
        return None
    order = np.argsort(scores, kind="stable")
    bins = [part for part in np.array_split(order, 15) if len(part)]
    gaps = [abs(float(scores[part].mean() - target[part].mean())) * len(part) for part in bins]
    return float(sum(gaps) / len(target))


def calibration_noise(scores: Array, draws: int = 100) -> float:
    """Calibration error that a perfectly calibrated model with these scores shows by chance.

    The mean over outcomes drawn from the scores themselves (Bröcker and Smith 2007); seeded. With few
    rows it is large: 0.1 for a hundred rows is nothing to blame a model for.
    """
    random = np.random.default_rng(0)
    errors = [
        expected_calibration_error((random.random(len(scores)) < scores).astype(np.float64), scores)
        for _ in range(draws)
    ]
    return float(np.mean([error or 0.0 for error in errors]))


class CalibrationError(Metric):
    """Calibration."""

    name: ClassVar[str] = "calibration_error"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary"})
    greater_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs_probabilities: ClassVar[bool] = True

    def _value(self, target: Array, scores: Array) -> float | None:
        return expected_calibration_error(target, scores)
