"""What is kept of a store between look-ups never shows, and a store that waits holds nobody else up."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.testing.online_columns import StateColumns
from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_view import ROW, VIEW, fill
from mlops_assets_tests.features.test_online import (
    TYPES,
    Kept,
    changes,
    flight_rows,
    flights_of,
    online,
    view_of,
)
from mlops_assets_tests.serve.online.test_served import body, keyed
from serve.online.evaluate import EventColumns
from serve.online.held import HEAD, Head, HeldView
from serve.online.kept import KeptStore
from serve.online.lookup import OnlineFeatures
from serve.online.stores import OnlineStore, StoreLost
from serve.online.stores.sqlite import SqliteStore

VALUES = HeldView(online(view_of(timedelta(hours=4))))


class Moving(OnlineStore):
    """A store in memory that keeps every state it had; ``meanwhile`` are commits that follow a read each."""

    name = "moving"

    def __init__(self, uri: str = "", *, view: str = "") -> None:
        self.now = Kept()
        self.states: list[dict[str, bytes]] = []
        self.meanwhile: list[list[Any]] = []
        self.reads: list[Sequence[str]] = []

    def take(self, rows: list[Any]) -> None:
        self.now.take(VALUES, changes(VALUES, "flights", flights_of(rows)))
        self.now[HEAD] = Head({"flights": len(self.states)}, 0.0).to_bytes()
        self.states.append(dict(self.now))

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        self.reads.append(keys)
        found = [self.now.get(key) for key in keys]
        if self.meanwhile:
            self.take(self.meanwhile.pop())
        return found

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError

    def commit(self, puts: Mapping[str, Any], *, head: bytes, expected: Any, clear: bool = False) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def events_of(rows: list[Any]) -> list[dict[str, Any]]:
    from mlops_assets.features.online import held_column

    frame = flights_of(rows)
    plain = {name: held_column(frame[name], TYPES["flights"][name]) for name in VALUES.view.columns}
    return [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]


@settings(max_examples=40)
@given(
    st.lists(flight_rows, min_size=2, max_size=5),
    st.sampled_from([0, 8_000, 1 << 20]),
    st.randoms(use_true_random=False),
)
def test_every_look_up_is_of_one_state_that_is_no_older_than_it(
    tables: list[Any], most: int, random: Any
) -> None:
    store = Moving()
    kept = KeptStore(EventColumns(VALUES), store, most=most)
    events = [event for rows in tables for event in events_of(rows)]
    for rows in tables:
        store.take(rows)
        for _ in range(4):
            before = len(store.states) - 1
            chosen = random.choices(events, k=random.randint(1, 3))
            store.meanwhile = [random.choice(tables) for _ in range(random.choice([0, 0, 1, 2]))]
            places = [kept.event_columns.places(event) for event in chosen]
            found = kept.read({place for of in places for place in of if place is not None})

            assert found.head is not None
            number = found.head.applied["flights"]
            assert number >= before
            state = store.states[number]
            for event, of in zip(chosen, places, strict=True):
                values = [None if place is None else found.values[place] for place in of]
                expected = StateColumns(VALUES, state).of(event)
                assert kept.event_columns.columns(event, values) == expected


def test_what_stands_is_not_read_again_and_what_a_commit_left_keeps_its_form() -> None:
    store = Moving()
    kept = KeptStore(EventColumns(VALUES), store)
    store.take([("EWR", 1, -9.0, -8.0, 1.0), ("JFK", 2, -9.0, -8.0, 2.0)])
    [event, other] = events_of([("EWR", 1, 0.0, None, None), ("JFK", 2, 0.0, None, None)])
    places = [place for place in kept.event_columns.places(event) if place is not None]
    first = kept.read(places)
    assert kept.read(places).values == first.values
    assert [len(keys) for keys in store.reads] == [1 + len(places), 1]

    store.take([("EWR", 1, -9.0, -8.0, 1.0), ("JFK", 2, -9.0, -8.0, 3.0)])
    second = kept.read(places)
    unmoved = {place for place in places if second.values[place] is first.values[place]}
    assert {place[1:] for place in places} - {place[1:] for place in unmoved} == {()}
    assert len(store.reads[-1]) == 1 + len(places)
    assert kept.read([place for place in kept.event_columns.places(other) if place]).head == second.head


def test_no_more_is_kept_than_is_allowed() -> None:
    store = Moving()
    kept = KeptStore(EventColumns(VALUES), store, most=20_000)
    store.take([("EWR", 1, -9.0, -8.0, 1.0)])
    [event] = events_of([("EWR", 1, 0.0, None, None)])
    for gate in range(2_000):
        places = kept.event_columns.places({**event, "gate": gate})
        kept.read([place for place in places if place is not None])
    assert 10 < len(kept._young) + len(kept._old) < 60


# -- a store that waits ------------------------------------------------------------------------------------


class Slow(SqliteStore):
    """A store whose reads take until they are let go."""

    name = "slow"
    waits = True

    def __init__(self, uri: str, *, view: str) -> None:
        super().__init__(uri, view=view)
        self.reads = 0
        self.lost: Exception | None = None
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        self.reads += 1
        self.is_asked.set()
        assert self.may_answer.wait(20), "nobody let the store answer: the event loop stood still"
        if self.lost:
            raise self.lost
        return super().read(keys)


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    fill(tmp_path)
    return Slow(str(tmp_path), view=f"{VIEW.name}-{VIEW.shape}")


def ask_slowly(site: Site, slow: Slow) -> None:
    live = site.traffic.states["v1"].live
    assert live is not None
    kept = KeptStore.of(VIEW, slow)
    live.online = OnlineFeatures(VIEW, live.manifest.features, kept, lambda: site.now)


def test_others_are_answered_while_a_store_waits_and_those_who_wait_are_read_together(
    slow: Slow, tmp_path: Path
) -> None:
    async def story(site: Site) -> None:
        ask_slowly(site, slow)
        first = asyncio.ensure_future(site.post("/predict", body()))
        await asyncio.to_thread(slow.is_asked.wait, 20)
        finished = await site.predict(ROW)
        assert finished.status_code == 200 and not first.done()
        later = [asyncio.ensure_future(site.post("/predict", body())) for _ in range(5)]
        gone = asyncio.ensure_future(site.post("/predict", body(carrier="DL")))
        await site.waiting(7)
        gone.cancel()
        slow.may_answer.set()
        answers = await asyncio.gather(first, *later)
        assert {one.json()["probability"] for one in answers} == {finished.json()["probability"]}
        assert slow.reads == 2

    run(story, keyed(tmp_path))


def test_an_error_of_a_store_that_waits_is_that_of_those_who_asked(slow: Slow, tmp_path: Path) -> None:
    slow.may_answer.set()

    async def story(site: Site) -> None:
        ask_slowly(site, slow)
        slow.lost = StoreLost("the cable is out")
        assert (await site.http.get("/ready")).json()["routes"]["v1"]["online"][
            "problem"
        ] == "the cable is out"
        slow.lost = ZeroDivisionError("a fault of the store")
        assert (await site.post("/predict", body())).status_code == 500
        slow.lost = None
        assert (await site.post("/predict", body())).status_code == 200

    run(story, keyed(tmp_path))


def test_a_store_of_files_that_was_deleted_and_filled_again_is_the_new_one(tmp_path: Path) -> None:
    fill(tmp_path)
    store = SqliteStore(str(tmp_path), view=f"{VIEW.name}-{VIEW.shape}")
    kept = KeptStore.of(VIEW, store)
    assert kept.read([]).head is not None
    for file in tmp_path.iterdir():
        file.unlink()
    assert kept.read([]).head is None and "cannot be used" in str(kept.problem)
    fill(tmp_path, as_of=95.0)
    head = kept.read([]).head
    assert head is not None and head.as_of == 95.0 and kept.problem is None
