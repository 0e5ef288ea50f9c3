"""The platform's alert sensors on a real instance on disk, a real webhook and a gateway's own metrics."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._utils.error import SerializableErrorInfo

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.components.use_cases import placeholders
from mlops_assets.defs.platform import alerts as module
from mlops_assets.defs.platform.alerts import freshness_alerts, health_alerts
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.event_log.episode_records import episode_changed
from mlops_assets.event_log.retrain_requests import retrain_granted
from mlops_assets.monitoring.episodes import (
    EpisodeLog,
    LoopAction,
    close,
    grant,
    open_episode,
    record_outcome,
)
from mlops_assets.resources.alerts import Alerts, signature
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.sensors.drift_actions import episode_alert
from mlops_assets.testing.webhook import Webhook, webhook
from serve.metrics import GatewayMetrics, exposition

NOW = datetime.now(UTC).timestamp()
AUTOMATION = {"mlops/launched_by": "automation"}


MODELS = {asset_key("model", "flights"): "flights"}


class Happens(dg.Config):
    """What goes wrong in this run."""

    training: bool = False
    gate: bool = False


@dg.asset(key=asset_key("model", "flights"), tags=name_tags("model", "flights"))
def model(config: Happens) -> None:
    if config.training:
        raise ValueError("no rows")


@dg.asset(
    key=asset_key("evaluation", "flights"),
    tags=name_tags("evaluation", "flights"),
    deps=[model],
    check_specs=[dg.AssetCheckSpec("gate", asset=asset_key("evaluation", "flights"), blocking=True)],
)
def evaluation(config: Happens) -> Iterator[dg.MaterializeResult[None]]:
    yield dg.MaterializeResult(
        check_results=[dg.AssetCheckResult(check_name="gate", passed=not config.gate)],
    )


@dg.asset(
    key=asset_key("deployment", "flights"),
    tags=name_tags("deployment", "flights"),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=35)),
)
def deployment() -> None: ...


@dg.asset(
    key=asset_key("dataset", "flights"),
    tags=name_tags("dataset", "flights"),
    partitions_def=dg.DailyPartitionsDefinition("2013-01-01"),
    freshness_policy=dg.FreshnessPolicy.cron(
        deadline_cron="0 9 * * *", lower_bound_delta=timedelta(hours=3), timezone="UTC"
    ),
)
def dataset() -> None: ...


@dg.sensor(name="drift_flights")
def drift_flights() -> dg.SkipReason:
    return dg.SkipReason("quiet")


DEFINITIONS = dg.Definitions(
    assets=[model, evaluation, deployment, dataset],
    sensors=[drift_flights, freshness_alerts, health_alerts],
    executor=dg.in_process_executor,
)
Tick = Callable[..., dg.SensorResult]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The platform's own instance: its event log on disk."""
    overrides = {
        "event_log_storage": {
            "module": "mlops_assets.resources.event_log",
            "class": "BatchedSqliteEventLog",
            "config": {"base_dir": str(tmp_path / "history")},
        }
    }
    with dg.instance_for_test(overrides=overrides, temp_dir=str(tmp_path)) as found:
        yield found


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as found:
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", f"{found.url}/hook")
        monkeypatch.setenv("MLOPS_ALERT_SECRET", "the key")
        yield found


@pytest.fixture
def tick(instance: dg.DagsterInstance, hook: Webhook, tmp_path: Path) -> Tick:
    """One tick of a sensor; its cursor is kept for the next one."""
    cursors: dict[str, str | None] = {}
    resources = {
        "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
        "serve_client": ServeClient(
            dashboard_url=hook.url, serve_url=hook.url, state_file=str(tmp_path / "s")
        ),
    }

    def once(sensor: dg.SensorDefinition, *, forget: bool = False) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=None if forget else cursors.get(sensor.name),
            definitions=DEFINITIONS,
            resources=resources,
            sensor_name=sensor.name,
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        cursors[sensor.name] = result.cursor
        return result

    return once


def becomes(instance: dg.DagsterInstance, asset: str, state: str, at: float, before: str = "UNKNOWN") -> None:
    """What Dagster's freshness daemon records."""
    change = FreshnessStateChange(
        key=dg.AssetKey(asset),
        new_state=FreshnessState(state),
        previous_state=FreshnessState(before),
        state_change_timestamp=at,
    )
    instance._report_runless_asset_event(change)


def told(hook: Webhook) -> list[dict[str, Any]]:
    return [json.loads(body)["alert"] for _, body in hook.requests]


def test_the_sensors_run_from_the_start_and_are_part_of_the_platform() -> None:
    found = {sensor.name: sensor for sensor in module.sensors().sensors or ()}
    assert set(found) == {"freshness_alerts", "health_alerts"}
    assert {one.default_status for one in found.values()} == {dg.DefaultSensorStatus.RUNNING}


# -- freshness, end to end ---------------------------------------------------------------------------


def test_a_late_asset_reaches_the_webhook_signed_and_its_recovery_too(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    assert tick(freshness_alerts).skip_reason is not None and hook.requests == []
    becomes(instance, "flights_deployment", "FAIL", NOW)
    becomes(instance, "flights", "FAIL", NOW)
    tick(freshness_alerts)
    tick(freshness_alerts)
    assert hook.kinds() == ["freshness_failed", "freshness_failed"]
    for headers, body in hook.requests:
        assert headers["X-Mlops-Signature"] == signature("the key", headers["X-Mlops-Timestamp"], body)
    data, served = told(hook)
    assert served["subject"] == "flights_deployment"
    assert served["summary"].endswith("never made, and its policy allows 35 days")
    assert served["command"].endswith("dg launch --assets 'key:\"flights_deployment\"'")
    assert data["summary"].endswith("its policy wants it at most 3 h before '0 9 * * *' (UTC)")
    assert data["command"].endswith("'key:\"flights\"' --partition YYYY-MM-DD")
    becomes(instance, "flights_deployment", "PASS", NOW + 600, before="FAIL")
    tick(freshness_alerts)
    tick(freshness_alerts)
    assert hook.kinds()[2:] == ["freshness_recovered"]
    assert told(hook)[2]["summary"].endswith("after 10 min")


def test_the_last_materialisation_is_named(instance: dg.DagsterInstance, hook: Webhook, tick: Tick) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key("dataset", "flights"), partition="2013-01-01")
    )
    becomes(instance, "flights", "FAIL", NOW)
    tick(freshness_alerts)
    assert "last made 20" in told(hook)[0]["summary"]


def test_a_lost_cursor_does_not_tell_old_news_again(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    becomes(instance, "flights", "FAIL", NOW)
    tick(freshness_alerts)
    said = tick(freshness_alerts, forget=True).skip_reason
    assert said is not None and "suppressed" in str(said.skip_message)
    assert len(hook.requests) == 1


# -- sensors -----------------------------------------------------------------------------------------


def tick_happened(
    instance: dg.DagsterInstance, state: InstigatorState, at: float, status: TickStatus
) -> None:
    error = (
        SerializableErrorInfo("KeyError: 'edges'\n", [], "KeyError") if status == TickStatus.FAILURE else None
    )
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=state.instigator_name,
            instigator_type=InstigatorType.SENSOR,
            status=status,
            timestamp=at,
            selector_id=state.selector_id,
            error=error,
        )
    )


def ticking(
    instance: dg.DagsterInstance, name: str, *, status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE
) -> InstigatorState:
    """The state that the daemon keeps of a sensor."""
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="m"), location_name="mlops_assets"
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=10))
    instance.add_instigator_state(state)
    return state


@pytest.mark.parametrize(
    ("failing", "teller", "silent"),
    [("drift_flights", health_alerts, freshness_alerts), ("health_alerts", freshness_alerts, health_alerts)],
)
def test_a_failing_sensor_is_told_once_by_one_other(
    instance: dg.DagsterInstance,
    hook: Webhook,
    tick: Tick,
    failing: str,
    teller: dg.SensorDefinition,
    silent: dg.SensorDefinition,
) -> None:
    state = ticking(instance, failing)
    for number in range(2):
        tick_happened(instance, state, NOW + number, TickStatus.FAILURE)
    tick(teller)
    assert hook.requests == []
    tick_happened(instance, state, NOW + 3, TickStatus.FAILURE)
    # The tick that is under way now has no outcome yet.
    tick_happened(instance, state, NOW + 4, TickStatus.STARTED)
    tick(teller)
    tick(teller)
    tick(silent)
    (alert,) = told(hook)
    assert alert["kind"] == "sensor_failing" and alert["subject"] == f"sensors/{failing}"
    assert "KeyError: 'edges'" in alert["summary"]


def test_a_sensor_that_somebody_stopped_or_removed_is_not_failing(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    stopped = ticking(instance, "drift_flights", status=InstigatorStatus.STOPPED)
    removed = ticking(instance, "drift_of_last_year")
    for number in range(3):
        tick_happened(instance, stopped, NOW + number, TickStatus.FAILURE)
        tick_happened(instance, removed, NOW + number, TickStatus.FAILURE)
    tick(health_alerts)
    assert hook.requests == []


# -- failed retrains ---------------------------------------------------------------------------------


def retrain(
    instance: dg.DagsterInstance, *, training: bool = False, gate: bool = False, **tags: str
) -> dg.ExecuteInProcessResult:
    fate = {"config": {"training": training, "gate": gate}}
    job = dg.Definitions(
        assets=[model, evaluation, deployment],
        jobs=[dg.define_asset_job("chain", selection=dg.AssetSelection.assets(model, evaluation))],
    ).resolve_job_def("chain")
    return job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={name.replace("__", "/"): value for name, value in tags.items()},
        asset_selection=[model.key, evaluation.key],
        run_config={"ops": {"flights_model": fate, "flights_evaluation": fate}},
    )


def test_a_retrain_that_failed_is_told_once(instance: dg.DagsterInstance, hook: Webhook, tick: Tick) -> None:
    result = retrain(instance, training=True, mlops__launched_by="automation")
    assert not result.success
    for _ in range(2):
        tick(health_alerts)
    (alert,) = told(hook)
    assert alert["kind"] == "retrain_failed" and alert["subject"] == "flights_model"
    assert "launched by automation) failed at flights_model" in alert["summary"]
    assert "no rows" in alert["evidence"]["error"]
    assert f"/runs/{result.run_id}" in alert["command"]


def test_a_verdict_a_persons_run_and_one_that_is_tried_again_are_not_told(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    assert not retrain(instance, gate=True, mlops__launched_by="automation").success
    assert not retrain(instance, training=True).success
    retried = {"mlops__launched_by": "automation", "dagster__will_retry": "true"}
    assert not retrain(instance, training=True, **retried).success
    assert retrain(instance, mlops__launched_by="automation").success
    said = tick(health_alerts).skip_reason
    assert hook.requests == []
    assert said is not None and "1 failed runs looked at" in str(said.skip_message)


def chain_run(instance: dg.DagsterInstance, launched_by: str = "automation") -> None:
    """A run from the training set on, which fails there."""

    @dg.asset(key=asset_key("training_set", "flights"), tags=name_tags("training_set", "flights"))
    def training_set() -> None:
        raise ValueError("no rows")

    chain = dg.Definitions(assets=[training_set, model], executor=dg.in_process_executor)
    chain.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[training_set.key, model.key],
        tags={"mlops/launched_by": launched_by},
        raise_on_error=False,
    )


AT = datetime(2013, 6, 3, tzinfo=UTC)
OPENED = open_episode(EpisodeLog(), version="v3", reason="drift", now=AT)
GRANTED = grant(OPENED, data="2013-06-01", now=AT)
FAILED = record_outcome(GRANTED, "failed", reason="no rows", ended_at=AT)


def test_the_failure_of_a_granted_retrain_is_told_once_over_both_sensors(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick, tmp_path: Path
) -> None:
    instance.report_runless_asset_event(retrain_granted("flights", GRANTED, "drift"))
    chain_run(instance)
    declared = DriftMonitorDeclaration(model="flights", logs_since=AT.date())
    drift = episode_alert(
        declared, LoopAction("outcome", "episode-1.1 failed", FAILED, 1, 1), "retrain_failed"
    )
    Alerts(log_file=str(tmp_path / "alerts.jsonl")).send(drift)
    instance.report_runless_asset_event(episode_changed("flights", FAILED, "episode-1.1 failed"))

    said = tick(health_alerts).skip_reason

    assert hook.kinds() == ["retrain_failed"]
    assert said is not None and "suppressed" in str(said.skip_message)


def test_the_failure_of_a_granted_retrain_is_told_while_the_drift_sensor_is_not_ticking(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    instance.report_runless_asset_event(retrain_granted("flights", GRANTED, "drift"))
    chain_run(instance)
    tick(health_alerts)
    (alert,) = told(hook)
    assert (alert["version"], alert["dedupe"]) == ("v3", "1.1") and "no rows" in alert["summary"]


@pytest.mark.parametrize(
    "before",
    [
        [],
        [retrain_granted("flights", GRANTED, "drift"), episode_changed("flights", FAILED, "failed")],
        [
            retrain_granted("flights", GRANTED, "drift"),
            episode_changed("flights", close(GRANTED, by="ana", reason="over", now=AT), "over"),
        ],
    ],
    ids=["never granted", "failed before", "closed by a person"],
)
def test_the_failure_of_a_chain_that_no_attempt_waits_for_is_told_as_that_run(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick, before: list[Any]
) -> None:
    for event in before:
        instance.report_runless_asset_event(event)
    chain_run(instance, "reconciler")
    tick(health_alerts)
    (alert,) = told(hook)
    assert alert["kind"] == "retrain_failed" and alert["version"] == ""
    assert alert["dedupe"] == alert["evidence"]["run_id"]


def test_a_model_alone_that_failed_is_not_the_attempt(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(retrain_granted("flights", GRANTED, "drift"))
    retrain(instance, training=True, mlops__launched_by="automation")
    (run,) = module.failed_runs(instance, None, models=MODELS, now=NOW)[0]
    assert run.attempt == ""


def test_an_approval_that_is_old_is_renewed_by_a_person_and_everything_else_by_a_run() -> None:
    @dg.asset(key=asset_key("approval", "flights"), tags=name_tags("approval", "flights"))
    def approval() -> None: ...

    @dg.asset(key="bank_approval")
    def own() -> None: ...

    graph = dg.Definitions(assets=[approval, own]).resolve_asset_graph()
    told = {key.to_user_string(): module._renewing(key, graph.get(key)) for key in graph.get_all_asset_keys()}
    assert told["flights_approval"].endswith("mlops approve flights --by NAME --reason TEXT")
    assert told["bank_approval"].endswith("dg launch --assets 'key:\"bank_approval\"'")


# -- failed measurements -----------------------------------------------------------------------------


def test_a_failed_measurement_is_told_once_however_often_it_is_tried_again(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    @dg.asset(key=asset_key("performance", "flights"), tags=name_tags("performance", "flights"))
    def performance() -> None:
        raise ValueError("a label outside the classes")

    @dg.asset(key=asset_key("drift", "flights"), tags=name_tags("drift", "flights"), deps=[performance])
    def drift() -> None: ...

    measuring = dg.Definitions(assets=[performance, drift], executor=dg.in_process_executor)
    job = measuring.resolve_implicit_global_asset_job_def()
    tags = {"mlops/monitor": "flights", "mlops/launched_by": "measure sensor"}
    for _ in range(2):
        job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        tick(health_alerts)
    job.execute_in_process(
        instance=instance, tags={**tags, "dagster/will_retry": "true"}, raise_on_error=False
    )
    job.execute_in_process(instance=instance, raise_on_error=False)  # A person's own.
    tick(health_alerts)
    (alert,) = told(hook)
    assert alert["kind"] == "measuring_failed" and alert["subject"] == "flights_drift"
    assert "a label outside the classes" in alert["summary"]


def test_runs_of_before_the_last_day_are_no_news(instance: dg.DagsterInstance) -> None:
    retrain(instance, training=True, mlops__launched_by="automation")
    assert len(module.failed_runs(instance, None, models=MODELS, now=NOW + 3_600)[0]) == 1
    assert module.failed_runs(instance, None, models=MODELS, now=NOW + 3 * 86_400)[0] == []


# -- prediction logs ---------------------------------------------------------------------------------


def gateway_says(hook: Webhook, *, dropped: int, problem: str | None = None, aggregator: bool = True) -> None:
    """The pages of a gateway, its metrics written by the gateway's own code."""
    metrics = GatewayMetrics(deployment="flights", replica="r1")
    metrics.count_logged("logged", 1_000)
    metrics.count_logged("dropped", dropped)
    text = exposition([metrics.snapshot()], deployment="flights", aggregator_reachable=aggregator)
    hook.pages["/flights/metrics"] = text.decode()
    hook.pages["/flights/ready"] = json.dumps({"prediction_log": {"enabled": True, "problem": problem}})


@pytest.fixture
def deployed(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("deployment", "flights")))


@pytest.mark.usefixtures("deployed")
def test_dropped_rows_are_told_with_their_number(hook: Webhook, tick: Tick) -> None:
    gateway_says(hook, dropped=0)
    tick(health_alerts)
    gateway_says(hook, dropped=250)
    tick(health_alerts)
    tick(health_alerts)
    (alert,) = told(hook)
    assert alert["kind"] == "log_drops" and alert["subject"] == "flights_prediction_log"
    assert alert["summary"] == "250 rows were dropped from the log"


@pytest.mark.usefixtures("deployed")
def test_a_log_that_cannot_be_written_is_told_after_two_looks(hook: Webhook, tick: Tick) -> None:
    gateway_says(hook, dropped=0, problem="OSError: no space left")
    tick(health_alerts)
    assert hook.requests == []
    tick(health_alerts)
    assert "no space left" in told(hook)[0]["summary"]


@pytest.mark.usefixtures("deployed")
def test_the_count_of_one_replica_alone_is_not_compared(hook: Webhook, tick: Tick) -> None:
    gateway_says(hook, dropped=7, aggregator=False)
    tick(health_alerts)
    assert hook.requests == []


def test_what_was_never_deployed_is_not_asked(hook: Webhook, tick: Tick) -> None:
    gateway_says(hook, dropped=7)
    tick(health_alerts)
    assert hook.requests == []


@pytest.mark.usefixtures("deployed")
def test_an_endpoint_that_does_not_answer_keeps_the_rest_of_the_watch(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    retrain(instance, training=True, mlops__launched_by="automation")
    tick(health_alerts)
    assert hook.kinds() == ["retrain_failed"]


def test_what_the_webhook_did_not_take_is_delivered_by_the_next_tick(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    becomes(instance, "flights", "FAIL", NOW)
    hook.statuses = [503]
    tick(freshness_alerts)
    assert hook.kinds() == ["freshness_failed"]
    said = tick(health_alerts).skip_reason
    assert said is not None and "delivered to the webhook" in str(said.skip_message)
    assert hook.kinds() == ["freshness_failed"] * 2


# -- documents that cannot be loaded -------------------------------------------------------------------


def test_a_missing_document_is_told_once_and_its_placeholders_fail_their_check(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = MissingDocument(
        "shop.yaml:3", "shop", "ModelComponent shop", "shop.yaml:4: task: no", "", ("shop_model",)
    )
    lost = dg.Definitions.merge(DEFINITIONS, placeholders([missing]))
    monkeypatch.setitem(globals(), "DEFINITIONS", lost)

    first, second = tick(health_alerts), tick(health_alerts)

    assert hook.kinds() == ["document_missing"] and "1 documents are missing" in str(first.skip_reason)
    (check,) = first.asset_events
    assert isinstance(check, dg.AssetCheckEvaluation) and not check.passed
    assert (check.asset_key, check.description) == (asset_key("model", "shop"), "shop.yaml:4: task: no")
    assert second.asset_events == []


def test_one_gateway_that_answers_nonsense_keeps_the_others_watched(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = exposition([GatewayMetrics(deployment="tea", replica="r0").snapshot()], deployment="tea").decode()
    told = {"flights": 'mlops_prediction_log_rows_total{outcome="dropped"} many\n', "tea": fine}
    monkeypatch.setattr(ServeClient, "metrics", lambda self, name, **_: told[name])
    monkeypatch.setattr(ServeClient, "ready", lambda self, name, **_: (200, {}))
    for name in told:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("deployment", name)))

    states = module.log_states(instance, ServeClient(dashboard_url="", serve_url="", state_file=""), told)

    assert states["tea"].unreadable is None and states["flights"].unreadable


def test_what_failed_under_the_eyes_of_a_person_is_not_told(
    instance: dg.DagsterInstance, hook: Webhook, tick: Tick
) -> None:
    retrain(instance, training=True, mlops__launched_by="up")
    tick(health_alerts)
    assert hook.requests == []
