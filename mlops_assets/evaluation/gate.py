"""The gate: promote, reject or inconclusive, with the reason in words. Pure.

Belongs here: the policy a user declares and the decision on measured values. Does not belong here:
measuring (``compare.py``, ``slices.py``) or acting on the verdict (``components/``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_assets.errors import UnknownName
from mlops_assets.evaluation.compare import Comparison
from mlops_assets.evaluation.metrics import METRICS
from mlops_assets.evaluation.slices import Slice

GateOutcome = Literal["promote", "reject", "inconclusive"]


class GatePolicy(BaseModel):
    """What a challenger must show. ``gate:`` in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str | None = Field(default=None, description="Metric that judges; default: the selecting metric.")
    margin: float = Field(
        default=0.0,
        ge=0,
        description="Loss against the champion that is tolerated, in the metric's units: a newer model "
        "that is proven not to lose more is promoted. 0 demands a proven gain.",
    )
    min_gain_over_baseline: float = Field(
        default=0.0, ge=0, description="Gain over the baseline that must be proven, in the metric's units."
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence of every interval.")
    min_rows: int = Field(default=50, ge=10, description="Fewer labelled rows than this decide nothing.")
    max_calibration_error: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Binary: largest accepted expected calibration error beyond what chance alone shows.",
    )
    slices: tuple[str, ...] = Field(
        default=(), description="Feature columns whose values are judged one by one."
    )
    max_slice_loss: float | None = Field(
        default=None, ge=0, description="Proven loss against the champion on any slice that rejects."
    )
    min_slice_rows: int = Field(default=200, ge=10, description="Smaller slices are not judged.")

    def at_look(self, look: int) -> "GatePolicy":
        """The policy of another look at the same challenger. ``look``: 1 for the first one.

        Whoever looks again and again finds proof in the end, also where there is none. So the first look has
        the declared chance of a wrong proof, and all later ones have the same once more together: look k a
        part 1 / (k (k - 1)) of it, which adds up to 1 over however many looks (Bonferroni).
        """
        if look <= 1:
            return self
        return self.model_copy(update={"confidence": 1 - (1 - self.confidence) / (look * (look - 1))})

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS:
            raise ValueError(str(UnknownName("metric", value, METRICS)))
        return value


@dataclass(frozen=True)
class RuleResult:
    """One rule of the gate: what was measured, and its limit. ``passed`` None: it could not be decided."""

    name: str
    value: float | None
    limit: float | None
    passed: bool | None
    said: str


@dataclass(frozen=True)
class Verdict:
    """The outcome, why, and the result of every rule."""

    outcome: GateOutcome
    reason: str
    rules: tuple[RuleResult, ...]


@dataclass(frozen=True)
class GateEvidence:
    """What was measured of a challenger, and what the others are called.

    ``hindsight``: a first model beside the best constant answer. ``champion`` None: there is none.
    ``same_as_champion``: byte for byte. ``calibration_noise``: how much of ``calibration_error`` is chance.
    """

    baseline: Comparison
    baseline_is: str
    hindsight: Comparison | None = None
    champion: Comparison | None = None
    champion_is: str = ""
    same_as_champion: bool = False
    calibration_error: float | None = None
    calibration_noise: float = 0.0
    slices: Sequence[Slice] = ()


def verdict_on(policy: GatePolicy, found: GateEvidence) -> Verdict:
    """The verdict on a challenger.

    1. Too few rows, in all or in the duel: inconclusive. 2. The gain over the baseline must be proven
    (the whole interval above ``min_gain_over_baseline``); an interval below it rejects, anything else
    is inconclusive: a useless model never ships, not even as the first. Where the duel proves a gain,
    it is enough that this one is there: what answers now is worse still. 3. ``hindsight``, for a first
    model, is the comparison with the best constant answer on these very rows: a model no better than
    that only guessed the new rate and is inconclusive. 4. Calibration beyond the limit rejects. 5. The
    champion itself passes without a duel. 6. Against a champion the interval must lie above
    ``-margin`` (promote), below it (reject), or it is inconclusive. 7. A slice with a proven loss
    beyond ``max_slice_loss`` rejects.
    """
    measured = _results(policy, found)
    enough = found.baseline.rows >= policy.min_rows
    failed = [one for one in measured if one.passed is False]
    open_ = [one for one in measured if one.passed is None and not one.name.startswith("slice")]
    if _beats_the_champion(policy, found):
        open_ = [one for one in open_ if one.name != "baseline"]
    if failed and enough:
        return Verdict("reject", _reason(failed), tuple(measured))
    if open_:
        return Verdict("inconclusive", _reason(open_), tuple(measured))
    if found.same_as_champion:
        reason = f"the challenger is {found.champion_is}, byte for byte; {measured[0].said}"
        return Verdict("promote", reason, tuple(measured))
    decisive = [one for one in measured if one.name == "champion"] or measured[:1]
    return Verdict("promote", _reason(decisive), tuple(measured))


def _beats_the_champion(policy: GatePolicy, found: GateEvidence) -> bool:
    """Whether a gain over the champion is proven, and the wanted one over the baseline is there.

    A champion that became worse than the baseline would answer on, where a world that tells little lets
    nothing be proven better than the baseline.
    """
    duel, gain = found.champion, found.baseline.improvement
    if duel is None or duel.low is None or gain is None:
        return False
    return duel.low > 0 and gain > policy.min_gain_over_baseline


def _reason(results: Sequence[RuleResult]) -> str:
    return "; ".join(one.said for one in results)


def _results(policy: GatePolicy, found: GateEvidence) -> list[RuleResult]:
    """The result of every rule that applies, too few rows first."""
    rows, results = found.baseline.rows, []
    if rows < policy.min_rows:
        said = f"{rows} labelled rows are fewer than min_rows {policy.min_rows}"
        results.append(RuleResult("rows", float(rows), float(policy.min_rows), None, said))
    results.append(_against_baseline(policy, found.baseline, found.baseline_is))
    if found.hindsight is not None:
        results.append(_against_hindsight(found.hindsight))
    if policy.max_calibration_error is not None:
        limit = policy.max_calibration_error
        results.append(_calibration(limit, found.calibration_error, found.calibration_noise))
    if found.champion is not None and not found.same_as_champion:
        results.append(_against_champion(policy, found.champion, found.champion_is))
        if policy.max_slice_loss is not None:
            results += [_slice(policy.max_slice_loss, part, found.champion_is) for part in found.slices]
    return results


def _against_baseline(policy: GatePolicy, found: Comparison, name: str) -> RuleResult:
    limit = policy.min_gain_over_baseline
    passed = None
    if found.low is not None and found.high is not None:
        passed = True if found.low > limit else False if found.high <= limit else None
    return RuleResult("baseline", found.improvement, limit, passed, found.sentence(name))


def _against_hindsight(found: Comparison) -> RuleResult:
    passed = True if found.improvement is not None and found.improvement > 0 else None
    said = found.sentence("the best constant answer in hindsight")
    return RuleResult("hindsight", found.improvement, 0.0, passed, said)


def _against_champion(policy: GatePolicy, found: Comparison, name: str) -> RuleResult:
    limit = -policy.margin
    passed = None
    if found.low is not None and found.high is not None:
        proven = found.low > limit if policy.margin == 0 else found.low >= limit
        passed = True if proven else False if found.high < limit else None
    said = found.sentence(name)
    if found.rows < policy.min_rows:
        said = f"{found.rows} rows that {name} was not trained on are fewer than min_rows {policy.min_rows}"
        return RuleResult("champion", found.improvement, limit, None, said)
    if passed is None:
        said += f"; neither a gain nor a loss beyond the margin {policy.margin} is proven"
    return RuleResult("champion", found.improvement, limit, passed, said)


def _calibration(limit: float, error: float | None, noise: float) -> RuleResult:
    passed = None if error is None else error - noise <= limit
    said = (
        "the calibration error is not defined here"
        if error is None
        else f"calibration error {error:.4f}, of which {noise:.4f} are chance; limit {limit} beyond chance"
    )
    return RuleResult("calibration_error", error, limit, passed, said)


def _slice(limit: float, part: Slice, champion: str) -> RuleResult:
    high = part.comparison.high
    passed = None if high is None else high >= -limit
    said = f"on {part.column} = {part.value}: {part.comparison.sentence(champion)}"
    return RuleResult(f"slice {part.column}={part.value}", part.comparison.improvement, -limit, passed, said)
