"""The model registry: versions, aliases and tags in MLflow.

Belongs here: registering a package, finding versions, moving aliases. Does not belong here: training
runs (``experiment_tracking.py``) or who may move an alias (``rollout/approval.py``).

A registered version can be loaded three ways: by the platform from its package in the lake, by
``mlflow.pyfunc.load_model("models:/flights@champion")``, and by ``mlflow models serve``. The MLflow
model is code plus the native model file; nothing is pickled.
"""

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_assets.asset_names import asset_name
from mlops_assets.errors import RegistryError
from mlops_assets.resources import mlflow_store, mlflow_tables
from serve.schema import ModelManifest
from serve.scoring import FORMATS, MANIFEST_FILE, manifest_bytes

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CHALLENGER = "challenger"
CHAMPION = "champion"
RENEWED = (
    "training_code",
    "newest_data",
    "trained_until",
    "training_set_version",
    "pinned_tables",
    "training_set_delta",
    "git_sha",
    "training_window",
    "first_training_day",
    "last_training_day",
)
"""Tags that say from what a version was made; another code, or newer data, may come to the same content."""
PYFUNC = Path(__file__).parent / "mlflow_pyfunc.py"
SERVE = Path(__file__).parent.parent.parent / "serve"

NEEDLESS_ADVICE = (
    "Any type hint is inferred as AnyType",  # About a class of MLflow's own.
    "An input example was not provided",
)


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model; ``digest`` names its content, ``package_uri`` holds it."""

    name: str
    version: int
    digest: str
    package_uri: str
    run_id: str
    tags: Mapping[str, str]

    def manifest(self) -> dict[str, Any]:
        """The manifest as it was registered; RegistryError when someone else registered this version."""
        if "manifest" not in self.tags:
            raise RegistryError(
                f"model {self.name!r} version {self.version} carries no manifest: it was not registered "
                f"by this platform. Register one with: dg launch --assets "
                f"'key:\"{asset_name('model', self.name)}\"'"
            )
        return dict(json.loads(self.tags["manifest"]))


class ModelRegistry(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Registered models in one MLflow tracking store."""

    tracking_uri: str = Field(
        description="MLflow tracking and registry store, e.g. sqlite:////path/mlflow.db."
    )
    ui_url: str = Field(default="", description="Base URL of the MLflow UI, for links; empty: no links.")

    def client(self) -> "MlflowClient":
        return mlflow_store.client(self.tracking_uri)

    def register(
        self,
        name: str,
        *,
        digest: str,
        package_uri: str,
        run_id: str,
        manifest: ModelManifest,
        payload: bytes,
        tags: Mapping[str, str],
        example: "pd.DataFrame",
    ) -> RegisteredVersion:
        """Registers a package as a version of ``name`` and points the alias ``challenger`` at it.

        The same digest again gives the version that already holds it: no flood of equal versions. Of its
        tags those in ``RENEWED`` become what ``tags`` says: by what the content was made last.
        ``example`` are a few rows of inputs, for the MLflow signature.
        """
        client = self.client()
        known = self.by_digest(name, digest)
        if known is None:
            logged = _log_model(client, run_id, manifest, payload, example)
            _ensure_registered(client, name)
            created = client.create_model_version(
                name,
                # As models:/<id>, MLflow's store would look it up at the process-wide address.
                source=logged.artifact_location,
                model_id=logged.model_id,
                run_id=run_id,
                tags={
                    "digest": digest,
                    "package_uri": package_uri,
                    "manifest": json.dumps(manifest.model_dump(mode="json"), separators=(",", ":")),
                    **tags,
                },
                description=f"{manifest.task} by {manifest.trainer}, content {digest[:12]}",
            )
            known = self.version(name, int(created.version))
        else:
            # Else the version would stand for code and data that are no longer the declared ones for ever.
            self.set_tags(name, known.version, {tag: tags[tag] for tag in RENEWED if tag in tags})
            known = self.version(name, known.version)
        self.set_alias(name, CHALLENGER, known.version)
        return known

    def version(self, name: str, version: int) -> RegisteredVersion:
        """One version; RegistryError when there is no such version."""
        if mlflow_tables.are_at(self.tracking_uri):
            found = mlflow_tables.version(self.tracking_uri, name, version)
            if found is None:
                raise RegistryError(f"model {name!r} has no version {version}")
            return _of_version(name, found.number, found.run_id, found.tags)
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self.client().get_model_version(name, str(version)))
        except MlflowException as error:
            raise RegistryError(f"model {name!r} has no version {version}: {error.message}") from error

    def by_alias(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version an alias points at, or None when the model or the alias does not exist."""
        if mlflow_tables.are_at(self.tracking_uri):
            found = mlflow_tables.version(self.tracking_uri, name, alias)
            return _of_version(name, found.number, found.run_id, found.tags) if found else None
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self.client().get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def by_digest(self, name: str, digest: str) -> RegisteredVersion | None:
        """The oldest version with that content, or None."""
        found = self.client().search_model_versions(f"name = '{name}' and tags.digest = '{digest}'")
        return min(map(_registered, found), key=lambda version: version.version) if found else None

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Points an alias at a version."""
        self.client().set_registered_model_alias(name, alias, str(version))

    def set_tags(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Adds or replaces tags of a version."""
        client = self.client()
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)

    def log_artifact(self, run_id: str, file: Path, folder: str) -> str:
        """Keeps a file with a run; the page that shows it in the MLflow UI, or its address without a UI."""
        client = self.client()
        client.log_artifact(run_id, str(file), folder)
        run = client.get_run(run_id)
        if not self.ui_url:
            return f"{run.info.artifact_uri}/{folder}/{file.name}"
        base = f"{self.ui_url.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
        return f"{base}/artifacts/{folder}/{file.name}"

    def version_url(self, name: str, version: int) -> str | None:
        """Page of a version in the MLflow UI, or None without a UI."""
        return f"{self.ui_url.rstrip('/')}/#/models/{name}/versions/{version}" if self.ui_url else None


def _log_model(
    client: "MlflowClient", run_id: str, manifest: ModelManifest, payload: bytes, example: "pd.DataFrame"
) -> "LoggedModel":
    """Logs the MLflow model into the run that trained it: ``mlflow.pyfunc.log_model``, by ids alone."""
    import importlib.metadata

    import mlflow
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model, infer_signature

    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=run.data.params
    )
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        # What was measured over all folds is what the MLflow UI compares models by.
        finals = [
            Metric(one.key, one.value, one.timestamp, one.step, model_id=model.model_id, run_id=run_id)
            for key in run.data.metrics
            for one in client.get_metric_history(run_id, key)
            if one.step == 0 and one.model_id is None
        ]
        client.log_batch(run_id, metrics=finals)
        packages = ("numpy", "pandas", "pyarrow", "pydantic", *FORMATS[manifest.model_format].packages)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            for advice in NEEDLESS_ADVICE:
                warnings.filterwarnings("ignore", f".*{advice}", UserWarning)
            package = Path(folder) / "package"
            package.mkdir()
            (package / manifest.model_file).write_bytes(payload)
            (package / MANIFEST_FILE).write_bytes(manifest_bytes(manifest))
            saved = Path(folder) / "model"
            mlflow.pyfunc.save_model(
                saved,
                mlflow_model=Model(
                    artifact_path=model.artifact_location,
                    model_uuid=model.model_id,
                    model_id=model.model_id,
                    run_id=run_id,
                ),
                python_model=str(PYFUNC),
                artifacts={"package": str(package)},
                code_paths=[str(SERVE)],
                signature=infer_signature(example),
                # Inferring them starts a subprocess and takes ten seconds.
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
            )
            client.log_model_artifacts(model.model_id, str(saved))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    return client.finalize_logged_model(model.model_id, "READY")


def _ensure_registered(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _registered(found: Any) -> RegisteredVersion:
    return _of_version(found.name, int(found.version), found.run_id or "", found.tags)


def _of_version(name: str, version: int, run_id: str, tags: Mapping[str, str]) -> RegisteredVersion:
    return RegisteredVersion(
        name=name,
        version=version,
        digest=tags.get("digest", ""),
        package_uri=tags.get("package_uri", ""),
        run_id=run_id,
        tags=dict(tags),
    )
