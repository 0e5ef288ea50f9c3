"""What the platform costs while nothing happens: cores by process, of four use cases with 3,000 partitions.

Belongs here: making small use cases, bringing up a platform of their own, adding up what its processes used.
Does not belong here: how long one tick takes (``ticks.py``), what replicas hold (``replica_memory.py``).

``python -m bench.idle`` writes four use cases of two partitioned assets with 370 days each into a folder of
its own, brings the platform up in it, waits until everything is built and quiet, and measures for 5 minutes.
With ``--keep FILE`` it then stays up until FILE is gone, for other measurements of the same platform. With
``--folder FOLDER`` its state stays there, and the next measurement builds nothing anew.
"""

import argparse
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console

from demo.documents import write_project
from demo.run import OWN_DEFINITIONS
from mlops_assets import environment
from mlops_assets.local_stack import process_table, record
from mlops_assets.local_stack.processes import (
    MARKER,
    declared_processes,
    own_settings,
    process_environment,
    shared_environment,
)
from mlops_assets.local_stack.supervisor import Supervisor
from mlops_assets.local_stack.up import bring_up, stop_on_signals

USE_CASES = ("north", "east", "south", "west")
FIRST, DAYS, ROWS_A_DAY = date(2025, 1, 1), 370, 12
DOCUMENTS = """\
type: mlops_assets.components.DatasetComponent
attributes:
  name: {name}
  source: {{format: csv, path: raw.csv}}
  partitions: {{start: "{first}", end: "{end}", column: day}}
  columns: {{row_id: integer, day: string, at: timestamp, size: number, kind: string, sold: string}}
  primary_key: [row_id]
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: {name}
  entity: {{name: row, join_keys: [row_id]}}
  event_timestamp: at
  base: {name}
  features: [{{name: size, type: number}}, {{name: kind, type: category}}]
---
type: mlops_assets.components.ModelComponent
attributes:
  name: {name}
  task: binary
  feature_view: {name}
  label: {{dataset: {name}, column: sold}}
  classes: ["no", "yes"]
  evaluation_window_days: 60
  folds: 2
  candidates: [{{trainer: logistic_regression, training_window: all}}]
  gate: {{min_rows: 20}}
---
type: mlops_assets.components.DeploymentComponent
attributes: {{name: {name}, model: {name}, approval: {{mode: auto}}}}
---
type: mlops_assets.components.DriftMonitorComponent
attributes: {{model: {name}, logs_since: "{first}", window: 7d, labels: {{within: 3d}}, max_data_age: 90d}}
"""


def write_use_cases(folder: Path) -> None:
    """One folder for each use case: its documents and its file."""
    for number, name in enumerate(USE_CASES):
        chance = random.Random(number)  # noqa: S311
        own = folder / name
        own.mkdir(parents=True)
        end = FIRST + timedelta(days=DAYS)
        (own / "defs.yaml").write_text(DOCUMENTS.format(name=name, first=FIRST, end=end), encoding="utf-8")
        lines = ["row_id,day,at,size,kind,sold"]
        for row in range(DAYS * ROWS_A_DAY):
            day, size = FIRST + timedelta(days=row // ROWS_A_DAY), chance.gauss(0, 1)
            sold = "yes" if size + chance.gauss(0, 0.7) > 0 else "no"
            kind = chance.choice("abc")
            lines.append(f"{row},{day},{day}T{row % ROWS_A_DAY:02}:00:00Z,{size:.4f},{kind},{sold}")
        (own / "raw.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def idle_cores(mark: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> dict[str, float]:
    """Cores by name of process, of those that carry the mark, and of their descendants, at the end."""
    before = _used(mark)
    started = time.monotonic()
    sleep(seconds)
    after, passed = _used(mark), time.monotonic() - started
    cores: Counter[str] = Counter()
    for process, (name, used) in after.items():
        cores[name] += (used - before.get(process, ("", 0.0))[1]) / passed
    return dict(cores.most_common())


def _used(mark: str) -> dict[process_table.ProcessIdentity, tuple[str, float]]:
    """CPU seconds and name of each process, those of ended children aside."""
    found = {}
    roots = process_table.marked(MARKER, mark)
    all_of_them = {*roots, *(child for root in roots for child in process_table.descendants(root.pid))}
    ticks = os.sysconf("SC_CLK_TCK")
    for process in all_of_them:
        try:
            text = (Path("/proc") / str(process.pid) / "stat").read_text(errors="replace")
        # It ended meanwhile.
        except OSError:
            continue
        fields = text.rsplit(")", 1)[1].split()
        found[process] = (_name(process_table.command_line(process)), sum(map(int, fields[11:13])) / ticks)
    return found


NAMES = (
    (r"ray::ServeReplica:\w+:Gateway", "gateways"),
    (r"ray::ServeReplica:", "replicas of versions"),
    (r"ray::AggregatorActor", "aggregators"),
    (r"ray::(ServeController|HAProxyManager|ProxyActor|DashboardAgent|RuntimeEnvAgent|IDLE)", r"\1"),
    (r"ray-dashboard-(\w+)", r"dashboard \1"),
    (r"/(dashboard|monitor)\.py", r"Ray \1"),
    (r"/(gcs_server|raylet)\b", r"\1"),
    (r"/haproxy", "haproxy"),
    (r"code-server start", "code server, its watcher"),
    (r"dagster api grpc", "code server"),
    (r"dagster-daemon", "daemon"),
    (r"local_stack\.webserver", "webserver"),
    (r"warm_runs", "runs"),
    (r"mlflow", "MLflow"),
)


def _name(command: str) -> str:
    for pattern, name in NAMES:
        found = re.search(pattern, command)
        if found:
            return found.expand(name)
    return command[:60] or "ended"


def measured(state: Path, console: Console, *, settle: float, seconds: float, keep: str) -> dict[str, float]:
    """Brings the platform up in ``state``, lets it settle, measures, and stops it."""
    settings = own_settings(state, environment.process_environment())
    settings = replace(settings, definitions_module=OWN_DEFINITIONS)
    layout = settings.layout
    layout.run.mkdir(parents=True, exist_ok=True)
    if layout.desired_state.exists():
        # What was declared before says where it answers.
        port = json.loads(layout.desired_state.read_text(encoding="utf-8"))["http_options"]["port"]
        settings = replace(settings, serve_port=port, serve_url=f"http://127.0.0.1:{port}")
    with record.held(layout), stop_on_signals():
        flights = write_project(state).parent
        shutil.rmtree(flights)
        write_use_cases(flights.parent)
        layout.prepare(dagster_yaml=settings.root / "dagster.yaml")
        layout.write_environment(shared_environment(settings))
        supervisor = Supervisor(declared_processes(settings), layout)
        try:
            supervisor.require_ports()
            record.write(layout, "starting")
            bring_up(settings, supervisor, console).require_all()
            time.sleep(settle)
            found = idle_cores(str(state), seconds)
            if keep:
                show(found)
                Path(keep).write_text(json.dumps(process_environment(settings)), encoding="utf-8")
                while Path(keep).exists():
                    supervisor.check()
                    time.sleep(1.0)
            return found
        finally:
            supervisor.stop()


def show(found: dict[str, float]) -> None:
    """One line for each name, and their sum."""
    for name, cores in {**found, "all": sum(found.values())}.items():
        if cores >= 0.0005:
            print(f"{name:40}{cores:8.3f} cores", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints cores by process."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long is measured")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds from the deployed models on")
    parser.add_argument("--keep", default="", metavar="FILE", help="stay up until FILE is gone")
    parser.add_argument("--folder", type=Path, help="for its state; left out: one that is removed again")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="mlops-idle-"))
    try:
        found = measured(
            folder.absolute(), Console(), settle=chosen.settle, seconds=chosen.seconds, keep=chosen.keep
        )
        show(found)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
