"""Which device does a version get, and does it fit? Pure: what the cluster has in, a placement out.

Belongs here: fitting the replicas of a version onto nodes by CPU, GPU and memory, the estimate of what
a replica needs, and reading Ray's own documents into ``ClusterResources``. Does not belong here: asking
Ray (``resources/serving/``), what a replica finds on its node (``serve/devices.py``).

Ray waits for ever for a replica that no node can hold, and does not look at memory at all: its logical
``memory`` resource is a number that tasks may ask for, not a limit and not a measurement. So a version
is placed on paper before it is declared, and one that does not fit is refused with the numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlops_assets.errors import DeploymentError
from serve.schema import Device
from serve.scoring import FORMATS, gpu_formats

CPUS_PER_REPLICA = 0.25
"""As ``serve.builder.CPUS_PER_REPLICA`` declares to Ray; a test holds the two together."""

DEFAULT_GPU_SHARE = 0.25
"""Part of a GPU that a replica gets when ``num_gpus`` is 0 and the device is not cpu."""

REPLICA_BYTES = 220_000_000
"""Memory of its own that a replica takes with a small model (docs/gpu.md says how it was measured)."""

GPU_REPLICA_BYTES = 700_000_000
"""The same with nvForest: 400 MB measured without a GPU, the rest is a guess for CUDA's part."""

GPU_CONTEXT_BYTES = 1_000_000_000
"""GPU memory of one process before it holds a model: a cautious guess, not a measurement."""

MEMORY_KEPT_FREE = 0.05
"""Share of a node's memory that stays free: Ray kills workers of a node that is fuller than 95 %."""

LOADING_S = 5.0
"""A replica younger than this when its node was measured may not have held its memory yet."""

_WHOLE = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU in bytes, as its node measured it."""

    used: int
    total: int


@dataclass(frozen=True)
class Node:
    """A node that is alive: its logical resources in total, its memory as last measured (bytes)."""

    id: str
    name: str
    cpus: float
    gpus: float
    memory_total: int | None = None
    memory_free: int | None = None
    gpu_memory: tuple[GpuMemory, ...] = ()


@dataclass(frozen=True)
class Held:
    """What one actor holds of a node; ``node`` is None while the actor waits for a place."""

    holder: str
    cpus: float
    gpus: float
    node: str | None


@dataclass(frozen=True)
class ClusterResources:
    """What a cluster has, and who holds what of it."""

    nodes: tuple[Node, ...]
    held: tuple[Held, ...] = ()


@dataclass(frozen=True)
class Placement:
    """The device that a version gets, what each replica takes, and why."""

    device: Literal["cpu", "gpu"]
    num_gpus: float
    reason: str
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True)
class _Need:
    """What one replica needs."""

    cpus: float
    gpus: float
    memory: int
    gpu_memory: int

    def __str__(self) -> str:
        gpu = f"{self.gpus:g} GPU with {_size(self.gpu_memory)}, " if self.gpus else ""
        return f"{gpu}{self.cpus:g} CPU and {_size(self.memory)} of memory"


def place(
    *,
    application: str,
    device: Device,
    num_gpus: float,
    replicas: int,
    cluster: ClusterResources,
    package_bytes: int,
    model_format: str,
) -> Placement:
    """Where ``replicas`` replicas of a new version can run; DeploymentError with the numbers when nowhere.

    ``gpu`` is placed on GPUs or refused. ``auto`` is placed on GPUs where they fit (a quarter of one per
    replica when ``num_gpus`` is 0), else on CPU, and the reason says why. ``package_bytes`` is the size
    of the model file. It says that a place exists, not which one Ray takes: with several nodes, Ray may
    choose one whose memory is full.
    """
    share = _checked_share(application, device, num_gpus)
    scorer = FORMATS[model_format]
    grown = round(scorer.peak_per_package_byte * package_bytes)
    on_cpu = _Need(CPUS_PER_REPLICA, 0, REPLICA_BYTES + grown, 0)
    no_gpu = ""
    if device != "cpu":
        grown = round(scorer.gpu.peak_per_package_byte * package_bytes) if scorer.gpu else 0
        on_gpu = _Need(CPUS_PER_REPLICA, share, GPU_REPLICA_BYTES + grown, GPU_CONTEXT_BYTES + package_bytes)
        no_gpu = _no_gpu(model_format, cluster) or _no_room(on_gpu, replicas, cluster)
        if not no_gpu:
            reason = f"{replicas} x {share:g} GPU fit"
            return Placement("gpu", share, reason, on_gpu.memory, on_gpu.gpu_memory)
        if device == "gpu":
            raise DeploymentError(
                f"{application} with device: gpu does not fit: {no_gpu}. Lower num_gpus or replicas, retire "
                "a version, add a node with a GPU, or set device: auto to fall back to CPU."
            )
    if no_room := _no_room(on_cpu, replicas, cluster):
        also = f"no GPU for it ({no_gpu}), and on CPU: " if no_gpu else ""
        raise DeploymentError(
            f"{application} does not fit: {also}{no_room}. Lower replicas, retire a version, "
            "or add a node with more CPU or memory."
        )
    reason = f"device: auto fell back to CPU: {no_gpu}" if no_gpu else "device: cpu is declared"
    return Placement("cpu", 0, reason, on_cpu.memory)


def cluster_resources(
    nodes: Iterable[Mapping[str, Any]],
    actors: Iterable[Mapping[str, Any]],
    measured: Iterable[Mapping[str, Any]],
    replicas: Iterable[Mapping[str, Any]] = (),
) -> ClusterResources:
    """From Ray's documents: state API nodes and actors (``detail=1``), ``/nodes?view=summary``, and the
    replicas of every Serve deployment.

    Actors that are dead, and nodes that are not alive, count as gone. Ray tasks and placement groups of
    other programs are not in these documents: what they hold is taken for free. Ray shows memory up to
    half a minute late: a replica that started since the measurement counts with what the smallest takes.
    """
    readings = {reading.get("raylet", {}).get("nodeId", ""): reading for reading in measured}
    started = [(replica.get("node_id"), float(replica.get("start_time_s") or 0.0)) for replica in replicas]
    return ClusterResources(
        nodes=tuple(
            _node(node, readings.get(node["node_id"], {}), started)
            for node in nodes
            if node.get("state") == "ALIVE"
        ),
        held=tuple(
            Held(
                holder=_holder(actor),
                cpus=float(asked.get("CPU", 0)),
                gpus=float(asked.get("GPU", 0)),
                node=actor.get("node_id") or None,
            )
            for actor in actors
            if actor.get("state") != "DEAD" and (asked := actor.get("required_resources") or {})
        ),
    )


def _node(
    node: Mapping[str, Any], reading: Mapping[str, Any], started: Iterable[tuple[str | None, float]]
) -> Node:
    total = node.get("resources_total") or {}
    memory = reading.get("mem") or (None, None)
    now = float(reading.get("now", 0.0))
    unseen = sum(where == node["node_id"] and since + LOADING_S > now for where, since in started)
    return Node(
        id=node["node_id"],
        name=node.get("node_name") or node.get("node_ip") or node["node_id"][:8],
        cpus=float(total.get("CPU", 0)),
        gpus=float(total.get("GPU", 0)),
        memory_total=memory[0],
        memory_free=None if memory[1] is None else memory[1] - unseen * REPLICA_BYTES,
        # Ray gives these in units of 2**20 bytes.
        gpu_memory=tuple(
            GpuMemory(int(gpu["memoryUsed"]) << 20, int(gpu["memoryTotal"]) << 20)
            for gpu in reading.get("gpus") or ()
        ),
    )


def _holder(actor: Mapping[str, Any]) -> str:
    """The Serve application of a replica (``SERVE_REPLICA::flights--v1#Model#x``), or the actor's class."""
    name = str(actor.get("name") or "")
    if name.startswith("SERVE_REPLICA::"):
        return name.removeprefix("SERVE_REPLICA::").split("#")[0]
    return name or str(actor.get("class_name") or "an actor")


def share_problem(device: Device, num_gpus: float) -> str:
    """Why no replica can have this device and part of a GPU, whatever the cluster; empty when one can."""
    if device == "cpu" and num_gpus:
        return (
            f"{num_gpus:g} GPU with device: cpu would be held and not used. Set num_gpus: 0, or device: auto "
            "or gpu."
        )
    if num_gpus > 1 and num_gpus != int(num_gpus):
        return (
            f"{num_gpus:g} GPU per replica: Ray gives parts of one GPU (up to 1) or whole GPUs. Set num_gpus "
            f"to {int(num_gpus)} or to at most 1."
        )
    return ""


def _checked_share(application: str, device: Device, num_gpus: float) -> float:
    problem = share_problem(device, num_gpus)
    if problem:
        raise DeploymentError(f"{application} cannot be placed: {problem}")
    return num_gpus or (0.0 if device == "cpu" else DEFAULT_GPU_SHARE)


def _no_gpu(model_format: str, cluster: ClusterResources) -> str:
    """Why no GPU of any size would do; empty when one might."""
    if FORMATS[model_format].gpu is None:
        return f"{model_format} has no GPU scorer ({', '.join(gpu_formats())} have one)"
    if not any(node.gpus for node in cluster.nodes):
        seen = ", ".join(f"{node.name}: 0 GPU, {node.cpus:g} CPU" for node in cluster.nodes)
        return f"no GPU in the cluster ({seen or 'no node is alive'})"
    return ""


def _no_room(need: _Need, replicas: int, cluster: ClusterResources) -> str:
    """Why the replicas do not fit, with what each node has; empty when they do."""
    rooms = [_Room(node, cluster.held) for node in cluster.nodes]
    for waiting in cluster.held:
        if waiting.node is None:
            # Ray places whoever asked first; an actor that fits nowhere takes nothing.
            next((room for room in rooms if room.take(waiting)), None)
    places = sum(room.places(need) for room in rooms)
    if places >= replicas:
        return ""
    waits = [held for held in cluster.held if held.node is None]
    queue = f"; waiting already: {_who(waits, gpu=need.gpus > 0)}" if waits else ""
    seen = "; ".join(room.in_words(need) for room in rooms) or "no node is alive"
    return f"{replicas} x ({need}) asked, room for {places}: {seen}{queue}"


class _Room:
    """What is free on one node.

    Ray does not tell which of a node's GPUs an actor got. Like Ray, shares are packed onto the fullest
    GPU that still has room, largest first.
    """

    def __init__(self, node: Node, held: Iterable[Held]) -> None:
        self._node = node
        self._here = [each for each in held if each.node == node.id]
        self._cpus = _parts(node.cpus)
        self._gpus = [_WHOLE] * int(node.gpus)
        if node.gpus % 1:
            self._gpus.append(_parts(node.gpus % 1))
        for each in sorted(self._here, key=lambda each: -each.gpus):
            self._cpus -= _parts(each.cpus)
            self._take_gpu(_parts(each.gpus))

    def take(self, held: Held) -> bool:
        """Reserves what a waiting actor asked for, if it fits here."""
        if _parts(held.cpus) > self._cpus or not self._take_gpu(_parts(held.gpus)):
            return False
        self._cpus -= _parts(held.cpus)
        return True

    def _take_gpu(self, asked: int) -> bool:
        if asked > _WHOLE:
            whole = [index for index, free in enumerate(self._gpus) if free == _WHOLE][: asked // _WHOLE]
            if len(whole) < asked // _WHOLE:
                return False
            for index in whole:
                self._gpus[index] = 0
            return True
        fitting = [index for index, free in enumerate(self._gpus) if free >= asked]
        if asked and fitting:
            self._gpus[min(fitting, key=lambda index: self._gpus[index])] -= asked
        return not asked or bool(fitting)

    def places(self, need: _Need) -> int:
        """How many replicas fit."""
        limits = [self._cpus // _parts(need.cpus)]
        if need.gpus:
            limits.append(self._gpu_places(need))
        if (free := self._memory_free()) is not None:
            limits.append(free // need.memory)
        return max(0, min(limits))

    def _gpu_places(self, need: _Need) -> int:
        asked = _parts(need.gpus)
        measured = self._node.gpu_memory if len(self._node.gpu_memory) == len(self._gpus) else None
        by_memory = (
            [(gpu.total - gpu.used) // need.gpu_memory for gpu in measured]
            if measured
            else [_WHOLE] * len(self._gpus)
        )
        if asked > _WHOLE:
            usable = sum(
                free == _WHOLE and fits > 0 for free, fits in zip(self._gpus, by_memory, strict=True)
            )
            return usable // (asked // _WHOLE)
        return sum(min(free // asked, fits) for free, fits in zip(self._gpus, by_memory, strict=True))

    def _memory_free(self) -> int | None:
        """Bytes that replicas may take, or None when the node has not been measured."""
        if self._node.memory_free is None or self._node.memory_total is None:
            return None
        return max(0, self._node.memory_free - round(MEMORY_KEPT_FREE * self._node.memory_total))

    def in_words(self, need: _Need) -> str:
        node, facts = self._node, []
        if need.gpus:
            facts.append(self._gpus_in_words())
        facts.append(f"{max(self._cpus, 0) / _WHOLE:g} of {node.cpus:g} CPU free")
        if (free := self._memory_free()) is None:
            facts.append("memory not measured")
        else:
            facts.append(
                f"{_size(free)} of {_size(node.memory_total or 0)} memory free "
                f"({MEMORY_KEPT_FREE:.0%} of it are kept)"
            )
        return f"{node.name} has room for {self.places(need)} ({', '.join(facts)})"

    def _gpus_in_words(self) -> str:
        node = self._node
        if not node.gpus:
            return "0 GPU"
        held = [each for each in self._here if each.gpus]
        by_whom = f", held by {_who(held, gpu=True)}" if held else ""
        free = " + ".join(f"{share / _WHOLE:g}" for share in self._gpus)
        memory = "".join(
            f", GPU {index}: {_size(gpu.total - gpu.used)} of {_size(gpu.total)} free"
            for index, gpu in enumerate(node.gpu_memory)
        )
        return f"{free} of {node.gpus:g} GPU free{by_whom}{memory}"


def _who(held: Iterable[Held], *, gpu: bool) -> str:
    """``flights--v1 2 x 0.5``, by name."""
    counts: dict[tuple[str, float], int] = {}
    for each in held:
        asked = (each.holder, each.gpus if gpu else each.cpus)
        counts[asked] = counts.get(asked, 0) + 1
    return ", ".join(f"{holder} {count} x {amount:g}" for (holder, amount), count in sorted(counts.items()))


def _parts(amount: float) -> int:
    return round(amount * _WHOLE)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
