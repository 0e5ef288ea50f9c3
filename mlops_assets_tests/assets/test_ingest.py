"""Faults while a topic is read: records that are gone, a broker that ends, partitions that come."""

import json
from contextlib import ExitStack

import pytest

from mlops_assets.assets.ingest import DeclaredStream, behind, ingesting, stream_table
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import DataError, LostOffsets, SourceUnavailable
from mlops_assets.resources import kafka
from mlops_assets.testing.mock_kafka import KEPT_BYTES, mock_kafka

BIG = json.dumps({"id": 1, "text": "x" * 500_000}).encode()


def to_the_end(_, at_end):
    return at_end


@pytest.fixture
def broker(monkeypatch):
    # The mock does not say what a topic is called inside.
    monkeypatch.setattr(kafka, "TOPIC_ID_S", 0.1)
    with mock_kafka() as found:
        monkeypatch.setenv("ORDERS_BROKER", found.address)
        yield found


@pytest.fixture
def source(tmp_path):
    return declared(tmp_path)


def declared(folder, **changes):
    attributes = {
        "name": "orders",
        "topic": "orders",
        "bootstrap_servers": "ORDERS_BROKER",
        "value": {"format": "json"},
        "columns": {"id": "integer"},
    }
    return DeclaredStream(StreamDeclaration.model_validate(attributes | changes), folder)


def read(lake, source):
    with ingesting(lake, source, "run") as ingest:
        return ingest.commit_next(to_the_end)


def lose(broker):
    """So many records that the first are gone; the offset of the first that is left."""
    count = KEPT_BYTES // len(BIG) * 2
    broker.produce("orders", [{"value": BIG, "partition": 0} for _ in range(count)])
    return count


def test_records_that_were_removed_are_an_error_with_the_range(broker, lake, source, tmp_path):
    broker.produce("orders", [{"value": BIG, "partition": 0}] * 3)
    assert read(lake, source).records == 3
    lose(broker)
    with pytest.raises(LostOffsets) as lost:
        read(lake, source)
    assert (lost.value.partition, lost.value.first) == (0, 3) and lost.value.before > 3
    version = lake.version("streams/orders")

    accepted = [{"partition": 0, "first": 3, "before": lost.value.before, "by": "ann", "reason": "test"}]
    found = read(lake, declared(tmp_path, accepted_losses=accepted))
    assert lake.version("streams/orders") == version + 1
    assert found.records > 0 and found.lag == dict.fromkeys(range(4), 0)
    held = lake.read("streams/orders")
    assert sorted(held["offset"])[:4] == [0, 1, 2, lost.value.before]


def test_a_topic_that_ends_before_the_table_is_not_taken_for_the_same(broker, lake, source, monkeypatch):
    broker.produce("orders", [{"value": BIG, "partition": 0}] * 3)
    assert read(lake, source).records == 3
    with mock_kafka() as another:
        another.produce("orders", [{"value": BIG, "partition": 0}])
        monkeypatch.setenv("ORDERS_BROKER", another.address)
        with pytest.raises(DataError, match="has offsets below 1 only, so it is not the topic"):
            read(lake, source)


def test_a_broker_that_ends_is_an_error_and_nothing_is_lost(lake, source, monkeypatch):
    monkeypatch.setattr(kafka, "TOPIC_ID_S", 0.1)
    monkeypatch.setattr(kafka, "ANSWER_S", 2.0)
    with ExitStack() as while_open:
        with mock_kafka() as broker:
            monkeypatch.setenv("ORDERS_BROKER", broker.address)
            broker.produce("orders", [{"value": b'{"id": 1}', "partition": 0}] * 3)
            ingest = while_open.enter_context(ingesting(lake, source, "run"))
            assert ingest.commit_next(to_the_end).records == 3
            ingest.assign()
        looks = iter(range(5))
        found = ingest.commit_next(lambda *_: next(looks, None) is None)
        assert found.records == 0
        with pytest.raises(SourceUnavailable, match="No Kafka broker answers at"):
            ingest.require_answers(found)
        with pytest.raises(SourceUnavailable, match="No Kafka broker answers at"):
            ingest.partitions_changed()
    assert len(lake.read("streams/orders")) == 3


def test_lag_is_told_before_anything_is_read_and_after(broker, lake, source):
    broker.produce("orders", [{"value": b"{}", "partition": 1}] * 5)
    assert behind(lake, source) == ({0: 0, 1: 0, 2: 0, 3: 0}, {0: 0, 1: 5, 2: 0, 3: 0})
    read(lake, source)
    following, lags = behind(lake, source)
    assert following == {0: 0, 1: 5, 2: 0, 3: 0} and sum(lags.values()) == 0


def test_large_records_end_a_commit_before_its_rows_do(broker, lake, source, monkeypatch):
    from mlops_assets.assets import ingest as module

    monkeypatch.setattr(module, "MOST_BYTES", 1)
    monkeypatch.setattr(kafka, "POLL_RECORDS", 2)
    broker.produce("orders", [{"value": b'{"id": 1}', "partition": 0}] * 5)
    counts = list(iter(lambda: read(lake, source).records, 0))
    assert set(counts) <= {1, 2} and sum(counts) == 5


def test_days_are_those_of_the_declared_zone_and_keep_it(broker, lake, tmp_path):
    utc, local = declared(tmp_path), declared(tmp_path, timezone="America/New_York")
    record = {"value": b'{"id": 1}', "partition": 0, "timestamp": 1_704_081_600_000}
    # Nothing of an empty table is bound to a zone.
    assert stream_table(lake, utc.declared).newest is None
    broker.produce("orders", [record])
    assert read(lake, local).days == ["2023-12-31"]
    broker.produce("orders", [record])
    for ask in (read, behind):
        with pytest.raises(DataError, match="those of America/New_York in the table and of UTC as declared"):
            ask(lake, utc)
    assert len(lake.read("streams/orders")) == 1
    assert read(lake, local).records == 1


@pytest.mark.parametrize("zone", ["America/Newark", "America", "../UTC", ""])
def test_a_zone_that_there_is_not_is_refused(tmp_path, zone):
    with pytest.raises(ValueError, match="is no time zone: write a name like UTC or Europe/Berlin"):
        declared(tmp_path, timezone=zone)
