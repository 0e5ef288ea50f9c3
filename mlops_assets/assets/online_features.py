"""``<view>_online_features``: rows of a view's datasets by key, where replicas look them up.

Belongs here: filling the store of a view from the lake. Does not belong here: the form of a store and
computing from it (``serve/online/``), stores (``resources/online_stores.py``), the same features as a table
(``feature_view.py``), examples for model packages (``online_examples.py``).

A run reads the datasets at the versions that they have then, as far back as an event may look, and commits
what changed together with these versions: a store always says exactly what it knows. A run that is doubled,
or overtaken by another writer, writes nothing and fails.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.automation import FOLLOW_CHANGED_TABLES
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.failing import failing
from mlops_assets.assets.feature_view import FeatureTable
from mlops_assets.documents.feature_view import OnlineDeclaration
from mlops_assets.errors import DataError
from mlops_assets.features.online import changes_of, held_column, online_view
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from serve.online.applying import Change, changed, identity_of
from serve.online.held import EPOCH, HEAD, ROWS, Head, HeldView
from serve.online.stores import OnlineStore, StoreLost, StoreMoved
from serve.schema import OnlineTransform, OnlineView

if TYPE_CHECKING:
    import pandas as pd

DAY = timedelta(days=1)


@dataclass(frozen=True)
class OnlineTable:
    """A declared view and the same view as replicas compute it."""

    table: FeatureTable
    online: OnlineView

    @property
    def declared(self) -> OnlineDeclaration:
        assert self.table.declared.online is not None
        return self.table.declared.online

    @property
    def datasets(self) -> list[str]:
        """The datasets that are looked up: the base where rows of it are aggregated, and what is joined."""
        view = self.table.declared
        return list(
            dict.fromkeys([*([view.base] if view.rolling else []), *(one.dataset for one in view.joins)])
        )

    def identity(self, dataset: str) -> list[str]:
        """The columns that tell a row of a dataset from all others."""
        declared = self.table.datasets[dataset]
        day = [declared.partitions.column] if declared.partitions else []
        keys = next((join.keys for join in self.table.declared.joins if join.dataset == dataset), ())
        return [*(declared.primary_key or keys), *day]


def online_table(table: FeatureTable, transform: OnlineTransform | None) -> OnlineTable:
    """The view of a table as replicas compute it; it says ``online``."""
    declared = table.declared
    assert declared.online is not None
    view = online_view(
        table.view,
        {name: dataset.columns for name, dataset in table.datasets.items()},
        name=declared.name,
        store=declared.online.store,
        base=declared.base,
        entity=declared.entity.join_keys,
        request=declared.online.request,
        transform=transform,
        stale_after_s=declared.online.stale_after.total_seconds(),
        when_stale=declared.online.when_stale,
    )
    return OnlineTable(table, view)


def online_features_asset(group: str, served: OnlineTable) -> dg.AssetsDefinition:
    """The rows of a view's datasets by key."""
    declared = served.table.declared
    key = asset_key("online_features", declared.name)

    @dg.asset(
        key=key,
        deps=[asset_key("dataset", name) for name in served.datasets],
        group_name=group,
        description=f"What replicas look up for callers who send the keys of {declared.entity.name}.",
        kinds={"online_features", served.online.store},
        tags=name_tags("online_features", declared.name),
        automation_condition=FOLLOW_CHANGED_TABLES,
        code_version=code_version(
            declared, fields={"name", "base", "event_timestamp", "joins", "rolling", "online"}
        ),
    )
    def online_features(
        context: dg.AssetExecutionContext, lake: Lake, online_stores: OnlineStores, clock: Clock
    ) -> dg.MaterializeResult[Any]:
        with failing(key):
            filled = fill(lake, online_stores.of(served.online), served, now=clock.now())
        context.log.info(f"{filled.rows} rows known, {filled.written} values written")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(filled.version),
            metadata={
                "dagster/row_count": filled.rows,
                "values_written": filled.written,
                "bytes_written": filled.size,
                "applied": dg.MetadataValue.json(dict(filled.head.applied)),
                "shape": served.online.shape,
                "as_of": datetime.fromtimestamp(filled.head.as_of, UTC).isoformat(),
                "earliest_event": "any" if filled.head.since is None else moment_text(filled.head.since),
            },
        )

    return online_features


@dataclass(frozen=True)
class Filled:
    """What a fill knew and did; ``version`` is that of what the store holds."""

    head: Head
    rows: int
    written: int
    size: int
    version: str


def fill(lake: Lake, store: OnlineStore, served: OnlineTable, *, now: datetime) -> Filled:
    """Brings a store to what the lake holds at this moment, in one commit.

    Raises DataError when a table is missing, or when the store cannot be written or another writer was first.
    """
    held = HeldView(served.online)
    versions = {name: lake.version(served.table.datasets[name].table().name) for name in served.datasets}
    rows = _rows(lake, served, versions, now)
    since = _since(served, rows, now)
    changes = [
        change
        for name in served.datasets
        for change in changes_of(
            name,
            rows.frames[name],
            served.table.datasets[name].columns,
            identity=served.identity(name),
            columns=held.columns(name),
        )
    ]
    head = Head(versions, now.timestamp(), since)
    try:
        before = _head(store)
        gone = _gone(store, served, changes) if before else []
        puts = changed(held, [*gone, *changes], store.read if before else _nothing, since=since)
        store.commit(puts, head=head.to_bytes(), expected=before)
    except (StoreLost, StoreMoved) as error:
        raise DataError(str(error)) from error
    finally:
        store.close()
    size = sum(len(value) for value in puts.values() if value is not None)
    said = json.dumps([served.online.shape, sorted(versions.items()), since])
    return Filled(head, len(changes), len(puts), size, hashlib.sha256(said.encode()).hexdigest()[:16])


def _nothing(keys: Sequence[str]) -> list[bytes | None]:
    return [None] * len(keys)


def _head(store: OnlineStore) -> bytes | None:
    try:
        return store.read([HEAD])[0]
    except StoreLost:
        return None  # There is none yet; one that cannot be written says so at the commit.


def _gone(store: OnlineStore, served: OnlineTable, changes: Sequence[Change]) -> list[Change]:
    """Rows that the store holds, and that no event may ask for any more or no dataset has."""
    kept = {(change.dataset, change.identity) for change in changes}
    return [
        Change(name, identity, None)
        for name in served.datasets
        for key, _ in store.scan(f"{ROWS}{name}:")
        if (name, identity := identity_of(key)) not in kept
    ]


@dataclass(frozen=True)
class _LookedBack:
    """Rows by dataset, and the first moment from which on they are complete (None: all of them are there)."""

    frames: "Mapping[str, pd.DataFrame]"
    complete_from: datetime | None


def _rows(lake: Lake, served: OnlineTable, versions: Mapping[str, int], now: datetime) -> _LookedBack:
    """Every row that an event may still look back on."""
    table, partitions = served.table, served.table.base.partitions
    first: date | None = None
    if partitions is not None:
        base = table.base.table().name
        days = lake.partition_keys(base, version=versions.get(table.declared.base))
        past = [day for day in days if day <= now.date().isoformat()] or days[:1]
        if past:
            # A local day may begin a day before or after that of UTC.
            back = timedelta(days=table.declared.lookback_days) + served.declared.keep + 2 * DAY
            first = date.fromisoformat(past[-1]) - back
    frames = rows_from(lake, served, versions, first)
    return _LookedBack(
        frames, None if first is None else datetime(first.year, first.month, first.day, tzinfo=UTC)
    )


def rows_from(
    lake: Lake, served: OnlineTable, versions: Mapping[str, int], first: date | None
) -> "dict[str, pd.DataFrame]":
    """{dataset: its rows at that version from a day on, all of them if None}, in the columns looked up."""
    held, frames = HeldView(served.online), {}
    for name in served.datasets:
        columns = list(dict.fromkeys([*served.identity(name), *held.columns(name)]))
        declared = served.table.datasets[name]
        if first is None or declared.partitions is None:
            frames[name] = declared.table().read(lake, columns=columns, version=versions[name])
            continue
        held_days = lake.partition_keys(declared.table().name, version=versions[name])
        frames[name] = lake.read(
            declared.table().name,
            partitions=[day for day in held_days if day >= first.isoformat()],
            partition_column=declared.partitions.column,
            columns=columns,
            version=versions[name],
        )
    return frames


def _since(served: OnlineTable, rows: _LookedBack, now: datetime) -> int | None:
    """The earliest event that the rows suffice for, in microseconds: ``keep`` before the newest of them."""
    declared = served.table.declared
    if declared.event_timestamp is None or rows.complete_from is None:
        return None
    times = {(declared.base, one.known_at) for one in declared.rolling}
    times |= {(declared.base, declared.event_timestamp)} if declared.rolling else set()
    times |= {(join.dataset, join.timestamp) for join in declared.joins if join.timestamp}
    limit = (now - EPOCH) // timedelta(microseconds=1)
    known = [
        moment
        for dataset, name in sorted(times)
        for moment in held_column(rows.frames[dataset][name], "timestamp")
        if moment is not None and moment <= limit
    ]
    complete = rows.complete_from + timedelta(days=declared.lookback_days) + DAY
    floor = (complete - EPOCH) // timedelta(microseconds=1)
    keep = served.declared.keep // timedelta(microseconds=1)
    return max([floor, *([max(known) - keep] if known else [])])


def moment_text(moment: int) -> str:
    """Microseconds as an ISO text."""
    return (EPOCH + timedelta(microseconds=moment)).isoformat()
