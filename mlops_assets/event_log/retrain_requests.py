"""Requests for a retrain, and the governor's rulings on them, as they stand in Dagster's events.

Belongs here: reading and writing both as events of the retrain request. Does not belong here: the ruling
itself (``monitoring/episodes.py``), the log of episodes that a grant carries (``episode_records.py``).

A request is an observation that ``mlops retrain`` or the calendar makes, or a materialisation without a log,
which anybody may report. No event starts a run: the drift sensor does, for what the governor granted. Each
ruling says up to which event it rules, so every request is ruled on once. A grant is a materialisation, whose
data version makes the training set stale; a refusal is an observation, which makes nothing stale.
"""

from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from mlops_assets.event_log.episode_records import EPISODES, newest_episode, newest_first, requests_key
from mlops_assets.event_log.records import DATA_VERSION_TAG, Record
from mlops_assets.monitoring.episodes import EpisodeLog, ManualRetrain

ASKED = "asked"
"""Metadata key that marks an observation as a request."""
DUE = "due"
"""Metadata key of the moment for which the calendar asks."""
RULING, RULED_UNTIL = "ruling", "answered_until"
"""Metadata keys of a ruling, and of the storage id of the newest event that it rules on."""


@dataclass(frozen=True)
class PendingRetrain:
    """Requests without a ruling, as one; ``until`` is the storage id of the newest."""

    request: ManualRetrain
    until: int


@dataclass(frozen=True)
class RetrainRuling:
    """The newest ruling on a request. ``at``: Unix seconds. ``until``: storage id of the newest event it
    rules on.
    """

    state: Literal["granted", "refused"]
    reason: str
    at: float
    until: int


def pending_retrain(instance: dg.DagsterInstance, model: str) -> PendingRetrain | None:
    """The request since the last ruling; None when there is none.

    Several requests are one: that of the newest who overrides, else the newest of a person, else of the
    calendar.
    """
    ruling, key = newest_ruling(instance, model), requests_key(model)
    since = ruling.until if ruling is not None else 0
    found: list[tuple[int, ManualRetrain]] = []
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        for metadata, record in newest_first(fetch, key):
            if record.storage_id <= since:
                break
            event = record.asset_materialization or record.asset_observation
            by_hand = record.asset_materialization is not None and EPISODES not in metadata
            if by_hand or ASKED in metadata:
                request = ManualRetrain(
                    by=str(metadata.get("by") or ""),
                    reason=str(metadata.get("reason") or (event.description if event else "") or ""),
                    override=metadata.get("override") is True,
                    due=str(metadata.get(DUE) or ""),
                )
                found.append((record.storage_id, request))
    if not found:
        return None
    _, first = max(found, key=lambda one: (one[1].overrides, not one[1].due, one[0]))
    return PendingRetrain(first, max(number for number, _ in found))


def newest_ruling(instance: dg.DagsterInstance, model: str) -> RetrainRuling | None:
    """The newest ruling on a request; None when there never was one."""
    found = []
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        for metadata, record in newest_first(fetch, requests_key(model)):
            if RULED_UNTIL in metadata:
                state, reason = metadata[RULING], str(metadata["reason"])
                found.append(RetrainRuling(state, reason, record.timestamp, int(metadata[RULED_UNTIL])))
                break
    return max(found, key=lambda one: one.until) if found else None


def newest_grant(instance: dg.DagsterInstance, model: str) -> tuple[Record, bool] | None:
    """The newest granted retrain, and whether somebody reported a materialisation after it."""
    key, reported_since = requests_key(model), False
    for metadata, record in newest_first(instance.fetch_materializations, key):
        if EPISODES in metadata:
            event = record.asset_materialization
            tags = event.tags if event and event.tags else {}
            grant = Record(key, tags.get(DATA_VERSION_TAG, ""), record.run_id, record.timestamp, metadata)
            return grant, reported_since
        reported_since = True
    return None


def asked_by_calendar_for(instance: dg.DagsterInstance, model: str) -> str:
    """The newest moment for which the calendar asked (ISO); "" when it never did."""
    for metadata, _ in newest_first(instance.fetch_observations, requests_key(model)):
        if metadata.get(ASKED) and metadata.get(DUE):
            return str(metadata[DUE])
    return ""


def retrain_requested(model: str, request: ManualRetrain) -> dg.AssetObservation:
    """The event of a request, which makes nothing stale; the next tick of the drift sensor rules on it."""
    return dg.AssetObservation(
        requests_key(model),
        description=f"{request.who} asks for a retrain: {request.reason}",
        metadata={
            ASKED: True,
            "by": request.by,
            "reason": request.reason,
            "override": request.override,
            **({DUE: request.due} if request.due else {}),
        },
    )


def retrain_refused(model: str, pending: PendingRetrain, reason: str) -> dg.AssetObservation:
    """The event of a refusal, which makes nothing stale."""
    return dg.AssetObservation(
        requests_key(model),
        description=reason,
        metadata={
            RULING: "refused",
            RULED_UNTIL: pending.until,
            "by": pending.request.by,
            "override": pending.request.override,
            "reason": reason,
        },
    )


def retrain_granted(
    model: str, log: EpisodeLog, reason: str, pending: PendingRetrain | None = None
) -> dg.AssetMaterialization:
    """The event of a grant, which the drift sensor follows with one run.

    ``pending``: the request it rules on; None for a grant to an episode of drift.
    """
    episode = newest_episode(log)
    attempt = episode.attempts[-1]
    ruling: dict[str, Any] = {}
    if pending is not None:
        ruling = {
            RULING: "granted",
            RULED_UNTIL: pending.until,
            "by": pending.request.by,
            "override": bool(attempt.overrode),
            "overrode": attempt.overrode,
        }
    return dg.AssetMaterialization(
        requests_key(model),
        description=f"Retrain {attempt.number} of episode {episode.number}: {reason}",
        metadata={
            "reason": reason,
            "data": attempt.data,
            "attempt": attempt.number,
            **ruling,
            EPISODES: log.dumps(),
        },
        tags={DATA_VERSION_TAG: str(episode.request_version)},
    )
