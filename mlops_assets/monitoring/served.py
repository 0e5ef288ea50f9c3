"""Whether the version that answers is stale, why, and how old its data is. Pure.

Belongs here: the staleness of the version that serves. Does not belong here: the staleness of the newest
model in the graph (Dagster's own), acting on it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, get_args

from mlops_assets.monitoring.episodes import GATE, EpisodeLog, version_number

CauseKind = Literal["drift", "data", "code", "rollback"]


@dataclass(frozen=True)
class ServedFacts:
    """What is known of the version that answers. None: not known, or nothing answers.

    ``data_until``: its newest training row; ``newest_data``: the newest row that could be trained on now.
    ``max_data_age``: None sets no limit. ``trained_code``, ``declared_code``: code versions of the model when
    it was made, and now. ``newest_stable``: the highest version that ever answered as stable.
    """

    version: str | None
    episodes: EpisodeLog = field(default_factory=EpisodeLog)
    data_until: datetime | None = None
    newest_data: datetime | None = None
    max_data_age: timedelta | None = None
    trained_code: str | None = None
    declared_code: str | None = None
    newest_stable: str | None = None
    rollback_reason: str = ""


@dataclass(frozen=True)
class Cause:
    """One cause of staleness, in words."""

    kind: CauseKind
    reason: str


@dataclass(frozen=True)
class Staleness:
    """``stale`` is None when nothing answers; ``reason`` names every cause, or says that there is none."""

    stale: bool | None
    causes: tuple[Cause, ...]
    data_age: timedelta | None
    reason: str

    @property
    def by_cause(self) -> dict[CauseKind, bool]:
        """{kind: whether it holds}, for every kind."""
        held = {cause.kind for cause in self.causes}
        return {kind: kind in held for kind in get_args(CauseKind)}


def served_staleness(facts: ServedFacts, now: datetime) -> Staleness:
    """Whether the version that answers is stale at ``now``, with every cause."""
    if facts.version is None:
        return Staleness(None, (), None, "nothing answers")
    age = None if facts.data_until is None else max(now - facts.data_until, timedelta(0))
    possible = (
        Cause("drift", _drift(facts)),
        Cause("data", _data(facts, age)),
        Cause("code", _code(facts)),
        Cause("rollback", _rollback(facts)),
    )
    causes = tuple(cause for cause in possible if cause.reason)
    if causes:
        return Staleness(True, causes, age, "; ".join(cause.reason for cause in causes))
    how_old = "" if age is None else f"; its newest training row is {_days(age)} old"
    return Staleness(False, (), age, f"{facts.version} answers, with no cause of staleness{how_old}")


def _drift(facts: ServedFacts) -> str:
    """An episode is over for the graph when a candidate passes; for callers only when that one answers."""
    drift = facts.episodes.of_drift
    episode = drift.open
    if episode is not None:
        return f"episode {episode.number} on {episode.version} is open: {episode.reason}"
    for past in reversed(drift.episodes):
        if past.version == facts.version:
            if past.closed_by != GATE:
                return ""
            return (
                f"episode {past.number} on {past.version} ended ({past.close_reason}), "
                f"but {past.version} still answers: {past.reason}"
            )
    return ""


def _data(facts: ServedFacts, age: timedelta | None) -> str:
    if age is None or facts.max_data_age is None or age <= facts.max_data_age:
        return ""
    assert facts.data_until is not None
    newer = ""
    if facts.newest_data is not None:
        there = facts.newest_data > facts.data_until
        rows = f"rows until {facts.newest_data.isoformat()}" if there else "no newer rows"
        newer = f"; there are {rows}"
    return (
        f"the newest training row of {facts.version} is {_days(age)} old "
        f"({_days(facts.max_data_age)} are allowed){newer}"
    )


def _code(facts: ServedFacts) -> str:
    if facts.trained_code is None or facts.declared_code in (None, facts.trained_code):
        return ""
    return (
        f"{facts.version} was made by code {facts.trained_code}, the declared code is {facts.declared_code}"
    )


def _rollback(facts: ServedFacts) -> str:
    """By number: deploying the newest stable version again ends a rollback, whichever way it is done."""
    served, newest = version_number(facts.version or ""), version_number(facts.newest_stable or "")
    if served is None or newest is None or served >= newest:
        return ""
    why = f" ({facts.rollback_reason})" if facts.rollback_reason else ""
    return f"{facts.newest_stable} answered before and was rolled back to {facts.version}{why}"


def _days(length: timedelta) -> str:
    return f"{length / timedelta(days=1):.1f} days"
