"""Performance of a window: what it tells, how often it is wrong, and what it finds."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError, UnknownName
from mlops_assets.evaluation.metrics import metric_values
from mlops_assets.monitoring.findings import WindowPerformance
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.losses import losses_by_revision, quality_evidence
from mlops_assets.monitoring.performance import (
    MONITORED,
    PerformanceReference,
    PerformanceTest,
    performance_references,
    window_performance,
)
from mlops_assets.monitoring.windows import Window
from mlops_assets.rollout.judging.conditions import Analysis, Condition
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.judge import measurement_of
from serve.schema import Moments, Task, VersionEvidence

START = datetime(2013, 4, 1, tzinfo=UTC)
END = START + timedelta(days=7)
WATERMARK = Watermark(within=timedelta(days=3), min_share=0.8, min_rows=200)
SEPARATION = 0.74
"""Of the two classes' scores, in standard deviations: an AUC of .70."""


def flights(
    random: np.random.Generator,
    rows: int,
    *,
    base: float = 0.22,
    separation: float = SEPARATION,
    level: float = 0.0,
    days: int = 7,
) -> pd.DataFrame:
    """Answers of a model that is right about everything it knows; ``level``: how much too low it answers."""
    label = (random.random(rows) < base).astype(float)
    signal = random.normal(size=rows) + separation * label
    believed = base - level
    odds = believed / (1 - believed) * np.exp(separation * signal - separation**2 / 2)
    at = pd.Timestamp(START) + pd.to_timedelta(np.arange(rows) * days * 86_400 / rows, unit="s")
    return pd.DataFrame({"at": at, "score": odds / (1 + odds), "label": label, "has_keys": True})


def references(
    random: np.random.Generator, rows: int = 20_000, **drawn: Any
) -> tuple[PerformanceReference, ...]:
    frame = flights(random, rows, days=28, **drawn)
    days = frame["at"].dt.floor("D").astype("int64").to_numpy()
    return performance_references("binary", frame["label"].to_numpy(), frame["score"].to_numpy(), days)


def judged(frame: pd.DataFrame, **given: Any) -> WindowPerformance:
    """The window's finding; ``given``: fields of its test, or ``now``, ``version`` and ``variant``."""
    window = {
        name: given.pop(name, value)
        for name, value in (("version", "v7"), ("variant", "champion"), ("now", END + timedelta(days=4)))
    }
    test = {"task": "binary", "classes": ("on_time", "late"), "watermark": WATERMARK, "level": 0.01}
    return window_performance(frame, Window(START, END), **window, test=PerformanceTest(**test | given))


RANDOM = np.random.default_rng(7)
REFERENCES = references(np.random.default_rng(8))


@pytest.mark.parametrize("rows", [0, 1, 150])
def test_too_few_answers_are_not_judged(rows: int) -> None:
    found = judged(flights(RANDOM, 500).head(rows), references=REFERENCES)
    assert found.status == "too_few" and found.metrics == {} and found.metric == "skill"
    assert found.value is found.loss is found.loss_low is None
    assert WindowPerformance.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_window_waits_for_labels_and_then_is_judged_on_those_that_came() -> None:
    frame = flights(RANDOM, 1000)
    frame.loc[frame.index[:500], "label"] = np.nan
    early = judged(frame, now=END + timedelta(days=1), references=REFERENCES)
    assert (early.status, early.labelled, early.share) == ("waiting", 500, 0.5)
    late = judged(frame, references=REFERENCES)
    assert late.status == "judged" and late.value is not None and late.loss is not None
    assert "no more labels can come: 500 of 1,000 answers are labelled (50.0%)" in late.reason


def test_answers_without_keys_are_never_judged() -> None:
    frame = flights(RANDOM, 1000).assign(has_keys=False, label=np.nan)
    assert judged(frame).status == "no_keys"


def test_an_unknown_metric_or_slice_is_refused() -> None:
    frame = flights(RANDOM, 500)
    with pytest.raises(UnknownName, match="metric of task binary 'rmse'"):
        judged(frame, metric="rmse")
    with pytest.raises(DataError, match="no column 'carrier' to slice by"):
        judged(frame, slices=["carrier"])


def test_all_metrics_are_those_of_the_evaluation_with_an_interval_around_the_judged_one() -> None:
    frame = flights(RANDOM, 3000)
    found = judged(frame, references=REFERENCES)
    assert found.metrics == metric_values("binary", frame["label"].to_numpy(), frame["score"].to_numpy())
    assert found.metric == "skill" and found.value == found.metrics["skill"]
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low < found.value < found.high
    assert found.reference == next(one.value for one in REFERENCES if one.metric == "skill")
    assert "no loss is proven at level 0.005" in found.reason
    assert WindowPerformance.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_without_a_reference_there_is_no_loss_and_it_says_so() -> None:
    found = judged(flights(RANDOM, 3000))
    assert found.status == "judged" and found.value is not None and found.loss is None
    assert "without a reference to compare it with" in found.reason


def test_one_class_in_a_window_leaves_what_is_defined() -> None:
    frame = flights(RANDOM, 500, base=0.01).assign(label=0.0)
    found = judged(frame, references=REFERENCES)
    assert found.status == "judged" and found.metrics["roc_auc"] is None
    assert found.value is None and found.loss is None and found.metrics["bias"] is not None
    alone = judged(frame, references=REFERENCES, metric="roc_auc")
    assert alone.value is None and "roc_auc is not defined on these labels" in alone.reason


def losses_proven(windows: int, rows: int, **drawn: Any) -> float:
    """Share of windows that prove a loss, each against a reference of its own."""
    random = np.random.default_rng(11)
    given = {name: drawn.pop(name) for name in ("metric",) if name in drawn}
    hits = 0
    for _ in range(windows):
        window = judged(
            flights(random, rows, **drawn), references=references(random, 6_000), level=0.05, **given
        )
        hits += window.loss_low is not None and window.loss_low > 0
    return hits / windows


@pytest.mark.parametrize("base", [0.13, 0.22, 0.33])
def test_a_model_that_lost_nothing_is_rarely_blamed_in_any_season(base: float) -> None:
    assert losses_proven(40, 1500, base=base) <= 0.15
    if base == 0.33:
        assert losses_proven(10, 1500, base=base, metric="log_loss") == 1.0


def test_a_lost_ranking_and_a_wrong_level_are_both_found() -> None:
    assert losses_proven(10, 6000, separation=0.45) >= 0.9
    assert losses_proven(10, 6000, level=0.05) == 1.0
    # Each alone is blind to one of them.
    assert losses_proven(10, 6000, level=0.05, metric="roc_auc") <= 0.3


def test_the_metric_whose_loss_is_proven_is_the_one_told() -> None:
    wrong_level = judged(flights(RANDOM, 5000, level=0.06), references=REFERENCES)
    assert wrong_level.metric == "bias" and wrong_level.loss_low is not None and wrong_level.loss_low > 0
    assert "bias" in wrong_level.reason and "is proven at level 0.005" in wrong_level.reason
    better = judged(flights(RANDOM, 5000, separation=1.5), references=REFERENCES)
    assert better.metric == "skill" and better.loss is not None and better.loss < 0


def test_days_that_differ_make_the_interval_wide() -> None:
    """A few bad days are no proof; the same rows taken as independent would be."""
    random = np.random.default_rng(3)
    frame = flights(random, 7000)
    day = frame["at"].dt.day.to_numpy()
    shift = dict(zip(np.unique(day), random.normal(0, 0.8, 7), strict=True))
    late = np.array([shift[one] for one in day])
    odds = frame["score"] / (1 - frame["score"])
    truth = odds * np.exp(late) / (1 + odds * np.exp(late))
    frame["label"] = (random.random(len(frame)) < truth).astype(float)
    by_day = judged(frame, references=REFERENCES, metric="bias")
    shuffled = frame.assign(at=frame["at"].sample(frac=1, random_state=0).to_numpy())
    independent = judged(shuffled, references=REFERENCES, metric="bias")
    assert by_day.high is not None and by_day.low is not None
    assert independent.high is not None and independent.low is not None
    assert by_day.high - by_day.low > 3 * (independent.high - independent.low)


def test_a_window_of_one_day_deals_its_rows_into_groups() -> None:
    found = judged(flights(RANDOM, 2000, days=1), references=REFERENCES)
    assert found.low is not None and found.loss_low is not None


def test_slices_come_from_columns_or_logged_features_and_small_ones_are_left_out() -> None:
    frame = flights(RANDOM, 3000)
    carrier = np.where(np.arange(3000) % 3 == 0, "UA", "AA")
    carrier[:20] = "OO"
    origin = np.where(np.arange(3000) % 2 == 0, "JFK", None)
    frame["features"] = [json.dumps({"carrier": c}) for c in carrier]
    frame["origin"] = origin
    found = judged(frame, references=REFERENCES, slices=["carrier", "origin"])
    assert {(one.column, one.value) for one in found.slices} == {
        ("carrier", "UA"),
        ("carrier", "AA"),
        ("origin", "JFK"),
        ("origin", "(missing)"),
    }
    rows = {one.value: one.rows for one in found.slices}
    assert rows["JFK"] == 1500 and rows["UA"] + rows["AA"] == 2980
    assert all(one.low is not None and one.low < one.metric_value < one.high for one in found.slices)  # type: ignore[operator]


def test_a_slice_that_a_version_was_never_logged_with_is_missing() -> None:
    frame = flights(RANDOM, 500).assign(features='{"origin":"JFK"}')
    frame.loc[frame.index[:10], "features"] = None
    found = judged(frame, slices=["carrier", "origin"])
    assert found.status == "judged"
    assert [(one.column, one.value, one.rows) for one in found.slices] == [
        ("carrier", "(missing)", 500),
        ("origin", "JFK", 490),
    ]


@pytest.mark.parametrize("odd", [2.0, "cancelled"])
def test_a_label_outside_the_classes_counts_as_none_and_is_counted(odd: object) -> None:
    frame = flights(RANDOM, 1000).astype({"label": object})
    without = judged(frame.iloc[3:], references=REFERENCES)
    frame.loc[frame.index[:3], "label"] = odd
    found = judged(frame, references=REFERENCES)
    assert (found.status, found.labelled, found.answers) == ("judged", 997, 1000)
    assert found.metrics == without.metrics
    assert f"; 3 labels outside the classes or numbers ('{odd}') count as missing" in found.reason
    only_odd = judged(frame.assign(label=odd), references=REFERENCES)
    assert only_odd.status == "unlabelled" and "1,000 labels outside" in only_odd.reason


def test_labels_that_contradict_each_other_are_counted_in_the_reason() -> None:
    frame = flights(RANDOM, 1000).assign(ambiguous_label=False)
    assert "contradict" not in judged(frame).reason
    frame.loc[frame.index[:2], ["label", "ambiguous_label"]] = [np.nan, True]
    assert "; 2 answers have labels that contradict each other" in judged(frame).reason


def test_scores_of_classes_may_be_json_text_as_the_compacted_log_holds_them() -> None:
    target = RANDOM.integers(0, 3, 600)
    scores = RANDOM.dirichlet(np.ones(3), 600)
    frame = pd.DataFrame(
        {
            "at": flights(RANDOM, 600)["at"],
            "scores": list(scores),
            "label": np.array(["a", "b", "c"])[target],
            "has_keys": True,
            "answer_id": [f"r{number}" for number in range(600)],
            "row": 0,
            "revision": 12,
            "endpoint": "/predict",
            "variant": "stable",
            "version": "v7",
        }
    )
    text = frame.assign(scores=[json.dumps(list(one)) for one in scores])
    classes = ("a", "b", "c")
    expected = judged(frame, task="multiclass", classes=classes)
    assert expected.status == "judged"
    assert judged(text, task="multiclass", classes=classes) == expected
    losses = losses_by_revision(frame, "multiclass", classes)
    assert losses_by_revision(text, "multiclass", classes) == losses and losses["12"]["versions"]
    # An answer without scores, or of a model with another class, is not judged.
    text.loc[text.index[:2], "scores"] = [None, "[0.5, 0.5]"]
    text.loc[text.index[2], "label"] = "d"
    found = judged(text, task="multiclass", classes=classes)
    assert found.labelled == 597 and "1 labels outside the classes or numbers ('d')" in found.reason
    assert losses_by_revision(text, "multiclass", classes)["12"]["versions"]["v7"]["count"] == 597


def test_classes_and_numbers_have_their_own_metrics() -> None:
    rows = 900
    target = RANDOM.integers(0, 3, rows)
    scores = RANDOM.dirichlet(np.ones(3), rows) * 0.3 + np.eye(3)[target] * 0.7
    at = flights(RANDOM, rows)["at"]
    frame = pd.DataFrame(
        {"at": at, "scores": list(scores), "label": np.array(["a", "b", "c"])[target], "has_keys": True}
    )
    known = performance_references("multiclass", target.astype(float), scores, None)
    found = judged(frame, task="multiclass", classes=("a", "b", "c"), references=known)
    assert found.metric == "skill" and found.loss == pytest.approx(0.0) and found.metrics["accuracy"] == 1.0
    numbers = RANDOM.normal(size=rows)
    frame = pd.DataFrame({"at": at, "score": numbers + 0.5, "label": numbers, "has_keys": True})
    known = performance_references("regression", numbers, numbers + RANDOM.normal(0, 0.5, rows), None)
    shifted = judged(frame, task="regression", classes=None, references=known)
    assert shifted.metric == "bias" and shifted.loss_low is not None and shifted.loss_low > 0.3
    assert MONITORED["regression"] == ("rmse", "bias")


def test_references_leave_out_what_is_not_defined_and_survive_json() -> None:
    assert performance_references("binary", np.empty(0), np.empty(0), None) == ()
    found = performance_references("binary", np.zeros(3), np.full(3, 0.2), None)
    assert "roc_auc" not in {one.metric for one in found}
    assert all(one.standard_error is None and one.groups == 3 for one in found)
    assert PerformanceReference.model_validate_json(REFERENCES[0].model_dump_json()) == REFERENCES[0]
    assert all(one.groups == 28 for one in REFERENCES)


# -- losses for a rollout ----------------------------------------------------------------------------------


def answers(*rows: tuple[str, int, int, str, str, float, float | None]) -> pd.DataFrame:
    names = ["answer_id", "row", "revision", "variant", "version", "score", "label"]
    return pd.DataFrame(list(rows), columns=names).assign(endpoint="/predict")


def test_losses_are_per_request_by_revision_and_version() -> None:
    joined = answers(
        ("a", 0, 12, "stable", "v7", 0.5, 1.0),
        ("a", 1, 12, "stable", "v7", 0.25, 1.0),
        ("b", 0, 12, "canary", "v8", 0.5, 0.0),
        ("c", 0, 12, "stable", "v7", 0.5, None),
        ("d", 0, 13, "stable", "v7", 0.5, 0.0),
        ("d", 0, 13, "stable", "v7", 0.5, 0.0),
    )
    found = losses_by_revision(joined, "binary", ("on_time", "late"))
    assert list(found) == ["12", "13"]
    assert found["12"]["loss"] == "log loss" and found["12"]["differences"] == {}
    assert found["12"]["versions"]["v7"] == {"count": 1, "mean": pytest.approx(np.log(2) * 1.5), "m2": 0.0}
    assert found["12"]["versions"]["v8"]["count"] == 1
    assert found["13"]["versions"]["v7"]["count"] == 1
    assert json.loads(json.dumps(found)) == found


def test_a_shadow_is_paired_with_the_answer_to_the_same_row() -> None:
    rows = []
    for number in range(300):
        label = float(number % 2)
        rows += [
            (f"r{number}", 0, 5, "stable", "v7", 0.5, label),
            (f"r{number}", 0, 5, "shadow", "v8", 0.9 if label else 0.1, label),
            (f"r{number}", 0, 6, "stable", "v7", 0.5, label),
        ]
    found = losses_by_revision(answers(*rows), "binary", ("on_time", "late"))
    pairs = found["5"]["differences"]["v8"]
    assert pairs["count"] == 300 and pairs["mean"] == pytest.approx(np.log(0.5) - np.log(0.9))
    assert found["6"]["differences"] == {}
    evidence = quality_evidence(found, 5, "v8", "v7")
    assert evidence is not None and evidence.differences == Moments(**pairs)
    analysis = Analysis(metric="quality", condition=Condition.parse("increase <= 0.02", metric="quality"))
    step = StepEvidence(VersionEvidence(requests=300), VersionEvidence(requests=300), quality=evidence)
    assert measurement_of(analysis, step).phase == "successful"
    assert quality_evidence(found, 7, "v8", "v7") is None


def test_who_names_a_version_is_no_evidence_for_it() -> None:
    joined = answers(
        ("a", 0, 12, "stable", "v7", 0.5, 1.0),
        ("b", 0, 12, "canary", "v8", 0.9, 1.0),
        ("c", 0, 12, "canary", "v8", 0.5, 1.0),
    )
    joined.loc[2, "endpoint"] = "/v2/models/flights/versions/v8/infer"
    versions = losses_by_revision(joined, "binary", ("on_time", "late"))["12"]["versions"]
    assert (versions["v7"]["count"], versions["v8"]["count"]) == (1, 1)
    assert versions["v8"]["mean"] == pytest.approx(-np.log(0.9))
    assert losses_by_revision(joined.tail(1), "binary", ("on_time", "late")) == {}


def test_a_label_outside_the_classes_has_no_loss() -> None:
    joined = answers(
        ("a", 0, 1, "stable", "v7", 0.5, 1.0),
        ("b", 0, 1, "stable", "v7", 0.5, 2.0),
    )
    assert losses_by_revision(joined, "binary", ("x", "y"))["1"]["versions"]["v7"]["count"] == 1
    assert losses_by_revision(joined.tail(1), "binary", ("x", "y")) == {}
    joined["label"] = ["none", 1.0]
    assert losses_by_revision(joined, "regression", None)["1"]["versions"]["v7"]["mean"] == 0.25


def test_no_labels_have_no_losses_and_numbers_have_squared_errors() -> None:
    assert losses_by_revision(answers(("a", 0, 1, "stable", "v7", 0.5, None)), "binary", ("x", "y")) == {}
    found = losses_by_revision(answers(("a", 0, 1, "stable", "v7", 3.0, 1.0)), "regression", None)
    assert found["1"] == {
        "loss": "squared error",
        "versions": {"v7": {"count": 1, "mean": 4.0, "m2": 0.0}},
        "differences": {},
    }


@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("odd", [np.inf, -np.inf, 1e300, np.nan, 0.0])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_odd_scores_and_labels_have_a_finding_that_json_can_hold(task: Task, odd: float, rows: int) -> None:
    target = np.arange(rows) % 2.0 if task == "binary" else np.where(np.arange(rows) % 2, 1e300, 1.0)
    at = pd.Timestamp(START) + pd.to_timedelta(np.arange(rows) * 6 * 86_400 / rows, unit="s")
    frame = pd.DataFrame(
        {
            "at": at,
            "score": odd,
            "label": target,
            "has_keys": True,
            "request_id": [str(n) for n in range(rows)],
        }
    ).assign(answer_id=None, row=0, revision=1, endpoint="/predict", variant="stable", version="v7")
    known = performance_references(task, target, frame["score"].to_numpy(), None)
    json.dumps([one.model_dump() for one in known], allow_nan=False)

    classes = ("no", "yes") if task == "binary" else None
    watermark = replace(WATERMARK, min_rows=1)
    found = judged(frame, task=task, classes=classes, references=known, watermark=watermark)

    text = json.dumps([found.to_dict(), losses_by_revision(frame, task, classes)], allow_nan=False)
    assert WindowPerformance.from_dict(json.loads(text)[0]) == found
    if np.isnan(odd):
        assert known == () and found.status == "unlabelled"


def test_an_endless_error_is_a_proven_loss() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=7_000)
    at = pd.Timestamp(START) + pd.to_timedelta(np.arange(7_000) * 86.0, unit="s")
    frame = pd.DataFrame({"at": at, "score": target + random.normal(size=7_000), "label": target})
    known = performance_references("regression", target, frame["score"].to_numpy(), None)

    found = judged(
        frame.assign(score=np.inf, has_keys=True), task="regression", classes=None, references=known
    )

    assert found.status == "judged" and found.loss_low is not None and found.loss_low > 1e29


def test_answers_worse_than_the_baseline_are_proven_so_and_better_ones_are_not() -> None:
    good = flights(np.random.default_rng(11), 2_000)
    hopeless = good.assign(score=1 - good["score"])
    for frame, worse in ((good, False), (hopeless, True)):
        found = judged(frame, baseline=(0.22,))
        assert found.below_baseline is not None and (found.below_baseline > 0) is worse
        assert ("worse by at least" in found.reason) is worse
        assert found.baseline.startswith("log_loss ") and found.baseline.endswith(" of the baseline")
    assert judged(hopeless).below_baseline is None


@pytest.mark.parametrize(("spread", "worse"), [(0.5, False), (3.0, True)])
def test_numbers_are_held_against_the_mean(spread: float, worse: bool) -> None:
    random = np.random.default_rng(12)
    label = random.normal(10.0, 1.0, size=1_400)
    frame = flights(random, 1_400).assign(label=label, score=label + random.normal(0, spread, size=1_400))
    found = judged(frame, task="regression", classes=None, baseline=(10.0,))
    assert found.baseline.startswith("rmse ") and (found.below_baseline > 0) is worse  # type: ignore[operator]


@pytest.mark.parametrize(("right", "worse"), [(0.8, False), (0.05, True)])
def test_classes_are_held_against_their_shares(right: float, worse: bool) -> None:
    random = np.random.default_rng(13)
    names, codes = np.array(["a", "b", "c"]), random.integers(0, 3, size=1_400)
    scores = np.full((1_400, 3), (1 - right) / 2)
    scores[np.arange(1_400), codes] = right
    frame = flights(random, 1_400).assign(label=names[codes], scores=list(scores))
    found = judged(frame, task="multiclass", classes=tuple(names), baseline=(1 / 3, 1 / 3, 1 / 3))
    assert found.baseline.endswith("against 1.0986 of the baseline")
    assert (found.below_baseline > 0) is worse  # type: ignore[operator]


def test_each_day_of_a_window_says_what_it_says_and_few_days_are_one() -> None:
    frame = flights(np.random.default_rng(14), 1_400)
    week = judged(frame, references=REFERENCES)
    assert {name: len(days) for name, days in week.days.items()} == {"shortfall": 7, "level": 7}
    declared = judged(frame, references=REFERENCES, metric="skill")
    assert list(declared.days) == ["skill"] and len(declared.days["skill"]) == 7
    assert np.mean(declared.days["skill"]) == pytest.approx(declared.metrics["skill"], abs=0.01)
    day = judged(flights(np.random.default_rng(15), 1_400, days=1), references=REFERENCES, metric="skill")
    assert day.days["skill"] == (day.metrics["skill"],)
    around = [judged(frame, baseline=baseline).days["level"] for baseline in ((0.05,), (0.5,))]
    assert around[0] != pytest.approx(around[1], abs=1e-3)
    known = {one.metric: len(one.days) for one in REFERENCES}
    assert known["skill"] == known["shortfall"] == known["level"] == 28
