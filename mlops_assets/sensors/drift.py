"""The sensor ``drift_<model>``: what the measured windows and the labels lead to.

Belongs here: reading facts from the event log and the registry, asking for the actions that are due, telling
the gateway. Does not belong here: the decision (``monitoring/episodes.py``), what an action leaves in Dagster
(``drift_actions.py``), when to measure (``measuring.py``), measuring (``assets/measuring.py``).

The sensor keeps no truth of its own. What was measured stands in the materialisations of performance and
drift, episodes and granted retrains in the events of the drift signal and the retrain request.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.measuring import NEWEST_DATA
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.errors import ClusterUnreachable, DeploymentError
from mlops_assets.event_log.episode_records import episode_log, signal_key
from mlops_assets.event_log.no_drift import NO_DRIFT
from mlops_assets.event_log.records import latest, newest_data, newest_event, read_version
from mlops_assets.event_log.retrain_attempt import attempt_facts
from mlops_assets.event_log.retrain_requests import PendingRetrain, pending_retrain
from mlops_assets.event_log.served_state import (
    TRAINED_UNTIL,
    MonitorSummary,
    ServedVersion,
    served_evaluation,
    served_version,
    staleness_of,
)
from mlops_assets.event_log.successor import launches_of, retraining_run, successor_of
from mlops_assets.monitoring.episodes import (
    AttemptFacts,
    EpisodeLog,
    LoopAction,
    LoopFacts,
    LoopRules,
    lost_approval,
    next_action,
)
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.policy import DataAge, DriftVerdict, drift_verdict
from mlops_assets.monitoring.relaunch import NextLaunch
from mlops_assets.monitoring.served import Staleness
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.sensors.drift_actions import approval_lost_alert, chain_keys, effects_of
from mlops_assets.sensors.quiet import Quiet
from serve.schema import MonitoringReport

INTERVAL_S = 10
REPORT_EVERY_S = 60.0
"""A gateway that lost its aggregator lost the report too."""
WORST_REPORTED = 20
MOST_ACTIONS = 4
"""Actions carried out in one tick; opening an episode and granting its first retrain are two."""


@dataclass(frozen=True)
class DriftTick:
    """What one tick goes by: ``answering`` is the version that answers, looked up once.

    ``now`` is data time; ``real_now`` real time, Unix seconds, by which runs are waited for. ``event``: the
    newest event before the look.
    """

    instance: dg.DagsterInstance
    declared: DriftMonitorDeclaration
    monitor: MonitorSummary
    answering: ServedVersion | None
    now: datetime
    real_now: float
    event: int


def drift_sensor(
    declared: DriftMonitorDeclaration, monitor: MonitorSummary, *, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """The sensor ``drift_<model>``: opens and closes episodes, grants retrains, repairs lost ones.

    ``clock``: real time, Unix seconds, which runs are waited for by; data time comes from the resource.
    """
    real_clock = clock
    no_drift = dg.AssetCheckKey(asset_key("model", declared.model), NO_DRIFT)
    targets = dg.AssetSelection.assets(*chain_keys(declared))

    @dg.sensor(
        name=f"drift_{declared.model}",
        target=targets | dg.AssetSelection.checks(no_drift, monitor.check_key),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Opens drift episodes of {declared.model}, grants retrains, closes them.",
    )
    def watch(
        context: dg.SensorEvaluationContext,
        clock: Clock,
        model_registry: ModelRegistry,
        serve_client: ServeClient,
        alerts: Alerts,
    ) -> dg.SensorResult:
        instance, now, real_now = context.instance, clock.now(), real_clock()
        # Before the look: what is recorded meanwhile is news for the next tick.
        event = newest_event(instance)
        before = Quiet.read(json.loads(context.cursor or "{}").get("quiet"))
        if before is not None and before.holds(event=event, data=now.timestamp(), real=real_now):
            return dg.SensorResult(skip_reason=before.reason, cursor=context.cursor)
        answering = served_version(
            instance, model_registry, model=declared.model, deployment=declared.served_by
        )
        tick = DriftTick(instance, declared, monitor, answering, now, real_now, event)
        return _act(tick, context.cursor, serve_client, alerts)

    return watch


def _act(tick: DriftTick, cursor: str | None, client: ServeClient, alerts: Alerts) -> dg.SensorResult:
    """The result of a tick: every action that is due, or none when the episodes changed meanwhile."""
    instance, declared, monitor = tick.instance, tick.declared, tick.monitor
    verdict = drift_verdict_now(instance, tick.answering, declared, monitor, tick.now)
    before = episode_log(instance, declared.model)
    pending = pending_retrain(instance, declared.model)
    facts = loop_facts(tick, before, pending)
    actions = list(_due_actions(declared, facts, before, verdict, tick.now))
    last, manual = actions[-1], monitor.approval == "manual"
    effects = [effects_of(one, declared, verdict, pending, manual=manual) for one in actions]
    events = [event for each in effects for event in each.events]
    runs = [run for each in effects for run in each.runs]
    news = [each.alert for each in effects if each.alert]
    staleness = staleness_of(instance, monitor, tick.answering, now=tick.now, episodes=last.log)
    memory = json.loads(cursor) if cursor else {}
    served = _check_in_memory(tick.answering, staleness)
    if served != memory.get("served"):
        events.append(served_evaluation(monitor, tick.answering, staleness))
    lost = lost_approval(facts, declared.relaunch.relaunch())
    given_up = f"{facts.unapproved}" if lost is not None and lost.choice == "give_up" else ""
    if lost is not None and given_up and given_up != memory.get("given_up"):
        news.append(approval_lost_alert(declared, given_up, lost))
    pushed = _push_report(client, declared, _report(tick, staleness, last.log), memory, tick.real_now)
    reason = "; ".join([last.reason, *_approval_waits(facts, lost)])
    memory = {**memory, "served": served, "given_up": given_up, **pushed}
    nothing_due = last.kind == "wait" and not (events or runs or news)
    quiet = nothing_due and _nothing_under_way(last.log, facts) and not memory.get("report_problem")
    memory["quiet"] = (
        Quiet(tick.event, tick.now.timestamp(), tick.real_now, reason).written() if quiet else None
    )
    alerts.send_all(news)
    if (runs or last.log != before) and episode_log(instance, declared.model) != before:
        # A person closed the episode meanwhile, say: decide anew on what is true now.
        return dg.SensorResult(skip_reason="the episodes changed meanwhile", cursor=cursor)
    return dg.SensorResult(
        asset_events=events,
        run_requests=runs,
        cursor=json.dumps(memory),
        skip_reason=None if runs else reason,
    )


def _nothing_under_way(log: EpisodeLog, facts: LoopFacts) -> bool:
    """Whether nobody waits for a run, an approval or an answer: only then may a tick look away."""
    waited_for = (facts.in_flight, facts.asked, facts.successor, facts.unapproved)
    return log.open is None and facts.signal_read and all(one is None for one in waited_for)


def _check_in_memory(answering: ServedVersion | None, staleness: Staleness) -> dict[str, Any]:
    """What the cursor keeps of the check ``served``, which is recorded anew when this changes."""
    return {
        "version": answering.label if answering else "",
        "stale": staleness.stale,
        "causes": sorted(cause.kind for cause in staleness.causes),
    }


def drift_verdict_now(
    instance: dg.DagsterInstance,
    answering: ServedVersion | None,
    declared: DriftMonitorDeclaration,
    monitor: MonitorSummary,
    now: datetime,
) -> DriftVerdict:
    """The policy's verdict on the windows that were measured last, of the version that answers."""
    until = answering.version.tags.get(TRAINED_UNTIL) if answering else None
    age = None
    # Where there is nothing newer to train on, a retrain would only make the same model again.
    if (
        answering is not None
        and until
        and newest_data(instance, monitor.label_key) != answering.version.tags.get(NEWEST_DATA)
    ):
        trained = datetime.fromisoformat(until)
        age = DataAge(answering.label, now - trained, declared.max_data_age, now)
    drift_key, performance_key = asset_key("drift", declared.model), asset_key("performance", declared.model)
    drift = [WindowDrift.from_dict(one) for one in _windows(instance, drift_key)]
    performance = [WindowPerformance.from_dict(one) for one in _windows(instance, performance_key)]
    version = answering.label if answering else ""
    return drift_verdict(
        declared.policy,
        [one for one in drift if one.version == version],
        [one for one in performance if one.variant == "champion" and one.version == version],
        held_out=timedelta(days=monitor.held_out_days),
        data_age=age,
    )


def _windows(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[dict[str, Any]]:
    """The windows of the newest measurement; none before the first."""
    record = latest(instance, key)
    return list(record.metadata.get("windows") or []) if record else []


def _due_actions(
    declared: DriftMonitorDeclaration,
    facts: LoopFacts,
    log: EpisodeLog,
    verdict: DriftVerdict,
    now: datetime,
) -> Iterator[LoopAction]:
    """The actions that are due now, one after the other; the last one may be to wait."""
    rules = LoopRules(
        declared.governor.governor(),
        declared.relaunch.relaunch(),
        refresh_after=declared.max_data_age,
    )
    for _ in range(MOST_ACTIONS):
        action = next_action(log, verdict, facts, rules, now)
        yield action
        if action.kind in ("wait", "reconcile", "close", "grant", "judge", "refuse"):
            # After these the facts have changed, and are only known at the next tick.
            return
        log = action.log


def loop_facts(tick: DriftTick, log: EpisodeLog, pending: PendingRetrain | None) -> LoopFacts:
    """What is true at the tick, from the event log, the runs and the registry."""
    instance, declared, answering, now = tick.instance, tick.declared, tick.answering, tick.real_now
    monitor = tick.monitor
    model_key = asset_key("model", declared.model)
    deployed = latest(instance, asset_key("deployment", declared.served_by))
    # This ends lost runs: what comes after sees them as ended.
    in_flight = retraining_run(instance, declared.model)
    successor = successor_of(instance, monitor, now)
    lost = successor if successor is not None and successor.unapproved else None
    signal = latest(instance, signal_key(declared.model))
    read = read_version(instance, model_key, signal_key(declared.model))
    tried = log.open is not None and bool(log.open.attempts)
    return LoopFacts(
        served=str(deployed.metadata.get("stable") or "") or None if deployed else None,
        successor=successor.version if successor else None,
        in_flight=in_flight,
        attempt=attempt_facts(instance, declared.model, in_flight, now) if tried else AttemptFacts(),
        data=newest_data(instance, monitor.label_key),
        served_data=answering.version.tags.get(NEWEST_DATA) if answering else None,
        signal_read=signal is None or signal.data_version == read,
        signal=signal.data_version if signal else None,
        asked=pending.request if pending else None,
        launches=launches_of(instance, declared.model),
        unapproved=lost.version if lost else None,
        unapproved_since=lost.passed_at if lost else None,
        real_now=datetime.fromtimestamp(now, UTC),
    )


def _approval_waits(facts: LoopFacts, lost: NextLaunch | None) -> list[str]:
    return [f"the approval of {facts.unapproved} was lost: {lost.reason}"] if lost is not None else []


# -- telling the gateway ---------------------------------------------------------------------------------


def _report(tick: DriftTick, staleness: Staleness, log: EpisodeLog) -> MonitoringReport | None:
    """What ``/metrics`` is to show; None when nothing answers."""
    answering = tick.answering
    if answering is None:
        return None
    version, key = answering.label, asset_key("drift", tick.declared.model)
    windows = [WindowDrift.from_dict(window) for window in _windows(tick.instance, key)]
    judged = [window for window in windows if window.judged and window.version == version]
    worst = judged[-1].worst(WORST_REPORTED) if judged else ()
    until = answering.version.tags.get(TRAINED_UNTIL)
    return MonitoringReport(
        version=version,
        stale=staleness.by_cause,
        data_until=datetime.fromisoformat(until).timestamp() if until else None,
        drift={
            one.column: {score.statistic: score.value for score in one.scores if score.value is not None}
            for one in worst
        },
        drift_thresholds={
            one.column: {
                score.statistic: score.threshold for score in one.scores if score.threshold is not None
            }
            for one in worst
        },
        episode_open=log.of_drift.open is not None,
    )


def _push_report(
    client: ServeClient,
    declared: DriftMonitorDeclaration,
    report: MonitoringReport | None,
    memory: dict[str, Any],
    now: float,
) -> dict[str, Any]:
    """Sends the report when it is new or was sent a while ago; what the cursor then keeps of it."""
    if report is None:
        return {}
    text = report.model_dump_json()
    if memory.get("report") == text and now - float(memory.get("reported_at", 0)) < REPORT_EVERY_S:
        return {}
    try:
        client.report_monitoring(declared.served_by, report)
    except (ClusterUnreachable, DeploymentError) as error:
        # The cluster may be starting, or on its way to another version; the next tick tries again.
        return {"report": "", "report_problem": str(error)[:500]}
    return {"report": text, "reported_at": now, "report_problem": ""}
