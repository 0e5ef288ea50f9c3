"""The sensor ``stream_<name>``: a run is started when the topic has records that the table has not.

Belongs here: asking table and broker, launching the run. Does not belong here: reading the topic
(``assets/ingest.py``), a stream that a consumer reads, which has no sensor.

The sensor keeps no truth of its own: offsets stand in the table.
"""

import time

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.ingest import DeclaredStream, behind
from mlops_assets.event_log.records import latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG, back_off, unfinished_run
from mlops_assets.resources.lake import Lake
from mlops_assets.streams.offsets import content_version

STREAM_TAG, BEGIN_TAG = "mlops/stream", "mlops/stream_begin"
LAG = "lag sensor"
FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def lag_sensor(source: DeclaredStream) -> dg.SensorDefinition:
    """The sensor of one stream; a broker that does not answer fails its tick, with the reason."""
    declared = source.declared
    key = asset_key("stream", declared.name)

    @dg.sensor(
        name=f"stream_{declared.name}",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=max(1, round(declared.interval.total_seconds())),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Reads the topic {declared.topic} when it has records that the table has not.",
    )
    def lagging(context: dg.SensorEvaluationContext, lake: Lake) -> dg.SensorResult:
        instance = context.instance
        unfinished = unfinished_run(instance, key)
        if unfinished is not None:
            return dg.SensorResult(skip_reason=f"run {unfinished} is reading")
        tags = {STREAM_TAG: declared.name, LAUNCHED_BY_TAG: LAG}
        wait_s = back_off(instance, tags, time.time())
        if wait_s > 0:
            return dg.SensorResult(skip_reason=f"reading failed; the next try is in {wait_s:.0f} s")
        following, lags = behind(lake, source)
        begin = content_version(declared.topic, following)
        records = max(sum(lags.values()), _left(instance, key, begin))
        if not records:
            return dg.SensorResult(skip_reason=f"the table has all records of {declared.topic}")
        tried = {**tags, BEGIN_TAG: begin}
        failed = instance.get_runs_count(dg.RunsFilter(tags=tried, statuses=list(FAILED)))
        request = dg.RunRequest(
            # From the same offsets there is one run, and another one for each that failed.
            run_key=f"{declared.name}:{begin}:{failed}",
            asset_selection=[key],
            tags={**tried, "mlops/reason": f"{records} records are not in the table"},
        )
        return dg.SensorResult(run_requests=[request])

    return lagging


def _left(instance: dg.DagsterInstance, key: dg.AssetKey, begin: str) -> int:
    """Records that the last run saw and left, when nothing was read since.

    What a broker says with records is the end of the topic. Asked for the end, not every broker knows it:
    that of the tests counts one record of the last batch.
    """
    record = latest(instance, key)
    return int(record.metadata.get("lag", 0)) if record and record.data_version == begin else 0
