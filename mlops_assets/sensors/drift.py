"""The sensors of a drift monitor: when to measure, and what a measurement leads to.

Belongs here: reading facts from the event log and the cluster, and turning a pure decision into events,
runs and alerts. Does not belong here: the decision (``monitoring/episodes.py``), measuring
(``assets/measuring.py``), the form of episode events (``event_log/episode_records.py``).

The sensors keep no truth of their own. What was measured stands in the materialisations of performance
and drift, episodes and granted retrains in the events of the drift signal and the retrain request.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.asset_names import Kind, asset_name
from mlops_assets.assets.measuring import MEASURED, MEASURED_TAG, NEWEST_DATA
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.errors import ClusterUnreachable, DeploymentError
from mlops_assets.event_log.episode_records import (
    Asked,
    asked_now,
    episode_log,
    granted,
    newest_grant,
    noted,
    opened,
    refused,
    requests_key,
    signal_key,
)
from mlops_assets.event_log.no_drift import NO_DRIFT, no_drift_evaluation
from mlops_assets.event_log.records import latest, newest_data, read_version
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.event_log.served_state import (
    TRAINED_UNTIL,
    Monitored,
    Served,
    served,
    served_evaluation,
    staleness_of,
)
from mlops_assets.event_log.successor import (
    MONITOR_TAG,
    RECONCILER,
    RETRAINING,
    launches_of,
    retraining_run,
    successor_of,
)
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
from mlops_assets.monitoring.governor import AttemptOutcome
from mlops_assets.monitoring.measuring import Checkpoint, days_to_measure
from mlops_assets.monitoring.policy import DataAge, DriftVerdict, drift_verdict
from mlops_assets.monitoring.relaunch import NextLaunch
from mlops_assets.monitoring.served import Staleness
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from serve.schema import MonitoringReport

INTERVAL_S = 10
MEASURING = "measure sensor"
SEARCHED_FILES = 200
GOVERNOR = "governor"
WILL_RETRY_TAG, PARENT_TAG = "dagster/will_retry", "dagster/parent_run_id"
REPORT_EVERY_S = 60.0
"""A gateway that lost its aggregator lost the report too."""
CHAIN: tuple[Kind, ...] = (*RETRAINING, "approval")
APPROVAL_AT, VERDICT_AT = CHAIN.index("approval"), CHAIN.index("evaluation")
OUTCOMES: dict[str, AttemptOutcome] = {
    "promote": "promoted",
    "reject": "rejected",
    "inconclusive": "inconclusive",
}
WORST_REPORTED = 20
MOST_STEPS = 4
"""Decisions carried out in one tick; opening an episode and granting its first retrain are two."""


def chain_keys(declared: DriftMonitorDeclaration) -> list[dg.AssetKey]:
    """What one retrain makes, from the training set to the deployment."""
    made = [asset_key(kind, declared.model) for kind in CHAIN]
    return [*made, asset_key("deployment", declared.served_by)]


# -- when to measure -------------------------------------------------------------------------------------


def measure_sensor(
    declared: DriftMonitorDeclaration, *, label_key: dg.AssetKey, measured: Sequence[dg.AssetKey]
) -> dg.SensorDefinition:
    """The sensor ``measure_<model>``: one run of log, performance and drift whenever there is news."""

    @dg.sensor(
        name=f"measure_{declared.model}",
        target=dg.AssetSelection.assets(*measured),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Measures what {declared.served_by} answered, when answers or labels arrived.",
    )
    def measure(
        context: dg.SensorEvaluationContext, inference_log: InferenceLog, clock: Clock
    ) -> dg.SensorResult:
        instance = context.instance
        busy = unfinished_run(instance, measured[-1])
        if busy is not None:
            return dg.SensorResult(skip_reason=f"run {busy} is measuring")
        tags = {MONITOR_TAG: declared.model, LAUNCHED_BY_TAG: MEASURING}
        wait_s = back_off(instance, tags, time.time())
        if wait_s > 0:
            return dg.SensorResult(skip_reason=f"measuring failed; the next try is in {wait_s:.0f} s")
        record = latest(instance, measured[-1])
        before = Checkpoint.read(str(record.metadata.get(MEASURED) or "") if record else "")
        if not before.at:
            held = inference_log.stats(declared.served_by)
            before = Checkpoint(day=held.first_hour.date().isoformat() if held.first_hour else "")
        now = _seen(instance, inference_log, declared, label_key, clock.now())
        days, why = days_to_measure(before, now, every=declared.every, length=declared.window)
        if days is None:
            return dg.SensorResult(skip_reason=why)
        first = declared.logs_since.isoformat()
        if days[1] < first:
            return dg.SensorResult(skip_reason=f"all answers are older than logs_since {first}")
        request = dg.RunRequest(
            asset_selection=list(measured),
            tags={
                "dagster/asset_partition_range_start": max(days[0], first),
                "dagster/asset_partition_range_end": days[1],
                **tags,
                MEASURED_TAG: json.dumps(asdict(now)),
                "mlops/reason": why,
            },
        )
        return dg.SensorResult(run_requests=[request])

    return measure


def _seen(
    instance: dg.DagsterInstance,
    log: InferenceLog,
    declared: DriftMonitorDeclaration,
    label_key: dg.AssetKey,
    now: datetime,
) -> Checkpoint:
    # A gateway whose clock is ahead must not hide what the others write.
    newest = [file for file in log.last_files(declared.served_by, SEARCHED_FILES) if file.hour <= now]
    labels = instance.get_latest_materialization_event(label_key)
    record = latest(instance, asset_key("deployment", declared.served_by))
    return Checkpoint(
        at=now.isoformat(),
        day=newest[0].hour.date().isoformat() if newest else "",
        log=newest[0].path.rpartition("/")[2] if newest else "",
        labels=labels.timestamp if labels else 0.0,
        stable=str(record.metadata.get("stable", "")) if record else "",
    )


# -- what a measurement leads to -------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What one tick goes by: ``found`` is the version that answers, looked up once.

    ``now`` is data time; ``real_now`` real time, Unix seconds, by which runs are waited for.
    """

    instance: dg.DagsterInstance
    declared: DriftMonitorDeclaration
    monitored: Monitored
    found: Served | None
    now: datetime
    real_now: float


def drift_sensor(
    declared: DriftMonitorDeclaration, monitored: Monitored, *, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """The sensor ``drift_<model>``: opens and closes episodes, grants retrains, repairs lost ones.

    ``clock``: real time, Unix seconds, which runs are waited for by; data time comes from the resource.
    """
    real_clock = clock
    keys = chain_keys(declared)
    no_drift = dg.AssetCheckKey(asset_key("model", declared.model), NO_DRIFT)

    @dg.sensor(
        name=f"drift_{declared.model}",
        target=dg.AssetSelection.assets(*keys) | dg.AssetSelection.checks(no_drift, monitored.check_key),
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
        now = clock.now()
        found = served(context.instance, model_registry, model=declared.model, deployment=declared.served_by)
        look = Look(context.instance, declared, monitored, found, now, real_clock())
        return _acted(context, look, serve_client, alerts)

    return watch


def _acted(
    context: dg.SensorEvaluationContext, look: Look, client: ServeClient, alerts: Alerts
) -> dg.SensorResult:
    """Every step that is due, carried out and told; nothing when the episodes changed meanwhile."""
    instance, declared, monitored = look.instance, look.declared, look.monitored
    decision = decision_now(instance, look.found, declared, monitored, look.now)
    before = episode_log(instance, declared.model)
    asked_for = asked_now(instance, declared.model)
    facts = loop_facts(look, before, asked_for)
    steps = list(_steps(declared, facts, before, decision, look.now))
    last, manual = steps[-1], monitored.approval == "manual"
    done = [_carried_out(declared, one, decision, asked_for, manual=manual) for one in steps]
    events = [event for made, _, _ in done for event in made]
    requests = [request for _, asked, _ in done for request in asked]
    news = [alert for _, _, alert in done if alert]
    staleness = staleness_of(instance, monitored, look.found, now=look.now, episodes=last.log)
    cursor = json.loads(context.cursor) if context.cursor else {}
    told = _told(look.found, staleness)
    if told != cursor.get("served"):
        events.append(served_evaluation(monitored, look.found, staleness))
    lost = lost_approval(facts, declared.relaunch.relaunch())
    given_up = f"{facts.unapproved}" if lost is not None and lost.choice == "give_up" else ""
    if lost is not None and given_up and given_up != cursor.get("given_up"):
        news.append(_approval_lost(declared, given_up, lost))
    report = _report(look, staleness, last.log)
    pushed = _pushed(client, declared, report, cursor, look.real_now)
    cursor = {**cursor, "served": told, "given_up": given_up, **pushed}
    alerts.send_all(news)
    if (requests or last.log != before) and episode_log(instance, declared.model) != before:
        # A person closed the episode meanwhile, say: decide anew on what is true now.
        return dg.SensorResult(skip_reason="the episodes changed meanwhile", cursor=context.cursor)
    return dg.SensorResult(
        asset_events=events,
        run_requests=requests,
        cursor=json.dumps(cursor),
        skip_reason=None if requests else "; ".join([last.reason, *_approval_waits(facts, lost)]),
    )


def _told(found: Served | None, staleness: Staleness) -> dict[str, Any]:
    """What the cursor remembers of the check ``served``: it is recorded anew when this changes."""
    return {
        "version": found.label if found else "",
        "stale": staleness.stale,
        "causes": sorted(cause.kind for cause in staleness.causes),
    }


def decision_now(
    instance: dg.DagsterInstance,
    found: Served | None,
    declared: DriftMonitorDeclaration,
    monitored: Monitored,
    now: datetime,
) -> DriftVerdict:
    """The policy's decision on the windows that were measured last, of the version that answers."""
    until = found.version.tags.get(TRAINED_UNTIL) if found else None
    age = None
    # Where there is nothing newer to train on, a retrain would only make the same model again.
    if (
        found is not None
        and until
        and newest_data(instance, monitored.label_key) != found.version.tags.get(NEWEST_DATA)
    ):
        trained = datetime.fromisoformat(until)
        age = DataAge(found.label, now - trained, declared.max_data_age, now)
    drift = [
        WindowDrift.from_dict(window)
        for window in _metadata(instance, asset_key("drift", declared.model), "windows")
    ]
    performance = [
        WindowPerformance.from_dict(window)
        for window in _metadata(instance, asset_key("performance", declared.model), "windows")
    ]
    version = found.label if found else ""
    return drift_verdict(
        declared.policy,
        [one for one in drift if one.version == version],
        [one for one in performance if one.variant == "champion" and one.version == version],
        held_out=timedelta(days=monitored.held_out_days),
        data_age=age,
    )


def _metadata(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> list[dict[str, Any]]:
    record = latest(instance, key)
    return list(record.metadata.get(name) or []) if record else []


def _steps(
    declared: DriftMonitorDeclaration,
    facts: LoopFacts,
    log: EpisodeLog,
    decision: DriftVerdict,
    now: datetime,
) -> Iterable[LoopAction]:
    """What is due now, one after the other; the last one may be to wait."""
    rules = LoopRules(declared.governor.governor(), declared.relaunch.relaunch())
    for _ in range(MOST_STEPS):
        step = next_action(log, decision, facts, rules, now)
        yield step
        if step.kind in ("wait", "reconcile", "close", "grant", "judge", "refuse"):
            # After these the facts have changed, and are only known at the next tick.
            return
        log = step.log


def loop_facts(look: Look, log: EpisodeLog, asked_for: Asked | None) -> LoopFacts:
    """What is true at the look, from the event log, the runs and the registry."""
    instance, declared, found, now = look.instance, look.declared, look.found, look.real_now
    monitored = look.monitored
    model_key = asset_key("model", declared.model)
    deployed = latest(instance, asset_key("deployment", declared.served_by))
    # Lost runs are ended by this look: what comes after sees them as ended.
    in_flight = retraining_run(instance, declared.model)
    successor = successor_of(instance, monitored, now)
    lost = successor if successor is not None and successor.unapproved else None
    signal = latest(instance, signal_key(declared.model))
    read = read_version(instance, model_key, signal_key(declared.model))
    return LoopFacts(
        served=str(deployed.metadata.get("stable") or "") or None if deployed else None,
        successor=successor.version if successor else None,
        in_flight=in_flight,
        attempt=_attempt(instance, declared, in_flight, now)
        if log.open and log.open.attempts
        else AttemptFacts(),
        data=newest_data(instance, monitored.label_key),
        served_data=found.version.tags.get(NEWEST_DATA) if found else None,
        signal_read=signal is None or signal.data_version == read,
        signal=signal.data_version if signal else None,
        asked=asked_for.ask if asked_for else None,
        launches=launches_of(instance, declared.model),
        unapproved=lost.version if lost else None,
        unapproved_since=lost.passed_at if lost else None,
        real_now=datetime.fromtimestamp(now, UTC),
    )


def _attempt(
    instance: dg.DagsterInstance, declared: DriftMonitorDeclaration, in_flight: str | None, now: float
) -> AttemptFacts:
    """What became of the newest granted retrain."""
    newest = newest_grant(instance, declared.model)
    if newest is None:
        return AttemptFacts()
    requested, reported_since = newest
    request = requested.data_version
    set_key = asset_key("training_set", declared.model)
    made = latest(instance, set_key)
    read = read_version(instance, set_key, requests_key(declared.model))
    # After a report by hand, Dagster names that one as what was read; the run is the grant's all the same.
    is_read = (
        made is not None
        and (read == requested.data_version or reported_since)
        and made.timestamp >= requested.timestamp
    )
    if in_flight is not None:
        return AttemptFacts("running", f"run {in_flight} is under way", request=request)
    since = made.timestamp if is_read and made is not None else requested.timestamp
    judged = latest(instance, asset_key("evaluation", declared.model))
    if is_read and judged is not None and judged.timestamp >= since and "outcome" in judged.metadata:
        return AttemptFacts(
            OUTCOMES[str(judged.metadata["outcome"])],
            str(judged.metadata["reason"]),
            f"v{int(judged.metadata['model_version'])}",
            request=request,
        )
    failed, tried_again = _failed_run(instance, set_key, requested.timestamp)
    if tried_again:
        return AttemptFacts("running", f"{tried_again} crashed and is tried again", request=request)
    if failed:
        return AttemptFacts("failed", failed, request=request)
    if is_read:
        why = "a run read the request and no candidate came of it"
        return AttemptFacts("failed", why, request=request)
    # Automation works in real time, whatever the data's clock says.
    unread_for = timedelta(seconds=max(0.0, now - requested.timestamp))
    return AttemptFacts(unread_for=unread_for, request=request)


def _failed_run(instance: dg.DagsterInstance, key: dg.AssetKey, since: float) -> tuple[str, str]:
    """The newest run of the asset after ``since`` that came to nothing, in words; or one that Dagster is
    about to try again. Empty texts for none.
    """
    ended = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    after = datetime.fromtimestamp(since, UTC)
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(ended), created_after=after), limit=50):
        if run.asset_selection is not None and key in run.asset_selection:
            if run.tags.get(WILL_RETRY_TAG) == "true":
                retries = instance.get_runs(filters=dg.RunsFilter(tags={PARENT_TAG: run.run_id}), limit=1)
                if not retries:
                    return "", f"run {run.run_id}"
                continue
            return f"run {run.run_id} ended as {run.status.value.lower()}; its log says why", ""
    return "", ""


def _carried_out(
    declared: DriftMonitorDeclaration,
    step: LoopAction,
    decision: DriftVerdict,
    asked_for: Asked | None,
    *,
    manual: bool,
) -> tuple[list[Any], list[dg.RunRequest], Alert | None]:
    """The events, runs and alert of one step."""
    model, keys = declared.model, chain_keys(declared)
    if step.kind == "open":
        metadata = {
            "signals": dg.MetadataValue.json([asdict(signal) for signal in decision.signals]),
            "drift": dg.MetadataValue.asset(asset_key("drift", model)),
        }
        failing = no_drift_evaluation(model, step.log)
        return [opened(model, step.log, metadata), failing], [], _alert(declared, step, "episode_opened")
    if step.kind == "grant":
        newest = step.log.newest
        request = newest.request_version if newest is not None else ""
        run = _run_of_chain(declared, keys, f"{request}/granted", GOVERNOR, manual=manual)
        # A grant to the open episode answers no request that came meanwhile.
        answered = asked_for if step.answers_person else None
        return [granted(model, step.log, step.reason, answered)], [run], None
    if step.kind == "judge":
        return [noted(model, step.log, step.reason)], [_another_look(declared, step, manual=manual)], None
    if step.kind == "refuse" and asked_for is not None:
        if asked_for.ask.due:
            # Routine, above all where nothing newer is there: it stands in the status, and nobody is called.
            reason = f"{step.reason}. It asks again by itself; sooner: {_command(model)}"
            return [refused(model, asked_for, reason)], [], None
        reason = f"{step.reason}. To do: {_to_go_on(model, step)}"
        return [refused(model, asked_for, reason)], [], _retrain_refused(declared, step)
    if step.kind == "outcome":
        attempt = step.log.newest.attempts[-1] if step.log.newest else None
        failed = attempt is not None and attempt.outcome == "failed"
        told = _alert(declared, step, "retrain_failed") if failed else None
        return [noted(model, step.log, step.reason)], [], told
    if step.kind == "close":
        passing = no_drift_evaluation(model, step.log)
        return [noted(model, step.log, step.reason), passing], [], _alert(declared, step, "episode_closed")
    if step.kind == "reconcile":
        wanted = keys[APPROVAL_AT:] if step.scope == "approval" else keys
        return [], [_run_of_chain(declared, wanted, step.run_key, RECONCILER, manual=manual)], None
    return [], [], None


def _run_of_chain(
    declared: DriftMonitorDeclaration,
    wanted: Sequence[dg.AssetKey],
    run_key: str | None,
    by: str,
    *,
    manual: bool,
    run_config: dict[str, Any] | None = None,
) -> dg.RunRequest:
    # An approval that a person has to give fails the run that asks for it.
    selected = [key for key in wanted if read_key(key).kind not in ("approval", "deployment") or not manual]
    tags = {MONITOR_TAG: declared.model, LAUNCHED_BY_TAG: by}
    return dg.RunRequest(run_key=run_key, asset_selection=selected, tags=tags, run_config=run_config)


def _another_look(declared: DriftMonitorDeclaration, step: LoopAction, *, manual: bool) -> dg.RunRequest:
    """The run that judges the newest candidate again, and brings it up if it passes now."""
    looks = step.log.newest.attempts[-1].looks if step.log.newest is not None else 1
    op = asset_name("evaluation", declared.model)
    return _run_of_chain(
        declared,
        chain_keys(declared)[VERDICT_AT:],
        step.run_key,
        GOVERNOR,
        manual=manual,
        run_config={"ops": {op: {"config": {"look": looks}}}},
    )


def _command(model: str) -> str:
    return f"mlops retrain {model} --by NAME --reason TEXT"


def _to_go_on(model: str, step: LoopAction) -> str:
    """The command of the person whose request was refused."""
    command = _command(model)
    if step.may_override:
        return f"ask again later, or go on with: {command} --override"
    return f"mlops status; then ask again with: {command}"


def _retrain_refused(declared: DriftMonitorDeclaration, step: LoopAction) -> Alert:
    return Alert(
        kind="retrain_refused",
        subject=asset_name("retrain_request", declared.model),
        summary=step.reason,
        command=_to_go_on(declared.model, step),
        # A script that asks every minute is told of once for each limit it runs into.
        dedupe=step.reason,
    )


def _alert(declared: DriftMonitorDeclaration, step: LoopAction, kind: Any) -> Alert:
    model = declared.model
    commands = {
        "episode_opened": f"mlops status; close it with: mlops close-episode {model} --by NAME --reason TEXT",
        "episode_closed": "mlops status",
        "retrain_failed": "read the run's log; it is tried again by itself",
    }
    episode = step.log.newest
    return Alert(
        kind=kind,
        subject=asset_name("model", model),
        summary=step.reason,
        command=commands[kind],
        version=episode.version if episode else "",
        dedupe=f"{step.episode}.{step.attempt or 0}",
    )


def _approval_lost(declared: DriftMonitorDeclaration, version: str, lost: NextLaunch) -> Alert:
    model = declared.model
    return Alert(
        kind="approval_lost",
        subject=asset_name("approval", model),
        summary=f"{version} passed the gate and no approval followed: {lost.reason}",
        command=f"mlops approve {model} --by NAME --reason TEXT (or --reject)",
        version=version,
    )


def _approval_waits(facts: LoopFacts, lost: NextLaunch | None) -> list[str]:
    return [f"the approval of {facts.unapproved} was lost: {lost.reason}"] if lost is not None else []


# -- telling the gateway ---------------------------------------------------------------------------------


def _report(look: Look, staleness: Staleness, log: EpisodeLog) -> MonitoringReport | None:
    """What ``/metrics`` is to show; None when nothing answers."""
    found = look.found
    if found is None:
        return None
    version, key = found.label, asset_key("drift", look.declared.model)
    windows = [WindowDrift.from_dict(window) for window in _metadata(look.instance, key, "windows")]
    judged = [window for window in windows if window.judged and window.version == version]
    worst = judged[-1].worst(WORST_REPORTED) if judged else ()
    until = found.version.tags.get(TRAINED_UNTIL)
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


def _pushed(
    client: ServeClient,
    declared: DriftMonitorDeclaration,
    report: MonitoringReport | None,
    cursor: dict[str, Any],
    now: float,
) -> dict[str, Any]:
    """Sends the report when it is new or was sent a while ago; what the cursor then remembers."""
    if report is None:
        return {}
    text = report.model_dump_json()
    if cursor.get("report") == text and now - float(cursor.get("reported_at", 0)) < REPORT_EVERY_S:
        return {}
    try:
        client.report_monitoring(declared.served_by, report)
    except (ClusterUnreachable, DeploymentError) as error:
        # The cluster may be starting, or on its way to another version; the next tick tries again.
        return {"report": "", "report_problem": str(error)[:500]}
    return {"report": text, "reported_at": now, "report_problem": ""}
