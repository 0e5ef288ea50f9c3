"""Every act as a value, and that what a cut-off run leaves behind amounts to the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mlops_assets.errors import DeploymentError, UnknownName
from mlops_assets.rollout import acts, transitions
from mlops_assets.rollout.act import NOTHING, Act, Notice, Recorded, RegistryTag, Standing, found
from mlops_assets.rollout.acts import Order
from mlops_assets.rollout.plan import CanaryStep, RolloutPlan
from mlops_assets.rollout.transitions import RoutingSettings
from serve.schema import Evidence, RolloutMark, Routing, Trip, VersionEvidence

SETTINGS = RoutingSettings(deployment="flights")
PLAN = RolloutPlan((CanaryStep(weight=1_000), CanaryStep(weight=5_000), CanaryStep(weight=10_000)))
AT_ONCE = RolloutPlan((CanaryStep(weight=10_000),))
ANA = Order(by="ana", reason="because", judgement={"phase": "successful"})
NOW = 1_000.0


def mark(action: Any, target: str, **more: Any) -> RolloutMark:
    return RolloutMark(target=target, action=action, by="ana", reason="earlier", declared_at=900.0, **more)


FIRST = transitions.initial(SETTINGS, "v1", mark("initial", "v1"))
CANARY = transitions.at_step(FIRST, SETTINGS, "v2", PLAN.steps[0], mark("step", "v2", previous="v1"))
PROMOTED = transitions.promoted(CANARY, SETTINGS, "v2", mark("promote", "v2", previous="v1"))
"""v2 answers, v1 is warm."""


def recorded(routing: Routing, **more: Any) -> Recorded:
    told = routing.rollout
    assert told is not None
    return Recorded(
        revision=routing.revision,
        stable=routing.stable,
        phase="successful",
        weights=routing.weights(),
        mark=told.model_dump(mode="json"),
        **more,
    )


def standing(routing: Routing | None, *, plan: RolloutPlan = PLAN, **more: Any) -> Standing:
    """A routing that is declared and recorded."""
    known = recorded(routing, **more) if routing else Recorded(**more)
    return Standing(plan, SETTINGS, known, routing, NOW)


def measured(requests: int, *, trip: str = "") -> Evidence:
    trips = {"v2": Trip(version="v2", revision=2, reason=trip, at=0.0, by="r0")} if trip else {}
    return Evidence(
        name="flights",
        revision=2,
        since=0.0,
        replicas={},
        versions={"v2": VersionEvidence(requests=requests)},
        shadows={},
        trips=trips,
    )


ASKED = replace(standing(CANARY), evidence=measured(7))
TRIPPED = replace(standing(CANARY), evidence=measured(1, trip="slow"))


def declared(act: Act, on: Standing) -> Standing:
    """The world after a run was cut off: the act's routing is declared, the record is the one before."""
    return replace(on, routing=act.after, evidence=None)


def promotion_failed() -> tuple[Act, Standing]:
    promotion = acts.promote(ASKED, ANA)
    now = declared(promotion, ASKED)
    other = acts.instead(now, promotion, "golden row 3 differs")
    assert other is not None
    return other, now


def step_failed() -> tuple[Act, Standing]:
    on = standing(FIRST)
    step = acts.start(on, ANA, "v2")
    now = declared(step, on)
    other = acts.instead(now, step, "no answer from v2")
    assert other is not None
    return other, now


def not_started() -> tuple[Act, Standing]:
    on = standing(FIRST)
    return acts.not_started(on, acts.start(on, ANA, "v2"), "no such library"), on


def of(act: Callable[[Standing, Order], Act], on: Standing, order: Order = ANA) -> tuple[Act, Standing]:
    return act(on, order), on


def start(on: Standing, order: Order) -> Act:
    return acts.start(on, order, "v2")


WITHDRAWN = {"v2": "aborted long ago", "v9": "bad"}
WHY = "by ana: because"
BACK = "promotion failed: golden row 3 differs"
ACTS: dict[str, tuple[tuple[Act, Standing], dict[str, Any]]] = {
    "initial": (
        of(start, standing(None, revisions_before=4, withdrawn=WITHDRAWN)),
        {
            "revision": 5,
            "weights": {"v2": 10_000},
            "phase": "successful",
            "reason": "the first version: there is nothing to compare it with",
            "withdrawn": {"v9": "bad"},
            "starts": "v2",
            "awaits": ("flights", "flights--v2"),
            "golden": "v2",
            "champion": "v2",
        },
    ),
    "rebuild": (
        (acts.rebuild(replace(standing(PROMOTED), routing=None)), replace(standing(PROMOTED), routing=None)),
        {
            "revision": 4,
            "weights": {"v2": 10_000},
            "phase": "successful",
            "reason": acts.LOST,
            "by": "rollout",
            "starts": "v2",
            "awaits": ("flights", "flights--v2"),
            "golden": "v2",
            "champion": "v2",
        },
    ),
    "start": (
        of(start, standing(FIRST, withdrawn=WITHDRAWN)),
        {
            "revision": 2,
            "weights": {"v1": 9_000, "v2": 1_000},
            "phase": "progressing",
            "step": "1 of 3: weight 10 %",
            "before": {"v1": 10_000},
            "withdrawn": {"v9": "bad"},
            "starts": "v2",
            "beside": True,
            "taken_back": True,
            "tags": (RegistryTag("v2", "rolling out", "because"),),
        },
    ),
    "start at once": (
        of(start, standing(FIRST, plan=AT_ONCE), Order(by="ana")),
        {
            "revision": 2,
            "weights": {"v2": 10_000, "v1": 0},
            "phase": "successful",
            "reason": "v2 is approved; the plan has no steps",
            "before": {"v1": 10_000},
            "starts": "v2",
            "beside": True,
            "taken_back": True,
            "golden": "v2",
            "champion": "v2",
            "tags": (RegistryTag("v2", "promoted", "v2 is approved; the plan has no steps"),),
        },
    ),
    "advance": (
        of(acts.advance, ASKED),
        {
            "revision": 3,
            "weights": {"v1": 5_000, "v2": 5_000},
            "phase": "progressing",
            "step": "2 of 3: weight 50 %",
            "before": {"v1": 9_000, "v2": 1_000},
            "samples": 7,
        },
    ),
    "promote": (
        of(acts.promote, ASKED),
        {
            "revision": 3,
            "weights": {"v2": 10_000, "v1": 0},
            "phase": "successful",
            "before": {"v1": 9_000, "v2": 1_000},
            "samples": 7,
            "golden": "v2",
            "champion": "v2",
            "taken_back": True,
            "tags": (RegistryTag("v2", "promoted", "because"),),
        },
    ),
    "promote an older one": (
        of(
            acts.promote,
            standing(transitions.with_weight(PROMOTED, SETTINGS, "v1", 500, mark("set_weight", "v1"))),
        ),
        {
            "revision": 5,
            "weights": {"v1": 10_000, "v2": 0},
            "phase": "successful",
            "before": {"v2": 9_500, "v1": 500},
            "withdrawn": {"v2": "v1 was promoted over it by ana: because"},
            "golden": "v1",
            "champion": "v1",
            "taken_back": True,
            "tags": (RegistryTag("v1", "promoted", "because"),),
        },
    ),
    "promotion failed": (
        promotion_failed(),
        {
            "stops_unrouted": True,
            "revision": 4,
            "weights": {"v1": 10_000, "v2": 0},
            "phase": "error",
            "reason": BACK,
            "before": {"v1": 9_000, "v2": 1_000},
            "withdrawn": {"v2": BACK},
            "champion": "v1",
            "tags": (RegistryTag("v2", "promotion failed", "golden row 3 differs"),),
            "alert": Notice("rollout_failed", "v2", "golden row 3 differs"),
        },
    ),
    "abort": (
        of(acts.abort, ASKED),
        {
            "stops_unrouted": True,
            "revision": 3,
            "weights": {"v1": 10_000},
            "phase": "failed",
            "before": {"v1": 9_000, "v2": 1_000},
            "withdrawn": {"v2": "because"},
            "samples": 7,
            "tags": (RegistryTag("v2", "aborted", "because"),),
            "alert": Notice("rollout_aborted", "v2", "because"),
        },
    ),
    "not started": (
        not_started(),
        {
            "stops_unrouted": True,
            "revision": 2,
            "weights": {"v1": 10_000},
            "phase": "error",
            "reason": "no such library",
            "before": {"v1": 10_000},
            "withdrawn": {"v2": "no such library"},
            "tags": (RegistryTag("v2", "error", "no such library"),),
            "alert": Notice("rollout_failed", "v2", "no such library"),
        },
    ),
    "step failed": (
        step_failed(),
        {
            "stops_unrouted": True,
            "revision": 3,
            "weights": {"v1": 10_000},
            "phase": "error",
            "reason": "no answer from v2",
            "before": {"v1": 10_000},
            "withdrawn": {"v2": "no answer from v2"},
            "tags": (RegistryTag("v2", "error", "no answer from v2"),),
            "alert": Notice("rollout_failed", "v2", "no answer from v2"),
        },
    ),
    "set_weight": (
        of(acts.set_weight, ASKED, replace(ANA, weight=30.0)),
        {
            "revision": 3,
            "weights": {"v1": 7_000, "v2": 3_000},
            "phase": "progressing",
            "before": {"v1": 9_000, "v2": 1_000},
        },
    ),
    "rollback": (
        of(acts.roll_back, standing(PROMOTED, withdrawn={"v0": "bad"})),
        {
            "stops_unrouted": True,
            "revision": 4,
            "weights": {"v1": 10_000, "v2": 0},
            "phase": "successful",
            "before": {"v2": 10_000, "v1": 0},
            "withdrawn": {"v0": "bad", "v2": f"rolled back {WHY}"},
            "starts": "v1",
            "golden": "v1",
            "champion": "v1",
            "tags": (RegistryTag("v2", "rolled back", WHY), RegistryTag("v1", "rolled back to", WHY)),
            "alert": Notice("rolled_back", "v1", WHY),
        },
    ),
    "rollback in a rollout to one that is gone": (
        of(acts.roll_back, standing(CANARY, withdrawn={"v0": "bad"}), replace(ANA, to="v0")),
        {
            "stops_unrouted": True,
            "revision": 3,
            "weights": {"v0": 10_000, "v1": 0},
            "phase": "successful",
            "before": {"v1": 9_000, "v2": 1_000},
            "withdrawn": {"v1": f"rolled back {WHY}", "v2": f"rolled back {WHY}"},
            "starts": "v0",
            "beside": True,
            "golden": "v0",
            "champion": "v0",
            "tags": (
                RegistryTag("v1", "rolled back", WHY),
                RegistryTag("v2", "rolled back", WHY),
                RegistryTag("v0", "rolled back to", WHY),
            ),
            "alert": Notice("rolled_back", "v0", WHY),
        },
    ),
    "retire": (
        of(acts.retire, standing(PROMOTED)),
        {
            "stops_unrouted": True,
            "revision": 4,
            "weights": {"v2": 10_000},
            "phase": "successful",
            "before": {"v2": 10_000, "v1": 0},
        },
    ),
}
"""Every act that declares a routing of its own, and what is special about it."""


def what(act: Act) -> dict[str, Any]:
    """An act as the table says it."""
    return {
        "revision": act.after.revision,
        "weights": act.after.weights(),
        "phase": act.entry.phase,
        **{name: getattr(act, name) for name in DEFAULTS if hasattr(act, name)},
        **{name: getattr(act.entry, name) for name in DEFAULTS if hasattr(act.entry, name)},
    }


DEFAULTS = {
    "starts": "", "beside": False, "awaits": (), "golden": "", "stops_unrouted": False,
    "champion": "", "tags": (), "alert": None,
    "taken_back": False, "declares": True, "reason": "because", "by": "ana", "step": "", "before": NOTHING,
    "withdrawn": NOTHING, "samples": None,
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_an_act_is_a_value(name: str) -> None:
    (act, on), expected = ACTS[name]
    assert what(act) == {**DEFAULTS, **expected}
    assert act.before == on.routing
    mark = act.after.rollout
    assert mark is not None and (mark.declared_at, act.entry.action) == (NOW, mark.action)


@pytest.mark.parametrize("name", ACTS)
def test_an_act_that_was_cut_off_is_finished_as_it_would_have_been(name: str) -> None:
    (act, on), _ = ACTS[name]
    # What travels is the routing alone, as text.
    routing = Routing.model_validate_json(act.after.model_dump_json())
    rest = found(routing, declared(act, on))
    lost = {"samples": None, "judgement": None}
    assert rest.entry == replace(act.entry, **lost)
    same = ("golden", "stops_unrouted", "champion", "tags", "alert")
    assert [getattr(rest, name) for name in same] == [getattr(act, name) for name in same]
    assert (rest.after, rest.declares, rest.starts) == (act.after, False, "")
    weighted = {route.application for route in routing.routes.values() if route.weight}
    assert set(rest.awaits) == {"flights", *weighted}


def test_every_action_of_a_mark_is_in_the_table() -> None:
    marks = [act.after.rollout for (act, _), _ in ACTS.values()]
    known = RolloutMark.model_fields["action"].annotation.__args__  # type: ignore[union-attr]
    assert {one.action for one in marks if one} == set(known)


def test_what_an_act_withdraws_cannot_be_changed_behind_its_back() -> None:
    act = acts.abort(ASKED, ANA)
    with pytest.raises(TypeError):
        act.entry.withdrawn["v3"] = "no"  # type: ignore[index]


def test_changed_settings_cut_off_repeat_nothing_of_the_act_before() -> None:
    """The mark is that of the rollback, which was recorded, told and tagged already."""
    (back, _), _ = ACTS["rollback"]
    on = replace(standing(back.after, withdrawn={"v2": "x"}), settings=replace(SETTINGS, timeout_s=9.0))
    again = acts.refresh(on, "v1 is approved and stable")
    assert (again.after.revision, again.entry.reason) == (5, "v1 is approved and stable")
    rest = found(again.after, declared(again, on))
    assert (
        (rest.tags, rest.alert, rest.champion) == (again.tags, again.alert, again.champion) == ((), None, "")
    )
    assert rest.entry == replace(again.entry, reason="because")


def test_a_refresh_of_a_rollout_stopped_for_a_person_leaves_it_stopped() -> None:
    on = standing(CANARY)
    assert acts.refresh(on, "x").entry.phase == "progressing"
    held = replace(on, recorded=replace(on.recorded, phase="inconclusive"))
    assert acts.refresh(held, "x").entry.phase == "inconclusive"


def test_a_hold_declares_nothing_and_so_leaves_nothing_to_finish() -> None:
    act = acts.hold(ASKED, ANA)
    assert (act.declares, act.after, act.before) == (False, CANARY, CANARY)
    assert act.alert == Notice("rollout_inconclusive", "v2", "because")
    assert (act.entry.phase, act.entry.action, act.entry.samples) == ("inconclusive", "step", 7)


def test_behind_the_last_step_comes_the_promotion() -> None:
    last = transitions.at_step(CANARY, SETTINGS, "v2", PLAN.steps[2], mark("step", "v2", step=2))
    assert acts.advance(standing(last), ANA) == acts.promote(standing(last), ANA)


def test_a_rollback_that_cannot_be_verified_has_no_way_back() -> None:
    on = standing(PROMOTED)
    back = acts.roll_back(on, ANA)
    assert acts.instead(declared(back, on), back, "no answer") is None


def test_an_abort_for_a_version_that_cannot_answer_is_an_error() -> None:
    act = acts.abort(ASKED, ANA, phase="error")
    assert (act.entry.phase, act.tags[0].state) == ("error", "error")


@pytest.mark.parametrize(
    ("act", "on", "refusal"),
    [
        (lambda on: acts.start(on, ANA, "v1"), standing(FIRST), "approved and stable already"),
        (lambda on: acts.promote(on, ANA), standing(FIRST), "no rollout is under way, v1 answers"),
        (lambda on: acts.abort(on, ANA), standing(FIRST), "no rollout is under way"),
        (lambda on: acts.hold(on, ANA), standing(FIRST), "no rollout is under way"),
        (lambda on: acts.retire(on, ANA), standing(CANARY), "a rollout is under way"),
        (lambda on: acts.roll_back(on, ANA), standing(FIRST), "no earlier version"),
        (lambda on: acts.roll_back(on, replace(ANA, to="v1")), standing(FIRST), "is what answers already"),
        (lambda on: acts.set_weight(on, ANA), standing(CANARY), "is not a percentage"),
        (lambda on: acts.promote(on, ANA), TRIPPED, r"tripped \(slow\)"),
        (lambda on: acts.advance(on, ANA), TRIPPED, "tripped"),
    ],
)  # fmt: skip
def test_acts_that_make_no_sense_are_refused(
    act: Callable[[Standing], Act], on: Standing, refusal: str
) -> None:
    with pytest.raises(DeploymentError, match=refusal):
        act(on)


def test_a_weight_is_for_a_version_that_is_up() -> None:
    with pytest.raises(UnknownName, match=r"Unknown version beside stable 'v7'\. Allowed: v2"):
        acts.set_weight(standing(CANARY), replace(ANA, to="v7", weight=1.0))


def test_a_tripped_canary_may_be_set_to_nothing() -> None:
    assert acts.set_weight(TRIPPED, replace(ANA, weight=0.0)).after.weights()["v2"] == 0
    with pytest.raises(DeploymentError, match="tripped"):
        acts.set_weight(TRIPPED, replace(ANA, weight=1.0))
