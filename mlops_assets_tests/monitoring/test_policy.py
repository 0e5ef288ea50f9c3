"""Which windows warn, open an episode, or cannot tell."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from mlops_assets.errors import DataError
from mlops_assets.monitoring.findings import ColumnDrift, Role, Score, WindowDrift, WindowPerformance
from mlops_assets.monitoring.policy import (
    AgeRule,
    DataAge,
    DriftPolicy,
    DriftVerdict,
    PerformanceRule,
    SignalRule,
    drift_verdict,
)

MONDAY = datetime(2013, 4, 1, tzinfo=UTC)
POLICY = DriftPolicy()
NAMES: dict[Role, str] = {"feature": "temperature", "prediction": "prediction", "label": "label"}


def times(week: int) -> tuple[str, str]:
    start = MONDAY + timedelta(days=7 * week)
    return start.isoformat(), (start + timedelta(days=7)).isoformat()


def drift(week: int, *drifted: Role, judged: bool = True, version: str = "v7") -> WindowDrift:
    columns = tuple(
        ColumnDrift(
            name,
            role,
            (Score("psi", 0.3 if role in drifted else 0.01, 0.1), Score("ks", None, None)),
            role in drifted,
            0.0,
        )
        for role, name in NAMES.items()
    )
    reason = "5,000 rows" if judged else "12 rows, 200 are needed"
    return WindowDrift(*times(week), version, 5000, judged, reason, columns if judged else ())


def performance(
    week: int, loss: float | None, *, status: str = "judged", variant: str = "champion"
) -> WindowPerformance:
    """A window by whose end a ``loss`` had added up, if it is above 0; None: there is no reference."""
    lost = loss is not None and loss > 0
    return WindowPerformance(
        *times(week),
        "v7",
        variant,  # type: ignore[arg-type]
        answers=5000,
        labelled=4900,
        share=0.98,
        status=status,  # type: ignore[arg-type]
        reason="labels may come until Thursday" if status == "waiting" else "judged",
        metric="skill",
        value=0.08,
        loss=0.03 if loss is not None else None,
        loss_low=-0.1 if loss is not None else None,
        days={"skill": (0.1, 0.06)},
        accumulated=None if loss is None else 2.0 if lost else 0.1,
        accumulated_since=times(week - 1)[1] if lost else None,
        accumulated_loss=loss if lost else None,
        accumulated_reason="skill is 0.0800 on the last 14 days"
        if lost
        else "evidence of a lasting loss: 10 %",
    )


def action_of(decision: DriftVerdict, name: str) -> str:
    return next(one.action for one in decision.signals if one.name == name)


def test_a_rule_that_can_never_agree_and_an_unknown_metric_are_refused() -> None:
    with pytest.raises(ValidationError, match="windows 4 of 3 can never agree"):
        SignalRule(windows=4, of=3)
    with pytest.raises(ValidationError, match="Unknown metric 'auc'"):
        PerformanceRule(metric="auc")
    with pytest.raises(ValidationError, match="performance has no windows: evidence adds up"):
        DriftPolicy.model_validate({"performance": {"windows": 2}})
    with pytest.raises(ValidationError, match="declare false_alarms_per_year"):
        DriftPolicy.model_validate({"false_alarm_rate": 0.01})
    with pytest.raises(ValidationError, match="Extra inputs"):
        DriftPolicy.model_validate({"prediction": {"metric": "skill"}})


def test_windows_of_two_versions_or_in_disorder_are_refused() -> None:
    with pytest.raises(DataError, match=r"several versions \(v7, v8\)"):
        drift_verdict(POLICY, [drift(0), drift(1, version="v8")], [])
    with pytest.raises(DataError, match="oldest first"):
        drift_verdict(POLICY, [drift(1), drift(0)], [])
    with pytest.raises(DataError, match="once each"):
        drift_verdict(POLICY, [], [performance(1, 0.0), performance(1, 0.0)])


def test_without_windows_nothing_is_known() -> None:
    found = drift_verdict(POLICY, [], [])
    assert found.action == "inconclusive" and found.version is None
    assert "there are no windows" in found.reason


def test_features_and_labels_alone_only_warn() -> None:
    found = drift_verdict(POLICY, [drift(week, "feature", "label") for week in range(3)], [])
    assert found.action == "warn" and found.version == "v7" and found.evidence_since is None
    assert (
        "features drifted in 3 of 3 judged windows (temperature at 3.0 times its threshold)" in found.reason
    )
    assert action_of(found, "prediction") == "quiet"


def test_one_window_of_prediction_drift_is_not_enough_and_two_of_three_are() -> None:
    once = drift_verdict(POLICY, [drift(0), drift(1), drift(2, "prediction")], [])
    assert once.action == "quiet" and action_of(once, "prediction") == "quiet"
    twice = drift_verdict(POLICY, [drift(0, "prediction"), drift(1), drift(2, "prediction")], [])
    assert twice.action == "open"
    assert twice.reason.startswith("predictions drifted in 2 of 3 judged windows")
    gone = drift_verdict(POLICY, [drift(0, "prediction"), drift(1, "prediction"), drift(2), drift(3)], [])
    assert gone.action == "quiet"


def test_two_windows_that_agree_open_before_there_are_three() -> None:
    assert drift_verdict(POLICY, [drift(0, "prediction"), drift(1, "prediction")], []).action == "open"


def test_too_few_judged_windows_are_inconclusive_in_words() -> None:
    for windows in ([drift(0)], [drift(0, "prediction")], [drift(0), drift(1, "prediction")]):
        found = drift_verdict(POLICY, windows, [])
        assert found.action == "inconclusive" and "2 of 3 decide" in found.reason
    assert drift_verdict(POLICY, [drift(0), drift(1)], []).action == "quiet"


def test_a_window_that_is_not_judged_counts_neither_way() -> None:
    gap = [drift(0, "prediction"), drift(1, judged=False), drift(2, judged=False), drift(3, "prediction")]
    assert drift_verdict(POLICY, gap, []).action == "open"
    nothing = drift_verdict(POLICY, [drift(0, judged=False)], [])
    assert nothing.action == "inconclusive" and "12 rows, 200 are needed" in nothing.reason


def test_a_proven_loss_opens_whatever_the_inputs_do() -> None:
    found = drift_verdict(POLICY, [drift(0), drift(1)], [performance(0, 0.01), performance(1, 0.004)])
    assert found.action == "open"
    assert found.reason == "performance fell: skill is 0.0800 on the last 14 days"
    assert found.evidence_since == times(0)[1]
    state = next(one for one in found.signals if one.name == "performance")
    assert state.scores == {"skill": 0.08} and (state.agreeing, state.judged, state.of) == (1, 2, 1)


def test_a_loss_that_only_the_newest_window_proves_warns() -> None:
    """Its rows may be harder than those of the evaluation."""
    hard = replace(performance(1, 0.0), loss_low=0.02, reason="skill 0.08 against 0.11")
    found = drift_verdict(POLICY, [drift(0), drift(1)], [performance(0, 0.0), hard])
    assert found.action == "warn"
    assert found.reason == (
        "performance fell in the newest window alone: skill 0.08 against 0.11; "
        "evidence of a lasting loss: 10 %"
    )
    tolerant = DriftPolicy.model_validate({"performance": {"min_loss": 0.05}})
    assert drift_verdict(tolerant, [drift(0), drift(1)], [performance(0, 0.0), hard]).action == "quiet"


def test_one_window_worse_than_the_baseline_opens_whatever_the_reference_says() -> None:
    hopeless = replace(
        performance(1, 0.0),
        below_baseline=0.12,
        baseline="log_loss 1.4000 against 0.5300 of the baseline",
    )
    found = drift_verdict(POLICY, [], [performance(0, 0.0), hopeless])
    assert found.action == "open" and found.evidence_since == times(1)[1]
    assert found.reason == (
        "answers are worse than the baseline: log_loss 1.4000 against 0.5300 of the baseline, at least "
        "0.1200 worse"
    )
    recovered = drift_verdict(POLICY, [], [hopeless, performance(2, 0.0)])
    assert action_of(recovered, "performance") == "quiet"


def test_drifted_predictions_open_only_where_labels_cannot_tell() -> None:
    drifted = [drift(0, "prediction"), drift(1, "prediction")]
    told = [performance(0, 0.0), performance(1, 0.0)]
    found = drift_verdict(POLICY, drifted, told)
    assert found.action == "warn" and "labels of these windows decide" in found.reason
    awaited = drift_verdict(POLICY, drifted, [told[0], performance(1, None, status="waiting")])
    assert action_of(awaited, "prediction") == "inconclusive" and awaited.action != "open"
    unlabelled = drift_verdict(POLICY, drifted, [told[0], performance(1, None, status="unlabelled")])
    assert unlabelled.action == "open" and "labels cannot tell" in unlabelled.reason
    eager = DriftPolicy.model_validate({"prediction": {"action": "open"}})
    assert drift_verdict(eager, drifted, told).action == "open"


def unlearned(week: int, share: float, rows: int = 1000) -> WindowDrift:
    columns = (
        ColumnDrift("z", "feature", (Score("psi", 0.0, 0.1),), False, 0.0, unlearned=share),
        ColumnDrift("old", "feature", (Score("psi", 0.0, 0.1),), False, 0.0, unlearned=None),
    )
    return WindowDrift(*times(week), "v7", rows, True, "rows", columns)


def test_values_the_model_cannot_have_learned_warn_until_there_is_something_to_learn_from() -> None:
    rows = [unlearned(0, 0.0), unlearned(1, 0.3), unlearned(2, 0.3)]
    first = drift_verdict(POLICY, rows[:2], [performance(1, 0.0)])
    assert first.action == "warn" and first.evidence_since is None
    assert first.reason == (
        "the model cannot have learned from z: 30% of the answers have values of z that its training rows "
        "did not have; 294 labelled answers to learn from, 500 are needed"
    )
    told = [performance(1, 0.0), performance(2, 0.0)]
    assert drift_verdict(POLICY, rows, told).action == "open"
    # Of the newest week a training learns nothing.
    assert drift_verdict(POLICY, rows, told, held_out=timedelta(days=7)).action == "warn"
    unlabelled = [performance(1, None, status="unlabelled"), performance(2, None, status="unlabelled")]
    assert drift_verdict(POLICY, rows, unlabelled).action == "warn"


def test_a_few_odd_values_are_no_news() -> None:
    found = drift_verdict(POLICY, [unlearned(0, 0.04), unlearned(1, 0.04)], [])
    assert action_of(found, "unlearned") == "quiet"


@pytest.mark.parametrize(("windows", "of"), [(1, 1), (2, 3), (2, 4), (3, 3)])
def test_a_rule_shows_by_chance_as_often_a_year_as_declared(windows: int, of: int) -> None:
    random, years, rate = np.random.default_rng(1), 20_000, 0.25
    level = SignalRule(windows=windows, of=of).level(rate, timedelta(days=7))
    shows = random.random(round(years * 365 / 7)) < level
    agreeing = np.convolve(shows, np.ones(of))[: len(shows)]
    alarms = (shows & (agreeing >= windows)).sum()
    assert 0.75 * rate <= alarms / years <= 1.05 * rate


def test_the_level_of_a_window_follows_from_its_length() -> None:
    assert POLICY.level(timedelta(days=7)) == pytest.approx(0.5 * 7 / 365)
    assert POLICY.levels(timedelta(days=1))["prediction"] < POLICY.levels(timedelta(days=7))["prediction"]


def test_a_loss_within_min_loss_or_without_a_bound_does_not_count() -> None:
    tolerant = DriftPolicy(performance=PerformanceRule(min_loss=0.01))
    found = drift_verdict(tolerant, [], [performance(week, 0.01) for week in range(3)])
    assert found.action == action_of(found, "performance") == "quiet"
    unknown = drift_verdict(POLICY, [], [performance(week, None) for week in range(3)])
    assert action_of(unknown, "performance") == "inconclusive"


def test_canaries_and_shadows_do_not_decide() -> None:
    windows = [performance(week, 0.1, variant="shadow") for week in range(3)]
    assert drift_verdict(POLICY, [drift(0), drift(1)], windows).action == "quiet"


def test_quiet_says_what_could_not_be_judged() -> None:
    found = drift_verdict(POLICY, [drift(0), drift(1)], [performance(0, None, status="waiting")])
    assert found.action == "quiet" and "labels may come until Thursday" in found.reason


def test_an_ignored_signal_leads_to_nothing() -> None:
    policy = DriftPolicy.model_validate({"prediction": {"action": "ignore"}})
    assert (
        drift_verdict(policy, [drift(week, "prediction") for week in range(3)], []).action == "inconclusive"
    )
    deaf = DriftPolicy(
        **{name: {"action": "ignore"} for name in ("features", "labels", "prediction", "performance")}
    )
    found = drift_verdict(deaf, [drift(week, "prediction") for week in range(3)], [])
    assert (found.action, found.reason) == ("quiet", "every signal is ignored")


def test_the_evidence_counts_from_the_oldest_window_that_is_needed() -> None:
    found = drift_verdict(POLICY, [drift(week, "prediction") for week in range(3)], [])
    assert found.evidence_since == times(1)[1]
    eager = DriftPolicy.model_validate({"prediction": {"action": "open"}})
    both = drift_verdict(
        eager, [drift(week, "prediction") for week in range(3)], [performance(0, 0.1), performance(1, 0.1)]
    )
    assert both.evidence_since == times(1)[1]


NOW = datetime(2024, 3, 1, tzinfo=UTC)


def aged(days: float) -> DataAge:
    return DataAge("v1", timedelta(days=days), timedelta(days=45), NOW)


def test_old_data_opens_only_where_the_policy_says_so() -> None:
    refreshed = drift_verdict(DriftPolicy(), [], [], data_age=aged(46))
    warned = drift_verdict(DriftPolicy(age=AgeRule(action="warn")), [], [], data_age=aged(46))
    opened = drift_verdict(DriftPolicy(age=AgeRule(action="open")), [], [], data_age=aged(46))
    ignored = drift_verdict(DriftPolicy(age=AgeRule(action="ignore")), [], [], data_age=aged(46))

    assert (warned.action, opened.action, ignored.action) == ("warn", "open", "inconclusive")
    assert refreshed.action == "refresh" and refreshed.reason == warned.reason
    assert opened.version == "v1" and "46.0 days old, 45 are allowed" in opened.reason
    assert opened.evidence_since == datetime(2024, 2, 29, tzinfo=UTC).isoformat()


def test_drift_comes_before_a_refresh_and_a_refresh_before_a_warning() -> None:
    lost = [performance(0, 0.01), performance(1, 0.004)]
    old = replace(aged(46), version="v7")
    assert drift_verdict(DriftPolicy(), [], lost, data_age=old).action == "open"
    warned = [drift(week, "feature") for week in range(3)]
    found = drift_verdict(DriftPolicy(), warned, [], data_age=old)
    assert found.action == "refresh" and "features drifted" not in found.reason


def test_young_data_says_nothing_about_drift() -> None:
    assert (
        drift_verdict(DriftPolicy(age=AgeRule(action="open")), [], [], data_age=aged(45)).action
        == "inconclusive"
    )


def test_the_age_of_another_version_is_refused() -> None:
    other = DataAge("v2", timedelta(days=1), timedelta(days=45), NOW)
    with pytest.raises(DataError, match="several versions"):
        drift_verdict(DriftPolicy(), [drift(0)], [], data_age=other)


def test_a_threshold_of_zero_makes_a_score_that_json_can_hold() -> None:
    column = ColumnDrift("constant", "prediction", (Score("psi", 0.3, 0.0),), True, 0.0)
    windows = [WindowDrift(*times(week), "v7", 5000, True, "5,000 rows", (column,)) for week in range(3)]
    lost = [replace(performance(week, 0.01), value=float("inf")) for week in range(3)]
    found = drift_verdict(POLICY, windows, lost)
    assert found.action == "open"
    kept = {one.name: one.scores for one in found.signals}
    assert kept["prediction"] == {"constant": 1e9} and kept["performance"] == {"skill": 1e9}
    json.dumps([asdict(one) for one in found.signals], allow_nan=False)
