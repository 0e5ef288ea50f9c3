"""Runs as Dagster knows them: which are not finished, which failed how often.

Belongs here: looking runs up. Does not belong here: ending those that are lost (``run_owner.py``), what
follows (``sensors/``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.event_log.run_owner import end_lost
from mlops_assets.monitoring.relaunch import Launch, RelaunchPolicy, next_launch

LAUNCHED_BY_TAG = "mlops/launched_by"
ACTS = RelaunchPolicy(
    first_back_off=timedelta(seconds=30), longest_back_off=timedelta(minutes=30), launches=None
)
"""What sensors do is tried again for as long as it takes."""
RUNS_AT_ONCE = 100
UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def unfinished_run(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """Id of a run of the asset that has not ended, or None; a run whose process is gone is ended first."""
    unfinished = dg.RunsFilter(statuses=list(UNFINISHED))
    behind: str | None = None
    while True:
        runs = instance.get_runs(filters=unfinished, cursor=behind, limit=RUNS_AT_ONCE)
        for run in runs:
            targeted = run.asset_selection is not None and key in run.asset_selection
            if targeted and not end_lost(instance, run):
                return run.run_id
        if len(runs) < RUNS_AT_ONCE:
            return None
        behind = runs[-1].run_id


def back_off(instance: dg.DagsterInstance, tags: Mapping[str, str], now: float) -> float:
    """Seconds left to wait after runs with these tags that failed one after the other; 0 when none did."""
    failed = []
    for record in instance.get_run_records(filters=dg.RunsFilter(tags=dict(tags)), limit=8):
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        at = record.create_timestamp.replace(tzinfo=UTC)
        failed.append(Launch("act", at, datetime.fromtimestamp(record.end_time or now, UTC)))
    ruled = next_launch(failed[::-1], ACTS, datetime.fromtimestamp(now, UTC))
    return ruled.next_at.timestamp() - now if ruled.next_at is not None else 0.0
