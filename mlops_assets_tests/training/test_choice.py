"""Which candidate wins: by the folds, and among training windows by proof on the rows nearest to now."""

import numpy as np
import pytest

from mlops_assets.errors import DataError
from mlops_assets.training.candidates import Candidate, CandidateResult, FoldResult, OutOfFold
from mlops_assets.training.choice import NEWEST_DAYS, best
from mlops_assets.training.window import Outcomes

PER_DAY, DAYS = 60, 40
RANDOM = np.random.default_rng(0)
TARGET = RANDOM.integers(0, 2, PER_DAY * DAYS).astype(float)
OUTCOMES = Outcomes(TARGET, np.repeat(np.arange(DAYS), PER_DAY))
NEWEST = np.arange(PER_DAY * (DAYS - NEWEST_DAYS), PER_DAY * DAYS)
LAST_FOLD = np.arange(PER_DAY * DAYS // 2, PER_DAY * DAYS)


def result(name: str, values: list[float | None], metric: str = "log_loss") -> CandidateResult:
    folds = tuple(FoldResult({metric: value}, 100, 50, 0.1) for value in values)
    return CandidateResult(Candidate(name), {}, folds, {}, np.empty(0, dtype=np.int64), np.empty(0))


def scored(window_days: int | None, *, newest: float, last_fold: float, mean: float = 0.6) -> CandidateResult:
    """Scores that know so much of the outcome: 0 nothing, 1 all; the wrong way round below 0."""

    def look(rows: np.ndarray, knows: float) -> OutOfFold:
        noise = np.random.default_rng(window_days or 0).normal(0, 0.05, len(rows))
        return OutOfFold(rows, np.clip(0.5 + 0.45 * knows * (2 * TARGET[rows] - 1) + noise, 0.01, 0.99))

    fold = look(LAST_FOLD, last_fold)
    return CandidateResult(
        Candidate("lightgbm", window_days=window_days),
        {},
        (FoldResult({"log_loss": mean}, 100, len(LAST_FOLD), 0.1),),
        {},
        fold.rows,
        fold.scores,
        newest=look(NEWEST, newest),
    )


def test_the_lowest_loss_wins_and_the_reason_has_both_numbers() -> None:
    position, why = best(
        [result("xgboost", [0.5, 0.5]), result("lightgbm", [0.4, 0.5])], "log_loss", "binary", OUTCOMES
    )
    assert position == 1 and why == "lightgbm has the best mean log_loss, 0.4500, before xgboost with 0.5000"


def test_the_highest_ranking_wins() -> None:
    results = [result("xgboost", [0.7], "roc_auc"), result("lightgbm", [0.8], "roc_auc")]
    assert best(results, "roc_auc", "binary", OUTCOMES)[0] == 1


def test_equal_candidates_keep_the_declared_order() -> None:
    equal = [result("xgboost", [0.5]), result("lightgbm", [0.5])]
    assert best(equal, "log_loss", "binary", OUTCOMES)[0] == 0


def test_a_fold_without_an_answer_is_left_out_of_the_mean() -> None:
    assert result("lightgbm", [0.4, None, 0.6], "roc_auc").mean("roc_auc") == pytest.approx(0.5)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_candidate_without_a_defined_metric_cannot_win(value: float | None) -> None:
    results = [result("xgboost", [value]), result("lightgbm", [9.0])]
    assert best(results, "log_loss", "binary", OUTCOMES)[0] == 1
    with pytest.raises(DataError, match="log_loss is defined on no fold"):
        best(results[:1], "log_loss", "binary", OUTCOMES)


def test_after_a_change_the_newest_days_speak_although_every_fold_is_for_all_history() -> None:
    results = [
        scored(None, newest=-0.5, last_fold=0.8, mean=0.3),
        scored(28, newest=-0.3, last_fold=0.7, mean=0.4),
        scored(7, newest=0.4, last_fold=0.2, mean=0.6),
    ]
    position, why = best(results, "log_loss", "binary", OUTCOMES)
    assert position == 2
    assert why.startswith("lightgbm 7d is proven better on the newest rows: log_loss ")
    assert "of lightgbm: better by" in why and "300 in 5 groups" in why
    assert why.endswith("lightgbm has the best mean log_loss, 0.3000")


def test_a_slow_change_is_proven_on_the_many_days_of_the_last_fold() -> None:
    results = [
        scored(None, newest=0.5, last_fold=0.50),
        scored(90, newest=0.505, last_fold=0.53),
    ]
    position, why = best(results, "log_loss", "binary", OUTCOMES)
    assert position == 1 and "1,200 in 20 groups" in why


def test_what_was_better_and_is_worse_on_the_newest_days_is_not_taken() -> None:
    results = [scored(None, newest=0.5, last_fold=0.4), scored(90, newest=0.45, last_fold=0.6)]
    assert best(results, "log_loss", "binary", OUTCOMES)[0] == 0


def test_a_shorter_window_that_only_looks_better_is_not_taken() -> None:
    """Twenty samples of noise: nothing is true of one candidate that is not of the other."""
    taken = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        results = [
            CandidateResult(
                Candidate("lightgbm", window_days=window_days), {},
                (FoldResult({"log_loss": 0.7}, 100, len(LAST_FOLD), 0.1),), {},
                LAST_FOLD, random.uniform(0.4, 0.6, len(LAST_FOLD)),
                newest=OutOfFold(NEWEST, random.uniform(0.4, 0.6, len(NEWEST))),
            )
            for window_days in (None, 90, 28, 7)
        ]  # fmt: skip
        position, why = best(results, "log_loss", "binary", OUTCOMES)
        taken += position != 0
        assert position != 0 or why.endswith("no shorter training window is proven better on the newest rows")
    assert taken <= 2


def test_windows_of_the_same_length_compete_by_their_means() -> None:
    results = [
        scored(28, newest=0.1, last_fold=0.1, mean=0.5),
        scored(28, newest=0.9, last_fold=0.9, mean=0.6),
    ]
    assert best(results, "log_loss", "binary", OUTCOMES) == (
        0,
        "lightgbm 28d has the best mean log_loss, 0.5000, before lightgbm 28d with 0.6000",
    )
