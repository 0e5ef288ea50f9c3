"""``mlops up``: from nothing to an answering model, then watch until told to stop.

Belongs here: the order of a start and what ends it. Does not belong here: single processes
(``supervisor.py``), what must be materialised (``materialisation.py``), how it looks (``display.py``).
"""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console

from mlops_assets.errors import StackError
from mlops_assets.local_stack import endpoint, process_table, record
from mlops_assets.local_stack.display import Display
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
GRAPH = "graph"


class StopRequested(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or a closed terminal."""


def up(settings: StackSettings, console: Console) -> None:
    """Starts everything, prints how to use it, and returns when told to stop; nothing runs afterwards.

    Returns at once when the platform is up already. Raises StackError when it cannot start or when a
    part of it dies; StopRequested when told to stop before it was up.
    """
    if _is_up_already(settings, console):
        return
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
            deployed = bring_up(settings, supervisor, console)
            _print_summary(settings, deployed, console)
            record.write(layout, "ready", tuple(deployed))
            console.print("\nUp. Ctrl-C stops everything." if console.is_terminal else "\nUp.")
            with stopping_is_wanted():
                while True:
                    supervisor.check()
                    time.sleep(1.0)
        finally:
            # A second Ctrl-C must not leave half of it running.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            supervisor.stop(report=lambda line: console.print(line, markup=False, highlight=False))
            console.print("Stopped; no process left.")


def up_detached(settings: StackSettings, console: Console) -> None:
    """Starts a supervisor in the background; returns when the models answer, else raises StackError."""
    if _is_up_already(settings, console):
        return
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
    told = f"\nRunning in the background (pid {background.pid}, log {log}). Stop it with: make down"
    console.print(told, markup=False, highlight=False, soft_wrap=True)


def bring_up(settings: StackSettings, supervisor: Supervisor, console: Console) -> list[str]:
    """Starts the processes and builds the graph meanwhile; names of the deployments that answer."""
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
        for name in graph.deployed:
            display.begin(f"wait for {name}")
            _wait_until(
                lambda name=name: endpoint.is_ready(settings.serve_url, name),  # type: ignore[misc]
                supervisor,
                f"{settings.serve_url}/{name}/ready does not answer 200",
            )
            display.finish(f"wait for {name}")
    return graph.deployed


def _launch(supervisor: Supervisor, stage: Stage, display: Display) -> None:
    for spec in supervisor.start(stage):
        display.begin(f"start {spec.name}")


def _show_ready(supervisor: Supervisor, display: Display) -> None:
    for running in supervisor.poll():
        display.finish(f"start {running.spec.name}", f"{running.ready_after:.1f} s")


def _wait_until(condition: Callable[[], bool], supervisor: Supervisor, otherwise: str) -> None:
    deadline = time.monotonic() + ANSWER_DEADLINE_S
    while not condition():
        supervisor.check()
        if time.monotonic() > deadline:
            raise StackError(f"{otherwise} after {ANSWER_DEADLINE_S:.0f} s.")
        time.sleep(POLL_S)


class _GraphBuilder:
    """The child process that restores and materialises, and what it told."""

    def __init__(self, settings: StackSettings, display: Display) -> None:
        self.definitions_loaded = False
        self.complete = False
        self.deployed: list[str] | None = None
        self._settings, self._display = settings, display
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log = settings.layout.logs / "graph.log"

    def start(self) -> None:
        settings = self._settings
        with self._log.open("wb") as sink:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mlops_assets.local_stack.materialisation",
                    settings.definitions_module,
                    settings.ray_dashboard_url,
                    str(settings.state),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=settings.layout.run,
                env=process_environment(settings),
                start_new_session=True,
                text=True,
            )
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        self._display.begin(GRAPH, detail="loading the definitions")

    def poll(self) -> None:
        """Shows what was told since the last call; StackError when it failed or ended without a word."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            if line is None:
                if self.deployed is None:
                    raise StackError(f"building the graph ended without an answer; log: {self._log}")
                return
            self._show(json.loads(line))

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        process.wait()
        self._lines.put(None)

    def _show(self, told: dict[str, Any]) -> None:
        display = self._display
        match told["kind"]:
            case "declared":
                self.definitions_loaded = True
            case "complete":
                self.complete = True
            case "run":
                parts = f" {told['partitions'][0]} to {told['partitions'][1]}" if told["partitions"] else ""
                run = f"{told['title']}: {len(told['assets'])} assets{parts}"
                display.note(f"materialising {', '.join(told['assets'])}{parts}")
                display.advance(GRAPH, done=0, total=1, detail=run)
            case "steps":
                detail = told["current"] or ("starting" if told["done"] == 0 else "finishing")
                display.advance(GRAPH, done=told["done"], total=told["total"], detail=detail)
            case "restoring":
                display.advance(GRAPH, done=0, total=1, detail="bringing the deployed models back")
            case "note":
                display.advance(GRAPH, done=0, total=1, detail=told["line"])
            case "pending":
                display.note(f"approvals/{told['model']} waits for a person: {told['reason']}")
            case "done":
                self.deployed = list(told["deployed"])
                display.finish(GRAPH, f"deployed: {', '.join(self.deployed) or 'nothing'}")
            case "failed":
                raise StackError(
                    f"the graph could not be built: {told['reason']}\nThe whole log: {self._log}"
                )


def _is_up_already(settings: StackSettings, console: Console) -> bool:
    owner = record.owner(settings.layout)
    if owner is None:
        return False
    if owner.phase != "ready":
        raise StackError(
            f"the platform in {settings.state} is being started by pid {owner.pid}; wait, or `make down`."
        )
    console.print(f"Up already (pid {owner.pid}); `make down` stops it.")
    _print_summary(settings, list(owner.deployments), console)
    return True


def _print_summary(settings: StackSettings, deployed: list[str], console: Console) -> None:
    def line(what: str, url: str) -> None:
        console.print(f"  {what:<10} {url}", markup=False, highlight=False, soft_wrap=True)

    console.print()
    line("Dagster", settings.dagster_url)
    line("MLflow", settings.mlflow_url)
    for name in deployed:
        line(name, f"{settings.serve_url}/{name}/predict")
        line("", f"{settings.serve_url}/{name}/docs")
    line("shell", f"source {settings.layout.environment_file}")
    for name in deployed:
        shown = endpoint.sample(settings.serve_url, name)
        console.print(f"\n{shown.curl}", markup=False, highlight=False, soft_wrap=True)
        console.print(json.dumps(shown.answer), markup=False, highlight=False, soft_wrap=True)


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
    """Once everything is up, being told to stop is the way to end."""
    try:
        yield
    except StopRequested:
        return
