"""Stores of online features beside each other: size, filling, look-ups, what a large commit does to others.

Belongs here: the same content in each kind of store. Does not belong here: what computing costs
(``bench/by_key.py``). Redis is the server of the tests, on this machine, over TCP; ``--redis-server PROGRAM``
takes another one, like Debian's. ``--feast``, in the environment of ``make test-feast``: Feast on its SQLite.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.by_key import NOW, flights_of_december, requests_of_the_last_day
from mlops_assets.assets.online_examples import with_examples
from mlops_assets.assets.online_filling import fill
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.testing.redis_server import RedisServer, running_redis
from serve.online.applying import Change, changed
from serve.online.evaluate import EventColumns
from serve.online.held import HEAD, Head, HeldView
from serve.online.kept import KeptStore
from serve.online.lookup import OnlineFeatures
from serve.online.request import KeyedRow, held_event
from serve.online.stores import STORES, OnlineStore, feast
from serve.online.stores.redis import VARIABLE
from serve.schema import OnlineRolling, OnlineView

KEYS, EVENTS = 1_000, 1_000
MINUTE = 60_000_000
LOOK_UPS = 5_000
LARGE = 100_000
HISTORY = OnlineView(
    name="history",
    store="sqlite",
    base="events",
    event_timestamp="at",
    columns={"id": "integer", "key": "string", "at": "timestamp"},
    entity=("id",),
    request=("key", "at"),
    rolling=(
        OnlineRolling(
            name="mean",
            keys=("key",),
            known_at="at",
            window_us=EVENTS * MINUTE,
            aggregate="mean",
            value="amount",
        ),
    ),
    stale_after_s=60,
)
Numbers = Mapping[str, float]
Size = Callable[[str], int]
"""Bytes that the store of a view takes."""


def cost_of_history(kind: type[OnlineStore], folder: Path, size: Size) -> Numbers:
    """Bytes per event, filling and one look-up of a store with ``KEYS`` keys of ``EVENTS`` events each."""
    held, store = HeldView(HISTORY), kind(str(folder), view="history")
    begun = time.perf_counter()
    changes = [
        Change(
            "events", (number * EVENTS + event,), {"key": f"k{number}", "at": event * MINUTE, "amount": 0.1}
        )
        for number in range(KEYS)
        for event in range(EVENTS)
    ]
    puts = changed(held, changes, _nothing, since=None)
    made = time.perf_counter() - begun
    begun = time.perf_counter()
    store.commit(puts, head=Head({"events": 0}, 0.0).to_bytes(), expected=None)
    written = time.perf_counter() - begun
    runs = sum(len(value) for key, value in puts.items() if value and not key.startswith("="))
    times = _timed(lambda number: store.read([HEAD, f'0:["k{number % KEYS}"]']))
    return {
        "1,000 keys of 1,000 events: bytes per event": size("history") / KEYS / EVENTS,
        "of which the run that is looked up": runs / KEYS / EVENTS,
        "making what it holds (s)": made,
        "writing it in one commit (s)": written,
        "reading one run of 1,000 events: p50 (ms)": float(np.quantile(times, 0.5)),
        "p99 of it (ms)": float(np.quantile(times, 0.99)),
    }


def cost_of_flights(name: str, folder: Path, lake: Lake, served: Any) -> Numbers:
    """Filling the flights store and one request's look-up, computing included: wall time."""
    stores = OnlineStores(uri=str(folder))
    view = served.online.model_copy(update={"store": name})
    begun = time.perf_counter()
    fill(lake, stores.of(view), served, now=NOW)
    took = time.perf_counter() - begun
    store = stores.of(view)
    view = with_examples(lake, served, until="2013-12-20").model_copy(update={"store": name})
    # Nothing is kept between requests: each reads all its keys.
    kept = KeptStore(EventColumns(HeldView(view)), store, most=0)
    online = OnlineFeatures(view, served.table.declared.features, kept, NOW.timestamp)
    requests = requests_of_the_last_day(lake, view)
    times = _timed(lambda number: online.look_up([requests[number % len(requests)]], lambda _: "request"))
    read = [_keys_of(view, one) for one in requests[:50]]
    reads = _timed(lambda number: store.read(read[number % len(read)]))
    return {
        "filling the flights store (s)": took,
        "keys of one flights request": float(np.mean([len(keys) for keys in read])),
        "reading them: p50 (ms)": float(np.quantile(reads, 0.5)),
        "p99 (ms)": float(np.quantile(reads, 0.99)),
        "a row of features from them: p50 (ms)": float(np.quantile(times, 0.5)),
        "p99 of it, computed (ms)": float(np.quantile(times, 0.99)),
    }


def cost_to_others(kind: type[OnlineStore], folder: Path) -> Numbers:
    """The longest that a reader waited while another process committed ``LARGE`` values of 200 bytes."""
    store = kind(str(folder), view="large")
    first = {f"key {number}": os.urandom(200) for number in range(LARGE)}
    second = {key: os.urandom(200) for key in first}
    store.commit(first, head=b"1", expected=None)
    found: dict[str, float] = {}
    forked = multiprocessing.get_context("fork")
    for head, expected, clear, what in (
        (b"2", b"1", False, "changes"),
        (b"3", b"2", True, "replaces"),
    ):
        writer = forked.Process(
            target=_commit, args=(kind, str(folder), second, head, expected, clear), daemon=True
        )
        store.read([HEAD, "key 1"])
        times = []
        begun = time.perf_counter()
        writer.start()
        while writer.is_alive():
            asked = time.perf_counter()
            store.read([HEAD, "key 1", "key 2", "key 3"])
            times.append((time.perf_counter() - asked) * 1e3)
        writer.join()
        assert store.read([HEAD]) == [head]
        found[f"a commit that {what} 100,000 values (s)"] = time.perf_counter() - begun
        found[f"the longest that a reader waited while it {what} (ms)"] = max(times)
    return found


def _commit(kind: Any, uri: str, puts: Any, head: bytes, expected: bytes, clear: bool) -> None:
    kind(uri, view="large").commit(puts, head=head, expected=expected, clear=clear)


def _keys_of(view: OnlineView, sent: KeyedRow) -> list[str]:
    """The keys that the look-up of a request reads."""
    event_columns = EventColumns(HeldView(view))
    places = event_columns.places(held_event(view, sent.entity, sent.request))
    return [HEAD, *(event_columns.key(place) for place in places if place is not None)]


def _timed(work: Callable[[int], Any]) -> list[float]:
    """Milliseconds of wall time of each."""
    times = []
    for number in range(LOOK_UPS):
        begun = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def _nothing(keys: Sequence[str]) -> list[bytes | None]:
    return [None] * len(keys)


@contextmanager
def _places(program: str) -> Iterator[Mapping[str, tuple[Path, Size]]]:
    with tempfile.TemporaryDirectory() as made, running_redis(program=program) as server:
        os.environ[VARIABLE] = server.url
        folder = Path(made)

        def file_size(view: str) -> int:
            return (folder / f"{view}.sqlite").stat().st_size

        yield {"sqlite": (folder, file_size), "redis": (folder, lambda view: _memory(server, view))}


def _memory(server: RedisServer, view: str) -> int:
    with server.client() as client:
        return int(client.memory_usage(f"mlops:online:{{{view}}}:base", samples=0))


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the table: one column per store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-server", default="", help="the program of another Redis or Valkey")
    parser.add_argument("--feast", action="store_true", help="Feast alone, and the flights alone")
    given = parser.parse_args(arguments)
    with _places(given.redis_server) as places, tempfile.TemporaryDirectory() as folder:
        lake = Lake(uri=f"{folder}/lake")
        served = flights_of_december(lake)
        if given.feast:
            _feast_repository(Path(folder))
            _show({"feast": cost_of_flights("feast", Path(folder), lake, served)})
            return
        columns = {
            name: {
                **cost_of_flights(name, place, lake, served),
                **cost_of_history(STORES[name], place, size),
                **cost_to_others(STORES[name], place),
            }
            for name, (place, size) in places.items()
        }
    _show(columns)


def _feast_repository(folder: Path) -> None:
    (folder / "feature_store.yaml").write_text(
        f"""\
project: mlops
provider: local
registry: {folder}/registry.db
online_store: {{type: sqlite, path: {folder}/online.db}}
entity_key_serialization_version: 3
"""
    )
    os.environ[feast.VARIABLE] = str(folder)


def _show(columns: Mapping[str, Numbers]) -> None:
    table = Table(title="Stores of online features", title_justify="left")
    table.add_column("what")
    for name in columns:
        table.add_column(name, justify="right")
    for what in next(iter(columns.values())):
        values = (columns[name][what] for name in columns)
        table.add_row(what, *(f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
