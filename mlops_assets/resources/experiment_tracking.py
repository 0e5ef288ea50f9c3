"""Training runs in MLflow: one parent run per Dagster run, one child run per candidate.

Belongs here: what is logged about a candidate and how runs begin and end. Does not belong here:
registering models (``model_registry.py``), what is worth logging (``training/``).

The parent run is dagster-mlflow's: it finds its run again by the Dagster run id, also from another
process. Its runs are ended by a hook that only explicit jobs carry, so runs that automation launches
would stay RUNNING for ever; ``parent_run`` therefore ends it itself, FINISHED or FAILED.

dagster-mlflow finds and begins its run through MLflow's fluent functions, whose state is global in the
process. It is given that state for this moment alone (``mlflow_store.fluent_state``); all else here goes
through a client and by ids.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_assets.resources import mlflow_store

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class LoggedRun:
    """An MLflow run and its page in the UI (None without a UI)."""

    run_id: str
    url: str | None


class ExperimentTracker(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Experiments in one MLflow tracking store."""

    tracking_uri: str = Field(description="MLflow tracking store, e.g. sqlite:////path/mlflow.db.")
    artifact_root: str = Field(
        default="", description="Where new experiments keep artifacts; empty: MLflow's own."
    )
    ui_url: str = Field(default="", description="Base URL of the MLflow UI, for links; empty: no links.")

    @contextmanager
    def parent_run(self, context: dg.AssetExecutionContext, experiment: str) -> Iterator[LoggedRun]:
        """The MLflow run of this Dagster run; ends FINISHED, or FAILED when the body raises."""
        client = mlflow_store.client(self.tracking_uri)
        _ensure_experiment(client, experiment, self.artifact_root)
        run_id = self._run_of(context, experiment)
        client.set_tag(run_id, "dagster_asset", context.asset_key.to_user_string())
        try:
            yield LoggedRun(run_id, self._url(client, run_id))
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def _run_of(self, context: dg.AssetExecutionContext, experiment: str) -> str:
        """Id of the MLflow run of this Dagster run in an experiment, RUNNING; found again or begun."""
        config = {"experiment_name": experiment, "mlflow_tracking_uri": self.tracking_uri, "env": {}}
        with mlflow_store.fluent_state():
            from dagster_mlflow import mlflow_tracking

            with dg.build_resources(
                {"mlflow": mlflow_tracking},
                instance=context.instance,
                dagster_run=context.run,
                resource_config={"mlflow": {"config": config}},
                log_manager=context.log,
            ) as resources:
                return str(resources.mlflow.active_run().info.run_id)

    def log_candidate(
        self,
        parent: LoggedRun,
        *,
        name: str,
        params: Mapping[str, Any],
        fold_metrics: list[Mapping[str, float | None]],
        means: Mapping[str, float | None],
        tags: Mapping[str, str],
        datasets: Mapping[str, str],
        figures: Mapping[str, bytes],
        documents: Mapping[str, Any],
    ) -> LoggedRun:
        """A finished child run of ``parent`` for one candidate.

        Fold metrics get the fold's number as step; undefined ones are left out. ``datasets`` are
        {table URI: version}; ``figures`` and ``documents`` become artifacts by file name.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        client = mlflow_store.client(self.tracking_uri)
        experiment = client.get_run(parent.run_id).info.experiment_id
        run = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent.run_id, **tags})
        run_id = run.info.run_id
        try:
            now = int(time.time() * 1000)
            steps = [
                Metric(metric, value, now, step)
                for step, values in enumerate(fold_metrics, 1)
                for metric, value in values.items()
                if value is not None
            ]
            finals = [
                Metric(f"mean_{metric}", value, now, 0)
                for metric, value in means.items()
                if value is not None
            ]
            client.log_batch(
                run_id,
                metrics=[*steps, *finals],
                params=[Param(key, str(value)) for key, value in params.items()],
                tags=[RunTag("candidate", name)],
            )
            inputs = [
                DatasetInput(
                    Dataset(
                        name=uri.rsplit("/", 2)[-2] + "/" + uri.rsplit("/", 1)[-1],
                        digest=version[:36],
                        source_type="delta_table",
                        source=f'{{"uri": "{uri}"}}',
                    ),
                    [InputTag("mlflow.data.context", "training")],
                )
                for uri, version in datasets.items()
            ]
            client.log_inputs(run_id, inputs)
            for file, content in figures.items():
                _log_bytes(client, run_id, file, content)
            for file, document in documents.items():
                client.log_dict(run_id, document, file)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        return LoggedRun(run_id, self._url(client, run_id))

    def _url(self, client: "MlflowClient", run_id: str) -> str | None:
        if not self.ui_url:
            return None
        experiment = client.get_run(run_id).info.experiment_id
        return f"{self.ui_url.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def _ensure_experiment(client: "MlflowClient", name: str, artifact_root: str) -> None:
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(name) is not None:
        return
    location = f"{artifact_root.rstrip('/')}/{name}" if artifact_root else None
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        # Another process was first.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_bytes(client: "MlflowClient", run_id: str, file: str, content: bytes) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file).name
        path.write_bytes(content)
        parent = str(Path(file).parent)
        client.log_artifact(run_id, str(path), None if parent == "." else parent)
