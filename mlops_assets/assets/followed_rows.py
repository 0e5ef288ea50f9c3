"""The rows of a dataset as its stream has them, ahead of the dataset's own table.

Belongs here: days of a dataset from the records that lie before given offsets. Does not belong here: judging
them (``judged_rows.py``), how far a stream goes (``resources/stream_table.py``), what is made of the rows.

Each day is judged by itself, as a run over this day judges it, from the records alone: so the same records
give the same rows, whenever and in whatever order days are asked for. A day that the dataset would not write
has no rows here. (Its table would keep what it held, which depends on when it was asked before.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.judged_rows import judged_rows
from mlops_assets.data.loading import Source
from mlops_assets.data.schema import conform
from mlops_assets.data.sources import Asked, LakeAccess
from mlops_assets.data.sources.stream import ReadRows, StreamReader, applied_rows
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import DataError, SourceUnavailable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

JUDGED_BY = frozenset(
    (
        "source",
        "partitions",
        "transform",
        "columns",
        "primary_key",
        "row_rules",
        "max_quarantine_share",
        "suite",
    )
)
"""What of a dataset's document decides on its rows."""


@dataclass(frozen=True)
class FollowedDataset:
    """A dataset whose rows are taken from its stream, with the function that makes its columns."""

    declared: DatasetDeclaration
    stream: StreamDeclaration
    transform: "Callable[[pd.DataFrame], pd.DataFrame] | None" = None

    @property
    def version(self) -> str:
        """Changes when the same records may give other rows."""
        return code_version(self.declared, [self.transform] if self.transform else [], fields=JUDGED_BY)

    def offsets(self, following: Mapping[int, int]) -> dict[str, int]:
        """Next offsets of the topic's partitions as the head of a store has them."""
        return {f"{self.stream.topic}/{one}": offset for one, offset in following.items()}

    def following(self, applied: Mapping[str, int]) -> dict[int, int]:
        """The same back: those of this topic."""
        start = f"{self.stream.topic}/"
        return {int(one[len(start) :]): end for one, end in applied.items() if one.startswith(start)}

    def declares(self, day: str) -> bool:
        """Whether the dataset has such a day."""
        partitions = self.declared.partitions
        return partitions is None or partitions.declares(day)


@dataclass(frozen=True)
class DayRows:
    """Rows of one day in the declared columns; ``problem``: why the dataset would not write it, or ""."""

    frame: "pd.DataFrame"
    problem: str = ""


class FollowedRows:
    """Some days of a followed dataset. Records are read once, and judged once for the same ones of a day."""

    def __init__(self, lake: LakeAccess, followed: FollowedDataset, days: Sequence[str]) -> None:
        self._lake, self._followed = lake, followed
        self._reader = StreamReader(followed.stream.name)
        self.days = [day for day in days if followed.declares(day)]
        declared = followed.declared
        self._asked = Asked(
            declared.columns,
            followed.transform is not None,
            str(declared.partitions and declared.partitions.column),
        )
        self._records = self._by_day()
        self._judged: dict[tuple[str, bytes], DayRows] = {}

    def rows(self, applied: Mapping[str, int]) -> "tuple[pd.DataFrame, dict[str, str]]":
        """Rows of all the days from the records before ``applied``, and {day: why it has none}."""
        import pandas as pd

        empty = conform(
            pd.DataFrame(columns=list(self._followed.declared.columns)), self._followed.declared.columns
        )
        found = {day: self.of_day(day, applied) for day in self.days}
        frames = [one.frame for one in found.values() if len(one.frame)]
        whole = pd.concat(frames, ignore_index=True) if frames else empty.frame
        return whole, {day: one.problem for day, one in found.items() if one.problem}

    def of_day(self, day: str, applied: Mapping[str, int]) -> DayRows:
        """Rows of one of the days from the records before ``applied``; a day without any has none."""
        records = self._records[day]
        known = applied_rows(records, applied)
        key = day, np.packbits(known).tobytes()
        if key not in self._judged:
            self._judged[key] = self._judge(day, records.filter(known))
        return self._judged[key]

    def _judge(self, day: str, records: "pa.Table") -> DayRows:
        import pandas as pd

        declared = self._followed.declared
        none = pd.DataFrame(columns=list(declared.columns))
        if not len(records):
            return DayRows(none)
        source = Source(ReadRows(self._reader, records), self._followed.transform)
        try:
            _, validated = judged_rows(self._lake, declared, source, [day])
        except SourceUnavailable:
            raise
        except DataError as error:
            # The records are here, so it is about them.
            return DayRows(none, str(error))
        if day not in validated.good:
            return DayRows(none, "; ".join(validated.reasons(day)))
        return DayRows(validated.kept)

    def _by_day(self) -> "dict[str, pa.Table]":
        import pyarrow.compute as pc

        asked = Asked(self._asked.columns, self._asked.infer, self._asked.partition_column, self.days)
        rows = self._reader.records(asked, self._lake)
        of_row: Any = rows.column(str(asked.partition_column))
        return {day: rows.filter(pc.equal(of_row, day)) for day in self.days}
