"""A stream document becomes a table that holds each record of its topic once, whatever ends a run."""

import datetime as dt
import itertools
import json

import dagster as dg
import pytest
from deltalake import DeltaTable

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.records import latest
from mlops_assets.resources import kafka
from mlops_assets.resources.stream_table import StreamTable
from mlops_assets.streams.history import CommitFacts

ORDERS = asset_key("stream", "orders")
NAMES = (f"orders-{number}" for number in itertools.count())
NOON_MS = 1_704_110_400_000
"""2024-01-01 12:00 UTC."""
YAML = """
type: mlops_assets.components.StreamComponent
attributes:
  name: orders
  topic: TOPIC
  bootstrap_servers: ORDERS_BROKER
  value: {format: json}
  columns: {id: integer, amount: number, at: timestamp}
  event_time: at
"""


@pytest.fixture
def topic(kafka_broker, monkeypatch):
    """An empty topic of two partitions."""
    monkeypatch.setenv("ORDERS_BROKER", kafka_broker.address)
    name = next(NAMES)
    kafka_broker.create(name, 2)
    return name


@pytest.fixture
def orders(topic, load):
    return load(YAML.replace("TOPIC", topic))


def records(numbers, partitions=2, day=1):
    for number in numbers:
        document = {"id": number, "amount": number / 2, "at": f"2024-01-{day:02}T00:00:00Z"}
        yield {
            "value": json.dumps(document).encode(),
            "key": str(number).encode(),
            "partition": number % partitions,
            "timestamp": NOON_MS + number,
        }


def run(defs, instance, **config):
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={ORDERS})
    return job.execute_in_process(instance=instance, raise_on_error=False, **config)


def rows(lake):
    frame = lake.read("streams/orders")
    return frame.sort_values(["partition", "offset"]).reset_index(drop=True)


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.event_specific_data.user_failure_data.description


def test_runs_append_what_came_and_say_it(orders, topic, kafka_broker, lake, instance):
    kafka_broker.produce(topic, records(range(100)))
    assert run(orders, instance).success
    kafka_broker.produce(topic, records(range(100, 150), day=3))
    assert run(orders, instance).success

    held = rows(lake)
    assert sorted(held["id"]) == list(range(150))
    for _, of_partition in held.groupby("partition"):
        assert of_partition["offset"].tolist() == list(range(75))
    assert sorted(held["event_date"].unique()) == ["2024-01-01", "2024-01-03"]
    assert held["key"][0] == b"0" and json.loads(held["value"][0])["id"] == 0
    told = latest(instance, ORDERS).metadata
    assert (told["records"], told["lag"], told["undecodable"]) == (50, 0, 0)
    assert told["next_offsets"] == {"0": 75, "1": 75} and told["touched_days"] == ["2024-01-03"]
    assert told["newest_record"] == dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC).timestamp() + 0.149
    assert told["records_per_second"] > 0


def test_a_run_without_new_records_changes_nothing(orders, topic, kafka_broker, lake, instance):
    kafka_broker.produce(topic, records(range(4)))
    assert run(orders, instance).success
    before, version = latest(instance, ORDERS).data_version, lake.version("streams/orders")
    assert run(orders, instance).success
    assert latest(instance, ORDERS).data_version == before
    assert lake.version("streams/orders") == version and len(rows(lake)) == 4


def test_a_topic_without_any_record_is_an_empty_table(orders, lake, instance):
    assert run(orders, instance).success
    assert len(rows(lake)) == 0


def test_a_commit_holds_no_more_than_declared(topic, load, kafka_broker, lake, instance):
    orders = load(YAML.replace("TOPIC", topic) + "  max_rows: 10\n")
    kafka_broker.produce(topic, records(range(25)))
    held = []
    for _ in range(3):
        assert run(orders, instance).success
        held.append(len(rows(lake)))
    assert held == [10, 20, 25]
    assert sorted(rows(lake)["id"]) == list(range(25))
    facts = [one for one in map(CommitFacts.of, lake.history("streams/orders")) if one is not None]
    # Only the last says that it has all there was, though this broker knows of one record when it is asked.
    assert [one.complete is not None for one in facts] == [True, False, False]


def test_what_cannot_be_decoded_is_kept_counted_and_passed(orders, topic, kafka_broker, lake, instance):
    kafka_broker.produce(topic, [*records([0]), {"value": b"{", "partition": 0}, *records([2])])
    result = run(orders, instance)
    assert result.success
    bad = rows(lake).loc[1]
    assert bad["value"] == b"{" and "it is not JSON" in bad["undecodable"]
    assert latest(instance, ORDERS).metadata["undecodable"] == 1
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    assert "1 of 3 records cannot be decoded" in check.description
    assert "offset 1 of partition 0: it is not JSON" in check.description
    assert run(orders, instance).success and len(rows(lake)) == 3


def test_a_column_that_no_record_has_is_told(topic, load, kafka_broker, instance):
    orders = load(YAML.replace("TOPIC", topic).replace("amount: number", "amuont: number"))
    kafka_broker.produce(topic, records(range(3)))
    (check,) = run(orders, instance).get_asset_check_evaluations()
    assert not check.passed and "No record has amuont" in check.description


class Crash(BaseException):
    """Stands for a process that is gone: no code of ours catches it."""


def crashing(monkeypatch, *, before):
    """The next append ends the process, before or after its commit."""
    append = StreamTable.append

    def crash(self, *given):
        monkeypatch.setattr(StreamTable, "append", append)
        if not before:
            append(self, *given)
        raise Crash

    monkeypatch.setattr(StreamTable, "append", crash)


@pytest.mark.parametrize("before", [True, False])
def test_a_crash_at_the_commit_loses_nothing_and_doubles_nothing(
    orders, topic, kafka_broker, lake, instance, monkeypatch, before
):
    for start in range(0, 40, 10):
        kafka_broker.produce(topic, records(range(start, start + 10)))
        crashing(monkeypatch, before=before)
        assert not run(orders, instance).success
        if start % 20:
            assert run(orders, instance).success
    held = rows(lake)
    assert sorted(held["id"]) == list(range(40))


def test_of_two_runs_at_once_one_is_refused_and_says_so(
    orders, topic, kafka_broker, lake, instance, monkeypatch
):
    kafka_broker.produce(topic, records(range(20)))
    append, others = StreamTable.append, []

    def overtaken(self, *given):
        monkeypatch.setattr(StreamTable, "append", append)
        others.append(run(orders, instance).success)
        return append(self, *given)

    monkeypatch.setattr(StreamTable, "append", overtaken)
    result = run(orders, instance)
    assert others == [True] and not result.success
    assert "Another run or consumer committed to table 'streams/orders' first" in failure(result)
    assert sorted(rows(lake)["id"]) == list(range(20))


def test_a_table_that_was_restored_is_refused(orders, topic, kafka_broker, lake, instance):
    for start in (0, 10):
        kafka_broker.produce(topic, records(range(start, start + 10)))
        assert run(orders, instance).success
    DeltaTable(lake.table_uri("streams/orders")).restore(1)
    kafka_broker.produce(topic, records(range(20, 30)))
    said = failure(run(orders, instance))
    assert "was restored in its version 3" in said and "under another name of the stream" in said
    assert len(rows(lake)) == 10


def test_rows_cannot_be_replaced_or_deleted(orders, topic, kafka_broker, lake, instance):
    kafka_broker.produce(topic, records(range(3)))
    assert run(orders, instance).success
    with pytest.raises(Exception, match="append-only"):
        DeltaTable(lake.table_uri("streams/orders")).delete("id = 1")


def test_a_topic_that_was_made_anew_is_not_taken_for_the_former(orders, topic, kafka_broker, lake, instance):
    kafka_broker.produce(topic, records(range(4)))
    assert run(orders, instance).success
    kafka_broker.delete(topic)
    kafka_broker.create(topic, 2)
    kafka_broker.produce(topic, records(range(100, 120)))
    assert "was deleted and made anew" in failure(run(orders, instance))
    assert sorted(rows(lake)["id"]) == list(range(4))


def test_a_column_may_come_and_go_and_keeps_its_type(topic, load, kafka_broker, lake, instance):
    text = YAML.replace("TOPIC", topic)
    kafka_broker.produce(topic, records([0]))
    assert run(load(text.replace("amount: number, ", "")), instance).success
    kafka_broker.produce(topic, records([1]))
    assert run(load(text), instance).success
    assert rows(lake)["amount"].isna().tolist() == [True, False]
    said = failure(run(load(text.replace("amount: number", "amount: string")), instance))
    assert "'amount' is double in the table and string as declared" in said


def test_no_broker_is_an_error_that_names_the_address_and_what_to_start(orders, monkeypatch, instance):
    monkeypatch.setenv("ORDERS_BROKER", "127.0.0.1:1")
    monkeypatch.setattr(kafka, "ANSWER_S", 0.5)
    said = failure(run(orders, instance))
    assert "No Kafka broker answers at 127.0.0.1:1 (environment variable ORDERS_BROKER)" in said
    assert "Connection refused" in said and "python -m mlops_assets.testing.kafka_broker" in said


def test_an_address_that_is_not_set_is_an_error_that_names_the_variable(orders, monkeypatch, instance):
    monkeypatch.delenv("ORDERS_BROKER")
    assert "Environment variable ORDERS_BROKER is not set: it is the addresses" in failure(
        run(orders, instance)
    )


def test_no_such_topic_is_an_error_that_names_those_there_are(orders, topic, load, instance):
    said = failure(run(load(YAML.replace("TOPIC", "no-such")), instance))
    assert "There is no topic 'no-such' at 127.0.0.1:" in said and topic in said


def test_a_secret_stands_in_no_error(topic, load, monkeypatch, instance):
    monkeypatch.setenv("ORDERS_PASSWORD", "hunter2")
    client = "  client: {security.protocol: ORDERS_PASSWORD, sasl.password: ORDERS_PASSWORD}\n"
    result = run(load(YAML.replace("TOPIC", topic) + client), instance)
    assert "Kafka settings are refused" in failure(result) and "$ORDERS_PASSWORD" in failure(result)
    assert "hunter2" not in str(
        [event.to_json() if hasattr(event, "to_json") else event for event in result.all_events]
    )


def test_a_missing_extra_is_an_error_that_names_it(orders, monkeypatch, instance):
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    assert "install the extra 'kafka'" in failure(run(orders, instance))


def test_a_file_is_read_beside_the_document(topic, use_case, load, kafka_broker, lake, instance):
    import io

    import fastavro

    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    (use_case / "order.avsc").write_text(json.dumps(schema))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, {"id": 5})
    text = YAML.replace("TOPIC", topic).replace("{format: json}", "{format: avro, schema_file: order.avsc}")
    kafka_broker.produce(topic, [{"value": stream.getvalue()}])
    assert run(load(text), instance).success
    assert rows(lake)["id"].tolist() == [5]


def test_the_pool_lets_one_run_at_a_time_read(orders):
    assert orders.resolve_asset_graph().get(ORDERS).pools == {"stream_orders"}


DATASET = """---
type: mlops_assets.components.DatasetComponent
attributes:
  name: shop_orders
  source: {format: stream, stream: orders}
  partitions: {start: "2024-01-01", end: "2024-01-06", column: event_date}
  columns: {id: integer, amount: number, event_date: string}
  primary_key: [id]
  max_quarantine_share: 0.5
"""
SHOP_ORDERS = asset_key("dataset", "shop_orders")


def run_days(defs, instance, first, last):
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={SHOP_ORDERS})
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def probed(defs, lake, instance):
    """The single days that the dataset's sensor asks for."""
    (sensor,) = [one for one in defs.sensors if one.name == "probe_shop_orders"]
    found = sensor(dg.build_sensor_context(instance=instance, resources={"lake": lake}))
    return [request.partition_key for request in found.run_requests or ()]


def test_a_dataset_of_a_stream_has_checked_days_and_late_records_open_their_day_again(
    topic, load, kafka_broker, lake, instance
):
    defs = load(YAML.replace("TOPIC", topic) + DATASET)
    kafka_broker.produce(topic, [*records(range(4)), *records(range(4, 6), day=3)])
    # Its day is that of the record's own time, and its key is missing: quarantine.
    kafka_broker.produce(topic, [{"value": b"{", "timestamp": NOON_MS, "partition": 0}])
    assert run(defs, instance).success
    assert probed(defs, lake, instance) == ["2024-01-01", "2024-01-03"]
    assert run_days(defs, instance, "2024-01-01", "2024-01-01").success
    assert run_days(defs, instance, "2024-01-03", "2024-01-03").success
    assert sorted(lake.read("datasets/shop_orders")["id"]) == list(range(6))
    assert len(lake.read("quarantine/shop_orders")) == 1
    assert probed(defs, lake, instance) == []

    kafka_broker.produce(topic, records([6]))
    assert run(defs, instance).success
    assert probed(defs, lake, instance) == ["2024-01-01"]
    assert run_days(defs, instance, "2024-01-01", "2024-01-01").success
    assert sorted(lake.read("datasets/shop_orders")["id"]) == list(range(7))


def test_joining_small_files_opens_no_day_again(topic, load, kafka_broker, lake, instance):
    defs = load(YAML.replace("TOPIC", topic) + DATASET)
    for number in range(3):
        kafka_broker.produce(topic, records([number]))
        assert run(defs, instance).success
    assert run_days(defs, instance, "2024-01-01", "2024-01-01").success
    DeltaTable(lake.table_uri("streams/orders")).optimize.compact()
    assert probed(defs, lake, instance) == []
    kafka_broker.produce(topic, records([3]))
    assert run(defs, instance).success and len(rows(lake)) == 4
