"""A deployment as its users see it: assets, the sensor, a person's decisions, against real gateways.

Belongs here: that deployment with its registry, cluster, instance and clock, as fixtures of pytest. Does not
belong here: what it is asserted to do (tests). A test module, or the fixtures of a folder of tests, imports
``cluster``, ``serve_client``, ``steps`` and ``world`` by name; one that gives its own ``cluster`` and
``serve_client`` has the same world on another cluster.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.commands.decisions import decide_rollout
from mlops_assets.components.deployment import DeploymentComponent
from mlops_assets.deploying.executor import Executor
from mlops_assets.deploying.rolling_out import RollingOut
from mlops_assets.errors import DeploymentError
from mlops_assets.event_log.records import Record, latest
from mlops_assets.resources import trusted
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.plan import CanaryStep, RolloutPlan
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


@pytest.fixture
def serve_client(cluster: SmallCluster, tmp_path: Path) -> ServeClient:
    return ServeClient(
        dashboard_url=cluster.url,
        serve_url=cluster.url,
        api_keys_file="off",
        state_file=str(tmp_path / "desired_state.json"),
        deadline_s=15,
    )


class DeployedWorld:
    """A deployment with a registry, a cluster, an instance and a clock; versions come approved."""

    def __init__(
        self,
        definitions: dg.Definitions,
        instance: dg.DagsterInstance,
        cluster: SmallCluster,
        client: ServeClient,
        folder: Path,
    ) -> None:
        self.instance, self.cluster, self.client, self.folder = instance, cluster, client, folder
        self.registry = ModelRegistry(tracking_uri=f"sqlite:///{folder}/mlflow.db")
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
        self.http = httpx.Client(
            base_url=client.url("flights"), trust_env=False, timeout=20, verify=trusted.certificates()
        )

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

    def report(self, kind: Kind, data_version: str, metadata: dict[str, Any]) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=asset_key(kind, "flights"),
                metadata=metadata,
                tags={"dagster/data_version": data_version},
            )
        )

    # -- runs ----------------------------------------------------------------------------------------

    def run(self, kind: Kind = "deployment", tags: Any = None, **config: Any) -> dg.ExecuteInProcessResult:
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

    def rolling_out(self) -> RollingOut:
        """Runs of the deployment, outside of Dagster."""
        executor = Executor(
            name="flights",
            model="flights",
            gateway_args=GatewayArgs.model_validate(self.cluster.declared["flights"]["args"]),
            model_args=lambda version: pytest.fail("no version is started"),
            client=self.client,
            registry=self.registry,
            alerts=Alerts(log_file=str(self.folder / "alerts.jsonl")),
            report=print,
        )
        return RollingOut(
            plan=RolloutPlan((CanaryStep(weight=10_000),)),
            settings=RoutingSettings(deployment="flights"),
            executor=executor,
            approved=lambda: pytest.fail("no approval is asked for"),
        )

    # -- what is true --------------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        found = latest(self.instance, KEY)
        assert found is not None
        return found

    @property
    def last(self) -> dict[str, Any]:
        """The metadata of the last record."""
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
        """Waits until every count has reached the aggregator and every mirrored request is over."""
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
    serve_client: ServeClient,
    tmp_path: Path,
    empty_mlflow: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[DeployedWorld]:
    """v1 answers everything; the deployment declares a shadow step, 20 % and 100 %."""
    holder: list[DeployedWorld] = []
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    monkeypatch.setattr(DeploymentComponent, "clock", staticmethod(lambda: holder[0].now))
    made = DeployedWorld(load(YAML + steps), instance, cluster, serve_client, tmp_path)
    holder.append(made)
    made.registry.client().create_registered_model("flights")
    made.approve(0)
    first = made.run()
    assert first.success, why_failed(first)
    with made.http:
        yield made


def start_v2(world: DeployedWorld) -> None:
    world.approve(1)
    done = world.run()
    assert done.success, why_failed(done)


def pass_shadow_step(world: DeployedWorld) -> None:
    world.send(300)
    world.settle()
    world.tick()
    assert world.last["weights"] == {"v1": 80.0, "v2": 20.0}


def cut_off(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Carries an act out and kills its run after it was declared, before it was recorded."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ServeClient, "wait_for_revision", killed)
        with pytest.raises((AssertionError, DeploymentError)):
            act()
