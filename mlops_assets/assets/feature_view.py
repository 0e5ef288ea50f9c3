"""``<name>_features``: datasets become the features of an entity, as known before each event.

Belongs here: reading days and their look back, computing, judging and writing in their order, the check,
events and metadata of a table of features. Does not belong here: joins and aggregates
(``features/point_in_time.py``), whether values are valid (``features/declared.py``), writing
(``partition_writer.py``).

A day whose features break their declaration keeps what it held, and the run fails naming it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import AssetName
from mlops_assets.assets.automation import FOLLOW_CHANGED_PARTITIONS
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.failing import failing, recording
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.assets.partition_writer import GoodRows, JudgedPartitions, PartitionWriter
from mlops_assets.data.schema import column_schema
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.fields import DailyPartitions
from mlops_assets.errors import DataError
from mlops_assets.event_log.partition_events import latest_versions, run_partitions
from mlops_assets.features.declared import DeclaredFeatures, declare, stored_columns
from mlops_assets.features.view import View, compute, compute_by_partition
from mlops_assets.resources.lake import Lake
from serve.schema import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd

CHECK = "features_valid"
WORST_SHOWN = 20


@dataclass(frozen=True)
class FeatureTable:
    """A declared view over its datasets, by name; ``view`` is the same declaration as it is computed."""

    declared: FeatureViewDeclaration
    datasets: Mapping[str, DatasetDeclaration]
    view: View

    @property
    def asset(self) -> AssetName:
        return AssetName("features", self.declared.name)

    @property
    def base(self) -> DatasetDeclaration:
        return self.datasets[self.declared.base]

    def with_lookback(self, days: Sequence[str], partitions: DailyPartitions) -> list[str]:
        """Partition keys of ``days`` and of those that they look back on, from the dataset's first day on."""
        back = range(self.declared.lookback_days + 1)
        wanted = {date.fromisoformat(key) - timedelta(days=earlier) for key in days for earlier in back}
        return [
            day.isoformat()
            for day in sorted(wanted)
            if day >= partitions.start and (partitions.end is None or day < partitions.end)
        ]


@dataclass(frozen=True)
class BaseDays:
    """The days of a run, and what the base lacks; ``run`` None: the table has no partitions.

    ``never``: {day of the run: why it cannot be computed}. ``unread``: days of the look back that the base
    never had.
    """

    run: list[str] | None
    never: Mapping[str, str]
    unread: Sequence[str]

    def asked(self) -> list[str] | None:
        """The days to compute; DataError when no day can be."""
        if self.run is None:
            return None
        asked = [key for key in self.run if key not in self.never]
        if not asked:
            first, why = next(iter(self.never.items()))
            raise DataError(why.replace("for it", f"for {first}"))
        return asked


def feature_table(
    declared: FeatureViewDeclaration,
    datasets: Mapping[str, DatasetDeclaration],
    transform: Callable[..., Any] | None,
) -> FeatureTable:
    """The view as declared over ``datasets``, by name."""
    lookback = timedelta(days=declared.lookback_days) if datasets[declared.base].partitions else None
    return FeatureTable(declared, datasets, declared.computed_as(lookback, transform))


def features_asset(group: str, table: FeatureTable) -> dg.AssetsDefinition:
    """The table of a view, with its blocking check."""
    declared, partitions, transform = table.declared, table.base.partitions, table.view.transform
    key = asset_key("features", declared.name)

    @dg.asset(
        key=key,
        deps=_deps(table),
        group_name=group,
        description=declared.description,
        kinds={"features", "deltalake", "duckdb"},
        tags=name_tags("features", declared.name),
        partitions_def=partitions.definition() if partitions else None,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
        automation_condition=FOLLOW_CHANGED_PARTITIONS,
        code_version=code_version(declared, [transform] if transform else []),
        metadata={"dagster/column_schema": _column_schema(table)},
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                blocking=True,
                description="Every declared feature has its type, and its nulls and range as declared.",
            )
        ],
    )
    def features(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
        yield from make_features(context, lake, table)

    return features


def _deps(table: FeatureTable) -> list[dg.AssetDep]:
    declared, deps = table.declared, []
    for name in dict.fromkeys([declared.base, *(join.dataset for join in declared.joins)]):
        mapping: dg.PartitionMapping | None = None
        if table.base.partitions and table.datasets[name].partitions:
            mapping = dg.TimeWindowPartitionMapping(
                start_offset=-declared.lookback_days, allow_nonexistent_upstream_partitions=True
            )
        deps.append(dg.AssetDep(asset_key("dataset", name), partition_mapping=mapping))
    return deps


def _column_schema(table: FeatureTable) -> dg.TableSchema:
    declared = table.declared
    specs = {feature.name: feature for feature in declared.features}
    columns = []
    for name, kind in stored_columns(declared.kept(table.base), declared.features).items():
        spec = specs.get(name)
        constraints = dg.TableColumnConstraints(nullable=spec is None or spec.nullable)
        described = spec.description if spec else None
        columns.append(dg.TableColumn(name, kind, description=described, constraints=constraints))
    return dg.TableSchema(columns=columns)


def make_features(context: dg.AssetExecutionContext, lake: Lake, table: FeatureTable) -> Iterator[Any]:
    """The step: the run's partitions from the lake, computed, into the table of features."""
    with failing(asset_key(*table.asset)):
        days = _base_days(context, table)
        made = _made(lake, table, days)
    partitions = table.base.partitions
    judged = JudgedPartitions(
        days.run, partitions.column if partitions else None, made.reasons(), "not as declared"
    )
    check = check_result(table.declared, made)
    writer = PartitionWriter(context, lake, judged)
    yield from recording([check], _write(writer, table, made, len(days.unread), check))


def _base_days(context: dg.AssetExecutionContext, table: FeatureTable) -> BaseDays:
    run, partitions = run_partitions(context), table.base.partitions
    if run is None or partitions is None:
        return BaseDays(None, {}, [])
    base = asset_key("dataset", table.declared.base)
    wanted = table.with_lookback(run, partitions)
    known = latest_versions(context.instance, base, wanted)
    name = base.to_user_string()
    never = {
        key: f"{name} was never materialised for it; make it with: dg launch --assets 'key:\"{name}\"' "
        f"--partition {key}"
        for key in run
        if key not in known
    }
    unread = [key for key in wanted if key not in known and key not in never]
    if unread:
        context.log.warning(
            f"{len(unread)} earlier days of {name} were never materialised, "
            f"{unread[0]} to {unread[-1]}: aggregates over them see nothing there."
        )
    return BaseDays(run, never, unread)


def _made(lake: Lake, table: FeatureTable, days: BaseDays) -> DeclaredFeatures:
    """The table of the view for the partitions of the run, from the lake, but for those never read.

    DataError when no partition can be computed.
    """
    declared, view, partitions = table.declared, table.view, table.base.partitions
    asked = days.asked()
    base = _read(lake, table, declared.base, list(table.base.columns), asked)
    joined = {
        name: _read(lake, table, name, columns, asked) for name, columns in joined_columns(declared).items()
    }
    failed: Mapping[str, str] = {}
    column = None
    if asked is None or partitions is None:
        computed = compute(view, base, joined)
    else:
        column = partitions.column
        computed, failed = compute_by_partition(
            view,
            base,
            joined,
            partition_column=column,
            partitions=asked,
            looks_back_on=lambda key: table.with_lookback([key], partitions),
        )
    return declare(
        computed,
        declared.features,
        keep=declared.kept(table.base),
        event_timestamp=declared.event_timestamp,
        partition_column=column,
        failed={**days.never, **failed},
    )


def _read(
    lake: Lake, table: FeatureTable, name: str, columns: Sequence[str], asked: Sequence[str] | None
) -> "pd.DataFrame":
    """Columns of a dataset: all rows, or those of the days ``asked`` for and their look back."""
    partitions, held = table.datasets[name].partitions, table.datasets[name].table()
    if asked is None or partitions is None:
        return held.read(lake, columns=columns)
    wanted = table.with_lookback(asked, partitions)
    return lake.read(held.name, partitions=wanted, partition_column=partitions.column, columns=columns)


def joined_columns(declared: FeatureViewDeclaration) -> dict[str, list[str]]:
    """{dataset: columns that any join takes of it}."""
    found: dict[str, set[str]] = {}
    for join in declared.joins:
        known_at = [join.timestamp] if join.timestamp else []
        found.setdefault(join.dataset, set()).update((*join.keys, *join.columns, *known_at))
    return {name: sorted(columns) for name, columns in found.items()}


def _write(
    writer: PartitionWriter,
    table: FeatureTable,
    made: DeclaredFeatures,
    unread: int,
    check: dg.AssetCheckResult,
) -> Iterator[Any]:
    """One commit of the good partitions, then events, and a Failure if one was bad."""
    declared, judged = table.declared, writer.judged
    key = asset_key(*table.asset)
    if judged.none_good:
        raise judged.failure(key)
    columns = stored_columns(declared.kept(table.base), declared.features)
    with failing(key):
        rows = GoodRows.of_good(table.asset, judged, made.frame, column_schema(columns))
    (wrote,) = writer.commit(rows)
    writer.context.log.info(
        f"Wrote {wrote.rows} rows of {len(declared.features)} features in {len(rows.versions)} "
        f"partitions to {wrote.uri}, Delta version {wrote.version}."
    )
    result = {
        "lookback_days_missing": unread,
        "nulls": dg.MetadataValue.md(_nulls(made)),
        "preview": dg.MetadataValue.md(markdown_table(rows.frame.head(5))),
    }
    yield from writer.events(rows, wrote, result, checks=[check])
    if judged.bad:
        raise judged.failure(key)


def check_result(declared: FeatureViewDeclaration, made: DeclaredFeatures) -> dg.AssetCheckResult:
    """Whether every feature is as declared, and what was observed of each."""
    metadata: dict[str, Any] = {
        "rows": len(made.frame),
        "features": len(declared.features),
        "observed": dg.MetadataValue.md(_observed(made, declared.features)),
    }
    reasons = made.reasons()
    if reasons:
        metadata["partitions_failed"] = len(reasons)
        shown = [
            {"partition": partition, "problem": why}
            for partition, all_of in reasons.items()
            for why in all_of
        ]
        metadata["problems"] = dg.MetadataValue.md(markdown_table(shown[:WORST_SHOWN]))
    return dg.AssetCheckResult(
        asset_key=asset_key("features", declared.name),
        check_name=CHECK,
        passed=not reasons,
        severity=dg.AssetCheckSeverity.ERROR,
        description=next(iter(reasons.values()))[0] if reasons else None,
        metadata=metadata,
    )


def _nulls(made: DeclaredFeatures) -> str:
    shares = [{"feature": one.feature, "null share": f"{one.null_share:.2%}"} for one in made.observed]
    return markdown_table(shares)


def _observed(made: DeclaredFeatures, features: Sequence[FeatureSpec]) -> str:
    return markdown_table(
        [
            {
                "feature": spec.name,
                "type": spec.type,
                "nulls": f"{seen.null_share:.2%}{'' if spec.nullable else ' (none allowed)'}",
                "observed": _range(seen.minimum, seen.maximum),
                "declared": _range(spec.minimum, spec.maximum),
            }
            for spec, seen in zip(features, made.observed, strict=True)
        ]
    )


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return f"{'' if low is None else f'{low:g}'} to {'' if high is None else f'{high:g}'}"
