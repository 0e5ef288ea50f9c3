"""``make loop``: starts the real stack in an empty folder of its own, tells the story, stops everything.

Belongs here: settings of that stack, and what is started and ended around the story. Does not belong here:
what happens in it (``story.py``, ``scenes.py``).
"""

import shutil
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console

from demo import scenes
from demo.callers import DECLARATIONS, Ask, Flights
from demo.deliveries import Deliveries
from demo.documents import write_project
from demo.readings import Watch
from demo.story import Story
from demo.telling import Teller
from demo.traffic import Traffic
from demo.virtual_time import ClockFile, midnight
from demo.world import ONE_DAY, World
from mlops_assets import environment
from mlops_assets.asset_names import Kind, asset_name
from mlops_assets.errors import MlopsError, StackError
from mlops_assets.local_stack import process_table, record
from mlops_assets.local_stack.processes import (
    MARKER,
    StackSettings,
    declared_processes,
    own_settings,
    process_environment,
    shared_environment,
)
from mlops_assets.local_stack.supervisor import Supervisor, answers
from mlops_assets.local_stack.up import bring_up, stop_on_signals, stopping_is_wanted

STATE = ".mlops-loop"
OWN_DEFINITIONS = "demo.definitions"
MODEL = "flights"
KEPT_VARIABLES = (environment.GIT_SHA.name,)
"""Of the platform's variables: where everything lies is the story's own business, the commit is not."""
WATCHED: tuple[Kind, ...] = (
    "performance", "drift", "drift_signal", "retrain_request", "training_set", "candidates", "model",
    "evaluation", "approval", "deployment",
)  # fmt: skip


def loop_settings(root: Path, inherited: Mapping[str, str]) -> StackSettings:
    """A stack in a folder of its own below ``root``, on ports of its own, on a virtual clock.

    Nothing of the platform's environment is taken over: the story must not touch another lake or webhook.
    """
    state = root / STATE
    return own_settings(state, inherited, clock_file=str(state / "clock"), kept=KEPT_VARIABLES)


def loop(console: Console, *, full: bool = False, keep: bool = False) -> bool:
    """Tells the story; whether every transition came. ``keep``: the stack stays up until told to stop.

    Raises StackError when the stack cannot start; StopRequested when told to stop before the end.
    """
    settings = loop_settings(environment.PROJECT_ROOT, environment.process_environment())
    layout, plan = settings.layout, scenes.FULL if full else scenes.SHORT
    if plan.planted_loss:
        settings = replace(settings, definitions_module=OWN_DEFINITIONS)
    with record.held(layout), stop_on_signals(), ExitStack() as stack:
        for command in process_table.end_marked(MARKER, str(layout.state)):
            console.print(f"stopped what an earlier story left behind: {command}", markup=False)
        _empty(layout.state)
        documents = write_project(layout.state) if plan.planted_loss else DECLARATIONS
        layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
        layout.write_environment(shared_environment(settings))
        clock = ClockFile(Path(settings.clock_file), midnight(plan.champion_until + ONE_DAY))
        teller = Teller(console, lambda: clock.now)
        supervisor = Supervisor(declared_processes(settings), layout)
        stack.callback(_stop, supervisor, console)
        supervisor.require_ports()
        record.write(layout, "starting")
        scenes.opening(teller, plan)
        outside = _Outside(settings, plan, Flights(documents))
        deployed = bring_up(settings, supervisor, console).require_all()
        if MODEL not in deployed:
            raise StackError(
                f"{asset_name('deployment', MODEL)} was not deployed; log: {layout.logs / 'graph.log'}"
            )
        record.write(layout, "ready", tuple(deployed))
        asks, deliveries = outside.ready()
        stack.callback(deliveries.close)
        url = f"{settings.serve_url}/{MODEL}"
        watch = stack.enter_context(
            Watch(settings.dagster_url, url, [asset_name(kind, MODEL) for kind in WATCHED])
        )
        flights = outside.flights
        world = World(
            clock,
            Traffic(url, flights.classes),
            deliveries,
            asks,
            delivered_until=plan.champion_until,
            arrivals=plan.arrivals,
        )
        story = Story(
            teller, watch, world, supervisor.check, flights.most_requests, added_up=plan.planted_loss
        )
        try:
            scenes.tell(story, plan, flights.weather, layout.state)
        except MlopsError as error:
            teller.end(f"The loop does not hold: {error}", good=False)
            held = False
        else:
            held = True
            teller.end(f"The loop holds, in {teller.elapsed / 60:.1f} minutes.", good=True)
        console.print(f"Everything that happened lies in {layout.state}.", markup=False, highlight=False)
        if keep:
            console.print(f"Dagster: {settings.dagster_url}  MLflow: {settings.mlflow_url}  model: {url}")
            console.print("Ctrl-C stops everything.")
            with stopping_is_wanted():
                while True:
                    supervisor.check()
                    time.sleep(1.0)
        return held


def _empty(state: Path) -> None:
    """Removes everything of an earlier story but the lock that is held."""
    for path in state.iterdir():
        if path.name == "run":
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _stop(supervisor: Supervisor, console: Console) -> None:
    # A second Ctrl-C must not leave half of it running.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor.stop()
    console.print("Stopped; no process left.")


class _Outside:
    """What the world needs, made beside the start of the stack: all requests, and who brings outcomes."""

    def __init__(self, settings: StackSettings, plan: "scenes.Plan", flights: Flights) -> None:
        self.flights = flights
        self._settings, self._plan = settings, plan
        self._found: tuple[dict[date, list[Ask]], Deliveries] | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._prepare, name="outside", daemon=True)
        self._thread.start()

    def ready(self) -> tuple[dict[date, list[Ask]], Deliveries]:
        """The requests by day, and the process that brings outcomes, as soon as they are there."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._found is not None
        return self._found

    def _prepare(self) -> None:
        settings, plan = self._settings, self._plan
        try:
            # Ray gives itself half a minute to start; on two cores nothing else should run meanwhile.
            url, token = f"{settings.ray_dashboard_url}/api/serve/applications/", settings.layout.ray_token
            while not answers(url, token=token.read_text()):
                time.sleep(0.5)
            asks = self.flights.asks(plan.first_day, plan.last_day)
            log = settings.layout.logs / "deliveries.log"
            module, environment_ = settings.definitions_module, process_environment(settings)
            self._found = asks, Deliveries(module, environment_, settings.layout.run, log)
        # Carried over to the thread that waits for it.
        except BaseException as error:  # noqa: BLE001
            self._problem = error
