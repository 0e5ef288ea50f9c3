"""Scores: agreement with scipy and Evidently, and values that blind others."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlops_assets.monitoring.detectors.kl import kl
from mlops_assets.monitoring.detectors.ks import ks
from mlops_assets.monitoring.detectors.psi import psi
from mlops_assets.monitoring.scores import (
    BINS,
    counts_between,
    finite_sorted,
    quantile_cuts,
    quantile_sample,
)

Array = np.ndarray


def counted(reference: Array, current: Array) -> tuple[Array, Array]:
    ordered, _ = finite_sorted(reference)
    cuts = quantile_cuts(ordered)
    return counts_between(ordered, cuts), counts_between(finite_sorted(current)[0], cuts)


def evidently(name: str, reference: pd.Series, current: pd.Series, kind: str) -> float:
    from evidently.legacy.calculations.stattests import registry
    from evidently.legacy.core import ColumnType

    test = registry.get_stattest(reference, current, ColumnType(kind), name)
    return float(test(reference, current, ColumnType(kind), None).drift_score)


def test_the_distance_is_scipys() -> None:
    random = np.random.default_rng(0)
    for size, other in ((50, 1), (300, 1_000), (1_999, 7)):
        first, second = random.normal(size=size).round(1), random.normal(0.3, size=other).round(1)
        found = ks(np.sort(first), np.sort(second))
        assert found == pytest.approx(stats.ks_2samp(first, second).statistic, abs=1e-12)


def test_the_distance_gives_evidentlys_p_value() -> None:
    random = np.random.default_rng(1)
    reference, current = random.normal(size=2_000), random.normal(0.1, size=700)
    distance = ks(np.sort(reference), np.sort(current))
    assert distance is not None
    p_value = stats.ks_2samp(reference, current)
    assert distance == pytest.approx(p_value.statistic, abs=1e-12)
    assert evidently("ks", pd.Series(reference), pd.Series(current), "num") == pytest.approx(p_value.pvalue)


def test_the_distance_of_nothing_is_not_defined() -> None:
    assert ks(np.empty(0), np.array([1.0])) is None
    assert ks(np.array([1.0]), np.empty(0)) is None


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
)
def test_the_distance_is_the_largest_at_any_point_with_ties(first: list[int], second: list[int]) -> None:
    ours = ks(np.sort(np.array(first, dtype=float)), np.sort(np.array(second, dtype=float)))
    at_points = [
        abs(np.mean([one <= point for one in first]) - np.mean([one <= point for one in second]))
        for point in {*first, *second}
    ]
    assert ours == pytest.approx(max(at_points), abs=1e-12)


@pytest.mark.parametrize("empty", [False, True])
def test_psi_and_kl_of_categories_are_evidentlys(empty: bool) -> None:
    """Also with an empty bin, in samples large enough for its share of 0.01 %."""
    random = np.random.default_rng(2)
    names = np.array(["a", "b", "c", "d"])
    reference = names[random.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=20_000)]
    current = names[random.choice(4, p=[0.3, 0.4, 0.3, 0.0] if empty else [0.3, 0.3, 0.2, 0.2], size=8_000)]
    counts = [np.array([(values == name).sum() for name in names]) for values in (reference, current)]
    both = pd.Series(reference), pd.Series(current)
    assert float(psi(*counts)) == pytest.approx(evidently("psi", *both, "cat"), rel=1e-9)
    assert float(kl(*counts)) == pytest.approx(evidently("kl_div", *both, "cat"), rel=1e-9)


def test_one_outlier_blinds_evidently_and_not_us() -> None:
    random = np.random.default_rng(3)
    reference, current = random.normal(size=5_000), random.normal(0.3, size=5_000)
    spoiled = np.append(current[:-1], 1e6)
    clean = float(psi(*counted(reference, current)))
    assert clean > 0.07
    assert float(psi(*counted(reference, spoiled))) == pytest.approx(clean, rel=0.02)
    assert evidently("psi", pd.Series(reference), pd.Series(spoiled), "num") < 0.001


def test_bins_hold_equal_shares_of_the_reference() -> None:
    ordered = np.sort(np.random.default_rng(4).normal(size=10_000))
    counts = counts_between(ordered, quantile_cuts(ordered))
    assert len(counts) == BINS
    assert counts.min() > 990


def test_a_value_that_fills_bins_has_one_of_its_own() -> None:
    ordered = np.sort(np.concatenate([np.zeros(900), np.arange(1, 101, dtype=float)]))
    cuts = quantile_cuts(ordered)
    values = np.array([-1.0, 0.0, 0.0, 0.5])
    assert counts_between(values, cuts).tolist()[:3] == [1, 2, 1]


def test_a_constant_column_notices_both_sides() -> None:
    cuts = quantile_cuts(np.full(50, 5.0))
    assert counts_between(np.array([4.0, 5.0, 5.0, 6.0]), cuts).tolist() == [1, 2, 1]


def test_infinite_values_are_the_largest_and_missing_ones_are_counted() -> None:
    ordered, missing = finite_sorted(np.array([np.inf, np.nan, 1.0, -np.inf]))
    assert missing == 1
    assert np.isfinite(ordered).all()
    assert ordered[1] == 1.0


def test_a_bin_that_is_empty_in_both_says_nothing() -> None:
    with_empty = np.array([50, 0, 50]), np.array([30, 0, 70])
    without = np.array([50, 50]), np.array([30, 70])
    assert float(psi(*with_empty)) == pytest.approx(float(psi(*without)), rel=1e-3)


def test_an_empty_bin_of_a_small_window_counts_as_half_a_row() -> None:
    half = float(psi(np.array([9_000, 1_000]), np.array([100, 0])))
    assert half == pytest.approx((1 - 0.9) * np.log(1 / 0.9) + (0.1 - 0.005) * np.log(0.1 / 0.005), rel=1e-6)


def test_identical_shares_score_zero_and_nothing_scores_nothing() -> None:
    counts = np.array([10, 20, 70])
    assert float(psi(counts, counts * 3)) == 0.0
    assert float(kl(counts, counts * 3)) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(psi(counts, np.zeros(3, dtype=int)))


def test_a_sample_of_quantiles_keeps_the_distance() -> None:
    random = np.random.default_rng(5)
    ordered, current = np.sort(random.normal(size=50_000)), np.sort(random.normal(0.1, size=3_000))
    whole, part = ks(ordered, current), ks(quantile_sample(ordered), current)
    assert whole is not None and part is not None
    assert part == pytest.approx(whole, abs=0.0005)
