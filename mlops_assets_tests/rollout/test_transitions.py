import pytest

from mlops_assets.rollout import transitions
from mlops_assets.rollout.plan import CanaryStep
from mlops_assets.rollout.transitions import RoutingSettings
from serve.schema import GuardRules, RolloutMark, Routing
from serve.splitting import Split

SETTINGS = RoutingSettings(deployment="flights")


def mark(action: str = "step", target: str = "v2") -> RolloutMark:
    return RolloutMark.model_validate({"target": target, "action": action})


def first() -> Routing:
    return transitions.initial(SETTINGS, "v1", mark("initial", "v1"))


def at(weight: int = 0, shadow: int = 0, current: Routing | None = None) -> Routing:
    return transitions.at_step(
        current or first(), SETTINGS, "v2", CanaryStep(weight=weight, shadow=shadow), mark()
    )


def test_the_first_version_takes_everything_at_revision_one() -> None:
    routing = first()
    assert (routing.revision, routing.stable, routing.weights()) == (1, "v1", {"v1": 10_000})
    assert routing.salt == "flights" and routing.routes["v1"].application == "flights--v1"


def test_a_shadow_step_gives_the_target_requests_and_no_weight() -> None:
    routing = at(shadow=10_000)
    assert routing.weights() == {"v1": 10_000, "v2": 0}
    assert (routing.routes["v2"].shadow, routing.routes["v1"].shadow) == (10_000, 0)


def test_a_weight_ends_the_mirroring() -> None:
    routing = at(weight=1_000, current=at(shadow=10_000))
    assert routing.routes["v2"].shadow == 0 and routing.weights() == {"v1": 9_000, "v2": 1_000}


def test_growing_moves_nobody_back() -> None:
    small, large = at(weight=1_000), at(weight=5_000, current=at(weight=1_000))
    before, after = Split(small), Split(large)
    assert all(
        after.version_of_bucket(number) == "v2"
        for number in range(10_000)
        if before.version_of_bucket(number) == "v2"
    )


def test_promotion_keeps_the_version_before_warm() -> None:
    routing = transitions.promoted(at(weight=5_000), SETTINGS, "v2", mark("promote"))
    assert (routing.stable, routing.weights()) == ("v2", {"v2": 10_000, "v1": 0})


def test_an_abort_leaves_stable_alone() -> None:
    routing = transitions.aborted(at(weight=5_000), SETTINGS, mark("abort"))
    assert (routing.stable, routing.weights()) == ("v1", {"v1": 10_000})


def test_a_rollback_to_what_is_stable_ends_a_rollout() -> None:
    routing = transitions.rolled_back(at(weight=5_000), SETTINGS, "v1", mark("rollback", "v1"))
    assert (routing.stable, routing.weights()) == ("v1", {"v1": 10_000})


def test_a_new_rollout_drops_what_was_warm() -> None:
    promoted = transitions.promoted(at(weight=5_000), SETTINGS, "v2", mark("promote"))
    third = transitions.at_step(promoted, SETTINGS, "v3", CanaryStep(weight=100), mark(target="v3"))
    assert third.weights() == {"v2": 9_900, "v3": 100}


def test_every_act_is_one_revision_and_keeps_the_salt() -> None:
    routing = first()
    for number in range(2, 6):
        routing = at(weight=1_000 * number, current=routing)
        assert (routing.revision, routing.salt) == (number, "flights")


def test_changed_settings_are_a_new_revision_with_the_same_traffic() -> None:
    routing = at(weight=1_000)
    assert transitions.refreshed(routing, SETTINGS) is routing
    strict = RoutingSettings(deployment="flights", timeout_s=9.0, guard=GuardRules(min_errors=2))
    changed = transitions.refreshed(routing, strict)
    assert (changed.revision, changed.timeout_s, changed.guard.min_errors) == (3, 9.0, 2)
    assert (changed.weights(), changed.segments) == (routing.weights(), routing.segments)


@pytest.mark.parametrize("weight", [0, 10_000])
def test_the_ends_of_the_scale_are_weights_too(weight: int) -> None:
    assert transitions.with_weight(at(weight=5_000), SETTINGS, "v2", weight, mark()).weights()["v2"] == weight
