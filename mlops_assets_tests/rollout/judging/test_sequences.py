import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.sequences import (
    MEAN_MINIMUM,
    TAIL,
    Magnitude,
    Mean,
    MeanDifference,
    Quantile,
    QuantileRatio,
    Share,
    ShareDifference,
    log_normal_above,
    log_share_above,
    log_share_below,
    log_share_difference_above,
)
from serve.schema import LATENCY_BOUNDS_S, Moments

LEVEL = 0.05
ENOUGH = math.log(1 / LEVEL)
BUCKETS = len(LATENCY_BOUNDS_S) + 1


def moments(values: "np.typing.NDArray[np.float64]") -> Moments:
    return Moments(
        count=len(values), mean=float(values.mean()), m2=float(((values - values.mean()) ** 2).sum())
    )


def latencies(**seconds: int) -> tuple[int, ...]:
    """Counts by bucket: ``ms50=900`` puts 900 requests into the bucket that ends at 50 ms."""
    counts = [0] * BUCKETS
    for name, count in seconds.items():
        at = BUCKETS - 1 if name == "above" else LATENCY_BOUNDS_S.index(int(name[2:]) / 1000)
        counts[at] = count
    return tuple(counts)


# -- wrong for ever, with a look after every value: the promise itself -----------------------------------


@pytest.mark.parametrize("share", [0.002, 0.02, 0.3])
def test_a_share_is_hardly_ever_outside_its_sequence(share: float) -> None:
    generator = np.random.default_rng(1)
    trials = np.arange(1.0, 801)
    hits = np.cumsum(generator.random((250, 800)) < share, axis=1)
    for log_e in (log_share_above, log_share_below):
        wrong = (log_e(share, hits, trials) >= ENOUGH).any(axis=1).mean()
        assert wrong <= LEVEL


@pytest.mark.parametrize(
    ("own", "other", "dependent"),
    [(0.02, 0.0, False), (0.03, 0.01, False), (0.1, 0.08, True)],
)
def test_a_difference_of_shares_is_hardly_ever_outside_its_sequence(
    own: float, other: float, dependent: bool
) -> None:
    generator = np.random.default_rng(2)
    size = (150, 800)
    drawn = generator.random(size)
    # The dependent series are as dependent as can be: the same draw decides both.
    other_drawn = drawn if dependent else generator.random(size)
    looks = np.unique(np.geomspace(10, 799, 12).astype(int))
    hits, trials = np.cumsum(drawn < own, axis=1)[:, looks], looks + 1.0
    other_hits = np.cumsum(other_drawn < other, axis=1)[:, looks]
    for limit, counts in (
        (own - other, (hits, trials, other_hits, trials)),
        (other - own, (other_hits, trials, hits, trials)),
    ):
        log_e = log_share_difference_above(limit, *counts, dependent=dependent)
        assert (log_e >= ENOUGH).any(axis=1).mean() <= LEVEL


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
def test_a_mean_is_hardly_ever_outside_its_sequence(draw: str) -> None:
    generator = np.random.default_rng(3)
    values = getattr(generator, draw)(size=(500, 3_000))
    true_mean = {"normal": 0.0, "exponential": 1.0, "uniform": 0.5}[draw]
    z, counts = running_z(values - true_mean)
    for side in (z, -z):
        centred = np.maximum(side, 0.0) / np.sqrt(1 + side**2 / counts)
        # Asymptotic: of skewed values it is a little more than promised.
        allowed = LEVEL * (1.4 if draw == "exponential" else 1.0)
        assert (log_normal_above(centred, counts) >= ENOUGH).any(axis=1).mean() <= allowed


def test_what_is_avoided_a_z_test_at_every_look_is_wrong_most_of_the_time() -> None:
    generator = np.random.default_rng(4)
    z, _ = running_z(generator.normal(size=(500, 3_000)))
    assert (np.abs(z) > 1.96).any(axis=1).mean() > 0.3


def running_z(values: "np.typing.NDArray[np.float64]") -> tuple[np.ndarray, np.ndarray]:
    counts = np.arange(1.0, values.shape[1] + 1)
    mean = np.cumsum(values, axis=1) / counts
    spread = np.cumsum(values**2, axis=1) / counts - mean**2
    kept = slice(MEAN_MINIMUM - 1, None)
    return mean[:, kept] / np.sqrt(spread / counts)[:, kept], counts[kept]


@pytest.mark.parametrize(("own_size", "other_size"), [(1_000, 1_000), (300, 2_700)])
def test_a_difference_of_means_is_hardly_ever_outside_its_sequence(own_size: int, other_size: int) -> None:
    generator = np.random.default_rng(5)
    own = generator.exponential(size=(200, own_size))
    other = generator.exponential(size=(200, other_size))
    wrong = 0
    for run in range(200):
        for part in np.linspace(0.35, 1.0, 14):
            seen = MeanDifference(
                moments(own[run, : int(own_size * part)]), moments(other[run, : int(other_size * part)])
            )
            if seen.log_above(0.0) >= ENOUGH:
                wrong += 1
                break
    assert wrong / 200 <= LEVEL


# -- worked by hand ----------------------------------------------------------------------------------------


def test_a_uniform_prior_gives_the_textbook_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hits of three against 1/2, prior uniform above 1/2: the mean of (q / 0.5)^3 over q in (1/2, 1)
    is 8 * (1 - 1/16) / 4 / (1/2) = 3.75.
    """
    monkeypatch.setattr(sequences, "PRIOR_A", 1.0)
    monkeypatch.setattr(sequences, "PRIOR_B", 1.0)
    assert math.exp(Share(3, 3).log_above(0.5)) == pytest.approx(3.75)
    assert math.exp(Share(0, 3).log_below(0.5)) == pytest.approx(3.75)


def test_the_mixture_is_the_integral_it_says() -> None:
    """2 hits of 10 against 5 %, integrated numerically over q^-0.5 (1 - q)^4 above 5 %."""
    q = np.linspace(0.05, 1.0, 2_000_001)
    prior = q**-0.5 * (1 - q) ** 4
    ratio = (q / 0.05) ** 2 * ((1 - q) / 0.95) ** 8
    expected = np.trapezoid(prior * ratio, q) / np.trapezoid(prior, q)
    assert math.exp(Share(2, 10).log_above(0.05)) == pytest.approx(float(expected), rel=1e-6)


def test_the_normal_mixture_is_the_integral_it_says() -> None:
    """z = 2.5 after 500 values, integrated over a half-normal effect of scale sqrt(0.02)."""
    effect = np.linspace(0.0, 3.0, 2_000_001)
    prior = np.exp(-(effect**2) / (2 * sequences.MEAN_TUNING))
    ratio = np.exp(effect * 2.5 * math.sqrt(500) - effect**2 * 500 / 2)
    expected = np.trapezoid(prior * ratio, effect) / np.trapezoid(prior, effect)
    assert math.exp(float(log_normal_above(2.5, 500))) == pytest.approx(float(expected), rel=1e-6)


def test_no_error_proves_two_percent_after_about_two_hundred_requests() -> None:
    assert Share(0, 149).log_below(0.02) < ENOUGH  # (1 - 0.02)^149 = 0.049: no test needs fewer
    assert Share(0, 220).log_below(0.02) >= ENOUGH


def test_the_percentile_of_counts() -> None:
    seen = Quantile(latencies(ms30=900, ms50=100))
    assert seen.value == pytest.approx(0.03 + 0.02 * 50 / 100)
    assert seen.low(LEVEL) == 0.03
    assert seen.high(LEVEL) == 0.05


def test_a_percentile_above_the_last_bound_has_no_value_but_a_lower_bound() -> None:
    seen = Quantile(latencies(ms50=500, above=500))
    assert seen.value is None
    assert seen.low(LEVEL) == LATENCY_BOUNDS_S[-1]
    assert seen.high(LEVEL) is None


def test_a_limit_between_two_bounds_needs_the_nearer_bound_on_the_safe_side() -> None:
    seen = Quantile(latencies(ms500=1_000))
    assert seen.log_below(0.5) >= ENOUGH
    assert seen.log_below(0.499) < ENOUGH and seen.log_above(0.499) < ENOUGH
    assert seen.log_above(0.3) >= ENOUGH


def test_a_ratio_of_percentiles_resolves_a_bucket() -> None:
    fast, slow = Quantile(latencies(ms50=2_000)), Quantile(latencies(ms200=2_000))
    ratio = QuantileRatio(slow, fast)
    assert ratio.value == pytest.approx(4.0, rel=0.3)
    assert ratio.low(LEVEL) == pytest.approx(0.15 / 0.05)
    assert ratio.high(LEVEL) == pytest.approx(0.2 / 0.03)
    same = QuantileRatio(fast, fast)
    assert same.log_below(0.05 / 0.03 * 1.001) >= ENOUGH
    assert same.log_below(1.5) < ENOUGH  # the bucket is wider than that


def test_the_share_above_a_bound_is_what_is_tested() -> None:
    seen = Quantile(latencies(ms50=90, ms750=10))
    assert seen.log_above(0.5) == Share(10, 100).log_above(TAIL)


# -- what is not known ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [
        Share(0, 0),
        ShareDifference(Share(0, 0), Share(0, 0)),
        Mean(Moments()),
        MeanDifference(Moments(), Moments()),
        Magnitude(Mean(Moments())),
        Quantile((0,) * BUCKETS),
        QuantileRatio(Quantile((0,) * BUCKETS), Quantile((0,) * BUCKETS)),
    ],
    ids=lambda sequence: type(sequence).__name__,
)
def test_nothing_seen_is_nothing_known(empty: sequences.Sequence) -> None:
    assert empty.value is None
    assert empty.low(LEVEL) is None
    assert empty.high(LEVEL) is None
    assert max(empty.log_above(0.1), empty.log_below(0.1)) < 0.0


def test_a_version_without_errors_needs_no_counterpart_to_be_no_worse() -> None:
    alone = ShareDifference(Share(0, 400), Share(0, 0))
    assert alone.value is None
    assert alone.log_below(0.02) >= ENOUGH
    assert ShareDifference(Share(400, 400), Share(0, 0)).log_above(0.02) < 0.0


def test_a_mean_is_silent_below_its_minimum_and_certain_without_spread() -> None:
    few = Mean(Moments(count=MEAN_MINIMUM - 1, mean=5.0, m2=1.0))
    assert few.log_above(0.0) == -math.inf
    constant = Mean(Moments(count=MEAN_MINIMUM, mean=5.0, m2=0.0))
    assert constant.certain
    assert (constant.low(LEVEL), constant.high(LEVEL)) == (5.0, 5.0)
    assert constant.log_above(4.9) > ENOUGH and constant.log_above(5.0) == -math.inf


def test_a_mean_of_nearly_no_spread_does_not_overflow() -> None:
    seen = Mean(Moments(count=500, mean=1e100, m2=1e-300))
    assert seen.log_above(0.0) > ENOUGH


# -- shapes ---------------------------------------------------------------------------------------------

counts = st.integers(0, 3_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
limits = st.floats(0.001, 0.999)


@given(counts, limits, limits)
def test_evidence_falls_with_the_limit(seen: tuple[int, int], one: float, other: float) -> None:
    nearer, farther = sorted((one, other))
    assert Share(*seen).log_above(nearer) >= Share(*seen).log_above(farther) - 1e-6 or (
        # Below 1 an e-value claims nothing; the mixture need not be monotone there.
        Share(*seen).log_above(farther) < 1.0
    )


@given(counts, limits)
def test_both_sides_mirror_each_other(seen: tuple[int, int], limit: float) -> None:
    hits, trials = seen
    assert not (Share(hits, trials).log_above(limit) > 0 and Share(hits, trials).log_below(limit) > 0)
    assert Share(hits, trials).log_above(1.0) == -math.inf
    assert Share(hits, trials).log_below(0.0) == -math.inf


@given(counts)
def test_the_bounds_hold_the_value_and_are_refused_themselves(seen: tuple[int, int]) -> None:
    share = Share(*seen)
    if share.value is None:
        return
    low, high = share.low(LEVEL), share.high(LEVEL)
    assert low is not None and high is not None
    assert 0.0 <= low <= share.value <= high <= 1.0
    assert low == 0.0 or share.log_above(low) >= ENOUGH
    assert high == 1.0 or share.log_below(high) >= ENOUGH


def test_a_limit_that_is_hardly_above_0_is_one() -> None:
    least = float(np.nextafter(0.0, 1.0))
    assert 700.0 < log_share_above(least, 1, 1) < 750.0
    assert log_share_above(least, 0, 1) == -np.inf


@settings(max_examples=40, deadline=None)
@given(counts, counts, st.floats(-0.9, 0.9))
def test_the_least_over_the_nuisance_is_below_every_point_of_it(
    own: tuple[int, int], other: tuple[int, int], limit: float
) -> None:
    found = ShareDifference(Share(*own), Share(*other)).log_above(limit)
    shares = np.linspace(max(0.0, -limit), min(1.0, 1.0 - limit), 501)
    dense = sequences.combined(
        log_share_above(np.clip(shares + limit, 0, 1), *own),
        log_share_below(shares, *other),
        dependent=False,
    )
    assert found <= dense.min() + 1e-6


@settings(max_examples=40, deadline=None)
@given(counts, counts)
def test_swapping_the_versions_turns_the_difference_around(
    own: tuple[int, int], other: tuple[int, int]
) -> None:
    there, back = (
        ShareDifference(Share(*own), Share(*other)),
        ShareDifference(Share(*other), Share(*own)),
    )
    assert there.log_above(0.05) == back.log_below(-0.05)


@given(st.floats(-10, 10), st.floats(0.001, 100), st.integers(MEAN_MINIMUM, 10_000))
def test_the_bounds_of_a_mean_hold_it(mean: float, variance: float, count: int) -> None:
    seen = Mean(Moments(count=count, mean=mean, m2=variance * count))
    low, high = seen.low(LEVEL), seen.high(LEVEL)
    assert low is not None and high is not None
    assert low < mean < high
    assert high - mean == pytest.approx(mean - low, rel=1e-3, abs=1e-5)


def test_more_of_the_same_never_loosens_a_bound() -> None:
    bounds = [Share(3 * k, 300 * k).high(LEVEL) for k in (1, 2, 4, 8, 16)]
    assert bounds == sorted(bounds, reverse=True)  # type: ignore[type-var]
