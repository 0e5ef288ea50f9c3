"""Tables as their documents declare them: no column and no day of an earlier declaration.

Belongs here: reading what is declared of a table. Does not belong here: tables and their versions
(``resources/lake.py``), what a document declares (``dataset.py``, ``feature_view.py``).

A table keeps what was written to it: columns that are declared no more stay in the partitions that nobody
made anew, and so do days from before a later ``start``. Whoever reads rows of a table reads it through here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import AssetName, table_name
from mlops_assets.documents.fields import DailyPartitions
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DeclaredTable:
    """The asset that writes a table, its columns and days.

    Without a document (``columns`` is None: plain definitions make it) it is all that the table holds.
    """

    asset: AssetName
    columns: tuple[str, ...] | None = None
    partitions: DailyPartitions | None = None

    @property
    def key(self) -> dg.AssetKey:
        """The key of the asset that writes it."""
        return asset_key(*self.asset)

    @property
    def name(self) -> str:
        """What the lake calls it."""
        return table_name(*self.asset)

    def read(
        self, lake: Lake, *, columns: Sequence[str] | None = None, version: int | None = None
    ) -> "pd.DataFrame":
        """The declared rows, now or at ``version``: ``columns`` of them, or all declared ones it has yet."""
        if columns is None and self.columns is not None:
            held = set(lake.columns(self.name, version=version).names)
            columns = [column for column in self.columns if column in held]
        if self.partitions is None:
            return lake.read(self.name, columns=columns, version=version)
        day = self.partitions.column
        also = columns is not None and day not in columns
        frame = lake.read(self.name, columns=[*(columns or ()), day] if also else columns, version=version)
        declared = frame[day].map(self.partitions.declares).to_numpy(dtype=bool)
        if not declared.all():
            frame = frame[declared].reset_index(drop=True)
        return frame.drop(columns=day) if also else frame
