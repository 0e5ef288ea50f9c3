"""The YAML fields of a drift monitor.

Belongs here: the declaration. Does not belong here: what its policies decide (``monitoring/``), the assets
(``drift_monitor.py``).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import Annotated

# The daemon walks a schedule by this function, which Dagster does not export.
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator
from pydantic import BeforeValidator, Field, field_validator, model_validator

from mlops_assets.documents._base import Declaration
from mlops_assets.documents.fields import Duration, TimeZone, parse_duration
from mlops_assets.monitoring.durations import duration_text
from mlops_assets.monitoring.governor import GovernorPolicy
from mlops_assets.monitoring.policy import DriftPolicy
from mlops_assets.monitoring.relaunch import RelaunchPolicy


def _duration_or_none(value: object) -> timedelta:
    return timedelta(0) if value in (0, "0", timedelta(0)) else parse_duration(value)


Limit = Annotated[timedelta, BeforeValidator(_duration_or_none)]
"""A length of time; 0 switches the limit off."""


class GovernorDeclaration(Declaration):
    """How often drift may cost a training."""

    cooldown: Limit = Field(
        default=timedelta(days=7), description="Between the first retrains of two episodes; 0: none."
    )
    daily_budget: int = Field(default=2, ge=1, description="Retrains within any 24 hours.")
    first_back_off: Limit = Field(
        default=timedelta(days=1),
        description="After an unsuccessful retrain, and between looks at an undecided candidate; doubles "
        "with each further one.",
    )
    longest_back_off: Limit = Field(default=timedelta(days=14), description="The back-off's limit.")

    @model_validator(mode="after")
    def _limits_make_sense(self) -> "GovernorDeclaration":
        self.governor()
        return self

    def governor(self) -> GovernorPolicy:
        """The pure policy."""
        return GovernorPolicy(**self.model_dump())


class RelaunchDeclaration(Declaration):
    """How what automation lost is launched again: an approval, the run of a granted retrain."""

    first_back_off: Limit = Field(
        default=timedelta(minutes=2), description="After a launch that came to nothing; doubles with each."
    )
    longest_back_off: Limit = Field(default=timedelta(hours=1), description="The back-off's limit.")
    launches: int = Field(default=6, ge=1, description="So many launches, then a person is told.")

    @model_validator(mode="after")
    def _limits_make_sense(self) -> "RelaunchDeclaration":
        self.relaunch()
        return self

    def relaunch(self) -> RelaunchPolicy:
        """The pure policy."""
        return RelaunchPolicy(**self.model_dump())


class RetrainCalendar(Declaration):
    """When a retrain is asked for whether anything drifts or not."""

    schedule: str = Field(
        description='Cron, like "0 3 1 * *" (at 3 on the first of a month): minute, hour, day of the month, '
        "month, day of the week."
    )
    timezone: TimeZone = Field(default="UTC", description="Zone of the schedule's hours, like Europe/Berlin.")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if not is_valid_cron_schedule(value):
            raise ValueError(
                f"{value!r} is no schedule: write cron's five fields (minute, hour, day of the month, month, "
                'day of the week), like "0 3 1 * *" for 3 on the first of a month'
            )
        return value

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The moments from ``start`` to ``end`` (exclusive, both with a zone), in UTC, oldest first."""
        due = schedule_execution_time_iterator(start.timestamp(), self.schedule, self.timezone)
        return (moment.astimezone(UTC) for moment in takewhile(lambda one: one < end, due))


class LabelArrival(Declaration):
    """When a window's outcomes count as known."""

    within: Duration = Field(
        default=timedelta(days=3),
        description="Labels that come later than this are not waited for: some never come.",
    )
    min_share: float = Field(
        default=0.8, gt=0, le=1, description="So much of a window labelled is enough to judge it earlier."
    )


class DriftMonitorDeclaration(Declaration):
    """Attributes of a ``DriftMonitorComponent`` document."""

    model: str = Field(description="The ModelComponent that is watched.")
    deployment: str | None = Field(
        default=None, description="The DeploymentComponent whose answers are read; default: the model's name."
    )
    logs_since: date = Field(description="First day of the prediction log that may hold anything.")
    every: Duration = Field(
        default=timedelta(hours=1), description="New answers are measured this often, in data time."
    )
    window: Duration = Field(
        default=timedelta(days=7), description="Length of a window, aligned to Monday 00:00 UTC."
    )
    windows_kept: int = Field(default=12, ge=1, le=200, description="So many past windows are measured anew.")
    min_rows: int = Field(default=200, ge=20, description="Windows with fewer answers are not judged.")
    labels: LabelArrival = LabelArrival()
    slices: tuple[str, ...] = Field(default=(), description="Features whose values are measured one by one.")
    policy: DriftPolicy = DriftPolicy()
    governor: GovernorDeclaration = GovernorDeclaration()
    relaunch: RelaunchDeclaration = RelaunchDeclaration()
    retrain: RetrainCalendar | None = Field(
        default=None,
        description="A calendar beside the policy, which asks the same governor; left out: there is none.",
    )
    max_data_age: Duration = Field(
        default=timedelta(days=45), description="How old the served model's newest training row may be."
    )

    @model_validator(mode="after")
    def _windows_are_kept_long_enough(self) -> "DriftMonitorDeclaration":
        kept = self.windows_kept
        policy = self.policy
        for name, rule in (
            ("features", policy.features),
            ("labels", policy.labels),
            ("prediction", policy.prediction),
        ):
            if rule.action != "ignore" and rule.of > kept:
                raise ValueError(
                    f"policy.{name} asks the newest {rule.of} windows, and windows_kept is {kept}: so many "
                    "are never measured. Raise windows_kept or lower of"
                )
        if self.labels.within >= kept * self.window:
            raise ValueError(
                f"labels are waited for during {duration_text(self.labels.within)} after a window's end, and "
                f"after {duration_text(kept * self.window)} (windows_kept {kept}) the window is measured no "
                "more: raise windows_kept, or lower labels.within"
            )
        return self

    @property
    def served_by(self) -> str:
        """Name of the deployment."""
        return self.deployment or self.model
