"""The sensors that alert people of freshness and of the platform's own health.

Belongs here: asking Dagster's instance and the gateways, keeping in the cursor what people were alerted of,
sending alerts. Does not belong here: what is news (``health_news.py`` beside this file), delivering it
(``mlops_assets/resources/alerts/``), rollouts and drift, whose sensors send their own.

An alert is sent before the cursor is saved. A tick that dies in between sends it again, and the resource
``alerts`` drops the second. Each of the two sensors watches the other: one that fails cannot say so.
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from mlops_assets import environment
from mlops_assets.asset_keys import KIND_TAG, NAME_TAG, asset_key, assets_of
from mlops_assets.defs.platform.health_news import (
    FAILED_TICKS,
    FailedRun,
    Freshness,
    KnownLog,
    LogState,
    SensorTicks,
    document_news,
    failed_run_news,
    freshness_news,
    log_news,
    rounded_duration,
    sensor_news,
)
from mlops_assets.documents.missing import CHECK, MissingDocument, missing_in
from mlops_assets.errors import ClusterUnreachable, MlopsError
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.event_log.records import latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG
from mlops_assets.event_log.successor import MONITOR_TAG
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.sensors.measuring import MEASURING

INTERVAL_S = 60
FIRST_LOOK_BACK_S = 86_400.0
"""The first tick of a sensor reports runs that failed within the last day."""
RUNS_AT_ONCE = 50
ENDPOINT_TIMEOUT_S = 5.0
"""A tick may take a minute; an endpoint that hangs must not use it up."""
BY_HAND = "up"
LOG_ROWS = "mlops_prediction_log_rows"
AGGREGATOR = "mlops_referee_reachable"


@dataclass
class FreshnessCursor:
    """``failing``: since when, by asset; ``sensors``: the failing ones that people were alerted of."""

    failing: dict[str, float] = field(default_factory=dict)
    sensors: list[str] = field(default_factory=list)

    @staticmethod
    def read(text: str | None) -> "FreshnessCursor":
        return FreshnessCursor(**json.loads(text)) if text else FreshnessCursor()


@dataclass
class HealthCursor:
    """What people were alerted of; ``runs_until``: when the newest failed run that was read changed last."""

    sensors: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    logs: dict[str, KnownLog] = field(default_factory=dict)
    runs_until: float | None = None

    @staticmethod
    def read(text: str | None) -> "HealthCursor":
        kept = json.loads(text) if text else {}
        logs = {name: KnownLog(**seen) for name, seen in kept.pop("logs", {}).items()}
        return HealthCursor(**kept, logs=logs)


@dg.sensor(
    name="freshness_alerts",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts when an asset is no longer fresh and when it is again.",
)
def freshness_alerts(context: dg.SensorEvaluationContext, alerts: Alerts) -> dg.SensorResult:
    """Alerts of freshness, and of ``health_alerts`` failing."""
    cursor = FreshnessCursor.read(context.cursor)
    states = freshness_states(context.instance, _repository(context).asset_graph)
    news, cursor.failing = freshness_news(cursor.failing, states)
    watched = sensor_ticks(context.instance, ["health_alerts"])
    more, cursor.sensors = sensor_news(cursor.sensors, watched)
    said = alerts.send_all([*news, *more])
    looked = f"{len(states)} assets looked at, {len(cursor.failing)} not fresh"
    return _result([looked, *_outcomes([*news, *more], said)], asdict(cursor))


@dg.sensor(
    name="health_alerts",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of failing sensors, failed retrains and measurements, lost prediction logs and "
    "documents that cannot be loaded; delivers alerts that the webhook did not take before.",
)
def health_alerts(
    context: dg.SensorEvaluationContext, alerts: Alerts, serve_client: ServeClient
) -> dg.SensorResult:
    """Alerts of what nobody would notice else, and of ``freshness_alerts`` failing."""
    cursor = HealthCursor.read(context.cursor)
    repository = _repository(context)
    # The other sensor alerts of this one's failures.
    names = {sensor.name for sensor in repository.sensor_defs} - {"health_alerts"}
    news, cursor.sensors = sensor_news(cursor.sensors, sensor_ticks(context.instance, names))
    models = {key: name for name, key in assets_of(repository.asset_graph, "model").items()}
    runs, cursor.runs_until = failed_runs(context.instance, cursor.runs_until, models=models, now=time.time())
    news += failed_run_news(runs)
    logs = log_states(context.instance, serve_client, _deployments(repository.asset_graph))
    more, cursor.logs = log_news(cursor.logs, logs)
    news += more
    missing = missing_in(repository.asset_graph)
    more, cursor.documents = document_news(cursor.documents, missing)
    news += more
    said = alerts.send_all(news)
    delivered = alerts.redeliver()
    checks, cursor.checked = failed_checks(cursor.checked, missing)
    looked = f"{len(names)} sensors, {len(logs)} prediction logs and {len(runs)} failed runs looked at"
    if missing:
        looked += f"; {len(missing)} documents are missing"
    return _result([looked, *_outcomes(news, said), *delivered], asdict(cursor), checks)


@dg.definitions
def sensors() -> dg.Definitions:
    """Both sensors, running from the start."""
    return dg.Definitions(sensors=[freshness_alerts, health_alerts])


def failed_checks(
    known: Collection[str], missing: Sequence[MissingDocument]
) -> tuple[list[AssetCheckEvaluation], list[str]]:
    """The failed check of each placeholder with a problem that is not ``known``; the problems of all."""
    problems = {key: one.problem for one in missing for key in one.assets}
    evaluations = [
        AssetCheckEvaluation(
            asset_key=dg.AssetKey.from_user_string(key),
            check_name=CHECK,
            passed=False,
            metadata={},
            description=problem,
        )
        for key, problem in problems.items()
        if f"{key}: {problem}" not in known
    ]
    return evaluations, [f"{key}: {problem}" for key, problem in problems.items()]


def freshness_states(instance: dg.DagsterInstance, graph: Any) -> dict[str, Freshness]:
    """The state of every asset that has a policy and was judged once; details only where it failed."""
    policies = {
        node.key: policy
        for node in graph.asset_nodes
        if (policy := node.freshness_policy_or_from_metadata) is not None
    }
    states = {}
    for key, record in instance.get_freshness_state_records(list(policies)).items():
        state, since = record.freshness_state.value, record.updated_at.timestamp()
        if state != "FAIL":
            states[key.to_user_string()] = Freshness(state, since)
            continue
        newest = instance.get_latest_materialization_event(key)
        states[key.to_user_string()] = Freshness(
            state,
            since,
            materialised_at=newest.timestamp if newest else None,
            policy=_promise(policies[key]),
            command=_renewing(key, graph.get(key)),
        )
    return states


def _promise(policy: Any) -> str:
    """The demand of a policy, in words."""
    if hasattr(policy, "fail_window"):
        return f"its policy allows {rounded_duration(policy.fail_window.to_timedelta().total_seconds())}"
    before = rounded_duration(policy.lower_bound_delta.total_seconds())
    return f"its policy wants it at most {before} before {policy.deadline_cron!r} ({policy.timezone})"


def _renewing(key: dg.AssetKey, node: Any) -> str:
    name = key.to_user_string()
    if not node.is_materializable:
        return f"mlops status; {name} is made outside Dagster"
    if node.tags.get(KIND_TAG) == "approval":
        return f"mlops status; then approve with: mlops approve {node.tags[NAME_TAG]} --by NAME --reason TEXT"
    partition = " --partition YYYY-MM-DD" if node.partitions_def is not None else ""
    return f"mlops status; then make it with: dg launch --assets 'key:\"{name}\"'{partition}"


def sensor_ticks(instance: dg.DagsterInstance, names: Collection[str]) -> list[SensorTicks]:
    """The newest finished ticks of the named sensors that are on and ticked at least once, by name."""
    found: dict[str, SensorTicks] = {}
    for state in _sensor_states(instance, names):
        ticks = [
            tick
            for tick in instance.get_ticks(
                state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS + 1
            )
            if tick.status != TickStatus.STARTED
        ][:FAILED_TICKS]
        if not ticks:
            continue
        one = SensorTicks(
            sensor=state.instigator_name,
            failed=tuple(tick.status == TickStatus.FAILURE for tick in ticks),
            error=ticks[0].error.message if ticks[0].error else "",
            newest_at=ticks[0].timestamp,
        )
        known = found.get(one.sensor)
        # A code location that was renamed leaves the state of its old sensors behind.
        if known is None or known.newest_at < one.newest_at:
            found[one.sensor] = one
    return [found[name] for name in sorted(found)]


def _sensor_states(instance: dg.DagsterInstance, names: Collection[str]) -> Iterator[InstigatorState]:
    for state in instance.all_instigator_state():
        if state.instigator_name in names and state.status != InstigatorStatus.STOPPED:
            yield state


def failed_runs(
    instance: dg.DagsterInstance, until: float | None, *, models: Mapping[dg.AssetKey, str], now: float
) -> tuple[list[FailedRun], float]:
    """Failed runs after ``until`` that a sensor or automation launched to make or measure a model, and the
    ``until`` of the next call.

    A run that Dagster will try again is left out, because its last try is reported.
    """
    after = now - FIRST_LOOK_BACK_S if until is None else until
    records = instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.fromtimestamp(after, UTC)
        ),
        order_by="update_timestamp",
        ascending=True,
        limit=RUNS_AT_ONCE,
    )
    runs = []
    for record in records:
        run = record.dagster_run
        after = max(after, record.update_timestamp.replace(tzinfo=UTC).timestamp())
        launched_by = run.tags.get(LAUNCHED_BY_TAG)
        # The person who brings the platform up sees its failures.
        if launched_by in (None, BY_HAND) or run.tags.get(WILL_RETRY_TAG) == "true":
            continue
        for key in sorted(run.asset_selection or ()):
            if (model := models.get(key)) is not None:
                failed = _failed_run(instance, run, model, launched_by)
                version, attempt = _attempt(instance, record, model)
                runs.append(replace(failed, version=version, attempt=attempt))
        if launched_by == MEASURING and MONITOR_TAG in run.tags:
            runs.append(
                replace(_failed_run(instance, run, run.tags[MONITOR_TAG], launched_by), measuring=True)
            )
    return runs, after


def _attempt(instance: dg.DagsterInstance, record: dg.RunRecord, model: str) -> tuple[str, str]:
    """The version and number of the attempt that was running when the run was created; empty without one."""
    if asset_key("training_set", model) not in (record.dagster_run.asset_selection or ()):
        return "", ""
    created = record.create_timestamp.replace(tzinfo=UTC).timestamp()
    episode = episode_log(instance, model, before=created).open
    if episode is None or not episode.attempts or episode.attempts[-1].outcome != "running":
        return "", ""
    return episode.version, f"{episode.number}.{episode.attempts[-1].number}"


def _failed_run(instance: dg.DagsterInstance, run: dg.DagsterRun, model: str, launched_by: str) -> FailedRun:
    step, error = "", ""
    for entry in instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE}):
        event = entry.get_dagster_event()
        step, error = event.step_key or "", event.step_failure_data.error_display_string
        break
    if not error:
        for entry in instance.all_logs(run.run_id, of_type={dg.DagsterEventType.RUN_FAILURE}):
            error = entry.get_dagster_event().message or ""
    return FailedRun(
        run_id=run.run_id,
        model=model,
        launched_by=launched_by,
        step=step,
        error=error,
        gate_refused=any(_refused(checks) for checks in _checks(instance, run.run_id, model)),
        url=f"http://127.0.0.1:{environment.DAGSTER_PORT.read()}/runs/{run.run_id}",
    )


def _checks(instance: dg.DagsterInstance, run_id: str, model: str) -> Iterator[AssetCheckEvaluation]:
    """The results of the checks on the model's evaluation in that run."""
    evaluated = asset_key("evaluation", model)
    for entry in instance.all_logs(run_id, of_type={dg.DagsterEventType.ASSET_CHECK_EVALUATION}):
        found = entry.get_dagster_event().asset_check_evaluation_data
        if found.asset_key == evaluated:
            yield found


def _refused(check: AssetCheckEvaluation) -> bool:
    return check.check_name == "gate" and not check.passed


def log_states(
    instance: dg.DagsterInstance, client: ServeClient, deployments: Iterable[str]
) -> dict[str, LogState]:
    """The states of the prediction logs, by deployment, as the gateways report them.

    A deployment that does not answer is left out: it gives no answers, so its log loses none.
    """
    states: dict[str, LogState] = {}
    for name in deployments:
        if latest(instance, asset_key("deployment", name)) is None:
            continue
        try:
            dropped = dropped_rows(client.metrics(name, timeout_s=ENDPOINT_TIMEOUT_S))
        except ClusterUnreachable:
            # The run that deploys reports an unreachable cluster; the state of the log is not known.
            continue
        # A wrong answer of one gateway must not hide the logs of the others.
        except (MlopsError, ValueError) as error:
            states[name] = LogState(None, None, unreadable=str(error))
            continue
        _, ready = client.ready(name, timeout_s=ENDPOINT_TIMEOUT_S)
        states[name] = LogState(dropped, dict(ready.get("prediction_log") or {}).get("problem"))
    return states


def dropped_rows(metrics: str) -> int | None:
    """Rows dropped by all replicas of a deployment; None when the text is of one replica alone."""
    from prometheus_client.parser import text_string_to_metric_families

    dropped = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if family.name == AGGREGATOR and not sample.value:
                return None
            if family.name == LOG_ROWS and sample.labels.get("outcome") == "dropped":
                dropped += int(sample.value)
    return dropped


def _deployments(graph: Any) -> list[str]:
    return list(assets_of(graph, "deployment"))


def _repository(context: dg.SensorEvaluationContext) -> dg.RepositoryDefinition:
    if context.repository_def is None:
        raise dg.DagsterInvariantViolationError("This sensor needs the repository it is defined in.")
    return context.repository_def


def _outcomes(alerts: Sequence[Alert], said: Sequence[str]) -> list[str]:
    return [f"{alert.kind} {alert.subject}: {sentence}" for alert, sentence in zip(alerts, said, strict=True)]


def _result(
    lines: Sequence[str], cursor: Mapping[str, Any], events: Sequence[AssetCheckEvaluation] = ()
) -> dg.SensorResult:
    return dg.SensorResult(skip_reason="; ".join(lines), cursor=json.dumps(cursor), asset_events=list(events))
