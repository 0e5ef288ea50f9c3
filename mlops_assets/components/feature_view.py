"""``FeatureViewComponent``: datasets become the features of an entity, as known before each event.

Belongs here: the asset features of a name, its check, events and metadata, and what a declaration may say.
Does not belong here: joins and aggregates (``features/point_in_time.py``), whether values are valid
(``features/declared.py``), tables (``resources/lake.py``).

A run over a range reads the range and its look back once, and writes its good days in one commit. A day
whose features break their declaration keeps what it held, and the run fails naming it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import table_name
from mlops_assets.assets.automation import FOLLOW_CHANGED_PARTITIONS
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.components.dataset import DatasetComponent, datasets_of, require_same_type
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.data.content import content_version, content_versions
from mlops_assets.data.schema import ColumnType, column_schema, frame_of, typed_table
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration, JoinDeclaration
from mlops_assets.documents.fields import (
    DailyPartitions,
    require_distinct_names,
)
from mlops_assets.errors import DataError, DeclarationError, UnknownName
from mlops_assets.event_log.partition_events import (
    latest_versions,
    range_version,
    report_partitions,
    run_partitions,
)
from mlops_assets.features.declared import COLUMN_TYPES, Declared, declare, stored_columns
from mlops_assets.features.view import (
    CLOCK_CHANGE,
    View,
    compute,
    compute_by_partition,
)
from mlops_assets.resources.lake import Lake
from mlops_assets.training.training_set import LABEL, SPLIT
from serve.schema import FeatureSpec, FeatureType

if TYPE_CHECKING:
    import pandas as pd

CHECK = "features_valid"
RESERVED = dict.fromkeys((LABEL, SPLIT), "a column of the training set")
"""Names that no feature, key or time can have."""
_BECOMES: Mapping[FeatureType, tuple[ColumnType, ...]] = {
    "number": ("number", "integer"),
    "integer": ("integer", "number"),
    "boolean": ("boolean", "integer", "number"),
    "category": ("string",),
}
"""Types of a column that a feature can be made of as it is."""
WORST_SHOWN = 20


class FeatureViewComponent(DeclaredComponent[FeatureViewDeclaration]):
    """Features of an entity, from datasets, as they were known before each event.

    .. code-block:: yaml

        type: mlops_assets.components.FeatureViewComponent
        attributes:
          name: flights
          entity: {name: flight, join_keys: [flight_id]}
          event_timestamp: scheduled_departure
          base: flights
          joins:
            - {dataset: weather, keys: [origin], timestamp: known_at, tolerance: 3h, columns: [temp, visib]}
            - {dataset: planes, keys: [tailnum], columns: [seats], prefix: plane_}
          lookback_days: 2
          rolling:
            - {name: origin_delay_2h, keys: [origin], value: dep_delay, known_at: departed_at, window: 2h,
               aggregate: mean}
          transform: mlops_assets.defs.flights.features.flight_features
          features:
            - {name: distance, type: number, minimum: 0, description: Miles., example: 1400}
            - {name: temp, type: number}

    Everything but ``name``, ``entity``, ``base`` and ``features`` may be left out.
    """

    Declaration = FeatureViewDeclaration
    MAKES: ClassVar = {"name": ("features",)}
    NEEDS: ClassVar = {"base": "dataset", "joins.dataset": "dataset"}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        components = datasets_of(context)
        datasets = {name: component.declaration for name, component in components.items()}
        self._check_columns(datasets, components)
        return dg.Definitions(assets=[self._features(folder.name, datasets)])

    @property
    def _key(self) -> dg.AssetKey:
        return asset_key("features", self.declaration.name)

    @property
    def _base_key(self) -> dg.AssetKey:
        return asset_key("dataset", self.declaration.base)

    def _features(self, group: str, datasets: Mapping[str, DatasetDeclaration]) -> dg.AssetsDefinition:
        declared = self.declaration
        transform = self.function(declared.transform, "transform") if declared.transform else None
        partitions = datasets[declared.base].partitions
        lookback = timedelta(days=declared.lookback_days) if partitions else None
        view = declared.computed_as(lookback, transform)

        @dg.asset(
            key=self._key,
            deps=self._deps(datasets),
            group_name=group,
            description=declared.description,
            kinds={"features", "deltalake", "duckdb"},
            tags=name_tags("features", declared.name),
            partitions_def=partitions.definition() if partitions else None,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            automation_condition=FOLLOW_CHANGED_PARTITIONS,
            code_version=code_version(declared, [transform] if transform else []),
            metadata={
                "dagster/column_schema": self._column_schema(datasets[declared.base]),
            },
            check_specs=[
                dg.AssetCheckSpec(
                    CHECK,
                    asset=self._key,
                    blocking=True,
                    description="Every declared feature has its type, and its nulls and range as declared.",
                )
            ],
        )
        def features(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
            run = run_partitions(context)
            try:
                unread, never = self._unread(context, partitions, run)
                made = self._made(lake, view, datasets, run, never)
            except DataError as error:
                raise dg.Failure(f"{self._key.to_user_string()}: {error}", allow_retries=False) from error
            columns = stored_columns(declared.kept(datasets[declared.base]), declared.features)
            yield from self._write(context, lake, made, columns, partitions, run, unread)

        return features

    def _deps(self, datasets: Mapping[str, DatasetDeclaration]) -> list[dg.AssetDep]:
        base = self.declaration.base
        deps = []
        for name in dict.fromkeys([base, *(join.dataset for join in self.declaration.joins)]):
            mapping: dg.PartitionMapping | None = None
            if datasets[base].partitions and datasets[name].partitions:
                mapping = dg.TimeWindowPartitionMapping(
                    start_offset=-self.declaration.lookback_days, allow_nonexistent_upstream_partitions=True
                )
            deps.append(dg.AssetDep(asset_key("dataset", name), partition_mapping=mapping))
        return deps

    def _unread(
        self, context: dg.AssetExecutionContext, partitions: DailyPartitions | None, run: list[str] | None
    ) -> tuple[list[str], dict[str, str]]:
        """Days of the look back that the base never had, and {day: reason} of those of the run itself."""
        if run is None or partitions is None:
            return [], {}
        wanted = _with_lookback(run, self.declaration.lookback_days, partitions)
        known = latest_versions(context.instance, self._base_key, wanted)
        name = self._base_key.to_user_string()
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
        return unread, never

    def _made(
        self,
        lake: Lake,
        view: View,
        datasets: Mapping[str, DatasetDeclaration],
        run: list[str] | None,
        never: Mapping[str, str],
    ) -> Declared:
        """The table of the view for the partitions of the run, from the lake, but for those ``never`` read.

        DataError when that is none of them.
        """
        declared = self.declaration
        base_partitions = datasets[declared.base].partitions

        asked = None if run is None else [key for key in run if key not in never]
        if asked is not None and not asked:
            raise DataError(next(iter(never.values())).replace("for it", f"for {next(iter(never))}"))

        def read(name: str, columns: Sequence[str]) -> "pd.DataFrame":
            partitions, table = datasets[name].partitions, datasets[name].table()
            if asked is None or partitions is None:
                return table.read(lake, columns=columns)
            wanted = _with_lookback(asked, declared.lookback_days, partitions)
            return lake.read(
                table.name, partitions=wanted, partition_column=partitions.column, columns=columns
            )

        base = read(declared.base, list(datasets[declared.base].columns))
        joined = {}
        for name in {join.dataset for join in declared.joins}:
            wanted = [join for join in declared.joins if join.dataset == name]
            columns = {
                column
                for join in wanted
                for column in (*join.keys, *join.columns, *([join.timestamp] if join.timestamp else []))
            }
            joined[name] = read(name, sorted(columns))
        column = base_partitions.column if base_partitions else None
        keep = declared.kept(datasets[declared.base])
        if asked is None or base_partitions is None or column is None:
            return declare(
                compute(view, base, joined),
                declared.features,
                keep=keep,
                event_timestamp=declared.event_timestamp,
            )

        def looks_back_on(key: str) -> list[str]:
            return _with_lookback([key], declared.lookback_days, base_partitions)

        computed, failed = compute_by_partition(
            view, base, joined, partition_column=column, partitions=asked, looks_back_on=looks_back_on
        )
        return declare(
            computed,
            declared.features,
            keep=keep,
            event_timestamp=declared.event_timestamp,
            partition_column=column,
            failed={**never, **failed},
        )

    def _write(
        self,
        context: dg.AssetExecutionContext,
        lake: Lake,
        made: Declared,
        columns: Mapping[str, ColumnType],
        partitions: DailyPartitions | None,
        run: list[str] | None,
        unread: list[str],
    ) -> Iterator[Any]:
        """One commit of the good partitions, their events, the check, and a Failure if one was bad."""
        name = self._key.to_user_string()
        check = self._check(made)
        bad = made.bad
        frame, good = made.frame, run
        if bad:
            good = [key for key in run if key not in bad] if run is not None else None
            if partitions is None or not good:
                yield check
                raise self._failure(made, run)
            frame = frame[frame[partitions.column].isin(good)]
        column = partitions.column if partitions and good is not None else None
        try:
            rows = typed_table(frame, column_schema(columns))
            versions = _versions(frame_of(rows), column, good)
            together = next(iter(versions.values())) if len(versions) == 1 else range_version(versions)
            wrote = lake.write(
                table_name("features", self.declaration.name),
                rows,
                partition_column=column,
                partitions=good,
                commit={"run_id": context.run.run_id, "data_version": together},
            )
        except DataError as error:
            yield check
            raise dg.Failure(f"{name}: {error}", allow_retries=False) from error
        context.log.info(
            f"Wrote {wrote.rows} rows of {len(self.declaration.features)} features in {len(versions)} "
            f"partitions to {wrote.uri}, Delta version {wrote.version}."
        )
        shared: dict[str, Any] = {"delta_version": wrote.version, "dagster/uri": wrote.uri}
        if not bad:
            yield dg.MaterializeResult(
                asset_key=self._key,
                data_version=dg.DataVersion(together),
                metadata={
                    **shared,
                    "dagster/row_count" if good is None else "dagster/partition_row_count": wrote.rows,
                    "lookback_days_missing": len(unread),
                    "nulls": dg.MetadataValue.md(_nulls(made)),
                    "preview": dg.MetadataValue.md(markdown_table(frame.head(5))),
                },
                check_results=[check],
            )
        if good is not None and column is not None and (bad or len(good) > 1):
            counts = frame[column].value_counts().to_dict()
            by_partition = {
                key: {**shared, "dagster/partition_row_count": int(counts.get(key, 0))} for key in good
            }
            report_partitions(context, self._key, versions, by_partition)
        if bad:
            yield check
            raise self._failure(made, run)

    def _check(self, made: Declared) -> dg.AssetCheckResult:
        metadata: dict[str, Any] = {
            "rows": len(made.frame),
            "features": len(self.declaration.features),
            "observed": dg.MetadataValue.md(_observed(made, self.declaration.features)),
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
            asset_key=self._key,
            check_name=CHECK,
            passed=not reasons,
            severity=dg.AssetCheckSeverity.ERROR,
            description=next(iter(reasons.values()))[0] if reasons else None,
            metadata=metadata,
        )

    def _failure(self, made: Declared, run: list[str] | None) -> dg.Failure:
        reasons = made.reasons()
        shown = [f"{key}: {'; '.join(why)}" for key, why in list(reasons.items())[:5]]
        total = 1 if run is None else len(run)
        more = f" (and {len(reasons) - 5} more)" if len(reasons) > 5 else ""
        written = "the others were" if len(reasons) < total else "nothing was"
        return dg.Failure(
            f"{self._key.to_user_string()}: {len(reasons)} of {total} partitions are not as declared "
            f"and keep what they held; {written} written. {' | '.join(shown)}{more}",
            metadata={"bad_partitions": list(reasons)},
            allow_retries=False,
        )

    def _column_schema(self, base: DatasetDeclaration) -> dg.TableSchema:
        declared = self.declaration
        specs = {feature.name: feature for feature in declared.features}
        columns = []
        for name, kind in stored_columns(declared.kept(base), declared.features).items():
            spec = specs.get(name)
            constraints = dg.TableColumnConstraints(nullable=spec is None or spec.nullable)
            described = spec.description if spec else None
            columns.append(dg.TableColumn(name, kind, description=described, constraints=constraints))
        return dg.TableSchema(columns=columns)

    def _check_columns(
        self, datasets: Mapping[str, DatasetDeclaration], components: Mapping[str, DatasetComponent]
    ) -> None:
        """DeclarationError, with file and line, for the first name that stands for nothing."""
        declared = self.declaration
        self._dataset(datasets, declared.base, "base")
        base = datasets[declared.base]
        for position, key in enumerate(declared.entity.join_keys):
            self._column(base, declared.base, key, ("entity", "join_keys", position))
        if declared.event_timestamp:
            self._column(base, declared.base, declared.event_timestamp, ("event_timestamp",), {"timestamp"})
        made: dict[str, ColumnType] = dict(base.columns)
        for position, join in enumerate(declared.joins):
            self._check_join(datasets, base, join, position)
            for key in join.keys:
                where = self.where("joins", position, "keys")
                require_same_type(key, components[declared.base], components[join.dataset], where)
            for column in join.columns:
                self._add(
                    made, f"{join.prefix}{column}", datasets[join.dataset].columns[column], "joins", position
                )
        for number, one in enumerate(declared.rolling):
            path = ("rolling", number)
            for key in one.keys:
                self._column(base, declared.base, key, (*path, "keys"))
            self._column(base, declared.base, one.known_at, (*path, "known_at"), {"timestamp"})
            if one.value is not None:
                kinds = {"integer", "number", "boolean"}
                self._column(base, declared.base, one.value, (*path, "value"), kinds)
            self._check_lookback(base, one.window, "window", (*path, "window"))
            self._add(made, one.name, "number", *path)
        self._check_features(base, made)

    def _add(self, made: dict[str, ColumnType], name: str, kind: ColumnType, *path: str | int) -> None:
        """Takes note of a column that a join or an aggregate makes; nothing else may have its name."""
        if name in made:
            raise DeclarationError(
                f"column {name!r} is there already, in the base or from an earlier join or aggregate: give "
                "the join a prefix, or the aggregate another name",
                where=self.where(*path),
            )
        made[name] = kind

    def _check_features(self, base: DatasetDeclaration, made: Mapping[str, ColumnType]) -> None:
        """Names that stand for something and are free, of types that their columns can have."""
        declared = self.declaration
        kept = declared.kept(base)
        for position, feature in enumerate(declared.features):
            where = self.where("features", position)
            kind = COLUMN_TYPES[feature.type]
            if declared.transform is None and feature.name not in made:
                problem = UnknownName("feature", feature.name, made, next_step="Or declare a transform.")
                raise DeclarationError(str(problem), where=where)
            if feature.name in kept and kept[feature.name] != kind:
                raise DeclarationError(
                    f"feature {feature.name!r} is declared as {feature.type}, and as a column of the base "
                    f"that is kept beside the features as {kept[feature.name]}: declare the same, or "
                    "give the feature another name in the transform",
                    where=where,
                )
            if declared.transform is None and made[feature.name] not in _BECOMES[feature.type]:
                raise DeclarationError(
                    f"feature {feature.name!r} is declared as {feature.type}, but its column as "
                    f"{made[feature.name]}; a {feature.type} can be made of: "
                    f"{', '.join(_BECOMES[feature.type])}. Or convert it in a transform.",
                    where=where,
                )
        try:
            require_distinct_names(stored_columns(kept, declared.features), reserved=RESERVED)
        except ValueError as error:
            raise DeclarationError(str(error), where=self.where("features")) from error

    def _check_join(
        self,
        datasets: Mapping[str, DatasetDeclaration],
        base: DatasetDeclaration,
        join: JoinDeclaration,
        position: int,
    ) -> None:
        path = ("joins", position)
        self._dataset(datasets, join.dataset, *path, "dataset")
        other = datasets[join.dataset]
        for key in join.keys:
            self._column(base, self.declaration.base, key, (*path, "keys"))
            self._column(other, join.dataset, key, (*path, "keys"))
        for column in join.columns:
            self._column(other, join.dataset, column, (*path, "columns"))
        if join.timestamp is not None and join.tolerance is not None:
            self._column(other, join.dataset, join.timestamp, (*path, "timestamp"), {"timestamp"})
            self._check_lookback(base, join.tolerance, "tolerance", (*path, "tolerance"))
        elif other.partitions is not None and base.partitions is not None:
            raise DeclarationError(
                f"dataset {join.dataset!r} has partitions, so its rows change over time: declare timestamp "
                "and tolerance for the join",
                where=self.where(*path),
            )

    def _check_lookback(
        self, base: DatasetDeclaration, length: timedelta, what: str, path: tuple[str | int, ...]
    ) -> None:
        longest = timedelta(days=self.declaration.lookback_days) - CLOCK_CHANGE
        if base.partitions is not None and length > longest:
            days = -((-length - CLOCK_CHANGE) // timedelta(days=1))
            raise DeclarationError(
                f"{what} {length} needs lookback_days of {days} at least (and one more for outcomes that "
                f"become known a day late); declared: {self.declaration.lookback_days}",
                where=self.where(*path),
            )

    def _dataset(self, datasets: Mapping[str, DatasetDeclaration], name: str, *path: str | int) -> None:
        if name not in datasets:
            raise DeclarationError(str(UnknownName("dataset", name, datasets)), where=self.where(*path))

    def _column(
        self,
        dataset: DatasetDeclaration,
        name: str,
        column: str,
        path: tuple[str | int, ...],
        kinds: set[str] | None = None,
    ) -> None:
        if column not in dataset.columns:
            problem = str(UnknownName(f"column of dataset {name!r}", column, dataset.columns))
            raise DeclarationError(problem, where=self.where(*path))
        if kinds is not None and dataset.columns[column] not in kinds:
            raise DeclarationError(
                f"column {column!r} of dataset {name!r} is a {dataset.columns[column]}; here it must be: "
                f"{', '.join(sorted(kinds))}",
                where=self.where(*path),
            )


def _with_lookback(run: Sequence[str], lookback_days: int, partitions: DailyPartitions) -> list[str]:
    """Partition keys of the run and of the days before each, from the first day of the dataset on."""
    days = {
        date.fromisoformat(key) - timedelta(days=back) for key in run for back in range(lookback_days + 1)
    }
    return [
        day.isoformat()
        for day in sorted(days)
        if day >= partitions.start and (partitions.end is None or day < partitions.end)
    ]


def _versions(frame: "pd.DataFrame", column: str | None, partitions: Sequence[str] | None) -> dict[str, str]:
    """Content version by partition, those without rows included; "" stands for unpartitioned data."""
    if column is None or partitions is None:
        return {"": content_version(frame)}
    found, empty = content_versions(frame, column), content_version(frame.iloc[:0])
    return {key: found.get(key, empty) for key in partitions}


def _nulls(made: Declared) -> str:
    shares = [{"feature": one.feature, "null share": f"{one.null_share:.2%}"} for one in made.observed]
    return markdown_table(shares)


def _observed(made: Declared, features: Sequence[FeatureSpec]) -> str:
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
