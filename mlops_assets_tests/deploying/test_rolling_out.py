"""A rollout as its users see it: assets, the sensor, a person's decisions, against real gateways."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Lock
from typing import Any

import dagster as dg
import httpx
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.commands.decisions import decide_rollout
from mlops_assets.components.deployment import DeploymentComponent
from mlops_assets.deploying import rolling_out
from mlops_assets.deploying.retiring import retirement
from mlops_assets.errors import DeploymentError, UnknownName
from mlops_assets.event_log import run_owner
from mlops_assets.event_log.records import Record, latest
from mlops_assets.monitoring.losses import losses_by_revision
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.plan import Plan, Step
from mlops_assets.rollout.transitions import RoutingSettings
from mlops_assets.testing.small_models import ROW, package
from mlops_assets.testing.small_serve import SmallCluster, small_cluster
from serve.schema import GatewayArgs
from serve.scoring import package_digest, write_package

Load = Callable[[str], dg.Definitions]

STEPS = """
  steps:
    - {shadow: 100, min_requests: 250}
    - {set_weight: 20, min_requests: 200}
    - {set_weight: 100}
  analysis:
    - {metric: error_rate, success_condition: increase <= 0.03}
"""
YAML = """
type: mlops_assets.components.DeploymentComponent
attributes:
  name: flights
  model: flights
  gateway_replicas: 2
"""
KEY = asset_key("deployment", "flights")


@pytest.fixture
def cluster() -> Iterator[SmallCluster]:
    with small_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables; making them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client = ModelRegistry(tracking_uri=f"sqlite:///{path}").client()
    client.create_registered_model("flights")
    return path


class World:
    """A deployment with a registry, a cluster, an instance and a clock; versions come approved."""

    def __init__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, cluster: SmallCluster, folder: Path
    ) -> None:
        self.instance, self.cluster, self.folder = instance, cluster, folder
        self.registry = ModelRegistry(tracking_uri=f"sqlite:///{folder}/mlflow.db")
        self.client = ServeClient(
            dashboard_url=cluster.url,
            serve_url=cluster.url,
            api_keys_file="off",
            state_file=str(folder / "desired_state.json"),
            deadline_s=15,
        )
        resources = {
            "serve_client": self.client,
            "model_registry": self.registry,
            "lake": Lake(uri=str(folder / "lake")),
            "alerts": Alerts(log_file=str(folder / "alerts.jsonl")),
        }
        self.definitions = dg.Definitions.merge(
            dg.Definitions(
                assets=definitions.assets, sensors=definitions.sensors, asset_checks=definitions.asset_checks
            ),
            dg.Definitions(resources=resources),
        )
        self.cursor: str | None = None
        self.now = time.time()
        self.http = httpx.Client(base_url=f"{cluster.url}/flights", trust_env=False, timeout=20)

    # -- versions ------------------------------------------------------------------------------------

    def approve(self, seed: int) -> int:
        """Registers a model and records everything up to its approval; its version."""
        manifest, payload = package("binary", seed=seed)
        uri, digest = self.folder / "packages" / str(seed), package_digest(manifest, payload)
        write_package(str(uri), manifest, payload)
        client = self.registry.client()
        created = client.create_model_version(
            "flights",
            source=str(uri),
            tags={
                "digest": digest,
                "package_uri": str(uri),
                "manifest": json.dumps(manifest.model_dump(mode="json")),
            },
        )
        version = int(created.version)
        self.report("training_set", f"set-{seed}", {})
        self.report("model", digest, {"model_version": version})
        verdict = {"outcome": "promote", "reason": "better", "model_version": version}
        self.report("evaluation", f"evaluation-{seed}", verdict)
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=asset_key("evaluation", "flights"),
                check_name="gate",
                passed=True,
                metadata={},
                blocking=True,
            )
        )
        assert self.run("approval").success
        return version

    def report(self, kind: str, data_version: str, metadata: dict[str, Any]) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=asset_key(kind, "flights"),
                metadata=metadata,
                tags={"dagster/data_version": data_version},
            )
        )

    # -- runs ----------------------------------------------------------------------------------------

    def run(self, kind: str = "deployment", tags: Any = None, **config: Any) -> dg.ExecuteInProcessResult:
        key = asset_key(kind, "flights")
        run_config = {"ops": {key.to_python_identifier(): {"config": config}}} if config else {}
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[key],
            run_config=run_config,
            tags=tags,
            raise_on_error=False,
        )

    def tick(self, *, run: bool = True) -> dg.SensorResult:
        """One tick of the rollout sensor; the run it asks for is carried out."""
        (sensor,) = self.definitions.sensors or []
        assert isinstance(sensor, dg.SensorDefinition)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.definitions,
            resources={"serve_client": self.client},
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor or self.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in (result.run_requests or []) if run else []:
            (config,) = request.run_config["ops"].values()
            done = self.run(tags=request.tags, **config["config"])
            assert done.success, why_failed(done)
        return result

    def decide(self, action: Any, **more: Any) -> Record:
        act = {"by": "ana", "reason": "because", **more}
        return decide_rollout(self.definitions, self.instance, "flights", action=action, **act)

    def rolling_out(self) -> rolling_out.RollingOut:
        """The acts of the deployment, outside of any run."""
        return rolling_out.RollingOut(
            name="flights",
            model="flights",
            plan=Plan((Step(weight=10_000),)),
            settings=RoutingSettings(deployment="flights"),
            gateway_args=GatewayArgs.model_validate(self.cluster.declared["flights"]["args"]),
            model_args=lambda version: pytest.fail("no version is started"),
            approved=lambda: pytest.fail("no approval is asked for"),
            client=self.client,
            registry=self.registry,
            alerts=Alerts(log_file=str(self.folder / "alerts.jsonl")),
            report=print,
        )

    # -- what is true --------------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        found = latest(self.instance, KEY)
        assert found is not None
        return found

    @property
    def told(self) -> dict[str, Any]:
        return dict(self.record.metadata)

    def records(self) -> list[dict[str, Any]]:
        """The metadata of every materialisation, oldest first."""
        events = self.instance.fetch_materializations(KEY, limit=100).records
        return [
            {name: value.value for name, value in event.asset_materialization.metadata.items()}
            for event in reversed(events)
            if event.asset_materialization
        ]

    def send(self, requests: int, start: int = 0) -> list[str]:
        """Answers' versions; every request must be answered."""
        versions = []
        for number in range(start, start + requests):
            answer = self.http.post("/predict", json={"features": ROW, "unit": f"u{number}"})
            assert answer.status_code == 200, answer.text
            versions.append(answer.json()["model_version"])
        return versions

    def settle(self) -> None:
        """Waits until every count has reached the referee and every mirrored request is over."""
        end = time.monotonic() + 20
        before = None
        while time.monotonic() < end:
            evidence = self.http.get("/evidence").json()
            now = {k: evidence[k] for k in ("versions", "shadows", "trips")}
            if now == before:
                return
            before = now
            time.sleep(0.2)
        raise AssertionError("the evidence does not come to rest")

    def champion(self) -> int:
        found = self.registry.by_alias("flights", "champion")
        assert found is not None
        return found.version

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.registry.version("flights", version).tags)

    def alerts(self) -> list[dict[str, Any]]:
        path = self.folder / "alerts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return " ".join(
        f"{f.user_failure_data and f.user_failure_data.description} {f.error and f.error.message}"
        for f in failures
    )


@pytest.fixture
def steps() -> str:
    """The declared rollout; a test that needs another one gives its own."""
    return STEPS


@pytest.fixture
def world(
    load: Load,
    steps: str,
    instance: dg.DagsterInstance,
    cluster: SmallCluster,
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """v1 answers everything; the deployment declares a shadow step, 20 % and 100 %."""
    holder: list[World] = []
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr(DeploymentComponent, "clock", staticmethod(lambda: holder[0].now))
    made = World(load(YAML + steps), instance, cluster, tmp_path)
    holder.append(made)
    made.approve(0)
    first = made.run()
    assert first.success, why_failed(first)
    with made.http:
        yield made


def start_v2(world: World) -> None:
    world.approve(1)
    done = world.run()
    assert done.success, why_failed(done)


def pass_shadow_step(world: World) -> None:
    world.send(300)
    world.settle()
    world.tick()
    assert world.told["weights"] == {"v1": 80.0, "v2": 20.0}


# -- the whole way -----------------------------------------------------------------------------------


def test_the_first_version_takes_everything_at_once(world: World) -> None:
    assert world.told["phase"] == "successful"
    assert (world.told["action"], world.told["weights"]) == ("initial", {"v1": 100.0})
    assert "2 golden requests answered over HTTP exactly as offline" in world.told["verified"]
    assert world.champion() == 1
    assert world.tick().run_requests == []


def test_a_good_version_goes_from_shadow_to_stable_by_evidence_alone(world: World) -> None:
    start_v2(world)
    assert (world.told["phase"], world.told["step"]) == ("progressing", "1 of 3: shadow 100 %")
    assert set(world.send(20)) == {"v1"}

    waiting = world.tick()
    assert waiting.run_requests == [] and "of 250 requests" in str(waiting.skip_reason)
    assert world.champion() == 1

    world.send(280, 20)
    world.settle()
    world.tick()
    assert (world.told["phase"], world.told["step"]) == ("progressing", "2 of 3: weight 20 %")
    assert world.told["samples"] >= 250 and world.told["judgement"]["phase"] == "successful"
    assert "error_rate" in world.told["reason"] or "errors" in world.told["reason"]

    answered = world.send(1_200)
    assert 0.15 < answered.count("v2") / 1_200 < 0.25
    world.settle()
    world.tick()  # to 100 %: the last step needs nothing, so the same rollout is promoted
    world.tick()
    assert (world.told["phase"], world.told["action"]) == ("successful", "promote")
    assert world.told["weights"] == {"v2": 100.0, "v1": 0.0}
    assert set(world.send(10)) == {"v2"}
    assert world.champion() == 2
    assert world.tags(2)["rollout"] == "promoted"

    world.now += 31 * 60
    world.tick()
    assert (world.told["action"], world.told["weights"]) == ("retire", {"v2": 100.0})
    assert set(world.cluster.declared) == {"flights", "flights--v2"}
    assert world.tick().run_requests == []
    actions = [record["action"] for record in world.records()]
    assert actions == ["initial", "step", "step", "step", "promote", "retire"]
    assert [record["revision"] for record in world.records()] == [1, 2, 3, 4, 5, 6]


def test_units_that_saw_the_canary_stay_with_it_when_it_grows(world: World) -> None:
    start_v2(world)
    pass_shadow_step(world)
    before = world.send(100)
    world.decide("set_weight", weight=60.0)
    after = world.send(100)
    assert all(new == "v2" for old, new in zip(before, after, strict=True) if old == "v2")
    assert after.count("v2") > before.count("v2")


# -- things go wrong ---------------------------------------------------------------------------------


def test_a_canary_that_fails_trips_is_aborted_and_does_not_come_back(world: World) -> None:
    start_v2(world)
    pass_shadow_step(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    answers = world.send(400)
    assert set(answers) == {"v1"} or answers.count("v2") == 0

    world.settle()
    world.tick()

    assert (world.told["phase"], world.told["action"]) == ("failed", "abort")
    assert "v2 tripped" in world.told["reason"] and "model_error" in world.told["reason"]
    assert world.told["weights"] == {"v1": 100.0}
    assert set(world.cluster.declared) == {"flights", "flights--v1"}
    assert world.champion() == 1
    assert world.tags(2)["rollout"] == "aborted" and "tripped" in world.tags(2)["rollout_reason"]
    (alert,) = world.alerts()
    assert (alert["kind"], alert["version"]) == ("rollout_aborted", "v2") and "mlops" in alert["command"]
    check = world.instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(KEY, "rollout"))
    assert check is not None and check.event is not None and check.event.dagster_event is not None
    assert not check.event.dagster_event.asset_check_evaluation_data.passed

    world.now += 3_600
    for _ in range(10):
        assert world.tick().run_requests == []
    again = world.run()
    assert not again.success and "v2 was withdrawn" in why_failed(again)
    assert world.told["weights"] == {"v1": 100.0}


def test_a_person_may_try_an_aborted_version_again(world: World) -> None:
    start_v2(world)
    world.decide("abort", reason="not today")
    assert world.told["withdrawn"] == {"v2": "not today"}
    record = world.decide("start", reason="today")
    assert record.metadata["step"] == "1 of 3: shadow 100 %" and record.metadata["withdrawn"] == {}


def test_a_shadow_that_fails_is_aborted_before_anyone_saw_it(world: World) -> None:
    start_v2(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    assert set(world.send(100)) == {"v1"}
    world.settle()
    world.tick()
    assert (world.told["phase"], world.told["stable"]) == ("failed", "v1")


def test_a_version_that_does_not_start_leaves_everything_as_it_was(world: World) -> None:
    world.cluster.refuses_to_start["flights--v2"] = "no such library"
    world.approve(1)
    assert world.run().success
    assert (world.told["phase"], world.told["weights"]) == ("error", {"v1": 100.0})
    assert "no such library" in world.told["reason"]
    assert set(world.send(20)) == {"v1"}
    assert set(world.cluster.declared) == {"flights", "flights--v1"}
    world.now += 3_600
    assert world.tick().run_requests == []


def test_a_newer_approval_takes_the_place_of_a_rollout_under_way(world: World) -> None:
    start_v2(world)
    world.approve(2)
    assert world.run().success
    assert (world.told["target"], world.told["shadows"]) == ("v3", {"v3": 100.0})
    world.send(10)
    world.tick()
    assert "flights--v2" not in world.cluster.gateways


# -- labels that come back ---------------------------------------------------------------------------

BY_QUALITY = """
  steps:
    - {set_weight: 50, min_requests: 100}
    - {set_weight: 100}
  analysis:
    - {metric: quality, success_condition: increase <= 0.02, inconclusive_limit: 2}
"""
BY_LABELLED_PAIRS = """
  steps:
    - {shadow: 100, min_requests: 50}
    - {set_weight: 100}
  analysis:
    - {metric: quality, success_condition: increase <= 0.02}
"""


def answers_with_labels(world: World, requests: int, *, right: str) -> Any:
    """Answered requests with outcomes that occur as often as the version ``right`` says."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for number in range(requests):
        answer = world.http.post("/predict", json={"features": ROW, "unit": f"u{number}"}).json()
        rows.append(
            {
                "answer_id": answer["answer_id"],
                "endpoint": "/predict",
                "row": 0,
                "revision": world.told["revision"],
                "variant": answer["variant"],
                "version": answer["model_version"],
                "score": answer["probability"],
                "scores": None,
                "has_keys": True,
            }
        )
    frame = pd.DataFrame(rows)
    share = frame.loc[frame["version"] == right, "score"].iloc[0]
    # As many of one version's rows as of the other's have happened: only the scores differ.
    within = frame.groupby("version").cumcount()
    frame["label"] = [("on time", "late")[int((number * 7919) % 1000 < 1000 * share)] for number in within]
    return frame


def labels_arrive(world: World, joined: Any) -> None:
    losses = losses_by_revision(joined, "binary", ("on time", "late"))
    world.report("performance", f"{len(joined)} labels", {"losses": dg.MetadataValue.json(losses)})


@pytest.mark.parametrize("steps", [BY_QUALITY])
def test_a_canary_with_worse_answers_is_aborted_once_their_labels_are_back(world: World) -> None:
    start_v2(world)
    # Something is wrong with it that no error and no latency shows.
    world.cluster.versions["flights--v2"].alter = lambda scores: [1.0 - score for score in scores]
    joined = answers_with_labels(world, 900, right="v1")
    world.settle()
    for _ in range(3):
        waiting = world.tick()
        assert waiting.run_requests == [] and "no labels came back yet" in str(waiting.skip_reason)
    labels_arrive(world, joined.iloc[:60])
    assert world.tick().run_requests == [] and world.told["phase"] == "progressing"

    labels_arrive(world, joined)
    world.tick()

    assert (world.told["phase"], world.told["action"]) == ("failed", "abort")
    assert "mean log loss" in world.told["reason"] and "does not hold" in world.told["reason"]
    assert world.told["weights"] == {"v1": 100.0} and "v2" in world.told["withdrawn"]
    assert [alert["kind"] for alert in world.alerts()] == ["rollout_aborted"]


@pytest.mark.parametrize("steps", [BY_QUALITY])
def test_a_canary_with_better_answers_is_promoted_by_their_labels(world: World) -> None:
    start_v2(world)
    world.cluster.versions["flights--v2"].alter = lambda scores: [1.0 - score for score in scores]
    joined = answers_with_labels(world, 900, right="v2")
    world.settle()
    # Labels of another revision say nothing about this step.
    labels_arrive(world, joined.assign(revision=1))
    assert "no labels came back yet" in str(world.tick().skip_reason)
    labels_arrive(world, joined)
    world.cluster.versions["flights--v2"].alter = lambda scores: scores
    world.tick()
    assert world.told["step"] == "2 of 2: weight 100 %" and world.told["judgement"]["phase"] == "successful"
    world.tick()
    assert (world.told["phase"], world.told["action"], world.champion()) == ("successful", "promote", 2)


@pytest.mark.parametrize("steps", [BY_LABELLED_PAIRS])
def test_a_shadow_is_judged_by_the_labels_of_the_requests_that_both_scored(world: World) -> None:
    start_v2(world)
    world.send(60)
    world.settle()
    own = {"count": 400, "mean": 0.61, "m2": 40.0}
    paired = {"count": 400, "mean": 0.2, "m2": 4.0}
    losses = {"2": {"loss": "log loss", "versions": {"v1": own, "v2": own}, "differences": {"v2": paired}}}
    assert world.told["revision"] == 2
    world.report("performance", "labels", {"losses": dg.MetadataValue.json(losses)})
    world.tick()
    assert (world.told["phase"], world.told["stable"]) == ("failed", "v1")
    assert "over 400 labelled pairs log loss is 0.2000 higher than stable's" in world.told["reason"]


# -- being cut off -----------------------------------------------------------------------------------


def test_a_run_cut_off_before_it_recorded_is_finished_by_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.send(300)
    world.settle()

    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ServeClient, "wait_for_revision", cut_off)
        with pytest.raises(AssertionError, match="KeyboardInterrupt"):
            world.tick()
    assert world.told["revision"] == 2
    world.now += 3_600

    world.tick()

    assert (world.told["revision"], world.told["step"]) == (3, "2 of 3: weight 20 %")
    assert [record["revision"] for record in world.records()] == [1, 2, 3]


def test_a_cluster_that_lost_everything_gets_its_state_back(world: World) -> None:
    start_v2(world)
    world.cluster.forget_everything()
    world.tick()
    assert (world.told["revision"], world.told["weights"]) == (2, {"v1": 100.0, "v2": 0.0})
    assert set(world.send(10)) == {"v1"}


def test_an_act_decided_on_an_older_revision_changes_nothing(world: World) -> None:
    start_v2(world)
    late = world.tick(run=False)
    assert late.run_requests == []
    refused = world.run(action="advance", revision=1, by="rollout sensor", reason="late")
    assert not refused.success and "was decided on revision 1" in why_failed(refused)
    assert world.told["revision"] == 2


def test_nothing_is_launched_while_a_run_is_not_finished(world: World) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    job = world.definitions.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job_def=job, asset_selection=frozenset({KEY}), status=dg.DagsterRunStatus.STARTED
    )
    result = world.tick()
    assert result.run_requests == [] and run.run_id in str(result.skip_reason)


def test_after_a_failed_act_the_sensor_waits_longer_each_time(world: World) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    world.cluster.put_fails = [1]
    with pytest.raises(AssertionError, match="HTTP 503"):
        world.tick()
    world.now = time.time()
    assert "the next try is in" in str(world.tick().skip_reason)
    world.now += 31
    world.tick()
    assert world.told["weights"] == {"v1": 80.0, "v2": 20.0}


def test_a_ray_that_is_away_is_said_and_nothing_else_happens(world: World) -> None:
    away = ServeClient(
        dashboard_url="http://127.0.0.1:9", serve_url="http://127.0.0.1:9", state_file="/nowhere"
    )
    world.client = away
    assert "does not answer" in str(world.tick().skip_reason)


def cut_off(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Carries an act out and kills its run after it was declared, before it was recorded."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ServeClient, "wait_for_revision", killed)
        with pytest.raises((AssertionError, DeploymentError)):
            act()


def test_a_rollback_cut_off_in_a_rollout_withdraws_what_it_left_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("rollback", to="v1", reason="no"))
    with pytest.raises(DeploymentError, match="is not recorded yet"):
        world.decide("rollback", to="v1", reason="again")
    world.tick()
    assert (world.told["action"], world.told["withdrawn"]) == ("rollback", {"v2": "by ana: no"})
    assert world.alerts()[-1]["kind"] == "rolled_back"
    world.now += 3_600
    assert all(not world.tick().run_requests for _ in range(3))


def test_an_abort_cut_off_still_withdraws_and_alerts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("abort", reason="no"))
    world.tick()
    assert (world.told["phase"], world.told["withdrawn"]) == ("failed", {"v2": "no"})
    assert [alert["kind"] for alert in world.alerts()] == ["rollout_aborted"]
    assert world.tags(2)["rollout"] == "aborted"


def test_a_promotion_cut_off_still_moves_the_alias(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start_v2(world)
    cut_off(monkeypatch, lambda: world.decide("promote"))
    assert world.champion() == 1
    world.tick()
    assert (world.champion(), world.told["action"], world.told["phase"]) == (2, "promote", "successful")


def test_a_step_cut_off_whose_canary_then_dies_is_aborted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.send(300)
    world.settle()
    cut_off(monkeypatch, world.tick)
    world.cluster.status["flights--v2"] = ("DEPLOY_FAILED", "out of memory")
    world.now += 3_600
    world.tick()
    assert (world.told["action"], world.told["phase"]) == ("abort", "error")
    assert set(world.send(10)) == {"v1"}


def test_a_canary_whose_replica_is_being_replaced_is_not_given_up(world: World) -> None:
    start_v2(world)
    pass_shadow_step(world)
    world.cluster.status["flights--v2"] = ("UNHEALTHY", "a replica's health check failed")
    assert world.tick().run_requests == []
    assert world.told["withdrawn"] == {}


def test_what_no_file_and_no_cluster_holds_is_rebuilt_from_the_record(world: World) -> None:
    world.cluster.forget_everything()
    (world.folder / "desired_state.json").unlink()
    world.tick()
    assert (world.told["revision"], world.told["weights"]) == (2, {"v1": 100.0})
    assert set(world.send(10)) == {"v1"}


def test_what_ray_refused_is_neither_the_versions_fault_nor_done_later(world: World) -> None:
    world.approve(1)
    world.cluster.put_fails = [1]
    assert not world.run().success
    saved = [application["name"] for application in world.client.saved()]
    assert world.told["withdrawn"] == {} and "flights--v2" not in saved
    start_v2_again = world.run()
    assert start_v2_again.success and world.told["target"] == "v2"
    world.cluster.put_fails = [1]
    with pytest.raises(DeploymentError, match="HTTP 503"):
        world.decide("promote")
    world.cluster.forget_everything()
    world.now += 3_600
    world.tick()
    assert (world.told["stable"], world.told["revision"]) == ("v1", 2)


def test_a_rejection_takes_an_approval_back(world: World) -> None:
    world.approve(1)
    assert world.run("approval", decision="reject", approver="ana", reason="biased").success
    refused = world.run()
    assert not refused.success and "is a rejection by ana: biased" in why_failed(refused)
    world.now += 3_600
    assert world.tick().run_requests == [] and world.told["revision"] == 1


def test_a_rejection_ends_the_rollout_of_that_version(world: World) -> None:
    start_v2(world)
    assert world.run("approval", decision="reject", approver="ana", reason="biased").success
    world.tick()
    assert world.told["action"] == "abort" and "rejected by ana: biased" in world.told["reason"]


def test_a_rollout_stopped_for_a_person_stays_stopped(world: World) -> None:
    start_v2(world)
    assert world.run(action="hold", by="rollout sensor", reason="still inconclusive").success
    assert world.alerts()[-1]["kind"] == "rollout_inconclusive"
    assert world.run().success and world.told["phase"] == "inconclusive"
    world.send(300)
    world.settle()
    assert "stopped as inconclusive" in str(world.tick().skip_reason)


def test_a_gateway_replica_that_is_late_does_not_spoil_a_promotion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(world)
    world.decide("promote")
    world.now += 31 * 60
    world.tick()
    connect, calls = world.cluster.connect, count()

    async def late(application: str) -> Any:
        if next(calls) % 2:
            await asyncio.sleep(1.0)
        return await connect(application)

    monkeypatch.setattr(world.cluster, "connect", late)
    assert world.decide("rollback", to="v1").metadata["phase"] == "successful"


def test_a_promotion_that_fails_goes_back_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    start_v2(world)

    def differs(*_: Any) -> None:
        raise DeploymentError("golden row 3 differs")

    with monkeypatch.context() as patched:
        patched.setattr(rolling_out, "verify_golden", differs)
        told = world.decide("promote", reason="seen enough").metadata
    assert told["phase"] == "error" and "golden row 3 differs" in told["reason"]
    assert told["weights"] == {"v1": 100.0, "v2": 0.0} and world.champion() == 1
    assert "golden row 3" in world.told["withdrawn"]["v2"]


def test_a_command_whose_process_was_killed_blocks_nothing(world: World) -> None:
    start_v2(world)
    job = world.definitions.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job_def=job,
        asset_selection=frozenset({KEY}),
        status=dg.DagsterRunStatus.STARTED,
        tags={run_owner.OWNER_TAG: run_owner.this_process().rsplit(":", 1)[0] + ":1"},
    )
    assert run.run_id not in str(world.tick().skip_reason)
    ended = world.instance.get_run_by_id(run.run_id)
    assert ended is not None and ended.status == dg.DagsterRunStatus.FAILURE


def test_refused_commands_do_not_hold_the_sensor_up(world: World) -> None:
    start_v2(world)
    for _ in range(3):
        with pytest.raises(DeploymentError):
            world.decide("rollback", to="v9")
    world.now = time.time()
    assert "next try" not in str(world.tick().skip_reason)


# -- a person decides --------------------------------------------------------------------------------


def test_a_person_promotes_without_waiting(world: World) -> None:
    start_v2(world)
    record = world.decide("promote", reason="seen enough")
    assert (record.metadata["by"], record.metadata["reason"]) == ("ana", "seen enough")
    assert world.champion() == 2 and set(world.send(10)) == {"v2"}


def test_a_rollback_moves_weights_alias_and_record_together_and_stays(world: World) -> None:
    start_v2(world)
    world.decide("promote")
    record = world.decide("rollback", reason="customers complain")
    assert record.metadata["weights"] == {"v1": 100.0, "v2": 0.0}
    assert world.champion() == 1 and set(world.send(10)) == {"v1"}
    assert world.tags(2)["rollout"] == "rolled back"
    assert record.metadata["withdrawn"] == {"v2": "rolled back by ana: customers complain"}
    assert [alert["kind"] for alert in world.alerts()] == ["rolled_back"]
    world.now += 120
    for _ in range(10):
        assert world.tick().run_requests == []
    assert world.told["stable"] == "v1"


def test_a_rollback_to_a_version_that_is_long_gone_starts_it_first(world: World) -> None:
    start_v2(world)
    world.decide("promote")
    world.now += 31 * 60
    world.tick()
    assert "flights--v1" not in world.cluster.declared
    record = world.decide("rollback", to="v1")
    assert record.metadata["weights"] == {"v1": 100.0, "v2": 0.0} and set(world.send(10)) == {"v1"}


def test_decisions_that_make_no_sense_are_refused_in_words(world: World) -> None:
    with pytest.raises(DeploymentError, match="no rollout is under way"):
        world.decide("promote")
    with pytest.raises(DeploymentError, match="no rollout is under way"):
        world.decide("abort")
    with pytest.raises(DeploymentError, match="v1 is what answers already"):
        world.decide("rollback", to="v1")
    with pytest.raises(DeploymentError, match="no earlier version that was not withdrawn"):
        world.decide("rollback")
    with pytest.raises(DeploymentError, match="has no version 9"):
        world.decide("rollback", to="v9")
    with pytest.raises(DeploymentError, match="approved and stable already"):
        world.decide("start")
    with pytest.raises(DeploymentError, match="Unknown version beside stable"):
        world.decide("set_weight", weight=10.0)
    with pytest.raises(UnknownName, match="Unknown deployment 'nope'"):
        decide_rollout(world.definitions, world.instance, "nope", action="abort", by="ana", reason="x")
    assert [record["revision"] for record in world.records()] == [1]


def test_a_weight_set_by_hand_holds_until_a_person_goes_on(world: World) -> None:
    start_v2(world)
    world.decide("set_weight", weight=50.0)
    answered = world.send(400)
    assert 140 < answered.count("v2") < 260
    world.settle()
    assert "set the weight of v2 by hand" in str(world.tick().skip_reason)
    world.decide("promote")
    assert world.champion() == 2


def test_keys_and_webhooks_stay_out_of_every_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_API_KEY", "k-hush-hush")
    monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", "http://127.0.0.1:9/hook-hush")
    start_v2(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    world.send(100)
    world.settle()
    world.tick()
    assert "did not take it" in world.told["alert"]
    everything = repr([world.records(), world.alerts(), world.tags(2), world.cluster.puts])
    assert "hush" not in everything


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"action": "set_weight", "weight": -5.0, "by": "ana", "reason": "x"}, "between 0 and 100"),
        ({"action": "set_weight", "by": "ana", "reason": "x"}, "between 0 and 100"),
        ({"action": "set_weight", "weight": 0.001, "by": "ana", "reason": "x"}, "finer than 0.01 %"),
        ({"action": "abort"}, "give `by` and `reason`"),
        ({"action": "promote", "by": "ana"}, "give `by` and `reason`"),
    ],
)
def test_acts_that_are_not_said_properly_change_nothing(
    world: World, config: dict[str, Any], told: str
) -> None:
    start_v2(world)
    refused = world.run(**config)
    assert not refused.success and told in why_failed(refused)
    assert world.told["revision"] == 2


def test_an_older_version_promoted_by_a_person_stays(world: World) -> None:
    start_v2(world)
    world.decide("promote")
    world.decide("set_weight", weight=10.0, to="v1")
    world.decide("promote", reason="v1 is better")
    assert (world.told["stable"], world.champion()) == ("v1", 1)
    assert "v1 was promoted over it by ana" in world.told["withdrawn"]["v2"]
    world.now += 120
    assert world.tick().run_requests == []


def test_a_second_rollback_does_not_bring_the_bad_version_back(world: World) -> None:
    start_v2(world)
    world.decide("promote")
    world.decide("rollback", reason="bad")
    with pytest.raises(DeploymentError, match="no earlier version that was not withdrawn"):
        world.decide("rollback", reason="impatient")
    assert world.champion() == 1


def test_two_acts_at_once_never_interleave(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the same revision before either declares: the second changes nothing and says why."""
    start_v2(world)
    both_have_read, one_writer = Barrier(2, timeout=30), Lock()
    declare = rolling_out.RollingOut._declare

    def read_together(self: Any, applications: Any, routing: Any, expected: Any) -> None:
        with suppress(BrokenBarrierError):
            both_have_read.wait()
        with one_writer:
            declare(self, applications, routing, expected)

    monkeypatch.setattr(rolling_out.RollingOut, "_declare", read_together)
    rolling = [world.rolling_out() for _ in range(2)]
    orders = [rolling_out.Order(action=action, by="ana", reason="now") for action in ("promote", "abort")]
    record = world.record

    def act(number: int) -> str:
        try:
            return rolling[number].run(orders[number], record).phase
        except DeploymentError as error:
            return str(error)
        finally:
            both_have_read.abort()

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(act, range(2)), key=len)
    assert told[0] in ("successful", "failed")
    assert "moved from revision 2 to 3 meanwhile; nothing was declared" in told[1]
    assert world.http.get("/ready").json()["revision"] == 3


# -- deployments that nothing declares any more --------------------------------------------------------


def test_a_deployment_that_was_retired_begins_anew_where_its_revisions_ended(world: World) -> None:
    start_v2(world)
    gone = world.client.retire("flights")
    world.instance.report_runless_asset_event(
        retirement("flights", world.record, by="ana", reason="its folder was gone", applications=gone)
    )
    # Its documents are back; the sensor brings the approved version up, and not what answered before.
    world.now += 120
    world.tick()

    assert (world.told["phase"], world.told["action"]) == ("successful", "initial")
    assert world.told["stable"] == "v2"
    assert world.told["revision"] == 3 and world.http.get("/ready").json()["revision"] == 3
    assert world.champion() == 2 and world.tick().run_requests == []


def test_an_orphan_keeps_its_applications_through_the_rollout_of_another(world: World) -> None:
    orphan = [
        {**one, "name": one["name"].replace("flights", "tea")}
        for one in desired_state.of_deployment(world.client.declared(), "flights")
    ]
    orphan = [{**one, "route_prefix": "/tea"} if one["name"] == "tea" else one for one in orphan]
    everything = [*world.client.declared(), *orphan]
    world.client.apply(desired_state.document(everything, host="127.0.0.1", port=80))

    start_v2(world)
    world.decide("promote")

    kept = desired_state.of_deployment(world.client.declared(), "tea")
    assert sorted(one["name"] for one in kept) == ["tea", "tea--v1"]


def test_a_lost_cluster_gets_everything_back_and_waits_for_no_other_deployment(world: World) -> None:
    broken = {**world.cluster.declared["flights--v1"], "name": "tea--v1"}
    everything = [*world.client.declared(), broken]
    world.client.apply(desired_state.document(everything, host="127.0.0.1", port=80))
    world.cluster.forget_everything()
    world.cluster.refuses_to_start["tea--v1"] = "its package is gone"

    world.tick()

    assert world.told["phase"] == "successful" and world.send(1) == ["v1"]
    assert world.cluster.status["tea--v1"][0] == "DEPLOY_FAILED"
