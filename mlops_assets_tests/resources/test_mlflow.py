"""Tracking and registry against a real MLflow store on SQLite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import RegistryError
from mlops_assets.resources import mlflow_store
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.package import ModelPackage, package
from mlops_assets.training.trainers import FitInputs, trainer
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import Encoder, scorer_from_bytes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/nested/mlflow.db"


def tracker(store: str, tmp_path: Path) -> ExperimentTracker:
    return ExperimentTracker(tracking_uri=store, artifact_root=str(tmp_path), ui_url="http://ui")


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"x": random.normal(size=300), "colour": random.choice(["red", "blue"], 300)})


def packaged(seed: int = 1) -> ModelPackage:
    frame = rows()
    target = ((frame["x"] > 0) ^ (frame["colour"] == "red")).to_numpy(dtype=float)
    features = with_dictionaries(
        frame, [FeatureSpec(name="x", type="number"), FeatureSpec(name="colour", type="category")]
    )
    model = trainer("lightgbm").fit(
        FitInputs(
            Encoder(features).columns(frame),
            target,
            features=features,
            task="binary",
            classes=2,
            params={},
            seed=seed,
        )
    )
    manifest = ModelManifest(
        name="toy",
        task="binary",
        trainer="lightgbm",
        model_format=trainer("lightgbm").model_format,
        model_file=model.model_file,
        target="y",
        features=features,
        classes=("no", "yes"),
        threshold=0.5,
        training_set_version="abc",
    )
    return package(model, frame, manifest)


def register(
    store: str, tmp_path: Path, name: str, made: ModelPackage, tags: Mapping[str, str] | None = None
) -> Any:
    track = tracker(store, tmp_path)

    @dg.asset
    def candidates(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with track.parent_run(context, name) as parent:
            logged = track.log_candidate(
                parent,
                name="lightgbm",
                params={"num_leaves": 63},
                fold_metrics=[{"log_loss": 0.5, "roc_auc": None}],
                means={"log_loss": 0.5, "roc_auc": None},
                tags={"git_sha": "cafe"},
                datasets={"/lake/training_sets/toy": "abc"},
                figures={"plots/p.png": b"png"},
                documents={"importance.json": {"x": 1.0}},
            )
        return dg.MaterializeResult(metadata={"parent": parent.run_id, "child": logged.run_id})

    result = dg.materialize([candidates])
    metadata = result.asset_materializations_for_node("candidates")[0].metadata
    version = ModelRegistry(tracking_uri=store).register(
        name,
        digest=made.digest,
        package_uri="/p",
        run_id=str(metadata["child"].value),
        manifest=made.manifest,
        payload=made.payload,
        tags=tags or {"who": "test"},
        example=rows().head(5),
    )
    return version, metadata


def test_runs_end_finished_without_any_hook(store: str, tmp_path: Path) -> None:
    _, metadata = register(store, tmp_path, "finished", packaged())
    client = ModelRegistry(tracking_uri=store).client()
    parent = client.get_run(metadata["parent"].value)
    child = client.get_run(metadata["child"].value)
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics == {"log_loss": 0.5, "mean_log_loss": 0.5}
    assert child.data.params == {"num_leaves": "63"} and child.data.tags["git_sha"] == "cafe"
    assert child.inputs.dataset_inputs[0].dataset.digest == "abc"
    assert {f.path for f in client.list_artifacts(child.info.run_id)} >= {"plots", "importance.json"}
    assert parent.data.tags["dagster_run_id"]


def test_a_failing_asset_leaves_a_failed_run(store: str, tmp_path: Path) -> None:
    track = tracker(store, tmp_path)
    seen: list[str] = []

    @dg.asset
    def broken(context: dg.AssetExecutionContext) -> None:
        with track.parent_run(context, "failed") as parent:
            seen.append(parent.run_id)
            raise ValueError("no rows")

    assert not dg.materialize([broken], raise_on_error=False).success
    assert ModelRegistry(tracking_uri=store).client().get_run(seen[0]).info.status == "FAILED"
    import mlflow

    assert mlflow.active_run() is None


def test_the_registered_model_is_no_pickle_and_mlflow_loads_it(store: str, tmp_path: Path) -> None:
    import mlflow

    made = packaged()
    version, _ = register(store, tmp_path, "loadable", made)
    mlflow.set_tracking_uri(store)
    folder = Path(mlflow.artifacts.download_artifacts("models:/loadable@challenger"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    scores = mlflow.pyfunc.load_model("models:/loadable@challenger").predict(rows())
    own = scorer_from_bytes(made.manifest, made.payload)
    np.testing.assert_array_equal(scores, own.score(own.encoder.columns(rows())))
    assert version.version == 1


def test_the_same_content_is_one_version(store: str, tmp_path: Path) -> None:
    first, _ = register(store, tmp_path, "once", packaged())
    again, _ = register(store, tmp_path, "once", packaged())
    other, _ = register(store, tmp_path, "once", packaged(seed=2))
    assert (first.version, again.version, other.version) == (1, 1, 2)


def test_the_same_content_made_anew_says_by_what_it_was_made_last(store: str, tmp_path: Path) -> None:
    renewed = (
        "training_code",
        "newest_data",
        "trained_until",
        "training_set_version",
        "pinned_tables",
        "training_set_delta",
        "git_sha",
    )
    first = {name: f"old {name}" for name in renewed}
    register(store, tmp_path, "renewed", packaged(), {**first, "dagster_run_id": "1"})
    registry = ModelRegistry(tracking_uri=store)
    registry.set_tags("renewed", 1, {"approver": "ana"})
    second = {name: f"new {name}" for name in renewed}

    again, _ = register(store, tmp_path, "renewed", packaged(), {**second, "dagster_run_id": "2"})

    assert again == registry.version("renewed", 1)
    assert {name: again.tags[name] for name in renewed} == second
    # Who made the version first, where it lies and who judged it since stay as they are.
    assert again.tags["dagster_run_id"] == "1" and again.tags["approver"] == "ana"
    assert again.package_uri == "/p" and again.manifest()["name"] == "toy"


def test_a_fact_that_is_not_told_anew_stays(store: str, tmp_path: Path) -> None:
    register(store, tmp_path, "kept", packaged(), {"git_sha": "a", "training_code": "b"})

    again, _ = register(store, tmp_path, "kept", packaged(), {"git_sha": "c"})

    assert (again.tags["git_sha"], again.tags["training_code"]) == ("c", "b")


def test_a_version_gives_back_the_manifest_it_was_registered_with(store: str, tmp_path: Path) -> None:
    made = packaged()
    version, _ = register(store, tmp_path, "manifest", made)
    assert ModelManifest.model_validate(version.manifest()) == made.manifest


def test_a_version_that_someone_else_registered_says_so() -> None:
    foreign = RegisteredVersion("toy", 3, "", "", "", {})
    with pytest.raises(RegistryError, match="'toy' version 3 carries no manifest"):
        foreign.manifest()


def test_aliases_and_tags(store: str, tmp_path: Path) -> None:
    registry = ModelRegistry(tracking_uri=store)
    version, _ = register(store, tmp_path, "aliased", packaged())
    assert registry.by_alias("aliased", "challenger") == version
    assert registry.by_alias("aliased", "champion") is None
    assert registry.by_alias("nobody", "champion") is None
    registry.set_alias("aliased", "champion", 1)
    registry.set_tags("aliased", 1, {"approver": "ana"})
    assert registry.by_alias("aliased", "champion").tags["approver"] == "ana"  # type: ignore[union-attr]


def test_a_version_is_read_from_the_tables_as_mlflow_tells_it(store: str, tmp_path: Path) -> None:
    registered, _ = register(store, tmp_path, "told", packaged())
    registry, client = ModelRegistry(tracking_uri=store), mlflow_store.client(store)
    told = client.get_model_version_by_alias("told", "challenger")
    assert registered == registry.by_alias("told", "challenger") == registry.version("told", 1)
    assert (registered.name, registered.run_id, registered.tags) == (told.name, told.run_id, told.tags)
    client.delete_model_version("told", "1")
    assert registry.by_alias("told", "challenger") is None
    with pytest.raises(RegistryError, match="'told' has no version 1"):
        registry.version("told", 1)


def test_an_absent_version_is_a_clear_error(store: str) -> None:
    with pytest.raises(RegistryError, match="'nobody' has no version 7"):
        ModelRegistry(tracking_uri=store).version("nobody", 7)
