"""Rows of a table's good partitions: one commit, a version and an event per partition, a failure for the bad.

Belongs here: what every step that writes a table does with its rows once each partition is judged. Does not
belong here: judging (``data/validation.py``, ``features/declared.py``), what is said of one kind of table
(``assets/dataset.py``, ``assets/feature_view.py``), tables themselves (``resources/lake.py``), how an event
gets its tags (``event_log/partition_events.py``).

A bad partition keeps what it held, the others are written, and the run fails naming the bad ones. Where no
partition is good nothing is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import AssetName, table_name
from mlops_assets.assets.failing import failing
from mlops_assets.data.content import content_version, content_versions
from mlops_assets.data.schema import frame_of, typed_table
from mlops_assets.data.sources import WHOLE
from mlops_assets.event_log.partition_events import range_version, report_partitions
from mlops_assets.resources.lake import Lake, TableWrite

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BAD_SHOWN = 5


@dataclass(frozen=True)
class JudgedPartitions:
    """The partitions that a run asked for, and which of them are bad.

    ``asked`` and ``column`` None: the table has no partitions. ``bad`` holds every reason of each bad one,
    under "all" for a table without partitions; ``fault`` is what a bad one is, in words.
    """

    asked: Sequence[str] | None
    column: str | None
    bad: Mapping[str, Sequence[str]]
    fault: str

    @cached_property
    def good(self) -> list[str] | None:
        """The partitions to write; None: the whole table."""
        return None if self.asked is None else [key for key in self.asked if key not in self.bad]

    @property
    def none_good(self) -> bool:
        return bool(self.bad) and not self.good

    def rows(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The frame's rows of good partitions."""
        return frame[frame[self.column].isin(self.good or ())] if self.bad and self.column else frame

    def failure(self, key: dg.AssetKey) -> dg.Failure:
        """What a run with bad partitions ends with."""
        total = 1 if self.asked is None else len(self.asked)
        first = list(self.bad.items())[:BAD_SHOWN]
        shown = [f"{partition}: {'; '.join(why)}" for partition, why in first]
        more = f" (and {len(self.bad) - BAD_SHOWN} more)" if len(self.bad) > BAD_SHOWN else ""
        written = "the others were" if len(self.bad) < total else "nothing was"
        return dg.Failure(
            f"{key.to_user_string()}: {len(self.bad)} of {total} partitions are {self.fault} and keep what "
            f"they held; {written} written. {' | '.join(shown)}{more}",
            metadata={"bad_partitions": list(self.bad)},
            allow_retries=False,
        )


@dataclass(frozen=True)
class GoodRows:
    """Rows of good partitions for one table: as they were judged, and the same in the table's types."""

    asset: AssetName
    judged: JudgedPartitions
    frame: "pd.DataFrame"
    typed: "pa.Table"

    @classmethod
    def of_good(
        cls, asset: AssetName, judged: JudgedPartitions, frame: "pd.DataFrame", schema: "pa.Schema"
    ) -> "GoodRows":
        """Those of ``frame``; DataError for values that would not be kept as they are."""
        good = judged.rows(frame)
        return cls(asset, judged, good, typed_table(good, schema))

    @property
    def key(self) -> dg.AssetKey:
        return asset_key(*self.asset)

    @cached_property
    def _stored(self) -> "pd.DataFrame":
        return frame_of(self.typed)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Content version by partition, those without rows included."""
        if self.judged.good is None or self.judged.column is None:
            return {WHOLE: content_version(self._stored)}
        found = content_versions(self._stored, self.judged.column)
        empty = content_version(self._stored.iloc[:0])
        return {key: found.get(key, empty) for key in self.judged.good}

    @property
    def version(self) -> str:
        """Content version of all of it."""
        one = len(self.versions) == 1
        return next(iter(self.versions.values())) if one else range_version(self.versions)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of rows by partition, those without rows included."""
        if self.judged.good is None or self.judged.column is None:
            return {WHOLE: self.typed.num_rows}
        found = self._stored[self.judged.column].value_counts().to_dict()
        return {key: int(found.get(key, 0)) for key in self.judged.good}


@dataclass(frozen=True)
class PartitionWriter:
    """Writes the good partitions of one run and reports them."""

    context: dg.AssetExecutionContext
    lake: Lake
    judged: JudgedPartitions

    def commit(self, own: GoodRows, *beside: GoodRows) -> list[TableWrite]:
        """One commit per table, of rows that belong together; a Failure, before any, when a table refuses."""
        commit = {"run_id": self.context.run.run_id, "data_version": own.version}
        place: dict[str, Any] = {"partition_column": self.judged.column, "partitions": self.judged.good}
        with failing(own.key):
            for rows in beside:
                self.lake.require_writable(table_name(*rows.asset), rows.typed.schema, **place)
            return [
                self.lake.write(table_name(*rows.asset), rows.typed, commit=commit, **place)
                for rows in (own, *beside)
            ]

    def events(
        self,
        own: GoodRows,
        wrote: TableWrite,
        result: Mapping[str, Any],
        *,
        of_partition: Callable[[str], Mapping[str, Any]] = lambda _: {},
        checks: Sequence[dg.AssetCheckResult] = (),
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """The result where no partition is bad, and an event per partition where one result says too little.

        Metadata: what every table says of a write, and ``result`` or, on a partition's event,
        ``of_partition``.
        """
        good = self.judged.good
        shared = written(wrote)
        if not self.judged.bad:
            count = "dagster/row_count" if good is None else "dagster/partition_row_count"
            yield dg.MaterializeResult(
                asset_key=own.key,
                data_version=dg.DataVersion(own.version),
                metadata={**shared, count: wrote.rows, **result},
                check_results=checks,
            )
        if good is not None and (self.judged.bad or len(good) > 1):
            by_partition = {
                key: {**shared, "dagster/partition_row_count": own.counts[key], **of_partition(key)}
                for key in good
            }
            report_partitions(self.context, own.key, own.versions, by_partition)


def written(wrote: TableWrite) -> dict[str, Any]:
    """Metadata of whatever was written to a table."""
    return {"delta_version": wrote.version, "dagster/uri": wrote.uri}
