"""A real Ray cluster with Serve on this machine, for tests: own ports, own folder, gone afterwards.

Belongs here: starting, declaring to, waiting for and stopping the cluster. Does not belong here: what
is deployed on it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mlops_assets import environment
from mlops_assets.local_stack.processes import (
    MARKER,
    ProcessSpec,
    StackSettings,
    declared_processes,
    own_settings,
)

START_DEADLINE_S = 90.0
TERMINATION_GRACE_S = 3.0
"""Asked to stop, Ray drains for half a minute; tests have nothing left to drain."""
STOP_DEADLINE_S = 20.0


@dataclass(frozen=True)
class RayCluster:
    """A running cluster. ``declare`` and ``wait`` speak Ray's REST deploy API."""

    dashboard_url: str
    http_url: str
    settings: StackSettings
    spec: ProcessSpec
    pid: int
    stop: Callable[[], None]

    @property
    def folder(self) -> Path:
        """The state folder; the processes carry it as their mark."""
        return self.settings.state

    @property
    def environment(self) -> dict[str, str]:
        """What makes a ``ServeClient`` of this process the client of this cluster."""
        return {
            environment.RAY_DASHBOARD_URL.name: self.dashboard_url,
            environment.RAY_TOKEN_FILE.name: str(self.settings.layout.ray_token),
        }

    def _serve(self, method: str, **more: Any) -> httpx.Response:
        token = self.settings.layout.ray_token.read_text()
        return httpx.request(
            method,
            f"{self.dashboard_url}/api/serve/applications/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
            **more,
        )

    def declare(self, *applications: dict[str, Any]) -> None:
        """Declares exactly these applications; all others are deleted."""
        url = httpx.URL(self.http_url)
        document = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": url.host, "port": url.port, "request_timeout_s": 30.0},
            "applications": list(applications),
        }
        answer = self._serve("PUT", json=document)
        assert answer.is_success, answer.text

    def applications(self) -> dict[str, Any]:
        answer = self._serve("GET")
        applications: dict[str, Any] = answer.json()["applications"]
        return applications

    def wait(self, name: str, status: str = "RUNNING", *, deadline_s: float = 90.0) -> dict[str, Any]:
        """The application once it has this status; fails with Ray's own messages at another final one."""
        time.sleep(0.5)  # Right after a PUT it may still show its old status.
        end = time.monotonic() + deadline_s
        while True:
            application: dict[str, Any] = self.applications().get(name, {"status": "ABSENT"})
            if application["status"] == status:
                return application
            final = application["status"] in ("RUNNING", "DEPLOY_FAILED", "UNHEALTHY")
            assert not final and time.monotonic() < end, f"{name}: {application}"
            time.sleep(0.2)

    def pids(self, name: str) -> dict[str, set[int]]:
        """Process ids of an application's replicas, by deployment."""
        return {
            deployment: {replica["pid"] for replica in details["replicas"]}
            for deployment, details in self.applications()[name]["deployments"].items()
        }

    def actors(self, name: str) -> list[int]:
        """Process ids of the running actors of that class."""
        return [
            pid
            for pid in left_processes(str(self.folder))
            if (Path("/proc") / str(pid) / "cmdline").read_bytes().startswith(f"ray::{name}".encode())
        ]


@contextlib.contextmanager
def local_ray(*, num_cpus: int = 4, num_gpus: int = 0) -> Iterator[RayCluster]:
    """The Ray that ``make up`` starts, alone; no process of it is left when the block ends.

    GPUs are logical: Ray schedules by them as it would by real ones, and no device is behind them.
    """
    folder = Path(tempfile.mkdtemp(prefix="mlops-ray-"))
    settings = own_settings(folder, os.environ, ray_cpus=num_cpus)
    spec = next(spec for spec in declared_processes(settings) if spec.name == "ray")
    settings.layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
    log = (folder / "start.log").open("wb")
    process = subprocess.Popen(
        [*spec.command, f"--num-gpus={num_gpus}"],
        cwd=spec.folder,
        # Serve drains a replaced ingress replica this long; tests do not need the default 30 s.
        env={**spec.environment, "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def stop() -> None:
        _stop(process, str(folder))
        log.close()

    cluster = RayCluster(settings.ray_dashboard_url, settings.serve_url, settings, spec, process.pid, stop)
    try:
        _wait_until_up(cluster, process)
        yield cluster
    finally:
        stop()
        shutil.rmtree(settings.layout.sockets, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def left_processes(marker: str) -> list[int]:
    """Process ids that carry a cluster's marker in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARKER}={marker}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def _wait_until_up(cluster: RayCluster, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_DEADLINE_S
    while True:
        with contextlib.suppress(httpx.TransportError, KeyError, ValueError):
            cluster.applications()
            return
        said = (cluster.folder / "start.log").read_text(errors="replace")
        assert process.poll() is None, f"ray ended with {process.returncode}: {said}"
        assert time.monotonic() < end, f"ray is not up after {START_DEADLINE_S:g} s: {said}"
        time.sleep(0.2)


def _stop(process: "subprocess.Popen[bytes]", marker: str) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATION_GRACE_S)
    # By the marker, not by Ray's own list: Ray leaves its haproxy behind, which holds the port.
    end = time.monotonic() + STOP_DEADLINE_S
    while left := left_processes(marker):
        assert time.monotonic() < end, f"processes of the cluster do not end: {left}"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait(STOP_DEADLINE_S)
