"""Holds evidence to the declared analyses: successful, failed or inconclusive, and why. Pure.

Belongs here: which evidence answers which analysis, the levels of the tests, the sentences. Does not
belong here: the tests themselves (``sequences.py``), what follows from a verdict (``rollout/plan.py``),
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
from mlops_assets.rollout.judging.conditions import Analysis, Condition, Metric
from serve.schema import LATENCY_BOUNDS_S, Moments, ShadowEvidence, VersionEvidence

Phase = Literal["successful", "failed", "inconclusive"]

FARTHEST = 1e7
"""Samples beyond which an estimate of what is still needed is no longer given."""

LARGEST = 1e150
"""Beyond this a mean or a spread counts as no number: its square is none."""

_NONE = Moments()


@dataclass(frozen=True)
class QualityEvidence:
    """Losses of requests whose labels came back; of every loss, smaller is better.

    ``differences``: per request that both versions scored, canary's loss less stable's; None when no
    request was scored by both. Then ``canary`` and ``stable`` hold the losses of each one's own requests.
    """

    canary: Moments = _NONE
    stable: Moments = _NONE
    differences: Moments | None = None
    loss: str = "loss"


@dataclass(frozen=True)
class StepEvidence:
    """What was measured since a step's routing took effect. ``shadow``: of a shadow step, else None."""

    canary: VersionEvidence
    stable: VersionEvidence
    shadow: ShadowEvidence | None = None
    quality: QualityEvidence | None = None


@dataclass(frozen=True)
class Measurement:
    """One analysis, measured. Numbers are in the unit of its quantity; None where nothing is known."""

    metric: Metric
    condition: Condition
    phase: Phase
    value: float | None
    low: float | None
    high: float | None
    samples: int
    reason: str


@dataclass(frozen=True)
class Judgement:
    """The verdict on a step: failed if one measurement is, successful if all are, else inconclusive."""

    phase: Phase
    reason: str
    measurements: tuple[Measurement, ...] = ()


def judge(analyses: Sequence[Analysis], evidence: StepEvidence) -> Judgement:
    """The verdict of all analyses on one step; see the module for what it guarantees.

    Never raises for numbers: what cannot be known yet, or at all, is inconclusive and says so.
    """
    if not analyses:
        return Judgement("successful", "no analysis is declared: nothing was held against the version")
    measurements = tuple(measure(analysis, evidence, among=len(analyses)) for analysis in analyses)
    for phase in ("failed", "inconclusive"):
        told = [measurement.reason for measurement in measurements if measurement.phase == phase]
        if told:
            return Judgement(phase, "; ".join(told), measurements)
    return Judgement("successful", "; ".join(one.reason for one in measurements), measurements)


def measure(analysis: Analysis, evidence: StepEvidence, *, among: int = 1) -> Measurement:
    """One analysis on its own; ``among`` analyses share the probability of a wrong failure."""
    subject = _subject(analysis, evidence)
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
) -> Phase:
    if sequence.log_below(number) >= -math.log(succeeds_at):
        return "successful"
    if sequence.log_above(number) >= -math.log(fails_at):
        return "failed"
    if sequence.certain and sequence.value == number:
        return "successful" if condition.operator == "<=" else "failed"
    return "inconclusive"


# -- which evidence answers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """How a quantity is declared (its number times ``scale``) and how it is told."""

    scale: float = 1.0
    told_scale: float = 1.0
    suffix: str = ""
    digits: int = 2

    def told(self, value: float) -> str:
        return f"{value * self.told_scale:.{self.digits}f}{self.suffix}"


_POINTS = _Unit(told_scale=100.0, suffix=" points")
_PERCENT = _Unit(told_scale=100.0, suffix=" %")
_MILLISECONDS = _Unit(scale=1000.0, told_scale=1000.0, suffix=" ms", digits=1)
_TIMES = _Unit(suffix=" times")
_PLAIN = _Unit(digits=4)


@dataclass(frozen=True)
class _Subject:
    sequence: sequences.Sequence
    unit: _Unit
    facts: str
    noun: str = "requests"
    minimum: int = 0


def _subject(analysis: Analysis, evidence: StepEvidence) -> _Subject | str:
    """The sequence that answers an analysis, or why there is none."""
    if analysis.metric == "error_rate":
        return _errors(analysis.condition.quantity, evidence)
    if analysis.metric == "latency_p95":
        return _latency(analysis.condition.quantity, evidence)
    if analysis.metric == "prediction_shift":
        return _shift(analysis.condition.quantity, evidence)
    return _quality(evidence.quality)


def _judges_shadow(evidence: StepEvidence) -> ShadowEvidence | None:
    """The shadow of a pure shadow step: with traffic of its own, a version is judged by that."""
    return evidence.shadow if evidence.canary.requests == 0 else None


def _errors(quantity: str, evidence: StepEvidence) -> _Subject | str:
    shadow = _judges_shadow(evidence)
    judged: VersionEvidence | ShadowEvidence = evidence.canary if shadow is None else shadow
    what = "requests" if shadow is None else "mirrored requests"
    errors, stable_errors = sum(judged.errors.values()), sum(evidence.stable.errors.values())
    for who, failed, requests in (
        ("the version", errors, judged.requests),
        ("stable", stable_errors, evidence.stable.requests),
    ):
        if not 0 <= failed <= requests:
            return f"the counts of {who} contradict each other ({failed} errors of {requests} requests)"
    if judged.requests == 0:
        return f"it has had no {what} yet"
    own = sequences.Share(errors, judged.requests)
    facts = f"{errors:,} of {judged.requests:,} {what} failed ({_PERCENT.told(errors / judged.requests)})"
    if quantity == "value":
        return _Subject(own, _PERCENT, facts, what)
    requests = evidence.stable.requests
    beside = (
        f"stable's {stable_errors:,} of {requests:,} ({_PERCENT.told(stable_errors / requests)})"
        if requests
        else "stable had no requests to compare with"
    )
    return _Subject(
        # The shadow saw the requests that stable answered.
        sequences.ShareDifference(
            own, sequences.Share(stable_errors, requests), dependent=shadow is not None
        ),
        _POINTS,
        f"{facts}, {beside}",
        what,
    )


def _latency(quantity: str, evidence: StepEvidence) -> _Subject | str:
    shadow = _judges_shadow(evidence)
    counts, beside = (
        (evidence.canary.latency, evidence.stable.latency)
        if shadow is None
        else (shadow.latency, shadow.live_latency)
    )
    what = "requests" if shadow is None else "mirrored requests"
    for who, one in (("the version", counts), ("stable", beside)):
        if len(one) != len(LATENCY_BOUNDS_S) + 1 or min(one) < 0:
            return f"the latency counts of {who} do not fit the buckets ({list(one)})"
    own, other = sequences.Quantile(counts), sequences.Quantile(beside)
    if own.samples == 0:
        return f"it has had no {what} yet"
    facts = f"95th percentile about {_seconds(own)} over {int(own.samples):,} {what}"
    if quantity == "value_ms":
        return _Subject(own, _MILLISECONDS, facts, what)
    if other.samples == 0:
        return f"stable had no requests to compare with; {facts}"
    return _Subject(
        sequences.QuantileRatio(own, other, dependent=shadow is not None),
        _TIMES,
        f"{facts}, stable's about {_seconds(other)} over {int(other.samples):,}",
        what,
    )


def _seconds(quantile: sequences.Quantile) -> str:
    if quantile.value is None:
        return f"more than {_MILLISECONDS.told(LATENCY_BOUNDS_S[-1])}"
    return _MILLISECONDS.told(quantile.value)


def _shift(quantity: str, evidence: StepEvidence) -> _Subject | str:
    shadow = evidence.shadow
    if quantity == "distance":
        if shadow is None:
            return "only a shadow step pairs answers; declare it for a plan with one, or use mean"
        series = shadow.distances
        refused = _refused(("pairs", series))
        return refused or _Subject(
            sequences.Mean(series),
            _PLAIN,
            f"outputs of {series.count:,} pairs differ by {_PLAIN.told(series.mean)} in the mean",
            "pairs",
            sequences.MEAN_MINIMUM,
        )
    if shadow is not None and (shadow.differences.count > 0 or evidence.canary.outputs.count == 0):
        series = shadow.differences
        refused = _refused(("pairs", series))
        return refused or _Subject(
            sequences.Magnitude(sequences.Mean(series)),
            _PLAIN,
            f"over {series.count:,} pairs its mean output is {_signed(series.mean)} than the live one",
            "pairs",
            sequences.MEAN_MINIMUM,
        )
    own, other = evidence.canary.outputs, evidence.stable.outputs
    refused = _refused(("answers", own), ("answers of stable", other))
    return refused or _Subject(
        sequences.Magnitude(sequences.MeanDifference(own, other)),
        _PLAIN,
        f"mean output {_PLAIN.told(own.mean)} over {own.count:,} answers, stable's "
        f"{_PLAIN.told(other.mean)} over {other.count:,}",
        "answers",
        sequences.MEAN_MINIMUM,
    )


def _quality(quality: QualityEvidence | None) -> _Subject | str:
    if quality is None:
        return "no labels came back yet"
    pairs = quality.differences
    if pairs is not None and pairs.count > 0:
        refused = _refused(("labelled pairs", pairs))
        return refused or _Subject(
            sequences.Mean(pairs),
            _PLAIN,
            f"over {pairs.count:,} labelled pairs {quality.loss} is {_signed(pairs.mean)} than stable's",
            "labelled pairs",
            sequences.MEAN_MINIMUM,
        )
    own, other = quality.canary, quality.stable
    refused = _refused(("labels", own), ("labels of stable", other))
    return refused or _Subject(
        sequences.MeanDifference(own, other),
        _PLAIN,
        f"mean {quality.loss} {_PLAIN.told(own.mean)} over {own.count:,} labels, stable's "
        f"{_PLAIN.told(other.mean)} over {other.count:,}",
        "labels",
        sequences.MEAN_MINIMUM,
    )


def _refused(*named: tuple[str, Moments]) -> str:
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


def _signed(value: float) -> str:
    return f"{abs(value):.4f} {'higher' if value >= 0 else 'lower'}"


# -- sentences -------------------------------------------------------------------------------------------


def _plain(value: float | None, unit: _Unit) -> float | None:
    return value * unit.scale if value is not None and math.isfinite(value) else None


def _between(unit: _Unit, low: float | None, high: float | None) -> str:
    known = [bound is not None and math.isfinite(bound) for bound in (low, high)]
    if all(known):
        assert low is not None and high is not None
        return f" (between {unit.told(low)} and {unit.told(high)})"
    if known[0]:
        assert low is not None
        return f" (at least {unit.told(low)})"
    if known[1]:
        assert high is not None
        return f" (at most {unit.told(high)})"
    return ""


def _missing(
    subject: _Subject, condition: Condition, number: float, fails_at: float, succeeds_at: float
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
