"""Metrics against scikit-learn, and what they say where they are not defined."""

import numpy as np
import pytest
from sklearn import metrics as sk

from mlops_assets.errors import UnknownName
from mlops_assets.evaluation.baseline import baseline_scores, describe_baseline
from mlops_assets.evaluation.metrics import METRICS, SELECTING, metric, metric_values
from mlops_assets.evaluation.metrics.calibration_error import calibration_noise, expected_calibration_error
from mlops_assets.evaluation.metrics.roc_auc import roc_auc
from mlops_assets.testing.conformance.metrics import MetricConformance, cases
from serve.schema import Task

RANDOM = np.random.default_rng(0)
BINARY = (RANDOM.integers(0, 2, 500).astype(float), np.round(RANDOM.uniform(0.1, 0.9, 500), 1))
CLASSES = (RANDOM.integers(0, 3, 300).astype(float), RANDOM.dirichlet(np.ones(3), 300))
NUMBERS = (RANDOM.normal(size=200), RANDOM.normal(size=200))


@pytest.mark.parametrize(("metric", "task"), cases(METRICS.members()))
class TestMetric(MetricConformance):
    pass


def test_binary_metrics_are_scikit_learns_ties_included() -> None:
    target, scores = BINARY
    found = metric_values("binary", target, scores)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(target, scores), rel=1e-12)
    assert found["log_loss"] == pytest.approx(sk.log_loss(target, scores), rel=1e-9)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(target, scores), rel=1e-12)


def test_multiclass_metrics_are_scikit_learns() -> None:
    target, scores = CLASSES
    shares = np.tile(np.bincount(target.astype(int)) / len(target), (len(target), 1))
    found = metric_values("multiclass", target, scores)
    assert found == pytest.approx(
        {
            "log_loss": sk.log_loss(target, scores),
            "skill": 1 - sk.log_loss(target, scores) / sk.log_loss(target, shares),
            "accuracy": sk.accuracy_score(target, scores.argmax(axis=1)),
            "macro_f1": sk.f1_score(target, scores.argmax(axis=1), average="macro"),
        }
    )


def test_regression_metrics_are_scikit_learns() -> None:
    target, scores = NUMBERS
    assert metric_values("regression", target, scores) == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(target, scores),
            "mae": sk.mean_absolute_error(target, scores),
            "bias": abs(float(np.mean(scores) - np.mean(target))),
            "r2": sk.r2_score(target, scores),
        }
    )


def test_one_class_has_no_roc_curve_and_still_a_log_loss() -> None:
    found = metric_values("binary", np.zeros(10), np.full(10, 0.2))
    assert found["roc_auc"] is None
    assert found["log_loss"] == pytest.approx(-np.log(0.8))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_no_rows_have_no_metrics(task: str) -> None:
    scores = np.empty((0, 3)) if task == "multiclass" else np.empty(0)
    assert set(metric_values(task, np.empty(0), scores).values()) == {None}  # type: ignore[arg-type]


def test_a_constant_outcome_has_no_r2() -> None:
    assert metric_values("regression", np.ones(5), np.arange(5.0))["r2"] is None


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    assert metric_values("binary", np.array([1.0]), np.array([0.0]))["log_loss"] == pytest.approx(
        34.5, abs=0.1
    )


def test_equal_scores_rank_as_chance() -> None:
    assert roc_auc(BINARY[0], np.zeros(500)) == 0.5


def test_probabilities_doubled_show_as_calibration_error() -> None:
    scores = np.random.default_rng(1).uniform(0.05, 0.45, 20_000)
    target = (np.random.default_rng(2).random(20_000) < scores).astype(float)
    right, doubled = (
        expected_calibration_error(target, scores),
        expected_calibration_error(target, 2 * scores),
    )
    assert right is not None and right < 0.02
    assert doubled == pytest.approx(0.25, abs=0.02)


def test_calibration_noise_is_what_a_perfect_model_shows_by_chance() -> None:
    random = np.random.default_rng(3)
    for rows in (60, 3_000):
        scores = random.uniform(0.1, 0.9, rows)
        errors = [
            expected_calibration_error((random.random(rows) < scores).astype(float), scores) or 0.0
            for _ in range(200)
        ]
        assert calibration_noise(scores) == pytest.approx(float(np.mean(errors)), rel=0.15)
    assert calibration_noise(np.empty(0)) == 0.0


def test_every_task_has_a_metric_that_selects() -> None:
    for task, name in SELECTING.items():
        assert type(metric(name, task)) is METRICS[name]


def test_a_metric_of_another_task_is_refused_with_those_of_the_task() -> None:
    with pytest.raises(UnknownName, match=r"task regression 'roc_auc'. Allowed: bias, mae, r2, rmse"):
        metric("roc_auc", "regression")


def test_baselines_say_what_the_training_part_says() -> None:
    assert baseline_scores("binary", np.array([0.0, 0, 0, 1]), 2, 2).tolist() == [0.25, 0.25]
    assert baseline_scores("multiclass", np.array([0.0, 0, 2, 2]), 1, 3).tolist() == [[0.5, 0.0, 0.5]]
    assert baseline_scores("regression", np.array([1.0, 3.0]), 3, 0).tolist() == [2.0, 2.0, 2.0]
    assert describe_baseline("binary", np.array([0.0, 0, 0, 1])) == "the base rate 0.250"


def test_skill_stays_where_log_loss_moves_with_the_base_rate() -> None:
    random = np.random.default_rng(1)

    def drawn(share: float) -> tuple[np.ndarray, np.ndarray]:
        target = (random.random(200_000) < share).astype(float)
        signal = random.normal(size=len(target)) + 0.72 * target
        odds = share / (1 - share) * np.exp(0.72 * signal - 0.72**2 / 2)
        return target, odds / (1 + odds)

    rare, often = (metric_values("binary", *drawn(share)) for share in (0.13, 0.33))
    assert often["log_loss"] - rare["log_loss"] > 0.2
    assert abs(often["skill"] - rare["skill"]) < 0.02
    assert often["roc_auc"] == pytest.approx(rare["roc_auc"], abs=0.01)


def test_skill_is_zero_for_the_class_shares_and_not_defined_for_one_class() -> None:
    target = np.array([0.0, 0.0, 0.0, 1.0])
    found = metric_values("binary", target, np.full(4, 0.25))
    assert found["skill"] == pytest.approx(0.0, abs=1e-12)
    assert found["bias"] == pytest.approx(0.0, abs=1e-12)
    assert metric_values("binary", np.zeros(4), np.full(4, 0.25))["skill"] is None


@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("odd", [np.inf, -np.inf, 1e308, np.nan])
def test_no_metric_is_ever_infinite_or_no_number(task: Task, odd: float) -> None:
    target = np.arange(6) % 2.0
    found = metric_values(task, target, np.full(6, odd))
    assert all(value is None or np.isfinite(value) for value in found.values())
    assert all(value is None for value in found.values()) == np.isnan(odd)
    if task == "regression" and not np.isnan(odd):
        assert found["rmse"] == pytest.approx(1e30) and found["mae"] == found["bias"] == pytest.approx(1e30)
