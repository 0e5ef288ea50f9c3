"""What the datasets of a view hold: how far each of them goes now, and their rows as of then.

Belongs here: reading rows that events look back on, from the tables of datasets at a version and from streams
up to an offset. Does not belong here: a store of them (``online_filling.py``), answers that are replayed
(``replayed.py``).

How far a source was read is one number each, under the name that the head of a store has for it: a dataset's
Delta version, and ``topic/partition`` with the next offset of a stream that is followed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.assets.followed_rows import FollowedRows
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.stream_table import StreamPosition, position
from serve.online.held import HeldView

if TYPE_CHECKING:
    import pandas as pd

Applied = Mapping[str, int]


@dataclass(frozen=True)
class Reached:
    """How far the sources of a view go. ``streams``: the positions of those that are followed, by dataset."""

    applied: dict[str, int]
    streams: Mapping[str, StreamPosition]


def reached(lake: Lake, served: OnlineTable, since: Applied) -> Reached:
    """How far they go now, and what streams got since ``since``. DataError when a table is missing."""
    applied: dict[str, int] = {}
    streams: dict[str, StreamPosition] = {}
    for name in served.datasets:
        if name not in served.followed:
            applied[name] = lake.version(served.table.datasets[name].table().name)
            continue
        one = served.followed[name]
        streams[name] = position(lake, one.stream.table, one.stream.topic, applied=one.following(since))
        applied |= one.offsets(streams[name].following)
    return Reached(applied, streams)


class OnlineRows:
    """Rows of a view's datasets from a day on (None: all), in the columns looked up; none is read twice."""

    def __init__(self, lake: Lake, served: OnlineTable, first: date | None) -> None:
        self._lake, self._served = lake, served
        self._first = None if first is None else first.isoformat()
        self._held = HeldView(served.online)
        self._of_tables: dict[tuple[str, int], pd.DataFrame] = {}
        self._of_streams: dict[str, FollowedRows] = {}

    def at(self, applied: Applied) -> "dict[str, pd.DataFrame]":
        """{dataset: its rows as far as ``applied``}."""
        return {name: self.of(name, applied) for name in self._served.datasets}

    def of(self, name: str, applied: Applied) -> "pd.DataFrame":
        """Rows of one dataset as far as ``applied``."""
        if name in self._served.followed:
            return self.of_stream(name, applied)[0][self._columns(name)]
        key = name, applied[name]
        if key not in self._of_tables:
            self._of_tables[key] = self._of_table(name, applied[name])
        return self._of_tables[key]

    def of_stream(self, name: str, applied: Applied) -> "tuple[pd.DataFrame, dict[str, str]]":
        """Rows of a followed dataset, and {day: why it has none}."""
        if name not in self._of_streams:
            one = self._served.followed[name]
            held = self._lake.partition_keys(one.stream.table)
            days = [day for day in held if self._first is None or day >= self._first]
            self._of_streams[name] = FollowedRows(self._lake, one, days)
        return self._of_streams[name].rows(applied)

    def _of_table(self, name: str, version: int) -> "pd.DataFrame":
        declared, columns = self._served.table.datasets[name], self._columns(name)
        if self._first is None or declared.partitions is None:
            return declared.table().read(self._lake, columns=columns, version=version)
        held_days = self._lake.partition_keys(declared.table().name, version=version)
        return self._lake.read(
            declared.table().name,
            partitions=[day for day in held_days if day >= self._first],
            partition_column=declared.partitions.column,
            columns=columns,
            version=version,
        )

    def _columns(self, name: str) -> list[str]:
        return list(dict.fromkeys([*self._served.identity(name), *self._held.columns(name)]))
