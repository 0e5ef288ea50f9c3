"""The Open Inference Protocol V2: requests to rows, answers to responses, descriptions. Pure.

Belongs here: the protocol's shapes, its binary tensor extension, which tensors a model takes and gives. Does
not belong here: datatypes (``serve/tensors.py``), value rules (``serve/validation.py``), HTTP
(``serve/endpoint.py``).

One input tensor per feature, of shape ``[n]`` or ``[n, 1]``: BYTES for categories, FP64 for numbers, INT64
for integers, BOOL for booleans; other widths are taken too, and floating-point numbers for integers where
every value is one. A category of whole numbers takes numbers as well. Join keys are input tensors named
like them, all of them or none: BYTES, or integers. Of a model that looks keys up, a request may hold the join
keys and the request's columns instead of features. Outputs: ``prediction`` of shape ``[n]`` and, for
classifiers, ``probability`` of shape ``[n]`` (binary, of the positive class) or ``[n, classes]``.
``docs/http.md`` says of every part of the protocol what is taken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.answers import Answer
from serve.bodies import kind_of, parse_object
from serve.errors import EmptyBatch, InvalidFields, MalformedBody, Problems, TooLarge
from serve.identity import ID_REASON, is_id
from serve.online.request import KeyedRow, entity_problems, request_problems
from serve.schema import ColumnKind, FeatureType, ModelManifest, OnlineView
from serve.tensors import DATATYPES as KNOWN
from serve.tensors import INTEGERS, Values, from_bytes, from_json, to_bytes
from serve.validation import MAX_UNIT_LENGTH, Entity, Row, RowValidator

DATATYPES: dict[FeatureType, str] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "category": "BYTES",
}
"""What the description says; ``_TAKEN`` is what is taken."""
_NUMBERS = frozenset({"FP64", "FP32", "FP16", "BF16", *INTEGERS})
_TAKEN: dict[FeatureType, frozenset[str]] = {
    "number": _NUMBERS,
    "integer": _NUMBERS,
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
}
_CODES = frozenset({"BYTES"}) | _NUMBERS
"""Of join keys, and of categories of whole numbers."""
_KEY = (_CODES, "BYTES or INT64")
_COLUMNS: dict[ColumnKind, tuple[frozenset[str], str]] = {
    "string": (frozenset({"BYTES"}), "BYTES"),
    "timestamp": (frozenset({"BYTES"}), "BYTES"),
    "date": (frozenset({"BYTES"}), "BYTES"),
    "boolean": (frozenset({"BOOL"}), "BOOL"),
    "integer": (_NUMBERS, "INT64"),
    "number": (_NUMBERS, "FP64"),
}
"""Of the columns that come with a request of keys: what is taken, and what the description says."""
EXTENSIONS = ("binary_tensor_data",)
"""Of the protocol; what else there is under these names is refused."""

_REQUEST_FIELDS = ("id", "inputs", "outputs", "parameters", "model_name", "model_version")
_TENSOR_FIELDS = ("name", "shape", "datatype", "data", "parameters")
_OUTPUT_FIELDS = ("name", "parameters")
_STATEFUL = ("sequence_id", "sequence_start", "sequence_end")
_ELSEWHERE = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True)
class Tensor:
    """An input as it was sent; ``values`` None: it could not be read."""

    name: str
    datatype: str
    values: Values | None
    place: str


@dataclass(frozen=True)
class Requested:
    """An output as it was asked for; ``binary`` None: as the request says."""

    name: str
    binary: bool | None
    place: str


@dataclass(frozen=True)
class Sent:
    """An infer request that was read, for any model; ``problems`` are those that no model would take."""

    request_id: str | None
    unit: str | None
    version: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Requested, ...]
    binary_output: bool
    problems: Problems = field(default_factory=list)

    def instances(self, name: str) -> list[Any]:
        """The rows as far as one feature goes, for a rollout by cohort."""
        for tensor in self.inputs:
            if tensor.name == name and tensor.values:
                return [{name: value} for value in tensor.values]
        return [None]


# -- requests ----------------------------------------------------------------------------------------


def read(body: bytes, header_length: bytes | None, *, name: str, max_rows: int) -> Sent:
    """The request in a body; ``header_length`` is where its JSON ends and the bytes of tensors begin.

    Raises MalformedBody, InvalidFields for a key given twice, InvalidFields for ``inputs`` that are no list,
    TooLarge for more than ``max_rows`` rows. Everything else is among the problems.
    """
    end = len(body) if header_length is None else _json_end(header_length, len(body))
    document = parse_object(body[:end])
    raw = memoryview(body)[end:]
    parameters = _object(document, "parameters", "parameters", found := _envelope_problems(document, name))
    binary_output = _flag(parameters, "binary_data_output", "parameters", found)
    found += _refused(parameters, _STATEFUL, "parameters", "answers do not depend on earlier ones")
    unit = parameters.get("unit")
    if unit is not None and not (type(unit) is str and 0 < len(unit) <= MAX_UNIT_LENGTH):
        reason = f"must be a string of 1 to {MAX_UNIT_LENGTH} characters"
        found.append({"field": "parameters.unit", "reason": reason})
    tensors = document.get("inputs")
    if type(tensors) is not list:
        reason = "is missing" if tensors is None else f"must be an array of tensors, not {kind_of(tensors)}"
        raise InvalidFields([*found, {"field": "inputs", "reason": reason}])
    inputs = []
    used = 0
    for position, tensor in enumerate(tensors):
        made, size = _tensor(tensor, raw[used:], f"inputs[{position}]", max_rows, found)
        used += size
        if made is not None:
            inputs.append(made)
    if used < len(raw) and not found:
        reason = f"the tensors take {used} of {len(raw)} bytes that follow the JSON"
        raise MalformedBody(f"The body is longer than it says: {reason}.")
    outputs = _requested(document.get("outputs"), found)
    request_id, version = document.get("id"), document.get("model_version")
    return Sent(
        request_id=request_id if type(request_id) is str and request_id else None,
        unit=unit if type(unit) is str else None,
        version=version if type(version) is str and version else None,
        inputs=tuple(inputs),
        outputs=outputs,
        binary_output=bool(binary_output),
        problems=found,
    )


def rows_of(
    sent: Sent, manifest: ModelManifest, validator: RowValidator
) -> tuple[list[Row], list[Entity | None] | None]:
    """The valid rows, and their join keys or None. InvalidFields names every bad tensor and value."""
    types = {feature.name: feature.type for feature in manifest.features}
    coded = {feature.name for feature in manifest.features if feature.coded}
    keys = tuple(manifest.entity)
    takes = dict.fromkeys(keys, _KEY)
    takes |= {
        name: _KEY if name in coded else (_TAKEN[kind], DATATYPES[kind]) for name, kind in types.items()
    }
    strange = f"no feature{' and no join key' if keys else ''} of this model"
    columns, count = _columns(sent, manifest, takes, required=tuple(types), strange=strange)
    found: Problems = []
    rows: list[Row] = [
        dict(zip(types, values, strict=True))
        for values in zip(*(columns[name] for name in types), strict=True)
    ]
    for number, row in enumerate(rows):
        found += validator.problems(row, f"row {number}")
    entities = _entities(keys, types, columns, count)
    for number, entity in enumerate(entities or ()):
        found += validator.entity_problems(entity, f"row {number}")
    if found:
        raise InvalidFields(found)
    if validator.takes_codes:
        rows = [validator.row(row) for row in rows]
    return rows, None if entities is None else validator.entities(entities)


def is_keyed(sent: Sent, manifest: ModelManifest) -> bool:
    """Whether a request to a model that looks keys up lacks features, so that they are to be looked up."""
    return not set(manifest.feature_names) <= {tensor.name for tensor in sent.inputs}


def keyed_rows(
    sent: Sent, manifest: ModelManifest, view: OnlineView, validator: RowValidator
) -> list[KeyedRow]:
    """The valid rows of a request of keys. InvalidFields names every bad tensor and value."""
    takes = dict.fromkeys(view.entity, _KEY) | {name: _COLUMNS[view.columns[name]] for name in view.request}
    strange = f"no join key and no column of this request; allowed: {', '.join(takes)}"
    columns, count = _columns(sent, manifest, takes, required=tuple(takes), strange=strange)
    rows = [
        KeyedRow(
            {name: columns[name][number] for name in view.entity},
            {name: columns[name][number] for name in view.request},
        )
        for number in range(count)
    ]
    found: Problems = []
    for number, row in enumerate(rows):
        found += request_problems(view, row.request, f"row {number}")
        found += entity_problems(view, validator, row.entity, f"row {number}")
    if found:
        raise InvalidFields(found)
    return rows


def _columns(
    sent: Sent,
    manifest: ModelManifest,
    takes: Mapping[str, tuple[frozenset[str], str]],
    *,
    required: Sequence[str],
    strange: str,
) -> tuple[dict[str, Values], int]:
    """The values of every tensor by name, and how many rows there are.

    ``takes``: by name, the datatypes that are taken and how they are told. ``strange``: what a name is that
    is not among them.
    """
    found = list(sent.problems)
    columns: dict[str, Values] = {}
    given: set[str] = set()
    for tensor in sent.inputs:
        if tensor.name not in takes:
            found.append({"field": f"{tensor.place}.name", "reason": f"{tensor.name} is {strange}"})
            continue
        if tensor.name in given:
            found.append({"field": f"{tensor.place}.name", "reason": f"{tensor.name} is given twice"})
            continue
        given.add(tensor.name)
        taken, told = takes[tensor.name]
        if tensor.datatype not in taken:
            found.append({"field": f"{tensor.place}.datatype", "reason": f"{tensor.name} takes {told}"})
        elif tensor.values is not None:
            columns[tensor.name] = tensor.values
    found += [{"field": name, "reason": "is missing"} for name in required if name not in given]
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found.append({"field": "inputs", "reason": f"tensors differ in length: {lengths}"})
    known = output_names(manifest)
    found += [
        {
            "field": f"{output.place}.name",
            "reason": f"{output.name} is no output of this model; there is: {', '.join(known)}",
        }
        for output in sent.outputs
        if output.name not in known
    ]
    if found:
        raise InvalidFields(found)
    count = max(lengths.values(), default=0)
    if not count:
        raise EmptyBatch("inputs")
    return columns, count


def _json_end(header_length: bytes, size: int) -> int:
    text = header_length.decode("latin-1").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > size:
        raise MalformedBody(
            f"Inference-Header-Content-Length is {text[:40]!r}. It must be the length of the body's JSON in "
            f"bytes, and the body has {size}."
        )
    return int(text)


def _envelope_problems(document: dict[str, Any], name: str) -> Problems:
    found: Problems = [
        {"field": key, "reason": f"is not a field of this request; allowed: {', '.join(_REQUEST_FIELDS)}"}
        for key in document
        if key not in _REQUEST_FIELDS
    ]
    for key in ("id", "model_name", "model_version"):
        value = document.get(key)
        if value is not None and type(value) is not str:
            found.append({"field": key, "reason": f"must be a string, not {kind_of(value)}"})
    request_id, model = document.get("id"), document.get("model_name")
    if type(request_id) is str and request_id and not is_id(request_id):
        found.append({"field": "id", "reason": ID_REASON})
    if type(model) is str and model not in ("", name):
        found.append({"field": "model_name", "reason": f"must be the model that is asked, {name}"})
    return found


def _object(holder: Mapping[str, Any], key: str, place: str, found: Problems) -> dict[str, Any]:
    """The object under a key, {} when there is none."""
    value = holder.get(key)
    if value is not None and type(value) is not dict:
        found.append({"field": place, "reason": f"must be an object, not {kind_of(value)}"})
    return value if type(value) is dict else {}


def _flag(parameters: Mapping[str, Any], key: str, place: str, found: Problems) -> bool | None:
    value = parameters.get(key)
    if value is not None and type(value) is not bool:
        found.append({"field": f"{place}.{key}", "reason": f"must be true or false, not {kind_of(value)}"})
    return value if type(value) is bool else None


def _refused(parameters: Mapping[str, Any], names: Sequence[str], place: str, why: str) -> Problems:
    """Parameters that would change the answer and are not taken; others are hints, and ignored."""
    return [
        {"field": f"{place}.{name}", "reason": f"is not taken: {why}"}
        for name in names
        if parameters.get(name) is not None
    ]


def _tensor(
    tensor: Any, raw: memoryview, place: str, max_rows: int, found: Problems
) -> tuple[Tensor | None, int]:
    """An input, and how many of the bytes are its own."""
    if type(tensor) is not dict:
        found.append({"field": place, "reason": f"must be a tensor object, not {kind_of(tensor)}"})
        return None, 0
    before = len(found)
    found += [
        {
            "field": f"{place}.{key}",
            "reason": f"is not a field of a tensor; allowed: {', '.join(_TENSOR_FIELDS)}",
        }
        for key in tensor
        if key not in _TENSOR_FIELDS
    ]
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    parameters = _object(tensor, "parameters", f"{place}.parameters", found)
    found += _refused(parameters, _ELSEWHERE, f"{place}.parameters", "tensors come with the request")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or not 0 <= size <= len(raw)):
        reason = f"must be a number of bytes, and {len(raw)} are left after the JSON and the tensors before"
        found.append({"field": f"{place}.parameters.binary_data_size", "reason": reason})
        return None, len(raw)
    own = size or 0
    if type(name) is not str or not name:
        found.append({"field": f"{place}.name", "reason": "must be the name of an input"})
        return None, own
    if type(datatype) is not str or datatype not in KNOWN:
        found.append({"field": f"{place}.datatype", "reason": f"must be one of {', '.join(KNOWN)}"})
        return Tensor(name, "", None, place), own
    count = _rows(shape)
    if count is None:
        found.append({"field": f"{place}.shape", "reason": f"{name}: must be [n] or [n, 1]"})
    elif count > max_rows:
        raise TooLarge("batch", limit=max_rows, unit="rows")
    data = tensor.get("data")
    if (data is None) == (size is None):
        reason = "is missing" if data is None else "is given beside binary_data_size"
        found.append({"field": f"{place}.data", "reason": f"{name}: {reason}"})
    if count is None or len(found) > before:
        return Tensor(name, datatype, None, place), own
    if size is not None:
        values, wrong = from_bytes(datatype, bytes(raw[:own]), count, place)
    else:
        values, wrong = _from_data(datatype, data, count, place, name)
    found += wrong
    return Tensor(name, datatype, None if wrong else values, place), own


def _rows(shape: Any) -> int | None:
    if type(shape) is not list or len(shape) not in (1, 2) or any(type(size) is not int for size in shape):
        return None
    return shape[0] if shape[0] >= 0 and shape[1:] in ([], [1]) else None


def _from_data(datatype: str, data: Any, count: int, place: str, name: str) -> tuple[Values, Problems]:
    if type(data) is not list:
        return [], [{"field": f"{place}.data", "reason": f"{name}: must be an array, not {kind_of(data)}"}]
    if data and all(type(value) is list and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if len(data) != count:
        reason = f"{name}: must be [{len(data)}] or [{len(data)}, 1], as there are so many values"
        return [], [{"field": f"{place}.shape", "reason": reason}]
    return from_json(datatype, data, f"{place}.data")


def _requested(outputs: Any, found: Problems) -> tuple[Requested, ...]:
    """The outputs asked for, in their order; () for all."""
    if outputs is None:
        return ()
    if type(outputs) is not list:
        found.append({"field": "outputs", "reason": f"must be an array of outputs, not {kind_of(outputs)}"})
        return ()
    made: list[Requested] = []
    for position, output in enumerate(outputs):
        place = f"outputs[{position}]"
        name = output.get("name") if type(output) is dict else None
        if type(name) is not str:
            found.append({"field": f"{place}.name", "reason": "must be the name of an output"})
            continue
        found += [
            {
                "field": f"{place}.{key}",
                "reason": f"is not a field of an output; allowed: {', '.join(_OUTPUT_FIELDS)}",
            }
            for key in output
            if key not in _OUTPUT_FIELDS
        ]
        parameters = _object(output, "parameters", f"{place}.parameters", found)
        found += _refused(parameters, _ELSEWHERE, f"{place}.parameters", "tensors go with the response")
        why = "ask for the output probability"
        found += _refused(parameters, ("classification",), f"{place}.parameters", why)
        if name in (one.name for one in made):
            found.append({"field": f"{place}.name", "reason": f"{name} is asked for twice"})
        made.append(Requested(name, _flag(parameters, "binary_data", f"{place}.parameters", found), place))
    return tuple(made)


def _entities(
    keys: Sequence[str], types: Mapping[str, Any], columns: Mapping[str, Values], count: int
) -> list[dict[str, Any] | None] | None:
    """One object of join keys per row, None where every key of a row is null; None when no key was sent.

    A key that is a feature too has one tensor for both, so that it says nothing by itself.
    """
    if not any(key in columns and key not in types for key in keys):
        return None
    found: list[dict[str, Any] | None] = []
    for number in range(count):
        entity = {key: columns[key][number] for key in keys if key in columns}
        found.append(None if all(value is None for value in entity.values()) else entity)
    return found


# -- responses ---------------------------------------------------------------------------------------


def response(
    sent: Sent,
    manifest: ModelManifest,
    answers: Sequence[Answer],
    *,
    name: str,
    version: str,
    variant: str,
    request_id: str,
    answer_id: str,
) -> tuple[bytes, int | None]:
    """The body for the answers of ``serve.answers``, and where its JSON ends; None: it is JSON throughout."""
    described = {output["name"]: output for output in _outputs(manifest)}
    asked = sent.outputs or tuple(Requested(each, None, "") for each in described)
    outputs = []
    tail: list[bytes] = []
    for one in asked:
        datatype = described[one.name]["datatype"]
        values = _data(one.name, manifest, answers)
        made: dict[str, Any] = {
            "name": one.name,
            "datatype": datatype,
            "shape": [len(answers), *described[one.name]["shape"][1:]],
        }
        if sent.binary_output if one.binary is None else one.binary:
            tail.append(to_bytes(datatype, values))
            made["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            made["data"] = values
        outputs.append(made)
    head = _encode(
        {
            "model_name": name,
            "model_version": version,
            "id": request_id,
            "parameters": {"variant": variant, "answer_id": answer_id},
            "outputs": outputs,
        }
    ).encode()
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def metadata(manifest: ModelManifest, *, name: str, versions: Sequence[str]) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` says."""
    made: dict[str, Any] = {
        "name": name,
        "versions": list(versions),
        "platform": manifest.model_format,
        "inputs": [
            {"name": feature.name, "datatype": DATATYPES[feature.type], "shape": [-1]}
            for feature in manifest.features
        ],
        "outputs": _outputs(manifest),
    }
    if manifest.entity:
        made["parameters"] = {"join_keys": ",".join(manifest.entity)}
    if manifest.online:
        made["parameters"]["request_columns"] = ",".join(manifest.online.request)
    return made


def example_request(manifest: ModelManifest, row: Row) -> dict[str, Any]:
    """An infer request of one row."""
    return {
        "inputs": [
            {
                "name": feature.name,
                "shape": [1],
                "datatype": DATATYPES[feature.type],
                "data": [row[feature.name]],
            }
            for feature in manifest.features
        ]
    }


def output_names(manifest: ModelManifest) -> list[str]:
    """The outputs that a model gives."""
    return [output["name"] for output in _outputs(manifest)]


def _outputs(manifest: ModelManifest) -> list[dict[str, Any]]:
    if manifest.task == "regression":
        return [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    classes = [len(manifest.classes or ())] if manifest.task == "multiclass" else []
    return [
        {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
        {"name": "probability", "datatype": "FP64", "shape": [-1, *classes]},
    ]


def _data(output: str, manifest: ModelManifest, answers: Sequence[Answer]) -> list[Any]:
    if output == "probability" and manifest.task == "multiclass":
        return [value for answer in answers for value in answer["probability"].values()]
    return [answer[output] for answer in answers]
