"""A version that passed the gate and does not answer yet, and what became of its approval.

Belongs here: reading both from the event log and the runs. Does not belong here: whether a lost approval
is launched again (``monitoring/``), launching it (``sensors/drift_actions.py``), giving one
(``assets/approval.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import current_versions, latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, UNFINISHED, unfinished_run
from mlops_assets.event_log.served_state import MonitorSummary
from mlops_assets.monitoring.episodes import LoopFacts, lost_approval
from mlops_assets.monitoring.relaunch import Launch, NextLaunch, launched_for

MONITOR_TAG = "mlops/monitor"
RECONCILER = "reconciler"
RUN_KEY_TAG = "dagster/run_key"
APPROVAL_GRACE_S = 120.0
"""Automation follows a promoting verdict within this time."""
BOUND: tuple[Kind, ...] = ("evaluation", "model", "training_set")
"""What an approval is bound to."""
RETRAINING: tuple[Kind, ...] = ("training_set", "candidates", "model", "evaluation")
"""What one retrain makes, up to the verdict."""
RUNS_READ = 200


@dataclass(frozen=True)
class Successor:
    """``passed_at``: when its verdict was given, real time. ``unapproved``: its approval was lost."""

    version: str
    passed_at: datetime
    unapproved: bool


def successor_of(instance: dg.DagsterInstance, monitor: MonitorSummary, now: float) -> Successor | None:
    """The version that passed the gate, was neither rejected nor withdrawn, and is not stable; None without.

    ``now``: real time, Unix seconds.
    """
    model = monitor.model
    evaluated = latest(instance, asset_key("evaluation", model))
    # One that somebody reported by hand has no outcome, and is none.
    if evaluated is None or evaluated.metadata.get("outcome") != "promote":
        return None
    deployed = latest(instance, monitor.deployment_key)
    act = deployed.metadata if deployed else {}
    version = f"v{int(evaluated.metadata['model_version'])}"
    approval_key = asset_key("approval", model)
    bound = [asset_key(kind, model) for kind in BOUND]
    decided = newest_decision(instance, approval_key)
    is_bound = decided is not None and dict(decided.bound_to) == current_versions(instance, bound)
    rejected = is_bound and decided is not None and decided.decision == "reject"
    stable = str(act.get("stable") or "")
    if version == stable or version in (act.get("withdrawn") or {}) or rejected:
        return None
    unapproved = (
        not is_bound
        and monitor.approval == "auto"
        and now - evaluated.timestamp > APPROVAL_GRACE_S
        and unfinished_run(instance, approval_key) is None
    )
    return Successor(version, _time(evaluated.timestamp), unapproved)


def retraining_run(instance: dg.DagsterInstance, model: str) -> str | None:
    """Id of a run that makes anything from the training set to the verdict and has not ended, or None."""
    for kind in RETRAINING:
        run = unfinished_run(instance, asset_key(kind, model))
        if run is not None:
            return run
    return None


def launches_of(instance: dg.DagsterInstance, model: str) -> tuple[Launch, ...]:
    """The newest runs that were launched for what automation lost, oldest first."""
    tags = {MONITOR_TAG: model, LAUNCHED_BY_TAG: RECONCILER}
    found = []
    for record in instance.get_run_records(filters=dg.RunsFilter(tags=tags), limit=RUNS_READ):
        run = record.dagster_run
        if RUN_KEY_TAG not in run.tags:
            continue
        ended = None
        if run.status not in UNFINISHED:
            ended = _time(record.end_time) if record.end_time else record.update_timestamp.replace(tzinfo=UTC)
        at = record.create_timestamp.replace(tzinfo=UTC)
        found.append(Launch(launched_for(run.tags[RUN_KEY_TAG]), at, ended))
    return tuple(reversed(found))


def lost_approval_now(
    instance: dg.DagsterInstance, monitor: MonitorSummary, clock: Callable[[], float]
) -> tuple[str, NextLaunch] | None:
    """The version whose approval was lost, and whether it is launched again; None when none is lost."""
    now = clock()
    in_flight = retraining_run(instance, monitor.model)
    found = successor_of(instance, monitor, now)
    if found is None or not found.unapproved:
        return None
    facts = LoopFacts(
        served=None,
        in_flight=in_flight,
        launches=launches_of(instance, monitor.model),
        unapproved=found.version,
        unapproved_since=found.passed_at,
        real_now=_time(now),
    )
    ruled = lost_approval(facts, monitor.relaunch_policy)
    return (found.version, ruled) if ruled is not None else None


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
