"""Runs that were cut off and clusters that were lost: the next run does what is left, once."""

import pytest

from mlops_assets.deploying.retiring import retirement
from mlops_assets.errors import DeploymentError
from mlops_assets.rollout import desired_state
from mlops_assets.testing.deployed_world import DeployedWorld, cut_off, start_v2


def test_a_run_cut_off_before_it_recorded_is_finished_by_the_next_one(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    cut_off(monkeypatch, world.tick)
    assert world.last["revision"] == 2
    world.now += 3_600

    world.tick()

    assert (world.last["revision"], world.last["step"]) == (3, "2 of 3: weight 20 %")
    assert [record["revision"] for record in world.records()] == [1, 2, 3]


def test_a_cluster_that_lost_everything_gets_its_state_back(world: DeployedWorld) -> None:
    start_v2(world)
    world.cluster.forget_everything()
    world.tick()
    assert (world.last["revision"], world.last["weights"]) == (2, {"v1": 100.0, "v2": 0.0})
    assert set(world.send(10)) == {"v1"}


def test_a_rollback_cut_off_in_a_rollout_withdraws_what_it_left_and_nothing_else(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("rollback", to="v1", reason="no"))
    with pytest.raises(DeploymentError, match="is not recorded yet"):
        world.decide("rollback", to="v1", reason="again")
    world.tick()
    assert (world.last["action"], world.last["withdrawn"]) == (
        "rollback",
        {"v2": "rolled back by ana: no"},
    )
    assert world.alerts()[-1]["kind"] == "rolled_back"
    world.now += 3_600
    assert all(not world.tick().run_requests for _ in range(3))


def test_an_abort_cut_off_still_withdraws_and_alerts(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("abort", reason="no"))
    world.tick()
    assert (world.last["phase"], world.last["withdrawn"]) == ("failed", {"v2": "no"})
    assert [alert["kind"] for alert in world.alerts()] == ["rollout_aborted"]
    assert world.tags(2)["rollout"] == "aborted"


def test_a_promotion_cut_off_still_moves_the_alias(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("promote"))
    assert world.champion() == 1
    world.tick()
    assert (world.champion(), world.last["action"], world.last["phase"]) == (
        2,
        "promote",
        "successful",
    )


def test_a_step_cut_off_whose_canary_then_dies_is_aborted(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    cut_off(monkeypatch, world.tick)
    world.cluster.status["flights--v2"] = ("DEPLOY_FAILED", "out of memory")
    world.now += 3_600
    world.tick()
    assert (world.last["action"], world.last["phase"]) == ("abort", "error")
    assert set(world.send(10)) == {"v1"}


def test_what_no_file_and_no_cluster_holds_is_rebuilt_from_the_record(world: DeployedWorld) -> None:
    world.cluster.forget_everything()
    (world.folder / "desired_state.json").unlink()
    world.tick()
    assert (world.last["revision"], world.last["weights"]) == (2, {"v1": 100.0})
    assert set(world.send(10)) == {"v1"}


def test_a_deployment_that_was_retired_begins_anew_where_its_revisions_ended(world: DeployedWorld) -> None:
    start_v2(world)
    gone = world.client.target.retire("flights")
    world.instance.report_runless_asset_event(
        retirement("flights", world.record, by="ana", reason="its folder was gone", applications=gone)
    )
    # Its documents are back; the sensor brings the approved version up, and not what answered before.
    world.now += 120
    world.tick()

    assert (world.last["phase"], world.last["action"]) == ("successful", "initial")
    assert world.last["stable"] == "v2"
    assert world.last["revision"] == 3 and world.http.get("/ready").json()["revision"] == 3
    assert world.champion() == 2 and world.tick().run_requests == []


def test_a_lost_cluster_gets_everything_back_and_waits_for_no_other_deployment(world: DeployedWorld) -> None:
    broken = {**world.cluster.declared["flights--v1"], "name": "tea--v1"}
    everything = [*world.client.target.declared(), broken]
    world.client.target.apply(desired_state.document(everything, host="127.0.0.1", port=80))
    world.cluster.forget_everything()
    world.cluster.refuses_to_start["tea--v1"] = "its package is gone"

    world.tick()

    assert world.last["phase"] == "successful" and world.send(1) == ["v1"]
    assert world.cluster.status["tea--v1"][0] == "DEPLOY_FAILED"
