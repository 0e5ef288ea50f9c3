"""The consumer fills the stores of the views that follow its stream, and reads on whatever comes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.assets.ingest import DeclaredStream
from mlops_assets.assets.online_filling import fill
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.commands.following import Followers, followers_of
from mlops_assets.commands.streaming import consume, stream_of
from mlops_assets.event_log.records import latest
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.testing.kafka_broker import KafkaBroker
from mlops_assets_tests.commands.test_streaming import DEADLINE_S, Told
from mlops_assets_tests.components.test_followed_stream import (
    KEPT,
    NOW,
    SEATS,
    STREAM,
    WHOLE,
    held,
    materialised,
    outside,
    trip,
)
from mlops_assets_tests.components.test_stream import topic
from serve.online.stores import StoreLost

__all__ = ["topic"]

CONSUMED = WHOLE.replace(
    STREAM, STREAM.replace("event_time: leaves", "event_time: leaves\n  read_by: consumer\n  every: 1s")
)
BROKEN = "---\ntype: mlops_assets.components.DatasetComponent\nattributes: {name: nothing}\n"


@pytest.fixture
def now(tmp_path: Path) -> Path:
    (tmp_path / "now").write_text(NOW.isoformat())
    return tmp_path / "now"


@pytest.fixture
def declared(
    request: pytest.FixtureRequest,
    use_case: Path,
    topic: str,
    load: Any,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    now: Path,
) -> tuple[DeclaredStream, list[OnlineTable]]:
    """The stream and its one follower, beside a document that is wrong; planes are there."""
    text = CONSUMED.replace("TOPIC", topic)
    (use_case / "raw").mkdir()
    (use_case / "raw" / "planes.csv").write_text("plane,seats\nN1,100\n", encoding="utf-8")
    materialised(load(text, **outside(tmp_path, now)), instance, SEATS)
    (use_case / "defs.yaml").write_text(text + BROKEN)
    with request.node.sandbox.build_component_tree() as tree:
        return stream_of(tree, "trip_events"), followers_of(tree, "trip_events", pytest.fail)


@pytest.fixture
def consumer(
    declared: Any, lake: Lake, instance: dg.DagsterInstance, tmp_path: Path, now: Path
) -> Iterator[tuple[Told, Callable[[], None]]]:
    """What a consumer tells, and a call that ends it."""
    stop, told = threading.Event(), Told()
    source, views = declared
    followers = Followers(
        "trip_events", views, OnlineStores(uri=str(tmp_path / "online")), Clock(file=str(now)), told.append
    )
    thread = threading.Thread(target=consume, args=(source, lake, instance, stop, told.append, followers))
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()

    yield told, end
    end()


def delays(tmp_path: Path) -> list[float]:
    """What the store has; nothing before it was filled once."""
    try:
        return held(tmp_path)[1] if any((tmp_path / "online").glob("*.sqlite")) else []
    except StoreLost:
        return []  # The file is there, and its first commit is not.


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_commit_is_in_the_store_and_a_quiet_topic_keeps_it_young(
    consumer: Any,
    topic: str,
    kafka_broker: KafkaBroker,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    now: Path,
) -> None:
    told, end = consumer
    kafka_broker.produce(topic, [trip(1)])
    told.until("Delta version 1")
    until(lambda: delays(tmp_path) == [1.0])
    now.write_text("2024-01-05T10:00:00+00:00")
    ten = datetime(2024, 1, 5, 10, tzinfo=UTC).timestamp()
    until(lambda: held(tmp_path)[0].as_of == ten)
    kafka_broker.produce(topic, [trip(2)])
    until(lambda: delays(tmp_path) == [1.0, 2.0])
    end()
    record = latest(instance, KEPT)
    assert record is not None and record.run_id == ""
    assert record.metadata["applied"] == {f"{topic}/0": 2, "planes": 0}
    assert record.metadata["dagster/row_count"] == 3
    # Nobody reads any more.
    now.write_text("2024-01-05T11:00:00+00:00")
    assert held(tmp_path)[0].as_of == ten


def test_a_store_that_cannot_be_filled_is_told_once_and_reading_goes_on(
    consumer: Any, topic: str, kafka_broker: KafkaBroker, lake: Lake, tmp_path: Path
) -> None:
    told, end = consumer
    told.until("Reading topic")
    planes = Path(lake.uri) / "datasets" / "planes"
    planes.rename(tmp_path / "away")
    kafka_broker.produce(topic, [trip(1)])
    # A look at the quiet topic may have told it before the first record was read.
    told.until("Delta version 1")
    told.until("The store of trips cannot be filled: There is no table 'datasets/planes'")
    kafka_broker.produce(topic, [trip(2)])
    told.until("Delta version 2")
    (tmp_path / "away").rename(planes)
    told.until("The store of trips is filled again.")
    until(lambda: delays(tmp_path) == [1.0, 2.0])
    end()
    assert sum("cannot be filled" in one for one in told) == 1


def test_of_a_run_and_the_consumer_one_loses_and_goes_on(
    declared: Any,
    topic: str,
    kafka_broker: KafkaBroker,
    lake: Lake,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    now: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, [view] = declared
    stores, told = OnlineStores(uri=str(tmp_path / "online")), Told()
    followers = Followers("trip_events", [view], stores, Clock(file=str(now)), told.append)
    stop, commit = threading.Event(), type(stores.of(view.online)).commit

    def overtaken(self: Any, *given: Any, **named: Any) -> None:
        """The run reads and commits between the consumer's reading and its commit."""
        monkeypatch.setattr(type(self), "commit", commit)
        fill(lake, stores.of(view.online), view, now=NOW)
        commit(self, *given, **named)

    monkeypatch.setattr(type(stores.of(view.online)), "commit", overtaken)
    kafka_broker.produce(topic, [trip(1)])
    thread = threading.Thread(target=consume, args=(source, lake, instance, stop, told.append, followers))
    thread.start()
    told.until("was written meanwhile")
    kafka_broker.produce(topic, [trip(2)])
    until(lambda: delays(tmp_path) == [1.0, 2.0])
    stop.set()
    thread.join(DEADLINE_S)
    assert told[-1] == "Ended; all that was read is committed."


def test_a_view_that_cannot_be_loaded_is_told_and_is_no_follower(
    request: pytest.FixtureRequest, use_case: Path
) -> None:
    (use_case / "defs.yaml").write_text(CONSUMED.replace("keys: [plane]", "keys: [plain]"))
    told: list[str] = []
    with request.node.sandbox.build_component_tree() as tree:
        assert followers_of(tree, "trip_events", told.append) == []
    [said] = told
    assert said.startswith("FeatureViewComponent trips is not filled: ") and "'plain'" in said
    (use_case / "defs.yaml").write_text(CONSUMED)
    with request.node.sandbox.build_component_tree() as tree:
        assert followers_of(tree, "another_stream", told.append) == []
