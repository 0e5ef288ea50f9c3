"""The events, runs and alerts of each action of the drift sensor.

Belongs here: what an action that is decided on leaves in Dagster, and its alert. Does not belong here: which
action is due (``monitoring/episodes.py``), the form of the events (``event_log/episode_records.py``,
``event_log/retrain_requests.py``), the sensor (``drift.py``).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dagster as dg

from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.asset_names import Kind, asset_name
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.event_log.episode_records import episode_changed, episode_opened
from mlops_assets.event_log.no_drift import no_drift_evaluation
from mlops_assets.event_log.retrain_requests import PendingRetrain, retrain_granted, retrain_refused
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG
from mlops_assets.event_log.successor import MONITOR_TAG, RECONCILER, RETRAINING
from mlops_assets.monitoring.episodes import LoopAction
from mlops_assets.monitoring.policy import DriftVerdict
from mlops_assets.monitoring.relaunch import NextLaunch
from mlops_assets.resources.alerts import Alert

GOVERNOR = "governor"
CHAIN: tuple[Kind, ...] = (*RETRAINING, "approval")
APPROVAL_AT, VERDICT_AT = CHAIN.index("approval"), CHAIN.index("evaluation")

EpisodeAlert = Literal["episode_opened", "episode_closed", "retrain_failed"]


def chain_keys(declared: DriftMonitorDeclaration) -> list[dg.AssetKey]:
    """What one retrain makes, from the training set to the deployment."""
    made = [asset_key(kind, declared.model) for kind in CHAIN]
    return [*made, asset_key("deployment", declared.served_by)]


@dataclass(frozen=True)
class ActionEffects:
    """What one action reports to Dagster, launches and alerts of."""

    events: tuple[dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation, ...] = ()
    runs: tuple[dg.RunRequest, ...] = ()
    alert: Alert | None = None


def effects_of(
    action: LoopAction,
    declared: DriftMonitorDeclaration,
    verdict: DriftVerdict,
    pending: PendingRetrain | None,
    *,
    manual: bool,
) -> ActionEffects:
    """What an action reports, launches and alerts of; nothing for one that waits.

    ``verdict``: the policy's, which an opened episode records. ``pending``: the request that a grant or a
    refusal rules on. ``manual``: whether a person approves what is deployed.
    """
    model, log, reason = declared.model, action.log, action.reason
    if action.kind == "open":
        metadata = {
            "signals": dg.MetadataValue.json([asdict(signal) for signal in verdict.signals]),
            "drift": dg.MetadataValue.asset(asset_key("drift", model)),
        }
        events = (episode_opened(model, log, metadata), no_drift_evaluation(model, log))
        return ActionEffects(events, alert=episode_alert(declared, action, "episode_opened"))
    if action.kind == "grant":
        request = log.newest.request_version if log.newest is not None else ""
        run = _run_of(chain_keys(declared), declared, f"{request}/granted", GOVERNOR, manual=manual)
        # A grant to the open episode rules on no request that came meanwhile.
        granted = retrain_granted(model, log, reason, pending if action.answers_person else None)
        return ActionEffects((granted,), (run,))
    if action.kind == "judge":
        run = _another_look(declared, action, manual=manual)
        return ActionEffects((episode_changed(model, log, reason),), (run,))
    if action.kind == "refuse" and pending is not None:
        return _refusal(declared, action, pending)
    if action.kind == "outcome":
        attempt = log.newest.attempts[-1] if log.newest else None
        failed = attempt is not None and attempt.outcome == "failed"
        alert = episode_alert(declared, action, "retrain_failed") if failed else None
        return ActionEffects((episode_changed(model, log, reason),), alert=alert)
    if action.kind == "close":
        closed = (episode_changed(model, log, reason), no_drift_evaluation(model, log))
        # A routine retrain is told of by the gate and the rollout; no episode ended that anybody heard of.
        routine = log.newest is not None and log.newest.is_routine
        return ActionEffects(
            closed, alert=None if routine else episode_alert(declared, action, "episode_closed")
        )
    if action.kind == "reconcile":
        keys = chain_keys(declared)
        wanted = keys[APPROVAL_AT:] if action.scope == "approval" else keys
        return ActionEffects(runs=(_run_of(wanted, declared, action.run_key, RECONCILER, manual=manual),))
    return ActionEffects()


def _run_of(
    keys: Sequence[dg.AssetKey],
    declared: DriftMonitorDeclaration,
    run_key: str | None,
    by: str,
    *,
    manual: bool,
    run_config: dict[str, Any] | None = None,
) -> dg.RunRequest:
    # An approval that a person has to give fails the run that asks for it.
    selected = [key for key in keys if read_key(key).kind not in ("approval", "deployment") or not manual]
    tags = {MONITOR_TAG: declared.model, LAUNCHED_BY_TAG: by}
    return dg.RunRequest(run_key=run_key, asset_selection=selected, tags=tags, run_config=run_config)


def _another_look(declared: DriftMonitorDeclaration, action: LoopAction, *, manual: bool) -> dg.RunRequest:
    """The run that judges the newest candidate again, and brings it up if it passes now."""
    looks = action.log.newest.attempts[-1].looks if action.log.newest is not None else 1
    op = asset_name("evaluation", declared.model)
    return _run_of(
        chain_keys(declared)[VERDICT_AT:],
        declared,
        action.run_key,
        GOVERNOR,
        manual=manual,
        run_config={"ops": {op: {"config": {"look": looks}}}},
    )


def _refusal(declared: DriftMonitorDeclaration, action: LoopAction, pending: PendingRetrain) -> ActionEffects:
    """A refused request; only a person's is worth an alert."""
    command = f"mlops retrain {declared.model} --by NAME --reason TEXT"
    if pending.request.due:
        # Routine, above all where nothing newer is there: it stands in the status, and nobody is called.
        reason = f"{action.reason}. It asks again by itself; sooner: {command}"
        return ActionEffects((retrain_refused(declared.model, pending, reason),))
    to_do = f"mlops status; then ask again with: {command}"
    if action.may_override:
        to_do = f"ask again later, or go on with: {command} --override"
    alert = Alert(
        kind="retrain_refused",
        subject=asset_name("retrain_request", declared.model),
        summary=action.reason,
        command=to_do,
        # A script that asks every minute is told of once for each limit it runs into.
        dedupe=action.reason,
    )
    return ActionEffects(
        (retrain_refused(declared.model, pending, f"{action.reason}. To do: {to_do}"),), alert=alert
    )


def episode_alert(declared: DriftMonitorDeclaration, action: LoopAction, kind: EpisodeAlert) -> Alert:
    """The alert of an episode that opened or closed, or of its retrain that failed."""
    model = declared.model
    commands = {
        "episode_opened": f"mlops status; close it with: mlops close-episode {model} --by NAME --reason TEXT",
        "episode_closed": "mlops status",
        "retrain_failed": "read the run's log; it is tried again by itself",
    }
    episode = action.log.newest
    return Alert(
        kind=kind,
        subject=asset_name("model", model),
        summary=action.reason,
        command=commands[kind],
        version=episode.version if episode else "",
        dedupe=f"{action.episode}.{action.attempt or 0}",
    )


def approval_lost_alert(declared: DriftMonitorDeclaration, version: str, lost: NextLaunch) -> Alert:
    """The alert of an approval that is launched no more."""
    model = declared.model
    return Alert(
        kind="approval_lost",
        subject=asset_name("approval", model),
        summary=f"{version} passed the gate and no approval followed: {lost.reason}",
        command=f"mlops approve {model} --by NAME --reason TEXT (or --reject)",
        version=version,
    )
