"""The sensor ``online_<view>``: while a topic is quiet, a store that follows it does not grow old.

Belongs here: asking the broker whether there is anything that a store lacks, and saying so in its head. Does
not belong here: filling (``assets/online_features.py`` by runs, ``commands/streaming.py`` by a consumer).

No run starts without new records, so no run could say that there are none.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.ingest import complete_now
from mlops_assets.assets.online_filling import fill, nothing_new
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import AnotherWasFirst
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores


def age_sensor(served: OnlineTable, streams: Sequence[StreamDeclaration]) -> dg.SensorDefinition:
    """The sensor of a view that follows streams which runs read; a broker that is away fails its tick."""
    view = served.table.declared.name
    interval = min(one.interval for one in streams)

    @dg.sensor(
        name=f"online_{view}",
        target=dg.AssetSelection.assets(asset_key("online_features", view)),
        minimum_interval_seconds=max(1, round(interval.total_seconds())),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Says that the store of {view} holds all there is, when there is nothing new.",
    )
    def aging(lake: Lake, online_stores: OnlineStores, clock: Clock) -> dg.SensorResult:
        return dg.SensorResult(skip_reason=_kept_young(lake, online_stores, clock, served, streams))

    return aging


def _kept_young(
    lake: Lake,
    stores: OnlineStores,
    clock: Clock,
    served: OnlineTable,
    streams: Sequence[StreamDeclaration],
) -> str:
    """What became of a tick, in words."""
    if not nothing_new(lake, stores.of(served.online), served):
        return "a run has to bring what is new"
    complete: dict[str, float] = {}
    for stream in streams:
        moment = complete_now(lake, stream, clock.seconds)
        if moment is None:
            return f"topic {stream.topic} has records that its table has not"
        complete[stream.name] = moment
    try:
        filled = fill(lake, stores.of(served.online), served, now=clock.now(), complete=complete)
    except AnotherWasFirst as error:
        return str(error)
    return f"the store holds all there was at {datetime.fromtimestamp(filled.head.as_of, UTC).isoformat()}"
