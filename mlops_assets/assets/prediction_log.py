"""``<model>_prediction_log``: every answer of a deployment, by day, each exactly once.

Belongs here: which days a run writes, the events of each day. Does not belong here: the rows
(``logged_days.py``), the raw log (``resources/inference_log.py``).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import table_name
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.assets.logged_days import DAY_COLUMN, logged_days
from mlops_assets.assets.measuring import READ_UNTIL, first_day
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.assets.replayed import check_result, replay, replayed_spec
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.event_log.partition_events import range_version, report_partitions, run_partitions
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.scratch import Scratch

NO_ROWS = "no rows"
"""Version of a day without an answer."""
COMPACT_AFTER = timedelta(minutes=5)
"""An hour's files are merged this long after it ended: gateways write with a delay."""


def prediction_log_asset(
    group: str, declared: DriftMonitorDeclaration, online: OnlineTable | None
) -> dg.AssetsDefinition:
    """The compacted log of the deployment that a monitor watches; ``online``: how keys are looked up, where
    they are.
    """

    @dg.asset(
        key=asset_key("prediction_log", declared.model),
        deps=[],
        group_name=group,
        kinds={"prediction_log", "deltalake"},
        tags={**name_tags("prediction_log", declared.model), AFTER_DEPLOYMENT: ""},
        description=f"Every answer of {declared.served_by}, by day (UTC), each exactly once.",
        partitions_def=dg.DailyPartitionsDefinition(start_date=declared.logs_since.isoformat(), end_offset=1),
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version="1",
        check_specs=[replayed_spec(declared.model)] if online else None,
    )
    def prediction_logs(
        context: dg.AssetExecutionContext,
        lake: Lake,
        inference_log: InferenceLog,
        scratch: Scratch,
        clock: Clock,
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        yield from make_prediction_log(context, lake, inference_log, scratch, clock, declared)
        if online is not None:
            days = run_partitions(context) or []
            found = replay(lake, online, declared.model, day_column=DAY_COLUMN, days=days)
            yield check_result(declared.model, found)

    return prediction_logs


def make_prediction_log(
    context: dg.AssetExecutionContext,
    lake: Lake,
    inference_log: InferenceLog,
    scratch: Scratch,
    clock: Clock,
    declared: DriftMonitorDeclaration,
) -> Iterator[dg.MaterializeResult[Any]]:
    """The step: the run's days, and each day's event."""
    days = run_partitions(context) or []
    start = first_day(declared)
    # Before anything is read: what comes later may or may not be in it.
    now = clock.now()
    newest = inference_log.last_files(declared.served_by, 1)
    later = bool(newest and days) and newest[0].hour.date().isoformat() > days[-1]
    merged = inference_log.compact(declared.served_by, before=now - COMPACT_AFTER, since=start)
    with logged_days(scratch, inference_log, declared.served_by, days) as logged:
        wrote = lake.write(
            table_name("prediction_log", declared.model),
            logged.rows,
            partition_column=DAY_COLUMN,
            partitions=days,
            commit={"run_id": context.run.run_id},
        )
    with_rows = logged.contents.versions()
    versions = {day: with_rows.get(day, NO_ROWS) for day in days}
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(range_version(versions)),
        metadata={
            "dagster/row_count": wrote.rows,
            "delta_version": wrote.version,
            "dagster/uri": wrote.uri,
            "files_merged": merged.files,
            "versions": dg.MetadataValue.json(dict(logged.by_version.most_common())),
        },
    )
    report_partitions(
        context,
        context.asset_key,
        versions,
        {
            day: {
                "dagster/partition_row_count": logged.by_day[day],
                # After the newest answers there are none: the log is complete until now.
                READ_UNTIL: (min(now, _end_of(day)) if later else now).isoformat(),
            }
            for day in days
        },
    )


def _end_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
