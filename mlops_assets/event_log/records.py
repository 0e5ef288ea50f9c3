"""What the latest materialisation of an asset recorded.

Belongs here: reading facts back from Dagster's event log through its public API. Does not belong
here: deciding anything about them (``rollout/``, ``evaluation/``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

DATA_VERSION_TAG = "dagster/data_version"
INPUT_VERSION_TAG = "dagster/input_data_version"


@dataclass(frozen=True)
class Record:
    """One materialisation: its data version, run, time (Unix seconds) and plain metadata values."""

    key: dg.AssetKey
    data_version: str
    run_id: str
    timestamp: float
    metadata: Mapping[str, Any]


def newest_event(instance: dg.DagsterInstance) -> int:
    """A number that grows with every event of an asset, a check or a run's status; 0 before the first."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def latest(instance: dg.DagsterInstance, key: dg.AssetKey) -> Record | None:
    """The latest materialisation of an unpartitioned asset, or None when there is none."""
    return _record(key, instance.get_latest_materialization_event(key))


def _record(key: dg.AssetKey, entry: dg.EventLogEntry | None) -> Record | None:
    if entry is None or entry.asset_materialization is None:
        return None
    event = entry.asset_materialization
    return Record(
        key=key,
        data_version=(event.tags or {}).get(DATA_VERSION_TAG, ""),
        run_id=entry.run_id,
        timestamp=entry.timestamp,
        metadata={name: value.value for name, value in event.metadata.items()},
    )


def require(instance: dg.DagsterInstance, key: dg.AssetKey) -> Record:
    """The latest materialisation; a Failure that says how to make one when there is none."""
    record = latest(instance, key)
    if record is None:
        name = key.to_user_string()
        raise dg.Failure(
            f"{name} was never materialised. Make it with: dg launch --assets 'key:\"{name}\"'",
            allow_retries=False,
        )
    return record


def current_versions(instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[str, str]:
    """{asset key: data version} of the latest materialisations; absent ones are left out."""
    # One query for all: sensors ask at every tick.
    entries = instance.event_log_storage.get_latest_materialization_events(keys)
    records = [_record(key, entries.get(key)) for key in keys]
    return {record.key.to_user_string(): record.data_version for record in records if record}


def read_version(instance: dg.DagsterInstance, key: dg.AssetKey, upstream: dg.AssetKey) -> str | None:
    """Data version of ``upstream`` that the latest materialisation of ``key`` read; None if it read none."""
    entry = instance.get_latest_materialization_event(key)
    event = entry.asset_materialization if entry else None
    return (event.tags or {}).get(f"{INPUT_VERSION_TAG}/{'/'.join(upstream.path)}") if event else None


def newest_data(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The newest partition of a dataset that was ever written, else its data version; None without any."""
    partitions = instance.get_materialized_partitions(key)
    if partitions:
        return max(partitions)
    record = latest(instance, key)
    return record.data_version if record else None
