"""The Open Inference Protocol V2: tensors by feature name to rows, answers to tensors. Pure.

Belongs here: the protocol's shapes and datatypes. Does not belong here: value rules
(``serve/validation.py``), HTTP (``serve/endpoint.py``).

One input tensor per feature, of shape ``[n]`` or ``[n, 1]``: BYTES for categories, FP64 for numbers,
INT64 for integers, BOOL for booleans (other widths of the same kind are taken too); ``null`` is a
missing value. Outputs: ``prediction`` of shape ``[n]`` and, for classifiers, ``probability`` of shape
``[n]`` (binary, of the positive class) or ``[n, classes]``. Errors have this endpoint's JSON shape, not
the protocol's bare string. The binary tensor extension is not spoken.
"""

from collections.abc import Sequence
from typing import Any

from serve.answers import Answer
from serve.errors import EmptyBatch, InvalidFields, MalformedBody, Problems, TooLarge
from serve.identity import ID_REASON, is_id
from serve.schema import FeatureType, FeatureValue, ModelManifest
from serve.validation import Row, RowValidator, kind_of

DATATYPES: dict[FeatureType, str] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "category": "BYTES",
}
_INTEGERS = frozenset(f"{sign}INT{width}" for sign in ("", "U") for width in (8, 16, 32, 64))
_TAKEN: dict[FeatureType, frozenset[str]] = {
    "number": frozenset({"FP64", "FP32", "FP16"}) | _INTEGERS,
    "integer": _INTEGERS,
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
}
_REQUEST_FIELDS = ("id", "inputs", "outputs", "parameters")


def refuse_binary_extension(headers: dict[bytes, bytes]) -> None:
    """Raises MalformedBody when the body is announced as JSON followed by raw tensors."""
    if b"inference-header-content-length" in headers:
        raise MalformedBody("The binary tensor extension is not supported; send tensors as JSON.")


def rows_of(
    document: dict[str, Any], manifest: ModelManifest, validator: RowValidator, *, max_rows: int
) -> list[Row]:
    """The valid rows of an infer request. InvalidFields names every bad tensor and value."""
    found: Problems = [
        {"field": name, "reason": f"is not a field of this request; allowed: {', '.join(_REQUEST_FIELDS)}"}
        for name in document
        if name not in _REQUEST_FIELDS
    ]
    request_id = document.get("id")
    if request_id is not None and type(request_id) is not str:
        found.append({"field": "id", "reason": f"must be a string, not {kind_of(request_id)}"})
    elif request_id and not is_id(request_id):
        found.append({"field": "id", "reason": ID_REASON})
    inputs = document.get("inputs")
    if type(inputs) is not list:
        reason = "is missing" if inputs is None else f"must be an array of tensors, not {kind_of(inputs)}"
        raise InvalidFields([*found, {"field": "inputs", "reason": reason}])
    columns: dict[str, list[FeatureValue]] = {}
    types = {feature.name: feature.type for feature in manifest.features}
    for position, tensor in enumerate(inputs):
        name, values, problems = _column(tensor, types, f"inputs[{position}]")
        found += problems
        if name in columns:
            found.append({"field": f"inputs[{position}].name", "reason": f"{name} is given twice"})
        elif values is not None:
            columns[name] = values
    lengths = {name: len(values) for name, values in columns.items()}
    count = max(lengths.values(), default=0)
    if count > max_rows:
        raise TooLarge("batch", limit=max_rows, unit="rows")
    given = {
        tensor.get("name") for tensor in inputs if type(tensor) is dict and _hashable(tensor.get("name"))
    }
    found += [{"field": name, "reason": "is missing"} for name in types if name not in given]
    if len(set(lengths.values())) > 1:
        found.append({"field": "inputs", "reason": f"tensors differ in length: {lengths}"})
    if found:
        raise InvalidFields(found)
    if not count:
        raise EmptyBatch("inputs")
    names = list(columns)
    rows: list[Row] = [
        dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    found = [
        problem for number, row in enumerate(rows) for problem in validator.problems(row, f"row {number}")
    ]
    if found:
        raise InvalidFields(found)
    return rows


def response(
    manifest: ModelManifest,
    answers: Sequence[Answer],
    *,
    name: str,
    version: str,
    variant: str,
    request_id: str,
    answer_id: str,
) -> dict[str, Any]:
    """The infer response for the answers of ``serve.answers``."""
    count = len(answers)
    outputs = [
        {
            "name": output["name"],
            "datatype": output["datatype"],
            "shape": [count, *output["shape"][1:]],
            "data": _data(output["name"], manifest, answers),
        }
        for output in _outputs(manifest)
    ]
    return {
        "model_name": name,
        "model_version": version,
        "id": request_id,
        "parameters": {"variant": variant, "answer_id": answer_id},
        "outputs": outputs,
    }


def metadata(manifest: ModelManifest, *, name: str, versions: Sequence[str]) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` says."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": manifest.model_format,
        "inputs": [
            {"name": feature.name, "datatype": DATATYPES[feature.type], "shape": [-1]}
            for feature in manifest.features
        ],
        "outputs": _outputs(manifest),
    }


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


def _column(
    tensor: Any, types: dict[str, FeatureType], field: str
) -> tuple[str, list[FeatureValue] | None, Problems]:
    if type(tensor) is not dict:
        return "", None, [{"field": field, "reason": f"must be a tensor object, not {kind_of(tensor)}"}]
    name = tensor.get("name")
    if type(name) is not str:
        return "", None, [{"field": f"{field}.name", "reason": "must be the name of a feature"}]
    if name not in types:
        return name, None, [{"field": f"{field}.name", "reason": f"{name} is not a feature of this model"}]
    found: Problems = []
    datatype, data, shape = tensor.get("datatype"), tensor.get("data"), tensor.get("shape")
    if not _hashable(datatype) or datatype not in _TAKEN[types[name]]:
        found.append({"field": f"{field}.datatype", "reason": f"{name} takes {DATATYPES[types[name]]}"})
    if type(data) is not list:
        found.append({"field": f"{field}.data", "reason": f"{name}: must be an array, not {kind_of(data)}"})
        return name, None, found
    if data and all(type(value) is list and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if shape not in ([len(data)], [len(data), 1]) or any(type(size) is not int for size in shape):
        found.append(
            {"field": f"{field}.shape", "reason": f"{name}: must be [{len(data)}] or [{len(data)}, 1]"}
        )
    return name, data, found


def _hashable(value: Any) -> bool:
    return value is None or type(value) is str
