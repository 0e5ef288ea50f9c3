"""A use case that nobody wrote code for: YAML alone, from a CSV file to an answering endpoint."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import asset_name
from mlops_assets.commands.decisions import decide_approval
from mlops_assets.commands.status import StatusSources, model_statuses
from mlops_assets.definitions import with_platform_policy
from mlops_assets.errors import ApprovalError
from mlops_assets.event_log.records import Record, latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets_tests.behaviour.use_case_page import IRIS

Load = Callable[[str], dg.Definitions]

pytestmark = pytest.mark.usefixtures("rendered")
YAML = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: {name}
  source: {{format: csv, path: raw.csv}}
  columns: {columns}
  primary_key: [row_id]
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: {name}
  entity: {{name: row, join_keys: [row_id]}}
  base: {name}
  features: {features}
---
type: mlops_assets.components.ModelComponent
attributes:
  name: {name}
  task: {task}
  feature_view: {name}
  label: {{dataset: {name}, column: outcome}}
  folds: 2
  # A fifth of so few rows would leave one bad guess to decide; the gate rightly calls that inconclusive.
  evaluation_fraction: 0.5
  candidates: {candidates}
  gate: {{min_rows: 20}}
---
type: mlops_assets.components.DeploymentComponent
attributes:
  name: {name}
  model: {name}
  approval: {{mode: {mode}}}
"""


def write(folder: Path, name: str, *, mode: str = "auto", shuffled: bool = False) -> str:
    """A CSV file and the YAML beside it, that of the page for iris; ``shuffled`` outcomes have nothing to do
    with the features.
    """
    source = load_iris(as_frame=True) if name == "iris" else load_diabetes(as_frame=True)
    frame = source.data.rename(columns=lambda column: column.replace(" (cm)", "").replace(" ", "_"))
    outcome = source.target.map(dict(enumerate(source.target_names))) if name == "iris" else source.target
    if shuffled:
        outcome = outcome.sample(frac=1, random_state=0).to_numpy()
    label = "species" if name == "iris" else "outcome"
    frame.assign(**{"row_id": range(len(frame)), label: outcome}).to_csv(folder / "raw.csv", index=False)
    if name == "iris":
        assert "mode: manual" in IRIS
        return IRIS.replace("mode: manual", f"mode: {mode}")
    features = list(source.data.columns)
    return YAML.format(
        name=name,
        columns={"row_id": "integer", **dict.fromkeys(features, "number"), "outcome": "number"},
        features=[{"name": feature, "type": "number"} for feature in features],
        task="regression",
        candidates=[{"trainer": "xgboost", "params": {"num_rounds": 30}}, {"trainer": "ridge"}],
        mode=mode,
    )


@pytest.fixture
def whole(
    load: Load, tmp_path: Path, mlflow_uri: str, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dg.Definitions]:
    """Definitions of a text with MLflow on SQLite and the session's Ray cluster."""
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)

    def build(text: str) -> dg.Definitions:
        resources = {
            "model_registry": ModelRegistry(tracking_uri=mlflow_uri),
            "experiment_tracker": ExperimentTracker(
                tracking_uri=mlflow_uri, artifact_root=str(tmp_path / "artifacts")
            ),
            "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
            "serve_client": ServeClient(
                dashboard_url=ray_cluster.dashboard_url,
                serve_url=ray_cluster.http_url,
                api_keys_file="off",
                state_file=str(tmp_path / "desired_state.json"),
                deadline_s=90,
            ),
        }
        return with_platform_policy(dg.Definitions.merge(load(text), dg.Definitions(resources=resources)))

    return build


@pytest.fixture
def unserved(load: Load, tmp_path: Path, mlflow_uri: str) -> Callable[[str], dg.Definitions]:
    """Definitions of a text with MLflow on SQLite, and no cluster."""
    resources = {
        "model_registry": ModelRegistry(tracking_uri=mlflow_uri),
        "experiment_tracker": ExperimentTracker(tracking_uri=mlflow_uri, artifact_root=str(tmp_path)),
        "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
        # Nothing listens there: a deployment that tried would fail for another reason.
        "serve_client": ServeClient(
            dashboard_url="http://127.0.0.1:9",
            serve_url="http://127.0.0.1:9",
            api_keys_file="off",
            state_file=str(tmp_path / "s"),
        ),
    }
    return lambda text: dg.Definitions.merge(load(text), dg.Definitions(resources=resources))


def materialise(
    definitions: dg.Definitions, instance: dg.DagsterInstance, selection: str = "*"
) -> dg.ExecuteInProcessResult:
    keys = dg.AssetSelection.from_string(selection).resolve(definitions.resolve_asset_graph())
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=list(keys), raise_on_error=False)


def record(instance: dg.DagsterInstance, key: str) -> Record:
    found = latest(instance, dg.AssetKey(key))
    assert found is not None
    return found


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return " ".join(
        f"{failure.user_failure_data and failure.user_failure_data.description} "
        f"{failure.error and failure.error.message}"
        for failure in failures
    )


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_yaml_alone_becomes_an_answering_endpoint(
    name: str,
    use_case: Path,
    whole: Callable[[str], dg.Definitions],
    instance: dg.DagsterInstance,
    ray_cluster: Any,
) -> None:
    definitions = whole(write(use_case, name))

    result = materialise(definitions, instance)

    assert result.success, why_failed(result)
    deployed = record(instance, asset_name("deployment", name))
    assert deployed.metadata["phase"] == "successful" and deployed.metadata["weights"] == {"v1": 100.0}
    features = ["sepal_length", "petal_length"] if name == "iris" else list(load_diabetes().feature_names)
    row = pd.read_csv(use_case / "raw.csv").iloc[60][features].to_dict()
    answer = httpx.post(f"{ray_cluster.http_url}/{name}/predict", json={"features": row}, timeout=10)
    assert answer.status_code == 200
    said = answer.json()
    assert (said["model_version"], said["variant"]) == ("v1", "stable")
    if name == "iris":
        assert said["prediction"] == "versicolor" and sum(said["probability"].values()) == pytest.approx(1.0)
    else:
        assert 25 < said["prediction"] < 346 and said["probability"] is None
    resources = definitions.resources or {}
    client, registry = resources["serve_client"], resources["model_registry"]
    [status] = model_statuses(StatusSources(definitions, instance, client, registry), datetime.now(UTC))
    assert status.answers["stable"] == "v1" and status.approval["state"] == "granted"
    assert {asset.staleness for asset in status.assets} == {"FRESH"}
    assert status.served["stale"] is None and "DriftMonitorComponent" in status.served["reason"]

    # The same again changes nothing: same versions, nothing stale, the same revision answers.
    assert materialise(definitions, instance).success
    assert record(instance, asset_name("deployment", name)).data_version == deployed.data_version
    assert record(instance, asset_name("model", name)).metadata["model_version"] == 1


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_manual_approval_waits_for_a_person_and_is_void_after_a_change(
    use_case: Path, whole: Callable[[str], dg.Definitions], instance: dg.DagsterInstance
) -> None:
    definitions = whole(write(use_case, "iris", mode="manual"))

    pending = materialise(definitions, instance)

    assert not pending.success and "mlops approve iris --by" in why_failed(pending)
    assert latest(instance, asset_key("deployment", "iris")) is None
    decide_approval(definitions, instance, "iris", approver="ana", reason="read the plots")
    assert materialise(definitions, instance, 'key:"iris_deployment"').success
    assert record(instance, "iris_approval").metadata["approver"] == "ana"

    frame = pd.read_csv(use_case / "raw.csv")
    frame[frame["row_id"] != 3].to_csv(use_case / "raw.csv", index=False)
    kinds = ("dataset", "features", "training_set", "candidates", "model")
    chain = " or ".join(f"kind:{kind}" for kind in kinds)
    assert materialise(definitions, instance, chain).success
    void = materialise(definitions, instance, 'key:"iris_deployment"')

    assert not void.success
    assert "void" in why_failed(void) and "iris_training_set" in why_failed(void)


def test_a_model_that_learned_nothing_is_never_deployed(
    unserved: Callable[[str], dg.Definitions], use_case: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    definitions = unserved(write(use_case, "iris", shuffled=True))

    result = materialise(definitions, instance)

    assert not result.success
    evaluation = record(instance, "iris_evaluation")
    assert evaluation.metadata["outcome"] in ("reject", "inconclusive")
    assert "of the class shares" in evaluation.metadata["reason"]
    assert latest(instance, asset_key("approval", "iris")) is None
    with pytest.raises(ApprovalError, match="the gate says"):
        decide_approval(definitions, instance, "iris", approver="boss", reason="ship it anyway")
    alone = materialise(definitions, instance, 'key:"iris_deployment"')
    assert not alone.success and "iris_approval was never given" in why_failed(alone)
    # Of a first model nobody waits for a repair.
    assert not (tmp_path / "alerts.jsonl").exists()


def test_a_retrained_model_that_the_gate_stops_is_told_with_the_evidence(
    unserved: Callable[[str], dg.Definitions], use_case: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    definitions = unserved(write(use_case, "iris"))
    to_the_gate = '+key:"iris_evaluation"'
    assert materialise(definitions, instance, to_the_gate).success
    (definitions.resources or {})["model_registry"].set_alias("iris", CHAMPION, 1)
    write(use_case, "iris", shuffled=True)

    assert not materialise(definitions, instance, to_the_gate).success

    (line,) = (tmp_path / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    alert, evaluation = json.loads(line), record(instance, "iris_evaluation").metadata
    assert (alert["kind"], alert["subject"], alert["version"]) == ("gate_rejected", "iris_model", "v2")
    assert alert["summary"] == f"{evaluation['outcome']}: {evaluation['reason']}. v1 keeps answering"
    assert alert["evidence"]["measurements"]["baseline"]["passed"] is not True
    assert evaluation["alert"] == "logged; no webhook is set"
