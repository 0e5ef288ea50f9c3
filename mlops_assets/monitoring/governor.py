"""Whether a retrain may start now: single flight, cooldown, daily budget, back-off. Pure.

Belongs here: limits on how often the loop spends a training. Does not belong here: whether one is wanted
(``policy.py``, ``episodes.py``), starting one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlops_assets.monitoring.durations import doubled, duration_text

DAY = timedelta(days=1)

AttemptOutcome = Literal["running", "promoted", "rejected", "inconclusive", "failed"]


class GovernorPolicy(BaseModel):
    """``governor:`` in YAML. Durations; zero switches a limit off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cooldown: timedelta = Field(
        default=timedelta(days=7), description="Between the first retrains of two episodes."
    )
    daily_budget: int = Field(default=2, ge=1, description="Retrains within any 24 hours.")
    first_back_off: timedelta = Field(
        default=timedelta(days=1),
        description="After an unsuccessful retrain, and between looks at an undecided candidate; doubles "
        "with each further one.",
    )
    longest_back_off: timedelta = Field(default=timedelta(days=14), description="The back-off's limit.")

    @model_validator(mode="after")
    def _limits_make_sense(self) -> "GovernorPolicy":
        for name in ("cooldown", "first_back_off", "longest_back_off"):
            if getattr(self, name) < timedelta(0):
                raise ValueError(f"{name} must not be negative")
        if self.longest_back_off < self.first_back_off:
            raise ValueError(
                f"longest_back_off ({duration_text(self.longest_back_off)}) is shorter than first_back_off "
                f"({duration_text(self.first_back_off)})"
            )
        return self


@dataclass(frozen=True)
class Grant:
    """A retrain that was granted: attempt ``number`` of ``episode``. Times carry a zone."""

    episode: int
    number: int
    granted_at: datetime
    outcome: AttemptOutcome
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
    """Whether episode ``episode`` may have one more retrain at ``now``; the same for drift and for a person.

    ``grants``: all grants that are remembered, of every episode, oldest first; ``in_flight``: the run that is
    under way, if any. A time that is further ahead of ``now`` than a limit is long was written by a clock
    that was wrong, and does not count for that limit: no limit lasts longer than twice its length.
    """
    if in_flight is not None:
        return Permit(False, f"run {in_flight} is under way: one at a time")
    running = next((one for one in grants if one.outcome == "running"), None)
    if running is not None:
        return Permit(False, f"attempt {running.episode}.{running.number} has not ended: one at a time")
    limits = [
        limit
        for limit in (
            _back_off(policy, grants, episode, now),
            _cooldown(policy, grants, episode, now),
            _budget(policy, grants, now),
        )
        if limit is not None and limit[0] > now
    ]
    if not limits:
        ahead = [one for one in grants if (one.ended_at or one.granted_at) > now]
        wrong = "; grants from the time ahead were written by a wrong clock and do not count" if ahead else ""
        return Permit(True, f"nothing is under way, and no limit is reached{wrong}")
    next_at, reason = max(limits)
    return Permit(False, f"{reason}; the next may start at {next_at.isoformat()}", next_at)


def back_off(policy: GovernorPolicy, unsuccessful: int) -> timedelta:
    """The pause after so many unsuccessful attempts in a row (0: none): doubles up to the longest."""
    return doubled(policy.first_back_off, policy.longest_back_off, unsuccessful)


_Limit = tuple[datetime, str] | None
"""When a limit ends, and the limit in words."""


def _back_off(policy: GovernorPolicy, grants: Sequence[Grant], episode: int, now: datetime) -> _Limit:
    own = [one for one in grants if one.episode == episode]
    unsuccessful = 0
    for one in reversed(own):
        if one.outcome == "promoted":
            break
        unsuccessful += 1
    if not unsuccessful:
        return None
    pause, last = back_off(policy, unsuccessful), own[-1]
    ended = last.ended_at or last.granted_at
    if ended > now + pause:
        return None
    attempts = "attempt was" if unsuccessful == 1 else "attempts were"
    return (
        ended + pause,
        f"{unsuccessful} {attempts} unsuccessful (the last {last.outcome}): "
        f"back-off of {duration_text(pause)}",
    )


def _cooldown(policy: GovernorPolicy, grants: Sequence[Grant], episode: int, now: datetime) -> _Limit:
    """Between first attempts only: later ones of an episode are held back by its back-off."""
    if any(one.episode == episode for one in grants):
        return None
    first = [one for one in grants if one.number == 1 and one.granted_at <= now + policy.cooldown]
    if not first:
        return None
    last = max(first, key=lambda one: one.granted_at)
    return (
        last.granted_at + policy.cooldown,
        f"episode {last.episode} got its first retrain at {last.granted_at.isoformat()}: "
        f"cooldown of {duration_text(policy.cooldown)}",
    )


def _budget(policy: GovernorPolicy, grants: Sequence[Grant], now: datetime) -> _Limit:
    recent = sorted(one.granted_at for one in grants if now - DAY < one.granted_at <= now + DAY)
    if len(recent) < policy.daily_budget:
        return None
    # Enough of them must be older than a day that one more fits.
    frees_it = recent[len(recent) - policy.daily_budget]
    return (
        frees_it + DAY,
        f"{len(recent)} retrains within 24 hours, the daily budget is {policy.daily_budget}",
    )
