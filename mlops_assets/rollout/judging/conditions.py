"""What a version must show to go on: a metric, one of its quantities, a limit. Pure.

Belongs here: the words of an analysis and which of them fit together. Does not belong here: one metric
(``metrics/``), holding evidence to them (``judge.py``), when a step is over (``rollout/plan.py``).
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from mlops_assets.errors import DeclarationError
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS

Operator = Literal["<=", "<"]


_FORM = re.compile(r"\s*([a-z_0-9]+)\s*(<=|<)\s*(\S+)\s*\Z")


@dataclass(frozen=True)
class Condition:
    """``quantity operator number``: what must hold of a quantity for a measurement to be successful."""

    quantity: str
    operator: Operator
    number: float

    def __post_init__(self) -> None:
        if self.operator not in get_args(Operator):
            raise DeclarationError(
                f"operator {self.operator!r} of a success condition; allowed: {' '.join(get_args(Operator))}"
            )
        if not math.isfinite(self.number):
            raise DeclarationError(f"success condition on {self.quantity!r}: {self.number} is no limit")

    @classmethod
    def parse(cls, text: str, *, metric: str | None = None) -> "Condition":
        """The condition that a text like ``increase <= 0.02`` says, checked against ``metric`` if given.

        Raises DeclarationError with the quantities that the metric has and an example.
        """
        said = _FORM.match(text)
        number = _number(said[3]) if said else None
        if said is None or number is None:
            raise DeclarationError(
                f"success condition {text!r} is not `quantity <= number`. {_allowed(metric)}"
            )
        condition = cls(said[1], cast("Operator", said[2]), number)
        if metric is not None:
            condition.check(metric)
        elif all(condition.quantity not in one.quantities for one in ANALYSIS_METRICS.members()):
            raise DeclarationError(
                f"success condition {text!r}: unknown quantity {said[1]!r}. {_allowed(None)}"
            )
        return condition

    def check(self, metric: str) -> None:
        """Raises DeclarationError when the metric has no such quantity, or no value of it fits the limit."""
        if metric not in ANALYSIS_METRICS:
            raise DeclarationError(f"unknown metric {metric!r}. Allowed: {', '.join(ANALYSIS_METRICS)}")
        quantity = ANALYSIS_METRICS[metric].quantities.get(self.quantity)
        if quantity is None:
            raise DeclarationError(f"{metric} has no quantity {self.quantity!r}. {_allowed(metric)}")
        if not quantity.above < self.number < quantity.below:
            raise DeclarationError(
                f"{metric}: {self} is no limit that a version could both keep and break. It lies between "
                f"{quantity.above:g} and {quantity.below:g} ({quantity.meaning}). Example: {quantity.example}"
            )

    def __str__(self) -> str:
        return f"{self.quantity} {self.operator} {self.number:g}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _allowed(metric: str | None) -> str:
    names = list(ANALYSIS_METRICS) if metric is None or metric not in ANALYSIS_METRICS else [metric]
    sentences = []
    for name in names:
        quantities = ANALYSIS_METRICS[name].quantities
        listed = " and ".join(f"{key} ({one.meaning})" for key, one in quantities.items())
        sentences.append(f"{name} has {listed}, for example `{next(iter(quantities.values())).example}`.")
    return " ".join(sentences)


@dataclass(frozen=True)
class Analysis:
    """One measurement that a rollout is held to.

    ``level``: how often a wrong verdict is put up with, however often somebody looks (``judge.py`` says
    exactly of what). ``failure_limit`` failed measurements are put up with, and ``inconclusive_limit``
    inconclusive ones, before the rollout is given up or stopped; counting them is the plan's part.
    """

    metric: str
    condition: Condition
    failure_limit: int = 0
    inconclusive_limit: int = 10
    level: float = 0.05

    def __post_init__(self) -> None:
        self.condition.check(self.metric)
        if not 0.0 < self.level < 1.0:
            raise DeclarationError(f"{self}: level {self.level} is not between 0 and 1; usual is 0.05")
        if self.failure_limit < 0 or self.inconclusive_limit < 0:
            raise DeclarationError(f"{self}: failure_limit and inconclusive_limit are 0 or more")

    @property
    def needs_pairs(self) -> bool:
        """Only a shadow step can measure it: elsewhere it stays inconclusive for ever."""
        return ANALYSIS_METRICS[self.metric].quantities[self.condition.quantity].needs_pairs

    def __str__(self) -> str:
        return f"{self.metric} {self.condition}"


DEFAULT_ANALYSES = (
    Analysis("error_rate", Condition("increase", "<=", 0.02)),
    Analysis("latency_p95", Condition("value_ms", "<=", 500.0)),
)
"""Two points more errors than stable, and half a second for 95 % of the requests.

Both can be proven by a few hundred requests of a version that behaves (``docs/judging.md``), and neither
by fewer than about 150: the smallest number after which no error at all proves less than 2 % of them. The
latency is absolute because the resolution of a ratio is that of the buckets (``sequences.QuantileRatio``).
"""
