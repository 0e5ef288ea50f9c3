"""The event log stores what Dagster's own class stores, and Dagster's own class reads it."""

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from mlops_assets.environment import batch_dagster_events
from mlops_assets.event_log.partition_events import latest_versions, report_partitions
from mlops_assets.resources.event_log import BatchedSqliteEventLog

DAYS = [f"2024-01-{day:02d}" for day in range(1, 11)]
KEY = dg.AssetKey("daily")
TAGS = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}


@dg.asset(
    key=KEY,
    partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11"),
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[dg.AssetCheckSpec("sound", asset=KEY)],
)
def daily(context: dg.AssetExecutionContext):
    yield dg.MaterializeResult(
        data_version=dg.DataVersion("range"),
        check_results=[dg.AssetCheckResult(check_name="sound", passed=True)],
    )
    report_partitions(context, KEY, {day: f"v{day}" for day in DAYS}, {day: {"on": day} for day in DAYS})


def run(tmp_path, kind: type) -> dg.DagsterInstance:
    home = tmp_path / kind.__name__
    home.mkdir()
    log = {"module": kind.__module__, "class": kind.__name__, "config": {"base_dir": str(home / "events")}}
    instance = dg.DagsterInstance.local_temp(str(home), overrides={"event_log_storage": log})
    assert dg.materialize([daily], instance=instance, tags=TAGS).success
    return instance


def facts(storage, run_id, instance):
    """Everything the UI and staleness ask for, without ids and clocks."""
    records = storage.fetch_materializations(KEY, limit=100).records
    asset = storage.get_asset_records([KEY])[0].asset_entry
    return {
        "events": [
            record.event_log_entry.dagster_event.event_type_value for record in run_records(storage, run_id)
        ],
        "materializations": [
            (record.partition_key, record.asset_materialization.metadata, _stable(record))
            for record in records
        ],
        "partitions": storage.get_materialized_partitions(KEY),
        "versions": latest_versions(instance, KEY, DAYS),
        "last": asset.last_materialization.asset_materialization.partition,
        "last is latest": asset.last_materialization_storage_id == records[0].storage_id,
        "checks": [
            found.status
            for found in storage.get_asset_check_execution_history(dg.AssetCheckKey(KEY, "sound"), limit=5)
        ],
    }


def _stable(record):
    tags = record.asset_materialization.tags
    return {name: value for name, value in tags.items() if name != "dagster/code_version"}


def run_records(storage, run_id):
    return storage.get_records_for_run(run_id).records


def test_the_same_run_leaves_the_same_log(tmp_path):
    found = []
    for kind in (SqliteEventLogStorage, BatchedSqliteEventLog):
        instance = run(tmp_path, kind)
        (record,) = instance.get_run_records()
        found.append(facts(instance.event_log_storage, record.dagster_run.run_id, instance))
    assert found[0] == found[1]
    assert found[1]["versions"] == {day: f"v{day}" for day in DAYS}
    assert len(found[1]["materializations"]) == 2 * len(DAYS)


def test_dagsters_own_class_reads_the_log(tmp_path):
    instance = run(tmp_path, BatchedSqliteEventLog)
    (record,) = instance.get_run_records()
    ours = facts(instance.event_log_storage, record.dagster_run.run_id, instance)
    plain = SqliteEventLogStorage(str(tmp_path / "BatchedSqliteEventLog" / "events"))
    assert facts(plain, record.dagster_run.run_id, instance) == ours


def test_events_are_written_in_batches(tmp_path, monkeypatch):
    sizes = []
    original = BatchedSqliteEventLog.store_event_batch

    def counting(self, events):
        sizes.append(len(events))
        original(self, events)

    monkeypatch.setattr(BatchedSqliteEventLog, "store_event_batch", counting)
    run(tmp_path, BatchedSqliteEventLog)
    # Planned materialisations and the planned check, Dagster's materialisations, ours.
    assert sizes == [len(DAYS) + 1, len(DAYS), len(DAYS)]


def test_without_a_folder_the_log_lies_where_dagster_would_keep_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    log = {"module": BatchedSqliteEventLog.__module__, "class": "BatchedSqliteEventLog", "config": {}}
    instance = dg.DagsterInstance.local_temp(str(tmp_path), overrides={"event_log_storage": log})
    plain = dg.DagsterInstance.local_temp(str(tmp_path))
    assert instance.event_log_storage.path_for_shard("x") == plain.event_log_storage.path_for_shard("x")


@pytest.mark.parametrize(("before", "after"), [(None, "500"), ("7", "7")])
def test_a_batch_size_set_already_is_kept(before, after, monkeypatch):
    import os

    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)
    if before:
        monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", before)
    batch_dagster_events()
    assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == after
