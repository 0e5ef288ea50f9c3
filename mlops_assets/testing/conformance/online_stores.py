"""What every store of online features must do (``serve/online/stores/_base.py`` says it in words).

class TestSqlite(OnlineStoreConformance):
store = SqliteStore

@pytest.fixture
def uri(self, tmp_path): ...  # where the stores of all views lie

@pytest.fixture
def outage(self, uri): ...  # a function that gives a block during which the store cannot be reached
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pytest

from serve.online.held import HEAD
from serve.online.stores import STORES, OnlineStore, StoreLost, StoreMoved

FIRST, SECOND = b"first", b"second"
VIEW = "flights-1"
NAMES = tuple(f"key {number}" for number in range(300))
RETURN_DEADLINE_S = 30.0
Outage = Callable[[], AbstractContextManager[None]]
# A fork has all that was imported, and shares no connection, because a store opens its own.
_processes = multiprocessing.get_context("fork")


class OnlineStoreConformance:
    """One kind of store."""

    store: ClassVar[type[OnlineStore]]

    @pytest.fixture
    def uri(self) -> Any:
        raise NotImplementedError("the fixture uri gives the place where the stores of all views lie")

    @pytest.fixture
    def outage(self, uri: str) -> Outage:
        raise NotImplementedError("the fixture outage gives a block during which the store cannot be reached")

    @pytest.fixture
    def opened(self, uri: str) -> Iterator[OnlineStore]:
        found = self.store(uri, view=VIEW)
        yield found
        found.close()

    def test_yaml_finds_it_by_its_name(self) -> None:
        assert STORES[self.store.name] is self.store

    def test_what_was_committed_is_there_for_another_process(self, uri: str, opened: OnlineStore) -> None:
        opened.commit({"a": b"1", "ü\"'": b"\0\xff"}, head=FIRST, expected=None)
        other = self.store(uri, view=VIEW)
        assert other.read([HEAD, "ü\"'", "none", "a"]) == [FIRST, b"\0\xff", None, b"1"]
        other.close()

    def test_a_commit_replaces_and_deletes_what_it_names_and_nothing_else(self, opened: OnlineStore) -> None:
        opened.commit({"a": b"1", "b": b"2", "c": b"3"}, head=FIRST, expected=None)
        opened.commit({"a": b"4", "b": None, "none": None}, head=SECOND, expected=FIRST)
        assert opened.read(["a", "b", "c", HEAD]) == [b"4", None, b"3", SECOND]

    def test_a_second_writer_of_the_same_head_writes_nothing(self, uri: str, opened: OnlineStore) -> None:
        opened.commit({"a": b"1"}, head=FIRST, expected=None)
        doubled = self.store(uri, view=VIEW)
        for expected in (None, SECOND):
            with pytest.raises(StoreMoved):
                doubled.commit({"a": b"2", "b": b"2"}, head=SECOND, expected=expected, clear=True)
        assert opened.read(["a", "b", HEAD]) == [b"1", None, FIRST]
        doubled.close()

    def test_a_cleared_store_holds_what_it_was_given(self, opened: OnlineStore) -> None:
        opened.commit({"a": b"1", "b": b"2"}, head=FIRST, expected=None)
        opened.commit({"b": b"3"}, head=SECOND, expected=FIRST, clear=True)
        assert sorted(opened.scan("")) == sorted([("b", b"3"), (HEAD, SECOND)])

    def test_it_is_scanned_by_prefix(self, opened: OnlineStore) -> None:
        opened.commit({"=a:1": b"1", "=ab:1": b"2", "=*:1": b"3", "1:x": b"4"}, head=FIRST, expected=None)
        assert dict(opened.scan("=a:")) == {"=a:1": b"1"}
        assert dict(opened.scan("=*")) == {"=*:1": b"3"}
        assert list(opened.scan("no")) == []

    def test_many_keys_are_read_and_written_at_once(self, opened: OnlineStore) -> None:
        many = {f"key {number}": b"%d" % number for number in range(3_000)}
        opened.commit(many, head=FIRST, expected=None)
        assert opened.read([*many, HEAD]) == [*many.values(), FIRST]

    def test_views_do_not_see_each_other(self, uri: str, opened: OnlineStore) -> None:
        opened.commit({"a": b"1"}, head=FIRST, expected=None)
        other = self.store(uri, view="flights-2")
        other.commit({"a": b"2"}, head=SECOND, expected=None)
        assert opened.read(["a", HEAD]) == [b"1", FIRST] and other.read(["a"]) == [b"2"]
        other.close()

    def test_keys_and_values_are_any_text_and_any_bytes(self, opened: OnlineStore) -> None:
        puts = {
            "": b"no name",
            "empty": b"",
            "large": bytes(range(256)) * 4_096,
            '=Zürich:["東京", "\\n\\u0000"]': b"+",
            "\U0001f6eb": b"-",
            "[a-z]?\\*": b"\0",
            "%_": b"\xff",
        }
        opened.commit(puts, head=FIRST, expected=None)
        assert opened.read(list(puts)) == list(puts.values())
        assert dict(opened.scan("")) == {**puts, HEAD: FIRST}
        for key in puts:
            assert dict(opened.scan(key))[key] == puts[key]
        assert list(opened.scan("[b-z]")) == list(opened.scan("_%")) == list(opened.scan("Zürich")) == []

    def test_a_commit_may_hold_nothing_but_its_head(self, opened: OnlineStore) -> None:
        opened.commit({}, head=FIRST, expected=None)
        opened.commit({}, head=SECOND, expected=FIRST)
        opened.commit({}, head=FIRST, expected=SECOND, clear=True)
        assert dict(opened.scan("")) == {HEAD: FIRST}

    def test_a_doubled_commit_is_fenced(self, opened: OnlineStore) -> None:
        opened.commit({"a": b"1"}, head=FIRST, expected=None)
        opened.commit({"a": b"2", "gone": None}, head=SECOND, expected=FIRST)
        for clear in (False, True):
            with pytest.raises(StoreMoved):
                opened.commit({"a": b"2", "gone": None}, head=SECOND, expected=FIRST, clear=clear)
        assert dict(opened.scan("")) == {"a": b"2", HEAD: SECOND}

    def test_of_two_writers_each_commit_counts_once(self, uri: str, opened: OnlineStore) -> None:
        if "fence" in self.store.weaker:
            pytest.skip(f"weaker: {self.store.weaker['fence']}")
        opened.commit({"count": b"0"}, head=b"0", expected=None)
        with _started(_count, self.store, uri, 20) as first, _started(_count, self.store, uri, 20) as second:
            first.join()
            second.join()
            assert (first.exitcode, second.exitcode) == (0, 0)
        assert opened.read(["count", HEAD]) == [b"40", b"40"]

    def test_a_reader_sees_a_commit_of_another_process_whole_or_not_at_all(
        self, uri: str, opened: OnlineStore
    ) -> None:
        last = 25
        opened.commit(_state(0), head=b"0", expected=None)
        with _started(_write_states, self.store, uri, last):
            seen = 0
            while seen < last:
                seen = _seen(opened)
                # Another connection, which begins anywhere in a commit.
                assert _seen_by_scan(opened) >= seen

    def test_a_writer_that_is_killed_leaves_a_whole_state(self, uri: str, opened: OnlineStore) -> None:
        opened.commit(_state(0), head=b"0", expected=None)
        for killed_after in (2, 4, 7, 11):
            with _started(_write_states, self.store, uri, 10_000) as writer:
                while _seen(opened) < killed_after:
                    pass
                writer.kill()
            left = _seen(opened)
            assert left >= killed_after
            # The next writer goes on from there.
            opened.commit(_state(left + 1), head=b"%d" % (left + 1), expected=b"%d" % left)
            assert _seen(opened) == left + 1

    def test_a_store_that_is_lost_says_so_and_is_there_again(
        self, opened: OnlineStore, outage: Outage
    ) -> None:
        opened.commit({"a": b"1"}, head=FIRST, expected=None)
        opened.close()
        with outage():
            with pytest.raises(StoreLost):
                opened.read(["a"])
            with pytest.raises(StoreLost):
                list(opened.scan(""))
            with pytest.raises(StoreLost):
                opened.commit({"a": b"2"}, head=SECOND, expected=FIRST)
        assert _once_there(opened, ["a", HEAD]) == [b"1", FIRST]
        opened.commit({"a": b"2"}, head=SECOND, expected=FIRST)
        assert opened.read(["a", HEAD]) == [b"2", SECOND]


def _state(number: int) -> Mapping[str, bytes | None]:
    """All keys have the number, but of a third, another one each time, which are gone."""
    return {
        name: None if (position + number) % 3 == 0 else b"%d" % number for position, name in enumerate(NAMES)
    }


def _seen(store: OnlineStore) -> int:
    """The number of the state that a read shows, after checking that it is all of that state."""
    *values, head = store.read([*NAMES, HEAD])
    number = int(head or b"")
    assert values == list(_state(number).values())
    return number


def _seen_by_scan(store: OnlineStore) -> int:
    found = dict(store.scan(""))
    number = int(found.pop(HEAD))
    assert found == {name: value for name, value in _state(number).items() if value is not None}
    return number


def _once_there(store: OnlineStore, keys: list[str]) -> list[bytes | None]:
    """What is read as soon as a lost store is there: a reader need not ask again at once."""
    deadline = time.monotonic() + RETURN_DEADLINE_S
    while True:
        try:
            return store.read(keys)
        except StoreLost:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def _started(work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    process = _processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _count(kind: type[OnlineStore], uri: str, times: int) -> None:
    """Adds one so many times; a commit that was overtaken is made anew."""
    store = kind(uri, view=VIEW)
    while times:
        [head] = store.read([HEAD])
        after = b"%d" % (int(head or b"") + 1)
        try:
            store.commit({"count": after}, head=after, expected=head)
        except StoreMoved:
            continue
        times -= 1


def _write_states(kind: type[OnlineStore], uri: str, last: int) -> None:
    """Commits one state after another, from the one that is there."""
    store = kind(uri, view=VIEW)
    [head] = store.read([HEAD])
    for number in range(int(head or b"") + 1, last + 1):
        after = b"%d" % number
        store.commit(_state(number), head=after, expected=head)
        head = after
