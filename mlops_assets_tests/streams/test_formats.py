"""Formats of records: the contract of all, and what each refuses by itself."""

import io
import json
from pathlib import Path

import fastavro
import pytest
from pydantic import ValidationError

from mlops_assets.errors import DataError
from mlops_assets.streams.formats import RECORD_FORMATS, Undecodable
from mlops_assets.streams.formats.avro_format import AvroRecords
from mlops_assets.streams.formats.json_format import JsonRecords
from mlops_assets.testing.conformance.record_formats import RecordFormatConformance

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": "double"},
        {"name": "note", "type": "string"},
        {"name": "gift", "type": "boolean"},
    ],
}


def avro(document, schema=ORDER):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(dict(schema)), document)
    return stream.getvalue()


class TestJson(RecordFormatConformance):
    declared = JsonRecords(format="json")

    def written(self, document):
        return json.dumps(document).encode()


class TestRegisteredAvro(RecordFormatConformance):
    declared = AvroRecords(format="avro", registry="ORDERS_REGISTRY")

    def written(self, document):
        return b"\x00\x00\x00\x00\x07" + avro(document)

    def registered(self, variable, number):
        assert variable == "ORDERS_REGISTRY"
        if number != 7:
            raise Undecodable(f"the registry has no schema {number}")
        return [json.dumps(ORDER)]


def test_every_format_passes_the_contract():
    assert set(RECORD_FORMATS) == {"json", "avro"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"[1]", "a list and not an object"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', "'a' stands in it twice"),
        (b"\xff", "not UTF-8: invalid start byte at byte 0"),
        (b'{"a": ' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_wrong_with_json_is_said(value, said):
    with pytest.raises(Undecodable, match=said):
        JsonRecords(format="json").decoder(Path(), lambda *_: None)(value)


def test_avro_is_read_in_the_schema_of_a_file(tmp_path):
    (tmp_path / "order.avsc").write_text(json.dumps(ORDER))
    read = AvroRecords(format="avro", schema_file="order.avsc").decoder(tmp_path, lambda *_: None)
    document = {"id": 1, "amount": 2.0, "note": "n", "gift": True}
    assert read(avro(document)) == document
    with pytest.raises(Undecodable, match="not in its Avro schema"):
        read(b"\x02")


def test_a_registered_schema_is_read_as_the_file_says(tmp_path):
    newer = {**ORDER, "fields": [*ORDER["fields"], {"name": "shop", "type": "string", "default": "web"}]}
    (tmp_path / "order.avsc").write_text(json.dumps(newer))
    declared = AvroRecords(format="avro", schema_file="order.avsc", registry="ORDERS_REGISTRY")
    asked = []

    def registered(variable, number):
        asked.append(number)
        return [json.dumps(ORDER)]

    read = declared.decoder(tmp_path, registered)
    value = b"\x00\x00\x00\x00\x07" + avro({"id": 1, "amount": 2.0, "note": "n", "gift": True})
    assert [read(value)["shop"], read(value)["shop"]] == ["web", "web"]
    assert asked == [7]


def test_avro_without_any_schema_is_refused():
    with pytest.raises(ValidationError, match="needs schema_file, registry, or both"):
        AvroRecords(format="avro")


def test_a_registry_is_named_by_its_variable_and_the_value_is_not_repeated():
    with pytest.raises(ValidationError, match="no name of an environment variable") as error:
        AvroRecords(format="avro", registry="https://user:hunter2@registry")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(("text", "said"), [(None, "does not exist"), ("{}", "is no Avro schema")])
def test_a_schema_that_cannot_be_used_is_no_fault_of_the_records(tmp_path, text, said):
    if text is not None:
        (tmp_path / "order.avsc").write_text(text)
    with pytest.raises(DataError, match=said):
        AvroRecords(format="avro", schema_file="order.avsc").decoder(tmp_path, lambda *_: None)
