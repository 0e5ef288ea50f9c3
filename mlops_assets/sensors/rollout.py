"""The rollout sensor of one deployment: looks at what is true, and launches the one act that is due.

Belongs here: reading the cluster, the gateway's evidence and the last record, and turning a decision into
a run. Does not belong here: the decision (``rollout/plan.py``), the act (``deploying/rolling_out.py``).

The sensor keeps no truth of its own: what is declared stands in the cluster, what was recorded in
Dagster's event log. Its cursor only counts measurements. So it may be stopped and started at any point.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.asset_names import asset_name
from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.event_log.records import Record, current_versions, latest
from mlops_assets.deploying.retiring import in_service
from mlops_assets.deploying.rolling_out import Assessment, assess, described, labelled_losses
from mlops_assets.event_log.run_owner import end_lost
from mlops_assets.errors import ClusterUnreachable
from mlops_assets.monitoring.lost import Launch, RelaunchPolicy, again
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.approval import Approval, approval_of, rule_on_deployment
from mlops_assets.rollout.plan import Failures, Plan, labels_of, needs_start, under_way
from serve.schema import Routing

ROLLOUT_TAG = "mlops/rollout"
ACTION_TAG = "mlops/action"
LAUNCHED_BY_TAG = "mlops/launched_by"
SENSOR = "rollout sensor"
INTERVAL_S = 10
APPROVAL_GRACE_S = 60.0
"""Automation follows an approval within this time; the sensor steps in only after it."""
ACTS = RelaunchPolicy(
    first_back_off=timedelta(seconds=30), longest_back_off=timedelta(minutes=30), launches=None
)
"""A deployment is repaired for as long as it takes."""
RUNS_AT_ONCE = 100

UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class Cursor:
    """What was measured under one revision: enough to record every measurement once."""

    revision: int = -1
    measured: int = 0
    failed: int = 0
    failed_at: int = 0

    @staticmethod
    def read(text: str | None) -> "Cursor":
        return Cursor(**json.loads(text)) if text else Cursor()

    def failures(self) -> Failures:
        return Failures(self.revision, self.failed, self.failed_at)


@dataclass(frozen=True)
class Due:
    """An act to launch; ``judgement`` as plain values."""

    action: str
    reason: str
    revision: int | None = None
    judgement: dict[str, Any] | None = None


def rollout_sensor(
    *, name: str, model: str, plan: Plan, bound: Sequence[dg.AssetKey], clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """The sensor ``rollout_<name>``, running from the start."""
    key = asset_key("deployment", name)
    approval_key = asset_key("approval", model)

    @dg.sensor(
        name=f"rollout_{name}",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Advances, pauses or aborts the rollout of the deployment {name}, and repairs it.",
    )
    def watch(context: dg.SensorEvaluationContext, serve_client: ServeClient) -> dg.SensorResult:
        instance = context.instance
        busy = unfinished_run(instance, key)
        if busy is not None:
            return dg.SensorResult(
                skip_reason=f"run {busy} of {asset_name('deployment', name)} is not finished"
            )
        now = clock()
        # A person's refused command says nothing about the sensor's own acts.
        wait_s = back_off(instance, {ROLLOUT_TAG: name, LAUNCHED_BY_TAG: SENSOR}, now)
        if wait_s > 0:
            return dg.SensorResult(skip_reason=f"the last act failed; the next try is in {wait_s:.0f} s")
        cursor = Cursor.read(context.cursor)
        try:
            due, looked = _look(
                instance, serve_client, name, key, approval_key, list(bound), plan, cursor, now
            )
        except ClusterUnreachable as error:
            return dg.SensorResult(skip_reason=str(error))
        events, cursor = _measurements(key, plan, looked, cursor)
        if due.action == "wait":
            return dg.SensorResult(skip_reason=due.reason, asset_events=events, cursor=_text(cursor))
        return dg.SensorResult(
            run_requests=[_request(key, name, due)], asset_events=events, cursor=_text(cursor)
        )

    return watch


def _look(
    instance: dg.DagsterInstance,
    client: ServeClient,
    name: str,
    key: dg.AssetKey,
    approval_key: dg.AssetKey,
    bound: list[dg.AssetKey],
    plan: Plan,
    cursor: Cursor,
    now: float,
) -> tuple[Due, Assessment | None]:
    record = in_service(latest(instance, key))
    routing = desired_state.routing_of(client.declared(), name)
    recorded = int(record.metadata["revision"]) if record and "revision" in record.metadata else None
    if routing is None and recorded is not None:
        return Due("converge", f"the cluster lost revision {recorded}"), None
    if routing is not None and recorded != routing.revision:
        told = f"revision {routing.revision} is declared, {recorded} is recorded"
        return Due("converge", told, routing.revision), None
    rejected = _rejected_target(instance, approval_key, routing)
    if routing is not None and rejected is not None:
        return Due("abort", rejected, routing.revision), None
    approved, why_not = _approved(instance, approval_key, bound, model=read_key(approval_key).name, now=now)
    withdrawn = dict(record.metadata.get("withdrawn") or {}) if record else {}
    start, why = needs_start(routing, approved, withdrawn)
    if start:
        return Due("follow", why, routing.revision if routing else None), None
    if routing is None:
        return Due("wait", why_not or why), None
    looked = assess(
        plan,
        client,
        name,
        routing,
        record,
        now=now,
        failures=cursor.failures(),
        losses=lambda: labelled_losses(instance, read_key(approval_key).name),
    )
    decision = looked.decision
    return (
        Due(decision.action, decision.reason, routing.revision, described(looked.judgement)),
        looked,
    )


def newest_decision(instance: dg.DagsterInstance, approval_key: dg.AssetKey) -> Approval | None:
    """The last approval, or the rejection that took it back: a rejection is observed, not materialised."""
    record = latest(instance, approval_key)
    for observed in instance.fetch_observations(approval_key, limit=1).records:
        event = observed.asset_observation
        told = {name: value.value for name, value in event.metadata.items()} if event else {}
        newer = record is None or observed.timestamp > record.timestamp
        if newer and told.get("decision") == "reject":
            return approval_of(told)
    return approval_of(record.metadata if record else None)


def _rejected_target(
    instance: dg.DagsterInstance, approval_key: dg.AssetKey, routing: Routing | None
) -> str | None:
    """Why the version being rolled out is approved no more, or None."""
    mark = under_way(routing)
    record = latest(instance, approval_key)
    if mark is None or record is None:
        return None
    decision = newest_decision(instance, approval_key)
    if decision is None or decision.decision != "reject":
        return None
    if mark.target != f"v{int(record.metadata['model_version'])}":
        return None
    return f"{mark.target} was rejected by {decision.approver}: {decision.reason}"


def _approved(
    instance: dg.DagsterInstance,
    approval_key: dg.AssetKey,
    bound: list[dg.AssetKey],
    *,
    model: str,
    now: float,
) -> tuple[str | None, str]:
    """Label of the version that is approved and was for a while, or why there is none."""
    record: Record | None = latest(instance, approval_key)
    ruling = rule_on_deployment(
        newest_decision(instance, approval_key), current_versions(instance, bound), model=model
    )
    if record is None or not ruling.allowed:
        return None, ruling.reason
    if now - record.timestamp < APPROVAL_GRACE_S:
        return None, "the approval is fresh; automation follows it"
    return f"v{int(record.metadata['model_version'])}", ""


def _measurements(
    key: dg.AssetKey, plan: Plan, looked: Assessment | None, cursor: Cursor
) -> tuple[list[dg.AssetObservation], Cursor]:
    """One observation per new measurement: at every further ``min_requests`` requests, or labels of them,
    and at every failed one.
    """
    if looked is None or looked.judgement is None:
        return [], cursor
    routing: Routing = looked.routing
    mark = under_way(routing)
    if mark is None or mark.step >= len(plan.steps):
        return [], cursor
    failures = looked.failures
    before = cursor if cursor.revision == routing.revision else Cursor(routing.revision)
    every = max(1, plan.steps[mark.step].min_requests)
    samples = looked.decision.samples
    measured = samples // every + labels_of(looked.judgement) // every
    after = Cursor(routing.revision, max(measured, before.measured), failures.count, failures.at_samples)
    if measured <= before.measured and failures.count <= before.failed:
        return [], after
    judgement = looked.judgement
    return [
        dg.AssetObservation(
            asset_key=key,
            description=f"{judgement.phase}: {judgement.reason}",
            metadata={
                "measurement": measured,
                "phase": judgement.phase,
                "samples": samples,
                "revision": routing.revision,
                "target": mark.target,
                "judgement": dg.MetadataValue.json(described(judgement) or {}),
                "decision": f"{looked.decision.action}: {looked.decision.reason}",
            },
        )
    ], after


def _request(key: dg.AssetKey, name: str, due: Due) -> dg.RunRequest:
    config = {
        "action": due.action,
        "revision": -1 if due.revision is None or due.action == "follow" else due.revision,
        "by": SENSOR,
        "reason": due.reason,
        "judgement": json.dumps(due.judgement) if due.judgement else "",
    }
    if due.action == "converge":
        config["revision"] = -1
    return dg.RunRequest(
        asset_selection=[key],
        run_config={"ops": {key.to_python_identifier(): {"config": config}}},
        tags={ROLLOUT_TAG: name, ACTION_TAG: due.action, LAUNCHED_BY_TAG: SENSOR},
    )


def unfinished_run(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """Id of a run of the asset that has not ended, or None; a run whose process is gone is ended first."""
    unfinished = dg.RunsFilter(statuses=list(UNFINISHED))
    behind: str | None = None
    while True:
        runs = instance.get_runs(filters=unfinished, cursor=behind, limit=RUNS_AT_ONCE)
        for run in runs:
            targeted = run.asset_selection is not None and key in run.asset_selection
            if targeted and not end_lost(instance, run):
                return run.run_id
        if len(runs) < RUNS_AT_ONCE:
            return None
        behind = runs[-1].run_id


def back_off(instance: dg.DagsterInstance, tags: Mapping[str, str], now: float) -> float:
    """Seconds left to wait after runs with these tags that failed one after the other; 0 when none did."""
    failed = []
    for record in instance.get_run_records(filters=dg.RunsFilter(tags=dict(tags)), limit=8):
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        at = record.create_timestamp.replace(tzinfo=UTC)
        failed.append(Launch("act", at, datetime.fromtimestamp(record.end_time or now, UTC)))
    ruled = again(failed[::-1], ACTS, datetime.fromtimestamp(now, UTC))
    return ruled.next_at.timestamp() - now if ruled.next_at is not None else 0.0


def _text(cursor: Cursor) -> str:
    return json.dumps(asdict(cursor))
