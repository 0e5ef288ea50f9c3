"""Training windows: which rows lie within one, and what keeps one from competing."""

import numpy as np
import pytest

from mlops_assets.training.folds import Fold, newest_days
from mlops_assets.training.window import (
    DEFAULT_WINDOWS,
    FEWEST_ROWS,
    Outcomes,
    out_of_the_running,
    window_name,
    within,
)

DAYS = np.repeat(np.arange(60), 20)
TARGET = np.tile([0.0, 1.0], 600)
NEWEST = newest_days(DAYS.astype("datetime64[D]"), 5)


def why(window_days: int | None, others: tuple[int | None, ...] = (None,), **changes: object) -> str:
    given = {"days": DAYS, "target": TARGET, "newest": NEWEST, "compared": True, "task": "binary", **changes}
    outcomes = Outcomes(given.pop("target"), given.pop("days"))  # type: ignore[arg-type]
    return out_of_the_running(window_days, others, outcomes, **given)  # type: ignore[arg-type]


def test_a_window_counts_calendar_days_back_from_the_newest_row() -> None:
    assert np.unique(DAYS[within(DAYS, 7)]).tolist() == list(range(53, 60))
    assert within(DAYS, None).all() and within(DAYS, 60).all() and not within(DAYS, 59).all()
    assert within(np.empty(0, dtype=np.int64), 7).tolist() == []


def test_a_pause_in_the_data_empties_no_window() -> None:
    paused = np.concatenate([np.repeat(np.arange(30), 4), np.repeat([90, 91], 4)])
    assert within(paused, 7).sum() == 8


def test_windows_are_called_as_the_document_says_them() -> None:
    assert [window_name(one) for one in DEFAULT_WINDOWS] == ["all", "90d", "28d", "7d"]


def test_what_can_compete_says_nothing() -> None:
    assert why(None) == why(28) == why(7) == ""


@pytest.mark.parametrize("target", [TARGET, np.zeros(1200)])
def test_all_history_always_competes(target: np.ndarray) -> None:
    assert why(None, (), target=target, days=None, newest=None) == ""


def test_a_window_that_leaves_no_row_out_is_the_longer_one_once_more() -> None:
    assert why(90) == "all 1,200 training rows lie within 90d: the longer window is the same"
    assert why(90, (120, 28)).startswith("all 1,200") and why(60, (28,)) == ""


def test_too_few_rows_are_counted() -> None:
    assert why(2) == f"the newest 2d of the training part hold 40 rows, fewer than {FEWEST_ROWS}"
    late = np.where(DAYS >= 50, 1.0, TARGET)
    assert why(7, target=late) == "the newest 7d of the training part hold 140 rows of one class"
    assert why(7, target=late, task="regression") == ""


def test_the_rows_before_the_newest_days_count_too() -> None:
    kept = (DAYS < 48) | (DAYS >= 55)
    days, target = DAYS[kept], TARGET[kept]
    newest = newest_days(days.astype("datetime64[D]"), 5)
    assert why(7, days=days, target=target, newest=newest) == ""  # the seven days up to day 47
    few = Fold(np.arange(30), np.arange(30, len(target)))
    assert why(7, days=days, target=target, newest=few) == (
        "the 7d before the newest days, on which windows are compared, hold 30 rows, fewer than 50"
    )


def test_windows_need_days_to_be_compared_on_but_one_alone_does_not() -> None:
    assert why(28, newest=None) == "60 days of training rows are too few to compare windows on the newest"
    assert why(28, (), newest=None, compared=False) == ""
    assert "no event time" in why(28, days=None)
