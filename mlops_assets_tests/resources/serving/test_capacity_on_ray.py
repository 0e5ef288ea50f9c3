"""Placement before declaring, on real clusters with one logical GPU and with none."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.errors import DeploymentError
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.desired_state import (
    DeployedVersion,
    gateway_application,
    version_application,
)
from mlops_assets.testing.ray_cluster import RayCluster, local_ray
from mlops_assets.testing.small_models import package, routing
from serve.schema import GatewayArgs, ModelArgs, Routing
from serve.scoring import write_package

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with local_ray(num_gpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeClient]:
    state = tmp_path_factory.mktemp("client") / "state.json"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield ServeClient(
            dashboard_url=cluster.dashboard_url,
            serve_url=cluster.http_url,
            state_file=str(state),
            deadline_s=60,
        )


@pytest.fixture(scope="module")
def v1(cluster: RayCluster, client: ServeClient, tmp_path_factory: pytest.TempPathFactory) -> DeployedVersion:
    """Two running replicas with half of the GPU each, placed before they were declared.

    Beside them a gateway, and v2, which declares device gpu past the placement.
    """
    uri = tmp_path_factory.mktemp("package")
    write_package(str(uri), *package())
    placed = client.target.require_resources(
        application="flights--v1", device="auto", num_gpus=0.5, replicas=2
    )
    assert (placed.device, placed.num_gpus) == ("gpu", 0.5)
    version = deployed("v1", uri, device="auto", num_gpus=placed.num_gpus, num_replicas=2)
    cluster.declare(
        version_application(version),
        version_application(deployed("v2", uri, device="gpu")),
        gateway_application(GatewayArgs(name="flights"), Routing.model_validate(routing())),
    )
    client.target.wait_until_running([version.application, "flights"])
    return version


def deployed(name: str, uri: Path, **args: Any) -> DeployedVersion:
    return DeployedVersion("flights", name, ModelArgs(version=name, package_uri=str(uri), **args))


def test_two_halves_fill_the_gpu_and_a_third_is_refused_with_the_numbers(
    client: ServeClient, v1: DeployedVersion
) -> None:
    started = time.monotonic()
    with pytest.raises(DeploymentError) as refused:
        client.target.require_resources(application="flights--v3", device="gpu", num_gpus=0.5)
    assert time.monotonic() - started < 5
    assert "0 of 1 GPU free, held by flights--v1 2 x 0.5" in str(refused.value)
    assert "of 4 CPU free" in str(refused.value)


def test_auto_beside_a_full_gpu_goes_to_the_cpu(client: ServeClient, v1: DeployedVersion) -> None:
    placed = client.target.require_resources(application="flights--v3", device="auto", num_gpus=0.5)
    assert (placed.device, placed.num_gpus) == ("cpu", 0)
    assert "held by flights--v1 2 x 0.5" in placed.reason


def test_gpu_on_a_cluster_without_one_is_refused_at_once(
    ray_cluster: RayCluster, client: ServeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    bare = client.model_copy(update={"dashboard_url": ray_cluster.dashboard_url})
    with pytest.raises(DeploymentError, match=r"no GPU in the cluster \(.*: 0 GPU, 4 CPU\)"):
        bare.target.require_resources(application="flights--v3", device="gpu", num_gpus=0.5)
    placed = bare.target.require_resources(application="flights--v3", device="auto", num_gpus=0.5)
    assert (placed.device, placed.num_gpus) == ("cpu", 0)


def test_a_version_that_is_declared_needs_no_second_place(client: ServeClient, v1: DeployedVersion) -> None:
    placed = client.target.require_resources(
        application="flights--v1", device="gpu", num_gpus=0.5, replicas=2
    )
    assert (placed.num_gpus, placed.reason) == (0.5, "it is declared already, and stays as it is")


def test_a_model_larger_than_the_memory_is_refused_with_the_numbers(
    client: ServeClient, v1: DeployedVersion
) -> None:
    (node,) = client.target.cluster_resources().nodes
    assert node.memory_total is not None
    assert node.memory_free is not None
    assert 0 < node.memory_free < node.memory_total
    with pytest.raises(DeploymentError, match=r"room for 0: .* memory free \(5% of it are kept\)"):
        client.target.require_resources(
            application="flights--v3", num_gpus=0, device="cpu", package_bytes=node.memory_free
        )


def test_a_replica_with_a_share_but_no_gpu_behind_it_works_on_the_cpu_and_says_so(
    client: ServeClient, v1: DeployedVersion
) -> None:
    end = time.monotonic() + 20
    while not ((ready := client.ready("flights")[1]).get("routes", {}).get("v1") or {}).get("device"):
        assert time.monotonic() < end, ready
        time.sleep(0.1)
    device = ready["routes"]["v1"]["device"]
    assert (device["requested"], device["used"], device["visible"]) == ("auto", "cpu", "0")
    assert device["reason"].startswith("device: auto fell back to CPU: ")


def test_a_replica_that_must_have_a_gpu_and_has_none_fails_with_a_sentence(
    client: ServeClient, v1: DeployedVersion
) -> None:
    with pytest.raises(DeploymentError, match=r"v2 must run on a GPU .*num_gpus is 0"):
        client.target.wait_until_running(["flights--v2"])
