"""What the exporter says of a stream, scraped while a real broker answers and while it does not."""

import httpx
import pytest
from deltalake import DeltaTable
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.assets.ingest import DeclaredStream, ingesting
from mlops_assets.components import declared_streams
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.metrics import exporting, streams
from mlops_assets.metrics.streams import StreamCollector
from mlops_assets.testing.conformance.collectors import CollectorConformance
from mlops_assets_tests.components.test_stream import YAML, records, topic

__all__ = ["topic"]


@pytest.fixture
def source(topic, tmp_path):
    attributes = {
        "name": "orders",
        "topic": topic,
        "bootstrap_servers": "ORDERS_BROKER",
        "value": {"format": "json"},
        "columns": {"id": "integer"},
    }
    return DeclaredStream(StreamDeclaration.model_validate(attributes), tmp_path)


@pytest.fixture
def collector(source, lake):
    return StreamCollector(lambda: [source], lambda: lake)


def read(lake, source):
    with ingesting(lake, source, "run") as ingest:
        return ingest.commit_next(lambda _, at_end: at_end)


def one_by_one(broker, topic, numbers):
    """Each record in a batch of its own: asked for a topic's end, Tansu counts one record of the last."""
    for record in records(numbers):
        broker.produce(topic, [record])


def scraped(collector):
    """{series: {labels by their names: value}} of one scrape, as Prometheus reads it."""
    with exporting([collector], 0, patience_s=60) as address:
        text = httpx.get(address, trust_env=False, timeout=60).raise_for_status().text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_scrape_says_how_far_a_stream_is_and_how_far_behind(collector, source, topic, kafka_broker, lake):
    kafka_broker.produce(topic, records(range(10)))
    read(lake, source)
    one_by_one(kafka_broker, topic, [10, 12, 14, 11])
    found = scraped(collector)
    assert found["mlops_stream_up"] == {("orders",): 1}
    assert found["mlops_stream_records_total"] == {("orders",): 10}
    assert found["mlops_stream_next_offset"] == {("0", "orders"): 5, ("1", "orders"): 5}
    assert found["mlops_stream_lag_records"] == {("0", "orders"): 3, ("1", "orders"): 1}
    made = DeltaTable(lake.table_uri("streams/orders")).history(1)[0]["timestamp"] / 1000
    assert found["mlops_stream_last_commit_timestamp_seconds"] == {("orders",): made}
    assert found["mlops_exporter_up"] == {("streams",): 1}


def test_without_a_broker_the_age_goes_on_and_nobody_claims_a_lag(
    collector, source, topic, kafka_broker, lake, monkeypatch, caplog
):
    kafka_broker.produce(topic, records(range(10)))
    read(lake, source)
    table = DeltaTable(lake.table_uri("streams/orders"))
    made = table.history(1)[0]["timestamp"] / 1000
    # Joining small files adds no records.
    table.optimize.compact()
    monkeypatch.setenv("ORDERS_BROKER", "127.0.0.1:1")
    monkeypatch.setattr(streams, "ANSWER_S", 0.2)
    found = scraped(collector)
    assert found["mlops_stream_up"] == {("orders",): 0}
    assert "mlops_stream_lag_records" not in found
    assert found["mlops_stream_records_total"] == {("orders",): 10}
    assert found["mlops_stream_next_offset"] == {("0", "orders"): 5, ("1", "orders"): 5}
    assert found["mlops_stream_last_commit_timestamp_seconds"] == {("orders",): made}
    list(collector.collect())
    told = [line for line in caplog.messages if "stream orders" in line]
    assert len(told) == 1 and "No Kafka broker answers at 127.0.0.1:1 (environment" in told[0]


def test_a_stream_that_was_never_read_has_a_lag_and_no_table_is_made(collector, topic, kafka_broker, lake):
    one_by_one(kafka_broker, topic, range(4))
    found = scraped(collector)
    assert found["mlops_stream_lag_records"] == {("0", "orders"): 2, ("1", "orders"): 2}
    assert found["mlops_stream_records_total"] == {("orders",): 0}
    assert "mlops_stream_last_commit_timestamp_seconds" not in found
    assert not lake.exists("streams/orders")


def test_streams_are_those_that_documents_declare_now(request, use_case, topic, lake, monkeypatch):
    monkeypatch.setattr(declared_streams, "PACKAGE", use_case.parent.parent)
    monkeypatch.setattr(streams, "_lake", lambda: lake)
    platform = StreamCollector.of_platform()

    def names():
        return {one.labels["stream"] for one in platform.collect()}

    document = YAML.replace("TOPIC", topic)
    # Whose module can be imported, as that of an installed project.
    with request.node.sandbox.build_component_tree():
        assert names() == set()
        (use_case / "defs.yaml").write_text(document)
        assert names() == {"orders"}
        # One that cannot be loaded is missing in the graph too, and costs the others nothing.
        wrong = document.replace("name: orders", "name: tea").replace("{format: json}", "{format: tea}")
        (use_case / "defs.yaml").write_text(f"{document}---{wrong}")
        assert names() == {"orders"}


class TestStreams(CollectorConformance):
    @pytest.fixture
    def collector(self, collector, source, topic, kafka_broker, lake):
        kafka_broker.produce(topic, records(range(2)))
        read(lake, source)
        return collector
