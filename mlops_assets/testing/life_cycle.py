"""The life of a model version under constant load, then faults: how many answers are lost, how long it takes.

Belongs here: what is declared when, what is killed, and what is measured. Does not belong here: the load
(``constant_load.py``), the faults (``faulty_model.py``), starting Ray (``ray_cluster.py``).

Two versions and the gateway have two replicas each. First deploy, shadow, 10 %, 50 %, 100 %, retire and
roll back, then kill -9 of a model replica, a gateway replica and the Serve controller; the goal is no
failed request of at least 30,000. Then one faulty version after another gets a fifth of the traffic; the
goal is a trip within five seconds and no lost answer.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from mlops_assets.testing.constant_load import ConstantLoad, PhaseLoad, shortest
from mlops_assets.testing.faulty_model import FAULTS
from mlops_assets.testing.ray_cluster import RayCluster, left_processes, local_ray
from mlops_assets.testing.small_models import ROW, package
from serve.schema import Evidence, Route, Routing
from serve.scoring import write_package

FAULTY = "mlops_assets.testing.faulty_model:build"
NAME = "flights"
REPLICAS = 2
FRESH_S = 2.0
"""A replica that the aggregator has not heard of for longer is not counted: it may be dead."""
DEADLINE_S = 60.0
TRIP_DEADLINE_S = 15.0
GOAL_REQUESTS, GOAL_TRIP_S = 30_000, 5.0


@dataclass(frozen=True)
class Phase:
    """``converged_s``: from the declaration until every gateway replica reported its revision, and for a
    kill until the victim was replaced.
    """

    name: str
    converged_s: float


@dataclass(frozen=True)
class Fault:
    """``trip_s``: from the declaration of its traffic until it had none; None: it never tripped."""

    name: str
    trip_s: float | None
    reason: str


Loads = Mapping[str, PhaseLoad]
"""What the requests got, by name of the phase or fault."""


class Platform:
    """What is declared on the cluster: applications of versions, and the gateway with its routing."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._http = httpx.Client(base_url=f"{cluster.http_url}/{NAME}", timeout=10, trust_env=False)
        self._versions: dict[str, dict[str, Any]] = {}
        self._routing = Routing(revision=0, stable="v1", routes={"v1": self._route("v1", 10_000, 0)})

    @property
    def url(self) -> str:
        return f"{self._cluster.http_url}/{NAME}/predict"

    def add(self, version: str, *, seed: int, fault: str | None = None) -> None:
        """Declares a version's application beside the others; nobody sends it anything yet."""
        folder = self._folder / f"{version}-{seed}"
        if not folder.exists():
            write_package(str(folder), *package("binary", seed=seed))
        args = {"version": version, "package_uri": str(folder), "num_replicas": REPLICAS}
        self._versions[version] = {
            "name": f"{NAME}--{version}",
            "route_prefix": None,
            "import_path": "mlops_assets.testing.faulty_model:build"
            if fault
            else "serve.builder:build_model",
            "args": {**args, "fault": fault} if fault else args,
        }
        self._declare()

    def remove(self, version: str) -> None:
        """Takes a version's application away; its routes must be gone."""
        del self._versions[version]
        self._declare()

    def route(
        self, stable: str, weights: Mapping[str, int], shadows: Mapping[str, int] | None = None
    ) -> float:
        """Declares weights in basis points and waits for all gateway replicas; seconds that it took."""
        started = self.declare_route(stable, weights, shadows)
        self.wait_for_revision()
        return time.monotonic() - started

    def declare_route(
        self, stable: str, weights: Mapping[str, int], shadows: Mapping[str, int] | None = None
    ) -> float:
        """Declares weights; time.monotonic of the declaration."""
        routes = {
            version: self._route(version, weight, (shadows or {}).get(version, 0))
            for version, weight in weights.items()
        }
        self._routing = Routing(
            revision=self._routing.revision + 1, stable=stable, salt=NAME, timeout_s=5.0, routes=routes
        )
        started = time.monotonic()
        self._declare()
        return started

    def wait_for_revision(self) -> None:
        """Returns once every gateway replica reports the declared revision."""
        revision = self._routing.revision

        def reported() -> bool:
            known = [each for each in self.evidence().replicas.values() if each.age_s < FRESH_S]
            return len(known) >= REPLICAS and all(each.revision == revision for each in known)

        self._until(reported, f"not all replicas report revision {revision}")

    def wait_for_version(self, version: str) -> None:
        """Returns once a version's application runs."""
        self._cluster.wait(f"{NAME}--{version}")

    def wait_for_answers(self, version: str) -> None:
        """Returns once many answers in a row say that the routed version answers."""
        count = 0

        def answers() -> bool:
            nonlocal count
            # A connection each, so that both replicas are asked.
            state = httpx.get(f"{self._cluster.http_url}/{NAME}/ready", timeout=10, trust_env=False).json()
            count = count + 1 if state.get("routes", {}).get(version, {}).get("answers") else 0
            return count >= 5 * REPLICAS

        self._until(answers, f"version {version} does not answer")

    def evidence(self) -> Evidence:
        """What the gateway's replicas measured; an empty one while it cannot be asked."""
        try:
            answer = self._http.get("/evidence")
        except httpx.TransportError:
            return _no_evidence()
        return Evidence.model_validate_json(answer.content) if answer.status_code == 200 else _no_evidence()

    def kill(self, application: str, deployment: str) -> float:
        """Kills one replica with SIGKILL and waits until there are as many again; seconds that it took."""
        before = self._cluster.pids(application)[deployment]
        started = time.monotonic()
        os.kill(max(before), signal.SIGKILL)

        def replaced() -> bool:
            found = self._cluster.applications()[application]["deployments"][deployment]["replicas"]
            running = {each["pid"] for each in found if each["state"] == "RUNNING"}
            return len(running) >= len(before) and max(before) not in running

        self._until(replaced, f"{application} has not got its replica back")
        return time.monotonic() - started

    def kill_controller(self) -> float:
        """Kills the Serve controller and waits until it declares again; seconds that it took."""
        (pid,) = [
            pid
            for pid in left_processes(str(self._cluster.folder))
            if b"ServeController" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        started = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._routing = self._routing.model_copy(update={"revision": self._routing.revision + 1})

        def declared() -> bool:
            try:
                self._declare()
            except (httpx.TransportError, AssertionError):
                return False
            return True

        self._until(declared, "the Serve controller does not come back")
        self.wait_for_revision()
        return time.monotonic() - started

    def trip_of(self, version: str) -> str | None:
        """Why a version got no more traffic under the declared revision; None while it has not tripped."""
        found = self.evidence()
        trip = found.trips.get(version)
        return trip.reason if trip is not None and trip.revision == self._routing.revision else None

    def problem_of(self, version: str) -> str:
        """What the gateway or Ray says of a version that does not answer."""
        route = self._http.get("/ready").json()["routes"].get(version, {})
        application = self._cluster.applications().get(f"{NAME}--{version}", {})
        return f"{application.get('status')}; {route.get('problem')}"

    def close(self) -> None:
        self._http.close()

    @staticmethod
    def _route(version: str, weight: int, shadow: int) -> Route:
        return Route(application=f"{NAME}--{version}", weight=weight, shadow=shadow)

    def _declare(self) -> None:
        gateway = {
            "name": NAME,
            "route_prefix": f"/{NAME}",
            "import_path": "serve.builder:build_gateway",
            "args": {"name": NAME, "num_replicas": REPLICAS},
            "deployments": [{"name": "Gateway", "user_config": self._routing.model_dump(mode="json")}],
        }
        self._cluster.declare(*self._versions.values(), gateway)

    @staticmethod
    def _until(happened: Callable[[], bool], problem: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(f"{problem} after {DEADLINE_S:g} s")
            time.sleep(0.05)


def _no_evidence() -> Evidence:
    return Evidence(name=NAME, revision=-1, since=0.0, replicas={}, versions={}, shadows={}, trips={})


def start(platform: Platform) -> None:
    """Deploys v1 with all of the traffic."""
    platform.add("v1", seed=0)
    platform.wait_for_version("v1")
    platform.route("v1", {"v1": 10_000})
    platform.wait_for_answers("v1")


def life_cycle(
    platform: Platform, load: ConstantLoad, *, seconds: float, say: Callable[[str], None]
) -> list[Phase]:
    """Every phase lasts at least ``seconds`` after it has converged."""
    found: list[Phase] = []

    def phase(name: str, act: Callable[[], float]) -> None:
        say(name)
        load.phase = name
        converged = act()
        time.sleep(seconds)
        found.append(Phase(name, round(converged, 2)))
        say(f"  converged after {converged:.2f} s; {load.of(name).failures} requests failed so far")

    def deploy(version: str, seed: int, weights: dict[str, int]) -> float:
        started = time.monotonic()
        platform.add(version, seed=seed)
        platform.wait_for_version(version)
        platform.route(max(weights, key=weights.__getitem__), weights)
        platform.wait_for_answers(version)
        return time.monotonic() - started

    def retire(version: str, stable: str) -> float:
        converged = platform.route(stable, {stable: 10_000})
        platform.remove(version)
        return converged

    phase("deploy v2 at 0 %", lambda: deploy("v2", 1, {"v1": 10_000, "v2": 0}))
    phase("shadow 100 %", lambda: platform.route("v1", {"v1": 10_000, "v2": 0}, {"v2": 10_000}))
    phase("10 %", lambda: platform.route("v1", {"v1": 9_000, "v2": 1_000}))
    phase("50 %", lambda: platform.route("v1", {"v1": 5_000, "v2": 5_000}))
    phase("kill a canary replica", lambda: platform.kill(f"{NAME}--v2", "Model"))
    phase("100 %", lambda: platform.route("v2", {"v1": 0, "v2": 10_000}))
    phase("retire v1", lambda: retire("v1", "v2"))
    phase("deploy v1 again", lambda: deploy("v1", 0, {"v2": 10_000, "v1": 0}))
    phase("roll back", lambda: platform.route("v1", {"v1": 10_000, "v2": 0}))
    phase("kill a stable replica", lambda: platform.kill(f"{NAME}--v1", "Model"))
    phase("kill a gateway replica", lambda: platform.kill(NAME, "Gateway"))
    phase("kill the controller", platform.kill_controller)
    phase("retire v2", lambda: retire("v2", "v1"))
    return found


def faults(
    platform: Platform,
    load: ConstantLoad,
    names: Sequence[str],
    *,
    seconds: float,
    say: Callable[[str], None],
) -> list[Fault]:
    """One faulty version after another takes a fifth of the traffic, beside v1."""
    found = []
    for number, name in enumerate(names):
        say(name)
        version = f"bad{number}"
        load.phase = name
        platform.add(version, seed=1, fault=name)
        platform.declare_route("v1", {"v1": 10_000, version: 0})
        trip: float | None = None
        reason: str | None
        if name == "crash on load":
            started = platform.declare_route("v1", {"v1": 8_000, version: 2_000})
            time.sleep(TRIP_DEADLINE_S)
            reason = platform.trip_of(version) or platform.problem_of(version)
        else:
            platform.wait_for_version(version)
            platform.wait_for_answers(version)
            started = platform.declare_route("v1", {"v1": 8_000, version: 2_000})
            reason = _wait_for_trip(platform, version)
            trip = time.monotonic() - started if reason else None
        time.sleep(seconds)
        found.append(Fault(name, trip, reason or "did not trip"))
        lost = load.of(name).failures
        say(
            f"  {found[-1].reason}"
            + (f" after {trip:.2f} s" if trip else "")
            + f"; {lost} answers lost so far"
        )
        platform.route("v1", {"v1": 10_000})
        platform.remove(version)
    return found


def _wait_for_trip(platform: Platform, version: str) -> str | None:
    end = time.monotonic() + TRIP_DEADLINE_S
    while time.monotonic() < end:
        reason = platform.trip_of(version)
        if reason:
            return reason
        time.sleep(0.05)
    return None


def phases_table(phases: Sequence[Phase], loads: Loads) -> Table:
    """Requests, failures, the longest gap and the slowest answer by phase."""
    table = Table(title="Life cycle under constant load", title_justify="left")
    table.add_column("phase")
    for column in ("requests", "failed", "longest gap s", "p99 ms", "slowest ms", "converged s", "shares"):
        table.add_column(column, justify="right")
    for each in phases:
        load = loads[each.name]
        shares = ", ".join(f"{version} {share:.1%}" for version, share in load.shares.items())
        table.add_row(
            each.name,
            f"{load.requests:,}",
            f"{load.failures} {shortest(load.problems)}".strip(),
            f"{load.longest_gap_s:.2f}",
            f"{load.p99_s * 1e3:.0f}",
            f"{load.slowest_s * 1e3:.0f}",
            f"{each.converged_s:.2f}",
            shares,
        )
    return table


def faults_table(found: Sequence[Fault], loads: Loads) -> Table:
    """Time to trip and answers lost by fault."""
    table = Table(title="Faults with a fifth of the traffic", title_justify="left")
    table.add_column("fault")
    for column in ("requests", "lost", "slowest ms", "trip s"):
        table.add_column(column, justify="right")
    table.add_column("reason")
    for each in found:
        load = loads[each.name]
        table.add_row(
            each.name,
            f"{load.requests:,}",
            f"{load.failures} {shortest(load.problems)}".strip(),
            f"{load.slowest_s * 1e3:.0f}",
            "-" if each.trip_s is None else f"{each.trip_s:.2f}",
            each.reason[:100],
        )
    return table


def shortfalls(phases: Sequence[Phase], found: Sequence[Fault], loads: Loads) -> list[str]:
    """What missed its goal, in words; [] when nothing did."""
    missed = []
    total = sum(loads[each.name].requests for each in phases)
    failures = sum(loads[each.name].failures for each in phases)
    if failures:
        missed.append(f"{failures} of {total:,} requests failed in the life cycle")
    if phases and total < GOAL_REQUESTS:
        missed.append(f"only {total:,} requests were sent, the goal is {GOAL_REQUESTS:,}")
    for fault in found:
        if loads[fault.name].failures:
            missed.append(f"{fault.name}: {loads[fault.name].failures} answers lost")
        if fault.name != "crash on load" and (fault.trip_s is None or fault.trip_s > GOAL_TRIP_S):
            took = "never" if fault.trip_s is None else f"after {fault.trip_s:.1f} s"
            missed.append(f"{fault.name}: tripped {took}, the goal is {GOAL_TRIP_S:g} s")
    return missed


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs, prints, and exits with 1 when a goal is missed; about seven minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.lifecycle", description=__doc__)
    parser.add_argument("--rate", type=float, default=250.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="least length of a phase")
    parser.add_argument("--only", choices=("life", "faults"))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS, metavar="FAULT")
    parser.add_argument("--json", type=Path, help="result file")
    options = parser.parse_args(arguments)
    console = Console(width=160)

    def say(text: str) -> None:
        console.print(text, markup=False)

    # Without this, being asked to stop would leave the cluster running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    phases: list[Phase] = []
    found: list[Fault] = []
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder, local_ray() as cluster:
        platform = Platform(cluster, Path(folder))
        start(platform)
        body = json.dumps({"features": ROW}).encode()
        with ConstantLoad(platform.url, body, rate=options.rate) as load:
            if options.only != "faults":
                phases = life_cycle(platform, load, seconds=options.seconds, say=say)
            if options.only != "life":
                found = faults(platform, load, options.faults, seconds=options.seconds / 2, say=say)
        platform.close()
    # Only now: every request has its answer or its failure.
    names = [each.name for each in phases] + [each.name for each in found]
    loads = {name: load.of(name) for name in names}
    total = sum(loads[each.name].requests for each in phases)
    if phases:
        console.print(phases_table(phases, loads))
    if found:
        console.print(faults_table(found, loads))
    missed = shortfalls(phases, found, loads)
    if options.json is not None:
        made = {
            "phases": [asdict(each) | asdict(loads[each.name]) for each in phases],
            "faults": [asdict(each) | asdict(loads[each.name]) for each in found],
        }
        options.json.write_text(json.dumps({**made, "total": total, "missed": missed}, indent=1))
    say(f"{total:,} requests in the life cycle. " + ("; ".join(missed) or "Every goal is met."))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
