"""``mlops up``: from nothing to answering models, then watch until told to stop.

Belongs here: the order of a start and what ends it. Does not belong here: single processes
(``supervisor.py``), what must be materialised (``materialisation.py``), how it looks (``display.py``).

A part of the platform that dies ends it; a use case that fails is told, and the others are up.
"""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from rich.console import Console

from mlops_assets.asset_names import asset_name
from mlops_assets.errors import StackError
from mlops_assets.local_stack import endpoint, lacking, process_table, record
from mlops_assets.local_stack.display import Display
from mlops_assets.local_stack.lacking import AGAIN, INCOMPLETE, Lack, Orphan
from mlops_assets.local_stack.processes import (
    MARKER,
    StackSettings,
    Stage,
    declared_processes,
    process_environment,
    shared_environment,
)
from mlops_assets.local_stack.supervisor import Supervisor

POLL_S = 0.2
ANSWER_DEADLINE_S = 60.0
RELOAD_DEADLINE_S = 60.0
GRAPH = "graph"


class StopRequested(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or a closed terminal."""


def up(settings: StackSettings, console: Console) -> int:
    """Starts everything, prints how to use it, and returns when told to stop; nothing runs afterwards.

    A use case that fails is told, and the rest is up. A platform that is up already is completed instead.
    Gives the exit code: 0, or INCOMPLETE when something was not up. Raises StackError when the platform
    cannot start or when a part of it dies; StopRequested when told to stop before it was up.
    """
    running = _running(settings)
    if running is not None:
        return complete(settings, running, console)
    layout = settings.layout
    with record.held(layout), stop_on_signals():
        supervisor = Supervisor(declared_processes(settings), layout)
        try:
            layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
            layout.write_environment(shared_environment(settings))
            for command in process_table.end_marked(MARKER, str(layout.state)):
                console.print(f"stopped what an earlier run left behind: {command}", markup=False)
            supervisor.require_ports()
            record.write(layout, "starting")
            built = bring_up(settings, supervisor, console)
            shown = _shown(settings, built)
            _print_summary(settings, built, shown, console)
            record.write(layout, "ready", list(shown), built.lacks)
            state = "Up, but for what is said above." if built.lacks else "Up."
            console.print(f"\n{state} Ctrl-C stops everything." if console.is_terminal else f"\n{state}")
            with stopping_is_wanted():
                _watch(supervisor)
            # Somebody may have completed it meanwhile.
            last = record.owner(layout)
            return INCOMPLETE if last is not None and last.lacks else 0
        finally:
            # A second Ctrl-C must not leave half of it running.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            supervisor.stop(report=lambda line: console.print(line, markup=False, highlight=False))
            console.print("Stopped; no process left.")


def up_detached(settings: StackSettings, console: Console) -> int:
    """Starts a supervisor in the background; returns the exit code when what can answer does, else raises
    StackError.
    """
    running = _running(settings)
    if running is not None:
        return complete(settings, running, console)
    layout = settings.layout
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.logs / "up.log"
    with log.open("wb") as sink, stop_on_signals():
        background = subprocess.Popen(
            [sys.executable, "-m", "mlops_assets.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=settings.state,
            env={**settings.inherited, "PYTHONPATH": str(settings.root), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        with log.open(encoding="utf-8", errors="replace") as lines:
            try:
                while True:
                    owner = record.owner(layout)
                    ready = owner is not None and owner.pid == background.pid and owner.phase == "ready"
                    code = background.poll()
                    console.print(lines.read(), end="", markup=False, highlight=False, soft_wrap=True)
                    if ready:
                        break
                    if code is not None:
                        raise StackError(f"the platform did not start (exit code {code}); log: {log}")
                    time.sleep(POLL_S)
            except StopRequested:
                background.terminate()
                background.wait()
                raise
    line = f"\nRunning in the background (pid {background.pid}, log {log}). Stop it with: make down"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    return INCOMPLETE if owner is not None and owner.lacks else 0


def complete(settings: StackSettings, running: record.Owner, console: Console) -> int:
    """Builds what a running platform lacks, as failed before or declared since; the exit code."""
    console.print(f"Up already (pid {running.pid}); looking for what is missing. `make down` stops it.")
    with stop_on_signals(), Display(console) as display:
        graph = _GraphBuilder(settings, display, again=True)
        graph.start()
        _reload_definitions(settings, display)
        while graph.deployed is None:
            graph.poll()
            time.sleep(POLL_S)
        built = graph.built()
        _wait_for_answers(settings, built, display, lambda: None)
    shown = _shown(settings, built)
    _print_summary(settings, built, shown, console)
    record.update(settings.layout, running, list(shown), built.lacks)
    return INCOMPLETE if built.lacks else 0


def _watch(supervisor: Supervisor) -> None:
    """Until told to stop, or a part of the platform dies."""
    while True:
        supervisor.check()
        time.sleep(1.0)


@dataclass
class Built:
    """What a start came to: the deployments that were made, what is not up, and what nothing declares."""

    deployed: list[str]
    lacks: list[Lack]
    orphans: list[Orphan]

    def require_all(self) -> list[str]:
        """The deployments; StackError when something is not up."""
        if self.lacks:
            raise StackError("\n".join(lacking.lines(self.lacks, ())))
        return self.deployed


def bring_up(settings: StackSettings, supervisor: Supervisor, console: Console) -> Built:
    """Starts the processes and builds the graph meanwhile; returns when what can answer does."""
    with Display(console) as display:
        _launch(supervisor, "first", display)
        graph = _GraphBuilder(settings, display)
        graph.start()
        while not graph.definitions_loaded or supervisor.waiting_for:
            _show_ready(supervisor, display)
            graph.poll()
            time.sleep(POLL_S)
        _launch(supervisor, "after Ray", display)
        if graph.complete:
            _launch(supervisor, "after the graph", display)
        while graph.deployed is None:
            _show_ready(supervisor, display)
            graph.poll()
            time.sleep(POLL_S)
        if not graph.complete:
            _launch(supervisor, "after the graph", display)
        while supervisor.waiting_for:
            _show_ready(supervisor, display)
            time.sleep(POLL_S)
        built = graph.built()
        _wait_for_answers(settings, built, display, supervisor.check)
    return built


def _wait_for_answers(
    settings: StackSettings, built: Built, display: Display, check: Callable[[], None]
) -> None:
    """Waits for all deployments together; one that does not answer in time is lacking."""
    waiting = list(built.deployed)
    for name in waiting:
        display.begin(f"wait for {name}")
    deadline = time.monotonic() + ANSWER_DEADLINE_S
    while waiting:
        check()
        for name in [name for name in waiting if endpoint.is_ready(settings.serve_url, name)]:
            display.finish(f"wait for {name}")
            waiting.remove(name)
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    for name in waiting:
        url = f"{settings.serve_url}/{name}/ready"
        built.lacks.append(Lack(name, f"{url} does not answer 200 after {ANSWER_DEADLINE_S:.0f} s", AGAIN))


def _shown(settings: StackSettings, built: Built) -> dict[str, endpoint.Sample]:
    """A request that works for every deployment that answers one; one that does not is lacking."""
    samples = {}
    silent = {lack.use_case for lack in built.lacks}
    for name in built.deployed:
        try:
            samples[name] = endpoint.sample(settings.serve_url, name)
        except StackError as error:
            if name not in silent:
                built.lacks.append(Lack(name, str(error), AGAIN))
    return samples


def _reload_definitions(settings: StackSettings, display: Display) -> None:
    """Lets the code server read the documents anew, and says so when it does not.

    Before anything is deployed: its sensors would take a new deployment for an orphan.
    """
    query = json.dumps({"query": "mutation { reloadWorkspace { __typename } }"}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        request = Request(f"{settings.dagster_url}/graphql", data=query, headers=headers)  # noqa: S310
        with build_opener(ProxyHandler({})).open(request, timeout=RELOAD_DEADLINE_S) as response:
            answer = response.read().decode(errors="replace")
        problem = "" if '"Workspace"' in answer else answer[:500]
    except (URLError, OSError) as error:
        problem = str(error)
    if problem:
        display.note(
            f"Dagster has not read the documents anew, so its sensors do not know what is new: {problem}. "
            f"Press Reload at {settings.dagster_url}/deployment/locations"
        )


def _launch(supervisor: Supervisor, stage: Stage, display: Display) -> None:
    for spec in supervisor.start(stage):
        display.begin(f"start {spec.name}")


def _show_ready(supervisor: Supervisor, display: Display) -> None:
    for running in supervisor.poll():
        display.finish(f"start {running.spec.name}", f"{running.ready_after:.1f} s")


class _GraphBuilder:
    """The child process that restores and materialises, and what it told.

    When it dies while it builds a use case, as by a crash in a library or for lack of memory, another goes on
    without that one.
    """

    def __init__(self, settings: StackSettings, display: Display, *, again: bool = False) -> None:
        self.definitions_loaded = False
        self.complete = False
        self.deployed: list[str] | None = None
        self._settings, self._display, self._again = settings, display, again
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log = settings.layout.logs / "graph.log"
        self._lacks: list[Lack] = []
        self._orphans: dict[str, Orphan] = {}
        self._building, self._skipped = "", set[str]()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._launch("wb")
        self._display.begin(GRAPH, detail="loading the definitions")

    def built(self) -> Built:
        """What the start came to, once the graph is ``deployed``."""
        return Built(list(self.deployed or ()), self._lacks, list(self._orphans.values()))

    def poll(self) -> None:
        """Shows what the child wrote since the last call; StackError when it failed or wrote no result."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            if line is not None:
                self._show(json.loads(line))
            elif self.deployed is None:
                self._go_on_without()
            else:
                return

    def _launch(self, mode: Literal["wb", "ab"]) -> None:
        settings = self._settings
        options = [*(["--again"] if self._again else []), *(f"--skip={name}" for name in self._skipped)]
        with self._log.open(mode) as sink:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mlops_assets.local_stack.materialisation",
                    settings.definitions_module,
                    settings.ray_dashboard_url,
                    str(settings.state),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=settings.layout.run,
                env=process_environment(settings),
                start_new_session=True,
                text=True,
            )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _go_on_without(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        if not self._building or self._building in self._skipped:
            raise StackError(f"building the graph ended without an answer; log: {self._log}")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._lose(self._building, f"the process that built it {how}; log: {self._log}")
        self._skipped.add(self._building)
        self._launch("ab")

    def _lose(self, use_case: str, reason: str, command: str = AGAIN) -> None:
        lack = Lack(use_case, reason, command)
        if lack not in self._lacks:
            self._lacks.append(lack)
            self._display.note(f"{use_case} ✗ {reason}")

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        process.wait()
        self._lines.put(None)

    def _show(self, facts: dict[str, Any]) -> None:
        display = self._display
        match facts["kind"]:
            case "declared":
                self.definitions_loaded = True
            case "complete":
                self.complete = True
            case "run":
                partitions = facts["partitions"]
                parts = f" {partitions[0]} to {partitions[1]}" if partitions else ""
                run = f"{facts['title']}: {facts['use_case']}, {len(facts['assets'])} assets{parts}"
                self._building = facts["use_case"]
                display.note(f"materialising {', '.join(facts['assets'])}{parts}")
                display.advance(GRAPH, done=0, total=1, detail=run)
            case "steps":
                done, total = facts["done"], facts["total"]
                idle = "starting" if done == 0 else "between steps" if done < total else "finishing"
                display.advance(GRAPH, done=done, total=total, detail=facts["current"] or idle)
            case "restoring":
                display.advance(GRAPH, done=0, total=1, detail="bringing the deployed models back")
            case "note":
                display.advance(GRAPH, done=0, total=1, detail=facts["line"])
            case "pending":
                approval = asset_name("approval", facts["model"])
                display.note(f"{approval} waits for a person: {facts['reason']}")
            case "missing":
                with_it = f"\nwith it: {', '.join(facts['with_it'])}" if facts["with_it"] else ""
                self._lose(facts["use_case"], f"{facts['problem']}{with_it}", facts["command"])
            case "lost":
                run_id = facts["run_id"]
                page = f"\nrun {run_id[:8]}: {self._settings.dagster_url}/runs/{run_id}" if run_id else ""
                self._lose(facts["use_case"], f"{facts['reason']}{page}")
            case "orphan":
                orphan = Orphan(facts["deployment"], facts["use_case"], facts["retired"])
                self._orphans[orphan.deployment] = orphan
            case "done":
                self.deployed = list(facts["deployed"])
                display.finish(GRAPH, f"deployed: {', '.join(self.deployed) or 'nothing'}")
            case "failed":
                raise StackError(
                    f"the graph could not be built: {facts['reason']}\nThe whole log: {self._log}"
                )


def _running(settings: StackSettings) -> record.Owner | None:
    """The supervisor of a platform that is up; StackError while one is only starting."""
    owner = record.owner(settings.layout)
    if owner is not None and owner.phase != "ready":
        raise StackError(
            f"the platform in {settings.state} is being started by pid {owner.pid}; wait, or `make down`."
        )
    return owner


def _print_summary(
    settings: StackSettings, built: Built, samples: Mapping[str, endpoint.Sample], console: Console
) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(what: str, url: str) -> None:
        say(f"  {what:<10} {url}")

    console.print()
    line("Dagster", settings.dagster_url)
    line("MLflow", settings.mlflow_url)
    for name in samples:
        line(name, f"{settings.serve_url}/{name}/predict")
        line("", f"{settings.serve_url}/{name}/docs")
    line("shell", f"source {settings.layout.environment_file}")
    for shown in samples.values():
        say(f"\n{shown.curl}")
        say(json.dumps(shown.answer))
    said = list(lacking.lines(built.lacks, built.orphans))
    if said:
        say("\n" + "\n".join(said))


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise StopRequested once, in the main thread.

    A handler of our own also gives children the default action back when this process was started
    with SIGINT ignored, as background jobs of a shell are.
    """

    def request(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise StopRequested(signal.Signals(number).name)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in previous:
        signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stopping_is_wanted() -> Iterator[None]:
    """Ends the block without an error when it is asked to stop, which is how a running platform ends."""
    try:
        yield
    except StopRequested:
        return
