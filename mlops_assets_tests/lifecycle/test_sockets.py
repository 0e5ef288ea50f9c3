"""Every socket of a running platform against the table in docs/operations.md: nobody gets in.

Ray with a deployed model is the one of the lifecycle's tests; Dagster and MLflow are started beside it. All
are started as ``make up`` starts them.
"""

import os
import pickle
import re
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

from mlops_assets import environment
from mlops_assets.local_stack import process_table
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.processes import MARKER, ProcessSpec, declared_processes
from mlops_assets.local_stack.supervisor import Supervisor
from mlops_assets.testing.life_cycle import Platform
from mlops_assets.testing.listening import Listener, listeners
from mlops_assets.testing.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

GIVEN_BY_THE_KERNEL = range(32_768, 65_536)
METRICS_DEADLINE_S = 30.0
"""Ray's workers report theirs every few seconds."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``process`` is the name, or ``ray::`` the beginning of names."""

    port: str
    process: str
    address: str

    def may_be(self, listener: Listener, numbers: Mapping[str, range]) -> bool:
        name = listener.process
        fits = name.startswith(self.process) if self.process.startswith("ray") else name == self.process
        return fits and listener.port in numbers[self.port] and str(listener.host) == self.address


@dataclass(frozen=True)
class Stack:
    """A running platform: what its processes were told, and where it keeps its files."""

    specs: list[ProcessSpec]
    layout: Layout
    pids: list[int]

    def listeners(self) -> list[Listener]:
        mine = process_table.marked(MARKER, str(self.layout.state))
        for pid in self.pids:
            mine += process_table.descendants(pid)
        return listeners({process.pid for process in mine})

    def number(self, name: str) -> int:
        """What the processes were told of an environment variable or a ``--option``."""
        said = {value for spec in self.specs if (value := spec.environment.get(name))}
        for spec in self.specs:
            said |= {word.partition("=")[2] for word in spec.command if word.partition("=")[0] == name}
        (number,) = said
        return int(number)


@pytest.fixture(scope="module")
def stack(platform: Platform, ray_cluster: RayCluster) -> Iterator[Stack]:
    """Everything that ``make up`` starts. ``platform``: two gateway replicas, and a version in its own."""
    others = [spec for spec in declared_processes(ray_cluster.settings) if spec.name != "ray"]
    supervisor = Supervisor(others, ray_cluster.settings.layout)
    try:
        for stage in ("first", "after Ray", "after the graph"):
            supervisor.start(stage)  # type: ignore[arg-type]
        while supervisor.waiting_for:
            supervisor.poll()
            time.sleep(0.2)
        pids = [ray_cluster.pid, *(running.process.pid for running in supervisor.running)]
        yield Stack([ray_cluster.spec, *others], ray_cluster.settings.layout, pids)
    finally:
        # Not ``supervisor.stop``, which ends all that carries the mark: other tests go on with this Ray.
        for running in supervisor.running:
            family = process_table.descendants(running.process.pid)
            running.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(running.spec.stop_deadline_s)
            running.process.kill()
            running.process.wait(30)
            process_table.end_all(family)


@pytest.fixture(scope="module")
def found(stack: Stack) -> list[Listener]:
    return stack.listeners()


@pytest.fixture(scope="module")
def table() -> list[Row]:
    text = (environment.PROJECT_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|", text, flags=re.MULTILINE)
    assert len(rows) > 15
    return [Row(*row) for row in rows]


def matched(found: list[Listener], table: list[Row], numbers: Mapping[str, range]) -> dict[Listener, Row]:
    """A row for each socket that has one, and within one process no row twice."""
    made: dict[Listener, Row] = {}
    taken: dict[int, list[Row]] = {}
    # What is said of one process comes before what is said of all of Ray's.
    rows = sorted(table, key=lambda row: len(row.process), reverse=True)
    for listener in found:
        used = taken.setdefault(listener.pid, [])
        for row in rows:
            if row.may_be(listener, numbers) and used.count(row) < table.count(row):
                used.append(row)
                made[listener] = row
                break
    return made


def test_the_table_names_every_socket_and_no_other(
    stack: Stack, found: list[Listener], table: list[Row]
) -> None:
    numbers = {
        row.port: GIVEN_BY_THE_KERNEL
        if row.port == "any"
        else range(*map(int, row.port.split("-")))
        if row.port[0].isdecimal()
        else range(stack.number(row.port), stack.number(row.port) + 1)
        for row in table
    }
    tcp = [listener for listener in found if listener.kind == "tcp"]
    rows = matched(tcp, table, numbers)
    assert [listener for listener in tcp if listener not in rows] == []
    assert [row for row in table if row not in rows.values()] == []


def test_nothing_is_reached_from_another_machine(found: list[Listener]) -> None:
    assert [each for each in found if each.kind != "unix" and not each.host.is_loopback] == []
    assert [listener for listener in found if listener.kind == "udp"] == []


def test_unix_sockets_lie_where_only_the_owner_may_go(stack: Stack, found: list[Listener]) -> None:
    folder = stack.layout.sockets
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()
    paths = [Path(listener.address) for listener in found if listener.kind == "unix"]
    assert {"raylet", "plasma_store", "metrics.sock"} <= {path.name for path in paths}
    assert [path for path in paths if not path.is_relative_to(folder)] == []


class Bomb:
    """What somebody who wants to run code on a replica would send."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._file,)


@pytest.mark.parametrize("token", [None, "Bearer guessed"])
def test_a_replica_unpickles_nothing_of_somebody_without_the_token(
    found: list[Listener], tmp_path: Path, token: str | None
) -> None:
    bomb = ASGIRequest(pickled_request_metadata=pickle.dumps(Bomb(tmp_path / "it ran")))
    metadata = (("authorization", token),) if token else ()
    answers = []
    for listener in found:
        if listener.process.startswith("ray::ServeReplica") and listener.port in GIVEN_BY_THE_KERNEL:
            with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
                with pytest.raises(grpc.RpcError) as refused:
                    ASGIServiceStub(channel).HandleRequest(bomb, timeout=10, metadata=metadata)
                answers.append(refused.value.code())
    # Each replica has this port and one that does not know the call.
    assert answers.count(grpc.StatusCode.UNAUTHENTICATED) == 4
    assert not (tmp_path / "it ran").exists()


def test_the_dashboard_deploys_nothing_for_somebody_without_the_token(ray_cluster: RayCluster) -> None:
    url = f"{ray_cluster.dashboard_url}/api/serve/applications/"
    for headers, status in (({}, 401), ({"Authorization": "Bearer guessed"}, 403)):
        answer = httpx.put(url, json={"applications": []}, headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == status
    assert "flights" in ray_cluster.applications()


def test_haproxy_still_tells_its_health_statistics_and_metrics(stack: Stack, platform: Platform) -> None:
    stats = stack.number("RAY_SERVE_HAPROXY_STATS_PORT")
    metrics = stack.number("RAY_SERVE_HAPROXY_METRICS_PORT")
    site = platform.url.removesuffix("/flights/predict")

    assert httpx.get(f"{site}/-/healthz", trust_env=False).text == "success"
    assert "http-flights" in httpx.get(f"http://127.0.0.1:{stats}/stats;csv", trust_env=False).text
    told = httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False).text
    assert 'haproxy_backend_active_servers{proxy="http-flights"}' in told


def test_serve_still_tells_haproxys_metrics(stack: Stack, platform: Platform) -> None:
    agent = stack.number("--metrics-export-port")
    httpx.get(platform.url.replace("predict", "ready"), trust_env=False)
    end = time.monotonic() + METRICS_DEADLINE_S
    # Read from HAProxy's admin socket, and from what HAProxy writes to the socket of metrics.
    wanted = ("ray_serve_haproxy_", "ray_serve_num_http_requests")
    while True:
        told = httpx.get(f"http://127.0.0.1:{agent}/metrics", trust_env=False, timeout=30).text
        missing = [name for name in wanted if name not in told]
        if not missing:
            break
        assert time.monotonic() < end, missing
        time.sleep(0.5)


def test_a_socket_that_the_table_does_not_name_is_seen(table: list[Row]) -> None:
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_INET6) as tcp6,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("0.0.0.0", 0))
        tcp6.bind(("::1", 0))
        udp.bind(("127.0.0.1", 0))
        for listener in (tcp, tcp6):
            listener.listen()
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"{folder}/s")
            unix.listen()
            seen = listeners([os.getpid()])
    assert {(each.kind, each.address, each.host.is_loopback) for each in seen if each.kind != "unix"} >= {
        ("tcp", "0.0.0.0", False),
        ("tcp", "::1", True),
        ("udp", "127.0.0.1", True),
    }
    assert ("unix", f"{folder}/s") in {(each.kind, each.address) for each in seen}
    assert matched(seen, table, {row.port: range(0) for row in table}) == {}
