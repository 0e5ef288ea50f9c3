"""Folds: nothing judged was trained on, time runs forward, no row is lost."""

import numpy as np
import pytest

from mlops_assets.errors import DataError
from mlops_assets.training.folds import shuffled, time_ordered


def hours(days: int, per_day: int = 4) -> np.ndarray:
    return np.datetime64("2024-01-01") + np.arange(days * per_day) * np.timedelta64(24 // per_day, "h")


@pytest.mark.parametrize(("days", "folds"), [(4, 3), (10, 3), (365, 3), (7, 1)])
def test_every_fold_trains_on_all_that_came_before_and_judges_what_comes_next(days: int, folds: int) -> None:
    times = hours(days)
    made = time_ordered(times, folds)
    assert len(made) == folds
    for fold in made:
        assert times[fold.train].max() < times[fold.judge].min()
        np.testing.assert_array_equal(np.concatenate([fold.train, fold.judge]), np.arange(fold.judge[-1] + 1))
    judged = np.concatenate([fold.judge for fold in made])
    np.testing.assert_array_equal(judged, np.arange(made[0].judge[0], len(times)))


def test_no_day_is_split() -> None:
    times = hours(11)
    for fold in time_ordered(times, 4):
        assert (
            times[fold.train].astype("datetime64[D]").max() < times[fold.judge].astype("datetime64[D]").min()
        )


def test_the_order_of_the_rows_does_not_matter() -> None:
    times = hours(12)
    order = np.random.default_rng(0).permutation(len(times))
    for ordered, mixed in zip(time_ordered(times, 3), time_ordered(times[order], 3), strict=True):
        assert set(times[ordered.train]) == set(times[order][mixed.train])
        assert set(times[ordered.judge]) == set(times[order][mixed.judge])


def test_too_few_days_are_counted_in_the_error() -> None:
    with pytest.raises(DataError, match="3 time-ordered folds need at least 4 days, there are 3"):
        time_ordered(hours(3), 3)


def test_without_time_every_row_is_judged_once_by_a_model_that_did_not_see_it() -> None:
    target = np.repeat([0.0, 1.0, 2.0], [60, 30, 9])
    made = shuffled(target, 3, seed=1, stratified=True)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.judge for fold in made])), np.arange(99))
    for fold in made:
        assert not set(fold.train) & set(fold.judge)
        np.testing.assert_array_equal(np.bincount(target[fold.judge].astype(int)), [20, 10, 3])


def test_the_seed_decides_the_folds() -> None:
    target = np.zeros(50)
    first, again, other = (shuffled(target, 2, seed=seed, stratified=False)[0].judge for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_too_few_rows_are_counted_in_the_error() -> None:
    with pytest.raises(DataError, match="3 folds need at least 6 rows, there are 5"):
        shuffled(np.zeros(5), 3, seed=0, stratified=False)
