"""What days say of answers: nothing of how hard their rows are, everything of how wrong they are."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from mlops_assets.errors import UnknownName
from mlops_assets.evaluation.metrics import metric
from mlops_assets.monitoring.day_measures import DayMeasure, Level, Shortfall, day_measures
from serve.schema import Task

Array = NDArray[np.float64]
ROWS = 200_000


def outcomes(chance: Array, seed: int = 1) -> Array:
    return (np.random.default_rng(seed).random(len(chance)) < chance).astype(np.float64)


def log_odds(mean: float, deviation: float, seed: int = 2) -> Array:
    return mean + deviation * np.random.default_rng(seed).normal(size=ROWS)


def value(measure: DayMeasure, target: Array, scores: Array) -> float:
    found = measure.value(target, scores)
    assert found is not None
    return found


@pytest.mark.parametrize(("mean", "deviation"), [(-1.3, 2.0), (-1.3, 0.3), (0.5, 1.0), (-4.0, 1.0)])
def test_right_answers_fall_short_of_nothing_however_hard_the_rows_are(mean: float, deviation: float) -> None:
    scores = expit(log_odds(mean, deviation))
    target = outcomes(scores)
    assert value(Shortfall(), target, scores) == pytest.approx(0, abs=0.02)
    assert value(Level(0.22), target, scores) == pytest.approx(0, abs=0.08)


def test_skill_itself_falls_on_hard_rows() -> None:
    skill = metric("skill", "binary")
    easy, hard = expit(log_odds(-1.3, 2.0)), expit(log_odds(-1.3, 0.3))
    assert (skill.value(outcomes(easy), easy) or 0) > 0.3
    assert (skill.value(outcomes(hard), hard) or 0) < 0.03


def test_answers_that_are_too_sure_fall_short_by_the_skill_that_they_promise_and_lack() -> None:
    known = log_odds(-1.3, 1.0)
    scores, target = expit(2.0 * known), outcomes(expit(known))
    skill, base = metric("skill", "binary"), target.mean()
    entropy = -(base * np.log(base) + (1 - base) * np.log(1 - base))
    promised = 1 + float((scores * np.log(scores) + (1 - scores) * np.log(1 - scores)).mean()) / entropy
    found = value(Shortfall(), target, scores)
    assert found == pytest.approx(promised - (skill.value(target, scores) or 0), abs=1e-9) and found > 0.2


@pytest.mark.parametrize("off", [-0.4, 0.4])
def test_a_level_that_is_off_is_measured_in_log_odds_with_its_side(off: float) -> None:
    known = log_odds(-1.3, 1.0)
    assert value(Level(0.22), outcomes(expit(known)), expit(known + off)) == pytest.approx(off, abs=0.06)


def test_a_slope_that_is_off_is_no_level_where_the_rows_moved() -> None:
    """Answers are off around one half by their slope alone; rows that lie higher put their mean off."""
    known = log_odds(0.8, 1.0)
    target, scores = outcomes(expit(known)), expit(1.4 * known)
    assert abs(scores.mean() - target.mean()) > 0.03
    assert abs(value(Level(0.5), target, scores)) < 0.05


def test_answers_that_are_all_the_same_have_a_level() -> None:
    target = outcomes(np.full(ROWS, 0.3))
    found = value(Level(0.3), target, np.full(ROWS, 0.4))
    assert found == pytest.approx((0.4 - 0.3) / (0.4 * 0.6), abs=0.02)
    assert value(Level(0.3), target, np.full(ROWS, 0.3)) == pytest.approx(0, abs=0.02)


def test_certain_answers_stay_finite() -> None:
    target, scores = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 1.0])
    assert np.isfinite(value(Shortfall(), target, scores)) and value(Shortfall(), target, scores) > 5
    assert np.isfinite(value(Level(), target, scores))


def test_what_is_not_defined_is_none() -> None:
    assert Shortfall().value(np.zeros(3), np.full(3, 0.2)) is None
    assert Shortfall().value(np.empty(0), np.empty(0)) is None
    assert Level().value(np.empty(0), np.empty(0)) is None
    for measure in (Shortfall(), Level()):
        assert measure.value(np.array([0.0, 1.0]), np.array([0.2, np.nan])) is None


def test_several_classes_fall_short_as_two_do() -> None:
    scores = expit(log_odds(-0.5, 1.0))
    target = outcomes(expit(0.4 * logit(scores)))
    two = value(Shortfall(), target, scores)
    assert value(Shortfall(), target, np.column_stack([1 - scores, scores])) == pytest.approx(two)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_measures_share_the_evidence(task: Task) -> None:
    assert sum(day_measures(task).values()) == pytest.approx(1.0)


def test_a_declared_metric_has_all_of_the_evidence() -> None:
    ((measure, share),) = day_measures("binary", "roc_auc").items()
    assert (measure.name, measure.two_sided, measure.higher_is_worse, share) == ("roc_auc", False, False, 1.0)
    with pytest.raises(UnknownName, match="metric of task binary 'rmse'"):
        day_measures("binary", "rmse")


@pytest.mark.parametrize(
    ("measure", "now", "was", "words"),
    [
        (
            Shortfall(),
            0.41,
            -0.02,
            "skill is 0.4100 below what the answers promise on the last 9 days "
            "and was 0.0200 above it before",
        ),
        (
            Level(),
            -0.3,
            0.1,
            "answers lie 0.3000 log odds too low on the last 9 days and lay 0.1000 too high before",
        ),
    ],
)
def test_a_measure_says_itself_in_one_clause(measure: DayMeasure, now: float, was: float, words: str) -> None:
    assert measure.in_words(now, was, 9) == words
