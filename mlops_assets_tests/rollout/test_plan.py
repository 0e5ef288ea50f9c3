from datetime import timedelta
from typing import Any

import pytest

from mlops_assets.documents.rollout import RolloutDeclaration
from mlops_assets.rollout.judging.conditions import Analysis, Condition
from mlops_assets.rollout.judging.judge import Judgement, Measurement
from mlops_assets.rollout.plan import (
    CanaryStep,
    DueAct,
    Failures,
    RolloutFacts,
    RolloutPlan,
    due_act,
    needs_start,
    next_failures,
    previous_version,
    problems_of,
)
from serve.schema import Evidence, RolloutMark, Route, Routing, ShadowEvidence, Trip, VersionEvidence

ERRORS = Analysis("error_rate", Condition("increase", "<=", 0.02), failure_limit=0, inconclusive_limit=3)
STEPS = (
    CanaryStep(weight=0, shadow=10_000, min_requests=100),
    CanaryStep(weight=1_000, min_requests=100, pause=timedelta(minutes=10)),
    CanaryStep(weight=10_000),
)
PLAN = RolloutPlan(STEPS, (ERRORS,), keep_warm=timedelta(minutes=30))
PASSED, FAILED, OPEN = (
    Judgement("successful", "good"),
    Judgement("failed", "bad"),
    Judgement("inconclusive", "who knows"),
)


def routing(action: str = "step", step: int = 1, **more: Any) -> Routing:
    mark = RolloutMark(target="v2", action=action, step=step, declared_at=1_000.0, **more)  # type: ignore[arg-type]
    routes = {"v1": Route(application="a", weight=9_000), "v2": Route(application="b", weight=1_000)}
    return Routing(revision=5, stable="v1", routes=routes, rollout=mark)


def evidence(requests: int = 0, shadowed: int = 0, tripped: str = "") -> Evidence:
    trip = Trip(version="v2", revision=5, reason=tripped, at=0.0, by="r1")
    return Evidence(
        name="flights",
        revision=5,
        since=0.0,
        replicas={},
        versions={"v2": VersionEvidence(requests=requests)},
        shadows={"v2": ShadowEvidence(requests=shadowed)},
        trips={"v2": trip} if tripped else {},
    )


def decided(
    judgement: Judgement | None = PASSED,
    *,
    requests: int = 200,
    now: float = 10_000.0,
    plan: RolloutPlan = PLAN,
    at: Routing | None = None,
    **more: Any,
) -> DueAct:
    return due_act(
        plan, at or routing(), RolloutFacts(evidence(requests, shadowed=requests), judgement, now=now, **more)
    )


QUALITY = Analysis("quality", Condition("increase", "<=", 0.02), failure_limit=1, inconclusive_limit=2)


def on_labels(phase: Any, labels: int) -> Judgement:
    """A judgement of quality alone, resting on so many labels."""
    found = Measurement("quality", QUALITY.condition, phase, None, None, None, labels, "quality")
    return Judgement(phase, "quality", (found,))


# -- what stops a rollout ----------------------------------------------------------------------------


def test_without_labels_a_rollout_waits_however_many_requests_there_are() -> None:
    plan = RolloutPlan(STEPS, (QUALITY,))
    for labels, action in ((0, "wait"), (299, "wait"), (300, "hold")):
        found = decided(on_labels("inconclusive", labels), requests=50_000, plan=plan)
        assert found.action == action, labels
    # What needs no labels is not excused by their absence.
    open_errors = Measurement(
        "error_rate", ERRORS.condition, "inconclusive", None, None, None, 50_000, "errors"
    )
    no_labels = on_labels("inconclusive", 0).measurements
    both = Judgement("inconclusive", "open", (*no_labels, open_errors))
    found = decided(both, requests=50_000, plan=RolloutPlan(STEPS, (QUALITY, ERRORS)))
    assert found.action == "hold" and "measurement 500 (limit 3)" in found.reason


def test_labels_that_never_come_stop_a_rollout_for_a_person() -> None:
    plan = RolloutPlan(STEPS, (QUALITY, ERRORS), labels_within=timedelta(days=3))
    late = 1_000.0 + timedelta(days=3).total_seconds()

    def at(now: float, labels: int, **more: Any) -> DueAct:
        return decided(on_labels("inconclusive", labels), now=now, plan=plan, **more)

    assert at(late, 0).action == "wait"
    for labels in (0, 99):
        found = at(late + 1, labels)
        assert (found.action, found.phase) == ("hold", "inconclusive")
        assert f"{labels} labels came within 3 days" in found.reason
    # Enough for one measurement: the limit on measurements decides from here on.
    assert at(late + 1, 100).action == "wait"
    assert at(late + 1, 0, requests=99).action == "wait"
    assert at(late + 1, 0, held=True).action == "wait"
    # Without a quality analysis nobody waits for labels.
    assert (
        decided(OPEN, now=late + 1, plan=RolloutPlan(STEPS, (ERRORS,), labels_within=timedelta(0))).action
        == "wait"
    )
    assert RolloutPlan(STEPS).labels_within == timedelta(days=14)


def test_further_labels_are_a_further_measurement_without_a_further_request() -> None:
    first = next_failures(Failures(), on_labels("failed", 250), 5, samples=200)
    assert first == Failures(5, 1, 450)
    assert next_failures(first, on_labels("failed", 250), 5, samples=200) == first
    second = next_failures(first, on_labels("failed", 260), 5, samples=200)
    assert second.count == 2
    plan = RolloutPlan(STEPS, (QUALITY,))
    assert decided(on_labels("failed", 250), plan=plan, failures=first).action == "wait"
    assert decided(on_labels("failed", 260), plan=plan, failures=second).action == "abort"


def test_a_trip_aborts_whatever_the_judgement_says() -> None:
    found = due_act(PLAN, routing(), RolloutFacts(evidence(500, tripped="12 of 40 failed"), PASSED, now=1e6))
    assert (found.action, found.phase) == ("abort", "failed") and "12 of 40 failed" in found.reason


def test_a_version_that_ray_gave_up_on_is_aborted_as_an_error() -> None:
    found = decided(problem="flights--v2 is DEPLOY_FAILED")
    assert (found.action, found.phase) == ("abort", "error") and "DEPLOY_FAILED" in found.reason


def test_a_failed_measurement_aborts_even_before_the_minimum() -> None:
    found = decided(FAILED, requests=20, failures=Failures(5, 1, 20))
    assert (found.action, found.phase) == ("abort", "failed") and "bad" in found.reason


def test_failed_measurements_within_the_limit_are_put_up_with() -> None:
    patient = RolloutPlan(STEPS, (Analysis("error_rate", ERRORS.condition, failure_limit=2),))
    assert decided(FAILED, plan=patient, failures=Failures(5, 2, 150)).action == "wait"
    assert decided(FAILED, plan=patient, failures=Failures(5, 3, 200)).action == "abort"


def test_looking_again_at_the_same_requests_is_no_new_measurement() -> None:
    once = next_failures(Failures(), FAILED, revision=5, samples=100)
    assert once == Failures(5, 1, 100)
    assert next_failures(once, FAILED, revision=5, samples=100) == once
    assert next_failures(once, FAILED, revision=5, samples=101).count == 2
    assert next_failures(once, FAILED, revision=6, samples=101).count == 1
    assert next_failures(once, PASSED, revision=5, samples=200) == once


def test_a_rollout_that_stays_inconclusive_stops_for_a_person() -> None:
    assert decided(OPEN, requests=399).action == "wait"
    held = decided(OPEN, requests=400)
    assert (held.action, held.phase) == ("hold", "inconclusive") and "limit 3" in held.reason
    assert decided(OPEN, requests=400, held=True).action == "wait"
    assert decided(PASSED, requests=500, held=True).action == "wait"


def test_a_step_that_is_not_declared_any_more_is_given_up() -> None:
    found = decided(at=routing(step=7))
    assert (found.action, found.phase) == ("abort", "error") and "3 steps" in found.reason


# -- what makes it wait ------------------------------------------------------------------------------


def test_too_few_requests_wait_and_say_how_many() -> None:
    assert "99 of 100 requests" in decided(requests=99).reason
    assert due_act(PLAN, routing(), RolloutFacts(None, None, now=1e6)).action == "wait"


def test_a_pause_runs_from_the_declaration() -> None:
    assert decided(now=1_000.0 + 599).action == "wait"
    assert decided(now=1_000.0 + 600).action == "advance"


def test_a_manual_pause_waits_for_ever() -> None:
    plan = RolloutPlan((CanaryStep(weight=100, min_requests=1, manual=True), CanaryStep(weight=10_000)), ())
    found = decided(None, plan=plan, at=routing(step=0), now=1e12)
    assert found.action == "wait" and "a person" in found.reason


def test_a_weight_set_by_hand_waits_for_a_person() -> None:
    assert decided(at=routing("set_weight", by="ana")).action == "wait"


# -- what moves it on --------------------------------------------------------------------------------


def test_evidence_moves_a_rollout_to_its_next_step_with_the_reason() -> None:
    found = decided(at=routing(step=0))
    assert (found.action, found.step, found.samples) == ("advance", 1, 200)
    assert "good" in found.reason


def test_the_last_step_promotes() -> None:
    assert decided(None, at=routing(step=2), requests=0).action == "promote"


def test_a_shadow_step_counts_mirrored_requests() -> None:
    only_live = due_act(PLAN, routing(step=0), RolloutFacts(evidence(500, shadowed=0), PASSED, now=1e6))
    assert only_live.action == "wait"


# -- settled -----------------------------------------------------------------------------------------


def test_the_version_before_is_retired_after_its_time_and_not_earlier() -> None:
    settled = routing("promote")
    early, late = (decided(at=settled, now=1_000.0 + seconds) for seconds in (1_799, 1_800))
    assert early.action == "wait" and "stays warm" in early.reason
    assert late.action == "retire"


def test_nothing_is_due_without_a_rollout() -> None:
    alone = Routing(revision=1, stable="v1", routes={"v1": Route(application="a", weight=10_000)})
    assert due_act(PLAN, alone, RolloutFacts(None, None, now=1e9)).action == "wait"


@pytest.mark.parametrize(
    ("approved", "withdrawn", "starts", "told"),
    [
        (None, {}, False, "no version is approved"),
        ("v1", {}, False, "v1 is stable"),
        ("v2", {}, False, "v2 is being rolled out"),
        ("v3", {}, True, "v3 is approved, v1 is stable"),
        ("v3", {"v3": "tripped"}, False, "v3 was withdrawn: tripped"),
    ],
)
def test_a_rollout_starts_only_for_a_new_approved_version(
    approved: str | None, withdrawn: dict[str, str], starts: bool, told: str
) -> None:
    assert needs_start(routing(), approved, withdrawn) == (starts, told)


# -- plans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((CanaryStep(weight=5_000, min_requests=1),), "the last step must be {set_weight: 100}"),
        ((), "the last step must be"),
        (
            (
                CanaryStep(weight=5_000, min_requests=1),
                CanaryStep(weight=5_000, min_requests=1),
                CanaryStep(weight=10_000),
            ),
            "must grow from step to step; it is 50, 50, 100",
        ),
        (
            (
                CanaryStep(weight=100, min_requests=1),
                CanaryStep(weight=0, shadow=10, min_requests=1),
                CanaryStep(weight=10_000),
            ),
            "shadow steps come before",
        ),
        (
            (CanaryStep(weight=100, pause=timedelta(1)), CanaryStep(weight=10_000)),
            "because an analysis is declared",
        ),
        ((CanaryStep(weight=100), CanaryStep(weight=10_000)), "needs min_requests, a pause, or both"),
        (
            (CanaryStep(weight=10_000),),
            "takes all of the traffic at once: declare a shadow step or a smaller",
        ),
        ((CanaryStep(weight=10_000, min_requests=9),), "of a plan's only step count for nothing"),
        ((CanaryStep(weight=10_000, pause=timedelta(1)),), "of a plan's only step count for nothing"),
        ((CanaryStep(weight=10_000, manual=True),), "because an analysis is declared"),
    ],
)
def test_plans_that_cannot_work_are_refused_with_the_rule(steps: tuple[CanaryStep, ...], told: str) -> None:
    assert any(told in problem for problem in problems_of(steps, (ERRORS,)))


def test_a_good_plan_has_no_problems() -> None:
    assert problems_of(STEPS, (ERRORS,)) == []
    assert problems_of((CanaryStep(weight=10_000),), ()) == []
    assert problems_of((CanaryStep(weight=10_000, manual=True, min_requests=9),), (ERRORS,)) == []


def test_an_analysis_of_pairs_needs_a_step_that_has_pairs() -> None:
    pairs = Analysis("prediction_shift", Condition("distance", "<=", 0.1))
    without = (CanaryStep(weight=100, min_requests=9), CanaryStep(weight=10_000))
    assert "only a shadow step has" in problems_of(without, (pairs,))[0]
    assert problems_of((CanaryStep(weight=0, shadow=100, min_requests=9), *without), (pairs,)) == []


def test_a_plan_waits_for_labels_as_long_as_they_are_declared_to_take() -> None:
    declared = RolloutDeclaration()
    assert declared.plan().labels_within == timedelta(days=14)
    assert declared.plan(labels_within=timedelta(days=3)).labels_within == timedelta(days=14)
    assert declared.plan(labels_within=timedelta(days=30)).labels_within == timedelta(days=30)


def settled(stable: str, *, warm: str = "", previous: str | None = None) -> Routing:
    mark = RolloutMark(target=stable, action="promote", previous=previous)
    weights = {stable: 10_000, **({warm: 0} if warm else {})}
    routes = {label: Route(application=label, weight=weight) for label, weight in weights.items()}
    return Routing(revision=7, stable=stable, routes=routes, rollout=mark)


def test_under_a_rollout_the_version_before_is_stable_even_when_it_was_withdrawn() -> None:
    assert previous_version(routing(previous="v0")) == "v1"
    assert previous_version(routing(), withdrawn={"v1": "bad"}) == "v1"


def test_the_version_before_is_the_warm_one_then_the_one_that_the_last_act_displaced() -> None:
    assert previous_version(settled("v3", warm="v2", previous="v1")) == "v2"
    assert previous_version(settled("v3", warm="v2", previous="v1"), {"v2": "aborted"}) == "v1"
    assert previous_version(settled("v3", previous="v2")) == "v2"


def test_there_is_no_version_before_the_first_one_nor_before_those_that_were_withdrawn() -> None:
    assert previous_version(settled("v1")) == ""
    assert previous_version(settled("v1", previous="v1")) == ""
    assert previous_version(settled("v3", warm="v2", previous="v2"), {"v2": "aborted"}) == ""
