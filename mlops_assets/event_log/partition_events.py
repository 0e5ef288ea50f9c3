"""One event per partition, each with its own data version, from one run over many partitions.

Belongs here: which partitions a run covers, and the events that give each its version. Does not belong
here: computing versions (``data/content.py``).

Dagster records one data version per asset and run, for all partitions of a range alike. So an asset
first yields its result as usual (Dagster needs it to run what is downstream), then reports its partitions:
the latest event of a partition is the one that counts, and it carries the version of that partition's
content. Staleness compares, per upstream partition, the latest version with the latest before the event
that the downstream run saw; so rewriting the same content, in whatever range, makes nothing stale.

A partition that could not be written gets no event and keeps its last one: an asset whose run holds a bad
partition reports the good ones, yields its failed checks, and raises instead of yielding a result.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata
from dagster._core.execution.plan.execute_step import (
    _build_data_version_tags,
    _get_code_version,
    _get_input_provenance_data,
)


def run_partitions(context: dg.AssetExecutionContext) -> list[str] | None:
    """Partition keys of this run in order, or None when the asset has no partitions.

    A run over a range can hold assets without partitions beside those with, so the asset is asked.
    """
    return None if context.assets_def.partitions_def is None else list(context.partition_keys)


def range_version(versions: Mapping[str, str]) -> str:
    """Version of several partitions together, for the one result of a range run."""
    import hashlib

    text = "\n".join(f"{partition} {version}" for partition, version in sorted(versions.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def report_partitions(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    versions: Mapping[str, str],
    metadata: Mapping[str, Mapping[str, Any]],
) -> None:
    """A materialisation per partition of ``versions``, with its version and metadata.

    The tags are those that Dagster writes itself: code version, and versions and event pointers of the
    inputs as the run saw them. Call this after the result of the same asset was yielded. The events are
    written together where the storage can (yielded one by one, a year of them takes 12 s).
    """
    step = context.get_step_execution_context()
    tags = provenance_tags(context, key)
    batch = str(uuid.uuid4())
    for position, (partition, version) in enumerate(versions.items(), start=1):
        event = dg.AssetMaterialization(
            asset_key=key,
            partition=partition,
            metadata=dict(metadata.get(partition, {})),
            tags={**tags, DATA_VERSION_TAG: version},
        )
        DagsterEvent.asset_materialization(
            step, event, DagsterEventBatchMetadata(batch, is_end=position == len(versions))
        )


def provenance_tags(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, str]:
    """The tags Dagster puts on a materialisation of ``key`` in this step, but for the data version.

    Built by Dagster's own functions: there is no public way, and a tag that differs in the least makes
    everything stale. A test compares them with the tags of a real event.
    """
    step = context.get_step_execution_context()
    tags = _build_data_version_tags(
        dg.DataVersion(""), _get_code_version(key, step), _get_input_provenance_data(key, step), True
    )
    return {name: value for name, value in tags.items() if name != DATA_VERSION_TAG}


def latest_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, str]:
    """{partition: data version} of the latest materialisations; those without any are left out."""
    found = instance.event_log_storage.get_latest_tags_by_partition(
        key,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        tag_keys=[DATA_VERSION_TAG],
        asset_partitions=list(partitions),
    )
    return {
        partition: tags[DATA_VERSION_TAG] for partition, tags in found.items() if DATA_VERSION_TAG in tags
    }
