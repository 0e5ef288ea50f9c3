"""States of a source's partitions as the event log keeps them: those in which a dataset judged them last.

Belongs here: writing the state of a partition that was judged bad, reading all of them back. Does not belong
here: the state of a written partition, which stands in its materialisation (``assets/dataset.py``), what
follows from a difference (``data/probing.py``).

A materialisation says in which state a partition was written, an observation in which it was found bad. The
later of the two counts.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

from mlops_assets.data.sources import WHOLE

SOURCE_STATE = "source_state"
PAGE = 1_000


def report_bad(
    context: dg.AssetExecutionContext, key: dg.AssetKey, states: Mapping[str, str], why: Mapping[str, str]
) -> None:
    """An observation per partition of ``states``: that it was judged bad in that state, and why."""
    step = context.get_step_execution_context()
    batch = str(uuid.uuid4())
    for position, (partition, state) in enumerate(states.items(), start=1):
        event = dg.AssetObservation(
            key,
            partition=partition or None,
            metadata={SOURCE_STATE: state, "not_written": why.get(partition, "")},
        )
        DagsterEvent.asset_observation(
            step, event, DagsterEventBatchMetadata(batch, is_end=position == len(states))
        )


def judged_since(
    instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int
) -> tuple[dict[str, str], int]:
    """{partition: state it was judged in last} of the events after ``storage_id``, and the last event's id.

    A partition that was written without a state has an empty one.
    """
    found: list[tuple[int, str, str]] = []
    for fetch in (instance.fetch_materializations, instance.fetch_observations):
        found += _states(fetch, key, storage_id)
    found.sort()
    return {partition: state for _, partition, state in found}, found[-1][0] if found else storage_id


def _states(fetch: Callable[..., Any], key: dg.AssetKey, storage_id: int) -> list[tuple[int, str, str]]:
    filters = dg.AssetRecordsFilter(asset_key=key, after_storage_id=storage_id)
    states: list[tuple[int, str, str]] = []
    cursor = None
    while True:
        page = fetch(filters, limit=PAGE, cursor=cursor, ascending=True)
        for record in page.records:
            event = record.asset_materialization or record.event_log_entry.asset_observation
            said = event.metadata.get(SOURCE_STATE)
            # Observations of other kinds judge nothing.
            if said is not None or record.asset_materialization is not None:
                state = str(said.value) if said is not None else ""
                states.append((record.storage_id, event.partition or WHOLE, state))
        if not page.has_more:
            return states
        cursor = page.cursor
