"""A rollout on a real Ray: what it refuses, how it starts and stops versions, is Ray's own word."""

import pytest

from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.testing.deployed_world import DeployedWorld, start_v2
from mlops_assets.testing.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def cluster(ray_cluster: RayCluster) -> RayCluster:
    return ray_cluster


@pytest.fixture
def serve_client(cluster: RayCluster, tmp_path, monkeypatch: pytest.MonkeyPatch) -> ServeClient:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return ServeClient(
        dashboard_url=cluster.dashboard_url,
        serve_url=cluster.http_url,
        api_keys_file="off",
        state_file=str(tmp_path / "desired_state.json"),
        deadline_s=90,
    )


def test_a_version_is_started_beside_stable_promoted_and_rolled_back(world: DeployedWorld) -> None:
    assert (world.last["phase"], world.champion()) == ("successful", 1)

    start_v2(world)
    assert (world.last["phase"], world.last["weights"]) == ("progressing", {"v1": 100.0, "v2": 0.0})
    assert set(world.send(5)) == {"v1"}

    world.decide("promote")
    assert (world.last["stable"], world.champion()) == ("v2", 2)
    assert set(world.send(5)) == {"v2"}

    # v1 was kept warm for half an hour; then it is stopped, and a rollback starts it anew.
    world.now += 31 * 60
    world.tick()
    # The cluster is shared with the deployments of other tests.
    declared = sorted(one["name"] for one in world.client.target.declared())
    assert [one for one in declared if one.startswith("flights")] == ["flights", "flights--v2"]
    world.decide("rollback", to="v1")
    assert (world.last["weights"], world.champion()) == ({"v1": 100.0, "v2": 0.0}, 1)
    assert set(world.send(5)) == {"v1"}
