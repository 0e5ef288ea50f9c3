import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.rollout.judging.conditions import DEFAULT_ANALYSES, Analysis, Condition
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.judge import judge, measurement_of
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS
from mlops_assets.testing.simulated_rollouts import errors_scenario, quality_scenario
from serve.schema import LATENCY_BOUNDS_S, Moments, ShadowEvidence, VersionEvidence

BUCKETS = len(LATENCY_BOUNDS_S) + 1
NOTHING = VersionEvidence()


def analysis(metric: str, text: str) -> Analysis:
    return Analysis(metric, Condition.parse(text, metric=metric))


def counts(requests: int, slow: int = 0) -> tuple[int, ...]:
    """Requests of about 40 ms, and ``slow`` of them of about 600 ms."""
    counted = [0] * BUCKETS
    counted[LATENCY_BOUNDS_S.index(0.05)], counted[LATENCY_BOUNDS_S.index(0.75)] = requests - slow, slow
    return tuple(counted)


def version(requests: int, errors: int = 0, *, slow: int = 0, mean: float = 0.3) -> VersionEvidence:
    return VersionEvidence(
        requests=requests,
        errors={"model_error": errors - errors // 2, "timeout": errors // 2},
        latency=counts(requests, slow),
        outputs=Moments(count=requests - errors, mean=mean, m2=0.04 * (requests - errors)),
    )


def shadow(requests: int, errors: int = 0, *, mean: float = 0.0, distance: float = 0.01) -> ShadowEvidence:
    answered = requests - errors
    return ShadowEvidence(
        requests=requests,
        errors={"timeout": errors},
        latency=counts(requests),
        live_latency=counts(answered),
        differences=Moments(count=answered, mean=mean, m2=0.0025 * answered),
        distances=Moments(count=answered, mean=distance, m2=0.0004 * answered),
    )


EVERYTHING = tuple(
    analysis(metric, quantity.example)
    for metric in ANALYSIS_METRICS
    for quantity in ANALYSIS_METRICS[metric].quantities.values()
)


# -- the promise, with a look after every request ----------------------------------------------------------


def test_identical_versions_are_hardly_ever_rolled_back() -> None:
    found = errors_scenario(share=0.5, base=0.01, runs=30)
    assert found["failed"] <= 0.05
    hardest = errors_scenario(share=0.5, base=0.05, limit=0.0, runs=20)
    assert hardest["failed"] <= 0.05
    assert hardest["z_test_failed"] > 0.2  # what is avoided


def test_five_points_more_errors_are_caught(record_property: Callable[[str, object], None]) -> None:
    found = errors_scenario(share=0.5, base=0.01, more=0.05, runs=30)
    record_property("requests_until_failed", found["until_failed"])
    assert found["caught"] >= 0.95
    assert found["until_failed"]["p95"] <= 3_000


@pytest.mark.parametrize("paired", [True, False])
def test_a_quality_loss_of_five_points_is_caught(
    paired: bool, record_property: Callable[[str, object], None]
) -> None:
    found = quality_scenario("Brier score", more=0.05, paired=paired, runs=40)
    record_property("labels_until_failed", found["until_failed"])
    assert found["caught"] >= 0.95
    assert found["until_failed"]["p95"] <= 4_000


def test_pairs_need_fewer_labels_than_two_samples() -> None:
    pairs, samples = (
        quality_scenario("log loss", more=0.05, paired=paired, runs=30)["until_failed"]["median"]
        for paired in (True, False)
    )
    assert pairs < samples


# -- verdicts ------------------------------------------------------------------------------------------------


def test_a_version_that_fails_more_is_failed_and_the_reason_has_the_numbers() -> None:
    verdict = judge(DEFAULT_ANALYSES, StepEvidence(version(500, 35), version(4_500, 45)))
    assert verdict.phase == "failed"
    assert "35 of 500 requests failed (7.00 %), stable's 45 of 4,500 (1.00 %)" in verdict.reason
    assert "error_rate increase <= 0.02 does not hold (between" in verdict.reason
    assert "latency" not in verdict.reason
    (errors, latency) = verdict.measurements
    assert errors.value == pytest.approx(0.06)
    assert errors.low is not None and errors.high is not None
    assert 0.02 < errors.low < 0.06 < errors.high
    assert latency.phase == "successful"


def test_a_slow_version_is_failed() -> None:
    verdict = judge(DEFAULT_ANALYSES, StepEvidence(version(500, slow=60), version(500)))
    assert verdict.phase == "failed"
    assert verdict.measurements[1].low == 500.0
    assert "latency_p95 value_ms <= 500 does not hold" in verdict.reason


def test_a_single_error_fails_nothing() -> None:
    for requests in (1, 2, 10, 300):
        assert judge(DEFAULT_ANALYSES, StepEvidence(version(requests, 1), version(300))).phase != "failed"


def test_a_version_that_always_fails_is_failed_after_a_few_requests() -> None:
    assert judge(DEFAULT_ANALYSES, StepEvidence(version(10, 10), version(200))).phase == "failed"


def test_a_version_without_errors_passes_after_a_few_hundred_requests() -> None:
    early = judge(DEFAULT_ANALYSES, StepEvidence(version(140), version(1_000)))
    assert early.phase == "inconclusive"
    verdict = judge(DEFAULT_ANALYSES, StepEvidence(version(300), version(300)))
    assert verdict.phase == "successful"
    assert "0 of 300 requests failed" in verdict.reason


def test_an_open_verdict_says_what_is_missing_and_that_is_enough() -> None:
    seen = measurement_of(DEFAULT_ANALYSES[0], StepEvidence(version(500, 5), version(500, 5)))
    assert seen.phase == "inconclusive"
    more = int(seen.reason.split("about ")[1].split(" more requests")[0].replace(",", ""))
    times = math.ceil((500 + more) / 100)
    assert 5 < times < 12
    later = StepEvidence(version(100 * times, times), version(100 * times, times))
    assert measurement_of(DEFAULT_ANALYSES[0], later).phase == "successful"


def test_what_more_requests_cannot_decide_says_so() -> None:
    at_the_limit = measurement_of(
        analysis("error_rate", "value <= 0.02"), StepEvidence(version(1_000, 20), version(1_000))
    )
    assert at_the_limit.phase == "inconclusive"
    assert "no further requests decide it" in at_the_limit.reason
    too_fine = measurement_of(
        analysis("latency_p95", "ratio <= 1.2"), StepEvidence(version(5_000), version(5_000))
    )
    assert "no further requests decide it" in too_fine.reason


def test_one_failure_outweighs_what_is_open_and_what_is_open_outweighs_successes() -> None:
    failing = StepEvidence(version(400, slow=400), version(0))
    assert judge(EVERYTHING, failing).phase == "failed"
    waiting = StepEvidence(version(300), version(300))
    verdict = judge((*DEFAULT_ANALYSES, analysis("quality", "increase <= 0.02")), waiting)
    assert verdict.phase == "inconclusive"
    assert verdict.reason == "quality increase <= 0.02: no labels came back yet"


def test_more_analyses_make_a_failure_harder_and_a_success_no_harder() -> None:
    evidence = StepEvidence(version(500, 30), version(4_500, 45))
    alone = measurement_of(DEFAULT_ANALYSES[0], evidence)
    shared = measurement_of(DEFAULT_ANALYSES[0], evidence, among=10)
    assert alone.low is not None and shared.low is not None
    assert shared.low < alone.low
    assert shared.high == alone.high


def test_without_an_analysis_nothing_is_held_against_a_version() -> None:
    assert judge((), StepEvidence(NOTHING, NOTHING)).phase == "successful"


# -- which evidence ------------------------------------------------------------------------------------------


def test_a_shadow_step_judges_the_shadow() -> None:
    bad = judge(DEFAULT_ANALYSES, StepEvidence(NOTHING, version(2_000), shadow(2_000, 200)))
    assert bad.phase == "failed"
    assert "200 of 2,000 mirrored requests failed" in bad.reason
    good = judge(DEFAULT_ANALYSES, StepEvidence(NOTHING, version(400), shadow(400)))
    assert good.phase == "successful"


def test_traffic_of_its_own_counts_more_than_the_shadow() -> None:
    evidence = StepEvidence(version(400), version(400), shadow(2_000, 200))
    assert judge(DEFAULT_ANALYSES, evidence).phase == "successful"


def test_latency_of_a_shadow_is_held_against_the_same_live_requests() -> None:
    slow = shadow(1_000).model_copy(update={"latency": counts(1_000, slow=200)})
    seen = measurement_of(
        analysis("latency_p95", "ratio <= 2.5"), StepEvidence(NOTHING, version(1_000), slow)
    )
    assert seen.phase == "failed"
    assert seen.low is not None and seen.low > 2.5


def test_pairs_decide_a_shift_that_two_samples_leave_open() -> None:
    shifted = analysis("prediction_shift", "mean <= 0.02")
    paired = measurement_of(shifted, StepEvidence(NOTHING, version(300), shadow(300)))
    assert (paired.phase, paired.samples) == ("successful", 300)
    unpaired = measurement_of(shifted, StepEvidence(version(300), version(300)))
    assert unpaired.phase == "inconclusive"


@pytest.mark.parametrize("mean", [-0.1, 0.1])
def test_a_shift_fails_in_either_direction(mean: float) -> None:
    shifted = analysis("prediction_shift", "mean <= 0.05")
    seen = measurement_of(shifted, StepEvidence(NOTHING, version(500), shadow(500, mean=mean)))
    assert (seen.phase, seen.value) == ("failed", pytest.approx(0.1))
    assert ("lower" if mean < 0 else "higher") in seen.reason
    assert (
        measurement_of(shifted, StepEvidence(version(2_000, mean=0.3 + mean), version(2_000))).phase
        == "failed"
    )


def test_distances_exist_in_shadow_steps_only() -> None:
    distance = analysis("prediction_shift", "distance <= 0.05")
    assert measurement_of(distance, StepEvidence(NOTHING, version(500), shadow(500))).phase == "successful"
    bad = measurement_of(distance, StepEvidence(NOTHING, version(500), shadow(500, distance=0.2)))
    assert bad.phase == "failed"
    elsewhere = measurement_of(distance, StepEvidence(version(500), version(500)))
    assert elsewhere.phase == "inconclusive" and "only a shadow step" in elsewhere.reason


def test_quality_uses_the_pairs_when_there_are() -> None:
    worse = Moments(count=800, mean=0.06, m2=800 * 0.01)
    wide = Moments(count=800, mean=0.2, m2=800 * 0.04)
    quality = analysis("quality", "increase <= 0.02")
    paired = QualityEvidence(canary=wide, stable=wide, differences=worse, loss="Brier score")
    seen = measurement_of(quality, StepEvidence(NOTHING, NOTHING, quality=paired))
    assert (seen.phase, seen.value) == ("failed", 0.06)
    assert "800 labelled pairs Brier score is 0.0600 higher" in seen.reason
    samples = QualityEvidence(canary=wide, stable=wide, loss="Brier score")
    assert measurement_of(quality, StepEvidence(NOTHING, NOTHING, quality=samples)).value == 0.0


def test_a_version_that_answers_exactly_alike_passes_any_limit() -> None:
    alike = shadow(300).model_copy(update={"differences": Moments(count=300, mean=0.0, m2=0.0)})
    evidence = StepEvidence(NOTHING, version(300), alike)
    assert measurement_of(analysis("prediction_shift", "mean <= 0"), evidence).phase == "successful"
    assert measurement_of(analysis("prediction_shift", "mean < 0"), evidence).phase == "failed"
    early = alike.model_copy(update={"differences": Moments(count=50, mean=0.0, m2=0.0)})
    seen = measurement_of(
        analysis("prediction_shift", "mean <= 0"), StepEvidence(NOTHING, version(300), early)
    )
    assert seen.phase == "inconclusive" and "judged from 200 pairs on" in seen.reason


# -- what cannot be known ------------------------------------------------------------------------------------


def test_no_requests_are_inconclusive_and_nothing_is_zero() -> None:
    for evidence in (
        StepEvidence(NOTHING, NOTHING),
        StepEvidence(NOTHING, version(500), ShadowEvidence(), QualityEvidence(differences=Moments())),
    ):
        verdict = judge(EVERYTHING, evidence)
        assert verdict.phase == "inconclusive"
        for one in verdict.measurements:
            assert (one.phase, one.value, one.low, one.high) == ("inconclusive", None, None, None)
            assert one.samples == 0


def test_a_missing_counterpart_is_named() -> None:
    alone = StepEvidence(version(600, 1), NOTHING)
    seen = measurement_of(analysis("latency_p95", "ratio <= 2"), alone)
    assert seen.phase == "inconclusive" and "stable had no requests" in seen.reason
    # What a version shows by itself still counts: at most 2 % of errors are at most 2 points more.
    assert measurement_of(DEFAULT_ANALYSES[0], alone).phase == "successful"
    assert (
        measurement_of(DEFAULT_ANALYSES[0], StepEvidence(version(400, 400), NOTHING)).phase == "inconclusive"
    )


@pytest.mark.parametrize(
    "series",
    [
        Moments(count=500, mean=math.nan, m2=1.0),
        Moments(count=500, mean=0.1, m2=math.nan),
        Moments(count=500, mean=math.inf, m2=math.inf),
        Moments(count=500, mean=1e300, m2=1.0),
        Moments(count=500, mean=0.1, m2=-1.0),
    ],
    ids=str,
)
def test_what_is_no_number_is_inconclusive_and_said(series: Moments) -> None:
    pairs = shadow(500).model_copy(update={"differences": series, "distances": series})
    evidence = StepEvidence(NOTHING, version(500), pairs, QualityEvidence(differences=series))
    for one in judge(EVERYTHING, evidence).measurements:
        if one.metric in ("prediction_shift", "quality"):
            assert (one.phase, one.value) == ("inconclusive", None)
            assert "no number" in one.reason


def test_counts_that_contradict_each_other_are_inconclusive() -> None:
    odd = VersionEvidence(requests=10, errors={"timeout": 20}, latency=(0,) * (BUCKETS - 1) + (-1,))
    verdict = judge(DEFAULT_ANALYSES, StepEvidence(odd, version(500)))
    assert verdict.phase == "inconclusive"
    assert "contradict" in verdict.reason and "do not fit" in verdict.reason


numbers = st.integers(0, 5_000)
series = st.builds(
    Moments,
    count=numbers,
    mean=st.floats(allow_nan=True, allow_infinity=True),
    m2=st.floats(allow_nan=True, allow_infinity=True),
)
versions = st.builds(
    VersionEvidence,
    requests=numbers,
    errors=st.dictionaries(st.sampled_from(["timeout", "gone"]), numbers, max_size=2),
    latency=st.lists(st.integers(0, 900), min_size=BUCKETS, max_size=BUCKETS).map(tuple),
    outputs=series,
)
shadows = st.builds(
    ShadowEvidence, requests=numbers, differences=series, distances=series, latency=st.just(counts(300))
)
qualities = st.builds(QualityEvidence, series, series, st.none() | series)


@settings(max_examples=60, deadline=None)
@given(versions, versions, st.none() | shadows, st.none() | qualities)
def test_no_numbers_raise_and_every_answer_is_finite_or_none(
    canary: VersionEvidence,
    stable: VersionEvidence,
    mirrored: ShadowEvidence | None,
    quality: QualityEvidence | None,
) -> None:
    verdict = judge(EVERYTHING, StepEvidence(canary, stable, mirrored, quality))
    assert len(verdict.measurements) == len(EVERYTHING)
    for one in verdict.measurements:
        assert one.reason.startswith(f"{one.metric} {one.condition}")
        for number in (one.value, one.low, one.high):
            assert number is None or math.isfinite(number)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 2_000), st.integers(0, 100))
def test_more_errors_never_help(requests: int, errors: int) -> None:
    order = ["successful", "inconclusive", "failed"]
    found = [
        order.index(
            measurement_of(
                DEFAULT_ANALYSES[0], StepEvidence(version(requests, wrong), version(1_000, 10))
            ).phase
        )
        for wrong in np.unique(np.minimum(requests, [errors, errors + 1, errors * 2 + 5])).tolist()
    ]
    assert found == sorted(found)
