"""The asset of a stream: a run reads its topic from where the table ends, and commits once.

Belongs here: the asset, its step, what is told of a commit. Does not belong here: reading and committing
(``ingest.py``), when a run is started (``sensors/stream.py``), the consumer (``commands/streaming.py``).
"""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.failing import failing
from mlops_assets.assets.ingest import DeclaredStream, Ingested, ingesting
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake

DECODABLE = "decodable"
SHOWN = 20


def stream_asset(group: str, source: DeclaredStream) -> dg.AssetsDefinition:
    """The append-only table of a topic, with the check that its records can be decoded."""
    declared = source.declared
    key = asset_key("stream", declared.name)

    @dg.asset(
        key=key,
        group_name=group,
        description=declared.description or f"Records of the Kafka topic {declared.topic}.",
        kinds={"stream", "deltalake", "kafka"},
        tags=name_tags("stream", declared.name),
        code_version=code_version(declared, fields=("topic", "value", "columns", "fields", "event_time")),
        # Of two runs at once the second would be refused at its end, after reading for nothing.
        pool=f"stream_{declared.name}",
        check_specs=[
            dg.AssetCheckSpec(
                DECODABLE,
                asset=key,
                description="Every record can be decoded, and every declared column is in some record.",
            )
        ],
    )
    def stream(
        context: dg.AssetExecutionContext, lake: Lake, clock: Clock
    ) -> Iterator[dg.MaterializeResult[Any]]:
        with failing(key), ingesting(lake, source, context.run.run_id, clock.seconds) as ingest:
            deadline = time.monotonic() + declared.max_duration.total_seconds()
            found = ingest.commit_next(lambda _, at_end: at_end or time.monotonic() >= deadline)
            ingest.require_answers(found)
        context.log.info(f"Appended {found.records} records to {found.uri}, Delta version {found.version}.")
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(found.data_version),
            metadata=stream_metadata(found),
            check_results=[decodable(declared, found)],
        )

    return stream


def stream_metadata(found: Ingested) -> dict[str, Any]:
    """What a materialisation of a stream tells: how much came, how far it is, how far behind."""
    offsets = [
        {"partition": partition, "last offset": offset - 1, "lag": found.lag.get(partition, 0)}
        for partition, offset in sorted(found.following.items())
    ]
    told: dict[str, Any] = {
        "records": found.records,
        "records_per_second": round(found.records / found.seconds, 1) if found.seconds else 0.0,
        "lag": sum(found.lag.values()),
        "undecodable": len(found.reasons),
        "offsets": dg.MetadataValue.md(markdown_table(offsets)),
        # What the next offset of each partition is, for programs.
        "next_offsets": dg.MetadataValue.json({str(one): next_ for one, next_ in found.following.items()}),
        "touched_days": dg.MetadataValue.json(list(found.days)),
        "delta_version": found.version,
        "dagster/uri": found.uri,
    }
    if found.newest is not None:
        told["newest_record"] = dg.MetadataValue.timestamp(found.newest)
    return told


def decodable(declared: StreamDeclaration, found: Ingested) -> dg.AssetCheckResult:
    """What the check says of the records of one materialisation. It blocks nothing: their bytes are kept."""
    said = []
    if found.reasons:
        partition, offset, why = found.reasons[0]
        said.append(
            f"{len(found.reasons)} of {found.records} records cannot be decoded and are kept as bytes; "
            f"the first is offset {offset} of partition {partition}: {why}."
        )
    if found.unseen:
        said.append(
            f"No record has {', '.join(found.unseen)}: where they are in a record is said under `fields`."
        )
    worst = [
        {"partition": partition, "offset": offset, "reason": why}
        for partition, offset, why in found.reasons[:SHOWN]
    ]
    metadata: dict[str, Any] = {"records": found.records, "undecodable": len(found.reasons)}
    if worst:
        metadata["reasons"] = dg.MetadataValue.md(markdown_table(worst))
    return dg.AssetCheckResult(
        asset_key=asset_key("stream", declared.name),
        check_name=DECODABLE,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(said) or None,
        metadata=metadata,
    )
