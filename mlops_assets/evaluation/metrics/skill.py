"""What a model knows beyond the class shares of the rows it is measured on.

One minus the normalised entropy of He et al. (2014, "Practical lessons from predicting clicks on ads at
Facebook"). A log loss moves with the share of positives whatever the model does, so it cannot be compared
between months; this can.
"""

import math
from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, Metric
from mlops_assets.evaluation.metrics.log_loss import log_losses
from serve.schema import Task


class Skill(Metric):
    """1 - log loss / entropy of the class shares; 0: no better than knowing the shares.

    Not defined when only one class occurs: there is nothing to know.
    """

    name: ClassVar[str] = "skill"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    greater_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "share of the entropy"
    bounds: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    needs_probabilities: ClassVar[bool] = True
    needs_variation: ClassVar[bool] = True

    def _value(self, target: Array, scores: Array) -> float | None:
        _, counts = np.unique(target, return_counts=True)
        if len(counts) < 2:
            return None
        shares = counts / counts.sum()
        return 1.0 + float(log_losses(target, scores).mean()) / float((shares * np.log(shares)).sum())
