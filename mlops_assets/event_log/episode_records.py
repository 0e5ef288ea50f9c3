"""The log of drift episodes as it stands in Dagster's events.

Belongs here: reading the log, the events of an episode. Does not belong here: what an episode is and what
comes next (``monitoring/episodes.py``), retrains and who asked for them (``retrain_requests.py``).

An opened episode is a materialisation of the drift signal, whose data version makes the model stale; every
later change of it is an observation, which makes nothing stale. A granted retrain changes the log too. Each
event carries the whole log, so the newest one is the truth and nothing has to be replayed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.records import DATA_VERSION_TAG
from mlops_assets.monitoring.episodes import Episode, EpisodeLog

EPISODES = "episodes"
"""Metadata key of the log."""
PAGE = 100


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


def _newest_log(fetch: Callable[..., Any], events: dg.AssetRecordsFilter) -> tuple[int, str] | None:
    """Storage id and text of the newest log among events of one kind; those reported by hand carry none."""
    for metadata, record in newest_first(fetch, events):
        if EPISODES in metadata:
            return int(record.storage_id), str(metadata[EPISODES])
    return None


def newest_first(
    fetch: Callable[..., Any], events: dg.AssetKey | dg.AssetRecordsFilter
) -> Iterator[tuple[dict[str, Any], Any]]:
    """The plain metadata and the record of every event of one kind; ``fetch`` reads a page of them."""
    cursor = None
    while True:
        page = fetch(events, limit=PAGE, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization or record.asset_observation
            yield {name: value.value for name, value in event.metadata.items()} if event else {}, record
        if not page.has_more:
            return
        cursor = page.cursor


def episode_opened(model: str, log: EpisodeLog, metadata: Mapping[str, Any]) -> dg.AssetMaterialization:
    """The event that makes ``<model>_model`` stale."""
    episode = newest_episode(log)
    return dg.AssetMaterialization(
        signal_key(model),
        description=f"Episode {episode.number} on {episode.version}: {episode.reason}",
        metadata={"reason": episode.reason, "version": episode.version, **metadata, EPISODES: log.dumps()},
        tags={DATA_VERSION_TAG: episode.data_version},
    )


def episode_changed(model: str, log: EpisodeLog, reason: str) -> dg.AssetObservation:
    """The event of an outcome, another look or a closing; it makes nothing stale."""
    return dg.AssetObservation(
        signal_key(model),
        description=reason,
        metadata={"reason": reason, EPISODES: log.dumps()},
    )


def newest_episode(log: EpisodeLog) -> Episode:
    """The newest episode; ValueError when the log holds none."""
    episode = log.newest
    if episode is None:
        raise ValueError("the log holds no episode")
    return episode
