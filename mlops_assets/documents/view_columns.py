"""What a feature view says of columns, held against the datasets that have them.

Belongs here: names that stand for nothing or for two things, types that do not fit, windows beyond the look
back; all of it known from documents alone. Pure. Does not belong here: rules within one document (the
validators of ``feature_view.py``), which type can be made of which (``feature_types.py``).
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Protocol

from mlops_assets.data.schema import ColumnType
from mlops_assets.data.sources.stream import StreamSource
from mlops_assets.documents.contradictions import Contradiction
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_types import type_problem
from mlops_assets.documents.feature_view import FeatureViewDeclaration, JoinDeclaration, OnlineDeclaration
from mlops_assets.documents.fields import require_distinct_names
from mlops_assets.errors import UnknownName
from mlops_assets.features.declared import COLUMN_TYPES, stored_columns
from mlops_assets.features.view import CLOCK_CHANGE
from mlops_assets.training.training_set import LABEL, SPLIT

RESERVED = dict.fromkeys((LABEL, SPLIT), "a column of the training set")
"""Names that no feature, key or time can have."""
Path = tuple[str | int, ...]
Found = Iterator[Contradiction]
DAY = timedelta(days=1)


class LocatedDataset(Protocol):
    """A dataset's document that knows where its fields stand."""

    @property
    def declaration(self) -> DatasetDeclaration: ...

    def where(self, *path: str | int) -> str:
        """``file:line`` of a field."""


def view_problem(
    view: FeatureViewDeclaration, datasets: Mapping[str, LocatedDataset]
) -> Contradiction | None:
    """The first thing that the view says wrongly of the columns of its datasets, by name."""
    return next(_View(view, datasets).problems(), None)


def key_problem(key: str, one: LocatedDataset, other: LocatedDataset) -> str:
    """Why no row of one dataset matches a row of the other by the key; "" when they declare it alike."""
    if one.declaration.columns[key] == other.declaration.columns[key]:
        return ""
    declared = " and ".join(
        f"as {dataset.declaration.columns[key]} in dataset {dataset.declaration.name!r} "
        f"({dataset.where('columns', key)})"
        for dataset in (one, other)
    )
    return (
        f"key {key!r} is declared {declared}: no row of one would match a row of the other. Declare it alike "
        "in both."
    )


class _View:
    """The checks of one view, in the order of its document: each takes those before it as passed."""

    def __init__(self, view: FeatureViewDeclaration, datasets: Mapping[str, LocatedDataset]) -> None:
        self._view = view
        self._datasets = datasets
        self._made: dict[str, ColumnType] = {}

    def problems(self) -> Found:
        view = self._view
        yield from self._dataset(view.base, "base")
        for position, key in enumerate(view.entity.join_keys):
            yield from self._column(view.base, key, ("entity", "join_keys", position))
        if view.event_timestamp:
            yield from self._column(view.base, view.event_timestamp, ("event_timestamp",), {"timestamp"})
        self._made = dict(self._base.columns)
        for position, join in enumerate(view.joins):
            yield from self._join(join, ("joins", position))
        for number in range(len(view.rolling)):
            yield from self._rolling(number)
        for position in range(len(view.features)):
            yield from self._feature(position)
        yield from self._names()
        if view.online is not None:
            yield from self._online(view.online)

    @property
    def _base(self) -> DatasetDeclaration:
        return self._datasets[self._view.base].declaration

    def _join(self, join: JoinDeclaration, path: Path) -> Found:
        yield from self._dataset(join.dataset, *path, "dataset")
        other = self._datasets[join.dataset]
        for key in join.keys:
            yield from self._column(self._view.base, key, (*path, "keys"))
            yield from self._column(join.dataset, key, (*path, "keys"))
        for column in join.columns:
            yield from self._column(join.dataset, column, (*path, "columns"))
        if join.timestamp is not None and join.tolerance is not None:
            yield from self._column(join.dataset, join.timestamp, (*path, "timestamp"), {"timestamp"})
            yield from self._lookback(join.tolerance, (*path, "tolerance"))
        elif other.declaration.partitions is not None and self._base.partitions is not None:
            said = (
                f"dataset {join.dataset!r} has partitions, so its rows change over time: declare timestamp "
                "and tolerance for the join"
            )
            yield Contradiction(path, said)
        for key in join.keys:
            if said := key_problem(key, self._datasets[self._view.base], other):
                yield Contradiction((*path, "keys"), said)
        for column in join.columns:
            yield from self._makes(f"{join.prefix}{column}", other.declaration.columns[column], path)

    def _rolling(self, number: int) -> Found:
        one, path = self._view.rolling[number], ("rolling", number)
        for key in one.keys:
            yield from self._column(self._view.base, key, (*path, "keys"))
        yield from self._column(self._view.base, one.known_at, (*path, "known_at"), {"timestamp"})
        if one.value is not None:
            kinds = {"integer", "number", "boolean"}
            yield from self._column(self._view.base, one.value, (*path, "value"), kinds)
        yield from self._lookback(one.window, (*path, "window"))
        yield from self._makes(one.name, "number", path)

    def _feature(self, position: int) -> Found:
        """A name that stands for something and is free, of a type that its column can have."""
        view, path = self._view, ("features", position)
        feature, kept = view.features[position], view.kept(self._base)
        if view.transform is None and feature.name not in self._made:
            unknown = UnknownName("feature", feature.name, self._made, next_step="Or declare a transform.")
            yield Contradiction(path, str(unknown))
        if feature.name in kept and kept[feature.name] != COLUMN_TYPES[feature.type]:
            said = (
                f"feature {feature.name!r} is declared as {feature.type}, and as a column of the base "
                f"that is kept beside the features as {kept[feature.name]}: declare the same, or "
                "give the feature another name in the transform"
            )
            yield Contradiction(path, said)
        if view.transform is None and (said := type_problem(feature, self._made[feature.name])):
            yield Contradiction(path, said)

    def _names(self) -> Found:
        try:
            columns = stored_columns(self._view.kept(self._base), self._view.features)
            require_distinct_names(columns, reserved=RESERVED)
        except ValueError as error:
            yield Contradiction(("features",), str(error))

    def _online(self, online: OnlineDeclaration) -> Found:
        """Whatever an event is looked up by comes with the request, and every row can be told from others."""
        view, path = self._view, ("online", "request")
        for position, name in enumerate(online.request):
            yield from self._column(view.base, name, (*path, position))
            if name in view.entity.join_keys:
                said = f"column {name!r} is a join key: it comes as one, not among the request's columns"
                yield Contradiction((*path, position), said)
        given = {*view.entity.join_keys, *online.request}
        needed = {str(view.event_timestamp): "is the event_timestamp"} if view.event_timestamp else {}
        for join in view.joins:
            needed |= dict.fromkeys(join.keys, f"is a key of the join with dataset {join.dataset!r}")
        for one in view.rolling:
            needed |= dict.fromkeys(one.keys, f"is a key of the rolling {one.name!r}")
        if view.transform is None:
            features = {feature.name for feature in view.features}
            needed |= {name: "is a feature" for name in self._base.columns if name in features}
        for name, why in needed.items():
            if name not in given:
                said = f"column {name!r} {why}, so it has to come with the request: add it"
                yield Contradiction(path, said)
        for position, name in enumerate(online.from_stream):
            yield from self._followed(name, ("online", "from_stream", position))
        rolled = {view.base} if view.rolling else set()
        for name in sorted(rolled | {join.dataset for join in view.joins if join.timestamp}):
            if not self._datasets[name].declaration.primary_key:
                said = (
                    f"dataset {name!r} declares no primary_key ({self._datasets[name].where('name')}), so a "
                    "changed row could not take the place of the old one: declare it"
                )
                yield Contradiction(("online",), said)

    def _followed(self, name: str, path: Path) -> Found:
        """A dataset that is looked up and made of a stream."""
        yield from self._dataset(name, *path)
        looked_up = self._view.looked_up
        if name not in looked_up:
            said = (
                f"nothing of dataset {name!r} is looked up, so its stream has nothing to bring. Looked up: "
                f"{', '.join(looked_up) or 'none'}"
            )
            yield Contradiction(path, said)
        source = self._datasets[name].declaration.source
        if not isinstance(source, StreamSource):
            said = (
                f"dataset {name!r} is made of {source.format} ({self._datasets[name].where('source')}), and "
                "only one with `source: {format: stream, ...}` has rows ahead of its table: leave it out, "
                "its table is followed anyway"
            )
            yield Contradiction(path, said)

    def _makes(self, name: str, kind: ColumnType, path: Path) -> Found:
        """Takes note of a column that a join or an aggregate makes; nothing else may have its name."""
        if name in self._made:
            said = (
                f"column {name!r} is there already, in the base or from an earlier join or aggregate: give "
                "the join a prefix, or the aggregate another name"
            )
            yield Contradiction(path, said)
        self._made[name] = kind

    def _lookback(self, length: timedelta, path: Path) -> Found:
        longest = timedelta(days=self._view.lookback_days) - CLOCK_CHANGE
        if self._base.partitions is not None and length > longest:
            days = -((-length - CLOCK_CHANGE) // DAY)
            said = (
                f"{path[-1]} {length} needs lookback_days of {days} at least (and one more for outcomes that "
                f"become known a day late); declared: {self._view.lookback_days}"
            )
            yield Contradiction(path, said)

    def _dataset(self, name: str, *path: str | int) -> Found:
        if name not in self._datasets:
            yield Contradiction(path, str(UnknownName("dataset", name, self._datasets)))

    def _column(self, name: str, column: str, path: Path, kinds: set[str] | None = None) -> Found:
        """A column of a dataset that is there, and of one of the ``kinds`` (None: of any type)."""
        columns = self._datasets[name].declaration.columns
        if column not in columns:
            yield Contradiction(path, str(UnknownName(f"column of dataset {name!r}", column, columns)))
        elif kinds is not None and columns[column] not in kinds:
            said = (
                f"column {column!r} of dataset {name!r} is a {columns[column]}; here it must be: "
                f"{', '.join(sorted(kinds))}"
            )
            yield Contradiction(path, said)
