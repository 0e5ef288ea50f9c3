"""``DatasetComponent``: raw files become a checked table, day by day, and its quarantine.

Belongs here: the assets dataset and quarantine of a name, their checks, events and metadata.
Does not belong here: reading (``data/loading.py``), judging (``data/validation.py``), tables
(``resources/lake.py``).

A run over a range writes its good days in one commit and leaves the bad ones as they were; then it fails,
naming the bad days. The checks ran before the write, so a bad day never was in the table. The quarantine is
an external asset: the same step writes both, and nobody can ask for one without the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import table_name
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.data.content import content_version, content_versions
from mlops_assets.data.expectation_arguments import argument_problem
from mlops_assets.data.loading import Source, load
from mlops_assets.data.schema import column_schema, frame_of, typed_table
from mlops_assets.data.validation import REASONS, Concern, Finding, Validated, validate
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DataError, DeclarationError
from mlops_assets.event_log.partition_events import (
    latest_versions,
    range_version,
    report_partitions,
    run_partitions,
)
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

CONCERNS: dict[Concern, str] = {
    "schema": "The source is readable and has every declared column, with values of the declared type.",
    "rows": "There are rows, and no more than the declared share of them is in quarantine.",
    "expectations": "The kept rows meet the suite of Great Expectations.",
}
WORST_SHOWN = 20


class DatasetComponent(DeclaredComponent[DatasetDeclaration]):
    """A checked table from raw files.

    .. code-block:: yaml

        type: mlops_assets.components.DatasetComponent
        attributes:
          name: flights
          source: {format: csv, path: "raw/{partition}.csv"}
          partitions: {start: "2013-01-01", column: flight_date}
          transform: mlops_assets.defs.flights.datasets.prepare_flights
          columns: {flight_id: string, flight_date: string, distance: integer}
          primary_key: [flight_id]
          row_rules:
            - {type: expect_column_values_to_be_between, kwargs: {column: distance, min_value: 1}}
          max_quarantine_share: 0.02
          suite:
            - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 100}}
    """

    Declaration = DatasetDeclaration
    MAKES: ClassVar = {"name": ("dataset", "quarantine")}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        self._check_expectations()
        return dg.Definitions(assets=[self._dataset(folder), self._quarantine(folder)])

    def _check_expectations(self) -> None:
        """DeclarationError, with file and line, for the first expectation that its columns cannot have."""
        for field in ("row_rules", "suite"):
            for position, one in enumerate(getattr(self.declaration, field)):
                problem = argument_problem(one.expectation(), self.declaration.columns)
                if problem is not None:
                    raise DeclarationError(problem, where=self.where(field, position, "kwargs"))

    @property
    def _key(self) -> dg.AssetKey:
        return asset_key("dataset", self.declaration.name)

    @property
    def _quarantine_key(self) -> dg.AssetKey:
        return asset_key("quarantine", self.declaration.name)

    def _dataset(self, folder: Path) -> dg.AssetsDefinition:
        declared = self.declaration
        transform = self.function(declared.transform, "transform") if declared.transform else None
        source = Source(declared.source.path, declared.source.reader(), folder, transform)
        rules = declared.rules()
        column = declared.partitions.column if declared.partitions else None

        @dg.asset(
            key=self._key,
            group_name=folder.name,
            description=declared.description,
            kinds={"dataset", "deltalake", declared.source.format},
            tags=name_tags("dataset", declared.name),
            partitions_def=declared.partitions.definition() if declared.partitions else None,
            backfill_policy=dg.BackfillPolicy.single_run() if declared.partitions else None,
            code_version=code_version(declared, [transform] if transform else []),
            metadata={"dagster/column_schema": self._column_schema()},
            check_specs=[
                dg.AssetCheckSpec(concern, asset=self._key, blocking=True, description=description)
                for concern, description in CONCERNS.items()
            ],
        )
        def dataset(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
            partitions = run_partitions(context)
            try:
                loaded = load(
                    source,
                    declared.columns,
                    partition_column=column,
                    partitions=partitions,
                    s3_options=lake.s3_options,
                    is_key=declared.partitions.is_key if declared.partitions else lambda _: True,
                )
            except DataError as error:
                finding = Finding("schema", None, "source", "readable rows", str(error))
                yield self._check("schema", [finding], 0, None)
                raise dg.Failure(f"{self._key.to_user_string()}: {error}", allow_retries=False) from error
            validated = validate(
                loaded.frame,
                rules,
                partition_column=column,
                partitions=partitions,
                earlier=loaded.findings,
            )
            yield from self._write(context, lake, validated, partitions)

        return dataset

    def _quarantine(self, folder: Path) -> dg.AssetSpec:
        name = self.declaration.name
        return dg.AssetSpec(
            self._quarantine_key,
            deps=[self._key],
            group_name=folder.name,
            kinds={"quarantine", "deltalake"},
            tags=name_tags("quarantine", name),
            partitions_def=self.declaration.partitions.definition() if self.declaration.partitions else None,
            description=f"Rows left out of {name}, with the rules they broke. Written with it.",
        )

    def _write(
        self,
        context: dg.AssetExecutionContext,
        lake: Lake,
        validated: Validated,
        partitions: Sequence[str] | None,
    ) -> Iterator[Any]:
        """One commit of the good partitions, then events, checks, and a Failure if one was bad."""
        column = self.declaration.partitions.column if self.declaration.partitions else None
        total = 1 if partitions is None else len(partitions)
        asked: Sequence[str | None] = [None] if partitions is None else partitions
        bad = [key for key in asked if key not in set(validated.good)]
        checks = [self._check(concern, validated.findings, total, validated) for concern in CONCERNS]
        if bad and (partitions is None or not validated.good):
            yield from checks
            raise self._failure(validated, bad, total)

        good = None if partitions is None else [str(key) for key in validated.good]
        kept, quarantined = validated.kept, validated.quarantined
        if good is not None and bad:
            kept = kept[kept[column].isin(good)]
            quarantined = quarantined[quarantined[column].isin(good)]
        schema = column_schema(self.declaration.columns)
        try:
            rows = typed_table(kept, schema)
            left_out = typed_table(quarantined, schema.append(_reasons_field()))
        except DataError as error:
            yield from checks
            raise dg.Failure(f"{self._key.to_user_string()}: {error}", allow_retries=False) from error
        versions = _versions(frame_of(rows), column, good)
        many = good is not None and len(good) > 1
        together = range_version(versions) if many else next(iter(versions.values()))
        commit = {"run_id": context.run.run_id, "data_version": together}
        stored = table_name("dataset", self.declaration.name)
        quarantine = table_name("quarantine", self.declaration.name)
        try:
            # Refused before either is written: a row is in one of the two tables.
            lake.require_writable(quarantine, left_out.schema, partition_column=column, partitions=good)
            wrote = lake.write(stored, rows, partition_column=column, partitions=good, commit=commit)
            table = lake.write(quarantine, left_out, partition_column=column, partitions=good, commit=commit)
        except DataError as error:
            yield from checks
            raise dg.Failure(f"{self._key.to_user_string()}: {error}", allow_retries=False) from error
        context.log.info(
            f"Wrote {wrote.rows} rows in {1 if good is None else len(good)} partitions to {wrote.uri}, Delta "
            f"version {wrote.version}; {table.rows} rows went to quarantine."
        )
        shared: dict[str, Any] = {"delta_version": wrote.version, "dagster/uri": wrote.uri}
        if not bad:
            yield dg.MaterializeResult(
                asset_key=self._key,
                data_version=dg.DataVersion(together),
                metadata={
                    **shared,
                    "dagster/row_count" if good is None else "dagster/partition_row_count": wrote.rows,
                    "quarantined_rows": table.rows,
                    **({} if many else {"preview": _preview(kept)}),
                },
                check_results=checks,
            )
        if good is not None and (bad or many):
            by_partition: dict[str, dict[str, Any]] = {
                key: {
                    **shared,
                    "dagster/partition_row_count": validated.rows[key] - validated.quarantined_rows[key],
                    "quarantined_rows": validated.quarantined_rows[key],
                }
                for key in good
            }
            # The asset's page shows the latest event: that of the last partition.
            by_partition[good[-1]]["preview"] = _preview(kept[kept[column] == good[-1]])
            report_partitions(context, self._key, versions, by_partition)
        yield from self._quarantine_events(
            context, frame_of(left_out), validated, good, table.version, table.uri
        )
        if bad:
            yield from checks
            raise self._failure(validated, bad, total)

    def _quarantine_events(
        self,
        context: dg.AssetExecutionContext,
        quarantined: Any,
        validated: Validated,
        good: Sequence[str] | None,
        delta_version: int,
        uri: str,
    ) -> Iterator[dg.AssetMaterialization]:
        """Events of partitions with rows in quarantine, or whose earlier rows are gone."""
        column = self.declaration.partitions.column if self.declaration.partitions else None
        versions = _versions(quarantined, column, good)
        known = latest_versions(context.instance, self._quarantine_key, good) if good is not None else {}
        for key, version in versions.items():
            partition = None if good is None else key
            rows = validated.quarantined_rows[partition]
            if good is not None and known.get(key, version if rows == 0 else None) == version:
                continue
            yield dg.AssetMaterialization(
                self._quarantine_key,
                partition=partition,
                metadata={
                    "dagster/partition_row_count" if partition else "dagster/row_count": rows,
                    "delta_version": delta_version,
                    "dagster/uri": uri,
                },
                tags={"dagster/data_version": version},
            )

    def _check(
        self, concern: Concern, findings: Sequence[Finding], total: int, validated: Validated | None
    ) -> dg.AssetCheckResult:
        mine = [finding for finding in findings if finding.concern == concern]
        blocking = [finding for finding in mine if finding.severity == "critical" or finding.errored]
        metadata: dict[str, Any] = {
            "partitions_checked": total,
            "partitions_failed": len({finding.partition for finding in blocking}),
        }
        if validated is not None and concern == "rows":
            metadata |= {
                "rows": sum(validated.rows.values()),
                "quarantined_rows": sum(validated.quarantined_rows.values()),
                "max_quarantine_share": self.declaration.max_quarantine_share,
            }
            if validated.broken_rules:
                metadata["broken_rules"] = dg.MetadataValue.md(
                    markdown_table(
                        [{"rule": rule, "rows": rows} for rule, rows in validated.broken_rules.items()]
                    )
                )
        if validated is not None and concern == "expectations" and validated.suite_results:
            metadata["observed"] = dg.MetadataValue.md(_observed(validated))
        if any(finding.errored for finding in mine):
            metadata["errored"] = len({finding.what for finding in mine if finding.errored})
        if mine:
            metadata["findings"] = dg.MetadataValue.md(_worst(mine))
        return dg.AssetCheckResult(
            asset_key=self._key,
            check_name=concern,
            passed=not mine,
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
            description=str(blocking[0] if blocking else mine[0]) if mine else None,
            metadata=metadata,
        )

    def _failure(self, validated: Validated, bad: Sequence[str | None], total: int) -> dg.Failure:
        name = self._key.to_user_string()
        reasons = {
            key: [str(found) for found in validated.of(key) if found.severity == "critical" or found.errored]
            for key in bad
        }
        shown = [f"{key or 'all'}: {'; '.join(why)}" for key, why in list(reasons.items())[:5]]
        more = f" (and {len(bad) - 5} more)" if len(bad) > 5 else ""
        kept = "the others were" if len(bad) < total else "nothing was"
        return dg.Failure(
            f"{name}: {len(bad)} of {total} partitions are not good enough and keep what they held; {kept} "
            f"written. {' | '.join(shown)}{more}",
            metadata={"bad_partitions": [key or "all" for key in bad]},
            allow_retries=False,
        )

    def _column_schema(self) -> dg.TableSchema:
        key = set(self.declaration.primary_key)
        return dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name,
                    type,
                    constraints=dg.TableColumnConstraints(nullable=name not in key, unique=key == {name}),
                )
                for name, type in self.declaration.columns.items()
            ]
        )


def datasets_of(context: dg.ComponentLoadContext) -> dict[str, DatasetComponent]:
    """Every dataset document, by name."""
    found = context.component_tree.get_all_components(DatasetComponent)
    return {component.declaration.name: component for component in found}


def require_same_type(key: str, one: DatasetComponent, other: DatasetComponent, where: str) -> None:
    """DeclarationError, with both places, when two datasets declare a key differently: nothing matches."""
    if one.declaration.columns[key] == other.declaration.columns[key]:
        return
    declared = " and ".join(
        f"as {dataset.declaration.columns[key]} in dataset {dataset.declaration.name!r} "
        f"({dataset.where('columns', key)})"
        for dataset in (one, other)
    )
    raise DeclarationError(
        f"key {key!r} is declared {declared}: no row of one would match a row of the other. Declare it alike "
        "in both.",
        where=where,
    )


def _reasons_field() -> "pa.Field[Any]":
    import pyarrow as pa

    return pa.field(REASONS, pa.string())


def _versions(frame: Any, column: str | None, partitions: Sequence[str] | None) -> dict[str, str]:
    """Content version by partition, those without rows included; "" stands for unpartitioned data."""
    if column is None or partitions is None:
        return {"": content_version(frame)}
    found = content_versions(frame, column)
    empty = content_version(frame.iloc[:0])
    return {key: found.get(key, empty) for key in partitions}


def _preview(frame: Any) -> dg.MetadataValue:
    return dg.MetadataValue.md(markdown_table(frame.head(5)))


def _observed(validated: Validated) -> str:
    """Every expectation, in how many partitions it was met, and what was observed."""
    table: list[Mapping[str, Any]] = []
    results = validated.suite_results
    for expectation in dict.fromkeys(map(id, [result.expectation for result in results])):
        mine = [result for result in results if id(result.expectation) == expectation]
        unmet = [result for result in mine if not result.met]
        shown = (unmet or mine)[-1]
        where = f"{shown.partition}: " if len(mine) > 1 else ""
        table.append(
            {
                "expectation": str(shown.expectation),
                "severity": shown.expectation.severity,
                "met": f"{len(mine) - len(unmet)} of {len(mine)}",
                "observed": where + (shown.error or shown.observed),
            }
        )
    return markdown_table(table)


def _worst(findings: Sequence[Finding]) -> str:
    ordered = sorted(findings, key=lambda finding: (finding.severity != "critical", str(finding.partition)))
    table = [
        {
            "partition": finding.partition or "all",
            "severity": "errored" if finding.errored else finding.severity,
            "what": finding.what,
            "expected": finding.expected,
            "observed": finding.observed,
        }
        for finding in ordered[:WORST_SHOWN]
    ]
    more = len(ordered) - len(table)
    return markdown_table(table) + (f"\n\nand {more} more" if more else "")
