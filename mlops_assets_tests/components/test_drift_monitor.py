"""The loop as its users see it: logged answers and labels in; episodes, stale models and runs out."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import table_name
from mlops_assets.commands.decisions import ask_for_retrain, close_episode, decide_approval
from mlops_assets.commands.explain import explain
from mlops_assets.commands.status import StatusSources, asset_statuses, model_statuses
from mlops_assets.components.drift_monitor import DriftMonitorComponent
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration, RetrainCalendar
from mlops_assets.errors import MlopsError
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.event_log.records import Record, latest
from mlops_assets.event_log.served_state import MONITORED, MonitorSummary, served_version
from mlops_assets.monitoring.policy import AgeRule, DriftPolicy
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry
from mlops_assets.resources.scratch import Scratch
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.sensors.drift import drift_verdict_now
from mlops_assets.sensors.retrain_calendar import ask_governor
from mlops_assets.testing.instances import continued
from serve.inference_log import Answered, PredictionLog
from serve.schema import PredictionLogArgs
from serve.scoring import load_package

YAML = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: shop
  source: {format: csv, path: raw.csv}
  columns: {visit: string, at: timestamp, age: number, spent: number, bought: number}
  primary_key: [visit]
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: shop
  entity: {name: visit, join_keys: [visit]}
  event_timestamp: at
  base: shop
  features:
    - {name: age, type: number}
    - {name: spent, type: number}
---
type: mlops_assets.components.ModelComponent
attributes:
  name: shop
  task: binary
  feature_view: shop
  label: {dataset: shop, column: bought}
  classes: ["no", "yes"]
  folds: 2
  evaluation_window_days: 14
  candidates: [{trainer: logistic_regression}]
  gate: {min_rows: 50, margin: 0.05}
---
type: mlops_assets.components.DeploymentComponent
attributes: {name: shop, model: shop}
---
type: mlops_assets.components.DriftMonitorComponent
attributes:
  model: shop
  logs_since: "2024-01-01"
  window: 1d
  every: 1h
  min_rows: 100
  labels: {within: 1d, min_share: 0.8}
  policy:
    prediction: {action: open, windows: 2, of: 3}
    performance: {action: open}
  governor: {cooldown: 1d, daily_budget: 2, first_back_off: 1d}
  retrain: {schedule: "0 3 1 * *"}
"""
DAY = timedelta(days=1)
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 300
AHEAD: dict[Path, float] = {}
"""By how many seconds real time is ahead of the machine's, by the folder of a shop."""
GONE = "v9"
"""A version that answered once and is in no registry any more."""
CHAIN = ("training_set", "candidates", "model", "evaluation")
TRAINING_SET = (table_name("training_set", "shop"),)
"""What a reader of the training set asks the lake for."""


def visits(day: datetime, *, older: float = 0.0, opposite: bool = False) -> pd.DataFrame:
    """One day of a shop: the old and those who spent much buy; ``older`` shifts the age in decades."""
    random = np.random.default_rng(day.toordinal())
    age, spent = random.normal(4.0 + older, 1.0, ROWS), random.normal(2.0, 1.0, ROWS)
    drive = 1.4 * (age - 4.0) + 1.0 * (spent - 2.0)
    bought = random.random(ROWS) < 1 / (1 + np.exp(drive if opposite else -drive))
    return pd.DataFrame(
        {
            "visit": [f"{day:%Y%m%d}-{number}" for number in range(ROWS)],
            "at": [day + timedelta(minutes=4 * number) for number in range(ROWS)],
            "age": age.round(4),
            "spent": spent.round(4),
            "bought": bought.astype(float),
        }
    )


class Shop:
    """A shop whose model answers, day by day; the deployment is reported, the rest is real."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance, self.folder = instance, folder
        store = f"sqlite:///{folder}/mlflow.db"
        self.clock_file = folder / "clock"
        self.registry = ModelRegistry(tracking_uri=store)
        self.lake = Lake(uri=str(folder / "lake"))
        self.resources = {
            "model_registry": self.registry,
            "experiment_tracker": ExperimentTracker(
                tracking_uri=store, artifact_root=str(folder / "artifacts")
            ),
            "alerts": Alerts(log_file=str(folder / "alerts.jsonl")),
            "inference_log": InferenceLog(uri=str(folder / "predictions")),
            "scratch": Scratch(folder=str(folder / "scratch")),
            "clock": Clock(file=str(self.clock_file)),
            "lake": self.lake,
            # Nothing listens there: monitoring must not depend on it.
            "serve_client": ServeClient(
                dashboard_url="http://127.0.0.1:9",
                serve_url="http://127.0.0.1:9",
                api_keys_file="off",
                state_file=str(folder / "state"),
            ),
        }
        self.definitions = dg.Definitions.merge(definitions, dg.Definitions(resources=self.resources))
        self.cursors: dict[str, str | None] = {}
        self.raw = pd.DataFrame()
        self.raw_file = folder / "raw.csv"
        self.at(FIRST_DAY)

    # -- the world -----------------------------------------------------------------------------------

    def at(self, now: datetime) -> None:
        self.now = now
        self.clock_file.write_text(now.isoformat())

    def labels(self, *days: pd.DataFrame) -> None:
        """What these visits came to is known from now on."""
        self.raw = pd.concat([self.raw, *days], ignore_index=True)
        self.raw.to_csv(self.raw_file, index=False)
        assert self.run("dataset", "features").success

    def answer(self, day: pd.DataFrame, version: str = "v1", variant: str = "stable") -> None:
        """The model answers the visits of a day, as a gateway would log it."""
        known = 1 if version == GONE else int(version[1:])
        registered = self.registry.version("shop", known)
        scorer = load_package(registered.package_uri)
        args = PredictionLogArgs(uri=str(self.folder / "predictions"))
        log = PredictionLog(args, deployment="shop", replica="r")
        for number, row in enumerate(day.to_dict("records")):
            features = {"age": row["age"], "spent": row["spent"]}
            log.put(
                Answered(
                    at=row["at"].timestamp(),
                    answer_id=f"{row['visit']}-{version}",
                    # What a nightly job sends: it must not make one answer of all of them.
                    request_id="nightly-job-42",
                    unit=None,
                    variant=variant,
                    version=version,
                    revision=1,
                    weight=10_000,
                    endpoint="/predict",
                    latency_s=0.001,
                    rows=[features],
                    scores=list(scorer.score_rows([features])),
                    entities=[{"visit": row["visit"]}],
                )
            )
            assert number < ROWS
        log.close()

    def deployed(self, version: int, **metadata: Any) -> None:
        """The rollout made this version stable."""
        told = {
            "stable": f"v{version}",
            "action": "promote",
            "withdrawn": {},
            "revision": version,
            **metadata,
        }
        event = dg.AssetMaterialization(asset_key("deployment", "shop"), metadata=told)
        self.instance.report_runless_asset_event(event)
        self.registry.set_alias("shop", CHAMPION, version)

    def wait(self, seconds: float) -> None:
        """Real time passes."""
        AHEAD[self.folder] = AHEAD.get(self.folder, 0.0) + seconds

    # -- Dagster -------------------------------------------------------------------------------------

    def run(self, *kinds: str, tags: Any = None) -> dg.ExecuteInProcessResult:
        return self.execute([asset_key(kind, "shop") for kind in kinds], tags)

    def execute(
        self, keys: list[dg.AssetKey], tags: Any = None, run_config: Any = None
    ) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            tags=tags,
            run_config=run_config,
            raise_on_error=False,
        )

    def tick(self, name: str) -> dg.SensorResult:
        """One tick of a sensor; what it reports is reported, nothing is run."""
        (sensor,) = [one for one in self.definitions.sensors or [] if one.name == name]
        assert isinstance(sensor, dg.SensorDefinition)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            definitions=self.definitions,
            resources={key: self.resources[key] for key in sensor.required_resource_keys},
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursors[name] = result.cursor or self.cursors.get(name)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return result

    def calendar_asks(self) -> None:
        """What a tick of the schedule does; Dagster gives a schedule no instance in memory."""
        ask_governor(self.instance, "shop", RetrainCalendar(schedule="0 3 1 * *"), self.now)

    def world_goes_on(self) -> None:
        """What happens while a command waits."""
        self.tick("drift_shop")

    def measure(self) -> None:
        """The run that the measuring sensor asks for."""
        (request,) = self.tick("measure_shop").run_requests or []
        assert request.asset_selection is not None
        done = self.execute(list(request.asset_selection), request.tags)
        assert done.success, [event.message for event in done.all_events if event.is_step_failure]

    def record(self, kind: str) -> Record:
        found = latest(self.instance, asset_key(kind, "shop"))
        assert found is not None
        return found

    def version(self, kind: str) -> str:
        found = latest(self.instance, asset_key(kind, "shop"))
        return found.data_version if found else ""

    def status(self) -> dict[str, Any]:
        client = self.resources["serve_client"]
        assert isinstance(client, ServeClient)
        clock = DriftMonitorComponent.clock
        sources = StatusSources(self.definitions, self.instance, client, self.registry)
        [found] = model_statuses(sources, self.now, clock=clock)
        return found.to_dict()

    def staleness(self, kind: str) -> tuple[str, list[str]]:
        key = asset_key(kind, "shop")
        [found] = asset_statuses(self.definitions.resolve_asset_graph(), self.instance, [key])
        return found.staleness, found.causes

    def check(self, kind: str, name: str) -> tuple[bool, str]:
        key = dg.AssetCheckKey(asset_key(kind, "shop"), name)
        found = self.instance.get_latest_asset_check_evaluation_record(key)
        assert found is not None and found.event is not None and found.event.dagster_event is not None
        evaluation = found.event.dagster_event.asset_check_evaluation_data
        return evaluation.passed, evaluation.description or ""

    def alerts(self) -> list[str]:
        path = self.folder / "alerts.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [told["kind"] for told in map(json.loads, lines) if "kind" in told]

    def retrain(self) -> None:
        """What automation runs after a grant, up to the gate."""
        self.run(*CHAIN)


@pytest.fixture(scope="module")
def opened_shop(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[Shop]:
    """v1, trained on 30 days, answers; it is day 31. Training takes seconds."""
    folder = tmp_path_factory.mktemp("opened")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    with definitions_of(folder) as definitions, dg.DagsterInstance.ephemeral() as instance:
        made = Shop(definitions, instance, folder)
        made.labels(*(visits(FIRST_DAY + n * DAY) for n in range(30)))
        done = made.run(*CHAIN)
        assert done.success, [event.message for event in done.all_events if event.is_step_failure]
        made.deployed(1)
        made.at(FIRST_DAY + 30 * DAY)
        yield made


@pytest.fixture(scope="module")
def measured_shop(opened_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Then three days of older visitors were answered and measured; nobody looked at it yet."""
    with going_on(opened_shop, tmp_path_factory.mktemp("measured") / "shop") as made:
        live(made, 30, 3, older=1.0)
        made.measure()
        yield made


@contextlib.contextmanager
def definitions_of(folder: Path, declared: str = YAML) -> Iterator[dg.Definitions]:
    """The declarations, with the lake and the source file in ``folder``."""
    with create_defs_folder_sandbox() as sandbox:
        (sandbox.defs_folder_path / "shop").mkdir()
        text = declared.replace("raw.csv", str(folder / "raw.csv"))
        (sandbox.defs_folder_path / "shop" / "defs.yaml").write_text(text, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            ahead = staticmethod(lambda: time.time() + AHEAD.get(folder, 0.0))
            patch.setattr(DriftMonitorComponent, "clock", ahead)
            with sandbox.build_all_defs() as loaded:
                yield loaded


@contextlib.contextmanager
def going_on(prepared: Shop, folder: Path) -> Iterator[Shop]:
    """A shop of its own in ``folder`` that begins where another one is, which stays as it is."""
    shutil.copytree(prepared.folder, folder)
    with definitions_of(folder) as definitions, continued(prepared.instance) as instance:
        made = Shop(definitions, instance, folder)
        made.raw, made.cursors = prepared.raw, dict(prepared.cursors)
        made.at(prepared.now)
        yield made


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """v1, trained on 30 days, answers; it is day 31. A test that ``begins`` later has another one."""
    prepared = request.getfixturevalue(getattr(request, "param", "opened_shop"))
    with going_on(prepared, tmp_path / "shop") as made:
        yield made


def begins(prepared: str) -> pytest.MarkDecorator:
    """The test's shop is as it is in that fixture."""
    return pytest.mark.parametrize("shop", [prepared], indirect=True)


def live(shop: Shop, first: int, count: int, *, labelled: bool = True, **how: Any) -> None:
    """Days of answers; the clock ends a day after the last, when the labels of all of them are known."""
    days = [FIRST_DAY + number * DAY for number in range(first, first + count)]
    seen = [visits(day, **how) for day in days]
    for one in seen:
        shop.answer(one)
    shop.at(days[-1] + DAY)
    if labelled:
        shop.labels(*seen)


def calls_of(method: str, of: type, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a resource is asked for from now on, call by call."""
    calls: list[tuple[Any, ...]] = []
    asked = getattr(of, method)

    def noted(resource: Any, *what: Any, **how: Any) -> Any:
        calls.append(what)
        return asked(resource, *what, **how)

    monkeypatch.setattr(of, method, noted)
    return calls


def test_quiet_days_open_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    live(shop, 30, 3)
    read = calls_of("read", Lake, monkeypatch)
    shop.measure()
    assert read.count(TRAINING_SET) == 1
    looked_up = calls_of("version", ModelRegistry, monkeypatch)

    result = shop.tick("drift_shop")

    assert looked_up == [("shop", 1)], "the version that answers is looked up once a tick"
    assert not result.run_requests and episode_log(shop.instance, "shop").newest is None
    windows = shop.record("drift").metadata["windows"]
    assert [window["judged"] for window in windows] == [True, True, True]
    judged = [one for one in shop.record("performance").metadata["windows"] if one["status"] == "judged"]
    assert judged and all(one["share"] == 1.0 for one in judged)
    # Each is held against the baseline and against the days before it, which the record keeps.
    assert all("of the baseline" in one["baseline"] and one["accumulated"] is not None for one in judged)
    assert list(shop.record("performance").metadata["days"]["v1"]) == [one["end"] for one in judged]
    features = [one for one in windows[-1]["columns"] if one["role"] == "feature"]
    assert features and all(one["unlearned"] is not None for one in features)
    summary = shop.definitions.resolve_asset_graph().get(asset_key("drift", "shop")).metadata[MONITORED]
    assert MonitorSummary(**summary).held_out_days == 14
    assert shop.staleness("model")[0] == "FRESH"
    assert shop.check("deployment", "served")[0]
    assert shop.alerts() == []
    # Nothing new: nothing is measured again.
    assert not shop.tick("measure_shop").run_requests
    looks_away_until_there_is_news(shop, looked_up, monkeypatch)


def looks_away_until_there_is_news(shop: Shop, looked_up: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServeClient, "report_monitoring", lambda *_: None)
    quiet = shop.tick("drift_shop")
    looked_up.clear()
    assert shop.tick("drift_shop").skip_reason == quiet.skip_reason
    shop.wait(59)
    shop.tick("drift_shop")
    assert looked_up == []
    shop.wait(1)
    shop.tick("drift_shop")
    assert looked_up == [("shop", 1)], "time falls due without an event"
    shop.instance.report_runless_asset_event(dg.AssetObservation(asset_key("dataset", "shop")))
    shop.tick("drift_shop")
    assert len(looked_up) == 2, "whatever is recorded is news"
    shop.at(shop.now + timedelta(days=1))
    shop.tick("drift_shop")
    assert len(looked_up) == 3, "so is another day"


@begins("measured_shop")
def test_drift_opens_one_episode_and_the_model_is_stale_with_it_as_the_cause(shop: Shop) -> None:
    result = shop.tick("drift_shop")

    assert shop.version("drift_signal") == "episode-1"
    assert shop.version("retrain_request") == "episode-1.1"
    status, causes = shop.staleness("model")
    assert status == "STALE" and causes == ["has a new dependency data version: shop_drift_signal"]
    passed, told = shop.check("model", "no_drift")
    assert not passed and "Episode 1 on v1" in told and "prediction" in told
    assert not shop.check("deployment", "served")[0]
    assert shop.alerts() == ["episode_opened"]
    assert "prediction" in str(shop.record("drift_signal").metadata["reason"])
    assert [one.run_key for one in result.run_requests or []] == ["episode-1.1/granted"]
    # Looking again changes nothing.
    again = shop.tick("drift_shop")
    assert not again.asset_events and shop.version("retrain_request") == "episode-1.1"


@begins("measured_shop")
def test_a_passed_gate_closes_the_episode_and_the_model_is_fresh(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.tick("drift_shop")

    read, reads = calls_of("read", Lake, monkeypatch), {}
    for kind in CHAIN:
        read.clear()
        shop.run(kind)
        reads[kind] = read.count(TRAINING_SET)
    # A step reads it once and passes it on, to the drift reference of the model as well.
    assert reads == {"training_set": 0, "candidates": 1, "model": 1, "evaluation": 1}
    assert shop.record("evaluation").metadata["outcome"] == "promote"
    shop.tick("drift_shop")

    newest = episode_log(shop.instance, "shop").newest
    assert newest is not None and not newest.is_open and newest.attempts[0].outcome == "promoted"
    assert shop.check("model", "no_drift")[0]
    assert shop.staleness("model")[0] == "FRESH"
    assert shop.alerts() == ["episode_opened", "episode_closed"]
    # v1 still answers and still drifts, but its successor is on its way.
    shop.tick("drift_shop")
    assert shop.version("drift_signal") == "episode-1"
    shop.deployed(2)
    shop.tick("drift_shop")
    assert shop.check("deployment", "served")[0], shop.check("deployment", "served")


def test_an_undecided_candidate_is_judged_again_on_newer_data_and_only_then_one_is_trained(
    shop: Shop,
) -> None:
    # The shop turned around: what the newest days teach is worthless for a gate on days before.
    live(shop, 30, 3, opposite=True)
    shop.measure()
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == "episode-1.1"
    shop.retrain()
    assert shop.record("evaluation").metadata["outcome"] == "inconclusive"
    trained = shop.version("model")

    shop.tick("drift_shop")
    log = episode_log(shop.instance, "shop")
    assert log.open is not None and log.open.attempts[0].outcome == "inconclusive"
    shop.at(shop.now + 3 * DAY)
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == "episode-1.1"

    live(shop, 36, 1, opposite=True)
    (look,) = shop.tick("drift_shop").run_requests or []
    assert look.run_key == "episode-1.1/look-2" and shop.version("retrain_request") == "episode-1.1"
    judged = [asset_key(kind, "shop") for kind in ("evaluation", "approval", "deployment")]
    assert list(look.asset_selection or []) == judged
    shop.execute(judged[:1], run_config=look.run_config)
    told = shop.record("evaluation").metadata
    assert (told["look"], told["outcome"]) == (2, "inconclusive") and shop.version("model") == trained
    # Twice as much time lies behind the change as the first attempt had.
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == "episode-1.2"
    assert shop.version("drift_signal") == "episode-1"


@begins("measured_shop")
def test_a_request_that_nobody_read_is_launched_once(shop: Shop) -> None:
    shop.tick("drift_shop")
    shop.wait(600)

    (request,) = shop.tick("drift_shop").run_requests or []

    assert request.run_key == "episode-1.1/unread"
    assert request.asset_selection is not None
    assert asset_key("deployment", "shop") in request.asset_selection
    (again,) = shop.tick("drift_shop").run_requests or []
    assert again.run_key == request.run_key  # Dagster carries a run key out once.


@begins("measured_shop")
def test_a_failed_run_is_told_and_tried_again(shop: Shop) -> None:
    shop.tick("drift_shop")
    shop.raw_file.write_text("visit,at,age,spent,bought\n")
    broken = shop.lake.uri
    (Path(broken) / "features" / "shop").rename(Path(broken) / "gone")
    shop.retrain()

    shop.tick("drift_shop")

    log = episode_log(shop.instance, "shop")
    assert log.open is not None and log.open.attempts[0].outcome == "failed"
    assert "retrain_failed" in shop.alerts()
    (Path(broken) / "gone").rename(Path(broken) / "features" / "shop")
    shop.at(shop.now + 2 * DAY)
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == "episode-1.2"


@begins("measured_shop")
def test_a_person_closes_an_episode(shop: Shop) -> None:
    shop.tick("drift_shop")

    number = close_episode(
        shop.definitions, shop.instance, "shop", by="ana", reason="a promotion, over soon", now=shop.now
    )

    assert number == 1 and shop.check("model", "no_drift")[0]
    shop.tick("drift_shop")
    assert shop.version("drift_signal") == "episode-1"
    with pytest.raises(MlopsError, match="no drift episode is open"):
        close_episode(shop.definitions, shop.instance, "shop", by="ana", reason="again", now=shop.now)


def test_late_labels_are_waited_for_and_said(shop: Shop) -> None:
    live(shop, 30, 2, labelled=False)
    shop.measure()

    windows = shop.record("performance").metadata["windows"]

    # The first day's labels may come until a day after it; now they are overdue.
    assert [one["status"] for one in windows] == ["unlabelled", "waiting"]
    assert windows[1]["share"] == 0.0 and "label" in windows[1]["reason"]


def test_a_window_is_measured_again_when_its_labels_arrive(shop: Shop) -> None:
    day = FIRST_DAY + 30 * DAY
    shop.answer(visits(day))
    shop.at(day + DAY + timedelta(hours=2))
    shop.measure()
    assert shop.record("performance").metadata["windows"][0]["status"] == "waiting"
    shop.labels(visits(day))

    shop.measure()

    (judged,) = shop.record("performance").metadata["windows"]
    assert judged["status"] == "judged" and judged["value"] is not None and judged["low"] < judged["value"]


def test_a_window_that_ends_while_a_run_measures_is_not_judged_by_a_part_of_its_answers(shop: Shop) -> None:
    day = FIRST_DAY + 30 * DAY
    seen = visits(day)
    shop.answer(seen[:200])
    shop.at(day + timedelta(hours=14))
    assert shop.run("prediction_log", tags={"dagster/partition": f"{day:%Y-%m-%d}"}).success
    # The rest of the day is answered and the day ends, before the same run goes on.
    shop.answer(seen[200:].assign(visit=seen["visit"][200:] + "-late"))
    shop.at(day + DAY)
    assert shop.run("performance", "drift").success
    assert shop.record("drift").metadata["windows"] == shop.record("performance").metadata["windows"] == []

    shop.measure()

    (measured,) = shop.record("drift").metadata["windows"]
    assert measured["rows"] == ROWS


def test_a_window_in_which_callers_fell_silent_is_judged_all_the_same(shop: Shop) -> None:
    day = FIRST_DAY + 30 * DAY
    shop.answer(visits(day))
    shop.at(day + 3 * DAY)
    shop.measure()
    windows = shop.record("drift").metadata["windows"]
    assert [one["rows"] for one in windows] == [ROWS, 0, 0]
    assert [one["judged"] for one in windows] == [True, False, False]


def test_the_log_is_compacted_and_each_answer_counts_once(shop: Shop) -> None:
    day = visits(FIRST_DAY + 30 * DAY)
    shop.answer(day)
    shop.answer(day)  # A gateway that wrote the same rows twice.
    shop.at(FIRST_DAY + 31 * DAY)
    shop.measure()

    record = shop.instance.get_latest_materialization_event(asset_key("prediction_log", "shop"))
    assert record is not None
    table = shop.lake.read("prediction_logs/shop")
    assert len(table) == ROWS and set(table["dt"]) == {"2024-01-31"}
    shop.labels(day)  # News, so the day is read again.
    shop.measure()
    assert shop.lake.read("prediction_logs/shop").shape == table.shape


def test_a_version_without_a_reference_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lake, "read_text", lambda lake, uri: None)
    live(shop, 30, 1)
    shop.measure()

    told = shop.record("drift").metadata
    assert told["windows"] == [] and "trained without a monitor" in told["reason"]
    assert not shop.tick("drift_shop").run_requests and shop.version("drift_signal") == ""


@begins("measured_shop")
def test_an_answer_goes_back_to_the_episode_that_retrained_its_model(shop: Shop) -> None:
    shop.tick("drift_shop")
    shop.retrain()
    shop.deployed(2)
    shop.answer(visits(shop.now, older=1.0), version="v2")

    found = explain(
        f"{shop.now:%Y%m%d}-0-v2",
        instance=shop.instance,
        registry=shop.registry,
        log=InferenceLog(uri=str(shop.folder / "predictions")),
        definitions=shop.definitions,
    )

    [lineage] = found.versions
    [link] = [link for link in lineage.links if link.what == "drift episode"]
    assert link.found and link.facts["request"] == "episode-1.1" and "predictions drifted" in link.said


def test_old_data_alone_is_granted_a_routine_retrain_and_opens_no_episode(shop: Shop) -> None:
    live(shop, 30, 1)
    shop.measure()
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == shop.version("drift_signal") == ""

    shop.at(shop.now + 60 * DAY)
    [granted] = shop.tick("drift_shop").run_requests or []

    assert granted.run_key == "episode-1.1/granted" and shop.version("retrain_request") == "episode-1.1"
    assert not shop.check("deployment", "served")[0]
    assert shop.version("drift_signal") == ""


def by_hand(shop: Shop, **metadata: Any) -> None:
    """What the button, or a POST, reports: no run, no log of episodes."""
    key = asset_key("retrain_request", "shop")
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))


def test_a_request_by_hand_is_answered_once_by_the_governor(shop: Shop) -> None:
    graph = shop.definitions.resolve_asset_graph()
    assert graph.get(asset_key("training_set", "shop")).automation_condition is None
    shop.labels(visits(shop.now))
    by_hand(shop)
    assert shop.status()["request"]["state"] == "waiting"

    [granted] = shop.tick("drift_shop").run_requests or []

    assert granted.run_key == "episode-1.1/granted" and granted.asset_selection is not None
    assert asset_key("deployment", "shop") in granted.asset_selection
    assert shop.version("retrain_request") == "episode-1.1" and shop.version("drift_signal") == ""
    assert "somebody asked for a retrain" in shop.status()["request"]["reason"]
    # Beside a retrain nobody gets another one, whoever says so, and it is told.
    for _ in range(150):
        by_hand(shop, by="ana", reason="prices", override=True)
    refused = shop.tick("drift_shop")
    assert not refused.run_requests and shop.alerts() == ["retrain_refused"]
    assert not shop.tick("drift_shop").asset_events
    told = shop.status()["request"]
    assert told["state"] == "refused"
    assert "ana asked for a retrain (prices): refused, attempt 1.1 has not ended" in told["reason"]
    assert episode_log(shop.instance, "shop").grants[-1].outcome == "running"

    # The run that the grant led to is still known for what it is.
    shop.retrain()
    shop.tick("drift_shop")
    log = episode_log(shop.instance, "shop")
    assert log.newest is not None and not log.newest.is_open and log.newest.attempts[0].outcome != "failed"
    with pytest.raises(MlopsError, match=r"refused, .* To do: .* mlops retrain shop .* --override"):
        asking(shop, override=False)
    assert "ana overrode: " in asking(shop, override=True)
    assert shop.version("retrain_request") == "episode-2.1"
    assert shop.check("model", "no_drift")[0]


def test_what_the_calendar_asks_for_is_granted_by_the_governor_and_is_no_drift(shop: Shop) -> None:
    [schedule] = shop.definitions.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition) and schedule.name == "retrain_shop"
    shop.labels(visits(shop.now))

    shop.calendar_asks()
    waiting = shop.status()["request"]
    assert waiting["state"] == "waiting" and "the calendar asks: 0 3 1 * *" in waiting["reason"]
    [granted] = shop.tick("drift_shop").run_requests or []
    assert granted.run_key == "episode-1.1/granted"
    assert shop.version("drift_signal") == "" and shop.check("deployment", "served")[0]
    newest = episode_log(shop.instance, "shop").newest
    assert newest is not None and newest.asked_by == "schedule"


def test_a_calendar_that_is_refused_says_so_in_the_status_and_calls_nobody(shop: Shop) -> None:
    shop.calendar_asks()
    refused = shop.tick("drift_shop")

    assert not refused.run_requests and shop.alerts() == []
    told = shop.status()["request"]
    assert told["state"] == "refused"
    assert "schedule asked for a retrain (the calendar asks: 0 3 1 * *): refused" in told["reason"]
    assert "trained on all the data there is" in told["reason"]
    assert "It asks again by itself; sooner: mlops retrain shop" in told["reason"]
    assert "override" not in told["reason"]
    assert not shop.tick("drift_shop").asset_events


def test_a_person_who_waits_beside_the_calendar_is_the_one_who_is_answered(shop: Shop) -> None:
    by_hand(shop, by="ana", reason="prices")
    shop.calendar_asks()
    shop.tick("drift_shop")
    assert shop.status()["request"]["reason"].startswith("ana asked for a retrain (prices): refused")
    assert shop.alerts() == ["retrain_refused"]


def test_where_no_calendar_is_declared_there_is_no_schedule(shop: Shop) -> None:
    with definitions_of(shop.folder, YAML.replace('  retrain: {schedule: "0 3 1 * *"}\n', "")) as definitions:
        assert not definitions.schedules


def asking(shop: Shop, *, override: bool) -> str:
    """``mlops retrain``, with the sensor ticking while it waits."""
    return ask_for_retrain(
        shop.definitions,
        shop.instance,
        "shop",
        by="ana",
        reason="prices",
        override=override,
        sleep=lambda seconds: shop.world_goes_on(),
    )


def test_a_request_that_nobody_answers_stands_and_says_so(shop: Shop) -> None:
    with pytest.raises(MlopsError, match="nobody answered within 3 s"):
        ask_for_retrain(
            shop.definitions,
            shop.instance,
            "shop",
            by="ana",
            reason="prices",
            wait_s=3.0,
            sleep=lambda seconds: None,
        )
    assert shop.status()["request"]["state"] == "waiting"
    with pytest.raises(MlopsError, match="needs a name and a reason"):
        ask_for_retrain(shop.definitions, shop.instance, "shop", by=" ", reason="prices")


@begins("measured_shop")
def test_a_successor_whose_approval_is_rejected_is_none(shop: Shop) -> None:
    shop.tick("drift_shop")
    shop.retrain()
    shop.tick("drift_shop")
    assert shop.record("evaluation").metadata["outcome"] == "promote"

    decide_approval(shop.definitions, shop.instance, "shop", approver="ana", reason="odd", decision="reject")
    shop.at(shop.now + 2 * DAY)
    shop.labels(visits(shop.now - DAY, older=1.0))
    shop.tick("drift_shop")

    assert shop.version("drift_signal") == "episode-2"
    assert shop.version("retrain_request") == "episode-2.1"


def test_a_lost_approval_is_launched_again_until_a_person_is_told_and_decides(shop: Shop) -> None:
    shop.labels(*(visits(FIRST_DAY + n * DAY, older=1.0) for n in range(30, 33)))
    shop.retrain()
    assert shop.record("evaluation").metadata["outcome"] == "promote"
    job = shop.definitions.resolve_implicit_global_asset_job_def()
    wanted, keys = ("approval", "deployment"), list[str]()
    for _ in range(6):
        assert not shop.tick("drift_shop").run_requests  # Not before it is due.
        shop.wait(3_700)
        [request] = shop.tick("drift_shop").run_requests or []
        assert request.asset_selection == [asset_key(kind, "shop") for kind in wanted]
        keys.append(str(request.run_key))
        tags = {**request.tags, "dagster/run_key": keys[-1]}
        run = shop.instance.create_run_for_job(
            job, tags=tags, asset_selection=frozenset(request.asset_selection)
        )
        assert not shop.tick("drift_shop").run_requests  # Its run is under way.
        shop.instance.report_run_failed(run)
        AHEAD[shop.folder] = 0.0

    assert keys == ["v2/approval", *(f"v2/approval/{number}" for number in range(2, 7))]
    shop.wait(86_400)
    told = shop.tick("drift_shop")
    assert not told.run_requests and "6 of 6 launches came to nothing" in str(told.skip_reason)
    shop.tick("drift_shop")
    assert shop.alerts().count("approval_lost") == 1
    found = shop.status()["approval"]
    assert found["state"] == "lost" and "mlops approve shop --by NAME" in found["reason"]

    decide_approval(shop.definitions, shop.instance, "shop", approver="ana", reason="read the plots")

    assert shop.status()["approval"]["state"] == "granted"
    assert "the approval of" not in str(shop.tick("drift_shop").skip_reason)


def test_a_version_that_answered_for_a_part_of_a_window_is_not_judged_by_it(shop: Shop) -> None:
    day = FIRST_DAY + 30 * DAY
    everyone = visits(day, older=1.0)
    # Nobody knows that version any more, which must not stop the measuring of others.
    shop.answer(everyone.head(2 * ROWS // 3), version=GONE)
    shop.answer(everyone.tail(ROWS // 3))
    shop.at(day + DAY)
    shop.labels(everyone)
    shop.measure()

    (drift,) = shop.record("drift").metadata["windows"]
    (performance,) = shop.record("performance").metadata["windows"]

    assert not drift["judged"] and "it answered from 2024-01-31 13:20 to" in drift["reason"]
    assert performance["status"] == "too_few" and performance["loss_low"] is None
    assert performance["value"] is not None  # Shown, not held against it.


def test_callers_who_keep_office_hours_are_judged(shop: Shop) -> None:
    day = FIRST_DAY + 30 * DAY
    shop.answer(visits(day).head(ROWS // 2))
    shop.at(day + DAY)
    shop.measure()

    (drift,) = shop.record("drift").metadata["windows"]
    assert drift["judged"]


def test_a_measurement_that_failed_is_made_again_with_everything_it_missed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(shop, 30, 1)
    shop.measure()
    live(shop, 31, 1)
    (lost,) = shop.tick("measure_shop").run_requests or []  # Its run never comes to anything.
    live(shop, 32, 1)

    (request,) = shop.tick("measure_shop").run_requests or []

    assert lost.tags["dagster/asset_partition_range_start"] == "2024-01-30"
    assert request.tags["dagster/asset_partition_range_start"] == "2024-01-30"
    assert request.tags["dagster/asset_partition_range_end"] == "2024-02-02"


def test_a_gateway_whose_clock_is_ahead_hides_nobody(shop: Shop) -> None:
    live(shop, 30, 1)
    shop.answer(visits(FIRST_DAY + 300 * DAY))
    shop.measure()

    (drift,) = shop.record("drift").metadata["windows"]
    assert drift["judged"] and drift["rows"] == ROWS


def test_a_label_that_the_model_never_heard_of_is_no_label(shop: Shop) -> None:
    day = visits(FIRST_DAY + 30 * DAY)
    shop.answer(day)
    shop.at(FIRST_DAY + 31 * DAY)
    day.loc[3, "bought"] = 2.0
    shop.labels(day)
    shop.measure()

    (performance,) = shop.record("performance").metadata["windows"]
    (drift,) = shop.record("drift").metadata["windows"]
    assert performance["status"] == "judged" and performance["labelled"] == ROWS - 1
    assert drift["judged"]


@begins("measured_shop")
def test_an_evaluation_reported_by_hand_is_none(shop: Shop) -> None:
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("evaluation", "shop")))

    shop.tick("drift_shop")

    assert shop.version("drift_signal") == "episode-1"


@begins("measured_shop")
def test_the_rejection_of_one_version_is_not_that_of_the_next(shop: Shop) -> None:
    shop.tick("drift_shop")
    shop.retrain()
    shop.tick("drift_shop")
    decide_approval(shop.definitions, shop.instance, "shop", approver="ana", reason="odd", decision="reject")
    shop.labels(visits(shop.now, older=1.0))
    shop.at(shop.now + 2 * DAY)
    shop.tick("drift_shop")
    assert shop.version("retrain_request") == "episode-2.1"
    shop.retrain()
    assert shop.record("evaluation").metadata["outcome"] == "promote"

    shop.tick("drift_shop")
    shop.labels(visits(shop.now, older=1.0))
    shop.at(shop.now + 2 * DAY)
    shop.tick("drift_shop")

    # v3 passed and waits for its approval: nothing is retrained beside it.
    assert shop.version("drift_signal") == "episode-2"


def test_old_data_opens_an_episode_only_where_newer_data_is_there(shop: Shop) -> None:
    declared = DriftMonitorDeclaration(
        model="shop", logs_since=FIRST_DAY.date(), policy=DriftPolicy(age=AgeRule(action="open"))
    )
    monitor = MonitorSummary("shop", "shop", "shop", 0.0, "")
    later = shop.now + 100 * DAY
    answers = served_version(shop.instance, shop.registry, model="shop", deployment="shop")

    nothing_newer = drift_verdict_now(shop.instance, answers, declared, monitor, later)
    shop.labels(visits(shop.now))
    newer = drift_verdict_now(shop.instance, answers, declared, monitor, later)

    assert (nothing_newer.action, newer.action) == ("inconclusive", "open")
    assert "days old, 45 are allowed" in newer.reason
