"""How much better one model is than another on the same rows, with a confidence interval. Pure.

Belongs here: paired differences and their uncertainty. Does not belong here: what difference is
enough (``gate.py``).

Rows of one day share weather, strikes and holidays, so they are not independent, and an interval that
takes them as such is far too narrow. Whole days are left out instead: a delete-a-group jackknife
(Efron and Stein 1981; Kott 2001) with Student's t on (groups - 1) degrees of freedom, which a
handful of days makes honestly wide. It serves any metric, AUC included, and needs no random numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.jackknife import dealt, standard_error
from mlops_assets.evaluation.metrics import Metric

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Challenger against another on the same rows.

    ``improvement`` is in the metric's units, positive when the challenger is better whatever the
    metric's direction; ``low`` and ``high`` bound it at ``confidence``. None where the metric is not
    defined on these rows, or where there are too few groups to tell.
    """

    metric: str
    challenger: float | None
    other: float | None
    improvement: float | None
    low: float | None
    high: float | None
    rows: int
    groups: int
    confidence: float

    def sentence(self, other: str) -> str:
        """E.g. ``log_loss 0.4820 vs 0.4970 of champion v3: better by 0.0150 [0.0090, 0.0210] at 95 %, …``."""
        if self.improvement is None or self.challenger is None or self.other is None:
            return f"{self.metric} is not defined on these {self.rows} rows"
        direction = "better" if self.improvement > 0 else "worse" if self.improvement < 0 else "equal"
        bounds = (
            f"[{self.low:+.4f}, {self.high:+.4f}] at {100 * self.confidence:.4g}%"
            if self.low is not None
            else f"no interval from {self.groups} groups"
        )
        return (
            f"{self.metric} {self.challenger:.4f} vs {self.other:.4f} of {other}: {direction} by "
            f"{abs(self.improvement):.4f} {bounds}, n = {self.rows:,} in {self.groups} groups"
        )


def compare(
    metric: Metric,
    target: Array,
    challenger: Array,
    other: Array,
    *,
    groups: NDArray[np.int64] | None,
    confidence: float,
) -> Comparison:
    """The comparison on rows whose ``groups`` (e.g. day numbers) vary together; None: single rows.

    Single rows are dealt into at most 40 groups in turn, which is the same estimate with less work.
    """
    labels = dealt(len(target)) if groups is None else groups
    sign = 1.0 if metric.greater_is_better else -1.0

    def improvement(rows: "NDArray[np.bool_] | slice") -> float | None:
        ours, theirs = metric.value(target[rows], challenger[rows]), metric.value(target[rows], other[rows])
        return None if ours is None or theirs is None else sign * (ours - theirs)

    whole = improvement(slice(None))
    low = high = None
    if whole is None:
        count = len(np.unique(labels))
    else:
        error, count = standard_error(improvement, labels)
        if error is not None:
            from scipy.stats import t

            reach = float(t.ppf(0.5 + confidence / 2, count - 1)) * error
            low, high = whole - reach, whole + reach
    return Comparison(
        metric=metric.name,
        challenger=metric.value(target, challenger),
        other=metric.value(target, other),
        improvement=whole,
        low=low,
        high=high,
        rows=len(target),
        groups=count,
        confidence=confidence,
    )
