"""Holds evidence to the declared analyses: successful, failed or inconclusive, and why. Pure.

Belongs here: the levels of the tests, the sentences. Does not belong here: which evidence answers an analysis
(``metrics/``), the tests themselves (``sequences.py``), what follows from a verdict (``rollout/plan.py``),
losses from labels.

What is guaranteed, for one step (one revision of the routing: its evidence starts at zero), however often
and whenever somebody looks, for requests that are independent of each other:

- **Wrong failure.** If all conditions hold in truth, the probability that the step is *ever* judged failed
  is at most the largest ``level`` of its analyses (5 % by default): each of k analyses fails at level / k.
- **Wrong promotion.** If one condition does not hold in truth, the probability that the step is *ever*
  judged successful is at most that analysis' ``level``. Nothing is divided here: all of them have to
  succeed, so the one that should not is enough (Berger 1982, "Multiparameter hypothesis testing and
  acceptance sampling", Technometrics 24(4)).

A rollout of s steps is wrong with at most s times that. Shares and percentiles are exact; means
(``prediction_shift``, ``quality``) keep the levels asymptotically. ``low`` and ``high`` of a measurement
are at the levels of its failure and of its success.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.conditions import Analysis, Condition
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS, Subject
from mlops_assets.rollout.judging.metrics._base import Unit

AnalysisPhase = Literal["successful", "failed", "inconclusive"]

FARTHEST = 1e7
"""Samples beyond which an estimate of what is still needed is no longer given."""


@dataclass(frozen=True)
class Measurement:
    """One analysis, measured. Numbers are in the unit of its quantity; None where nothing is known."""

    metric: str
    condition: Condition
    phase: AnalysisPhase
    value: float | None
    low: float | None
    high: float | None
    samples: int
    reason: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on a step: failed if one measurement is, successful if all are, else inconclusive."""

    phase: AnalysisPhase
    reason: str
    measurements: tuple[Measurement, ...] = ()


def judge(analyses: Sequence[Analysis], evidence: StepEvidence) -> Judgement:
    """The verdict of all analyses on one step; see the module for what it guarantees.

    Never raises for numbers: what cannot be known yet, or at all, is inconclusive and says so.
    """
    if not analyses:
        return Judgement("successful", "no analysis is declared: nothing was held against the version")
    measurements = tuple(measurement_of(analysis, evidence, among=len(analyses)) for analysis in analyses)
    for phase in ("failed", "inconclusive"):
        reasons = [measurement.reason for measurement in measurements if measurement.phase == phase]
        if reasons:
            return Judgement(phase, "; ".join(reasons), measurements)
    return Judgement("successful", "; ".join(one.reason for one in measurements), measurements)


def measurement_of(analysis: Analysis, evidence: StepEvidence, *, among: int = 1) -> Measurement:
    """One analysis on its own; ``among`` analyses share the probability of a wrong failure."""
    subject = ANALYSIS_METRICS[analysis.metric]().subject(analysis.condition.quantity, evidence)
    if isinstance(subject, str):
        return Measurement(
            analysis.metric, analysis.condition, "inconclusive", None, None, None, 0, f"{analysis}: {subject}"
        )
    sequence, number, unit = subject.sequence, analysis.condition.number / subject.unit.scale, subject.unit
    fails_at, succeeds_at = analysis.level / among, analysis.level
    phase = _phase(sequence, analysis.condition, number, fails_at, succeeds_at)
    low, high = sequence.low(fails_at), sequence.high(succeeds_at)
    between = _between(unit, low, high)
    if phase == "successful":
        verdict = f"holds{between}"
    elif phase == "failed":
        verdict = f"does not hold{between}"
    else:
        verdict = f"is open{between}; {_missing(subject, analysis.condition, number, fails_at, succeeds_at)}"
    return Measurement(
        analysis.metric,
        analysis.condition,
        phase,
        value=_plain(sequence.value, unit),
        low=_plain(low, unit),
        high=_plain(high, unit),
        samples=int(sequence.samples),
        reason=f"{analysis} {verdict}: {subject.facts}",
    )


def _phase(
    sequence: sequences.Sequence, condition: Condition, number: float, fails_at: float, succeeds_at: float
) -> AnalysisPhase:
    if sequence.log_below(number) >= -math.log(succeeds_at):
        return "successful"
    if sequence.log_above(number) >= -math.log(fails_at):
        return "failed"
    if sequence.certain and sequence.value == number:
        return "successful" if condition.operator == "<=" else "failed"
    return "inconclusive"


# -- sentences -------------------------------------------------------------------------------------------


def _plain(value: float | None, unit: Unit) -> float | None:
    return value * unit.scale if value is not None and math.isfinite(value) else None


def _between(unit: Unit, low: float | None, high: float | None) -> str:
    known = [bound is not None and math.isfinite(bound) for bound in (low, high)]
    if all(known):
        assert low is not None and high is not None
        return f" (between {unit.in_words(low)} and {unit.in_words(high)})"
    if known[0]:
        assert low is not None
        return f" (at least {unit.in_words(low)})"
    if known[1]:
        assert high is not None
        return f" (at most {unit.in_words(high)})"
    return ""


def _missing(
    subject: Subject, condition: Condition, number: float, fails_at: float, succeeds_at: float
) -> str:
    """How many more samples decide if the observed value stays, in words."""
    sequence = subject.sequence
    if sequence.samples < subject.minimum:
        return f"judged from {subject.minimum} {subject.noun} on"
    factor = _deciding_factor(sequence, condition, number, fails_at, succeeds_at)
    if factor is None:
        return f"no further {subject.noun} decide it while the value stays there; another limit would"
    more = _rounded(math.ceil((factor - 1.0) * sequence.samples))
    return f"about {more:,} more {subject.noun} decide it if the value stays there"


def _deciding_factor(
    sequence: sequences.Sequence, condition: Condition, number: float, fails_at: float, succeeds_at: float
) -> float | None:
    def decided(factor: float) -> bool:
        return _phase(sequence.scaled(factor), condition, number, fails_at, succeeds_at) != "inconclusive"

    last, factor = 1.0, 2.0
    while not decided(factor):
        last, factor = factor, factor * 2.0
        if factor * sequence.samples > FARTHEST:
            return None
    for _ in range(12):
        middle = 0.5 * (last + factor)
        last, factor = (last, middle) if decided(middle) else (middle, factor)
    return factor


def _rounded(count: int) -> int:
    """Two leading digits, rounded up: an estimate must not look like a promise."""
    size = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // size) * size
