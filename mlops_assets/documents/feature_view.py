"""What the YAML of a feature view may say.

Belongs here: the declaration and its own rules. Does not belong here: joins and aggregates
(``features/point_in_time.py``), the assets (``components/feature_view.py``).
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.asset_names import AssetName
from mlops_assets.data.schema import ColumnType
from mlops_assets.documents._base import Declaration
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.fields import (
    Duration,
    Name,
    OneOf,
)
from mlops_assets.features.declared import stored_columns
from mlops_assets.features.point_in_time import Aggregate, RollingAggregate
from mlops_assets.features.view import (
    Join,
    Rolling,
    View,
)
from serve.online.stores import STORES
from serve.schema import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd


class EntityDeclaration(Declaration):
    """What the features are about."""

    name: Name = Field(description="A word for it, like flight.")
    join_keys: tuple[str, ...] = Field(
        min_length=1, description="Columns that identify one row: the same in features, labels and requests."
    )


class JoinDeclaration(Declaration):
    """Columns of another dataset: of its last row known before the event, or by key alone."""

    dataset: str = Field(description="Name of the joined dataset.")
    keys: tuple[str, ...] = Field(min_length=1, description="Columns that are equal in base and dataset.")
    columns: tuple[str, ...] = Field(min_length=1, description="Columns to add.")
    prefix: str = Field(default="", description="Goes before the names of the added columns.")
    timestamp: str | None = Field(
        default=None,
        description="Column that says when a row became known. Left out: rows hold for all time, and the "
        "dataset has one per key.",
    )
    tolerance: Duration | None = Field(
        default=None, description="How old the row may be at the event, like 3h. Goes with timestamp."
    )

    @model_validator(mode="after")
    def _timestamp_and_tolerance_go_together(self) -> "JoinDeclaration":
        if (self.timestamp is None) != (self.tolerance is None):
            raise ValueError("timestamp and tolerance go together")
        return self


class RollingDeclaration(Declaration):
    """One number from the earlier base rows that had become known in a window before the event."""

    name: Name = Field(description="Name of the column it makes.")
    keys: tuple[str, ...] = Field(
        default=(), description="Rows with the same values as the event count; none: all rows do."
    )
    value: str | None = Field(default=None, description="Column that is aggregated; count needs none.")
    known_at: str = Field(description="Column that says when the row (its value) became known.")
    window: Duration = Field(description="How far back from the event, like 2h or 14d.")
    aggregate: Aggregate = Field(description="mean, sum, count, share, max or last.")
    above: float | None = Field(default=None, description="share only: counts rows whose value is greater.")

    @model_validator(mode="after")
    def _arguments_fit_the_aggregate(self) -> "RollingDeclaration":
        if self.aggregate != "count" and self.value is None:
            raise ValueError(f"aggregate {self.aggregate} needs a value")
        if (self.aggregate == "share") != (self.above is not None):
            raise ValueError("aggregate share needs above, and only share takes it")
        return self


class OnlineDeclaration(Declaration):
    """How the features of a view are looked up and computed for a caller who sends keys."""

    store: Annotated[str, OneOf(STORES)] = Field(
        default="sqlite", description="Where rows per key lie: sqlite (one host), redis (many), feast."
    )
    request: tuple[str, ...] = Field(
        min_length=1, description="Columns of the base that come with the request, beside the join keys."
    )
    transform: str | None = Field(
        default=None,
        description="Dotted path of the view's transform for one row: a mapping in, a mapping out. Its "
        "module uses the standard library only. Goes with the view's transform.",
    )
    from_stream: tuple[str, ...] = Field(
        default=(),
        description="Datasets of streams whose rows come straight from their stream, before the dataset has "
        "them. Left out: from the tables of all datasets.",
    )
    stale_after: Duration = Field(
        default=timedelta(days=2), description="Age from which the store counts as stale."
    )
    when_stale: Literal["answer", "refuse"] = Field(
        default="answer",
        description="What a request gets while the store is stale or lost: its answer, or 503.",
    )
    keep: Duration = Field(
        default=timedelta(days=1), description="How long before the newest row an event may lie."
    )


class FeatureViewDeclaration(Declaration):
    """Attributes of a ``FeatureViewComponent`` document."""

    name: Name
    description: str = ""
    entity: EntityDeclaration = Field(description="What a row is about.")
    base: str = Field(description="Dataset with one row per event; partitions are taken from it.")
    event_timestamp: str | None = Field(
        default=None,
        description="Column of the base with the time of the event, before which everything must be known.",
    )
    joins: tuple[JoinDeclaration, ...] = Field(default=(), description="Columns of other datasets.")
    rolling: tuple[RollingDeclaration, ...] = Field(default=(), description="Aggregates of earlier rows.")
    lookback_days: int = Field(
        default=0, ge=0, le=90, description="How many earlier days are read: the longest window, and a day."
    )
    transform: str | None = Field(
        default=None,
        description="Dotted path of a function DataFrame -> DataFrame, row by row, on the joined frame.",
    )
    features: tuple[FeatureSpec, ...] = Field(
        min_length=1, description="The features: name, type, nullable, minimum, maximum, example, ..."
    )
    online: OnlineDeclaration | None = Field(
        default=None, description="Callers may send keys; replicas look the rest up. Left out: they may not."
    )

    @model_validator(mode="after")
    def _names_are_unique_and_times_there(self) -> "FeatureViewDeclaration":
        for what, names in (
            ("features", [feature.name for feature in self.features]),
            ("rolling", [one.name for one in self.rolling]),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{what} declared twice: {', '.join(repeated)}")
        timed = [f"join with {join.dataset}" for join in self.joins if join.timestamp] + [
            f"rolling {one.name}" for one in self.rolling
        ]
        if timed and self.event_timestamp is None:
            raise ValueError(f"event_timestamp is needed by: {', '.join(timed)}")
        if self.online is not None and (self.online.transform is None) != (self.transform is None):
            raise ValueError(
                "online.transform and transform go together: a view with a transform needs it for one row too"
            )
        return self

    @property
    def looked_up(self) -> list[str]:
        """The datasets that rows are looked up in: the base where they are aggregated, and what is joined."""
        return list(
            dict.fromkeys([*([self.base] if self.rolling else []), *(one.dataset for one in self.joins)])
        )

    def kept(self, base: DatasetDeclaration) -> dict[str, ColumnType]:
        """Columns of the base that stand beside the features, by type: keys, time of the event, partition."""
        partition = base.partitions.column if base.partitions else None
        names = [*self.entity.join_keys, self.event_timestamp, partition]
        return {name: base.columns[name] for name in names if name is not None}

    def table(self, base: DatasetDeclaration) -> DeclaredTable:
        """The view's table, as declared."""
        columns = stored_columns(self.kept(base), self.features)
        return DeclaredTable(AssetName("features", self.name), tuple(columns), base.partitions)

    def computed_as(
        self, lookback: timedelta | None, transform: "Callable[[pd.DataFrame], pd.DataFrame] | None"
    ) -> View:
        """The same declaration for ``features/view.py``."""
        return View(
            event_timestamp=self.event_timestamp,
            joins=[
                Join(join.dataset, join.keys, join.columns, join.timestamp, join.tolerance, join.prefix)
                for join in self.joins
            ],
            rolling=[
                Rolling(
                    one.name,
                    RollingAggregate(one.keys, one.known_at, one.window, one.aggregate, one.value, one.above),
                )
                for one in self.rolling
            ],
            lookback=lookback,
            transform=transform,
        )
