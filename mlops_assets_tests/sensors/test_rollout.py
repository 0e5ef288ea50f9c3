"""The rollout sensor: what it launches, and when it waits."""

import time

import dagster as dg
import pytest

from mlops_assets.errors import DeploymentError
from mlops_assets.event_log import run_owner
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.testing.deployed_world import KEY, DeployedWorld, start_v2


def test_nothing_is_launched_while_a_run_is_not_finished(world: DeployedWorld) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    job = world.definitions.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job_def=job, asset_selection=frozenset({KEY}), status=dg.DagsterRunStatus.STARTED
    )
    result = world.tick()
    assert result.run_requests == [] and run.run_id in str(result.skip_reason)


def test_after_a_failed_act_the_sensor_waits_longer_each_time(world: DeployedWorld) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    world.cluster.put_fails = [1]
    with pytest.raises(AssertionError, match="HTTP 503"):
        world.tick()
    world.now = time.time()
    assert "the next try is in" in str(world.tick().skip_reason)
    world.now += 31
    world.tick()
    assert world.last["weights"] == {"v1": 80.0, "v2": 20.0}


def test_a_ray_that_is_away_is_said_and_nothing_else_happens(world: DeployedWorld) -> None:
    away = ServeClient(
        dashboard_url="http://127.0.0.1:9", serve_url="http://127.0.0.1:9", state_file="/nowhere"
    )
    world.client = away
    assert "does not answer" in str(world.tick().skip_reason)


def test_a_rejection_ends_the_rollout_of_that_version(world: DeployedWorld) -> None:
    start_v2(world)
    assert world.run("approval", decision="reject", approver="ana", reason="biased").success
    world.tick()
    assert world.last["action"] == "abort" and "rejected by ana: biased" in world.last["reason"]


def test_a_command_whose_process_was_killed_blocks_nothing(world: DeployedWorld) -> None:
    start_v2(world)
    job = world.definitions.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job_def=job,
        asset_selection=frozenset({KEY}),
        status=dg.DagsterRunStatus.STARTED,
        tags={run_owner.OWNER_TAG: run_owner.this_process().rsplit(":", 1)[0] + ":1"},
    )
    assert run.run_id not in str(world.tick().skip_reason)
    ended = world.instance.get_run_by_id(run.run_id)
    assert ended is not None and ended.status == dg.DagsterRunStatus.FAILURE


def test_refused_commands_do_not_hold_the_sensor_up(world: DeployedWorld) -> None:
    start_v2(world)
    for _ in range(3):
        with pytest.raises(DeploymentError):
            world.decide("rollback", to="v9")
    world.now = time.time()
    assert "next try" not in str(world.tick().skip_reason)
