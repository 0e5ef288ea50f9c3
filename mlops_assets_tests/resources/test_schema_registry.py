"""A registry's answers, errors included, from a server that answers as its documented API does.

pip installs no registry: Karapace is not on PyPI, and Confluent's is a program in Java.
"""

import base64
import io
import json
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fastavro
import pytest

from mlops_assets.assets.ingest import DeclaredStream, ingesting
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import SourceUnavailable
from mlops_assets.resources import schema_registry
from mlops_assets.resources.schema_registry import registered
from mlops_assets.streams.formats import Undecodable
from mlops_assets_tests.components.test_stream import topic

__all__ = ["topic"]

MONEY = {
    "type": "record",
    "name": "shop.Money",
    "fields": [{"name": "cents", "type": "long"}, {"name": "currency", "type": "string"}],
}
ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "paid", "type": "shop.Money"},
        {"name": "back", "type": ["null", "shop.Money"]},
    ],
}
REFERENCES = [{"name": "shop.Money", "subject": "shop/Money", "version": 3}]
ANSWERS = {
    "/schemas/ids/1": (200, {"schema": json.dumps(MONEY)}),
    "/schemas/ids/2": (200, {"schema": json.dumps(ORDER), "references": REFERENCES}),
    "/subjects/shop%2FMoney/versions/3": (
        200,
        {"subject": "shop/Money", "version": 3, "id": 1, "schema": json.dumps(MONEY)},
    ),
    "/schemas/ids/3": (200, {"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";'}),
    "/schemas/ids/4": (500, {"error_code": 50001, "message": "Error in the backend data store"}),
    "/schemas/ids/5": (200, {"schema": "{"}),
    "/schemas/ids/6": (200, "<html>a page</html>"),
    "/schemas/ids/7": (404, "<html>no such page</html>"),
}
NO_SCHEMA = (404, {"error_code": 40403, "message": "Schema not found"})
NO_ACCESS = (401, {"error_code": 401, "message": "Unauthorized"})
RIGHT = "Basic " + base64.b64encode(b"ann:hunter2").decode()


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("authorization") == RIGHT
            status, said = ANSWERS.get(self.path, NO_SCHEMA) if known else NO_ACCESS
            self.server.asked.append(self.path)
            body = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def registry(server, monkeypatch):
    """What was asked; the registry's address stands in ORDERS_REGISTRY."""
    registered.cache_clear()
    server.asked.clear()
    monkeypatch.setenv("ORDERS_REGISTRY", f"http://ann:hunter2@127.0.0.1:{server.server_port}")
    return server.asked


def test_a_schema_is_asked_for_once_with_what_it_refers_to(registry):
    assert [json.loads(text) for text in registered("ORDERS_REGISTRY", 2)] == [MONEY, ORDER]
    registered("ORDERS_REGISTRY", 2)
    assert registry == ["/schemas/ids/2", "/subjects/shop%2FMoney/versions/3"]


@pytest.mark.parametrize(
    ("number", "said"),
    [(8, "the registry has no schema 8"), (3, "schema 3 of the registry is one of PROTOBUF")],
)
def test_what_is_wrong_with_one_schema_is_about_its_records(number, said):
    with pytest.raises(Undecodable, match=said):
        registered("ORDERS_REGISTRY", number)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (4, "answers 500 to the question for schema 4.*backend data store.*try again"),
        (6, "answers 200 .* no answer of a registry's: '<html>a page"),
        # Taken for a schema that is not there, all records would be undecodable for ever.
        (7, "answers 404 .* no answer of a registry's: '<html>no such page.*Correct the address"),
    ],
)
def test_what_is_wrong_with_the_registry_ends_the_run(number, said):
    with pytest.raises(SourceUnavailable, match=said) as caught:
        registered("ORDERS_REGISTRY", number)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_told_and_not_shown(server, monkeypatch):
    monkeypatch.setenv("ORDERS_REGISTRY", f"http://ann:secret9@127.0.0.1:{server.server_port}")
    with pytest.raises(SourceUnavailable, match=r"lets nobody in \(401\): user and password stand") as caught:
        registered("ORDERS_REGISTRY", 1)
    assert "secret9" not in str(caught.value) and str(server.server_port) in str(caught.value)


def test_nobody_at_the_address_is_told(monkeypatch):
    monkeypatch.setenv("ORDERS_REGISTRY", "http://ann:hunter2@127.0.0.1:9")
    with pytest.raises(
        SourceUnavailable, match=r"registry at 127\.0\.0\.1:9 .*ORDERS_REGISTRY.*Start it or correct"
    ) as caught:
        registered("ORDERS_REGISTRY", 1)
    assert "hunter2" not in str(caught.value)


def in_wire_format(number, document):
    stream = io.BytesIO(struct.pack(">bI", 0, number))
    stream.seek(0, io.SEEK_END)
    named = {}
    fastavro.parse_schema(dict(MONEY), named_schemas=named)
    fastavro.schemaless_writer(stream, fastavro.parse_schema(dict(ORDER), named_schemas=named), document)
    return stream.getvalue()


def test_a_topic_in_confluents_wire_format_becomes_rows(topic, kafka_broker, lake, tmp_path):
    declared = {
        "name": "orders",
        "topic": topic,
        "bootstrap_servers": "ORDERS_BROKER",
        "value": {"format": "avro", "registry": "ORDERS_REGISTRY"},
        "columns": {"id": "integer", "cents": "integer"},
        "fields": {"cents": "paid.cents"},
    }
    order = {"id": 1, "paid": {"cents": 250, "currency": "EUR"}, "back": {"cents": 5, "currency": "EUR"}}
    values = [in_wire_format(2, order), in_wire_format(8, order), in_wire_format(5, order), b"{}"]
    kafka_broker.produce(topic, [{"value": value, "partition": 0} for value in values])
    source = DeclaredStream(StreamDeclaration.model_validate(declared), tmp_path)
    with ingesting(lake, source, "run") as ingest:
        found = ingest.commit_next(lambda _, at_end: at_end)
    rows = lake.read("streams/orders").sort_values("offset")
    assert rows[["id", "cents"]].iloc[0].tolist() == [1, 250]
    assert [why for _, _, why in found.reasons] == [
        "the registry has no schema 8",
        *(why for why in rows["undecodable"][2:3]),
        "it does not begin with the number of a registered schema",
    ]
    assert rows["undecodable"].iloc[2].startswith("its registered schema cannot be used")


def test_a_registry_that_is_away_leaves_offsets_where_they_are(
    topic, kafka_broker, lake, tmp_path, monkeypatch
):
    monkeypatch.setattr(schema_registry, "ANSWER_S", 0.5)
    monkeypatch.setenv("ORDERS_REGISTRY", "http://127.0.0.1:9")
    declared = {
        "name": "orders",
        "topic": topic,
        "bootstrap_servers": "ORDERS_BROKER",
        "value": {"format": "avro", "registry": "ORDERS_REGISTRY"},
        "columns": {"id": "integer"},
    }
    kafka_broker.produce(topic, [{"value": b"\x00\x00\x00\x00\x02x", "partition": 0}])
    source = DeclaredStream(StreamDeclaration.model_validate(declared), tmp_path)
    with pytest.raises(SourceUnavailable), ingesting(lake, source, "run") as ingest:
        ingest.commit_next(lambda _, at_end: at_end)
    assert lake.read("streams/orders").empty
