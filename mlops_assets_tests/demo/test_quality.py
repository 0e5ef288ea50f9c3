"""The loop's answers beside the first champion's, on the same requests, where the outcome is known."""

import math
from datetime import UTC, date, datetime

from demo.callers import Ask
from demo.quality import by_month
from demo.traffic import Answer
from demo.world import Lived
from mlops_assets.training.trainers import FitInputs, trainer
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import scorer_from_bytes

SPECS = (FeatureSpec(name="delay", type="number"), FeatureSpec(name="temp", type="number"))


def champion():
    """Late when the delay is long; the temperature says nothing."""
    import numpy as np

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, 2))
    how = trainer("logistic_regression")
    fitted = how.fit(
        FitInputs(
            rows, (rows[:, 0] > 0).astype(float), features=SPECS, task="binary", classes=2, params={}, seed=1
        )
    )
    manifest = ModelManifest(
        name="flights", task="binary", trainer=how.name, model_format=how.model_format,
        model_file=fitted.model_file, target="late", features=SPECS, classes=("on_time", "late"),
    )  # fmt: skip
    return scorer_from_bytes(manifest, fitted.payload)


def lived(month, labels, probabilities, *, delays, without=()):
    asks = tuple(
        Ask(datetime(2013, month, 1, hour, tzinfo=UTC), str(hour), {"delay": delay, "temp": 0.0}, label)
        for hour, (label, delay) in enumerate(zip(labels, delays, strict=True))
    )
    answers = tuple(None if p is None else Answer("late", p, "v1", "stable") for p in probabilities)
    return Lived(date(2013, month, 1), asks, answers, (), 0.0, None, without)


def test_a_day_without_outcomes_or_answers_says_nothing():
    assert by_month([lived(4, [None, 1], [0.5, None], delays=[1.0, 1.0])], champion()) == []


def test_months_and_the_whole_are_compared_on_the_same_requests():
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    april = lived(4, [1, 0], right, delays=[-1.0, 1.0])
    may = lived(5, [1, 0, None], [*wrong, 0.5], delays=[1.0, -1.0, 0.0])

    first, second, whole = by_month([april, may], champion())

    assert (first.month, first.rows, first.late_share) == ("2013-04", 2, 0.5)
    assert (first.never_auc, first.loop_auc) == (0.0, 1.0)
    assert math.isclose(first.loop_log_loss, -math.log(0.9))
    assert (second.never_auc, second.loop_auc) == (1.0, 0.0)
    assert (whole.month, whole.rows) == ("all", 4)
    assert math.isclose(whole.loop_log_loss, (first.loop_log_loss + second.loop_log_loss) / 2)


def test_what_the_callers_did_not_know_the_first_champion_does_not_know_either():
    (known, _) = by_month([lived(4, [1], [0.9], delays=[3.0])], champion())
    (unknown, _) = by_month([lived(4, [1], [0.9], delays=[3.0], without=("delay",))], champion())
    assert known.never_log_loss < unknown.never_log_loss
