"""Streams: a dataset of checked days from the table of a Kafka topic.

Belongs here: what YAML may say of it, reading days, what changes a day. Does not belong here: reading the
topic (``assets/ingest.py``), undecodable records, which rules on rows judge like any other rows.

The dataset has no edge to the stream's asset: Dagster would take every new record for a change of every day,
and all that follows would be stale for ever. Which days changed is known exactly, by their rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from mlops_assets.asset_names import table_name
from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.sources._base import Asked, LakeAccess, SourceDeclaration, SourceReader
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

EVENT_DATE = "event_date"
"""The column of a stream's table that holds the day of a row."""
PLACE = ("topic", "partition", "offset")
"""The columns of a stream's table that tell a record from all others, in the order of its rows."""


class StreamSource(SourceDeclaration):
    """The records of a stream, by the day of their event."""

    name: ClassVar[str] = "stream"

    stream: str = Field(description="Name of the stream.")

    @property
    def probed(self) -> bool:
        return True

    def reader(self, folder: Path) -> "StreamReader":
        return StreamReader(self.stream)

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        if not partitioned or EVENT_DATE not in columns:
            return (
                f"a stream is read by day: declare `partitions: {{start: ..., column: {EVENT_DATE}}}`, and "
                f"{EVENT_DATE} as a string under columns"
            )
        return None


@dataclass(frozen=True)
class StreamReader(SourceReader):
    """Rows of the wanted days, from the table's files of those days, in the order of the topic."""

    stream: str

    @property
    def where(self) -> str:
        return f"stream {self.stream}"

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        rows = self.records(asked, lake)
        return (
            rows if asked.infer else rows.select([one for one in rows.column_names if one in asked.columns])
        )

    def records(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        """The same rows, always with ``PLACE``. Their order does not depend on the table's files."""
        self._require_event_date(asked)
        wanted = None if asked.infer else list(dict.fromkeys([*asked.columns, *PLACE]))
        rows = lake.rows_of(table_name("stream", self.stream), EVENT_DATE, asked.partitions or (), wanted)
        return rows.sort_by([(name, "ascending") for name in PLACE])

    def states(self, asked: Asked, lake: LakeAccess) -> Mapping[str, str]:
        """Rows are only ever added, so their number says whether a day has changed."""
        self._require_event_date(asked)
        counts = lake.row_counts(table_name("stream", self.stream), EVENT_DATE)
        wanted = counts if asked.partitions is None else set(asked.partitions)
        return {day: f"{rows} rows" for day, rows in counts.items() if day in wanted}

    def _require_event_date(self, asked: Asked) -> None:
        if asked.partition_column != EVENT_DATE:
            raise DataError(
                f"{self.where} has its days in {EVENT_DATE}: say `partitions: {{column: {EVENT_DATE}}}`, not "
                f"{asked.partition_column}."
            )


@dataclass(frozen=True)
class ReadRows(SourceReader):
    """Rows that were read before, as if they were all that there is."""

    of: StreamReader
    rows: "pa.Table"

    @property
    def where(self) -> str:
        return self.of.where

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        if asked.infer:
            return self.rows
        return self.rows.select([one for one in self.rows.column_names if one in asked.columns])


def applied_rows(rows: "pa.Table", applied: Mapping[str, int]) -> "npt.NDArray[np.bool_]":
    """Of each row with its ``PLACE``, whether its offset lies before that of its partition in ``applied``
    (``topic/partition``: the next offset).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    topic, partition, offset = (rows.column(name).combine_chunks() for name in PLACE)
    encoded = pc.binary_join_element_wise(topic, partition.cast(pa.string()), "/").dictionary_encode()
    limits = np.array([applied.get(one, 0) for one in encoded.dictionary.to_pylist()], dtype=np.int64)
    return offset.to_numpy() < limits[encoded.indices.to_numpy()]
