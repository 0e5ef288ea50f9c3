"""Runs of a deployment: by evidence alone, and as a person orders."""

from typing import Any

import pytest

from mlops_assets.commands.decisions import decide_rollout
from mlops_assets.errors import DeploymentError, UnknownName
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.testing.deployed_world import DeployedWorld, pass_shadow_step, start_v2, why_failed


def test_the_first_version_takes_everything_at_once(world: DeployedWorld) -> None:
    assert world.last["phase"] == "successful"
    assert (world.last["action"], world.last["weights"]) == ("initial", {"v1": 100.0})
    assert "2 golden requests answered over HTTP exactly as offline" in world.last["verified"]
    assert world.champion() == 1
    assert world.tick().run_requests == []


def test_a_good_version_goes_from_shadow_to_stable_by_evidence_alone(world: DeployedWorld) -> None:
    start_v2(world)
    assert (world.last["phase"], world.last["step"]) == ("progressing", "1 of 3: shadow 100 %")
    assert set(world.send(20)) == {"v1"}

    waiting = world.tick()
    assert waiting.run_requests == [] and "of 250 requests" in str(waiting.skip_reason)
    assert world.champion() == 1

    world.send(280, 20)
    world.settle()
    world.tick()
    assert (world.last["phase"], world.last["step"]) == ("progressing", "2 of 3: weight 20 %")
    assert world.last["samples"] >= 250 and world.last["judgement"]["phase"] == "successful"
    assert "error_rate" in world.last["reason"] or "errors" in world.last["reason"]

    answered = world.send(1_200)
    assert 0.15 < answered.count("v2") / 1_200 < 0.25
    world.settle()
    world.tick()  # to 100 %: the last step needs nothing, so the same rollout is promoted
    world.tick()
    assert (world.last["phase"], world.last["action"]) == ("successful", "promote")
    assert world.last["weights"] == {"v2": 100.0, "v1": 0.0}
    assert set(world.send(10)) == {"v2"}
    assert world.champion() == 2
    assert world.tags(2)["rollout"] == "promoted"

    world.now += 31 * 60
    world.tick()
    assert (world.last["action"], world.last["weights"]) == ("retire", {"v2": 100.0})
    assert set(world.cluster.declared) == {"flights", "flights--v2"}
    assert world.tick().run_requests == []
    actions = [record["action"] for record in world.records()]
    assert actions == ["initial", "step", "step", "step", "promote", "retire"]
    assert [record["revision"] for record in world.records()] == [1, 2, 3, 4, 5, 6]


def test_units_that_saw_the_canary_stay_with_it_when_it_grows(world: DeployedWorld) -> None:
    start_v2(world)
    pass_shadow_step(world)
    before = world.send(100)
    world.decide("set_weight", weight=60.0)
    after = world.send(100)
    assert all(new == "v2" for old, new in zip(before, after, strict=True) if old == "v2")
    assert after.count("v2") > before.count("v2")


def test_a_person_may_try_an_aborted_version_again(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("abort", reason="not today")
    assert world.last["withdrawn"] == {"v2": "not today"}
    record = world.decide("start", reason="today")
    assert record.metadata["step"] == "1 of 3: shadow 100 %" and record.metadata["withdrawn"] == {}


def test_a_newer_approval_takes_the_place_of_a_rollout_under_way(world: DeployedWorld) -> None:
    start_v2(world)
    world.approve(2)
    assert world.run().success
    assert (world.last["target"], world.last["shadows"]) == ("v3", {"v3": 100.0})
    world.send(10)
    world.tick()
    assert "flights--v2" not in world.cluster.gateways


def test_a_person_promotes_without_waiting(world: DeployedWorld) -> None:
    start_v2(world)
    record = world.decide("promote", reason="seen enough")
    assert (record.metadata["by"], record.metadata["reason"]) == ("ana", "seen enough")
    assert world.champion() == 2 and set(world.send(10)) == {"v2"}


def test_a_rollback_moves_weights_alias_and_record_together_and_stays(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("promote")
    record = world.decide("rollback", reason="customers complain")
    assert record.metadata["weights"] == {"v1": 100.0, "v2": 0.0}
    assert record.metadata["traffic"] == "v2 100 %, v1 0 % → v1 100 %, v2 0 %"
    assert world.champion() == 1 and set(world.send(10)) == {"v1"}
    assert world.tags(2)["rollout"] == "rolled back"
    assert record.metadata["withdrawn"] == {"v2": "rolled back by ana: customers complain"}
    assert [alert["kind"] for alert in world.alerts()] == ["rolled_back"]
    world.now += 120
    for _ in range(10):
        assert world.tick().run_requests == []
    assert world.last["stable"] == "v1"


def test_a_rollback_is_declared_whatever_the_endpoint_says(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)

    def refused(*_: Any) -> None:
        raise DeploymentError("the key is refused")

    monkeypatch.setattr(ServeClient, "evidence", refused)
    with pytest.raises(DeploymentError, match="the key is refused"):
        world.decide("rollback", to="v1")
    routing = desired_state.routing_of(world.client.target.declared(), "flights")
    assert routing is not None and routing.rollout is not None
    assert (routing.rollout.action, routing.weights()) == ("rollback", {"v1": 10_000})


def test_a_rollback_to_a_version_that_is_long_gone_starts_it_first(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("promote")
    world.now += 31 * 60
    world.tick()
    assert "flights--v1" not in world.cluster.declared
    record = world.decide("rollback", to="v1")
    assert record.metadata["weights"] == {"v1": 100.0, "v2": 0.0} and set(world.send(10)) == {"v1"}


def test_decisions_that_make_no_sense_are_refused_in_words(world: DeployedWorld) -> None:
    with pytest.raises(DeploymentError, match="no rollout is under way"):
        world.decide("promote")
    with pytest.raises(DeploymentError, match="no rollout is under way"):
        world.decide("abort")
    with pytest.raises(DeploymentError, match="v1 is what answers already"):
        world.decide("rollback", to="v1")
    with pytest.raises(DeploymentError, match="no earlier version that was not withdrawn"):
        world.decide("rollback")
    with pytest.raises(DeploymentError, match="has no version 9"):
        world.decide("rollback", to="v9")
    with pytest.raises(DeploymentError, match="approved and stable already"):
        world.decide("start")
    with pytest.raises(DeploymentError, match="Unknown version beside stable"):
        world.decide("set_weight", weight=10.0)
    with pytest.raises(UnknownName, match="Unknown deployment 'nope'"):
        decide_rollout(world.definitions, world.instance, "nope", action="abort", by="ana", reason="x")
    assert [record["revision"] for record in world.records()] == [1]


def test_a_weight_set_by_hand_holds_until_a_person_goes_on(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("set_weight", weight=50.0)
    answered = world.send(400)
    assert 140 < answered.count("v2") < 260
    world.settle()
    assert "set the weight of v2 by hand" in str(world.tick().skip_reason)
    world.decide("promote")
    assert world.champion() == 2


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"action": "set_weight", "weight": -5.0, "by": "ana", "reason": "x"}, "between 0 and 100"),
        ({"action": "set_weight", "by": "ana", "reason": "x"}, "between 0 and 100"),
        ({"action": "set_weight", "weight": 0.001, "by": "ana", "reason": "x"}, "finer than 0.01 %"),
        ({"action": "abort"}, "give `by` and `reason`"),
        ({"action": "promote", "by": "ana"}, "give `by` and `reason`"),
    ],
)
def test_acts_that_are_not_said_properly_change_nothing(
    world: DeployedWorld, config: dict[str, Any], told: str
) -> None:
    start_v2(world)
    refused = world.run(**config)
    assert not refused.success and told in why_failed(refused)
    assert world.last["revision"] == 2


def test_an_older_version_promoted_by_a_person_stays(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("promote")
    world.decide("set_weight", weight=10.0, to="v1")
    world.decide("promote", reason="v1 is better")
    assert (world.last["stable"], world.champion()) == ("v1", 1)
    assert "v1 was promoted over it by ana" in world.last["withdrawn"]["v2"]
    world.now += 120
    assert world.tick().run_requests == []


def test_a_second_rollback_does_not_bring_the_bad_version_back(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("promote")
    world.decide("rollback", reason="bad")
    with pytest.raises(DeploymentError, match="no earlier version that was not withdrawn"):
        world.decide("rollback", reason="impatient")
    assert world.champion() == 1


def test_an_act_decided_on_an_older_revision_changes_nothing(world: DeployedWorld) -> None:
    start_v2(world)
    late = world.tick(run=False)
    assert late.run_requests == []
    refused = world.run(action="advance", revision=1, by="rollout sensor", reason="late")
    assert not refused.success and "was decided on revision 1" in why_failed(refused)
    assert world.last["revision"] == 2


def test_a_rejection_takes_an_approval_back(world: DeployedWorld) -> None:
    world.approve(1)
    assert world.run("approval", decision="reject", approver="ana", reason="biased").success
    refused = world.run()
    assert not refused.success and "is a rejection by ana: biased" in why_failed(refused)
    world.now += 3_600
    assert world.tick().run_requests == [] and world.last["revision"] == 1


def test_a_rollout_stopped_for_a_person_stays_stopped(world: DeployedWorld) -> None:
    start_v2(world)
    assert world.run(action="hold", by="rollout sensor", reason="still inconclusive").success
    assert world.alerts()[-1]["kind"] == "rollout_inconclusive"
    assert world.run().success and world.last["phase"] == "inconclusive"
    world.send(300)
    world.settle()
    assert "stopped as inconclusive" in str(world.tick().skip_reason)
