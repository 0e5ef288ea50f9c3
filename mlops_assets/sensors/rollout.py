"""The rollout sensor of one deployment: looks at what is true, and launches the one act that is due.

Belongs here: reading the cluster, the gateway's evidence and the last record, and turning a decision into
a run. Does not belong here: the decision (``rollout/plan.py``), the act (``deploying/rolling_out.py``).

The sensor keeps no truth of its own: what is declared stands in the cluster, what was recorded in
Dagster's event log. Its cursor only counts measurements. So it may be stopped and started at any point.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.retiring import in_service
from mlops_assets.deploying.rolling_out import Assessment, assess, described, labelled_losses
from mlops_assets.errors import ClusterUnreachable
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import Record, current_versions, latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.approval import rule_on_deployment
from mlops_assets.rollout.plan import Failures, Plan, labels_of, needs_start, under_way
from serve.schema import Routing

ROLLOUT_TAG = "mlops/rollout"
ACTION_TAG = "mlops/action"
SENSOR = "rollout sensor"
INTERVAL_S = 10
APPROVAL_GRACE_S = 60.0
"""Automation follows an approval within this time; the sensor steps in only after it."""


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


def _text(cursor: Cursor) -> str:
    return json.dumps(asdict(cursor))
