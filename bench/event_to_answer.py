"""From an event on a topic to an answer over HTTP that knows of it, and what keeping a store so close costs.

Belongs here: a broker, a consumer (or runs), a gateway and a caller, each a process of its own; fills of the
flights view from a stream of departures and arrivals. Does not belong here: reading a topic by itself
(``bench/streams.py``), one look-up (``bench/by_key.py``).

The stream holds the last weeks of December, two records a flight. The caller reports the departure of an
aircraft that nobody knew, and asks for a flight of it until the answer has its delay. Runs are made at the
intervals of the platform's sensors, one process that is warm.
"""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.by_key import declared_flights, flights_of_december
from mlops_assets.assets.feature_view import feature_table
from mlops_assets.assets.followed_rows import FollowedDataset
from mlops_assets.assets.ingest import DeclaredStream, behind, ingesting
from mlops_assets.assets.online_filling import fill
from mlops_assets.assets.online_table import OnlineTable, online_table
from mlops_assets.commands.following import Followers
from mlops_assets.commands.streaming import consume
from mlops_assets.data.sources.stream import StreamSource
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.testing.kafka_broker import KafkaBroker, running_kafka_broker
from mlops_assets.testing.ports import unused_ports
from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import LocalVersion, routing
from serve.schema import ModelManifest

NOW = datetime(2013, 12, 31, 20, tzinfo=UTC)
FIRST = "2013-12-12"
EVENTS, SEED = 60, 20261130
SENSOR_S, AUTOMATION_S = 30.0, 10.0
SEEN = "plane_dep_delay_24h"
TIMES = ("scheduled_departure", "scheduled_arrival", "departed_at", "arrived_at")
OUTCOME = ("arrived_at", "arr_delay")


def newest_of_each(records: pd.DataFrame) -> pd.DataFrame:
    """One row per flight: what its last record says."""
    return records.sort_values("offset").drop_duplicates("flight_id", keep="last")


def followed_flights(every: str) -> OnlineTable:
    """The flights view, its flights from a stream."""
    plain = declared_flights()
    base = plain.table.base
    columns = {name: kind for name, kind in base.columns.items() if name != "flight_date"}
    stream = StreamDeclaration.model_validate(
        {
            "name": "flight_events",
            "topic": "flights",
            "bootstrap_servers": "BENCH_BROKER",
            "value": {"format": "json"},
            "columns": columns,
            "event_time": "scheduled_departure",
            "read_by": "consumer",
            "every": every,
        }
    )
    flights = DatasetDeclaration.model_validate(
        {
            "name": "flights",
            "source": StreamSource(format="stream", stream="flight_events"),
            "partitions": {"start": FIRST, "column": "event_date"},
            "transform": "bench.event_to_answer.newest_of_each",
            "columns": {**columns, "event_date": "string"},
            "primary_key": ["flight_id"],
            "row_rules": [rule.model_dump() for rule in base.row_rules],
            "max_quarantine_share": base.max_quarantine_share,
        }
    )
    declared = plain.table.declared
    online = declared.online.model_copy(update={"from_stream": ("flights",)}) if declared.online else None
    view = declared.model_copy(update={"online": online})
    table = feature_table(view, {**plain.table.datasets, "flights": flights}, plain.table.view.transform)
    followed = {"flights": FollowedDataset(flights, stream, newest_of_each)}
    return online_table(table, plain.online.transform, followed)


def flown(lake: Lake) -> list[dict[str, Any]]:
    """Departures and arrivals of the last weeks, as records."""
    frame = lake.read("datasets/flights").drop(columns="flight_date")
    frame = frame[frame["scheduled_departure"] >= pd.Timestamp(FIRST, tz="UTC")]
    frame = frame[frame["scheduled_departure"] < pd.Timestamp(NOW)].sort_values("scheduled_departure")
    rows = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    departed = [{**row, **dict.fromkeys(OUTCOME)} for row in rows if not row["cancelled"]]
    return [{"value": json.dumps(row).encode(), "partition": 0} for row in (*departed, *rows)]


@dataclass(frozen=True)
class Place:
    """Where everything of a measurement lies."""

    folder: Path
    served: OnlineTable
    gateway: str

    @property
    def lake(self) -> Lake:
        return Lake(uri=str(self.folder / "lake"))

    @property
    def stores(self) -> OnlineStores:
        return OnlineStores(uri=str(self.folder / "online"))

    @property
    def clock(self) -> Clock:
        return Clock(file=str(self.folder / "now"))

    @property
    def source(self) -> DeclaredStream:
        return DeclaredStream(self.served.followed["flights"].stream, self.folder)


def costs(place: Place) -> Mapping[str, float]:
    """CPU seconds of fills of the store, in this process."""

    def took(work: Callable[[], object]) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    def filling() -> object:
        return fill(place.lake, place.stores.of(place.served.online), place.served, now=NOW)

    found = {"filling the store from the stream (s)": took(filling)}
    found["with nothing new (s)"] = float(np.median([took(filling) for _ in range(5)]))
    times = []
    for number in range(8):
        KafkaBroker(os.environ["BENCH_BROKER"]).produce("flights", [departure(f"cost{number}", 1.0)])
        with ingesting(place.lake, place.source, "bench", place.clock.seconds) as ingest:
            ingest.commit_next(lambda _, at_end: at_end)
        times.append(took(filling))
    found["with one departure of a day of 900 flights (s)"] = float(np.median(times))
    return found


def departure(tailnum: str, delay: float) -> dict[str, Any]:
    """An aircraft that just left, as a record."""
    row = {
        "flight_id": f"bench-{tailnum}",
        "scheduled_departure": "2013-12-31T18:00:00Z",
        "scheduled_arrival": "2013-12-31T21:00:00Z",
        "departed_at": "2013-12-31T18:05:00Z",
        "carrier": "UA",
        "flight_number": 1,
        "tailnum": tailnum,
        "origin": "EWR",
        "dest": "IAH",
        "distance": 1400,
        "scheduled_duration_min": 180.0,
        "dep_delay": delay,
        "cancelled": False,
    }
    return {"value": json.dumps(row).encode(), "partition": 0}


class Telling(LocalVersion):
    """A model whose prediction is one of its features."""

    async def score_rows(self, rows: Sequence[Any], *, timeout_s: float) -> Any:
        return [-1.0 if row[SEEN] is None else float(row[SEEN]) for row in rows]


def gateway(place: Place) -> None:
    """Answers over HTTP until it is ended."""
    import asyncio

    import uvicorn

    site = Site("regression", online_uri=place.stores.uri, wall_clock=lambda: place.clock.seconds())
    manifest: ModelManifest = site.v1.manifest
    telling = Telling("v1", *_payload(site))
    telling.manifest = manifest.model_copy(
        update={
            "features": place.served.table.declared.features,
            "entity": place.served.online.entity,
            "online": place.served.online,
        }
    )
    site.versions.applications["flights--v1"] = telling

    async def run() -> None:
        await site.declare(routing())
        host, _, port = place.gateway.removeprefix("http://").partition(":")
        config = uvicorn.Config(site.endpoint, host=host, port=int(port), log_level="error", lifespan="off")
        await uvicorn.Server(config).serve()

    asyncio.run(run())


def _payload(site: Site) -> tuple[ModelManifest, bytes]:
    from mlops_assets.testing.site import MODELS

    return MODELS["regression"]


def consuming(place: Place) -> None:
    """The consumer, until it is ended."""
    import dagster as dg

    followers = Followers("flight_events", [place.served], place.stores, place.clock, _quiet)
    with dg.DagsterInstance.ephemeral() as instance:
        consume(place.source, place.lake, instance, threading.Event(), _quiet, followers)


def running(place: Place) -> None:
    """Runs at the platform's intervals: a look each 30 s, and what follows a materialisation each 10 s."""
    while True:
        begun = time.monotonic()
        _, lags = behind(place.lake, place.source)
        if any(lags.values()):
            with ingesting(place.lake, place.source, "bench", place.clock.seconds) as ingest:
                ingest.commit_next(lambda _, at_end: at_end)
            time.sleep(AUTOMATION_S - (time.monotonic() - begun) % AUTOMATION_S)
            fill(place.lake, place.stores.of(place.served.online), place.served, now=NOW)
        time.sleep(max(0.0, SENSOR_S - (time.monotonic() - begun)))


def _quiet(line: str) -> None:
    del line


FORKED = multiprocessing.get_context("fork")
"""No process that forks opens a table or a client itself: neither survives that."""


@contextmanager
def processes(*works: Callable[[], None]) -> Iterator[None]:
    """These works, each in a process, until the block ends."""
    started = [FORKED.Process(target=work, daemon=True) for work in works]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.join()


def done(work: Callable[[], Any]) -> Any:
    """What a work gives, in a process of its own; RuntimeError when that fails."""
    came, goes = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=lambda: goes.send(work()))
    process.start()
    goes.close()
    try:
        return came.recv()
    except EOFError:
        raise RuntimeError("a process of the measurement failed; its error stands above") from None
    finally:
        process.join()


def waits(place: Place, name: str, spread_s: float) -> list[float]:
    """Seconds from the broker's receipt of each event to the first answer that has it."""
    random_ = random.Random(SEED)  # noqa: S311 - the same each time
    due = sorted(random_.uniform(0, spread_s) for _ in range(EVENTS))
    sent: dict[str, tuple[float, float]] = {}
    found: list[float] = []

    def produce() -> None:
        broker, begun = KafkaBroker(os.environ["BENCH_BROKER"]), time.monotonic()
        for number, at in enumerate(due):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            tailnum, delay = f"{name}{number}", float(number + 1)
            broker.produce("flights", [departure(tailnum, delay)])
            sent[tailnum] = (time.monotonic(), delay)

    producing = threading.Thread(target=produce)
    producing.start()
    with httpx.Client(base_url=place.gateway, timeout=30) as client:
        while producing.is_alive() or sent:
            asked = dict(list(sent.items())[:40])
            if asked:
                predictions = _asked(client, list(asked))
                now = time.monotonic()
                for (tailnum, (at, delay)), seen in zip(asked.items(), predictions, strict=True):
                    if seen == delay:
                        found.append(now - at)
                        del sent[tailnum]
            time.sleep(0.02)
    return found


def _asked(client: httpx.Client, tailnums: Sequence[str]) -> list[float]:
    request = {
        "scheduled_departure": NOW.isoformat(),
        "scheduled_arrival": "2013-12-31T23:00:00Z",
        "carrier": "UA",
        "flight_number": 2,
        "origin": "EWR",
        "dest": "IAH",
        "distance": 1400,
    }
    body = {
        "entities": [{"flight_id": one} for one in tailnums],
        "requests": [{**request, "tailnum": one} for one in tailnums],
    }
    answer = client.post("/batch-predict", json=body)
    answer.raise_for_status()
    return [float(one["prediction"]) for one in answer.json()["predictions"]]


def _ready(place: Place) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{place.gateway}/ready").raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the table; about six minutes, of which most is waiting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("costs", "1s", "5s", "runs"), default=None)
    part = parser.parse_args(arguments).part
    table = Table(title="From an event to an answer", title_justify="left")
    table.add_column("what")
    table.add_column("", justify="right")
    with running_kafka_broker() as broker, tempfile.TemporaryDirectory(prefix="mlops-bench-") as name:
        os.environ["BENCH_BROKER"] = broker.address
        (Path(name) / "now").write_text(NOW.isoformat())
        address = f"http://127.0.0.1:{unused_ports(1)[0]}"
        places = {every: Place(Path(name), followed_flights(every), address) for every in ("1s", "5s")}
        done(lambda: prepare(places["1s"]))
        if part in (None, "costs"):
            for what, value in done(lambda: costs(places["1s"])).items():
                table.add_row(what, f"{value:.3f}")
        for what, spread_s in (("1s", 60.0), ("5s", 60.0), ("runs", 150.0)):
            if part in (None, what):
                for said, value in measured(places.get(what, places["1s"]), what, spread_s).items():
                    table.add_row(said, f"{value:.2f}")
    Console().print(table)


def measured(place: Place, what: str, spread_s: float) -> Mapping[str, float]:
    """p50 and p99 of one way to fill."""
    filler = running if what == "runs" else consuming
    with processes(lambda: gateway(place), lambda: filler(place)):
        found = done(lambda: _waited(place, what, spread_s))
    called = "runs" if what == "runs" else f"consumer, a commit each {what}"
    p50, p99 = np.quantile(found, [0.5, 0.99])
    return {f"{called}: p50 (s)": float(p50), f"{called}: p99 (s)": float(p99)}


def _waited(place: Place, what: str, spread_s: float) -> list[float]:
    _ready(place)
    _first(place)
    return waits(place, what, spread_s)


def _first(place: Place) -> None:
    """Waits until the filler is at work: one event is in an answer."""
    KafkaBroker(os.environ["BENCH_BROKER"]).produce("flights", [departure("first", 7.0)])
    with httpx.Client(base_url=place.gateway, timeout=30) as client:
        while _asked(client, ["first"]) != [7.0]:
            time.sleep(0.1)


def prepare(place: Place) -> None:
    """The topic and its table, as after weeks of it."""
    flights_of_december(place.lake)
    broker = KafkaBroker(os.environ["BENCH_BROKER"])
    broker.create("flights", 1)
    broker.produce("flights", flown(place.lake))
    with ingesting(place.lake, place.source, "bench", place.clock.seconds) as ingest:
        ingest.commit_next(lambda _, at_end: at_end)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
