"""What only warns, what opens an episode, and how many windows have to agree. Pure.

Belongs here: the declared policy and the decision on windows that were measured. Does not belong here:
measuring them (``drift.py``, ``performance.py``), whether a retrain may start (``governor.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.errors import UnknownName
from mlops_assets.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance

RuleAction = Literal["warn", "open", "ignore"]
Action = Literal["quiet", "warn", "open", "inconclusive"]
SignalName = Literal["features", "labels", "prediction", "performance"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalRule(_Document):
    """What a signal leads to, and how many of the newest judged windows have to show it."""

    action: RuleAction = Field(
        default="warn", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )
    windows: int = Field(default=2, ge=1, description="So many windows have to show it ...")
    of: int = Field(default=3, ge=1, le=52, description="... among so many of the newest judged ones.")

    @model_validator(mode="after")
    def _can_agree(self) -> "SignalRule":
        if self.windows > self.of:
            raise ValueError(f"windows {self.windows} of {self.of} can never agree: windows must be <= of")
        return self


class PerformanceRule(SignalRule):
    """The rule on labelled performance."""

    action: RuleAction = Field(
        default="open", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )
    metric: str | None = Field(
        default=None,
        description="Metric that is held to the reference; default: skill for classes, rmse for numbers.",
    )
    min_loss: float = Field(
        default=0.0, ge=0, description="Proven loss that is tolerated, in the metric's units."
    )

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS:
            raise ValueError(str(UnknownName("metric", value, METRICS)))
        return value


class DriftPolicy(_Document):
    """``drift.policy`` in YAML."""

    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="Probability per window that a signal shows although nothing changed, over all columns "
        "together.",
    )
    features: SignalRule = SignalRule(action="warn")
    labels: SignalRule = SignalRule(action="warn")
    prediction: SignalRule = SignalRule(action="open")
    performance: PerformanceRule = PerformanceRule()


@dataclass(frozen=True)
class SignalState:
    """One signal over the newest judged windows.

    ``agreeing`` of ``judged`` windows show it, where ``needed`` of ``of`` have to. ``scores``: the numbers of
    the newest judged window, by column or metric, each relative to its threshold where there is one.
    """

    name: SignalName
    action: Action
    agreeing: int
    judged: int
    needed: int
    of: int
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What the windows of one version say. ``version`` None: there are no windows at all."""

    action: Action
    reason: str
    version: str | None
    signals: tuple[SignalState, ...]


def decide(
    policy: DriftPolicy, drift: "Sequence[WindowDrift]", performance: "Sequence[WindowPerformance]"
) -> Decision:
    """The decision on windows of one version, oldest first.

    A window that is not judged counts neither way. Raises ValueError for windows of several versions or
    out of order; ``performance`` takes the champion's windows only.
    """
    raise NotImplementedError
