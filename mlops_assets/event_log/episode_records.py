"""The log of drift episodes, and the retrains that are asked for, as they stand in Dagster's events.

Belongs here: reading and writing both as events of the drift signal and the retrain request. Does
not belong here: what an episode is and what comes next (``monitoring/episodes.py``).

An opened episode and a granted retrain are materialisations, whose data versions make the model and the
training set stale; everything else is an observation, which makes nothing stale. Each carries the whole
log, so the newest one is the truth and nothing has to be replayed.

A request is an observation that ``mlops retrain`` or the calendar makes, or a materialisation without a log,
which anybody may report. No event starts a run: the drift sensor does, for what the governor granted. Its
answer says up to which event it has answered, so every request is answered once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.records import DATA_VERSION_TAG, Record
from mlops_assets.monitoring.episodes import Episode, EpisodeLog, ManualRetrain

EPISODES = "episodes"
"""Metadata key of the log."""
ASKED, ANSWERED, RULING = "asked", "answered_until", "ruling"
"""Metadata keys of a request by command, of the newest event that was answered, and of the answer."""
DUE = "due"
"""Metadata key of the moment for which the calendar asks."""
PAGE = 100


@dataclass(frozen=True)
class Asked:
    """Requests that were not answered yet, as one; ``until`` is the storage id of the newest."""

    ask: ManualRetrain
    until: int


@dataclass(frozen=True)
class Answer:
    """The newest answer to a request. ``at``: Unix seconds."""

    ruling: Literal["granted", "refused"]
    reason: str
    at: float
    until: int


def signal_key(model: str) -> dg.AssetKey:
    """The external asset whose data version is the newest episode."""
    return asset_key("drift_signal", model)


def requests_key(model: str) -> dg.AssetKey:
    """The external asset whose data version is the newest granted retrain."""
    return asset_key("retrain_request", model)


def episode_log(instance: dg.DagsterInstance, model: str, *, before: float | None = None) -> EpisodeLog:
    """The newest log, or the newest as it was at ``before`` (real time, Unix seconds); the empty one when
    drift was never seen.
    """
    found = [
        log
        for key in (signal_key(model), requests_key(model))
        for fetch in (instance.fetch_materializations, instance.fetch_observations)
        if (log := _newest_log(fetch, dg.AssetRecordsFilter(key, before_timestamp=before))) is not None
    ]
    return EpisodeLog.loads(max(found)[1]) if found else EpisodeLog()


def _newest_log(fetch: Callable[..., Any], wanted: dg.AssetRecordsFilter) -> tuple[int, str] | None:
    """Storage id and text of the newest log among events of one kind; those reported by hand carry none."""
    cursor = None
    while True:
        page = fetch(wanted, limit=PAGE, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization or record.asset_observation
            told = event.metadata.get(EPISODES) if event else None
            if told is not None:
                return int(record.storage_id), str(told.value)
        if not page.has_more:
            return None
        cursor = page.cursor


def opened(model: str, log: EpisodeLog, metadata: Mapping[str, Any]) -> dg.AssetMaterialization:
    """The event that makes ``<model>_model`` stale."""
    episode = _newest(log)
    return dg.AssetMaterialization(
        signal_key(model),
        description=f"Episode {episode.number} on {episode.version}: {episode.reason}",
        metadata={"reason": episode.reason, "version": episode.version, **metadata, EPISODES: log.dumps()},
        tags={DATA_VERSION_TAG: episode.data_version},
    )


def newest_grant(instance: dg.DagsterInstance, model: str) -> tuple[Record, bool] | None:
    """The newest granted retrain, and whether somebody reported a materialisation after it."""
    key, later = requests_key(model), False
    for told, record in _newest_first(instance.fetch_materializations, key):
        if EPISODES in told:
            event = record.asset_materialization
            tags = event.tags if event and event.tags else {}
            made = Record(key, tags.get(DATA_VERSION_TAG, ""), record.run_id, record.timestamp, told)
            return made, later
        later = True
    return None


def asked_now(instance: dg.DagsterInstance, model: str) -> Asked | None:
    """What was asked for since the last answer; None when nobody did.

    Several requests are one: that of the newest who overrides, else the newest of a person, else of the
    calendar.
    """
    answer, key = newest_answer(instance, model), requests_key(model)
    since = answer.until if answer is not None else 0
    found: list[tuple[int, ManualRetrain]] = []
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        for told, record in _newest_first(fetch, key):
            if record.storage_id <= since:
                break
            event = record.asset_materialization or record.asset_observation
            if (record.asset_materialization is not None and EPISODES not in told) or ASKED in told:
                said = str(told.get("reason") or (event.description if event else "") or "")
                override = told.get("override") is True
                ask = ManualRetrain(str(told.get("by") or ""), said, override, str(told.get(DUE) or ""))
                found.append((record.storage_id, ask))
    if not found:
        return None
    newest = max(found, key=lambda one: (one[1].overrides, not one[1].due, one[0]))
    return Asked(newest[1], max(number for number, _ in found))


def newest_answer(instance: dg.DagsterInstance, model: str) -> Answer | None:
    """How the newest request was answered; None when none ever was."""
    found = []
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        for told, record in _newest_first(fetch, requests_key(model)):
            if ANSWERED in told:
                found.append(Answer(told[RULING], str(told["reason"]), record.timestamp, int(told[ANSWERED])))
                break
    return max(found, key=lambda one: one.until) if found else None


def asked_by_calendar_for(instance: dg.DagsterInstance, model: str) -> str:
    """The newest moment for which the calendar asked (ISO); "" when it never did."""
    asked = (told for told, _ in _newest_first(instance.fetch_observations, requests_key(model)))
    return next((str(told[DUE]) for told in asked if told.get(ASKED) and told.get(DUE)), "")


def _newest_first(fetch: Callable[..., Any], key: dg.AssetKey) -> Iterator[tuple[dict[str, Any], Any]]:
    """The metadata and record of every event of one kind."""
    cursor = None
    while True:
        page = fetch(key, limit=PAGE, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization or record.asset_observation
            yield {name: value.value for name, value in event.metadata.items()} if event else {}, record
        if not page.has_more:
            return
        cursor = page.cursor


def asked(model: str, ask: ManualRetrain) -> dg.AssetObservation:
    """A request, which makes nothing stale and is judged at the next tick of the drift sensor."""
    return dg.AssetObservation(
        requests_key(model),
        description=f"{ask.who} asks for a retrain: {ask.reason}",
        metadata={
            ASKED: True,
            "by": ask.by,
            "reason": ask.reason,
            "override": ask.override,
            **({DUE: ask.due} if ask.due else {}),
        },
    )


def refused(model: str, asked_for: Asked, reason: str) -> dg.AssetObservation:
    """The trace of a request that the governor refused."""
    return dg.AssetObservation(
        requests_key(model),
        description=reason,
        metadata={
            RULING: "refused",
            ANSWERED: asked_for.until,
            "by": asked_for.ask.by,
            "override": asked_for.ask.override,
            "reason": reason,
        },
    )


def granted(
    model: str, log: EpisodeLog, reason: str, asked_for: Asked | None = None
) -> dg.AssetMaterialization:
    """The event of a granted retrain, which the drift sensor follows with one run; and of the request."""
    episode = _newest(log)
    attempt = episode.attempts[-1]
    answer: dict[str, Any] = {}
    if asked_for is not None:
        answer = {
            RULING: "granted",
            ANSWERED: asked_for.until,
            "by": asked_for.ask.by,
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
            **answer,
            EPISODES: log.dumps(),
        },
        tags={DATA_VERSION_TAG: str(episode.request_version)},
    )


def noted(model: str, log: EpisodeLog, reason: str) -> dg.AssetObservation:
    """An outcome or a closing: told, and nothing goes stale."""
    return dg.AssetObservation(
        signal_key(model),
        description=reason,
        metadata={"reason": reason, EPISODES: log.dumps()},
    )


def _newest(log: EpisodeLog) -> Episode:
    episode = log.newest
    if episode is None:
        raise ValueError("the log holds no episode")
    return episode
