"""Records of a topic as rows of a table: their bytes as they are, and the declared columns decoded.

Belongs here: the table's columns, rows from records, why a record cannot be decoded. Does not belong here:
what bytes mean (``formats/``), which value fits which type (``data/conversion.py``).

A record that cannot be decoded is a row all the same: with its bytes, the reason, and no value in any
declared column. So nothing is lost, and nothing waits for it.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_assets.data.conversion import FIRST_US, LAST_US, ColumnType
from mlops_assets.data.schema import Misfit, column_schema, conform, typed_table
from mlops_assets.streams.formats import Decode, Undecodable

if TYPE_CHECKING:
    import pyarrow as pa

UNDECODABLE, EVENT_DATE = "undecodable", "event_date"
OWN_COLUMNS = (
    "topic",
    "partition",
    "offset",
    "timestamp",
    "key",
    "value",
    "headers",
    UNDECODABLE,
    EVENT_DATE,
)
"""Columns that every stream has beside the declared ones."""


class TopicRecord(NamedTuple):
    """One record as the broker gives it; ``timestamp_ms`` since 1970 UTC, None where it has none."""

    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True)
class Wanted:
    """What is declared of a stream's records.

    ``fields``: where in a record a column is (``payload.amount``), of those that are not a field of their
    name. ``event_time``: the column that says when the event was; None: the record's timestamp.
    ``timezone``: the zone in which that moment has its day.
    """

    topic: str
    columns: Mapping[str, ColumnType]
    fields: Mapping[str, str]
    event_time: str | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class Rows:
    """Rows of records. ``reasons``: (partition, offset, why) of each that could not be decoded; ``unseen``:
    declared columns that no decoded record has; ``days``: event days, in order.
    """

    table: "pa.Table"
    reasons: Sequence[tuple[int, int, str]]
    unseen: Sequence[str]
    days: Sequence[str]
    newest: datetime.datetime | None


def table_schema(columns: Mapping[str, ColumnType]) -> "pa.Schema":
    """The columns of a stream's table with their types."""
    import pyarrow as pa

    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    own = {
        "topic": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "key": pa.binary(),
        "value": pa.binary(),
        "headers": pa.list_(header),
        UNDECODABLE: pa.string(),
        EVENT_DATE: pa.string(),
    }
    return pa.schema([*own.items(), *column_schema(columns)])


def rows_of(records: Sequence[TopicRecord], wanted: Wanted, decode: Decode) -> Rows:
    """The records as rows, in their order. A record without a value says nothing in any declared column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    documents, reasons = _decoded(records, decode)
    declared, misfits = _declared(documents, wanted)
    for column, misfit in misfits.items():
        for row in misfit.rows.nonzero()[0].tolist():
            # The first reason of a record is enough to find it.
            reasons.setdefault(row, f"{column}: {misfit.shown(row)} does not fit: {misfit.reason}")
    bad = pa.array([row in reasons for row in range(len(records))], pa.bool_())
    values = {name: pc.if_else(bad, None, declared.column(name)) for name in wanted.columns}
    at = _timestamps(records)
    event = at if wanted.event_time is None else pc.coalesce(values[wanted.event_time], at)
    schema = table_schema(wanted.columns)
    own = {
        "topic": [wanted.topic] * len(records),
        "partition": [one.partition for one in records],
        "offset": [one.offset for one in records],
        "timestamp": at,
        "key": [one.key for one in records],
        "value": [one.value for one in records],
        "headers": [[{"name": name, "value": value} for name, value in one.headers] for one in records],
        UNDECODABLE: [reasons.get(row) for row in range(len(records))],
        EVENT_DATE: pc.strftime(event.cast(pa.timestamp("us", wanted.timezone)), format="%Y-%m-%d"),
    }
    table = pa.table({**own, **values}, schema=schema)
    said = [document for row, document in enumerate(documents) if document is not None and row not in reasons]
    return Rows(
        table=table,
        reasons=[(records[row].partition, records[row].offset, why) for row, why in sorted(reasons.items())],
        unseen=[name for name in wanted.columns if said and not any(map(_has(wanted, name), said))],
        days=sorted(filter(None, pc.unique(table.column(EVENT_DATE)).to_pylist())),
        newest=pc.max(at).as_py(),
    )


def _decoded(
    records: Sequence[TopicRecord], decode: Decode
) -> tuple[list[Mapping[str, Any] | None], dict[int, str]]:
    """What each record says (None: nothing), and {row: why it cannot be read}."""
    documents: list[Mapping[str, Any] | None] = []
    reasons: dict[int, str] = {}
    for row, record in enumerate(records):
        document = None
        if record.value is not None:
            try:
                document = decode(record.value)
            except Undecodable as error:
                reasons[row] = str(error)
        documents.append(document)
    return documents, reasons


def _declared(
    documents: Sequence[Mapping[str, Any] | None], wanted: Wanted
) -> "tuple[pa.Table, Mapping[str, Misfit]]":
    import pandas as pd

    found = {
        name: pd.Series([_found(document, _path(wanted, name)) for document in documents], dtype=object)
        for name in wanted.columns
    }
    conformed = conform(pd.DataFrame(found), wanted.columns)
    return typed_table(conformed.frame, column_schema(wanted.columns)), conformed.misfits


def _path(wanted: Wanted, name: str) -> Sequence[str]:
    return wanted.fields[name].split(".") if name in wanted.fields else (name,)


def _found(document: Any, path: Sequence[str]) -> Any:
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


def _has(wanted: Wanted, name: str) -> "Callable[[Mapping[str, Any]], bool]":
    *leading, last = _path(wanted, name)

    def has(document: Mapping[str, Any]) -> bool:
        within = _found(document, leading)
        return isinstance(within, Mapping) and last in within

    return has


def _timestamps(records: Sequence[TopicRecord]) -> "pa.Array[Any]":
    """Times of the records, missing where a producer wrote a number outside the years 1 to 9999."""
    import pyarrow as pa

    micros = [None if one.timestamp_ms is None else one.timestamp_ms * 1000 for one in records]
    held = [one if one is not None and FIRST_US <= one <= LAST_US else None for one in micros]
    return pa.array(held, pa.int64()).view(pa.timestamp("us", tz="UTC"))
