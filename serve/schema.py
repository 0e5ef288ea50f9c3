"""The contract between training, deployment and serving: what a model package and a gateway say.

Belongs here: pydantic documents that cross a process boundary. Does not belong here: behaviour
(``serve/scoring.py``, ``serve/splitting.py``), HTTP handlers, clients. ``mlops_assets`` imports
this module and ``serve.scoring`` and nothing else of ``serve``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["binary", "multiclass", "regression"]
FeatureType = Literal["number", "integer", "boolean", "category"]
ModelFormat = Literal["lightgbm-text", "xgboost-ubj", "linear-json"]
FeatureValue = str | float | int | bool | None

WEIGHT_TOTAL = 10_000
"""Weights are basis points: 10,000 is all of the traffic."""


class Document(BaseModel):
    """Base of every document: unknown fields are refused, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class FeatureSpec(Document):
    """One model input, as declared in YAML and as the HTTP contract validates it."""

    name: str = Field(min_length=1)
    type: FeatureType
    description: str = ""
    nullable: bool = Field(default=True, description="Whether null (a missing value) is a valid input.")
    minimum: float | None = Field(default=None, description="Smallest valid value, inclusive.")
    maximum: float | None = Field(default=None, description="Largest valid value, inclusive.")
    categories: tuple[str, ...] | None = Field(
        default=None,
        description="The dictionary of a category, in code order; filled from the training set.",
    )
    unseen: Literal["missing", "reject"] = Field(
        default="missing",
        description="A category outside the dictionary is scored as missing, or refused with 400.",
    )
    example: FeatureValue = None

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> "FeatureSpec":
        if self.type in ("boolean", "category") and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"feature {self.name!r}: minimum and maximum go with number and integer only")
        if self.type != "category" and self.categories is not None:
            raise ValueError(f"feature {self.name!r}: categories go with type category only")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"feature {self.name!r}: minimum {self.minimum} exceeds maximum {self.maximum}")
        return self


class GoldenRow(Document):
    """A real training row and the exact scores the packaged model gave for it offline."""

    features: dict[str, FeatureValue]
    scores: tuple[float, ...] = Field(
        description="One value for binary (probability of the positive class) and regression, "
        "one per class for multiclass."
    )


class ModelManifest(Document):
    """``model.json`` of a model package. Holds no run id and no clock: same inputs, same bytes."""

    format_version: Literal[1] = 1
    name: str
    task: Task
    trainer: str
    model_format: ModelFormat
    model_file: str
    target: str
    features: tuple[FeatureSpec, ...] = Field(min_length=1, description="In the order of the matrix.")
    classes: tuple[str, ...] | None = Field(
        default=None,
        description="Class labels in score order; binary: (negative, positive); regression: none.",
    )
    threshold: float = Field(
        default=0.5, description="Binary: probability from which the answer is positive."
    )
    golden: tuple[GoldenRow, ...] = ()
    training_set_version: str = ""

    @model_validator(mode="after")
    def _classes_fit_the_task(self) -> "ModelManifest":
        count = len(self.classes or ())
        wanted = {"binary": count == 2, "multiclass": count >= 3, "regression": count == 0}
        if not wanted[self.task]:
            raise ValueError(f"task {self.task!r} does not fit {count} classes")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


Weight = Annotated[int, Field(ge=0, le=WEIGHT_TOTAL)]


class Route(Document):
    """Where one model version answers, and its share of the traffic in basis points."""

    application: str = Field(description="Ray Serve application of the version, e.g. flights--v7.")
    weight: Weight


class Routing(Document):
    """``user_config`` of the gateway: the declared traffic state of one deployment."""

    revision: int = Field(ge=0, description="Grows with every change; replicas report the one they run.")
    stable: str = Field(description="Version that answers whatever no other version takes.")
    routes: dict[str, Route]
    salt: str = Field(default="", description="Salt of the sticky hash; change it to reshuffle units.")
    timeout_s: float = Field(default=5.0, gt=0, description="How long one model call may take.")

    @model_validator(mode="after")
    def _weights_are_whole(self) -> "Routing":
        if self.stable not in self.routes:
            raise ValueError(f"stable version {self.stable!r} is not among the routes {sorted(self.routes)}")
        total = sum(route.weight for route in self.routes.values())
        if total != WEIGHT_TOTAL:
            raise ValueError(f"weights add up to {total}, must be {WEIGHT_TOTAL} basis points")
        return self


class ModelArgs(Document):
    """Arguments of a version application: immutable, one application per model version."""

    version: str
    package_uri: str
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        description="S3 endpoint and region only; credentials come from the replica's environment.",
    )
    num_replicas: int = Field(default=1, ge=1)
    num_gpus: float = Field(default=0, ge=0)


class GatewayArgs(Document):
    """Arguments of a gateway application. Holds no secret: the keys file is named, never quoted.

    Holds no manifest either: changed arguments restart the gateway, and a new model must not. The
    gateway asks each version for its manifest (``info``).
    """

    name: str
    num_replicas: int = Field(default=1, ge=1)
    api_keys_file: str | None = Field(default=None, description="None switches keys off, and /ready says so.")
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    max_batch_rows: int = Field(default=1_000, ge=1)
