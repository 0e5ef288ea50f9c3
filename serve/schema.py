"""The contract between training, deployment and serving: what a model package and a gateway say.

Belongs here: pydantic documents that cross a process boundary. Does not belong here: behaviour
(``serve/scoring.py``, ``serve/splitting.py``), HTTP handlers, clients. ``mlops_assets`` imports this module,
``serve.scoring``, ``serve.clock``, ``serve.families`` and ``serve.online``, and nothing else of ``serve``.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Task = Literal["binary", "multiclass", "regression"]
FeatureType = Literal["number", "integer", "boolean", "category"]
FeatureValue = str | float | int | bool | None

WEIGHT_TOTAL = 10_000
"""Weights are basis points: 10,000 is all of the traffic."""


def is_whole_number(text: str) -> bool:
    """Whether a text is what a whole number of 64 bits is written as: 3, 0 or -12, and not 03, +3 or 3.0."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return False
    number = int(text)
    return str(number) == text and -(2**63) <= number < 2**63


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: write categories in quotes, like '{value}'")
    return value


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
    categories: tuple[Annotated[str, BeforeValidator(_text)], ...] | None = Field(
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

    @property
    def coded(self) -> bool:
        """Whether it is a category whose every text is a whole number: a request may send the number too."""
        return self.categories is not None and all(map(is_whole_number, self.categories))


class GoldenRow(Document):
    """A real training row and the exact scores the packaged model gave for it offline."""

    features: dict[str, FeatureValue]
    scores: tuple[float, ...] = Field(
        description="One value for binary (probability of the positive class) and regression, "
        "one per class for multiclass."
    )


class TrainingWindow(Document):
    """How far back the rows went that a model was trained on, where not all were taken."""

    days: Annotated[int, Field(ge=1)]
    first_day: str = Field(description="Day (UTC) of the first training row, like 2024-03-01.")
    last_day: str


ColumnKind = Literal["string", "integer", "number", "boolean", "timestamp", "date"]
OnlineAggregate = Literal["mean", "sum", "count", "share", "max", "last"]


class OnlineJoin(Document):
    """A join of a view, as a replica carries it out; lengths are microseconds.

    ``timestamp`` None: by key alone, one row per key. ``columns`` have an order, in which a store holds them
    and which decides between rows of one moment.
    """

    dataset: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: dict[str, ColumnKind]
    prefix: str = ""
    timestamp: str | None = None
    tolerance_us: int | None = None


class OnlineRolling(Document):
    """A rolling aggregate of a view, as a replica computes it; lengths are microseconds."""

    name: str
    keys: tuple[str, ...]
    known_at: str
    window_us: int
    aggregate: OnlineAggregate
    value: str | None = None
    above: float | None = None
    longest_delay_us: int | None = Field(
        default=None, description="A row known later than this after its own event never counts."
    )


class OnlineTransform(Document):
    """The view's function on one row of plain values: its module, which needs the standard library only."""

    source: str
    function: str


class OnlineExample(Document):
    """What a transform was given of one real row, and the features that the offline view has for it.

    Timestamps and dates are ISO texts, as in a request.
    """

    row: dict[str, FeatureValue]
    features: dict[str, FeatureValue]


class OnlineView(Document):
    """A feature view whose rows a replica computes itself: the caller sends keys and ``request`` columns."""

    name: str
    store: str = Field(description="One of ``serve.online.stores.STORES``.")
    base: str = Field(description="Dataset of the events; the others are joined to it.")
    event_timestamp: str | None
    columns: dict[str, ColumnKind] = Field(description="Types of the join keys and the request's columns.")
    entity: tuple[str, ...]
    request: tuple[str, ...]
    joins: tuple[OnlineJoin, ...] = ()
    rolling: tuple[OnlineRolling, ...] = ()
    transform: OnlineTransform | None = None
    stale_after_s: float = Field(gt=0, description="Age of the store from which it counts as stale.")
    when_stale: Literal["answer", "refuse"] = "answer"
    examples: tuple[OnlineExample, ...] = ()

    @property
    def shape(self) -> str:
        """Names what a store holds for this view: equal for two views that read the same things of it."""
        read = self.model_dump(mode="json", include={"base", "event_timestamp", "joins", "rolling"})
        matched = [*(one.keys for one in self.joins), *(one.keys for one in self.rolling)]
        keys = sorted({key for of in matched for key in of})
        read["keys"] = {key: self.columns[key] for key in keys}
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:12]


class ModelManifest(Document):
    """``model.json`` of a model package. Holds no run id and no clock: same inputs, same bytes."""

    format_version: Literal[1] = 1
    name: str
    task: Task
    trainer: str
    model_format: str = Field(description="One of ``serve.formats.FORMATS``.")
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
    entity: tuple[str, ...] = Field(
        default=(),
        description="Join keys that a request may carry, so that its outcome can be joined to it later.",
    )
    training_window: TrainingWindow | None = Field(
        default=None, description="None: trained on the whole training part."
    )
    online: OnlineView | None = Field(
        default=None, description="How a replica makes the features of keys; None: callers send features."
    )

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
Device = Literal["auto", "cpu", "gpu"]


class Route(Document):
    """Where one model version answers, and its shares of the traffic in basis points."""

    application: str = Field(description="Ray Serve application of the version, e.g. flights--v7.")
    weight: Weight
    shadow: Weight = Field(
        default=0, description="Share of the answered requests that it scores too, unseen by the caller."
    )


class Segment(Document):
    """A run of sticky buckets, ``low`` inclusive to ``high`` exclusive, that one version owns."""

    low: Annotated[int, Field(ge=0, lt=WEIGHT_TOTAL)]
    high: Annotated[int, Field(gt=0, le=WEIGHT_TOTAL)]
    version: str


class GuardRules(Document):
    """When a gateway takes a canary out of the traffic by itself, without waiting for anyone.

    Only what the version is to blame for counts: refused requests and full queues do not.
    """

    window_s: float = Field(default=30.0, gt=0, description="How far back failures count.")
    min_requests: int = Field(default=20, ge=1, description="Requests in the window before a rate counts.")
    min_errors: int = Field(default=5, ge=2, description="Errors in the window before a rate counts.")
    max_error_rate: float = Field(default=0.05, ge=0, lt=1, description="Share of errors that trips.")
    max_p95_ms: float | None = Field(
        default=500.0, gt=0, description="95th percentile of the version's own time that trips; null: none."
    )
    max_non_finite: int = Field(default=2, ge=1, description="Non-finite outputs in the window; more trip.")
    max_losses: int = Field(
        default=3, ge=1, description="Times in the window that it stopped answering; more is a crash loop."
    )
    timeout_s: float = Field(
        default=1.0, gt=0, description="How long a canary may take before stable answers instead."
    )


class RolloutMark(Document):
    """Which rollout a routing belongs to. It travels with the routing: whoever was cut off between
    declaring a state and recording it finds here what was declared.
    """

    target: str = Field(description="Version being rolled out, rolled back to, or settled on.")
    action: Literal["initial", "step", "set_weight", "promote", "abort", "rollback", "retire"]
    step: int = Field(default=0, ge=0, description="Index of the declared step, of action step.")
    previous: str | None = Field(default=None, description="Version that was stable before.")
    left: tuple[str, ...] = Field(
        default=(), description="Versions that this act withdraws: nothing rolls them out again by itself."
    )
    phase: str = Field(default="", description="How the act ends, once verified; empty: as its action says.")
    reason: str = ""
    by: str = Field(default="rollout", description="The person who asked for it, or the platform's part.")
    declared_at: float = Field(default=0.0, description="Unix seconds.")


class Routing(Document):
    """``user_config`` of the gateway: the declared traffic state of one deployment."""

    revision: int = Field(ge=0, description="Grows with every change; replicas report the one they run.")
    stable: str = Field(description="Version that answers whatever no other version takes.")
    routes: dict[str, Route]
    segments: tuple[Segment, ...] = Field(
        default=(), description="Who owns which buckets; empty: derived from the weights."
    )
    salt: str = Field(default="", description="Salt of the sticky hash; change it to reshuffle units.")
    unit_feature: str | None = Field(
        default=None, description="Feature whose value is the unit of a request that names none (cohorts)."
    )
    timeout_s: float = Field(default=5.0, gt=0, description="How long one model call may take.")
    guard: GuardRules = GuardRules()
    rollout: RolloutMark | None = None

    @model_validator(mode="after")
    def _weights_are_whole(self) -> "Routing":
        if self.stable not in self.routes:
            raise ValueError(f"stable version {self.stable!r} is not among the routes {sorted(self.routes)}")
        total = sum(route.weight for route in self.routes.values())
        if total != WEIGHT_TOTAL:
            raise ValueError(f"weights add up to {total}, must be {WEIGHT_TOTAL} basis points")
        if self.segments:
            self._segments_fit_the_weights()
        return self

    def _segments_fit_the_weights(self) -> None:
        owned = dict.fromkeys(self.routes, 0)
        reached = 0
        for segment in self.segments:
            if segment.low != reached or segment.high <= segment.low:
                raise ValueError(f"segments leave a gap or overlap at bucket {reached}")
            if segment.version not in owned:
                raise ValueError(f"segment of {segment.version!r}, which is not among the routes")
            owned[segment.version] += segment.high - segment.low
            reached = segment.high
        weights = {version: route.weight for version, route in self.routes.items()}
        if reached != WEIGHT_TOTAL or owned != weights:
            raise ValueError(f"segments give {owned} up to bucket {reached}, the weights say {weights}")

    def weights(self) -> dict[str, int]:
        """{version: basis points}."""
        return {version: route.weight for version, route in self.routes.items()}


class PredictionLogArgs(Document):
    """Where a gateway logs answers, and what it may keep in memory meanwhile."""

    uri: str = Field(description="Folder: a local path or s3://bucket/prefix.")
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        description="S3 endpoint and region only; credentials come from the environment.",
    )
    max_queued_rows: int = Field(
        default=20_000, ge=1, description="Beyond these, rows are dropped and counted."
    )
    flush_interval_s: float = Field(
        default=1.0, gt=0, description="A killed replica loses at most this much."
    )


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
    device: Device = Field(default="cpu", description="auto: a GPU where there is one, and said so.")


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
    max_shadows_in_flight: int = Field(default=64, ge=1, description="Beyond these, shadows are shed.")
    stable_in_gateway: bool = Field(
        default=True,
        description="The gateway scores small requests of a proven stable CPU model in its own process.",
    )
    prediction_log: PredictionLogArgs | None = None
    online_uri: str = Field(default="", description="Where stores of online features lie; empty: nowhere.")
    clock_file: str = Field(
        default="",
        description="File with the instant at which answers are given (serve/clock.py); empty: the machine's "
        "clock.",
    )


# -- evidence: what a gateway measured of its versions since a routing took effect -------------------

LATENCY_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds, inclusive, of the latency counts; one more count holds what is above the last."""


class Moments(Document):
    """Count, mean and sum of squared deviations of a series; two of them merge without loss."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0


class VersionEvidence(Document):
    """What one version did with the requests it was chosen for."""

    requests: int = Field(default=0, description="Answered or failed; refused and overloaded do not count.")
    errors: dict[str, int] = Field(
        default_factory=dict, description="By reason: model_error, timeout, lost, gone, non_finite, schema."
    )
    losses: int = Field(default=0, description="Times that it stopped answering.")
    latency: tuple[int, ...] = Field(
        default=(0,) * (len(LATENCY_BOUNDS_S) + 1), description="Requests by its own time, LATENCY_BOUNDS_S."
    )
    outputs: Moments = Field(
        default=Moments(),
        description="Per answered request, mean over its rows of: probability of the positive class "
        "(binary), value (regression), largest class probability (multiclass).",
    )


class ShadowEvidence(Document):
    """What one version did with mirrored requests, paired with the answers callers got."""

    requests: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    shed: int = Field(default=0, description="Not mirrored because too many were under way.")
    latency: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    live_latency: tuple[int, ...] = Field(
        default=(0,) * (len(LATENCY_BOUNDS_S) + 1), description="Of the live answers of the same requests."
    )
    outputs: Moments = Moments()
    live_outputs: Moments = Moments()
    differences: Moments = Field(
        default=Moments(), description="Shadow's output less the live one, per pair; outputs as above."
    )
    distances: Moments = Field(
        default=Moments(),
        description="Per pair, mean absolute difference over rows (multiclass: total variation distance).",
    )


class Trip(Document):
    """A guard's decision to give a version no traffic under one revision, with its numbers."""

    version: str
    revision: int
    reason: str
    at: float = Field(description="Unix seconds.")
    by: str = Field(description="Replica that decided from its own traffic, or referee.")


class ReplicaReport(Document):
    """What the aggregator last heard of one gateway replica."""

    revision: int
    age_s: float


class Evidence(Document):
    """``GET /<name>/evidence``: exact over all gateway replicas, of the newest revision."""

    name: str
    revision: int
    since: float = Field(description="Unix seconds at which the first replica took this revision.")
    replicas: dict[str, ReplicaReport]
    versions: dict[str, VersionEvidence]
    shadows: dict[str, ShadowEvidence]
    trips: dict[str, Trip]


# -- monitoring: what the platform found out about the version that answers -------------------------

StaleCause = Literal["drift", "data", "code", "rollback"]
DriftStatistic = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
Scores = Annotated[dict[DriftStatistic, Finite], Field(max_length=20)]
ColumnScores = Annotated[dict[ColumnName, Scores], Field(max_length=20)]


class MonitoringReport(Document):
    """``POST /<name>/monitoring``: the state of the served version, shown at ``/metrics``."""

    version: str = Field(min_length=1, description="The version that it is about; must be the stable one.")
    stale: dict[StaleCause, bool] = Field(
        default_factory=dict, description="Whether the version is stale, by cause; one left out is not known."
    )
    data_until: Finite | None = Field(
        default=None, description="Newest row that the version was trained on, Unix seconds; null: not known."
    )
    drift: ColumnScores = Field(
        default_factory=dict, description="Scores of the newest judged window, by column; the worst 20."
    )
    drift_thresholds: ColumnScores = Field(
        default_factory=dict, description="The thresholds that those scores are held against."
    )
    episode_open: bool = Field(default=False, description="Whether a drift episode of the version is open.")
