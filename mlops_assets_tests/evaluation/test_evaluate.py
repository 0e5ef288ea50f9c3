"""From two packaged models and labelled rows to a verdict."""

import json

import numpy as np
import pandas as pd
import pytest

from mlops_assets.evaluation.evaluate import Champion, Evaluation, EvaluationRows, evaluate
from mlops_assets.evaluation.gate import GatePolicy
from mlops_assets.evaluation.metrics import metric
from mlops_assets.evaluation.slices import compare_slices
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import Scorer, scorer_from_bytes

FEATURES = (
    FeatureSpec(name="x", type="number"),
    FeatureSpec(name="carrier", type="category", categories=("UA", "B6")),
)


def model(slope: float, intercept: float = -1.0) -> Scorer:
    """Says logistic(slope * x + intercept); the truth of ``window`` has slope 1 and intercept -1."""
    manifest = ModelManifest(
        name="m",
        task="binary",
        trainer="logistic_regression",
        model_format="linear-json",
        model_file="linear.json",
        target="late",
        features=FEATURES,
        classes=("on_time", "late"),
    )
    columns = [{"mean": 0.0, "scale": 1.0}, {"levels": 2}]
    document = {"columns": columns, "coefficients": [[slope, 0, 0, 0, 0]], "intercepts": [intercept]}
    return scorer_from_bytes(manifest, json.dumps(document).encode())


def window(days: int = 14, per_day: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    size = days * per_day
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2024-03-01", periods=size, freq=pd.Timedelta(days=1) / per_day, tz="UTC"),
            "x": random.normal(size=size),
            "carrier": random.choice(["UA", "B6"], size),
        }
    )
    return frame, (random.random(size) < 1 / (1 + np.exp(1 - frame["x"]))).to_numpy(dtype=float)


def evaluated(challenger: Scorer, champion: Scorer | None, trained_until: str = "") -> Evaluation:
    frame, target = window()
    rows = EvaluationRows(frame, target, np.array([0.0, 0, 0, 1]), "binary", ("on_time", "late"), "at")
    policy = GatePolicy(margin=0.003, slices=("carrier",), min_slice_rows=100, max_slice_loss=0.05)
    other = Champion(champion, "champion v3", trained_until=trained_until) if champion else None
    return evaluate(policy, "log_loss", rows, challenger, other)


def test_the_first_model_is_held_against_the_base_rate() -> None:
    found = evaluated(model(1.0), None)
    assert found.verdict.outcome == "promote" and "of the base rate 0.250: better by" in found.verdict.reason
    assert set(found.plots) == {"roc", "calibration", "confusion"}


def test_a_model_that_knows_nothing_is_not_promoted() -> None:
    assert evaluated(model(0.0, -1.3), None).verdict.outcome == "reject"


def test_a_model_that_only_guessed_the_new_rate_is_not_promoted() -> None:
    """A constant nearer to the window's rate than the training rate was beats the baseline by luck."""
    verdict = evaluated(model(0.0, -0.85), None).verdict
    assert verdict.rules[0].passed
    assert verdict.outcome == "inconclusive" and "the best constant answer in hindsight" in verdict.reason


def test_a_better_challenger_is_promoted_and_a_worse_one_rejected() -> None:
    assert evaluated(model(1.0), model(0.3)).verdict.outcome == "promote"
    rejected = evaluated(model(0.3), model(1.0))
    assert rejected.verdict.outcome == "reject" and "of champion v3: worse by" in rejected.verdict.reason


def test_an_equal_model_is_never_rejected() -> None:
    assert evaluated(model(1.0), model(1.0)).verdict.outcome == "promote"


def test_rows_the_champion_has_seen_are_no_duel() -> None:
    found = evaluated(model(1.0), model(0.3), trained_until="2024-03-08T00:00:00+00:00")
    [duel] = [one for one in found.verdict.rules if one.name == "champion"]
    assert "n = 1,399 in 7 groups" in duel.said


def test_a_champion_that_has_seen_every_row_leaves_it_open() -> None:
    found = evaluated(model(1.0), model(0.3), trained_until="2025-01-01T00:00:00+00:00")
    assert found.verdict.outcome == "inconclusive"
    assert "0 rows that champion v3 was not trained on" in found.verdict.reason


def test_slices_come_with_rows_and_intervals() -> None:
    rows = evaluated(model(1.0), model(0.3)).slice_rows()
    assert {row["slice"] for row in rows} == {"carrier = B6", "carrier = UA"}
    assert all(row["interval"].startswith("[") for row in rows)


def test_the_version_of_a_judgement_follows_what_was_evaluated() -> None:
    found = evaluated(model(1.0), None)
    assert found.version("a", "b") == evaluated(model(1.0), None).version("a", "b")
    assert found.version("a", "b") != found.version("a", "c")
    assert found.version("a", "b") != evaluated(model(0.9), None).version("a", "b")


def test_more_slices_need_stronger_proof() -> None:
    frame, target = window()
    scores = model(1.0).score_rows(frame[["x", "carrier"]].to_dict("records"))  # type: ignore[arg-type]
    random = np.random.default_rng(2)
    other = np.clip(scores + random.normal(0, 0.05, len(scores)), 0.001, 0.999)

    def widths(columns: dict[str, pd.Series]) -> float:
        [first, *_] = compare_slices(
            columns,
            metric("log_loss", "binary"),
            target,
            scores,
            other,
            groups=None,
            confidence=0.95,
            min_rows=100,
        )
        return float(first.comparison.high or 0.0) - float(first.comparison.low or 0.0)

    many = {"carrier": frame["carrier"], "tens": pd.Series(np.arange(len(frame)) % 10)}
    assert widths(many) > 1.2 * widths({"carrier": frame["carrier"]})


def test_a_slice_of_missing_values_is_a_slice_and_a_small_one_is_left_out() -> None:
    frame, target = window()
    column = frame["carrier"].where(frame.index % 5 != 0).where(frame.index >= 30, "ZZ")
    scores = np.full(len(frame), 0.3)
    found = compare_slices(
        {"carrier": column},
        metric("log_loss", "binary"),
        target,
        scores,
        scores,
        groups=None,
        confidence=0.95,
        min_rows=100,
    )
    assert {part.value for part in found} == {"UA", "B6", "(missing)"}


def test_no_slice_large_enough_is_no_slice() -> None:
    frame, target = window(1, 20)
    scores = np.full(len(frame), 0.3)
    columns = {"carrier": frame["carrier"]}
    assert not compare_slices(
        columns,
        metric("log_loss", "binary"),
        target,
        scores,
        scores,
        groups=None,
        confidence=0.95,
        min_rows=100,
    )


@pytest.mark.parametrize("per_day", [1, 3])
def test_a_handful_of_rows_is_inconclusive_and_no_error(per_day: int) -> None:
    frame, target = window(5, per_day)
    rows = EvaluationRows(frame, target, np.array([0.0, 1.0]), "binary", ("on_time", "late"), "at")
    found = evaluate(GatePolicy(), "roc_auc", rows, model(1.0), None)
    assert found.verdict.outcome == "inconclusive"


def rows_of(**more: object) -> EvaluationRows:
    frame, target = window()
    given = {"event_timestamp": "at", **more}
    return EvaluationRows(frame, target, np.array([0.0, 1]), "binary", ("on_time", "late"), **given)  # type: ignore[arg-type]


def test_a_verdict_says_which_rows_it_is_of() -> None:
    assert evaluated(model(1.0), None).verdict.reason.endswith(
        "; judged on 2,800 rows from 2024-03-01 to 2024-03-14"
    )
    assert evaluated(model(1.0), None).rows == {
        "evaluation_rows": 2800, "evaluation_from": "2024-03-01", "evaluation_until": "2024-03-14",
    }  # fmt: skip


def test_rows_behind_a_known_change_are_counted() -> None:
    told = rows_of(changed_by="2024-03-11T00:00:00+00:00")
    assert told.sentence() == (
        "judged on 2,800 rows from 2024-03-01 to 2024-03-14, "
        "799 of them after 2024-03-11, the end of the first window that showed a change"
    )
    assert (
        told.facts()["rows_after_change"] == 799 and told.facts()["changed_by"] == "2024-03-11T00:00:00+00:00"
    )
    assert rows_of(changed_by="2025-01-01T00:00:00+00:00").after_change == 0


def test_rows_without_a_time_are_counted_alone() -> None:
    assert rows_of(event_timestamp=None, changed_by="2024-03-11").sentence() == "judged on 2,800 rows"
