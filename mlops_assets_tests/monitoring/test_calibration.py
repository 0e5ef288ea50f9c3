"""Thresholds: the stated level against brute force, for rows and for days, and columns that never vary."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.monitoring.calibration import DayBootstrap, FineCells, NullDistribution, calibrate
from mlops_assets.monitoring.detectors.ks import ks
from mlops_assets.monitoring.detectors.psi import psi
from mlops_assets.monitoring.reference import ColumnReference, TrainingRows, make_reference
from mlops_assets.monitoring.scores import counts_between
from serve.schema import FeatureSpec

Array = np.ndarray
SPEC = FeatureSpec(name="x", type="number")


def reference_of(values: Array, groups: Array | None, seed: int = 0) -> ColumnReference:
    made = make_reference(
        TrainingRows(pd.DataFrame({"x": values}), [SPEC], groups),
        held_out=None,
        task="binary",
        classes=("no", "yes"),
        window_days=7,
        seed=seed,
    )
    return made.columns[0]


def scores_of(column: ColumnReference, window: Array) -> dict[str, float]:
    ordered = np.sort(window)
    counts = np.append(counts_between(ordered, np.asarray(column.cuts)), 0)
    distance = ks(np.asarray(column.sample), ordered)
    assert distance is not None
    return {"psi": float(psi(np.asarray(column.counts), counts)), "ks": distance}


def exceeding(
    *,
    day_effect: float,
    grouped: bool,
    rows: tuple[int, ...],
    level: float,
    references: int,
    windows: int,
    known_days: int = 84,
) -> dict[tuple[str, int], float]:
    """Share of fresh windows of each size above the threshold, over fresh references, of a world whose days
    differ. A reference, which costs most, serves all sizes.
    """
    random = np.random.default_rng(7)

    def days(count: int, per_day: int) -> Array:
        effect = day_effect * random.normal(size=(count, 1))
        return np.asarray((random.normal(size=(count, per_day)) + effect).ravel())

    hits = {(name, size): 0 for name in ("psi", "ks") for size in rows}
    for number in range(references):
        groups = np.repeat(np.arange(known_days), 100) if grouped else None
        column = reference_of(days(known_days, 100), groups, seed=number)
        nulls = {null.statistic: null for null in column.nulls}
        limits = {(name, size): nulls[name].threshold(size, level) for name, size in hits}
        for size in rows:
            for _ in range(windows):
                drawn = random.permutation(days(7, -(-size // 7)))[:size]
                for name, value in scores_of(column, drawn).items():
                    hits[name, size] += value > limits[name, size]
    return {one: count / (references * windows) for one, count in hits.items()}


@pytest.mark.parametrize(
    ("day_effect", "grouped", "rows", "known_days", "references"),
    [
        (0.0, False, (100, 700), 84, 30),
        (0.3, True, (300, 700), 84, 30),
        # Of three weeks, what the reference itself owes to chance is a third of what the window does.
        (0.3, True, (700,), 21, 50),
    ],
)
def test_about_one_window_in_twenty_exceeds_the_five_percent_threshold(
    day_effect: float, grouped: bool, rows: tuple[int, ...], known_days: int, references: int
) -> None:
    found = exceeding(
        day_effect=day_effect,
        grouped=grouped,
        rows=rows,
        level=0.05,
        references=references,
        windows=1200 // references,
        known_days=known_days,
    )
    for of, share in found.items():
        assert 0.02 < share < 0.085, of


def test_days_taken_as_independent_rows_alarm_far_too_often() -> None:
    found = exceeding(day_effect=0.3, grouped=False, rows=(700,), level=0.05, references=10, windows=50)
    assert min(found.values()) > 0.3


def test_the_far_tail_agrees_with_brute_force() -> None:
    """At a level that a thousand draws never show: 1 in 5,000, from 400,000 simulated windows."""
    random = np.random.default_rng(11)
    column = reference_of(random.normal(size=20_000), None)
    size, windows, level = 500, 400_000, 0.0002
    shares = np.asarray(column.counts[:-1]) / sum(column.counts)
    drawn = random.multinomial(size, shares, size=windows)
    # The reference is a sample of the world that windows come from, so it is drawn as well.
    held = random.multinomial(column.rows, shares, size=windows)
    values = psi(held, drawn)
    null = column.null("psi")
    assert null is not None
    share = float((values > null.threshold(size, level)).mean())
    assert level / 3 < share < level * 3


def test_the_tail_of_the_distance_is_smirnovs_for_independent_rows() -> None:
    from scipy.special import kolmogi

    column = reference_of(np.random.default_rng(12).normal(size=50_000), None)
    null = column.null("ks")
    assert null is not None
    for rows in (1_000, 10_000):
        expected = kolmogi(1e-4) * np.sqrt(1 / rows + 1 / 50_000)
        assert null.threshold(rows, 1e-4) == pytest.approx(expected, rel=0.1)


def test_a_weekday_is_no_surprise_in_a_week() -> None:
    """Every week has one Monday; days drawn at random would allow for weeks without one."""
    day = np.repeat(np.arange(84), 50)
    column = reference_of((day % 7).astype(float), day)
    null = column.null("psi")
    assert null is not None
    assert null.threshold(350, 0.001) < 0.1


def test_a_column_that_never_varies_has_a_threshold_of_zero() -> None:
    column = reference_of(np.full(500, 3.0), None)
    for null in column.nulls:
        assert null.threshold(300, 1e-4) == pytest.approx(0.0, abs=1e-12)


def test_thresholds_fall_with_the_size_and_with_a_wider_level() -> None:
    null = reference_of(np.random.default_rng(13).normal(size=5_000), None).null("psi")
    assert null is not None
    by_size = [null.threshold(rows, 0.001) for rows in (1, 50, 100, 170, 300, 5_000, 30_000)]
    assert by_size == sorted(by_size, reverse=True)
    assert null.threshold(30_000, 0.001) == null.threshold(10**7, 0.001)
    assert null.threshold(500, 0.0001) > null.threshold(500, 0.01)


def test_interpolation_meets_the_sizes_that_are_known() -> None:
    null = NullDistribution(
        statistic="psi", sizes=(100, 1_000), mean=(0.1, 0.01), deviation=(0.0, 0.0), skewness=(0.0, 0.0)
    )
    assert null.threshold(100, 0.5) == pytest.approx(0.1)
    assert null.threshold(1_000, 0.5) == pytest.approx(0.01)
    assert null.threshold(316, 0.5) == pytest.approx(0.0316, rel=0.01)


def test_the_same_seed_gives_the_same_numbers() -> None:
    cells = np.random.default_rng(14).poisson(30, size=(20, 12))
    bins = np.array([0, 4, 8, 11])
    made = [
        calibrate(
            FineCells(cells, bins, present=11, ordered=True),
            days=DayBootstrap(np.arange(20), 7),
            seed=3,
            sizes=(100,),
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert made[0][0].sizes == (100, round(cells.sum() / 20 * 7))
