"""What the YAML of a model may say.

Belongs here: the declaration and its own rules. Does not belong here: training (``training/``), the assets
(``components/model.py``), rules over several documents (``contradictions.py``).
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from mlops_assets.documents._base import Declaration
from mlops_assets.documents.fields import Name, OneOf
from mlops_assets.errors import MlopsError
from mlops_assets.evaluation.gate import GatePolicy
from mlops_assets.evaluation.metrics import SELECTING, metric
from mlops_assets.training.trainers import TRAINERS, trainer
from serve.schema import Task


class LabelDeclaration(Declaration):
    """Where the answer comes from: a column of a dataset, or a function of its rows."""

    dataset: str = Field(description="Dataset that holds the outcome, joined on the entity's keys.")
    column: str | None = Field(default=None, description="Column that is the label.")
    function: str | None = Field(
        default=None,
        description="Dotted path of a function DataFrame -> Series; missing means not labelled (yet).",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "LabelDeclaration":
        if (self.column is None) == (self.function is None):
            raise ValueError("a label needs either column or function")
        return self


class CandidateDeclaration(Declaration):
    """One way to train."""

    trainer: Annotated[str, OneOf(TRAINERS)] = Field(description="How it is trained.")
    params: dict[str, Any] = Field(default_factory=dict, description="Overrides of the trainer's defaults.")


class ModelDeclaration(Declaration):
    """Attributes of a ``ModelComponent`` document."""

    name: Name
    task: Task
    feature_view: str = Field(description="The FeatureViewComponent whose features the model sees.")
    label: LabelDeclaration
    description: str = ""
    classes: tuple[str, ...] | None = Field(
        default=None, description="Class names in order; binary: (negative, positive). Default: as found."
    )
    candidates: tuple[CandidateDeclaration, ...] = Field(min_length=1)
    folds: int = Field(default=3, ge=1, le=20, description="Time-ordered folds that candidates compete on.")
    metric: str | None = Field(
        default=None, description="Metric that selects the candidate; default: log_loss, or rmse."
    )
    evaluation_window_days: int = Field(
        default=14, ge=1, description="Newest labelled days, kept from training, that the gate judges on."
    )
    evaluation_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="The same without event time: a seeded share of the rows."
    )
    training_window_days: int | None = Field(
        default=None, ge=1, description="How far back training rows go; default: all."
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Binary: from here the answer is positive.")
    seed: int = 7
    gate: GatePolicy = GatePolicy()

    @property
    def selecting_metric(self) -> str:
        return self.metric or SELECTING[self.task]

    @model_validator(mode="after")
    def _everything_fits_the_task(self) -> "ModelDeclaration":
        try:
            for name in (self.metric, self.gate.metric):
                if name is not None:
                    metric(name, self.task)
            for candidate in self.candidates:
                trainer(candidate.trainer).require_task(self.task)
                trainer(candidate.trainer).parameters(candidate.params)
        except MlopsError as error:
            raise ValueError(str(error)) from error
        if self.gate.max_calibration_error is not None and self.task != "binary":
            raise ValueError("gate.max_calibration_error goes with task binary only")
        if self.gate.max_slice_loss is not None and not self.gate.slices:
            raise ValueError("gate.max_slice_loss judges gate.slices, and none are declared")
        if self.task != "binary" and "threshold" in self.model_fields_set:
            raise ValueError("threshold goes with task binary only")
        if self.classes is not None:
            count, fits = len(set(self.classes)), {"binary": "two", "multiclass": "three or more"}
            if self.task == "regression":
                raise ValueError("classes go with binary and multiclass only: a regression answers numbers")
            if count != len(self.classes) or (count != 2 if self.task == "binary" else count < 3):
                raise ValueError(
                    f"task {self.task} needs {fits[self.task]} different classes, not {list(self.classes)}"
                )
        return self
