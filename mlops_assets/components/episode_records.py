"""The log of drift episodes as it stands in Dagster's events.

Belongs here: reading and writing it as events of ``drift_signals/`` and ``retrain_requests/<model>``. Does
not belong here: what an episode is and what comes next (``monitoring/episodes.py``).

An opened episode and a granted retrain are materialisations, whose data versions make ``models/`` stale and
wake automation; everything else is an observation, which does neither. Each carries the whole log, so the
newest one is the truth and nothing has to be replayed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from mlops_assets.components.records import DATA_VERSION_TAG
from mlops_assets.monitoring.episodes import Episode, EpisodeLog

EPISODES = "episodes"
"""Metadata key of the log."""
PAGE = 100


def signal_key(model: str) -> dg.AssetKey:
    """The external asset whose data version is the newest episode."""
    return dg.AssetKey(["drift_signals", model])


def requests_key(model: str) -> dg.AssetKey:
    """The external asset whose data version is the newest granted retrain."""
    return dg.AssetKey(["retrain_requests", model])


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
    """The event that makes ``models/<model>`` stale."""
    episode = _newest(log)
    return dg.AssetMaterialization(
        signal_key(model),
        description=f"Episode {episode.number} on {episode.version}: {episode.reason}",
        metadata={"reason": episode.reason, "version": episode.version, **metadata, EPISODES: log.dumps()},
        tags={DATA_VERSION_TAG: episode.data_version},
    )


def granted(model: str, log: EpisodeLog, reason: str) -> dg.AssetMaterialization:
    """The event that automation follows with one run from the training set to the deployment."""
    episode = _newest(log)
    attempt = episode.attempts[-1]
    return dg.AssetMaterialization(
        requests_key(model),
        description=f"Retrain {attempt.number} of episode {episode.number}: {reason}",
        metadata={"reason": reason, "data": attempt.data, "attempt": attempt.number, EPISODES: log.dumps()},
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
