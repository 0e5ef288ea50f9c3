"""Candidates and their training windows on one training part: who takes part, who wins, what is trained."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import DataError
from mlops_assets.training.candidates import Candidate
from mlops_assets.training.competition import Competition, won
from mlops_assets.training.trainers import FitInputs, trainer
from mlops_assets.training.training_data import TrainingData, training_data
from mlops_assets.training.training_set import LABEL, SPLIT, TRAIN
from serve.schema import FeatureSpec

PER_DAY = 48
FEATURES = (FeatureSpec(name="x", type="number"), FeatureSpec(name="c", type="category"))
REGRESSION = "logistic_regression"


def part(days: int, *, turned: int = 0, seed: int = 0) -> TrainingData:
    """The training part of a world whose relation turned around before its last ``turned`` days."""
    random = np.random.default_rng(seed)
    count = days * PER_DAY
    x, day = random.normal(size=count), np.arange(count) // PER_DAY
    sign = np.where(day >= days - turned, -1.0, 1.0)
    frame = pd.DataFrame(
        {
            "id": np.arange(count),
            "at": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(count) * 30, unit="min"),
            "x": x,
            # A category that is gone long before the end.
            "c": np.where(day < 3, "early", "late"),
            LABEL: (random.random(count) < 1 / (1 + np.exp(-1.5 * sign * x))).astype(float),
            SPLIT: TRAIN,
        }
    )
    return training_data(
        frame, split=TRAIN, features=FEATURES, classes=("no", "yes"), join_keys=["id"], event_timestamp="at"
    )


def competition(data: TrainingData, *candidates: Candidate) -> Competition:
    return Competition(data, candidates, folds=3, metric="log_loss", task="binary", seed=7)


def of_windows(*windows: int | None) -> list[Candidate]:
    return [Candidate(REGRESSION, window_days=days) for days in windows]


def test_after_a_change_the_window_that_holds_what_is_true_now_wins() -> None:
    """Forty weeks of the old relation, seven days of the new one."""
    place, why = won(competition(part(287, turned=7), *of_windows(None, 90, 28, 7)))
    assert place == 3 and why.startswith("logistic_regression 7d is proven better on the newest rows")


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changed_all_history_wins(seed: int) -> None:
    place, why = won(competition(part(150, seed=seed), *of_windows(None, 90, 28, 7)))
    assert place == 0 and why.endswith("no shorter training window is proven better on the newest rows")


def test_every_fold_trains_on_the_days_of_the_window_before_it() -> None:
    one = competition(part(80), *of_windows(None, 10))
    inside, _ = one.taking_part()
    whole, cut = (one.result(place, inside) for place in inside)
    assert [fold.train_rows for fold in whole.folds] == [20 * PER_DAY, 40 * PER_DAY, 60 * PER_DAY]
    assert [fold.train_rows for fold in cut.folds] == [10 * PER_DAY] * 3
    assert cut.judged.tolist() == whole.judged.tolist()
    assert cut.newest is not None and len(cut.newest.rows) == 5 * PER_DAY


def test_a_window_beside_it_changes_nothing_of_a_candidate_that_trains_on_everything() -> None:
    data = part(80)
    alone, beside = competition(data, *of_windows(None)), competition(data, *of_windows(None, 10))
    (first, second) = alone.result(0, [0]), beside.result(0, [0, 1])
    assert first.folds[0].metrics == second.folds[0].metrics and first.means() == second.means()
    assert first.newest is None and second.newest is not None
    assert data.within(None) is data and data.trained_window(None) is None


def test_the_final_fit_is_cut_likewise_and_is_the_same_every_time() -> None:
    def fitted(window_days: int | None) -> bytes:
        data = part(80).within(window_days)
        return (
            trainer("lightgbm")
            .fit(FitInputs(
                data.matrix, data.target, features=data.features, task="binary", classes=2,
                params={"num_rounds": 5}, seed=7,
            ))
            .payload
        )  # fmt: skip

    assert fitted(10) == fitted(10) != fitted(None)
    cut = part(80).within(10)
    assert cut.span == ("2024-03-11", "2024-03-20") and len(cut.target) == len(cut.frame) == 10 * PER_DAY
    window = cut.trained_window(10)
    assert window is not None and (window.days, window.first_day, window.last_day) == (10, *cut.span)


def test_what_a_request_may_send_does_not_depend_on_the_window() -> None:
    data = part(80)
    assert set(data.within(10).frame["c"]) == {"late"}
    assert data.within(10).features == data.features and data.features[1].categories == ("late", "early")


def test_who_cannot_compete_is_out_with_the_reason_and_the_others_go_on() -> None:
    one = competition(part(20), *of_windows(None, 28, 1))
    inside, out = one.taking_part()
    assert inside == [0] and won(one)[0] == 0
    assert out[1] == "all 960 training rows lie within 28d: the longer window is the same"
    assert out[2] == "the newest 1d of the training part hold 48 rows, fewer than 50"


def test_a_window_sits_out_a_fold_in_which_it_holds_too_little() -> None:
    data = part(80)
    # In the first weeks a row a day.
    sparse = np.flatnonzero(
        (np.arange(len(data.target)) >= 30 * PER_DAY) | (np.arange(len(data.target)) % PER_DAY == 0)
    )
    assert data.times is not None
    thin = TrainingData(
        data.frame.iloc[sparse].reset_index(drop=True), data.matrix[sparse], data.target[sparse],
        data.features, data.classes, data.times[sparse],
    )  # fmt: skip
    one = competition(thin, *of_windows(None, 10))
    result = one.result(1, [0, 1])
    assert result.folds[0].metrics["log_loss"] is None and result.folds[0].judge_rows == 0
    assert result.folds[1].metrics["log_loss"] is not None and result.mean("log_loss") is not None


def test_when_nobody_can_compete_each_reason_is_told() -> None:
    with pytest.raises(
        DataError, match=r"no candidate can compete: logistic_regression 1d: the newest 1d .* 48"
    ):
        won(competition(part(20), *of_windows(1)))


def test_one_window_alone_is_compared_with_nothing() -> None:
    one = competition(part(20), *of_windows(10))
    assert one.taking_part() == ([0], {}) and one.result(0, [0]).newest is None


def declared(**more: object) -> ModelDeclaration:
    return ModelDeclaration.model_validate(
        {
            "name": "shop", "task": "binary", "feature_view": "shop",
            "label": {"dataset": "shop", "column": "sold"},
            "candidates": [{"trainer": "lightgbm"}, {"trainer": REGRESSION, "training_window": "2w"}],
            **more,
        }
    )  # fmt: skip


def test_a_candidate_that_says_nothing_competes_with_the_default_windows() -> None:
    names = [one.name for one in declared().competing(timed=True)]
    assert names == ["lightgbm", "lightgbm 90d", "lightgbm 28d", "lightgbm 7d", "logistic_regression 14d"]


def test_without_event_time_and_beyond_the_training_set_there_are_no_windows() -> None:
    bare = declared(candidates=[{"trainer": "lightgbm"}])
    assert [one.name for one in bare.competing(timed=False)] == ["lightgbm"]
    short = declared(candidates=[{"trainer": "lightgbm"}], training_window_days=28)
    assert [one.name for one in short.competing(timed=True)] == ["lightgbm", "lightgbm 7d"]


def test_a_list_of_windows_competes_in_its_order() -> None:
    made = declared(candidates=[{"trainer": "lightgbm", "training_window": ["28d", "all"]}])
    assert [one.window_days for one in made.competing(timed=True)] == [28, None]
