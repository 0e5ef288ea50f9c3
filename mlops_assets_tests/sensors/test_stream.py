"""A run is started when there is lag: one from the same offsets, and another after it failed."""

import dagster as dg
import pytest

from mlops_assets.errors import SourceUnavailable
from mlops_assets.event_log.records import latest
from mlops_assets.resources import kafka
from mlops_assets_tests.components.test_stream import ORDERS, YAML, records, run, topic

__all__ = ["topic"]


@pytest.fixture
def orders(topic, load):
    return load(YAML.replace("TOPIC", topic))


def sensor(defs):
    (found,) = defs.sensors
    return found


def tick(defs, instance, lake):
    """What the sensor asks for: its one run request, or the reason for none."""
    context = dg.build_sensor_context(instance=instance, resources={"lake": lake})
    result = sensor(defs)(context)
    return result.run_requests[0] if result.run_requests else result.skip_reason.skip_message


def test_lag_starts_one_run_and_no_lag_none(orders, topic, kafka_broker, instance, lake):
    assert "the table has all records of" in tick(orders, instance, lake)
    kafka_broker.produce(topic, records(range(4)))
    first = tick(orders, instance, lake)
    assert first.asset_selection == [ORDERS] and first.tags["mlops/stream"] == "orders"
    assert tick(orders, instance, lake).run_key == first.run_key
    assert run(orders, instance, tags=first.tags).success
    assert "the table has all records" in tick(orders, instance, lake)
    kafka_broker.produce(topic, records(range(4, 8)))
    assert tick(orders, instance, lake).run_key != first.run_key


def test_runs_follow_until_nothing_is_left_of_a_batch(topic, load, kafka_broker, instance, lake):
    """The broker of the tests, asked for the end, says one record of this batch."""
    orders = load(YAML.replace("TOPIC", topic) + "  max_rows: 4\n")
    kafka_broker.produce(topic, records(range(10), partitions=1))
    read = []
    while isinstance(asked := tick(orders, instance, lake), dg.RunRequest):
        assert run(orders, instance, tags=asked.tags).success
        read.append(latest(instance, ORDERS).metadata["records"])
    assert read == [4, 4, 2]


def test_a_run_that_failed_is_tried_again_later(orders, topic, kafka_broker, instance, lake, monkeypatch):
    kafka_broker.produce(topic, records(range(4)))
    first = tick(orders, instance, lake)
    with monkeypatch.context() as patch:
        patch.setenv("ORDERS_BROKER", "127.0.0.1:1")
        patch.setattr(kafka, "ANSWER_S", 0.2)
        assert not run(orders, instance, tags=first.tags).success
    assert "the next try is in" in tick(orders, instance, lake)
    monkeypatch.setattr("mlops_assets.sensors.stream.back_off", lambda *_: 0.0)
    assert tick(orders, instance, lake).run_key == first.run_key.removesuffix(":0") + ":1"


def test_a_run_that_is_reading_is_waited_for(orders, topic, kafka_broker, instance, lake, monkeypatch):
    kafka_broker.produce(topic, records(range(4)))
    monkeypatch.setattr("mlops_assets.sensors.stream.unfinished_run", lambda *_: "abc")
    assert tick(orders, instance, lake) == "run abc is reading"


def test_a_broker_that_does_not_answer_fails_the_tick(orders, instance, lake, monkeypatch):
    monkeypatch.setenv("ORDERS_BROKER", "127.0.0.1:1")
    monkeypatch.setattr(kafka, "ANSWER_S", 0.2)
    with pytest.raises(SourceUnavailable, match="No Kafka broker answers at"):
        tick(orders, instance, lake)


def test_a_stream_that_a_consumer_reads_has_no_sensor(topic, load):
    defs = load(YAML.replace("TOPIC", topic) + "  read_by: consumer\n")
    assert list(defs.sensors or ()) == []


@pytest.mark.parametrize(("said", "seconds"), [("", 30), ("  every: 10s\n", 10)])
def test_it_looks_no_more_often_than_declared(topic, load, said, seconds):
    defs = load(YAML.replace("TOPIC", topic) + said)
    assert sensor(defs).minimum_interval_seconds == seconds
