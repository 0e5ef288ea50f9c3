"""``<name>`` and ``<name>_quarantine``: raw files become a checked table, and the rows left out of it.

Belongs here: reading, judging and writing in their order, the checks, events and metadata of a dataset. Does
not belong here: reading and judging themselves (``judged_rows.py``), writing (``partition_writer.py``).

The checks ran before the write, so a bad day never was in the table. The quarantine is an external asset: the
same step writes both, and nobody can ask for one without the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import AssetName
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.failing import failing, recording
from mlops_assets.assets.judged_rows import judged_rows
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.assets.partition_writer import GoodRows, JudgedPartitions, PartitionWriter, written
from mlops_assets.data.loading import Source
from mlops_assets.data.schema import column_schema
from mlops_assets.data.sources import WHOLE
from mlops_assets.data.validation import REASONS, Concern, Finding, Validated
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DataError
from mlops_assets.event_log.partition_events import latest_versions, run_partitions
from mlops_assets.event_log.source_states import SOURCE_STATE, report_bad
from mlops_assets.resources.lake import Lake, TableWrite

if TYPE_CHECKING:
    import pyarrow as pa

CONCERNS: dict[Concern, str] = {
    "schema": "The source is readable and has every declared column, with values of the declared type.",
    "rows": "There are rows, and no more than the declared share of them is in quarantine.",
    "expectations": "The kept rows meet the suite of Great Expectations.",
}
WORST_SHOWN = 20


def dataset_asset(group: str, declared: DatasetDeclaration, source: Source) -> dg.AssetsDefinition:
    """The table of a dataset with its blocking checks, read from ``source``."""
    key, transform = asset_key("dataset", declared.name), source.transform

    @dg.asset(
        key=key,
        group_name=group,
        description=declared.description,
        kinds={"dataset", "deltalake", declared.source.format},
        tags=name_tags("dataset", declared.name),
        partitions_def=_partitions(declared),
        backfill_policy=dg.BackfillPolicy.single_run() if declared.partitions else None,
        code_version=code_version(declared, [transform] if transform else []),
        metadata={"dagster/column_schema": _column_schema(declared)},
        check_specs=[
            dg.AssetCheckSpec(concern, asset=key, blocking=True, description=description)
            for concern, description in CONCERNS.items()
        ],
    )
    def dataset(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
        yield from make_dataset(context, lake, declared, source)

    return dataset


def quarantine_asset(group: str, declared: DatasetDeclaration) -> dg.AssetSpec:
    """The rows left out of a dataset."""
    return dg.AssetSpec(
        asset_key("quarantine", declared.name),
        deps=[asset_key("dataset", declared.name)],
        group_name=group,
        kinds={"quarantine", "deltalake"},
        tags=name_tags("quarantine", declared.name),
        partitions_def=_partitions(declared),
        description=f"Rows left out of {declared.name}, with the rules they broke. Written with it.",
    )


def _partitions(declared: DatasetDeclaration) -> dg.DailyPartitionsDefinition | None:
    return declared.partitions.definition() if declared.partitions else None


def _column_schema(declared: DatasetDeclaration) -> dg.TableSchema:
    key = set(declared.primary_key)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                type,
                constraints=dg.TableColumnConstraints(nullable=name not in key, unique=key == {name}),
            )
            for name, type in declared.columns.items()
        ]
    )


def make_dataset(
    context: dg.AssetExecutionContext, lake: Lake, declared: DatasetDeclaration, source: Source
) -> Iterator[Any]:
    """The step: the run's partitions from their source into the table and its quarantine."""
    asked = run_partitions(context)
    key = asset_key("dataset", declared.name)
    with failing(key):
        try:
            loaded, validated = judged_rows(lake, declared, source, asked)
        except DataError as error:
            finding = Finding("schema", None, "source", "readable rows", str(error))
            yield check_result(declared, "schema", [finding], 0, None)
            raise
    column = declared.partitions.column if declared.partitions else None
    judged = JudgedPartitions(asked, column, _bad(validated, asked), "not good enough")
    total = 1 if asked is None else len(asked)
    checks = [check_result(declared, concern, validated.findings, total, validated) for concern in CONCERNS]
    if judged.bad and source.probed:
        _report_bad(context, key, judged, loaded.states)
    writer = PartitionWriter(context, lake, judged)
    yield from recording(checks, _write(writer, declared, validated, checks, loaded.states))


def _report_bad(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    judged: JudgedPartitions,
    states: Mapping[str, str],
) -> None:
    """Says in which states the bad partitions are bad: they are not read again until they change."""
    keys = [WHOLE] if judged.asked is None else list(judged.bad)
    why = {one: "; ".join(judged.bad[one or "all"]) for one in keys}
    report_bad(context, key, {one: states.get(one, "") for one in keys}, why)


def _bad(validated: Validated, asked: Sequence[str] | None) -> dict[str, list[str]]:
    """{partition: why it is not written}."""
    keys: Sequence[str | None] = [None] if asked is None else asked
    good = set(validated.good)
    return {key or "all": validated.reasons(key) for key in keys if key not in good}


def _write(
    writer: PartitionWriter,
    declared: DatasetDeclaration,
    validated: Validated,
    checks: Sequence[dg.AssetCheckResult],
    states: Mapping[str, str],
) -> Iterator[Any]:
    """One commit of the good partitions, then events, and a Failure if one was bad."""
    context, judged = writer.context, writer.judged
    dataset, quarantine = AssetName("dataset", declared.name), AssetName("quarantine", declared.name)
    key = asset_key(*dataset)
    if judged.none_good:
        raise judged.failure(key)
    schema = column_schema(declared.columns)
    with failing(key):
        kept = GoodRows.of_good(dataset, judged, validated.kept, schema)
        left_out = GoodRows.of_good(
            quarantine, judged, validated.quarantined, schema.append(_reasons_field())
        )
    wrote, table = writer.commit(kept, left_out)
    context.log.info(
        f"Wrote {wrote.rows} rows in {len(kept.versions)} partitions to {wrote.uri}, Delta "
        f"version {wrote.version}; {table.rows} rows went to quarantine."
    )
    good = judged.good
    result: dict[str, Any] = {"quarantined_rows": table.rows}
    if good is None or len(good) == 1:
        result |= {"preview": _preview(kept.frame), **_state(states, good[0] if good else WHOLE)}

    def of_partition(day: str) -> dict[str, Any]:
        said: dict[str, Any] = {"quarantined_rows": left_out.counts[day], **_state(states, day)}
        # The asset's page shows the latest event: that of the last partition.
        if good is not None and day == good[-1]:
            said["preview"] = _preview(kept.frame[kept.frame[judged.column] == day])
        return said

    yield from writer.events(kept, wrote, result, of_partition=of_partition, checks=checks)
    yield from _quarantine_events(context, left_out, table)
    if judged.bad:
        raise judged.failure(key)


def _state(states: Mapping[str, str], partition: str) -> dict[str, Any]:
    """Metadata: the state of the partition in its source as it was read."""
    return {SOURCE_STATE: states[partition]} if partition in states else {}


def _quarantine_events(
    context: dg.AssetExecutionContext, left_out: GoodRows, wrote: TableWrite
) -> Iterator[dg.AssetMaterialization]:
    """Events of partitions with rows in quarantine, or whose earlier rows are gone."""
    good = left_out.judged.good
    known = latest_versions(context.instance, left_out.key, good) if good is not None else {}
    for key, version in left_out.versions.items():
        rows = left_out.counts[key]
        if good is not None and known.get(key, version if rows == 0 else None) == version:
            continue
        yield dg.AssetMaterialization(
            left_out.key,
            partition=None if good is None else key,
            metadata={
                "dagster/row_count" if good is None else "dagster/partition_row_count": rows,
                **written(wrote),
            },
            tags={"dagster/data_version": version},
        )


def check_result(
    declared: DatasetDeclaration,
    concern: Concern,
    findings: Sequence[Finding],
    total: int,
    validated: Validated | None,
) -> dg.AssetCheckResult:
    """What one check says of the run's ``total`` partitions; ``validated`` None: no row could be read."""
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
            "max_quarantine_share": declared.max_quarantine_share,
        }
        if validated.broken_rules:
            broken = [{"rule": rule, "rows": rows} for rule, rows in validated.broken_rules.items()]
            metadata["broken_rules"] = dg.MetadataValue.md(markdown_table(broken))
    if validated is not None and concern == "expectations" and validated.suite_results:
        metadata["observed"] = dg.MetadataValue.md(_observed(validated))
    if any(finding.errored for finding in mine):
        metadata["errored"] = len({finding.what for finding in mine if finding.errored})
    if mine:
        metadata["findings"] = dg.MetadataValue.md(_worst(mine))
    return dg.AssetCheckResult(
        asset_key=asset_key("dataset", declared.name),
        check_name=concern,
        passed=not mine,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=_told(blocking or mine, total),
        metadata=metadata,
    )


def _told(findings: Sequence[Finding], total: int) -> str | None:
    """The first of the findings, and in how many of ``total`` partitions there are any; None without any."""
    if not findings:
        return None
    first = findings[0]
    found = len({finding.partition for finding in findings})
    if total == 1 or first.partition is None:
        return str(first)
    return f"{found} of {total} partitions, the first {first.partition}: {first}"


def _reasons_field() -> "pa.Field[Any]":
    import pyarrow as pa

    return pa.field(REASONS, pa.string())


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
