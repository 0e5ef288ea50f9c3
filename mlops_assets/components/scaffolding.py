"""``dg scaffold defs TYPE NAME``: one document of each type, commented, that fits what is declared already.

Belongs here: what each type can be given, and filling it from the documents that it names. Does not belong
here: the words of a document (``documents/written.py``), a whole use case from a file (``commands/new.py``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import click
import dagster as dg
from pydantic import BaseModel, Field

from mlops_assets.data.inference import FEATURES, format_of, infer_rows
from mlops_assets.data.locations import read_bytes
from mlops_assets.data.schema import ColumnType
from mlops_assets.documents import written
from mlops_assets.documents.lookup import found_documents
from mlops_assets.errors import MlopsError, UnknownName
from serve.schema import Task

P = TypeVar("P", bound=BaseModel)
TASKS: Mapping[ColumnType, Task] = {"string": "multiclass", "boolean": "binary"}
"""Task of a label by its declared type, where it is no regression; two texts are a binary one."""


class DocumentScaffolder(dg.Scaffolder[P], Generic[P]):
    """Writes ``defs.yaml``; what cannot be written is said in words, and leaves no folder."""

    def scaffold(self, request: dg.ScaffoldRequest[P]) -> None:
        folder = request.target_path
        try:
            if request.scaffold_format != "yaml":
                raise MlopsError("a document is YAML: leave --format out")
            text = self.text(folder.name, request.params, folder)
        except MlopsError as error:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise click.ClickException(str(error)) from error
        (folder / "defs.yaml").write_text(text, encoding="utf-8")

    def text(self, name: str, params: P, folder: Path) -> str:
        """The document of that name."""
        raise NotImplementedError


class StreamParams(BaseModel):
    """What a stream can be given."""

    topic: str | None = Field(default=None, description="The Kafka topic; left out: the stream's name.")


class StreamScaffolder(DocumentScaffolder[StreamParams]):
    """A stream of JSON records, of one column to start from."""

    @classmethod
    def get_scaffold_params(cls) -> type[StreamParams]:
        return StreamParams

    def text(self, name: str, params: StreamParams, folder: Path) -> str:
        return written.stream(name, topic=params.topic or name)


class DatasetParams(BaseModel):
    """What a dataset can be given."""

    file: str | None = Field(
        default=None, description="CSV or Parquet file that the columns are read from; it stays where it is."
    )


class DatasetScaffolder(DocumentScaffolder[DatasetParams]):
    """A dataset of a file, with its columns; without a file, of two columns to start from."""

    @classmethod
    def get_scaffold_params(cls) -> type[DatasetParams]:
        return DatasetParams

    def text(self, name: str, params: DatasetParams, folder: Path) -> str:
        if params.file is None:
            columns: dict[str, ColumnType] = {"row_id": "integer", "value": "number"}
            return written.dataset(name, source="csv", path=f"{name}.csv", columns=columns, key=["row_id"])
        file = Path(params.file).absolute()
        source = format_of(file)
        rows = infer_rows(read_bytes(str(file)), source=source, name=file.name)
        if rows.renamed:
            raise MlopsError(
                f"columns {', '.join(map(repr, rows.renamed))} of {file.name} need other names, and so a "
                f"function: mlops new {name} --csv FILE writes both"
            )
        types = {one.name: one.type for one in rows.columns}
        return written.dataset(
            name,
            source=source,
            path=str(file),
            columns=types,
            key=[] if rows.key_made else [rows.key],
            keyless=rows.key_why if rows.key_made else "",
            options=rows.options,
        )


class FeatureViewParams(BaseModel):
    """What a feature view can be given."""

    base: str | None = Field(default=None, description="Dataset that it is a view of; left out: NAME.")


class FeatureViewScaffolder(DocumentScaffolder[FeatureViewParams]):
    """A view of every column of its base that can be a feature."""

    @classmethod
    def get_scaffold_params(cls) -> type[FeatureViewParams]:
        return FeatureViewParams

    def text(self, name: str, params: FeatureViewParams, folder: Path) -> str:
        base = _declared(folder, "DatasetComponent", "dataset", params.base or name)
        key = list(base.get("primary_key") or ())
        if not key:
            raise MlopsError(
                f"dataset {base['name']!r} declares no primary_key, and rows of a feature view are "
                "told apart by one. Name the columns in its document, or let a transform make one: "
                "mlops new NAME --csv FILE writes one that numbers the rows"
            )
        features = {
            column: FEATURES[kind]
            for column, kind in base["columns"].items()
            if column not in key and kind in FEATURES
        }
        if not features:
            raise MlopsError(f"dataset {base['name']!r} has no column but its key that can be a feature")
        return written.feature_view(name, base=base["name"], key=key, features=features)


class ModelParams(BaseModel):
    """What a model can be given."""

    feature_view: str | None = Field(default=None, description="What the model sees; left out: NAME.")
    label: str | None = Field(default=None, description="Column of the base to predict; left out: its last.")


class ModelScaffolder(DocumentScaffolder[ModelParams]):
    """A model of a column of the dataset that its features come from."""

    @classmethod
    def get_scaffold_params(cls) -> type[ModelParams]:
        return ModelParams

    def text(self, name: str, params: ModelParams, folder: Path) -> str:
        view = _declared(folder, "FeatureViewComponent", "feature view", params.feature_view or name)
        base = _declared(folder, "DatasetComponent", "dataset", view["base"])
        label = params.label or list(base["columns"])[-1]
        if label not in base["columns"]:
            raise UnknownName("column", label, base["columns"])
        task = TASKS.get(base["columns"][label], "regression")
        return written.model(name, task=task, view=view["name"], dataset=base["name"], label=label)


class DeploymentParams(BaseModel):
    """What a deployment can be given."""

    model: str | None = Field(default=None, description="Model that answers; left out: NAME.")


class DeploymentScaffolder(DocumentScaffolder[DeploymentParams]):
    """A deployment of a declared model."""

    @classmethod
    def get_scaffold_params(cls) -> type[DeploymentParams]:
        return DeploymentParams

    def text(self, name: str, params: DeploymentParams, folder: Path) -> str:
        model = _declared(folder, "ModelComponent", "model", params.model or name)
        return written.deployment(name, model=model["name"])


class DriftMonitorParams(BaseModel):
    """What a monitor can be given."""

    model: str | None = Field(default=None, description="Model that is watched; left out: NAME.")


class DriftMonitorScaffolder(DocumentScaffolder[DriftMonitorParams]):
    """A monitor of a declared model and of its deployment."""

    @classmethod
    def get_scaffold_params(cls) -> type[DriftMonitorParams]:
        return DriftMonitorParams

    def text(self, name: str, params: DriftMonitorParams, folder: Path) -> str:
        model = _declared(folder, "ModelComponent", "model", params.model or name)["name"]
        served = [
            one.name
            for one in found_documents(_defs(folder))
            if one.component == "DeploymentComponent" and one.attributes.get("model") == model
        ]
        today = datetime.now(UTC).date()
        return written.drift_monitor(model, since=today, deployment=next(iter(served), ""))


def _declared(folder: Path, component: str, what: str, name: str) -> Mapping[str, Any]:
    """Attributes of a declared document; UnknownName with those there are."""
    known = {one.name: one.attributes for one in found_documents(_defs(folder)) if one.component == component}
    if name not in known:
        raise UnknownName(what, name, known)
    return known[name]


def _defs(folder: Path) -> Path:
    """The folder of all documents that a new one stands in."""
    return next((one for one in folder.parents if one.name == "defs"), folder.parent)
