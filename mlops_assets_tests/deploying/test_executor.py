"""Acts that do not go through, and what they leave as it was."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier, BrokenBarrierError, Lock
from typing import Any

import dagster as dg
import pytest

from mlops_assets.deploying import executor
from mlops_assets.errors import DeploymentError
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.acts import Order
from mlops_assets.testing.deployed_world import (
    KEY,
    DeployedWorld,
    pass_shadow_step,
    start_v2,
    why_failed,
)


def test_a_canary_that_fails_trips_is_aborted_and_does_not_come_back(world: DeployedWorld) -> None:
    start_v2(world)
    pass_shadow_step(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    answers = world.send(400)
    assert set(answers) == {"v1"} or answers.count("v2") == 0

    world.settle()
    world.tick()

    assert (world.last["phase"], world.last["action"]) == ("failed", "abort")
    assert "v2 tripped" in world.last["reason"] and "model_error" in world.last["reason"]
    assert world.last["weights"] == {"v1": 100.0}
    assert set(world.cluster.declared) == {"flights", "flights--v1"}
    assert world.champion() == 1
    assert world.tags(2)["rollout"] == "aborted" and "tripped" in world.tags(2)["rollout_reason"]
    (alert,) = world.alerts()
    assert (alert["kind"], alert["version"]) == ("rollout_aborted", "v2") and "mlops" in alert["command"]
    check = world.instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(KEY, "rollout"))
    assert check is not None and check.event is not None and check.event.dagster_event is not None
    assert not check.event.dagster_event.asset_check_evaluation_data.passed

    world.now += 3_600
    for _ in range(10):
        assert world.tick().run_requests == []
    again = world.run()
    assert not again.success and "v2 was withdrawn" in why_failed(again)
    assert world.last["weights"] == {"v1": 100.0}


def test_a_shadow_that_fails_is_aborted_before_anyone_saw_it(world: DeployedWorld) -> None:
    start_v2(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    assert set(world.send(100)) == {"v1"}
    world.settle()
    world.tick()
    assert (world.last["phase"], world.last["stable"]) == ("failed", "v1")


def test_a_version_that_does_not_start_leaves_everything_as_it_was(world: DeployedWorld) -> None:
    world.cluster.refuses_to_start["flights--v2"] = "no such library"
    world.approve(1)
    assert world.run().success
    assert (world.last["phase"], world.last["weights"]) == ("error", {"v1": 100.0})
    assert "no such library" in world.last["reason"]
    assert set(world.send(20)) == {"v1"}
    assert set(world.cluster.declared) == {"flights", "flights--v1"}
    world.now += 3_600
    assert world.tick().run_requests == []


def test_a_gateway_replica_that_is_late_does_not_spoil_a_promotion(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.decide("promote")
    world.now += 31 * 60
    world.tick()
    connect, calls = world.cluster.connect, count()

    async def late(application: str) -> Any:
        if next(calls) % 2:
            await asyncio.sleep(1.0)
        return await connect(application)

    monkeypatch.setattr(world.cluster, "connect", late)
    assert world.decide("rollback", to="v1").metadata["phase"] == "successful"


def test_a_promotion_that_fails_goes_back_and_says_so(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)

    def differs(*_: Any) -> None:
        raise DeploymentError("golden row 3 differs")

    with monkeypatch.context() as patched:
        patched.setattr(executor, "verify_golden", differs)
        told = world.decide("promote", reason="seen enough").metadata
    assert told["phase"] == "error" and "golden row 3 differs" in told["reason"]
    assert told["weights"] == {"v1": 100.0, "v2": 0.0} and world.champion() == 1
    assert "golden row 3" in world.last["withdrawn"]["v2"]


def test_what_ray_refused_is_neither_the_versions_fault_nor_done_later(world: DeployedWorld) -> None:
    world.approve(1)
    world.cluster.put_fails = [1]
    assert not world.run().success
    saved = [application["name"] for application in world.client.target.saved()]
    assert world.last["withdrawn"] == {} and "flights--v2" not in saved
    start_v2_again = world.run()
    assert start_v2_again.success and world.last["target"] == "v2"
    world.cluster.put_fails = [1]
    with pytest.raises(DeploymentError, match="HTTP 503"):
        world.decide("promote")
    world.cluster.forget_everything()
    world.now += 3_600
    world.tick()
    assert (world.last["stable"], world.last["revision"]) == ("v1", 2)


def test_two_acts_at_once_never_interleave(world: DeployedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the same revision before either declares: the second changes nothing and says why."""
    start_v2(world)
    both_have_read, one_writer = Barrier(2, timeout=30), Lock()
    declare = executor.Executor.declare

    def read_together(self: Any, applications: Any, routing: Any, expected: Any) -> None:
        with suppress(BrokenBarrierError):
            both_have_read.wait()
        with one_writer:
            declare(self, applications, routing, expected)

    monkeypatch.setattr(executor.Executor, "declare", read_together)
    rolling = [world.rolling_out() for _ in range(2)]
    orders = [Order(action=action, by="ana", reason="now") for action in ("promote", "abort")]
    record = world.record

    def act(number: int) -> str:
        try:
            return rolling[number].run(orders[number], record).act.entry.phase
        except DeploymentError as error:
            return str(error)
        finally:
            both_have_read.abort()

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(act, range(2)), key=len)
    assert told[0] in ("successful", "failed")
    assert "moved from revision 2 to 3 meanwhile; nothing was declared" in told[1]
    assert world.http.get("/ready").json()["revision"] == 3


def test_an_orphan_keeps_its_applications_through_the_rollout_of_another(world: DeployedWorld) -> None:
    orphan = [
        {**one, "name": one["name"].replace("flights", "tea")}
        for one in desired_state.of_deployment(world.client.target.declared(), "flights")
    ]
    orphan = [{**one, "route_prefix": "/tea"} if one["name"] == "tea" else one for one in orphan]
    everything = [*world.client.target.declared(), *orphan]
    world.client.target.apply(desired_state.document(everything, host="127.0.0.1", port=80))

    start_v2(world)
    world.decide("promote")

    kept = desired_state.of_deployment(world.client.target.declared(), "tea")
    assert sorted(one["name"] for one in kept) == ["tea", "tea--v1"]
