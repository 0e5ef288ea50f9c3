"""``<view>_online_features``: rows of a view's datasets by key, where replicas look them up.

Belongs here: the asset, what is told of a fill. Does not belong here: filling (``online_filling.py``), stores
(``resources/online_stores.py``), the same features as a table (``feature_view.py``), examples for model
packages (``online_examples.py``).

It follows what it is filled from: the tables of datasets, and of a followed dataset its stream. A stream that
a consumer reads it does not follow: the consumer fills the store itself, after each of its commits.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.automation import follow_tables_but
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.failing import failing
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.assets.online_filling import Filled, fill, moment_text, rows_held
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.errors import AnotherWasFirst
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores

TRIES = 5
"""So often a run is overtaken by a consumer, or another run, before it gives up."""
SHOWN = 20
FILLED_BY = frozenset(("name", "base", "event_timestamp", "joins", "rolling", "online"))
"""What of a view's document decides on what its store holds."""


def online_features_asset(group: str, served: OnlineTable) -> dg.AssetsDefinition:
    """The rows of a view's datasets by key."""
    declared = served.table.declared
    key = asset_key("online_features", declared.name)
    streams = {name: asset_key("stream", one.stream.name) for name, one in served.followed.items()}
    consumed = [streams[name] for name, one in served.followed.items() if one.stream.read_by == "consumer"]
    followed = [f"{name} {one.version}" for name, one in sorted(served.followed.items())]

    @dg.asset(
        key=key,
        deps=list(dict.fromkeys(streams.get(name, asset_key("dataset", name)) for name in served.datasets)),
        group_name=group,
        description=f"What replicas look up for callers who send the keys of {declared.entity.name}.",
        kinds={"online_features", served.online.store},
        tags=name_tags("online_features", declared.name),
        automation_condition=follow_tables_but(consumed),
        code_version=" ".join([code_version(declared, fields=FILLED_BY), *followed]),
    )
    def online_features(
        context: dg.AssetExecutionContext, lake: Lake, online_stores: OnlineStores, clock: Clock
    ) -> dg.MaterializeResult[Any]:
        with failing(key):
            filled = _filled(context, lake, online_stores, served, clock)
            rows = rows_held(online_stores.of(served.online))
        context.log.info(f"{rows} rows known, {filled.written} values written")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(filled.version), metadata=online_metadata(served, filled, rows)
        )

    return online_features


def _filled(
    context: dg.AssetExecutionContext, lake: Lake, stores: OnlineStores, served: OnlineTable, clock: Clock
) -> Filled:
    """The fill of a run, which begins again when somebody else was first."""
    for left in reversed(range(TRIES)):
        try:
            return fill(lake, stores.of(served.online), served, now=clock.now())
        except AnotherWasFirst as error:
            if not left:
                raise
            context.log.info(f"{error} Trying again.")
    raise AssertionError("the last try raises")


def online_metadata(served: OnlineTable, filled: Filled, rows: int) -> dict[str, Any]:
    """What a materialisation tells: what the store holds, how far that goes, and what it does not hold."""
    left_out = [
        {"dataset": name, "day": day, "why": why}
        for name, days in filled.left_out.items()
        for day, why in days.items()
    ]
    told: dict[str, Any] = {
        "dagster/row_count": rows,
        "values_written": filled.written,
        "bytes_written": filled.size,
        "applied": dg.MetadataValue.json(dict(filled.head.applied)),
        "shape": served.online.shape,
        "as_of": datetime.fromtimestamp(filled.head.as_of, UTC).isoformat(),
        "earliest_event": "any" if filled.head.since is None else moment_text(filled.head.since),
    }
    if left_out:
        told["days_left_out"] = dg.MetadataValue.md(markdown_table(left_out[:SHOWN]))
    return told
