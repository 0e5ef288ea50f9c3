"""The rollout sensor of one deployment: looks at what is true, and launches the one act that is due.

Belongs here: reading the cluster, the gateway's evidence and the last record, and turning a decision into
a run. Does not belong here: the decision (``rollout/plan.py``), the run (``deploying/rolling_out.py``).

The sensor keeps no truth of its own: what is declared stands in the cluster, what was recorded in
Dagster's event log. Its cursor only counts measurements. So it may be stopped and started at any point.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.assessing import Assessment, Watched, assess, labelled_losses
from mlops_assets.deploying.record import described, recorded
from mlops_assets.errors import ClusterUnreachable
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import Record, current_versions, latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.approval import rule_on_deployment
from mlops_assets.rollout.plan import Failures, RolloutPlan, labels_of, needs_start, under_way
from serve.schema import Routing

ROLLOUT_TAG = "mlops/rollout"
ACTION_TAG = "mlops/action"
SENSOR = "rollout sensor"
INTERVAL_S = 10
APPROVAL_GRACE_S = 60.0
"""Automation follows an approval within this time; the sensor steps in only after it."""


@dataclass(frozen=True)
class RolloutCursor:
    """What was measured under one revision: enough to record every measurement once."""

    revision: int = -1
    measured: int = 0
    failed: int = 0
    failed_at: int = 0

    @staticmethod
    def read(text: str | None) -> "RolloutCursor":
        return RolloutCursor(**json.loads(text)) if text else RolloutCursor()

    def failures(self) -> Failures:
        return Failures(self.revision, self.failed, self.failed_at)


@dataclass(frozen=True)
class RunToLaunch:
    """An act to launch; ``judgement`` as plain values."""

    action: str
    reason: str
    revision: int | None = None
    judgement: dict[str, Any] | None = None


@dataclass(frozen=True)
class RolloutScope:
    """What one sensor looks after. ``bound``: the assets whose data versions an approval holds for."""

    name: str
    model: str
    plan: RolloutPlan
    bound: tuple[dg.AssetKey, ...]

    @property
    def key(self) -> dg.AssetKey:
        return asset_key("deployment", self.name)

    @property
    def approval(self) -> dg.AssetKey:
        return asset_key("approval", self.model)


def rollout_sensor(
    *,
    name: str,
    model: str,
    plan: RolloutPlan,
    bound: Sequence[dg.AssetKey],
    clock: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor ``rollout_<name>``, running from the start."""
    scope = RolloutScope(name, model, plan, tuple(bound))
    key = scope.key

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
        cursor = RolloutCursor.read(context.cursor)
        try:
            due, looked = _looked(scope, instance, serve_client, cursor, now)
        except ClusterUnreachable as error:
            return dg.SensorResult(skip_reason=str(error))
        events, cursor = _measurements(scope, looked, cursor)
        if due.action == "wait":
            return dg.SensorResult(skip_reason=due.reason, asset_events=events, cursor=_text(cursor))
        return dg.SensorResult(
            run_requests=[_request(key, name, due)], asset_events=events, cursor=_text(cursor)
        )

    return watch


def _looked(
    scope: RolloutScope, instance: dg.DagsterInstance, client: ServeClient, cursor: RolloutCursor, now: float
) -> tuple[RunToLaunch, Assessment | None]:
    """The act to launch; what was seen of the rollout under way, where that was looked at."""
    known = recorded(latest(instance, scope.key))
    routing = desired_state.routing_of(client.target.declared(), scope.name)
    if routing is None and known.revision is not None:
        return RunToLaunch("converge", f"the cluster lost revision {known.revision}"), None
    if routing is not None and known.revision != routing.revision:
        why = f"revision {routing.revision} is declared, {known.revision} is recorded"
        return RunToLaunch("converge", why, routing.revision), None
    rejected = _rejected_target(instance, scope.approval, routing)
    if routing is not None and rejected is not None:
        return RunToLaunch("abort", rejected, routing.revision), None
    approved, why_not = _approved(scope, instance, now)
    starts, why = needs_start(routing, approved, known.withdrawn)
    if starts:
        return RunToLaunch("follow", why, routing.revision if routing else None), None
    if routing is None:
        return RunToLaunch("wait", why_not or why), None
    watched = Watched(scope.name, scope.plan, client, lambda: labelled_losses(instance, scope.model))
    looked = assess(watched, routing, known, now=now, failures=cursor.failures())
    act = looked.due
    return RunToLaunch(act.action, act.reason, routing.revision, described(looked.judgement)), looked


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


def _approved(scope: RolloutScope, instance: dg.DagsterInstance, now: float) -> tuple[str | None, str]:
    """Label of the version that is approved and was for a while, or why there is none."""
    record: Record | None = latest(instance, scope.approval)
    ruling = rule_on_deployment(
        newest_decision(instance, scope.approval),
        current_versions(instance, list(scope.bound)),
        model=scope.model,
    )
    if record is None or not ruling.allowed:
        return None, ruling.reason
    if now - record.timestamp < APPROVAL_GRACE_S:
        return None, "the approval is fresh; automation follows it"
    return f"v{int(record.metadata['model_version'])}", ""


def _measurements(
    scope: RolloutScope, looked: Assessment | None, cursor: RolloutCursor
) -> tuple[list[dg.AssetObservation], RolloutCursor]:
    """One observation per new measurement: at every further ``min_requests`` requests, or labels of them,
    and at every failed one.
    """
    if looked is None or looked.judgement is None:
        return [], cursor
    routing: Routing = looked.routing
    mark = under_way(routing)
    if mark is None or mark.step >= len(scope.plan.steps):
        return [], cursor
    failures = looked.failures
    before = cursor if cursor.revision == routing.revision else RolloutCursor(routing.revision)
    every = max(1, scope.plan.steps[mark.step].min_requests)
    samples = looked.due.samples
    measured = samples // every + labels_of(looked.judgement) // every
    after = RolloutCursor(
        routing.revision, max(measured, before.measured), failures.count, failures.at_samples
    )
    if measured <= before.measured and failures.count <= before.failed:
        return [], after
    judgement = looked.judgement
    return [
        dg.AssetObservation(
            asset_key=scope.key,
            description=f"{judgement.phase}: {judgement.reason}",
            metadata={
                "measurement": measured,
                "phase": judgement.phase,
                "samples": samples,
                "revision": routing.revision,
                "target": mark.target,
                "judgement": dg.MetadataValue.json(described(judgement) or {}),
                "decision": f"{looked.due.action}: {looked.due.reason}",
            },
        )
    ], after


def _request(key: dg.AssetKey, name: str, due: RunToLaunch) -> dg.RunRequest:
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


def _text(cursor: RolloutCursor) -> str:
    return json.dumps(asdict(cursor))
