"""Every way a verdict comes about, and what a policy accepts."""

import pytest
from pydantic import ValidationError

from mlops_assets.evaluation.compare import Comparison
from mlops_assets.evaluation.gate import GateEvidence, GatePolicy, Verdict, verdict_on
from mlops_assets.evaluation.slices import Slice

POLICY = GatePolicy(margin=0.002, slices=("carrier",), max_slice_loss=0.01, max_calibration_error=0.05)


def gain(improvement: float | None, reach: float | None = 0.001, rows: int = 12_311) -> Comparison:
    bounded = improvement is not None and reach is not None
    return Comparison(
        metric="log_loss",
        challenger=None if improvement is None else 0.5 - improvement,
        other=None if improvement is None else 0.5,
        improvement=improvement,
        low=improvement - reach if bounded else None,  # type: ignore[operator]
        high=improvement + reach if bounded else None,  # type: ignore[operator]
        rows=rows,
        groups=14,
        confidence=0.95,
    )


def rule(policy: GatePolicy = POLICY, **changes: object) -> Verdict:
    facts: dict[str, object] = {
        "baseline": gain(0.05),
        "baseline_is": "the base rate 0.220",
        "champion": gain(0.004),
        "champion_is": "champion v3",
        "calibration_error": 0.01,
    }
    return verdict_on(policy, GateEvidence(**{**facts, **changes}))  # type: ignore[arg-type]


def test_a_proven_gain_is_promoted_with_its_numbers() -> None:
    verdict = rule()
    assert verdict.outcome == "promote"
    assert verdict.reason == (
        "log_loss 0.4960 vs 0.5000 of champion v3: better by 0.0040 [+0.0030, +0.0050] at 95%, "
        "n = 12,311 in 14 groups"
    )


def test_a_loss_proven_to_be_within_the_margin_is_promoted() -> None:
    assert rule(champion=gain(-0.0005)).outcome == "promote"
    assert rule(champion=gain(-0.001)).outcome == "promote"  # low is exactly -margin


def test_a_loss_proven_to_be_beyond_the_margin_is_rejected() -> None:
    verdict = rule(champion=gain(-0.0035))
    assert verdict.outcome == "reject" and "worse by 0.0035" in verdict.reason


def test_an_interval_across_the_margin_is_inconclusive() -> None:
    verdict = rule(champion=gain(-0.001, reach=0.004))
    assert verdict.outcome == "inconclusive" and "beyond the margin 0.002" in verdict.reason


def test_without_a_margin_an_equal_model_is_no_news() -> None:
    assert rule(GatePolicy(), champion=gain(0.0, reach=0.0)).outcome == "inconclusive"
    assert rule(GatePolicy(), champion=gain(0.0015)).outcome == "promote"


def test_the_champion_itself_is_promoted_and_says_so() -> None:
    verdict = rule(same_as_champion=True, champion=gain(0.0, reach=0.0))
    assert verdict.outcome == "promote" and "is champion v3, byte for byte" in verdict.reason


def test_the_first_model_ever_must_beat_the_baseline() -> None:
    first = {"champion": None, "champion_is": ""}
    assert rule(**first).outcome == "promote"
    assert rule(**first, baseline=gain(0.0005)).outcome == "inconclusive"
    worse = rule(**first, baseline=gain(-0.02))
    assert worse.outcome == "reject" and "of the base rate 0.220: worse by 0.0200" in worse.reason


def test_a_gain_over_the_baseline_may_have_to_be_large() -> None:
    policy = GatePolicy(min_gain_over_baseline=0.1)
    assert rule(policy, champion=None).outcome == "reject"


def test_a_model_that_beats_the_champion_and_not_the_baseline_never_ships() -> None:
    assert rule(baseline=gain(-0.02), champion=gain(0.1)).outcome == "reject"


def test_a_proven_gain_over_the_champion_needs_only_a_gain_over_the_baseline() -> None:
    """The champion became worse than the baseline, and the world tells too little to prove more."""
    undecided = gain(0.02, reach=0.03)
    verdict = rule(baseline=undecided, champion=gain(0.3, reach=0.1))
    assert verdict.outcome == "promote" and verdict.reason.startswith(
        "log_loss 0.2000 vs 0.5000 of champion v3"
    )
    assert rule(baseline=undecided, champion=None, champion_is="").outcome == "inconclusive"
    assert rule(baseline=undecided, champion=gain(0.3, reach=0.3)).outcome == "inconclusive"
    assert rule(baseline=gain(-0.01, reach=0.03), champion=gain(0.3, reach=0.1)).outcome == "inconclusive"
    # What is tolerated against the champion is no gain.
    tolerant = GatePolicy(margin=0.02, min_rows=50)
    assert rule(tolerant, baseline=undecided, champion=gain(-0.001)).outcome == "inconclusive"
    choosy = GatePolicy(min_gain_over_baseline=0.03, min_rows=50)
    assert rule(choosy, baseline=undecided, champion=gain(0.3, reach=0.1)).outcome == "inconclusive"


def test_few_rows_decide_nothing_not_even_a_rejection() -> None:
    verdict = rule(baseline=gain(-0.02, rows=49), champion=gain(-0.1))
    assert verdict.outcome == "inconclusive"
    assert verdict.reason.startswith("49 labelled rows are fewer than min_rows 50")


def test_few_rows_in_the_duel_decide_nothing_either() -> None:
    verdict = rule(champion=gain(0.1, rows=49))
    assert verdict.outcome == "inconclusive" and "49" in verdict.reason


def test_a_metric_that_is_not_defined_decides_nothing() -> None:
    assert rule(champion=gain(None)).outcome == "inconclusive"
    assert rule(champion=gain(0.1, reach=None)).outcome == "inconclusive"


def test_bad_calibration_rejects_beyond_what_chance_shows() -> None:
    rejected = rule(calibration_error=0.08)
    assert rejected.outcome == "reject" and "calibration error 0.0800" in rejected.reason
    assert rule(calibration_error=0.08, calibration_noise=0.04).outcome == "promote"


def test_a_slice_with_a_proven_loss_rejects_and_is_named() -> None:
    bad = Slice("carrier", "B6", gain(-0.02))
    verdict = rule(slices=[Slice("carrier", "UA", gain(0.02)), bad])
    assert verdict.outcome == "reject" and verdict.reason.startswith("on carrier = B6: log_loss")


def test_a_slice_that_cannot_be_judged_blocks_nothing() -> None:
    verdict = rule(
        slices=[
            Slice("carrier", "HA", gain(-0.02, reach=None)),
            Slice("carrier", "VX", gain(-0.02, reach=0.05)),
        ]
    )
    assert verdict.outcome == "promote"
    assert {one.name: one.passed for one in verdict.rules}["slice carrier=HA"] is None


def test_everything_that_was_measured_is_told() -> None:
    names = [one.name for one in rule(slices=[Slice("carrier", "UA", gain(0.02))]).rules]
    assert names == ["baseline", "calibration_error", "champion", "slice carrier=UA"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metric": "auc"}, "Unknown metric 'auc'. Allowed: .*roc_auc"),
        ({"margn": 0.1}, "margn"),
        ({"margin": -0.1}, "greater than or equal to 0"),
        ({"confidence": 95}, "less than 1"),
    ],
)
def test_a_wrong_policy_says_what_is_allowed(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GatePolicy(**wrong)  # type: ignore[arg-type]


def test_further_looks_at_one_challenger_share_one_more_chance_of_a_wrong_proof() -> None:
    policy = GatePolicy()
    assert policy.at_look(1) is policy
    chances = [1 - policy.at_look(look).confidence for look in range(2, 400)]
    assert chances[:3] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert sum(chances) == pytest.approx(0.05, rel=0.01) and sum(chances) < 0.05
    assert policy.at_look(3).margin == policy.margin
