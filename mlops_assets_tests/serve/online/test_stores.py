"""Each store of online features, and what is its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_assets.testing.conformance.online_stores import FIRST, SECOND, OnlineStoreConformance, Outage
from mlops_assets.testing.redis_server import RedisServer
from serve.online.stores import StoreLost, StoreNotSetUp
from serve.online.stores import feast as feast_store
from serve.online.stores import redis as redis_store
from serve.online.stores.feast import FeastStore
from serve.online.stores.redis import RedisStore
from serve.online.stores.sqlite import SqliteStore


class TestSqlite(OnlineStoreConformance):
    store = SqliteStore

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "online #1?")

    @pytest.fixture
    def outage(self, uri: str) -> Outage:
        @contextmanager
        def away() -> Iterator[None]:
            place, kept = Path(uri), Path(f"{uri} kept")
            place.rename(kept)
            place.write_text("no folder")
            yield
            place.unlink()
            kept.rename(place)

        return away


class TestRedis(OnlineStoreConformance):
    store = RedisStore

    @pytest.fixture
    def uri(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
        # So that commits of the suite have several.
        monkeypatch.setattr(redis_store, "PIECE_KEYS", 40)
        monkeypatch.setattr(redis_store, "READ_KEYS", 70)
        return ""

    @pytest.fixture
    def outage(self, redis: RedisServer) -> Outage:
        @contextmanager
        def away() -> Iterator[None]:
            with redis.client() as client:
                client.save()
            redis.stop()
            yield
            redis.start()

        return away


def test_a_file_that_is_not_there_is_lost_and_says_what_fills_it(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "online"), view="flights-1")
    with pytest.raises(StoreLost, match=r"flights-1\.sqlite cannot be used.*<view>_online_features"):
        store.read(["head"])
    assert not (tmp_path / "online").exists()


def test_a_store_that_comes_later_is_found(tmp_path: Path) -> None:
    store, writer = (SqliteStore(str(tmp_path), view="flights-1") for _ in range(2))
    with pytest.raises(StoreLost):
        store.read(["a"])
    writer.commit({"a": b"1"}, head=FIRST, expected=None)
    assert store.read(["a"]) == [b"1"]


def test_a_file_that_is_no_database_is_lost(tmp_path: Path) -> None:
    (tmp_path / "flights-1.sqlite").write_bytes(b"no database" * 200)
    store = SqliteStore(str(tmp_path), view="flights-1")
    with pytest.raises(StoreLost, match="not a database"):
        store.read(["a"])
    with pytest.raises(StoreLost, match="not a database"):
        store.commit({}, head=SECOND, expected=None)


def test_feast_says_what_to_install_and_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(feast_store.VARIABLE, raising=False)
    monkeypatch.setattr(feast_store.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        StoreNotSetUp, match=r"pip install 'mlops-assets\[feast\]'\) in an environment of its own"
    ):
        FeastStore("", view="flights-1")
    monkeypatch.setattr(feast_store.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(StoreNotSetUp, match=f"{feast_store.VARIABLE} is not set: it names the folder"):
        FeastStore("", view="flights-1")
