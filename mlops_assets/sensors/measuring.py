"""The sensor ``measure_<model>``: when what a deployment answered is measured again.

Belongs here: reading what there is to measure, launching the run. Does not belong here: whether it is due and
of which days (``monitoring/measuring.py``), measuring (``assets/measuring.py``), what a measurement leads to
(``drift.py``).

The sensor keeps no truth of its own: what was measured stands in the materialisations of ``<model>_drift``.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.measuring import MEASURED, MEASURED_TAG
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.event_log.records import latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.event_log.successor import MONITOR_TAG
from mlops_assets.monitoring.measuring import Checkpoint, days_to_measure
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.inference_log import InferenceLog

INTERVAL_S = 10
MEASURING = "measure sensor"
SEARCHED_FILES = 200


def measure_sensor(
    declared: DriftMonitorDeclaration, *, label_key: dg.AssetKey, measured: Sequence[dg.AssetKey]
) -> dg.SensorDefinition:
    """The sensor ``measure_<model>``: one run of log, performance and drift when answers or labels came."""

    @dg.sensor(
        name=f"measure_{declared.model}",
        target=dg.AssetSelection.assets(*measured),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Measures what {declared.served_by} answered, when answers or labels arrived.",
    )
    def measure(
        context: dg.SensorEvaluationContext, inference_log: InferenceLog, clock: Clock
    ) -> dg.SensorResult:
        instance = context.instance
        unfinished = unfinished_run(instance, measured[-1])
        if unfinished is not None:
            return dg.SensorResult(skip_reason=f"run {unfinished} is measuring")
        tags = {MONITOR_TAG: declared.model, LAUNCHED_BY_TAG: MEASURING}
        wait_s = back_off(instance, tags, time.time())
        if wait_s > 0:
            return dg.SensorResult(skip_reason=f"measuring failed; the next try is in {wait_s:.0f} s")
        record = latest(instance, measured[-1])
        before = Checkpoint.read(str(record.metadata.get(MEASURED) or "") if record else "")
        if not before.at:
            logged = inference_log.stats(declared.served_by)
            before = Checkpoint(day=logged.first_hour.date().isoformat() if logged.first_hour else "")
        now = _checkpoint_at(clock.now(), instance, inference_log, declared, label_key)
        days, why = days_to_measure(before, now, every=declared.every, length=declared.window)
        if days is None:
            return dg.SensorResult(skip_reason=why)
        first = declared.logs_since.isoformat()
        if days[1] < first:
            return dg.SensorResult(skip_reason=f"all answers are older than logs_since {first}")
        request = dg.RunRequest(
            asset_selection=list(measured),
            tags={
                "dagster/asset_partition_range_start": max(days[0], first),
                "dagster/asset_partition_range_end": days[1],
                **tags,
                MEASURED_TAG: json.dumps(asdict(now)),
                "mlops/reason": why,
            },
        )
        return dg.SensorResult(run_requests=[request])

    return measure


def _checkpoint_at(
    now: datetime,
    instance: dg.DagsterInstance,
    log: InferenceLog,
    declared: DriftMonitorDeclaration,
    label_key: dg.AssetKey,
) -> Checkpoint:
    """What there is to measure at ``now`` (data time): the newest log file, labels and stable version."""
    # A gateway whose clock is ahead must not hide what the others write.
    newest = [file for file in log.last_files(declared.served_by, SEARCHED_FILES) if file.hour <= now]
    labels = instance.get_latest_materialization_event(label_key)
    record = latest(instance, asset_key("deployment", declared.served_by))
    return Checkpoint(
        at=now.isoformat(),
        day=newest[0].hour.date().isoformat() if newest else "",
        log=newest[0].path.rpartition("/")[2] if newest else "",
        labels=labels.timestamp if labels else 0.0,
        stable=str(record.metadata.get("stable", "")) if record else "",
    )
