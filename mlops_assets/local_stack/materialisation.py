"""Brings the graph of a code location to life, in a process of its own: restore, then build what is missing.

Belongs here: what must be materialised before every deployment answers, and running it through plain
Dagster. Does not belong here: showing it (``up.py``) or what an asset does (``components/``).

Run as ``python -m mlops_assets.local_stack.materialisation MODULE DASHBOARD_URL STATE_DIR``. It writes
one JSON document per line to its standard output, the last of kind ``done`` or ``failed``; everything
else, Dagster's log included, goes to standard error. DAGSTER_HOME says which instance is used.
"""

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from mlops_assets import environment
from mlops_assets.components import run_owner
from mlops_assets.components.automation import AFTER_DEPLOYMENT
from mlops_assets.errors import MlopsError, StackError
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.supervisor import answers
from mlops_assets.resources.clock import Clock

DEPLOYMENTS, APPROVALS = "deployments", "approvals"
UNDER_WAY = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
POLL_S = 0.5

Emit = Callable[..., None]


@dataclass(frozen=True)
class PlannedRun:
    """One Dagster run: assets, and the range of partitions of those that have any."""

    assets: tuple[dg.AssetKey, ...]
    partitions: tuple[str, str] | None

    @property
    def tags(self) -> dict[str, str]:
        if self.partitions is None:
            return {}
        first, last = self.partitions
        return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}

    @property
    def told(self) -> dict[str, list[str]]:
        """The run as facts for whoever shows it."""
        return {
            "assets": [key.to_user_string() for key in self.assets],
            "partitions": list(self.partitions or ()),
        }


@dataclass(frozen=True)
class Gap:
    """What an asset lacks: all of it, or the partitions listed, in order."""

    partitions_def: dg.PartitionsDefinition[Any] | None
    partitions: tuple[str, ...]


def missing(
    graph: Any, instance: dg.DagsterInstance, *, now: datetime, lost: Collection[dg.AssetKey] = ()
) -> dict[dg.AssetKey, Gap]:
    """Materialisable assets that were never materialised, or not in every partition; and those ``lost``.

    Partitions that are not over at ``now`` (data time) are none yet, and what only follows a deployment is
    left to its sensors.
    """
    gaps = {}
    for key in sorted(graph.materializable_asset_keys):
        if AFTER_DEPLOYMENT in graph.get(key).tags:
            continue
        partitions_def = graph.get(key).partitions_def
        if partitions_def is None:
            if key in lost or instance.get_latest_materialization_event(key) is None:
                gaps[key] = Gap(None, ())
            continue
        present = instance.get_materialized_partitions(key)
        over = partitions_def.get_partition_keys(current_time=now)
        absent = tuple(part for part in over if part not in present)
        if absent:
            gaps[key] = Gap(partitions_def, absent)
    return gaps


def planned_runs(
    gaps: Mapping[dg.AssetKey, Gap], parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]]
) -> list[PlannedRun]:
    """The fewest runs in dependency order: a run holds unpartitioned assets and one kind of partitions."""
    left = dict(gaps)
    runs = []
    while left:
        kinds: set[Any] = {gap.partitions_def for gap in left.values() if gap.partitions_def is not None}
        candidates = [_runnable_together(left, parents, kind) for kind in kinds or {None}]
        chosen = max(candidates, key=lambda keys: (len(keys), sorted(keys)))
        if not chosen:
            names = ", ".join(sorted(key.to_user_string() for key in left))
            raise StackError(f"no order found in which these assets can be materialised: {names}")
        runs.append(PlannedRun(tuple(sorted(chosen)), _range([left[key] for key in chosen])))
        for key in chosen:
            del left[key]
    return runs


def _range(gaps: Collection[Gap]) -> tuple[str, str] | None:
    """First and last missing partition, in the order of their definition."""
    partitions_def = next((gap.partitions_def for gap in gaps if gap.partitions_def is not None), None)
    if partitions_def is None:
        return None
    absent = {part for gap in gaps for part in gap.partitions}
    parts = [part for part in partitions_def.get_partition_keys() if part in absent]
    return parts[0], parts[-1]


def _runnable_together(
    left: Mapping[dg.AssetKey, Gap], parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]], kind: Any
) -> set[dg.AssetKey]:
    """Missing assets of this kind of partitions, or none, whose missing ancestors are all among them."""
    chosen = {key for key, gap in left.items() if gap.partitions_def in (None, kind)}
    while blocked := {key for key in chosen if any(p in left and p not in chosen for p in parents[key])}:
        chosen -= blocked
    return chosen


def run_all(module: str, dashboard_url: str, layout: Layout, emit: Emit) -> None:
    """Restores the deployed applications, materialises what is missing, and tells each step to ``emit``."""
    with dg.DagsterInstance.get() as instance:
        _end_lost_runs(instance)
        definitions = load(module)
        graph = definitions.resolve_asset_graph()
        declared = [key for key in sorted(graph.materializable_asset_keys) if key.path[0] == DEPLOYMENTS]
        if declared and len(_made(instance, declared)) == len(declared) and layout.desired_state.exists():
            emit("complete")
        emit("declared", deployments=[key.path[1] for key in declared])
        _wait_for(f"{dashboard_url}/api/serve/applications/", emit)
        restored = _restore(definitions, layout, emit)
        lost = {key for key in _made(instance, declared) if key.path[1] not in restored}
        if not declared or lost or len(_made(instance, declared)) < len(declared):
            now = Clock(file=environment.clock_file()).now()
            gaps = missing(graph, instance, now=now, lost=lost)
            runs = planned_runs(gaps, {key: graph.get(key).parent_keys for key in gaps})
            for number, run in enumerate(runs, start=1):
                emit("run", title=f"run {number} of {len(runs)}", **run.told)
                _execute(definitions, instance, run, emit)
        emit("done", deployed=[key.path[1] for key in _made(instance, declared)])


def _end_lost_runs(instance: dg.DagsterInstance) -> None:
    """Fails the runs that were under way when the platform was last stopped: their processes are gone.

    Nothing of the platform carries out runs yet when this is called; queued ones wait for the daemon.
    """
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNDER_WAY))):
        run_owner.end(instance, run, "the platform was stopped meanwhile")


def _made(instance: dg.DagsterInstance, keys: Collection[dg.AssetKey]) -> list[dg.AssetKey]:
    return [key for key in keys if instance.get_latest_materialization_event(key) is not None]


def load(module: str) -> dg.Definitions:
    """The definitions of a module that names them ``defs`` under ``@dg.definitions``."""
    definitions: dg.Definitions = importlib.import_module(module).defs()
    return definitions


def _execute(definitions: dg.Definitions, instance: dg.DagsterInstance, run: PlannedRun, emit: Emit) -> None:
    """Runs it. An approval that waits for a person is told; StackError when anything else failed."""
    run_id = str(uuid4())
    job = definitions.resolve_implicit_global_asset_job_def()
    with ExitStack() as stack:
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(instance, run_id, emit, stop), daemon=True)
        watcher.start()
        stack.callback(watcher.join)
        stack.callback(stop.set)
        result = job.execute_in_process(
            instance=instance,
            asset_selection=list(run.assets),
            tags={**run.tags, "mlops/launched_by": "up"},
            run_id=run_id,
            raise_on_error=False,
        )
    if result.success:
        return
    failures = {
        event.step_key or "": _message(event)
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    }
    if failures and all(step.startswith(f"{APPROVALS}__") for step in failures):
        for step, message in failures.items():
            emit("pending", model=step.removeprefix(f"{APPROVALS}__"), reason=message)
        return
    told = (
        "\n".join(f"{step}: {message}" for step, message in failures.items())
        or "the run failed before its first step"
    )
    raise StackError(f"run {run_id} failed.\n{told}")


def _watch(instance: dg.DagsterInstance, run_id: str, emit: Emit, stop: threading.Event) -> None:
    """Reads the run's event log and tells how far it is, until told to stop."""
    said: tuple[int, int, str] | None = None
    while not stop.wait(POLL_S):
        run = instance.get_run_by_id(run_id)
        if run is None or run.execution_plan_snapshot_id is None:
            continue
        steps = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute
        stats = instance.get_run_step_stats(run_id)
        done = sum(1 for step in stats if step.end_time is not None)
        current = next((step.step_key for step in stats if step.end_time is None), "")
        now = (done, len(steps), current.replace("__", "/"))
        if now != said:
            emit("steps", done=now[0], total=now[1], current=now[2])
            said = now


def _restore(definitions: dg.Definitions, layout: Layout, emit: Emit) -> list[str]:
    """Declares the saved state of the cluster again; names of what then runs, [] if none was saved."""
    if not layout.desired_state.exists():
        return []
    client = (definitions.resources or {}).get("serve_client")
    if client is None:
        raise StackError(f"{layout.desired_state} cannot be restored: the definitions have no serve_client.")
    emit("restoring", file=str(layout.desired_state))
    names: list[str] = client.restore(report=lambda line: emit("note", line=line))
    return names


def _wait_for(url: str, emit: Emit) -> None:
    """Returns when the URL answers; how long that may take is the supervisor's business, which ends us."""
    if not answers(url, token=environment.ray_token()):
        emit("note", line="definitions loaded; waiting for Ray")
    while not answers(url, token=environment.ray_token()):
        time.sleep(POLL_S)


def _message(event: dg.DagsterEvent) -> str:
    """Dagster's words for a failed step, down to the cause that the platform itself gave."""
    error = event.step_failure_data.error
    told = []
    while error is not None:
        told.append(error.message.strip())
        error = error.cause
    return told[-1] if told else (event.message or "failed")


def main(arguments: list[str]) -> int:
    """Exit code 0 when every deployment that may answer does."""
    module, dashboard_url, state = arguments
    # Steps and libraries print as they like; the documents go where nobody else writes.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as sink:
        os.dup2(2, 1)

        def emit(kind: str, **facts: Any) -> None:
            sink.write(json.dumps({"kind": kind, **facts}) + "\n")

        try:
            run_all(module, dashboard_url, Layout(Path(state)), emit)
        except MlopsError as error:
            emit("failed", reason=str(error))
            return 1
        # The boundary of this process: whatever went wrong must reach the person who waits.
        except Exception as error:
            emit("failed", reason=f"{type(error).__name__}: {error}")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
