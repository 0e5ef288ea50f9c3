"""A person's decisions, recorded as materialisations of the running instance.

Belongs here: launching an approval, an act of a deployment or its retirement with its configuration. Does not
belong here: what is allowed (``rollout/``), carrying it out (``components/``), printing (``cli.py``).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import dagster as dg

from mlops_assets.asset_keys import assets_of
from mlops_assets.asset_names import Kind, asset_name
from mlops_assets.deploying.retiring import Declared, orphaned
from mlops_assets.documents.missing import missing_in
from mlops_assets.errors import ApprovalError, DeploymentError, MlopsError, UnknownName
from mlops_assets.event_log.episode_records import episode_changed, episode_log
from mlops_assets.event_log.no_drift import no_drift_evaluation
from mlops_assets.event_log.records import Record, latest
from mlops_assets.event_log.retrain_requests import newest_ruling, pending_retrain, retrain_requested
from mlops_assets.event_log.run_owner import OWNER_TAG, end_lost, this_process
from mlops_assets.monitoring.episodes import ManualRetrain, close
from mlops_assets.sensors.orphans import JOB, run_config
from mlops_assets.sensors.rollout import ACTION_TAG, ROLLOUT_TAG

ASKED_EVERY_S = 1.0
ANSWERED_WITHIN_S = 60.0


def decide_approval(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    model: str,
    *,
    approver: str,
    reason: str,
    decision: Literal["approve", "reject"] = "approve",
) -> str:
    """Records the decision at the approval of a model; id of the Dagster run.

    An approval is materialised, a rejection observed. Raises UnknownName for a model that needs no approval,
    and ApprovalError with the ruling when the decision is not allowed (the gate did not promote, nobody is
    named).
    """
    key = _key(definitions, "approval", model, "model with an approval")
    config = {"decision": decision, "approver": approver, "reason": reason}
    return _materialise(definitions, instance, key, config, {"mlops/decided_by": approver}, ApprovalError)


def decide_rollout(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    deployment: str,
    *,
    action: Literal["start", "promote", "abort", "set_weight", "rollback"],
    by: str,
    reason: str,
    to: str = "",
    weight: float | None = None,
) -> Record:
    """Materialises a deployment with a person's act; what was recorded.

    Waits for an act that is being carried out. Raises UnknownName for a deployment nobody declared, and
    DeploymentError with the reason when the act is refused or fails: then nothing changed.
    """
    key = _key(definitions, "deployment", deployment, "deployment")
    config: dict[str, Any] = {"action": action, "by": by, "reason": reason, "to": to}
    if weight is not None:
        config["weight"] = weight
    tags = {"mlops/decided_by": by, ROLLOUT_TAG: deployment, ACTION_TAG: action}
    _materialise(definitions, instance, key, config, tags, DeploymentError)
    record = latest(instance, key)
    assert record is not None
    return record


def close_episode(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    model: str,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> int:
    """Closes the open drift episode of a model; its number. ``now`` is data time.

    Raises UnknownName for a model without a monitor, and MlopsError when no episode is open.
    """
    _key(definitions, "drift", model, "model with a drift monitor")
    log = episode_log(instance, model)
    if log.open is None:
        raise MlopsError(f"{model}: no drift episode is open. The last ones: mlops status")
    closed = close(log, by=by, reason=reason, now=now)
    changed = episode_changed(model, closed, f"closed by {by}: {reason}")
    for event in (changed, no_drift_evaluation(model, closed)):
        instance.report_runless_asset_event(event)
    return log.open.number


def ask_for_retrain(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    model: str,
    *,
    by: str,
    reason: str,
    override: bool = False,
    wait_s: float = ANSWERED_WITHIN_S,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Asks the governor of a model for a retrain, and waits for the answer; what was granted, in words.

    Raises UnknownName for a model without a monitor, and MlopsError when the governor refuses (with the
    limit, until when and what to do) or does not answer within ``wait_s``: then the request stands.
    """
    _key(definitions, "drift", model, "model with a drift monitor")
    if not by.strip() or not reason.strip():
        raise MlopsError(f"{model}: a request needs a name and a reason: --by NAME --reason TEXT")
    instance.report_runless_asset_event(retrain_requested(model, ManualRetrain(by, reason, override)))
    waited = 0.0
    while pending_retrain(instance, model) is not None:
        if waited >= wait_s:
            raise MlopsError(
                f"{model}: nobody answered within {wait_s:g} s. The request stands, and the sensor "
                f"drift_{model} answers it as soon as it runs: mlops status"
            )
        sleep(ASKED_EVERY_S)
        waited += ASKED_EVERY_S
    ruling = newest_ruling(instance, model)
    assert ruling is not None
    if ruling.state == "refused":
        raise MlopsError(ruling.reason)
    return ruling.reason


def retire(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    deployment: str,
    *,
    applications: Sequence[Mapping[str, Any]],
    by: str,
    reason: str,
) -> str:
    """Takes an orphaned deployment out of service; id of the Dagster run. ``applications``: those declared.

    Waits for an act that is being carried out. Raises UnknownName when that is no orphan, and DeploymentError
    with the reason when it cannot be stopped.
    """
    declared = Declared.of(definitions.resolve_asset_graph())
    found = [one.name for one in orphaned(declared, instance, applications)]
    if deployment not in found:
        known = deployment in declared.deployments
        step = "It is declared: remove its folder first, or it would be deployed again." if known else ""
        raise UnknownName("orphaned deployment", deployment, found, next_step=step)
    job = definitions.resolve_job_def(JOB)
    config = run_config(deployment, by, reason)
    tags = {"mlops/decided_by": by}
    return _carry_out(instance, job, config, tags, DeploymentError)


def _key(definitions: dg.Definitions, kind: Kind, name: str, what: str) -> dg.AssetKey:
    graph = definitions.resolve_asset_graph()
    known = assets_of(graph, kind)
    if name not in known:
        key = asset_name(kind, name)
        lost = next((one for one in missing_in(graph) if key in one.assets), None)
        step = f"{key} is missing: {lost.problem}" if lost else ""
        raise UnknownName(what, name, known, next_step=step)
    return known[name]


def _materialise(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    config: Mapping[str, Any],
    tags: Mapping[str, str],
    error: type[MlopsError],
) -> str:
    job = definitions.resolve_implicit_global_asset_job_def()
    ops = {"ops": {key.to_python_identifier(): {"config": dict(config)}}}
    return _carry_out(instance, job, ops, tags, error, [key])


def _carry_out(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    tags: Mapping[str, str],
    error: type[MlopsError],
    selection: Sequence[dg.AssetKey] | None = None,
) -> str:
    """Runs the job in this process; id of the run. Raises ``error`` with the step's own words."""
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=100):
        end_lost(instance, run)
    result = job.execute_in_process(
        instance=instance,
        asset_selection=list(selection) if selection is not None else None,
        # The run's page has every event; a person at the prompt wants the outcome.
        run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags={**tags, OWNER_TAG: this_process()},
        raise_on_error=False,
    )
    if not result.success:
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        reason = next((f.user_failure_data.description for f in failures if f.user_failure_data), None)
        raise error(
            reason or str(failures[0].error.message if failures and failures[0].error else "run failed")
        )
    return str(result.run_id)
