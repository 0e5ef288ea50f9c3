"""What the YAML of a model may say.

Belongs here: the declaration and its own rules. Does not belong here: training (``training/``), the assets
(``components/model.py``), rules over several documents (``contradictions.py``).
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mlops_assets.documents._base import Declaration
from mlops_assets.documents.fields import Name, OneOf, parse_duration
from mlops_assets.errors import MlopsError
from mlops_assets.evaluation.gate import GatePolicy
from mlops_assets.evaluation.metrics import SELECTING, metric
from mlops_assets.training.trainers import TRAINERS, trainer
from mlops_assets.training.window import DEFAULT_WINDOWS, window_name
from serve.schema import Task

if TYPE_CHECKING:
    from mlops_assets.training.candidates import Candidate


DAY = timedelta(days=1)
ALL_HISTORY = window_name(None)
_WINDOW_SCHEMA = {"type": "string", "pattern": r"^(all|[0-9]+(\.[0-9]+)?[smhdw])$"}


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


def _training_windows(value: object) -> tuple[int | None, ...] | None:
    """Days of each window, None for all history; ValueError says what is allowed."""
    if value is None:
        return None
    windows = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        try:
            length = None if one == ALL_HISTORY else parse_duration(one)
        except ValueError as error:
            raise ValueError(
                f"{one!r} is no training window: write all, or whole days like 28d, or a list like "
                "[all, 90d, 28d]"
            ) from error
        if length is not None and (length < DAY or length % DAY):
            raise ValueError(f"training window {one} is not made of whole days: the shortest is 1d")
        windows.append(None if length is None else length // DAY)
    if not windows:
        raise ValueError("training_window lists no window: write all, or leave it out")
    repeated = [window_name(one) for one in dict.fromkeys(windows) if windows.count(one) > 1]
    if repeated:
        raise ValueError(f"training window {repeated[0]} is listed more than once: it would meet itself")
    return tuple(windows)


class CandidateDeclaration(Declaration):
    """One way to train; with several training windows as many candidates."""

    trainer: Annotated[str, OneOf(TRAINERS)] = Field(description="How it is trained.")
    params: dict[str, Any] = Field(default_factory=dict, description="Overrides of the trainer's defaults.")
    training_window: Annotated[
        tuple[int | None, ...] | None,
        BeforeValidator(_training_windows),
        WithJsonSchema({"anyOf": [_WINDOW_SCHEMA, {"type": "array", "items": _WINDOW_SCHEMA}]}),
    ] = Field(
        default=None,
        description="How far back its training rows go: all, days like 28d, or a list of them, which then "
        f"compete. Default: {', '.join(map(window_name, DEFAULT_WINDOWS))} where rows have an event time, "
        "else all.",
    )


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
        default=None,
        ge=1,
        description="How far back the rows of the training set go, for every candidate; default: all.",
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Binary: from here the answer is positive.")
    seed: int = 7
    gate: GatePolicy = GatePolicy()

    @property
    def selecting_metric(self) -> str:
        return self.metric or SELECTING[self.task]

    def competing(self, *, timed: bool) -> tuple["Candidate", ...]:
        """Every candidate once for each of its training windows, in the order of the document.

        ``timed``: rows have an event time. Without one there is but all history.
        """
        from mlops_assets.training.candidates import Candidate

        return tuple(
            Candidate(one.trainer, one.params, days)
            for one in self.candidates
            for days in (one.training_window or self._default_windows(timed))
        )

    def _default_windows(self, timed: bool) -> tuple[int | None, ...]:
        bound = self.training_window_days
        fitting = [days for days in DEFAULT_WINDOWS if days is None or bound is None or days < bound]
        return tuple(fitting) if timed else (None,)

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
