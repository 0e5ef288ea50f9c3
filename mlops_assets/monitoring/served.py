"""Whether what answers is stale, why, and how old its data is. Pure.

Belongs here: the staleness of the version that serves. Does not belong here: the staleness of the newest
model in the graph (Dagster's own), acting on it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from mlops_assets.monitoring.episodes import EpisodeLog

Kind = Literal["drift", "data", "code", "rollback"]


@dataclass(frozen=True)
class ServedFacts:
    """What is known of the version that answers. None: not known, or nothing answers.

    ``data_until``: its newest training row; ``newest_data``: the newest row that could be trained on now.
    ``max_data_age``: None sets no limit. ``trained_code``, ``declared_code``: code versions of the model when
    it was made, and now. ``newest_stable``: the highest version that ever answered as stable.
    """

    version: str | None
    episodes: EpisodeLog = EpisodeLog()
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

    kind: Kind
    reason: str


@dataclass(frozen=True)
class Staleness:
    """``stale`` is None when nothing answers; ``reason`` says all causes, or why there are none."""

    stale: bool | None
    causes: tuple[Cause, ...]
    data_age: timedelta | None
    reason: str

    @property
    def by_cause(self) -> dict[str, bool]:
        """{kind: whether it holds}, for every kind."""
        held = {cause.kind for cause in self.causes}
        return {"drift": "drift" in held, "data": "data" in held, "code": "code" in held,
                "rollback": "rollback" in held}  # fmt: skip


def served_staleness(facts: ServedFacts, now: datetime) -> Staleness:
    """Whether the version that answers is stale at ``now``, with every cause."""
    raise NotImplementedError
