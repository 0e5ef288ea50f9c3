"""An orphaned deployment is told once, left alone, and retired by a person or by the policy; no other is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import httpx
import pytest

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.commands.decisions import retire
from mlops_assets.commands.status import StatusSources, exporter_state, print_status, status_of
from mlops_assets.components.use_cases import placeholders
from mlops_assets.deploying.retiring import USE_CASE, Declared, in_service, orphaned
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.errors import DeploymentError, UnknownName
from mlops_assets.event_log.records import latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.desired_state import (
    DeployedVersion,
    Document,
    document,
    gateway_application,
    version_application,
)
from mlops_assets.rollout.orphans import GRACE_S
from mlops_assets.sensors import orphans as module
from mlops_assets.sensors.orphans import JOB, SENSOR, orphan_watch, run_config
from mlops_assets.testing.ports import unused_ports
from mlops_assets.testing.small_models import package, routing
from mlops_assets.testing.small_serve import SmallCluster, small_cluster
from serve.schema import GatewayArgs, ModelArgs, Routing
from serve.scoring import write_package

TEA, FLIGHTS = asset_key("deployment", "tea"), asset_key("deployment", "flights")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def cluster() -> Iterator[SmallCluster]:
    with small_cluster() as running:
        yield running


def applications(name: str, folder: Path) -> list[Document]:
    """A gateway named ``name`` over its version v1."""
    application = f"{name}--v1"
    told = {**routing(), "routes": {"v1": {**routing()["routes"]["v1"], "application": application}}}
    return [
        version_application(DeployedVersion(name, "v1", ModelArgs(version="v1", package_uri=str(folder)))),
        gateway_application(GatewayArgs(name=name), Routing.model_validate(told)),
    ]


@pytest.fixture
def client(cluster: SmallCluster, tmp_path: Path, instance: dg.DagsterInstance) -> ServeClient:
    """Flights and tea answer; tea was declared in the folder tea when it was deployed."""
    made = ServeClient(
        dashboard_url=cluster.url, serve_url=cluster.url, state_file=str(tmp_path / "s.json"), deadline_s=15
    )
    write_package(str(tmp_path / "package"), *package("binary"))
    both = [one for name in ("flights", "tea") for one in applications(name, tmp_path / "package")]
    made.target.apply(document(both, host="127.0.0.1", port=80))
    told = {"phase": "successful", "revision": 4, "stable": "v1", USE_CASE: "tea", "traffic": "v1 100 %"}
    instance.report_runless_asset_event(dg.AssetMaterialization(TEA, metadata=told))
    return made


def location(
    client: ServeClient, tmp_path: Path, *names: str, missing: tuple[MissingDocument, ...] = ()
) -> dg.Definitions:
    """A code location that declares these deployments, each in a group of its name."""

    def deployment(name: str) -> dg.AssetsDefinition:
        @dg.asset(key=asset_key("deployment", name), tags=name_tags("deployment", name), group_name=name)
        def made() -> None: ...

        return made

    resources = {"serve_client": client, "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl"))}
    declared = dg.Definitions.merge(
        dg.Definitions(assets=[deployment(name) for name in names], resources=resources),
        placeholders(missing),
    )
    return dg.Definitions.merge(declared, orphan_watch(declared.resolve_asset_graph()))


def names(client: ServeClient) -> list[str]:
    return sorted(one["name"] for one in client.target.declared())


def found(definitions: dg.Definitions, instance: dg.DagsterInstance, client: ServeClient) -> list[str]:
    declared = Declared.of(definitions.resolve_asset_graph())
    return [one.name for one in orphaned(declared, instance, client.target.declared())]


def decide(definitions: dg.Definitions, instance: dg.DagsterInstance, client: ServeClient, name: str) -> str:
    declared = client.target.declared()
    return retire(definitions, instance, name, applications=declared, by="ana", reason="gone")


def test_a_deployment_is_an_orphan_only_where_no_document_can_declare_it(
    client: ServeClient, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    def lost(*assets: str, use_case: str = "tea") -> MissingDocument:
        return MissingDocument("defs.yaml:1", use_case, "document", "defs.yaml:1: no", "", assets)

    for missing, orphans in (
        ((), ["tea"]),
        ((lost("tea_deployment", "tea_approval"),), []),
        ((lost("tea_document"),), []),
        ((lost("other_document", use_case="other"),), ["tea"]),
    ):
        declared = location(client, tmp_path, "flights", missing=missing)
        assert found(declared, instance, client) == orphans


def test_a_person_retires_exactly_the_orphan_and_it_is_recorded(
    client: ServeClient, cluster: SmallCluster, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = location(client, tmp_path, "flights")
    before = {one["name"]: one for one in client.target.declared()}

    run_id = decide(definitions, instance, client, "tea")

    after = {one["name"]: one for one in client.target.declared()}
    assert after == {name: one for name, one in before.items() if name.startswith("flights")}
    assert sorted(one["name"] for one in client.target.saved()) == ["flights", "flights--v1"]
    assert httpx.get(f"{cluster.url}/tea/ready", trust_env=False).status_code == 404
    assert httpx.get(f"{cluster.url}/flights/ready", trust_env=False).status_code == 200
    record = latest(instance, TEA)
    assert record is not None and record.run_id == run_id and in_service(record) is None
    assert (record.metadata["by"], record.metadata["reason"]) == ("ana", "gone")
    assert (record.metadata["revision"], record.metadata[USE_CASE]) == (4, "tea")
    assert record.metadata["traffic"] == "v1 100 % → nothing"
    assert found(definitions, instance, client) == []


def test_a_declared_deployment_is_not_retired(
    client: ServeClient, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = location(client, tmp_path, "flights")
    with pytest.raises(UnknownName, match=r"'flights'. Allowed: tea. It is declared: remove its folder"):
        decide(definitions, instance, client, "flights")
    with pytest.raises(UnknownName, match=r"'nobody'. Allowed: tea.$"):
        decide(definitions, instance, client, "nobody")
    # Nor by launching the job by hand.
    by_hand = definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance, run_config=run_config("flights", "ana", "why not"), raise_on_error=False
    )
    assert not by_hand.success and names(client) == ["flights", "flights--v1", "tea", "tea--v1"]


def test_one_that_ray_refuses_to_remove_stays_as_it_was(
    client: ServeClient, cluster: SmallCluster, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    cluster.put_fails = [1]
    with pytest.raises(DeploymentError):
        decide(location(client, tmp_path, "flights"), instance, client, "tea")
    assert names(client) == ["flights", "flights--v1", "tea", "tea--v1"]
    assert in_service(latest(instance, TEA)) is not None


def test_an_empty_cluster_loses_only_the_orphan(client: ServeClient, cluster: SmallCluster) -> None:
    cluster.forget_everything()
    assert client.target.retire("tea") == ["tea", "tea--v1"]
    assert names(client) == ["flights", "flights--v1"]
    with pytest.raises(DeploymentError, match="tea is not deployed; deployed are: flights"):
        client.target.retire("tea")


class Ticks:
    """Ticks of the sensor, one after the other, at a time of their own."""

    def __init__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.definitions, self.instance, self.now = definitions, instance, 1_000.0
        self.cursor: str | None = None
        monkeypatch.setattr(module.time, "time", lambda: self.now)

    def __call__(self) -> dg.SensorResult:
        sensor = next(one for one in self.definitions.sensors or [] if one.name == SENSOR)
        assert isinstance(sensor, dg.SensorDefinition)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.definitions,
            sensor_name=SENSOR,
            resources=dict(self.definitions.resources or {}),
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor or self.cursor
        return result


def told(tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "alerts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if "summary" in json.loads(line)]


def test_an_orphan_is_told_once_and_kept(
    client: ServeClient, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = Ticks(location(client, tmp_path, "flights"), instance, monkeypatch)
    for _ in range(3):
        assert tick().run_requests == []
        tick.now += 2 * GRACE_S
    (alert,) = told(tmp_path)
    assert (alert["kind"], alert["subject"]) == ("orphaned_deployment", "tea_deployment")
    assert "declared in tea" in alert["summary"] and "mlops retire tea" in alert["command"]
    assert names(client) == ["flights", "flights--v1", "tea", "tea--v1"]


def test_the_policy_retires_an_orphan_that_stays_one(
    client: ServeClient, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ORPHANS", "retire")
    definitions = location(client, tmp_path, "flights")
    tick = Ticks(definitions, instance, monkeypatch)
    assert tick().run_requests == []
    tick.now += GRACE_S
    (request,) = tick().run_requests or []
    assert request.run_key == "tea/1000.000"

    done = definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance, run_config=request.run_config
    )

    assert done.success and names(client) == ["flights", "flights--v1"]
    assert "MLOPS_ORPHANS says retire" in latest(instance, TEA).metadata["reason"]  # type: ignore[union-attr]
    tick.now += GRACE_S
    assert tick().run_requests == []


def test_a_cluster_that_is_away_is_no_reason_to_act(
    client: ServeClient, cluster: SmallCluster, instance: dg.DagsterInstance, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    nowhere = "http://127.0.0.1:9"
    away = ServeClient(dashboard_url=nowhere, serve_url=nowhere, state_file=client.state_file)
    tick = Ticks(location(away, tmp_path, "flights"), instance, monkeypatch)
    assert "127.0.0.1:9" in str(tick().skip_reason) and told(tmp_path) == []


def test_status_shows_what_is_missing_what_still_answers_and_orphans(
    client: ServeClient,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    mlflow_uri: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from datetime import UTC, datetime

    from mlops_assets.resources.model_registry import ModelRegistry

    own = MissingDocument(
        "shop.yaml:3", "shop", "ModelComponent flights", "shop.yaml:4: task: no", "", ("flights_model",)
    )
    fallen = MissingDocument(
        "shop.yaml:9", "shop", "DeploymentComponent flights", "shop.yaml:9: needs flights_model",
        "shop.yaml:3", ("flights_deployment", "flights_approval"),
    )  # fmt: skip
    definitions = location(client, tmp_path, missing=(own, fallen))
    registry = ModelRegistry(tracking_uri=mlflow_uri)

    # Nobody listens there.
    nowhere = f"http://127.0.0.1:{unused_ports(1)[0]}/metrics"
    status = status_of(StatusSources(definitions, instance, client, registry), datetime.now(UTC))
    status = replace(status, metrics=exporter_state(nowhere))

    assert [one.what for one in status.missing] == [own.what, fallen.what]
    assert [(one.deployment, one.answers["stable"]) for one in status.unwatched] == [("flights", "v1")]
    assert [(one.deployment, one.use_case) for one in status.orphans] == [("tea", "tea")]
    assert json.loads(json.dumps(status.to_dict(), default=str))["orphans"][0]["deployment"] == "tea"
    print_status(status)
    said = " ".join(capsys.readouterr().out.split())
    assert "shop MISSING: ModelComponent flights shop.yaml:4: task: no" in said
    assert "with it: DeploymentComponent flights" in said and "mend shop.yaml:3" in said
    assert "flights: v1 answers at" in said
    assert f"metrics do not answer at {nowhere}: " in said and "`mlops exporter` starts it" in said
    assert "tea ORPHAN" in said and "mlops retire tea --by NAME --reason TEXT" in said
    one = status_of(
        StatusSources(definitions, instance, client, registry), datetime.now(UTC), model="flights"
    )
    assert [missing.what for missing in one.missing] == [own.what, fallen.what] and one.orphans == []
    with pytest.raises(UnknownName, match="Unknown model 'coffee'"):
        status_of(StatusSources(definitions, instance, client, registry), datetime.now(UTC), model="coffee")
