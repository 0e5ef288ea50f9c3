"""What a metric of an analysis is: quantities that YAML may set limits to, and the evidence for each. Pure.

Belongs here: the ABC, quantities and their units, what several metrics have in common. Does not belong
here: one metric (a file beside this one), the tests (``sequences.py``), verdicts (``judge.py``).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.evidence import StepEvidence
from serve.schema import Moments, ShadowEvidence

LARGEST = 1e150
"""Beyond this a mean or a spread counts as no number: its square is none."""

JUST_UNDER_0 = math.nextafter(0.0, -math.inf)
"""Below a limit of 0: answers that are all the same keep it."""


@dataclass(frozen=True)
class Quantity:
    """One thing that a metric measures, and between which limits (neither included) a limit makes sense: at
    or beyond them it is met by everything, or proven by nothing.
    """

    meaning: str
    example: str
    above: float
    below: float
    needs_pairs: bool = False
    """Only a shadow step can measure it: elsewhere it stays inconclusive for ever."""


@dataclass(frozen=True)
class Unit:
    """How a quantity is declared (its number times ``scale``) and how it is put into words."""

    scale: float = 1.0
    shown_scale: float = 1.0
    suffix: str = ""
    digits: int = 2

    def in_words(self, value: float) -> str:
        return f"{value * self.shown_scale:.{self.digits}f}{self.suffix}"


POINTS = Unit(shown_scale=100.0, suffix=" points")
PERCENT = Unit(shown_scale=100.0, suffix=" %")
MILLISECONDS = Unit(scale=1000.0, shown_scale=1000.0, suffix=" ms", digits=1)
TIMES = Unit(suffix=" times")
PLAIN = Unit(digits=4)


@dataclass(frozen=True)
class Subject:
    """The sequence that tests a quantity, and how its facts are put into words."""

    sequence: sequences.Sequence
    unit: Unit
    facts: str
    noun: str = "requests"
    minimum: int = 0


class AnalysisMetric(ABC):
    """Something that grows when a version gets worse, measured of the version and of stable."""

    name: ClassVar[str]
    """What YAML calls it."""
    quantities: ClassVar[Mapping[str, Quantity]]
    """{quantity: what it means and which limits make sense}."""

    @abstractmethod
    def subject(self, quantity: str, evidence: StepEvidence) -> Subject | str:
        """The sequence that tests one of the quantities, or why there is none, in words."""


def judges_shadow(evidence: StepEvidence) -> ShadowEvidence | None:
    """The shadow of a pure shadow step: with traffic of its own, a version is judged by that."""
    return evidence.shadow if evidence.canary.requests == 0 else None


def refused(*named: tuple[str, Moments]) -> str:
    """Why series cannot be used; empty for usable ones."""
    for name, series in named:
        if series.count <= 0:
            return f"there are no {name} yet"
        # Written so that what is not a number is refused too.
        if not (abs(series.mean) < LARGEST and 0.0 <= series.m2 < LARGEST):
            return (
                f"the mean of {series.count:,} {name} is no number (mean {series.mean}, squares {series.m2})"
            )
    return ""


def signed(value: float) -> str:
    return f"{abs(value):.4f} {'higher' if value >= 0 else 'lower'}"
