"""What every store of online features must do (``serve/online/stores/_base.py`` says it in words).

class TestSqlite(OnlineStoreConformance):
store = SqliteStore

@pytest.fixture
def uri(self, tmp_path): ...  # where the stores of all views lie
"""

import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from serve.online.held import HEAD
from serve.online.stores import STORES, OnlineStore, StoreMoved

FIRST, SECOND = b"first", b"second"


class OnlineStoreConformance:
    """One kind of store."""

    store: ClassVar[type[OnlineStore]]

    @pytest.fixture
    def uri(self) -> Any:
        raise NotImplementedError("the fixture uri gives the place where the stores of all views lie")

    @pytest.fixture
    def opened(self, uri: str) -> Iterator[OnlineStore]:
        found = self.store(uri, view="flights-1")
        yield found
        found.close()

    def test_yaml_finds_it_by_its_name(self) -> None:
        assert STORES[self.store.name] is self.store

    def test_what_was_committed_is_there_for_another_process(self, uri: str, opened: OnlineStore) -> None:
        opened.commit({"a": b"1", "ü\"'": b"\0\xff"}, head=FIRST, expected=None)
        other = self.store(uri, view="flights-1")
        assert other.read([HEAD, "ü\"'", "none", "a"]) == [FIRST, b"\0\xff", None, b"1"]
        other.close()

    def test_a_commit_replaces_and_deletes_what_it_names_and_nothing_else(self, opened: OnlineStore) -> None:
        opened.commit({"a": b"1", "b": b"2", "c": b"3"}, head=FIRST, expected=None)
        opened.commit({"a": b"4", "b": None, "none": None}, head=SECOND, expected=FIRST)
        assert opened.read(["a", "b", "c", HEAD]) == [b"4", None, b"3", SECOND]

    def test_a_second_writer_of_the_same_head_writes_nothing(self, uri: str, opened: OnlineStore) -> None:
        opened.commit({"a": b"1"}, head=FIRST, expected=None)
        doubled = self.store(uri, view="flights-1")
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

    def test_a_reader_sees_a_commit_whole_or_not_at_all(self, uri: str, opened: OnlineStore) -> None:
        def state(number: int) -> bytes:
            return b"%d" % number

        opened.commit({"a": state(0), "b": state(0)}, head=state(0), expected=None)
        writer = self.store(uri, view="flights-1")

        def write() -> None:
            for number in range(1, 40):
                value = state(number)
                writer.commit({"a": value, "b": value}, head=value, expected=state(number - 1))

        thread = threading.Thread(target=write)
        thread.start()
        seen = []
        while thread.is_alive():
            seen.append(opened.read(["a", HEAD, "b"]))
        thread.join()
        writer.close()
        assert all(len(set(one)) == 1 for one in seen)
        assert opened.read([HEAD]) == [state(39)]
