"""Whether a run is launched for what automation lost: after a pause that doubles, up to a bound. Pure.

Belongs here: the next launch after those so far, run keys of launches. Does not belong here: what counts
as lost (``episodes.py``, ``rollout/plan.py``), the limits on retrains (``governor.py``), reading runs
(``event_log/runs.py``) and launching them (``sensors/``). All times are real time, because how long a machine
takes does not depend on the data.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlops_assets.monitoring.durations import doubled, duration_text

LaunchChoice = Literal["launch", "wait", "give_up"]


class RelaunchPolicy(BaseModel):
    """``relaunch:`` in YAML. ``launches`` None: without a bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_back_off: timedelta = Field(
        default=timedelta(minutes=2), description="After a launch that came to nothing; doubles with each."
    )
    longest_back_off: timedelta = Field(default=timedelta(hours=1), description="The back-off's limit.")
    launches: int | None = Field(default=6, ge=1, description="So many launches, then a person is told.")

    @model_validator(mode="after")
    def _limits_make_sense(self) -> "RelaunchPolicy":
        if self.first_back_off < timedelta(0):
            raise ValueError("first_back_off must not be negative")
        if self.longest_back_off < self.first_back_off:
            raise ValueError(
                f"longest_back_off ({duration_text(self.longest_back_off)}) is shorter than first_back_off "
                f"({duration_text(self.first_back_off)})"
            )
        return self


@dataclass(frozen=True)
class Launch:
    """One run that was launched for ``what``; ``ended_at`` None while it is under way. Times carry a zone."""

    what: str
    at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class NextLaunch:
    """Whether to launch now. ``next_at``: when time alone will allow it; None: now, or not by time."""

    choice: LaunchChoice
    reason: str
    next_at: datetime | None = None


def next_launch(launches: Sequence[Launch], policy: RelaunchPolicy, now: datetime) -> NextLaunch:
    """Whether what is still lost after these launches, oldest first, is launched once more at ``now``.

    No launch starts beside one that is under way. The bound counts every launch. An end that is further ahead
    of ``now`` than the pause was written by a wrong clock, and delays nothing.
    """
    if not launches:
        return NextLaunch("launch", "it was not launched again yet")
    running = next((one for one in launches if one.ended_at is None), None)
    if running is not None:
        return NextLaunch("wait", f"the launch of {_minute(running.at)} is under way: one at a time")
    count, last = len(launches), launches[-1]
    bound = f" of {policy.launches}" if policy.launches is not None else ""
    made = f"{count}{bound} {'launch' if count == 1 and not bound else 'launches'} came to nothing"
    if policy.launches is not None and count >= policy.launches:
        return NextLaunch("give_up", f"{made}: it is not launched again by itself")
    ended = last.ended_at
    pause = doubled(policy.first_back_off, policy.longest_back_off, count)
    if ended is None or ended > now + pause or ended + pause <= now:
        return NextLaunch("launch", made)
    due = ended + pause
    return NextLaunch("wait", f"{made}; the next is due at {_minute(due)}, after {duration_text(pause)}", due)


def run_key(what: str, launch: int) -> str:
    """The run key of the so-manieth launch (from 1 on) for ``what``; Dagster carries each key out once."""
    return what if launch == 1 else f"{what}/{launch}"


def launched_for(key: str) -> str:
    """``what`` of a run key."""
    return re.sub(r"/\d+$", "", key)


def _minute(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
