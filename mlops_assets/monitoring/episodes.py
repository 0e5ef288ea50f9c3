"""Episodes of drift and the retrains granted to end them; the one decision of the drift sensor. Pure.

Belongs here: an episode's life as plain values, its JSON, what comes next. Does not belong here: what
counts as drift (``policy.py``), the limits on retrains (``governor.py``), events and runs (components).

An episode opens on the version that answers and stays open until a candidate passes the gate or a person
closes it. Each retrain granted to it is an attempt. The log of episodes is never kept in a file of its own:
it travels in the metadata of the events that it leads to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from mlops_assets.monitoring.governor import Grant, GovernorPolicy, Outcome
from mlops_assets.monitoring.policy import Decision

KEPT_EPISODES = 50
GATE = "gate"
"""``closed_by`` of an episode that ended because a candidate passed the gate."""

Action = Literal["open", "grant", "outcome", "close", "reconcile", "wait"]


@dataclass(frozen=True)
class Attempt:
    """One granted retrain. ``data``: the training data it was granted for, as text. Times: ISO 8601, zone."""

    number: int
    granted_at: str
    data: str
    outcome: Outcome = "running"
    ended_at: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Episode:
    """One episode on ``version``. Open while ``closed_at`` is None."""

    number: int
    opened_at: str
    version: str
    reason: str
    attempts: tuple[Attempt, ...] = ()
    closed_at: str | None = None
    closed_by: str | None = None
    close_reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def data_version(self) -> str:
        """``episode-N``: the data version of its drift signal."""
        return f"episode-{self.number}"

    @property
    def request_version(self) -> str | None:
        """``episode-N.k``: the data version of its newest retrain request; None without one."""
        return f"{self.data_version}.{self.attempts[-1].number}" if self.attempts else None


@dataclass(frozen=True)
class EpisodeLog:
    """The last episodes, oldest first; at most the last one is open."""

    episodes: tuple[Episode, ...] = ()

    @property
    def newest(self) -> Episode | None:
        return self.episodes[-1] if self.episodes else None

    @property
    def open(self) -> Episode | None:
        """The open episode, if there is one."""
        raise NotImplementedError

    @property
    def grants(self) -> list[Grant]:
        """Every remembered attempt, as the governor takes it."""
        raise NotImplementedError

    def dumps(self) -> str:
        """JSON text of this log."""
        raise NotImplementedError

    @classmethod
    def loads(cls, text: str) -> "EpisodeLog":
        """The log of ``dumps``; the empty log for "". DataError for any other text."""
        raise NotImplementedError


@dataclass(frozen=True)
class AttemptFacts:
    """What became of the newest attempt. ``outcome`` None: no run has read its request yet.

    ``version``: of the candidate that was made, if any; ``ended_at``: of its run or verdict.
    """

    outcome: Outcome | None = None
    reason: str = ""
    version: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class LoopFacts:
    """What is true now, as plain values.

    ``served``: the version that answers as stable. ``successor``: a version that passed the gate, was not
    withdrawn and is not stable yet. ``in_flight``: id of a run of this model's chain that has not ended.
    ``attempt``: of the open episode's newest attempt. ``data``: the newest training data, as text (any text
    that differs when the data does). ``served_data``: that of the model that answers, where known.
    ``signal_read``: whether the newest model was made after reading the newest drift signal.
    """

    served: str | None
    successor: str | None = None
    in_flight: str | None = None
    attempt: AttemptFacts = AttemptFacts()
    data: str | None = None
    served_data: str | None = None
    signal_read: bool = True


@dataclass(frozen=True)
class Step:
    """What to do next, why, and the log after it.

    ``episode`` and ``attempt``: numbers it is about. ``run_key``: of action reconcile, the key of the one run
    to launch. ``next_at``: when time alone will change the answer.
    """

    action: Action
    reason: str
    log: EpisodeLog
    episode: int | None = None
    attempt: int | None = None
    run_key: str | None = None
    next_at: datetime | None = None


def open_episode(log: EpisodeLog, *, version: str, reason: str, now: datetime) -> EpisodeLog:
    """The log with one more episode, open. ValueError when one is open."""
    raise NotImplementedError


def grant(log: EpisodeLog, *, data: str, now: datetime) -> EpisodeLog:
    """The log with one more attempt of the open episode. ValueError when none is open or one is running."""
    raise NotImplementedError


def record_outcome(log: EpisodeLog, outcome: Outcome, *, reason: str, ended_at: datetime) -> EpisodeLog:
    """The log with the running attempt ended. ValueError when none is running."""
    raise NotImplementedError


def close(log: EpisodeLog, *, by: str, reason: str, now: datetime) -> EpisodeLog:
    """The log with the open episode closed. ValueError when none is open."""
    raise NotImplementedError


def next_step(
    log: EpisodeLog,
    decision: Decision,
    facts: LoopFacts,
    governor: GovernorPolicy,
    now: datetime,
    *,
    grace: timedelta = timedelta(minutes=2),
) -> Step:
    """The one decision of the drift sensor. Carry it out, then ask again with ``step.log`` until it waits.

    ``grace``: how long automation may take to start a run for a grant before it counts as lost; in the time
    of ``now``.
    """
    raise NotImplementedError
