"""Our gateway, and a no-op, each on a Ray Serve cluster of its own in HAProxy and throughput mode.

Belongs here: the declared applications and when they are ready. Does not belong here: starting Ray
(``mlops_assets/testing/ray_cluster.py``), the load (``bench/serving.py``).
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.peers.model import BenchModel
from bench.peers.others import Target
from bench.peers.processes import ServerNotUp, score_in
from mlops_assets.testing.ray_cluster import RayCluster, left_processes, local_ray

NAME = "bench"
READY_IN_A_ROW = 20
"""Ready answers in a row, so that with two replicas both were asked."""
READY_DEADLINE_S = 60.0


@contextlib.contextmanager
def no_op() -> Iterator[Target]:
    """A raw ASGI deployment of one replica that answers a constant."""
    with local_ray() as cluster:
        cluster.declare(
            {"name": NAME, "route_prefix": f"/{NAME}", "import_path": "bench.peers.no_op:build", "args": {}}
        )
        _wait_until_running(cluster, NAME)
        (pid,) = cluster.pids(NAME)["NoOp"]
        yield Target(
            f"{cluster.http_url}/{NAME}/predict", b"{}", pid, partial(left_processes, str(cluster.folder))
        )


@contextlib.contextmanager
def gateway(model: BenchModel, folder: Path, *, replicas: int, canary: bool = False) -> Iterator[Target]:
    """Our gateway. ``canary``: a version that is not stable answers every request, an actor hop away.

    Raises ServerNotUp when it does not give the offline score.
    """
    package = str(model.package(folder / "package"))
    weights = {"v1": 0, "v2": 10_000} if canary else {"v1": 10_000}
    with local_ray() as cluster:
        cluster.declare(
            *(version_application(version, package) for version in weights),
            gateway_application(weights, replicas),
        )
        for name in (*(f"{NAME}--{version}" for version in weights), NAME):
            _wait_until_running(cluster, name)
        url = f"{cluster.http_url}/{NAME}"
        body = json.dumps({"features": model.row}).encode()
        _wait_until_ready(url, body, "v2" if canary else "v1", model.score)
        yield Target(
            f"{url}/predict", body, _a_replica(cluster), partial(left_processes, str(cluster.folder))
        )


@contextlib.contextmanager
def served(
    package: str, bodies: Mapping[str, bytes], score: float, arguments: Mapping[str, Any]
) -> Iterator[Mapping[str, Target]]:
    """Our gateway of one replica with more ``arguments``; a target per kind of body, one body a line.

    Raises ServerNotUp when the first line of a kind does not give ``score``.
    """
    weights = {"v1": 10_000}
    application = gateway_application(weights, 1)
    application["args"] |= arguments
    with local_ray() as cluster:
        cluster.declare(version_application("v1", package), application)
        for name in (f"{NAME}--v1", NAME):
            _wait_until_running(cluster, name)
        url = f"{cluster.http_url}/{NAME}"
        pids = partial(left_processes, str(cluster.folder))
        for body in bodies.values():
            _wait_until_ready(url, body.splitlines()[0], "v1", score)
        yield {
            kind: Target(f"{url}/predict", body, _a_replica(cluster), pids) for kind, body in bodies.items()
        }


def version_application(version: str, package: str) -> dict[str, Any]:
    """The declared application of one model version."""
    return {
        "name": f"{NAME}--{version}",
        "route_prefix": None,
        "import_path": "serve.builder:build_model",
        "args": {"version": version, "package_uri": package},
    }


def gateway_application(weights: dict[str, int], replicas: int) -> dict[str, Any]:
    """The declared gateway; ``weights`` in basis points by version, v1 is stable."""
    routes = {
        version: {"application": f"{NAME}--{version}", "weight": weight}
        for version, weight in weights.items()
    }
    routing = {"revision": 1, "stable": "v1", "salt": NAME, "timeout_s": 10.0, "routes": routes}
    return {
        "name": NAME,
        "route_prefix": f"/{NAME}",
        "import_path": "serve.builder:build_gateway",
        "args": {"name": NAME, "num_replicas": replicas},
        "deployments": [{"name": "Gateway", "user_config": routing}],
    }


def _wait_until_running(cluster: RayCluster, name: str) -> None:
    try:
        cluster.wait(name)
    except AssertionError as error:
        # Ray's message is a traceback within a traceback; its last line says what happened.
        application = cluster.applications().get(name, {})
        said = str(application.get("message", "")).strip().splitlines()
        raise ServerNotUp(f"{name}: {application.get('status')}: {said[-1] if said else error}") from error


def _a_replica(cluster: RayCluster) -> int:
    return min(cluster.pids(NAME)["Gateway"])


def _wait_until_ready(url: str, body: bytes, version: str, score: float) -> None:
    end = time.monotonic() + READY_DEADLINE_S
    ready = 0
    while ready < READY_IN_A_ROW:
        # A connection each: HAProxy then asks the replicas in turn.
        answer = httpx.post(f"{url}/predict", content=body, timeout=30, trust_env=False)
        state = httpx.get(f"{url}/ready", timeout=30, trust_env=False)
        if answer.status_code == 200 and state.status_code == 200:
            found = score_in(answer.json(), "probability")
            if found != score:
                raise ServerNotUp(f"gives {found}, offline it is {score}")
            routes = state.json()["routes"]
            answers = all(route["answers"] for route in routes.values())
            # Loading the stable model into the gateway comes after its first answer.
            right = answers and routes["v1"]["in_gateway"] and answer.json()["model_version"] == version
            ready = ready + 1 if right else 0
        if time.monotonic() > end:
            raise ServerNotUp(f"not ready: {answer.text[:300]} {state.text[:500]}")
        time.sleep(0.02 if ready else 0.2)
