"""What monitoring found in one window: drift of columns, performance of versions. Plain values.

Belongs here: frozen dataclasses that travel as JSON in the metadata of materialisations, and what can be
read off them alone (is a score beyond its threshold, did any column of a role drift). Does not belong here:
how a score comes about (``detectors/``, ``calibration.py``, ``drift.py``), how a performance does
(``performance.py``), what follows from either (``policy.py``).

Every class has ``to_dict`` (JSON values only) and ``from_dict``, its inverse. Times are ISO-8601 texts with
a zone. None means "not defined here", and a reason or note beside it says why; it never means zero.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from mlops_assets.errors import DataError
from mlops_assets.monitoring.detectors import decides

Role = Literal["feature", "prediction", "label"]
Variant = Literal["champion", "canary", "shadow"]
PerformanceStatus = Literal["judged", "waiting", "too_few", "unlabelled", "no_keys"]

_Finding = TypeVar("_Finding")


@dataclass(frozen=True)
class Score:
    """One statistic of one column, and the value it exceeds by chance at the corrected level.

    Units: PSI and KL in nats, KS the largest distance of two distribution functions (0 to 1). Either number
    is None when it is not defined; ``ColumnDrift.note`` says why.
    """

    statistic: str
    value: float | None
    threshold: float | None

    @property
    def exceeded(self) -> bool | None:
        """Whether the value lies above the threshold; None when one of them is not defined."""
        if self.value is None or self.threshold is None:
            return None
        return self.value > self.threshold

    @property
    def ratio(self) -> float | None:
        """Value relative to the threshold: above 1 is drift. None when not defined.

        A threshold of zero (a column that never varied) gives 0 for no change and infinity for any.
        """
        if self.value is None or self.threshold is None:
            return None
        if self.threshold == 0:
            return float("inf") if self.value > 0 else 0.0
        return self.value / self.threshold

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Score":
        return _made(cls, values)


@dataclass(frozen=True)
class ColumnDrift:
    """One column of one window against the reference.

    ``drifted`` is None when no deciding statistic is defined. ``missing_share`` is of the window's rows (0 to
    1). ``note`` is a sentence about anything odd ("all values are missing"), empty otherwise. ``unlearned``:
    share of the window's rows with a value that the model cannot have learned from; None where nobody noted
    what it learned from.
    """

    column: str
    role: Role
    scores: tuple[Score, ...]
    drifted: bool | None
    missing_share: float
    note: str = ""
    unlearned: float | None = None

    def score(self, statistic: str) -> Score | None:
        """The score of that statistic; None when the column's kind has none."""
        return next((one for one in self.scores if one.statistic == statistic), None)

    @property
    def severity(self) -> float | None:
        """The largest ratio of value and threshold of a deciding statistic; None when none is defined."""
        ratios = [one.ratio for one in self.scores if decides(one.statistic) and one.ratio is not None]
        return max(ratios, default=None)

    def to_dict(self) -> dict[str, Any]:
        return {**_shallow(self), "scores": [one.to_dict() for one in self.scores]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ColumnDrift":
        return _made(cls, values, scores=Score.from_dict)


@dataclass(frozen=True)
class WindowDrift:
    """All columns of one window of one version.

    ``judged`` is False when there were too few rows; then ``columns`` is empty and ``reason`` says so.
    """

    start: str
    end: str
    version: str
    rows: int
    judged: bool
    reason: str
    columns: tuple[ColumnDrift, ...] = ()

    def of(self, role: Role) -> tuple[ColumnDrift, ...]:
        """The columns of that role."""
        return tuple(one for one in self.columns if one.role == role)

    def drifted(self, role: Role) -> bool | None:
        """Whether any column of that role drifted; None when not judged or nothing of it could be."""
        known = [one.drifted for one in self.of(role) if one.drifted is not None]
        return any(known) if self.judged and known else None

    def worst(self, count: int) -> tuple[ColumnDrift, ...]:
        """The columns furthest beyond their thresholds, whatever their role; ties by name."""
        known = [one for one in self.columns if one.severity is not None]
        return tuple(sorted(known, key=lambda one: (-(one.severity or 0.0), one.column))[:count])

    def to_dict(self) -> dict[str, Any]:
        return {**_shallow(self), "columns": [one.to_dict() for one in self.columns]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WindowDrift":
        return _made(cls, values, columns=ColumnDrift.from_dict)


@dataclass(frozen=True)
class SliceLoss:
    """The deciding metric on the rows where ``column`` is ``value``, with its interval.

    ``low`` and ``high`` hold for all slices of the window together; None where the metric is not defined.
    """

    column: str
    value: str
    rows: int
    metric_value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SliceLoss":
        return _made(cls, values)


@dataclass(frozen=True)
class WindowPerformance:
    """How well one version answered in one window, as far as labels tell.

    ``share`` is labelled / answers (0 to 1; 0 without answers). ``metrics`` holds every metric of the task;
    ``value`` is that of ``metric``, with a 95 % interval ``low`` to ``high``. ``reference`` is the same
    metric on rows the model did not train on; ``loss`` how much worse than that, positive when worse whatever
    the metric's direction, and ``loss_low`` its one-sided lower bound at the policy's level. All of them are
    None unless ``status`` is "judged"; ``reason`` says why.

    ``days``: by compared metric, what each day says of it, in order of time; a window of few days is one day.
    ``below_baseline``: how much worse than the baseline the answers were at least, in the loss that
    ``baseline`` tells of; above 0 it is proven. ``accumulated``: the evidence of a lasting loss that had
    added up by the window's end, relative to what the declared rate of false alarms allows (1 and above: a
    loss); ``accumulated_since``: the end of the oldest window that is needed for it, and ``accumulated_loss``
    how much worse the days since are than those before, in the metric's units (None below 1);
    ``accumulated_reason`` says it in words.
    """

    start: str
    end: str
    version: str
    variant: Variant
    answers: int
    labelled: int
    share: float
    status: PerformanceStatus
    reason: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    loss: float | None = None
    loss_low: float | None = None
    slices: tuple[SliceLoss, ...] = ()
    days: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    below_baseline: float | None = None
    baseline: str = ""
    accumulated: float | None = None
    accumulated_since: str | None = None
    accumulated_loss: float | None = None
    accumulated_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            **_shallow(self),
            "metrics": dict(self.metrics),
            "days": {metric: list(values) for metric, values in self.days.items()},
            "slices": [one.to_dict() for one in self.slices],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WindowPerformance":
        days = {metric: tuple(found) for metric, found in (values.get("days") or {}).items()}
        return _made(cls, {**values, "days": days}, slices=SliceLoss.from_dict)


def _shallow(finding: Any) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in finding.__dataclass_fields__}


def _made(cls: type[_Finding], values: Mapping[str, Any], **parts: Any) -> _Finding:
    """The dataclass of these values; ``parts`` are fields that hold a tuple of findings."""
    read = {
        name: tuple(parts[name](one) for one in value) if name in parts else value
        for name, value in values.items()
    }
    try:
        return cls(**read)
    except TypeError as error:
        fields = ", ".join(cls.__dataclass_fields__)  # type: ignore[attr-defined]
        raise DataError(f"this is no {cls.__name__}: {error}. Its fields are {fields}") from error
