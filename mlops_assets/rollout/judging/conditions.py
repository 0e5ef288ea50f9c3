"""What a version must show to go on: a metric, one of its quantities, a limit. Pure.

Belongs here: the words of an analysis and which of them fit together. Does not belong here: holding
evidence to them (``judge.py``), when a step is over (``rollout/plan.py``).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from mlops_assets.errors import DeclarationError
from serve.schema import LATENCY_BOUNDS_S

Metric = Literal["error_rate", "latency_p95", "prediction_shift", "quality"]
Operator = Literal["<=", "<"]


@dataclass(frozen=True)
class Quantity:
    """One thing that a metric measures, and between which limits (neither included) a limit makes sense: at
    or beyond them it is met by everything, or proven by nothing.
    """

    meaning: str
    example: str
    above: float
    below: float


JUST_UNDER_0 = math.nextafter(0.0, -math.inf)
"""Below a limit of 0: answers that are all the same keep it."""

QUANTITIES: Mapping[Metric, Mapping[str, Quantity]] = {
    "error_rate": {
        "increase": Quantity("share of errors less stable's", "increase <= 0.02", -1.0, 1.0),
        "value": Quantity("share of errors", "value <= 0.01", 0.0, 1.0),
    },
    "latency_p95": {
        "ratio": Quantity("95th percentile over stable's", "ratio <= 2.5", 1e-3, 1e4),
        "value_ms": Quantity(
            "95th percentile in milliseconds",
            "value_ms <= 500",
            # What is quicker or slower is not told apart.
            math.nextafter(LATENCY_BOUNDS_S[0] * 1000, 0.0),
            math.nextafter(LATENCY_BOUNDS_S[-1] * 1000, math.inf),
        ),
    },
    "prediction_shift": {
        "mean": Quantity("absolute difference of the mean outputs", "mean <= 0.05", JUST_UNDER_0, math.inf),
        "distance": Quantity(
            "mean absolute difference per request, shadow steps only",
            "distance <= 0.05",
            JUST_UNDER_0,
            math.inf,
        ),
    },
    "quality": {
        "increase": Quantity("mean loss less stable's", "increase <= 0.02", -math.inf, math.inf),
    },
}
"""{metric: {quantity: what it means}}. All of them grow when a version gets worse."""

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
    def parse(cls, text: str, *, metric: Metric | None = None) -> "Condition":
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
        elif all(condition.quantity not in quantities for quantities in QUANTITIES.values()):
            raise DeclarationError(
                f"success condition {text!r}: unknown quantity {said[1]!r}. {_allowed(None)}"
            )
        return condition

    def check(self, metric: Metric) -> None:
        """Raises DeclarationError when the metric has no such quantity, or no value of it fits the limit."""
        if metric not in QUANTITIES:
            raise DeclarationError(f"unknown metric {metric!r}. Allowed: {', '.join(QUANTITIES)}")
        quantity = QUANTITIES[metric].get(self.quantity)
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


def _allowed(metric: Metric | None) -> str:
    metrics = list(QUANTITIES) if metric is None or metric not in QUANTITIES else [metric]
    return " ".join(
        f"{name} has {' and '.join(f'{key} ({one.meaning})' for key, one in QUANTITIES[name].items())}, "
        f"for example `{next(iter(QUANTITIES[name].values())).example}`."
        for name in metrics
    )


@dataclass(frozen=True)
class Analysis:
    """One measurement that a rollout is held to.

    ``level``: how often a wrong verdict is put up with, however often somebody looks (``judge.py`` says
    exactly of what). ``failure_limit`` failed measurements are put up with, and ``inconclusive_limit``
    inconclusive ones, before the rollout is given up or stopped; counting them is the plan's part.
    """

    metric: Metric
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
        return (self.metric, self.condition.quantity) == ("prediction_shift", "distance")

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
