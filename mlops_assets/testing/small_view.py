"""A small view that is served by key, and its store: where the features of ``small_models.py`` come from.

Belongs here: the view, what a caller sends, rows for its store. Does not belong here: models
(``small_models.py``), an endpoint over them (``site.py``).
"""

from pathlib import Path
from typing import Any

from serve.online.applying import Change, changed
from serve.online.held import Head, HeldView
from serve.online.stores import STORES, OnlineStore
from serve.schema import OnlineExample, OnlineJoin, OnlineRolling, OnlineTransform, OnlineView

HOUR = 3_600_000_000
AT = 1_388_520_000_000_000  # 2013-12-31T20:00:00Z
SOURCE = """
def features(row):
    return {**row, "hour": row["at"].hour, "weekend": row["at"].weekday() > 4}
"""
VIEW = OnlineView(
    name="flights",
    store="sqlite",
    base="flights",
    event_timestamp="at",
    columns={"flight": "integer", "at": "timestamp", "carrier": "string", "origin": "string"},
    entity=("flight",),
    request=("at", "carrier", "origin"),
    joins=(
        OnlineJoin(dataset="routes", keys=("origin",), columns=("distance",), kinds={"distance": "number"}),
    ),
    rolling=(
        OnlineRolling(
            name="delay",
            keys=("carrier",),
            known_at="known",
            window_us=2 * HOUR,
            aggregate="mean",
            value="late",
        ),
    ),
    transform=OnlineTransform(source=SOURCE, function="features"),
    stale_after_s=100,
    examples=(
        OnlineExample(
            row={
                "flight": 7,
                "at": "2013-06-30T10:00:00+00:00",
                "carrier": "UA",
                "origin": "JFK",
                "distance": 500.0,
                "delay": None,
            },
            features={
                "distance": 500.0,
                "delay": None,
                "hour": 10,
                "weekend": True,
                "carrier": "UA",
                "origin": "JFK",
            },
        ),
    ),
)
REQUEST = {"at": "2013-12-31T20:00:00Z", "carrier": "UA", "origin": "JFK"}
ROW = {"distance": 1400.5, "delay": 15.0, "hour": 20, "weekend": False, "carrier": "UA", "origin": "JFK"}


def store_of(folder: Path, view: OnlineView) -> OnlineStore:
    return STORES[view.store](str(folder), view=f"{view.name}-{view.shape}")


def fill(folder: Path, view: OnlineView = VIEW, **head: Any) -> Head:
    """A store with two departures of UA in the last hour, and the route of JFK."""
    held = HeldView(view)
    rows = [
        Change("flights", (n,), {"carrier": "UA", "at": at, "known": at, "late": late})
        for n, at, late in ((1, AT - HOUR, 10.0), (2, AT - HOUR // 2, 20.0), (3, AT, 99.0))
    ]
    rows.append(Change("routes", ("JFK",), {"origin": "JFK", "distance": 1400.5}))
    store = store_of(folder, view)
    made = Head(**{"applied": {"flights": 3, "routes": 0}, "as_of": 90.0, "since": AT - HOUR, **head})
    puts = changed(held, rows, lambda keys: [None] * len(keys), since=made.since)
    store.commit(puts, head=made.to_bytes(), expected=None, clear=True)
    store.close()
    return made
