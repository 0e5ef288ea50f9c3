from typing import Any

import pytest

from mlops_assets.errors import DeploymentError
from mlops_assets.rollout.capacity import (
    CPUS_PER_REPLICA,
    DEFAULT_GPU_SHARE,
    GPU_CONTEXT_BYTES,
    GPU_REPLICA_BYTES,
    REPLICA_BYTES,
    ClusterResources,
    GpuMemory,
    Held,
    Node,
    Placement,
    cluster_resources,
    place,
)

GB = 10**9
BARE = Node("a", "alpha", cpus=4, gpus=0)
ONE_GPU = Node("g", "gamma", cpus=4, gpus=1)


def asked(*nodes: Node, held: tuple[Held, ...] = (), **changes: Any) -> Placement:
    request: dict[str, Any] = {
        "application": "flights--v7",
        "device": "auto",
        "num_gpus": 0,
        "replicas": 1,
        "package_bytes": 1_000_000,
        "model_format": "lightgbm-text",
        "cluster": ClusterResources(nodes, held),
    }
    return place(**{**request, **changes})


def refusal(*nodes: Node, held: tuple[Held, ...] = (), **changes: Any) -> str:
    with pytest.raises(DeploymentError) as refused:
        asked(*nodes, held=held, **changes)
    return str(refused.value)


def on(node: Node, gpus: float, holder: str = "flights--v1", cpus: float = 0.25) -> Held:
    return Held(holder, cpus, gpus, node.id)


def test_gpu_without_any_is_refused_and_names_every_node() -> None:
    said = refusal(BARE, Node("b", "beta", 2, 0), device="gpu")
    assert "flights--v7 with device: gpu does not fit" in said
    assert "no GPU in the cluster (alpha: 0 GPU, 4 CPU, beta: 0 GPU, 2 CPU)" in said
    assert "device: auto" in said


def test_gpu_on_a_cluster_without_nodes_is_refused() -> None:
    assert "no node is alive" in refusal(device="gpu")
    assert "no node is alive" in refusal(device="cpu")


def test_auto_without_a_gpu_falls_back_and_says_why() -> None:
    placed = asked(BARE, num_gpus=0.5)
    assert (placed.device, placed.num_gpus) == ("cpu", 0)
    assert placed.reason == "device: auto fell back to CPU: no GPU in the cluster (alpha: 0 GPU, 4 CPU)"


def test_auto_takes_a_quarter_of_a_gpu_unless_told_otherwise() -> None:
    assert asked(BARE, ONE_GPU).num_gpus == DEFAULT_GPU_SHARE
    placed = asked(BARE, ONE_GPU, num_gpus=0.5)
    assert (placed.device, placed.num_gpus) == ("gpu", 0.5)


def test_cpu_never_takes_a_gpu() -> None:
    assert asked(ONE_GPU, device="cpu") == Placement("cpu", 0, "device: cpu is declared", 223_500_000)
    assert "device: cpu" in refusal(ONE_GPU, device="cpu", num_gpus=0.5)


@pytest.mark.parametrize(("replicas", "share"), [(2, 0.5), (3, 0.3), (4, 0.25), (10, 0.1), (1, 1)])
def test_as_many_shares_as_fill_a_gpu_fit_and_one_more_does_not(replicas: int, share: float) -> None:
    assert asked(ONE_GPU, device="gpu", replicas=replicas, num_gpus=share).num_gpus == share
    more = refusal(ONE_GPU, device="gpu", replicas=replicas + 1, num_gpus=share)
    assert f"{replicas + 1} x ({share:g} GPU" in more
    assert f"room for {replicas}: gamma has room for {replicas}" in more


def test_a_refusal_names_who_holds_the_gpu() -> None:
    said = refusal(ONE_GPU, held=(on(ONE_GPU, 0.5), on(ONE_GPU, 0.5)), device="gpu", num_gpus=0.5)
    assert "room for 0" in said
    assert "0 of 1 GPU free, held by flights--v1 2 x 0.5" in said
    assert "3.5 of 4 CPU free" in said


def test_a_share_must_fit_on_one_gpu() -> None:
    two = Node("g", "gamma", cpus=4, gpus=2)
    held = (on(two, 0.6), on(two, 0.6))
    assert "0.4 + 0.4 of 2 GPU free" in refusal(two, held=held, device="gpu", num_gpus=0.5)
    assert asked(two, held=held, device="gpu", num_gpus=0.4, replicas=2).device == "gpu"


def test_whole_gpus_must_be_free() -> None:
    four = Node("g", "gamma", cpus=4, gpus=4)
    assert asked(four, device="gpu", num_gpus=2, replicas=2).num_gpus == 2
    assert "room for 1" in refusal(four, held=(on(four, 0.25),), device="gpu", num_gpus=2, replicas=2)
    assert asked(four, held=(on(four, 2),), device="gpu", num_gpus=2).num_gpus == 2


def test_more_than_one_gpu_comes_whole() -> None:
    assert "Set num_gpus to 1 or to at most 1" in refusal(ONE_GPU, device="gpu", num_gpus=1.5)


def test_who_waits_already_is_served_first() -> None:
    waiting = Held("other--v1", 0.25, 0.5, None)
    assert asked(ONE_GPU, held=(waiting,), device="gpu", num_gpus=0.5).device == "gpu"
    said = refusal(ONE_GPU, held=(waiting, waiting), device="gpu", num_gpus=0.5)
    assert "waiting already: other--v1 2 x 0.5" in said
    giant = Held("giant--v1", 0.25, 8, None)
    assert asked(ONE_GPU, held=(giant,), device="gpu", num_gpus=1).device == "gpu"


def test_auto_falls_back_when_the_gpu_is_taken_and_says_by_whom() -> None:
    placed = asked(ONE_GPU, held=(on(ONE_GPU, 1),), num_gpus=0.5)
    assert (placed.device, placed.num_gpus) == ("cpu", 0)
    assert "held by flights--v1 1 x 1" in placed.reason


def test_a_format_without_a_gpu_scorer_stays_on_the_cpu() -> None:
    assert "linear-json has no GPU scorer" in asked(ONE_GPU, model_format="linear-json").reason
    assert "linear-json has no GPU scorer" in refusal(ONE_GPU, device="gpu", model_format="linear-json")


def test_cpu_is_counted_too() -> None:
    small = Node("s", "small", cpus=1, gpus=0)
    assert asked(small, replicas=4).device == "cpu"
    held = (Held("flights", 0.5, 0, "s"),)
    assert "0.5 of 1 CPU free" in refusal(small, held=held, replicas=3)


def test_replicas_spread_over_nodes() -> None:
    nodes = tuple(Node(str(index), f"n{index}", cpus=1, gpus=1) for index in range(3))
    assert asked(*nodes, device="gpu", num_gpus=0.6, replicas=3).device == "gpu"
    assert "room for 3" in refusal(*nodes, device="gpu", num_gpus=0.6, replicas=4)


def test_a_model_that_does_not_fit_into_memory_is_refused_with_the_numbers() -> None:
    node = Node("a", "alpha", cpus=4, gpus=0, memory_total=8 * GB, memory_free=2 * GB)
    assert asked(node, replicas=4).memory_bytes == REPLICA_BYTES + 3_500_000
    said = refusal(node, package_bytes=400_000_000, replicas=2)
    assert "2 x (0.25 CPU and 1.6 GB of memory) asked, room for 0" in said
    assert "1.6 GB of 8.0 GB memory free (5% of it are kept)" in said
    # Two gigabytes are free, but Ray starts to kill workers before they are all taken.
    assert asked(node, package_bytes=350_000_000).device == "cpu"


def test_what_has_not_been_measured_limits_nothing() -> None:
    assert asked(BARE, package_bytes=10**12).device == "cpu"


def test_gpu_memory_limits_too() -> None:
    node = Node("g", "gamma", 4, 1, 64 * GB, 60 * GB, (GpuMemory(used=15 * GB, total=16 * GB),))
    said = refusal(node, device="gpu", num_gpus=0.25, package_bytes=100_000_000)
    assert "GPU 0: 1.0 GB of 16.0 GB free" in said
    assert "0.25 GPU with 1.1 GB" in said
    assert asked(node, num_gpus=0.25, package_bytes=100_000_000).device == "cpu"
    empty = Node("g", "gamma", 4, 1, 64 * GB, 60 * GB, (GpuMemory(0, 16 * GB),))
    placed = asked(empty, num_gpus=0.25, package_bytes=100_000_000, replicas=4)
    assert placed.gpu_memory_bytes == GPU_CONTEXT_BYTES + 100_000_000
    assert placed.memory_bytes == GPU_REPLICA_BYTES + 1_200_000_000
    whole = Node("g", "gamma", 4, 2, 64 * GB, 60 * GB, (GpuMemory(15 * GB, 16 * GB), GpuMemory(0, 16 * GB)))
    assert "room for 0" in refusal(whole, device="gpu", num_gpus=2, package_bytes=100_000_000)


def test_the_documents_of_ray_are_read() -> None:
    nodes = [
        {"node_id": "n1", "node_name": "one", "state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}},
        {"node_id": "n2", "node_name": "two", "state": "DEAD", "resources_total": {"CPU": 4.0, "GPU": 8.0}},
    ]
    actors = [
        replica("flights--v1", "ALIVE", "n1", {"GPU": 0.5, "CPU": 0.25}),
        replica("flights--v0", "DEAD", "n1", {"GPU": 0.5, "CPU": 0.25}),
        replica("flights--v2", "PENDING_CREATION", None, {"GPU": 0.5, "CPU": 0.25}),
        {"name": "", "class_name": "Trainer", "state": "ALIVE", "node_id": "n1",
         "required_resources": {"GPU": 0.25}},
        {"name": "SERVE_CONTROLLER_ACTOR", "state": "ALIVE", "node_id": "n1", "required_resources": {}},
    ]  # fmt: skip
    reading = {
        "now": 1_000.0,
        "mem": [8 * GB, 6 * GB, 25.0, 2 * GB],
        "gpus": [{"memoryUsed": 1_024, "memoryTotal": 16_384}],
        "raylet": {"nodeId": "n1"},
    }
    started = [
        {"node_id": "n1", "start_time_s": 990.0},
        {"node_id": "n1", "start_time_s": 998.0},
        {"node_id": "n2", "start_time_s": 998.0},
        {"node_id": None, "start_time_s": None},
    ]
    read = cluster_resources(nodes, actors, [reading], started)
    assert read.nodes == (
        Node("n1", "one", 4, 1, 8 * GB, 6 * GB - REPLICA_BYTES, (GpuMemory(1 << 30, 16 << 30),)),
    )
    assert read.held == (
        Held("flights--v1", 0.25, 0.5, "n1"),
        Held("flights--v2", 0.25, 0.5, None),
        Held("Trainer", 0, 0.25, "n1"),
    )


def test_a_node_that_is_not_measured_yet_is_read() -> None:
    nodes = [{"node_id": "n1", "node_ip": "10.0.0.1", "state": "ALIVE", "resources_total": {"CPU": 2.0}}]
    assert cluster_resources(nodes, [], []).nodes == (Node("n1", "10.0.0.1", 2, 0),)


def test_a_replica_counts_as_many_cpus_as_it_is_declared_with() -> None:
    from serve.builder import CPUS_PER_REPLICA as DECLARED

    assert CPUS_PER_REPLICA == DECLARED


def replica(application: str, state: str, node: str | None, resources: dict[str, float]) -> dict[str, Any]:
    return {
        "name": f"SERVE_REPLICA::{application}#Model#abc",
        "class_name": f"ServeReplica:{application}:Model",
        "state": state,
        "node_id": node,
        "required_resources": resources,
    }
