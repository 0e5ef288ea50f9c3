"""The YAML of a rollout: steps, analyses, guard, cohorts.

Belongs here: what may be written under ``steps``, ``analysis``, ``guard`` and ``ab`` of a deployment,
and turning it into the pure plan. Does not belong here: what a plan does (``rollout/plan.py``).
"""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mlops_assets.documents._base import Declaration
from mlops_assets.documents.fields import OneOf, parse_duration
from mlops_assets.rollout.judging.conditions import DEFAULT_ANALYSES, Analysis, Condition
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS
from mlops_assets.rollout.plan import CanaryStep, RolloutPlan, problems_of
from mlops_assets.rollout.weights import basis_points
from serve.schema import WEIGHT_TOTAL

MANUAL = "manual"


def _whole_basis_points(percent: float) -> float:
    basis_points(percent)
    return percent


Percent = Annotated[float, Field(gt=0, le=100), AfterValidator(_whole_basis_points)]


def _pause(value: object) -> Any:
    return value if value is None or value == MANUAL else parse_duration(value)


class StepDeclaration(Declaration):
    """One step: mirror traffic, or set a weight."""

    shadow: Percent | None = Field(
        default=None, description="Percent of the requests that the new version scores unseen."
    )
    set_weight: Percent | None = Field(
        default=None, description="Percent of the traffic that the new version answers."
    )
    min_requests: int = Field(
        default=0, ge=0, description="Requests that the new version must have scored before it is judged."
    )
    pause: Annotated[timedelta | Literal["manual"] | None, BeforeValidator(_pause)] = Field(
        default=None,
        description="How long the step lasts at least, like 10m; manual: until a person promotes.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "StepDeclaration":
        if (self.shadow is None) == (self.set_weight is None):
            raise ValueError("a step is either {shadow: PERCENT} or {set_weight: PERCENT}")
        return self

    def step(self) -> CanaryStep:
        pause = self.pause if isinstance(self.pause, timedelta) else None
        return CanaryStep(
            weight=basis_points(self.set_weight or 0),
            shadow=basis_points(self.shadow or 0),
            min_requests=self.min_requests,
            pause=pause,
            manual=self.pause == MANUAL,
        )


class AnalysisDeclaration(Declaration):
    """One measurement of a new version against stable."""

    metric: Annotated[str, OneOf(ANALYSIS_METRICS)] = Field(
        description="`quality` needs a DriftMonitorComponent of the model, which joins labels to the answers."
    )
    success_condition: str = Field(
        description="Like `increase <= 0.02`; the metric says what can be compared."
    )
    failure_limit: int = Field(default=0, ge=0, description="Failed measurements that are put up with.")
    inconclusive_limit: int = Field(
        default=10,
        ge=0,
        description="Inconclusive measurements, one per min_requests (of quality: of labels), before a "
        "person decides.",
    )

    @model_validator(mode="after")
    def _condition_is_known(self) -> "AnalysisDeclaration":
        self.analysis()
        return self

    def analysis(self) -> Analysis:
        return Analysis(
            metric=self.metric,
            condition=Condition.parse(self.success_condition, metric=self.metric),
            failure_limit=self.failure_limit,
            inconclusive_limit=self.inconclusive_limit,
        )


class CohortDeclaration(Declaration):
    """An A/B test: one share of the units sees the new version until there is evidence."""

    unit: str = Field(
        default="unit",
        description="What is kept together: a feature's name, or `unit` for the request's own unit field.",
    )
    split: Percent = Field(default=50, lt=100, description="Percent of the units that see the new version.")
    min_requests: int = Field(
        default=1_000, ge=1, description="Requests of the new version before it is judged."
    )
    pause: Annotated[timedelta | Literal["manual"] | None, BeforeValidator(_pause)] = None

    def steps(self) -> tuple[StepDeclaration, ...]:
        return (
            StepDeclaration(set_weight=self.split, min_requests=self.min_requests, pause=self.pause),
            StepDeclaration(set_weight=100),
        )

    @property
    def unit_feature(self) -> str | None:
        return None if self.unit == "unit" else self.unit


class RolloutDeclaration(Declaration):
    """The fields of a deployment that say how a new version takes over."""

    steps: tuple[StepDeclaration, ...] = Field(
        default=(),
        description="In order; left out: a new version takes all traffic as soon as it answers.",
    )
    analysis: tuple[AnalysisDeclaration, ...] | None = Field(
        default=None, description="Left out: error rate and latency, when there are steps to judge."
    )
    ab: CohortDeclaration | None = Field(default=None, description="Instead of steps: an A/B test by cohort.")
    keep_warm: Annotated[timedelta, BeforeValidator(parse_duration)] = Field(
        default=timedelta(minutes=30),
        description="How long the version before stays up after a promotion: a rollback then takes seconds.",
    )

    @model_validator(mode="after")
    def _plan_holds(self) -> "RolloutDeclaration":
        if self.ab is not None and self.steps:
            raise ValueError("declare either steps or ab: an A/B test is a plan of its own")
        plan = self.plan()
        found = problems_of(plan.steps, plan.analyses)
        if found:
            raise ValueError("; ".join(found))
        return self

    def plan(self, *, labels_within: timedelta | None = None) -> RolloutPlan:
        """The pure plan. It waits for labels at least ``labels_within``: as long as a monitor does."""
        declared = self.ab.steps() if self.ab else self.steps
        steps = tuple(step.step() for step in declared) or (CanaryStep(weight=WEIGHT_TOTAL),)
        analyses: tuple[Analysis, ...] = ()
        if self.analysis is not None:
            analyses = tuple(declaration.analysis() for declaration in self.analysis)
        elif len(steps) > 1:
            analyses = DEFAULT_ANALYSES
        plan = RolloutPlan(steps=steps, analyses=analyses, keep_warm=self.keep_warm)
        longest = max(plan.labels_within, labels_within or plan.labels_within)
        return replace(plan, labels_within=longest)
