"""Brings the graph of a code location to life, in a process of its own: restore, then build what is missing.

Belongs here: what must be materialised before every deployment answers, running it through plain Dagster one
use case after the other, and what failed. Does not belong here: showing it (``up.py``) or what an asset does
(``components/``).

Run as ``python -m mlops_assets.local_stack.materialisation MODULE DASHBOARD_URL STATE_DIR``. It writes
one JSON document per line to its standard output, the last of kind ``done`` or ``failed``; everything
else, Dagster's log included, goes to standard error. DAGSTER_HOME says which instance is used.

A use case that fails is told (kind ``lost``) and costs the others nothing but what they need of it.
"""

import argparse
import fcntl
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from mlops_assets import environment
from mlops_assets.asset_keys import asset_key, assets_of, read_key
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.deploying.retiring import Declared, in_service, orphaned, retirement
from mlops_assets.documents.missing import MissingDocument, missing_documents
from mlops_assets.errors import MlopsError, StackError
from mlops_assets.event_log import run_owner
from mlops_assets.event_log.records import latest
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.supervisor import answers
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.serving import Wait
from mlops_assets.rollout import desired_state

UNDER_WAY = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
STEP_BEGINS = dg.DagsterEventType.STEP_START
STEP_ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)
POLL_S = 0.5

Emit = Callable[..., None]


@dataclass(frozen=True)
class PlannedRun:
    """One Dagster run: assets of one use case, and the range of partitions of those that have any."""

    assets: tuple[dg.AssetKey, ...]
    partitions: tuple[str, str] | None
    use_case: str = ""

    @property
    def tags(self) -> dict[str, str]:
        if self.partitions is None:
            return {}
        first, last = self.partitions
        return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}

    @property
    def facts(self) -> dict[str, Any]:
        """The run as plain values, for the line that ``emit`` writes."""
        return {
            "assets": [key.to_user_string() for key in self.assets],
            "partitions": list(self.partitions or ()),
            "use_case": self.use_case,
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

    Partitions that are not over at ``now`` (data time) do not count, and what only follows a deployment is
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


def wanted(
    gaps: Mapping[dg.AssetKey, Gap],
    parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
    incomplete: Collection[dg.AssetKey],
) -> dict[dg.AssetKey, Gap]:
    """The gaps of what is not complete yet, and of all it needs.

    Later days of a use case that answers are not among them: they come as its data comes.
    """
    kept: set[dg.AssetKey] = set()
    queue = [key for key in gaps if key in incomplete]
    while queue:
        key = queue.pop()
        if key not in kept:
            kept.add(key)
            queue += [parent for parent in parents[key] if parent in gaps]
    return {key: gap for key, gap in gaps.items() if key in kept}


def planned_runs(
    gaps: Mapping[dg.AssetKey, Gap],
    parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
    use_cases: Mapping[dg.AssetKey, str] | None = None,
) -> list[PlannedRun]:
    """The fewest runs in dependency order: a run holds one use case, with one kind of partitions at most.

    A use case is finished before the next begins, as far as it can be without the others.
    """
    left, of = dict(gaps), use_cases or {}
    runs: list[PlannedRun] = []
    while left:
        begun = runs[-1].use_case if runs else ""
        names = sorted({of.get(key, "") for key in left}, key=lambda name: (name != begun, name))
        chosen, name = next(
            ((found, name) for name in names if (found := _next_together(left, parents, of, name))),
            (set[dg.AssetKey](), ""),
        )
        if not chosen:
            unordered = ", ".join(sorted(key.to_user_string() for key in left))
            raise StackError(f"no order found in which these assets can be materialised: {unordered}")
        runs.append(PlannedRun(tuple(sorted(chosen)), _range([left[key] for key in chosen]), name))
        for key in chosen:
            del left[key]
    return runs


def _next_together(
    left: Mapping[dg.AssetKey, Gap],
    parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
    of: Mapping[dg.AssetKey, str],
    use_case: str,
) -> set[dg.AssetKey]:
    """The most of a use case that can be one run now."""
    own = {key: gap for key, gap in left.items() if of.get(key, "") == use_case}
    kinds: set[Any] = {gap.partitions_def for gap in own.values() if gap.partitions_def is not None}
    candidates = [_runnable_together(own, left, parents, kind) for kind in kinds or {None}]
    return max(candidates, key=lambda keys: (len(keys), sorted(keys)))


def _range(gaps: Collection[Gap]) -> tuple[str, str] | None:
    """First and last missing partition, in the order of their definition."""
    partitions_def = next((gap.partitions_def for gap in gaps if gap.partitions_def is not None), None)
    if partitions_def is None:
        return None
    absent = {part for gap in gaps for part in gap.partitions}
    parts = [part for part in partitions_def.get_partition_keys() if part in absent]
    return parts[0], parts[-1]


def _runnable_together(
    own: Mapping[dg.AssetKey, Gap],
    left: Mapping[dg.AssetKey, Gap],
    parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
    kind: Any,
) -> set[dg.AssetKey]:
    """Own missing assets of this kind of partitions, or none, whose missing ancestors are all among them."""
    chosen = {key for key, gap in own.items() if gap.partitions_def in (None, kind)}
    while blocked := {key for key in chosen if any(p in left and p not in chosen for p in parents[key])}:
        chosen -= blocked
    return chosen


def run_all(
    module: str,
    dashboard_url: str,
    layout: Layout,
    emit: Emit,
    *,
    again: bool = False,
    skip: Collection[str] = (),
) -> None:
    """Restores the deployed applications, materialises what is missing, and tells each step to ``emit``.

    ``again``: the platform is up already, with its daemon: nothing is restored, and what others are making is
    left to them. ``skip`` names use cases that are not to be built.
    """
    with dg.DagsterInstance.get() as instance:
        if not again:
            _end_lost_runs(instance)
        definitions = load(module)
        build = Build(definitions, definitions.resolve_asset_graph(), instance, emit, again)
        graph = build.graph
        _tell_missing(missing_documents(definitions), emit)
        declared = list(assets_of(graph, "deployment").values())
        deployed = _deployed(instance, declared)
        if declared and len(deployed) == len(declared) and layout.desired_state.exists():
            emit("complete")
        emit("declared", deployments=[read_key(key).name for key in declared])
        _wait_for(f"{dashboard_url}/api/serve/applications/", emit)
        restored = _restore(build, layout)
        _make(build, declared, restored, skip)
        emit("done", deployed=[read_key(key).name for key in _deployed(instance, declared)])


@dataclass(frozen=True)
class Build:
    """The building of one graph on one instance.

    ``emit`` writes a line for whoever shows it. ``again``: the platform is up already, with its daemon.
    """

    definitions: dg.Definitions
    graph: Any
    instance: dg.DagsterInstance
    emit: Emit
    again: bool


def _make(
    build: Build, declared: Collection[dg.AssetKey], restored: Collection[str], skip: Collection[str]
) -> None:
    """Materialises what is missing, use case by use case; what fails is told, and what needs it left out.

    ``declared``: the deployments of the graph, of which those ``restored`` answer, by name. ``skip``: use
    cases that are not built.
    """
    graph, instance, emit = build.graph, build.instance, build.emit
    answering = {key for key in _deployed(instance, declared) if read_key(key).name in restored}
    lost = {key for key in declared if key not in answering and latest(instance, key) is not None}
    now = Clock(file=environment.clock_file()).now()
    gaps = missing(graph, instance, now=now, lost=lost)
    use_cases = {key: graph.get(key).group_name for key in gaps}
    parents = {key: graph.get(key).parent_keys for key in graph.materializable_asset_keys}
    unfinished = {graph.get(key).group_name for key in declared if key not in answering}
    served = {graph.get(key).group_name for key in answering} - unfinished
    incomplete = {
        key
        for key in gaps
        if use_cases[key] in unfinished or (use_cases[key] not in served and latest(instance, key) is None)
    }
    runs = planned_runs(wanted(gaps, parents, incomplete), parents, use_cases)
    without = {key: Unmade(use_cases[key], "it failed before") for key in gaps if use_cases[key] in skip}
    if build.again:
        without |= _being_made(instance)
    for number, planned in enumerate(runs, start=1):
        if planned.use_case in skip:
            continue
        run = _less(planned, parents, without, emit)
        if run is not None:
            emit("run", title=f"run {number} of {len(runs)}", **run.facts)
            without |= _execute(build, run)


@dataclass(frozen=True)
class Unmade:
    """Why an asset of a use case is not made; "" when that is no failure, as of an approval that waits."""

    use_case: str
    reason: str


def _less(
    planned: PlannedRun,
    parents: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
    without: dict[dg.AssetKey, Unmade],
    emit: Emit,
) -> PlannedRun | None:
    """The run less what lacks something else; None when nothing is left of it. Adds that to ``without``.

    What lacks something of another use case is told, as nothing else says so.
    """
    left = set(planned.assets) - set(without)
    while blocked := {key: up for key in left for up in parents[key] if up in without}:
        for key, up in sorted(blocked.items()):
            why = without[up]
            if why.reason and why.use_case != planned.use_case:
                reason = f"{key.to_user_string()} needs {up.to_user_string()}: {why.reason}"
                emit("lost", use_case=planned.use_case, reason=reason, run_id="")
            # The rest of this use case falls with it without a word.
            without[key] = Unmade(planned.use_case, why.reason)
        left -= set(blocked)
    return PlannedRun(tuple(sorted(left)), planned.partitions, planned.use_case) if left else None


def _being_made(instance: dg.DagsterInstance) -> dict[dg.AssetKey, Unmade]:
    """Assets that a run which is not finished makes."""
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, *UNDER_WAY])
    return {
        key: Unmade("", f"run {run.run_id[:8]} is making it")
        for run in instance.get_runs(filters=unfinished)
        if not run_owner.end_lost(instance, run)
        for key in run.asset_selection or ()
    }


def _tell_missing(missing: Sequence[MissingDocument], emit: Emit) -> None:
    """Each document with a problem of its own; what falls with it in the same use case stands beside it."""
    for one in missing:
        own = next((other for other in missing if other.where == one.because), one)
        if own is not one and own.use_case == one.use_case:
            continue
        with_it = [
            each.what for each in missing if each.because == one.where and each.use_case == one.use_case
        ]
        facts = {"use_case": one.use_case, "what": one.what, "problem": one.problem, "command": one.command}
        emit("missing", **facts, with_it=with_it)


def _end_lost_runs(instance: dg.DagsterInstance) -> None:
    """Fails the runs that were under way when the platform was last stopped: their processes are gone.

    Nothing of the platform carries out runs yet when this is called; queued ones wait for the daemon.
    """
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNDER_WAY))):
        run_owner.end(instance, run, "the platform was stopped meanwhile")


def _deployed(instance: dg.DagsterInstance, keys: Collection[dg.AssetKey]) -> list[dg.AssetKey]:
    """Deployments that were deployed, and not retired since."""
    return [key for key in keys if in_service(latest(instance, key)) is not None]


def load(module: str) -> dg.Definitions:
    """The definitions of a module that names them ``defs`` under ``@dg.definitions``."""
    definitions: dg.Definitions = importlib.import_module(module).defs()
    return definitions


def _execute(build: Build, run: PlannedRun) -> dict[dg.AssetKey, Unmade]:
    """Carries a run out; what was not made, and why.

    An approval that waits for a person is told as such, anything else that failed as lost.
    """
    definitions, instance, emit = build.definitions, build.instance, build.emit
    run_id = str(uuid4())
    job = definitions.resolve_implicit_global_asset_job_def()
    with ExitStack() as stack:
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(instance, run_id, emit, stop), daemon=True)
        watcher.start()
        stack.callback(watcher.join)
        stack.callback(stop.set)
        try:
            result = job.execute_in_process(
                instance=instance,
                asset_selection=list(run.assets),
                tags={**run.tags, "mlops/launched_by": "up", run_owner.OWNER_TAG: run_owner.this_process()},
                run_id=run_id,
                raise_on_error=False,
            )
        # A run that cannot even begin, e.g. for its partitions, is this use case's trouble.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {error}"
            emit("lost", use_case=run.use_case, reason=reason, run_id=run_id)
            return dict.fromkeys(run.assets, Unmade(run.use_case, reason))
    if result.success:
        return {}
    events = result.all_events
    failures = {
        event.step_key or "": _message(event)
        for event in events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    }
    made = {event.step_key for event in events if event.event_type == dg.DagsterEventType.STEP_SUCCESS}
    checks = _failed_checks(events)
    approvals = {key: model for model, key in assets_of(build.graph, "approval").items()}
    waiting, reasons = [], {}
    for key in run.assets:
        message = failures.get(key.to_python_identifier())
        if message is not None and key in approvals:
            waiting.append(key)
            emit("pending", model=approvals[key], reason=message)
        elif message is not None:
            name, reason = key.to_user_string(), checks.get(key, message)
            reasons[key] = reason if reason.startswith(name) else f"{name}: {reason}"
            emit("lost", use_case=run.use_case, reason=reasons[key], run_id=run_id)
    if not failures:
        emit("lost", use_case=run.use_case, reason="the run failed before its first step", run_id=run_id)
    # What was skipped fell with what failed; behind an approval it only waits.
    first = next(iter(reasons.values()), "" if waiting else "the run failed before its first step")
    unmade = [key for key in run.assets if key.to_python_identifier() not in made]
    return {key: Unmade(run.use_case, "" if key in waiting else reasons.get(key, first)) for key in unmade}


def _failed_checks(events: Sequence[dg.DagsterEvent]) -> dict[dg.AssetKey, str]:
    """What the blocking checks that stopped an asset said of it."""
    found: dict[dg.AssetKey, list[str]] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking and check.description:
                found.setdefault(check.asset_key, []).append(f"check {check.check_name}: {check.description}")
    return {key: "; ".join(said) for key, said in found.items()}


class RunProgress:
    """How far a run is, by the step events that are new since it was last asked.

    Dagster's own statistics of steps read every materialisation of the run each time: for a year of
    partitions .3 s of a core, of the process that trains.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id = instance, run_id
        self._steps = 0
        self._cursor: str | None = None
        self._begun: dict[str, bool] = {}

    def now(self) -> tuple[int, int, str] | None:
        """Steps that ended, all steps, and the one that runs (""); None before the run has a plan."""
        run = self._instance.get_run_by_id(self._run_id) if not self._steps else None
        if run is not None and run.execution_plan_snapshot_id is not None:
            plan = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            self._steps = len(plan.step_keys_to_execute)
        if not self._steps:
            return None
        found = self._instance.get_records_for_run(self._run_id, self._cursor, {STEP_BEGINS, *STEP_ENDS})
        self._cursor = found.cursor
        for record in found.records:
            event = record.event_log_entry.get_dagster_event()
            self._begun[event.step_key or ""] = event.event_type in STEP_ENDS
        current = next((step for step, ended in self._begun.items() if not ended), "")
        return sum(self._begun.values()), self._steps, current.replace("__", "/")


def _watch(instance: dg.DagsterInstance, run_id: str, emit: Emit, stop: threading.Event) -> None:
    """Tells how far the run is, until told to stop."""
    progress, said = RunProgress(instance, run_id), None
    while not stop.wait(POLL_S):
        now = progress.now()
        if now is not None and now != said:
            emit("steps", done=now[0], total=now[1], current=now[2])
            said = now


def _restore(build: Build, layout: Layout) -> list[str]:
    """Declares the saved state of the cluster again; names of the deployments that then run.

    What nothing declares any more is told; it comes back too, unless the policy is to retire it.
    """
    instance, emit, again = build.instance, build.emit, build.again
    client = (build.definitions.resources or {}).get("serve_client")
    if client is None:
        if layout.desired_state.exists():
            raise StackError(
                f"{layout.desired_state} cannot be restored: the definitions have no serve_client."
            )
        return []
    saved = client.target.declared() if again else client.target.saved()
    found = orphaned(Declared.of(build.graph), instance, saved)
    retired = [] if again or environment.orphan_policy() == "keep" else found
    if not again and saved:
        emit("restoring", file=str(layout.desired_state))
        client.target.declare_saved(without=[one.name for one in retired])
    for one in found:
        if one in retired:
            applications = [each["name"] for each in desired_state.of_deployment(saved, one.name)]
            reason = f"no document declares it, and {environment.ORPHANS.name} says retire"
            record = latest(instance, asset_key("deployment", one.name))
            event = retirement(one.name, record, by="make up", reason=reason, applications=applications)
            instance.report_runless_asset_event(event)
        emit("orphan", deployment=one.name, use_case=one.use_case, retired=one in retired)
    kept = [each for one in retired for each in desired_state.of_deployment(saved, one.name)]
    names = [each["name"] for each in saved if each not in kept]
    problems = client.target.problems(names, Wait(lambda line: emit("note", line=line))) if names else {}
    running = []
    for name in desired_state.deployments(each for each in saved if each not in kept):
        own = {each["name"] for each in desired_state.of_deployment(saved, name)}
        failed = [problems[each] for each in sorted(own) if each in problems]
        if not failed:
            running.append(name)
        elif name in {one.name for one in found}:
            emit("lost", use_case=name, reason=f"it could not be restored: {'; '.join(failed)}", run_id="")
    return running


def _wait_for(url: str, emit: Emit) -> None:
    """Returns when the URL answers; how long that may take is the supervisor's business, which ends us."""
    if not answers(url, token=environment.ray_token()):
        emit("note", line="definitions loaded; waiting for Ray")
    while not answers(url, token=environment.ray_token()):
        time.sleep(POLL_S)


def _message(event: dg.DagsterEvent) -> str:
    """What the platform itself said of a failed step; else Dagster's words, down to the cause."""
    own = event.step_failure_data.user_failure_data
    if own is not None and own.description:
        return own.description
    error = event.step_failure_data.error
    messages = []
    while error is not None:
        messages.append(error.message.strip())
        error = error.cause
    return messages[-1] if messages else (event.message or "failed")


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Nobody else builds this graph meanwhile; StackError when somebody does. The kernel ends it at death."""
    with (layout.run / "graph.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError("another `make up` is building what is missing; wait for it") from error
        yield


def main(arguments: list[str]) -> int:
    """Exit code 0 when everything was tried, whatever failed of it; 1 when it could not be tried."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("dashboard_url")
    parser.add_argument("state", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--skip", action="append", default=[])
    given = parser.parse_args(arguments)
    # Steps and libraries print as they like; the documents go where nobody else writes.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as sink:
        os.dup2(2, 1)

        def emit(kind: str, **facts: Any) -> None:
            sink.write(json.dumps({"kind": kind, **facts}) + "\n")

        try:
            layout = Layout(given.state)
            with _alone(layout):
                run_all(
                    given.module, given.dashboard_url, layout, emit, again=given.again, skip=set(given.skip)
                )
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
