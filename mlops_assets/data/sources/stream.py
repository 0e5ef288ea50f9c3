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

from pydantic import Field

from mlops_assets.asset_names import table_name
from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.sources._base import Asked, LakeAccess, SourceDeclaration, SourceReader
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

EVENT_DATE = "event_date"
"""The column of a stream's table that holds the day of a row."""


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
    """Rows of the wanted days, from the table's files of those days."""

    stream: str

    @property
    def where(self) -> str:
        return f"stream {self.stream}"

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        self._require_event_date(asked)
        wanted = None if asked.infer else [*asked.columns]
        return lake.rows_of(table_name("stream", self.stream), EVENT_DATE, asked.partitions or (), wanted)

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
