"""Whether a retrain may start now: single flight, cooldown, daily budget, back-off. Pure.

Belongs here: limits on how often the loop spends a training. Does not belong here: whether one is wanted
(``policy.py``, ``episodes.py``), starting one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["running", "promoted", "rejected", "inconclusive", "failed"]


class GovernorPolicy(BaseModel):
    """``governor:`` in YAML. Durations; zero switches a limit off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cooldown: timedelta = Field(
        default=timedelta(days=7), description="Between the first retrains of two episodes."
    )
    daily_budget: int = Field(default=2, ge=1, description="Retrains within any 24 hours.")
    first_back_off: timedelta = Field(
        default=timedelta(days=1), description="After an unsuccessful retrain; doubles with each further one."
    )
    longest_back_off: timedelta = Field(default=timedelta(days=14), description="The back-off's limit.")


@dataclass(frozen=True)
class Grant:
    """A retrain that was granted: attempt ``number`` of ``episode``. Times carry a zone."""

    episode: int
    number: int
    granted_at: datetime
    outcome: Outcome
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Permit:
    """Whether a retrain may start. ``next_at``: when time alone will allow it; None: now, or not by time."""

    allowed: bool
    reason: str
    next_at: datetime | None = None


def permit(
    policy: GovernorPolicy,
    grants: Sequence[Grant],
    *,
    episode: int,
    in_flight: str | None,
    now: datetime,
) -> Permit:
    """Whether episode ``episode`` may have one more retrain at ``now``.

    ``grants``: all grants that are remembered, of every episode, oldest first; ``in_flight``: the run that is
    under way, if any.
    """
    raise NotImplementedError
