"""Avro records. Belongs here: reading them. Does not belong here: asking a registry for a schema
(``resources/schema_registry.py``).

fastavro reads the bytes. confluent-kafka's own deserialiser reads them with fastavro too, and its
``schemaregistry`` extra resolves to an older confluent-kafka beside our other packages.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from mlops_assets.errors import DataError
from mlops_assets.secrets import VariableName
from mlops_assets.streams.formats._base import Decode, RecordFormat, Registered, Undecodable

_PREFIX = struct.Struct(">bI")
"""What Confluent's serialisers write before a value: a zero, and the number of its schema."""


class AvroRecords(RecordFormat):
    """Avro without its file header: every record in the one schema of a file, or in a registered schema whose
    number stands before the value (Confluent's wire format).
    """

    name: ClassVar[str] = "avro"

    schema_file: str | None = Field(
        default=None,
        description="The schema (.avsc), relative to this file. With a registry: what records are read as, "
        "whatever schema they were written in.",
    )
    registry: VariableName | None = Field(
        default=None, description="Environment variable with the schema registry's address."
    )

    @model_validator(mode="after")
    def _some_schema(self) -> "AvroRecords":
        if self.schema_file is None and self.registry is None:
            raise ValueError(
                "avro needs schema_file, registry, or both: without a schema nothing can be read"
            )
        return self

    def decoder(self, folder: Path, registered: Registered) -> Decode:
        fastavro = _library()
        own = _parsed(folder / self.schema_file) if self.schema_file else None
        registry = self.registry
        if registry is None:
            return lambda value: _read(fastavro, BytesIO(value), own, None)
        parsed: dict[int, Any] = {}

        def read(value: bytes) -> Mapping[str, Any]:
            zero, number = _PREFIX.unpack_from(value) if len(value) >= _PREFIX.size else (1, 0)
            if zero != 0:
                raise Undecodable("it does not begin with the number of a registered schema")
            if number not in parsed:
                parsed[number] = _schema(fastavro, registered(registry, number))
            return _read(fastavro, BytesIO(value[_PREFIX.size :]), parsed[number], own)

        return read


def _library() -> Any:
    try:
        import fastavro
    except ModuleNotFoundError as error:
        raise DataError(
            "Avro records are read with fastavro, which is not installed: install the extra 'kafka' "
            "(pip install 'mlops-assets[kafka]')."
        ) from error
    return fastavro


def _parsed(file: Path) -> Any:
    try:
        return _library().parse_schema(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(f"Avro schema {file} does not exist.") from error
    except Exception as error:  # whatever fastavro raises is about this file, and says so
        raise DataError(f"{file} is no Avro schema: {type(error).__name__}: {error}") from error


def _schema(fastavro: Any, texts: Sequence[str]) -> Any:
    """The last of the schemas; those before it are what it refers to."""
    named: dict[str, Any] = {}
    try:
        return [fastavro.parse_schema(json.loads(text), named_schemas=named) for text in texts][-1]
    except Exception as error:  # whatever fastavro raises is about this record's schema
        raise Undecodable(f"its registered schema cannot be used: {type(error).__name__}: {error}") from error


def _read(fastavro: Any, stream: BytesIO, written: Any, wanted: Any) -> Mapping[str, Any]:
    try:
        document = fastavro.schemaless_reader(stream, written, wanted)
    except Exception as error:  # fastavro raises what it happens to meet in wrong bytes
        raise Undecodable(f"it is not in its Avro schema: {type(error).__name__}: {error}") from error
    rest = stream.read()
    if rest:
        raise Undecodable(f"it is not in its Avro schema: {len(rest)} bytes are left over")
    if not isinstance(document, dict):
        raise Undecodable(f"its Avro schema is that of a {type(document).__name__} and not of a record")
    return document
