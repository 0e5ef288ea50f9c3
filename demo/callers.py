"""What the callers of the flights endpoint ask: one request per flight, at its scheduled departure.

Belongs here: the requests of a span of days, with features made by the declared functions from the raw files,
as a caller would who knows what was known before departure; and what became of each flight. Does not belong
here: sending them (``traffic.py``), the platform's own tables.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets import defs
from mlops_assets.data.loading import Source, load
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import StackError
from mlops_assets.features.declared import declare
from mlops_assets.features.view import compute
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    import pandas as pd

DECLARATIONS = Path(defs.__file__).parent / "flights" / "defs.yaml"
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Ask:
    """One request: when it is made, about which flight, with which features; ``label`` is what came of it
    (1 late, 0 on time, None: it never arrived as planned), which nobody knows yet.
    """

    at: datetime
    flight_id: str
    features: Mapping[str, Any]
    label: int | None

    def body(self, without: Sequence[str] = ()) -> bytes:
        """The request as sent; features named in ``without`` are missing in it."""
        features = {name: None if name in without else value for name, value in self.features.items()}
        return json.dumps({"features": features, "entity": {"flight_id": self.flight_id}}).encode()


class Flights:
    """The flights of 2013 as the documents in a file describe them."""

    def __init__(self, documents: Path = DECLARATIONS) -> None:
        self._file = documents

    def asks(self, first: date, last: date) -> dict[date, list[Ask]]:
        """Requests by UTC day from ``first`` to ``last``, each day in the order of departure.

        Raises StackError when a value breaks the declaration: the endpoint would refuse it.
        """
        view = self._view
        # Departures of a UTC day belong to two local days; aggregates look back on earlier ones.
        days = _days(first - ONE_DAY, last + ONE_DAY)
        read = _days(first - timedelta(days=view.lookback_days + 2), last + ONE_DAY)
        base = self._rows(view.base, read)
        joined = {join.dataset: self._rows(join.dataset, read) for join in view.joins}
        asked = base[self._partition_column(view.base)].isin(days).to_numpy(dtype=bool)
        transform = _function(view.transform) if view.transform else None
        how = view.computed_as(timedelta(days=view.lookback_days), transform)
        computed = compute(how, base, joined, events=asked)
        time, key = str(view.event_timestamp), view.entity.join_keys[0]
        # A flight without a schedule is one that nobody can ask about; the platform's quarantine has it too.
        required = [feature.name for feature in view.features if not feature.nullable]
        whole = computed[required].notna().all(axis=1).to_numpy(dtype=bool)
        made = declare(computed[whole], view.features, keep=view.kept(self._datasets[view.base]))
        if made.problems:
            raise StackError(f"a caller's features break their declaration: {made.problems[0]}")
        labels = self._labels(base[asked][whole])
        found: dict[date, list[Ask]] = {day: [] for day in map(date.fromisoformat, _days(first, last))}
        for ask in _asks(made.frame, time, key, [feature.name for feature in view.features], labels):
            if ask.at.date() in found:
                found[ask.at.date()].append(ask)
        for of_day in found.values():
            of_day.sort(key=lambda ask: (ask.at, ask.flight_id))
        return found

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The predictions that may come back."""
        return tuple(self._model.classes or ())

    @cached_property
    def weather(self) -> tuple[str, ...]:
        """The features that come from the callers' weather feed."""
        names = {column for join in self._view.joins if join.dataset == "weather" for column in join.columns}
        return tuple(feature.name for feature in self._view.features if feature.name in names)

    @cached_property
    def most_requests(self) -> int:
        """How many requests the most demanding step of a rollout wants to see."""
        (declared,) = self._declared("DeploymentComponent")
        return max(step.min_requests for step in DeploymentDeclaration(**declared).plan().steps)

    def _labels(self, flights: "pd.DataFrame") -> list[int | None]:
        function = _function(str(self._model.label.function))
        return [None if value else int(late) for late, value in _with_missing(function(flights))]

    def _rows(self, name: str, days: Sequence[str]) -> "pd.DataFrame":
        declared = self._datasets[name]
        column = self._partition_column(name)
        transform = _function(declared.transform) if declared.transform else None
        source = Source(declared.source.reader(self._file.parent), transform)
        loaded = load(
            source,
            declared.columns,
            partition_column=column,
            partitions=days if column else None,
            lake=Lake(uri="unused"),
        )
        return loaded.frame

    def _partition_column(self, name: str) -> str | None:
        partitions = self._datasets[name].partitions
        return partitions.column if partitions else None

    @cached_property
    def _documents(self) -> list[dict[str, Any]]:
        import yaml

        return list(yaml.safe_load_all(self._file.read_text(encoding="utf-8")))

    def _declared(self, kind: str) -> list[dict[str, Any]]:
        return [one["attributes"] for one in self._documents if one["type"].endswith(f".{kind}")]

    @cached_property
    def _datasets(self) -> dict[str, DatasetDeclaration]:
        return {one["name"]: DatasetDeclaration(**one) for one in self._declared("DatasetComponent")}

    @cached_property
    def _view(self) -> FeatureViewDeclaration:
        (declared,) = self._declared("FeatureViewComponent")
        return FeatureViewDeclaration(**declared)

    @cached_property
    def _model(self) -> ModelDeclaration:
        (declared,) = self._declared("ModelComponent")
        return ModelDeclaration(**declared)


def by_hour(asks: Sequence[Ask]) -> Iterator[tuple[datetime, list[Ask]]]:
    """The requests of each hour, with the hour's last moment of asking; hours without any are left out."""
    found: dict[datetime, list[Ask]] = {}
    for ask in asks:
        found.setdefault(ask.at.replace(minute=0, second=0, microsecond=0), []).append(ask)
    for hour in sorted(found):
        yield max(ask.at for ask in found[hour]), found[hour]


def _asks(
    frame: "pd.DataFrame", time: str, key: str, names: Sequence[str], labels: Sequence[int | None]
) -> Iterator[Ask]:
    columns = []
    for name in names:
        values = frame[name]
        columns.append(
            [None if gone else value for value, gone in zip(values.tolist(), values.isna(), strict=True)]
        )
    times = [at.to_pydatetime() for at in frame[time].dt.tz_convert(UTC)]
    for at, flight, row, label in zip(
        times, frame[key].tolist(), zip(*columns, strict=True), labels, strict=True
    ):
        yield Ask(at, str(flight), dict(zip(names, row, strict=True)), label)


def _with_missing(values: "pd.Series[Any]") -> Iterator[tuple[Any, bool]]:
    return zip(values.tolist(), values.isna().tolist(), strict=True)


def _days(first: date, last: date) -> list[str]:
    """Partition keys from first to last, both included."""
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _function(dotted: str) -> Callable[..., Any]:
    module, _, name = dotted.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
