"""What the days of a version say of its answers, as far as evidence of a lasting loss is made of them. Pure.

Belongs here: the measures of a day, which of them a task has, how they share the evidence. Does not belong
here: metrics of a window (``evaluation/metrics/``), the evidence itself (``accumulation.py``,
``lasting_loss.py``).

Rows are harder in some weeks than in others, whoever answers: with equal knowledge a model has a lower skill
on them. So answers that are probabilities are not held against the skill of other days, but against what they
promise themselves. While answers are right, outcomes cost on average the entropy of the answers, however hard
the rows are (Dawid 1982, "The well-calibrated Bayesian"; Spiegelhalter 1986 for the Brier score). There are
two ways to be wrong, and they are the two scores of Cox's (1958) recalibration of log odds by ``a + b x``:

- ``shortfall``: log loss beyond the entropy of the answers, which is minus the mean of (outcome - answer)
  times the log odds of the answer: the score of ``b``.
- ``level``: by how much log odds are too high, ``-a``. One step of Newton from ``a = 0, b = 1``, so that a
  slope which is off does not count as a level. ``x`` is counted from the log odds of the base rate, where
  most of the answers lie.

What neither can see is answers that know less and say so: a feature that went missing, and a model that
answers the base rate. The comparison with the baseline, drift and the metrics of a window show that. A number
promises nothing about its error, so models of numbers have metrics instead.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.metrics import Metric
from mlops_assets.evaluation.metrics import metric as metric_of
from mlops_assets.evaluation.metrics.log_loss import log_losses
from serve.schema import Task

Array = NDArray[np.float64]

LEAST = 1e-6
"""The least probability, and the largest is one minus it: log odds stay finite."""


class DayMeasure(Protocol):
    """One number of rows with outcomes, of which every day has its own."""

    @property
    def name(self) -> str:
        """What findings and records call it."""

    @property
    def two_sided(self) -> bool:
        """Whether zero is right and both sides are wrong."""

    @property
    def higher_is_worse(self) -> bool:
        """The direction, where there is one."""

    def value(self, target: Array, scores: Array) -> float | None:
        """The number with its sign; None where it is not defined. Takes what metrics take."""

    def in_words(self, now: float, was: float, days: int) -> str:
        """One clause: what it is on the newest ``days`` days, and what it was before."""


@dataclass(frozen=True)
class Shortfall:
    """The skill that answers promise and outcomes do not keep: (log loss - entropy of the answers) / entropy
    of the class shares. Above 0: answers are too sure. Not defined when only one class occurs.
    """

    name: ClassVar[str] = "shortfall"
    two_sided: ClassVar[bool] = False
    higher_is_worse: ClassVar[bool] = True

    def value(self, target: Array, scores: Array) -> float | None:
        _, counts = np.unique(target, return_counts=True)
        if len(counts) < 2 or np.isnan(scores).any():
            return None
        shares = counts / counts.sum()
        answers = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
        answers = np.clip(answers, LEAST, 1.0)
        promised = -(answers * np.log(answers)).sum(axis=1).mean()
        beyond = float(np.minimum(log_losses(target, scores), -math.log(LEAST)).mean() - promised)
        return beyond / float(-(shares * np.log(shares)).sum())

    def in_words(self, now: float, was: float, days: int) -> str:
        return (
            f"skill is {_beside(now)} what the answers promise on the last {days} days and was "
            f"{_beside(was)} it before"
        )


def _beside(shortfall: float) -> str:
    return f"{abs(shortfall):.4f} {'below' if shortfall > 0 else 'above'}"


@dataclass(frozen=True)
class Level:
    """By how much the log odds of the answers are too high around ``base_rate``, slope put right."""

    base_rate: float = 0.5
    name: ClassVar[str] = "level"
    two_sided: ClassVar[bool] = True
    higher_is_worse: ClassVar[bool] = True

    def value(self, target: Array, scores: Array) -> float | None:
        if not len(target) or np.isnan(scores).any():
            return None
        answers = np.clip(scores, LEAST, 1 - LEAST)
        base = min(max(self.base_rate, LEAST), 1 - LEAST)
        distance = np.log(answers / (1 - answers)) - math.log(base / (1 - base))
        weight = answers * (1 - answers)
        off, off_by_distance = float((answers - target).sum()), float(((answers - target) * distance).sum())
        total, first = float(weight.sum()), float((weight * distance).sum())
        second = float((weight * distance**2).sum())
        determinant = total * second - first**2
        if determinant <= 1e-9 * total * second:
            return off / total
        return (second * off - first * off_by_distance) / determinant

    def in_words(self, now: float, was: float, days: int) -> str:
        return (
            f"answers lie {abs(now):.4f} log odds too {'high' if now > 0 else 'low'} on the last {days} days "
            f"and lay {abs(was):.4f} too {'high' if was > 0 else 'low'} before"
        )


@dataclass(frozen=True)
class OfMetric:
    """A metric of models as the measure of a day."""

    metric: Metric

    @property
    def name(self) -> str:
        return self.metric.name

    @property
    def two_sided(self) -> bool:
        return self.metric.two_sided

    @property
    def higher_is_worse(self) -> bool:
        return not self.metric.greater_is_better

    def value(self, target: Array, scores: Array) -> float | None:
        return self.metric.signed_value(target, scores)

    def in_words(self, now: float, was: float, days: int) -> str:
        return f"{self.name} is {now:.4f} on the last {days} days and was {was:.4f} before"


def day_measures(
    task: Task, metric: str | None = None, baseline: Sequence[float] = ()
) -> Mapping[DayMeasure, float]:
    """Measures of a day with their shares of the evidence, which add up to 1.

    ``metric``: the declared one alone; None: those of the task. ``baseline``: what the baseline answers;
    binary models have one number, around which the level is measured (without one: around one half). Of the
    two measures of probabilities the loss has the larger share, because a level costs a loss as well.
    """
    if metric is not None:
        return {OfMetric(metric_of(metric, task)): 1.0}
    if task == "binary":
        return {Shortfall(): 0.6, Level(baseline[0] if baseline else 0.5): 0.4}
    if task == "multiclass":
        return {Shortfall(): 1.0}
    return {OfMetric(metric_of("rmse", task)): 0.5, OfMetric(metric_of("bias", task)): 0.5}
