"""The endpoint's description for people and machines, generated from the stable model's manifest. Pure.

Belongs here: ``/openapi.json`` and the page at ``/docs``. Does not belong here: answering requests
(``serve/endpoint.py``). The page loads nothing from anywhere: it works without internet.
"""

import html
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from serve.identity import MAX_ID_LENGTH
from serve.inference_protocol import DATATYPES, example_request, output_names
from serve.online.request import KeyedRow
from serve.schema import Evidence, FeatureSpec, ModelManifest, MonitoringReport, OnlineView, Trip
from serve.tensors import DATATYPES as KNOWN_DATATYPES
from serve.validation import LARGEST_KEY, MAX_KEY_LENGTH, MAX_UNIT_LENGTH, SMALLEST_KEY, example_row

_JSON_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean", "category": "string"}
_ERRORS = {
    "400": "Malformed JSON, fields that are missing, unknown, repeated, wrong-typed or out of range (all of "
    "them), or a header that is sent twice.",
    "401": "No API key, or one that is not valid.",
    "403": "The key's role is too low, or a web page of another site asks.",
    "404": "No such version has traffic.",
    "408": "The body was announced and did not come.",
    "413": "Body or batch too large.",
    "415": "The body is declared to be something else than JSON in UTF-8, or encoded otherwise than by gzip "
    "or deflate.",
    "429": "Too many requests with this key; see Retry-After.",
    "500": "Anything else, with the ids.",
    "503": "Overload or no model; see Retry-After.",
}
_OPEN = ("400", "413", "500", "503")
"""What an operation that needs no key may refuse with: a request that announces too long a body, too."""
_GUARDED = ("400", "401", "403", "413", "429", "500", "503")
_STRING: dict[str, Any] = {"type": "string"}
_NAME_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}


def feature_schema(feature: FeatureSpec) -> dict[str, Any]:
    """JSON Schema of one feature."""
    kinds = [_JSON_TYPES[feature.type], *(["integer"] * feature.coded), *(["null"] * feature.nullable)]
    schema: dict[str, Any] = {"type": kinds if len(kinds) > 1 else kinds[0]}
    if feature.description:
        schema["description"] = feature.description
    if feature.minimum is not None:
        schema["minimum"] = feature.minimum
    if feature.maximum is not None:
        schema["maximum"] = feature.maximum
    if feature.categories is not None:
        if feature.unseen == "reject":
            codes = map(int, feature.categories if feature.coded else ())
            schema["enum"] = [*feature.categories, *codes, *([None] if feature.nullable else [])]
        else:
            schema["examples"] = list(feature.categories[:10])
    if feature.coded:
        schema |= {"minimum": SMALLEST_KEY, "maximum": LARGEST_KEY}
    return schema


def document(
    manifest: ModelManifest,
    *,
    name: str,
    version: str,
    server: str,
    keys: bool,
    max_rows: int,
    by_key: KeyedRow | None = None,
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a deployment whose stable version has this manifest.

    ``by_key``: a row that a version which looks keys up answers now; None for one that does not.
    """
    row = example_row(manifest)
    features = {
        "type": "object",
        "properties": {feature.name: feature_schema(feature) for feature in manifest.features},
        "required": list(manifest.feature_names),
        "additionalProperties": False,
    }
    unit = {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": MAX_UNIT_LENGTH,
        "description": "Sticky key, e.g. a customer id: the same unit gets the same variant.",
    }
    entity = _entity_schema(manifest)
    one = {"entity": entity} if entity else {}
    many = (
        {
            "entities": {
                "type": ["array", "null"],
                "maxItems": max_rows,
                "items": entity,
                "description": "One entry per instance, in their order.",
            }
        }
        if entity
        else {}
    )
    answered = {
        "request_id": {**_STRING, "description": "What the caller sent, else the answer id."},
        "answer_id": _ANSWER_ID,
        "model_version": {"type": "string"},
        "variant": {"enum": ["stable", "canary"]},
    }
    answer = _answer_schema(manifest)
    schemas = {
        "Features": features,
        "PredictRequest": _object({"features": _ref("Features"), "unit": unit, **one}, required=["features"]),
        **(_keyed_schemas(manifest.online, entity, unit, max_rows) if manifest.online else {}),
        "PredictResponse": _object({**answered, **answer}),
        "BatchRequest": _object(
            {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": max_rows,
                    "items": _ref("Features"),
                },
                "unit": unit,
                **many,
            },
            required=["instances"],
        ),
        "BatchResponse": _object({**answered, "predictions": {"type": "array", "items": _object(answer)}}),
        **_inference_schemas(manifest, name),
        **_state_schemas(),
        "TripRequest": _object(
            {
                "version": {**_STRING, "description": "A version that has traffic and is not stable."},
                "reason": {**_STRING, "minLength": 1, "maxLength": 500},
            }
        ),
        "TripResponse": _object({"trip": _ref("Trip")}),
        "MonitoringResponse": _object({"monitoring": _ref("MonitoringReport")}),
        **_evidence_schemas(),
        "Error": _object({"error": _ref("Problem")}),
        "V2Error": _object({"error": _STRING, "code": _STRING, "details": {}}),
        "Problem": _object({"code": _STRING, "message": _STRING, "details": {}}),
    }
    v2 = f"/v2/models/{name}"
    monitoring = {
        "version": version,
        "stale": {"drift": True, "data": False, "code": False, "rollback": False},
        "data_until": 1364774400.0,
        "drift": {manifest.feature_names[0]: {"psi": 0.31, "ks": 0.12}},
        "drift_thresholds": {manifest.feature_names[0]: {"psi": 0.11, "ks": 0.05}},
        "episode_open": True,
    }
    predict: dict[str, Any] = {"features": row}
    batch: dict[str, Any] = {"instances": [row]}
    if by_key is not None:
        predict = {"entity": by_key.entity, "request": by_key.request}
        batch = {"entities": [by_key.entity], "requests": [by_key.request]}
    keyed = ["KeyedRequest"] if by_key else []
    keyed_batch = ["KeyedBatchRequest"] if by_key else []
    trip = {"version": "v2", "reason": "wrong prices since this morning"}
    paths = {
        "/predict": {
            "post": _post("Predict one row", "PredictRequest", "PredictResponse", predict, or_else=keyed)
        },
        "/batch-predict": {
            "post": _post("Predict many rows", "BatchRequest", "BatchResponse", batch, or_else=keyed_batch)
        },
        **_inference_paths(v2, example_request(manifest, row), version),
        "/health": {
            "get": _get("Liveness: 503 until the stable version has answered", _ref("Health"), open_to=True)
        },
        "/ready": {"get": _ready()},
        "/evidence": {"get": _get("What was measured of each version, over all replicas", _ref("Evidence"))},
        "/trip": {
            "post": _post("Take a version out of the traffic at once", "TripRequest", "TripResponse", trip)
        },
        "/monitoring": {
            "post": _post(
                "Show at /metrics what was found out about the stable version",
                "MonitoringReport",
                "MonitoringResponse",
                monitoring,
            )
        },
        "/metrics": {"get": _get("Prometheus metrics", _STRING, media="text/plain")},
        "/openapi.json": {"get": _get("This description", {"type": "object"})},
        "/docs": {"get": _get("This description, to read", _STRING, media="text/html")},
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": version,
            "description": f"Predicts {manifest.target} ({manifest.task}, {manifest.trainer}).",
        },
        "servers": [{"url": server or "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if keys:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


def page(manifest: ModelManifest, described: dict[str, Any]) -> str:
    """The HTML of ``/docs``: endpoints, features, and an example that can be sent from the page."""
    base = described["servers"][0]["url"].rstrip("/")
    example = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    body = json.dumps(example, indent=2)
    endpoints = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{_text(base + path)}</code></td>"
        f"<td>{_text(operation['summary'])}</td></tr>"
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    )
    features = "".join(
        f"<tr><td><code>{_text(feature.name)}</code></td>"
        f"<td>{feature.type}{' or null' if feature.nullable else ''}</td>"
        f"<td>{_text(_range(feature))}</td><td>{_text(feature.description)}</td></tr>"
        for feature in manifest.features
    )
    errors = "".join(
        f"<tr><td><code>{code}</code></td><td>{text}</td></tr>" for code, text in _ERRORS.items()
    )
    info = described["info"]
    key = (
        '<p><label>API key <input id="key" type="password" autocomplete="off"></label></p>'
        if "security" in described
        else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(info["title"])} {_text(info["version"])}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2433 }}
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
code, textarea, pre {{ font: 13px/1.5 ui-monospace, monospace }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-bottom: 1px solid #dde1e8; padding: .3rem .6rem; text-align: left; vertical-align: top }}
textarea {{ width: 100%; height: 18rem; box-sizing: border-box }}
pre {{ background: #f4f6f9; padding: .8rem; overflow-x: auto; white-space: pre-wrap }}
button {{ font: inherit; padding: .3rem 1rem }}
</style></head><body>
<h1>{_text(info["title"])} <small>{_text(info["version"])}</small></h1>
<p>{_text(info["description"])}
The same as a document: <a href="{_text(base)}/openapi.json">openapi.json</a>.</p>
<h2>Try it</h2>{key}
<textarea id="body" spellcheck="false">{_text(body)}</textarea>
<p><button id="send">POST {_text(base)}/predict</button></p><pre id="answer"></pre>
<h2>Endpoints</h2><table>{endpoints}</table>
<h2>Features</h2><table><tr><th>name</th><th>type</th><th>valid</th><th>meaning</th></tr>{features}</table>
<h2>Errors</h2><p>JSON: <code>{{"error": {{"code", "message", "details"}}}}</code></p><table>{errors}</table>
<script>
document.getElementById("send").onclick = async () => {{
  const key = document.getElementById("key");
  const headers = {{"content-type": "application/json"}};
  if (key && key.value) headers["x-api-key"] = key.value;
  const answer = await fetch({_script(base + "/predict")}, {{
    method: "POST", headers, body: document.getElementById("body").value}});
  document.getElementById("answer").textContent = answer.status + "\\n" + await answer.text();
}};
</script></body></html>"""


def _text(value: str) -> str:
    return html.escape(value)


def _script(value: str) -> str:
    return json.dumps(value).replace("<", "\\u003c")


def _range(feature: FeatureSpec) -> str:
    if feature.categories is not None:
        shown = ", ".join(feature.categories[:12]) + (", ..." if len(feature.categories) > 12 else "")
        return shown if feature.unseen == "reject" else f"{shown}; others count as missing"
    bounds = [f">= {feature.minimum:g}"] if feature.minimum is not None else []
    bounds += [f"<= {feature.maximum:g}"] if feature.maximum is not None else []
    return " and ".join(bounds)


def _entity_schema(manifest: ModelManifest) -> dict[str, Any]:
    """The schema of the join keys of one row; {} for a model that takes none."""
    if not manifest.entity:
        return {}
    key = {
        "type": ["string", "integer"],
        "minLength": 1,
        "maxLength": MAX_KEY_LENGTH,
        "minimum": SMALLEST_KEY,
        "maximum": LARGEST_KEY,
    }
    return {
        **_object(dict.fromkeys(manifest.entity, key)),
        "type": ["object", "null"],
        "description": "Which real thing the row is about: its outcome is joined to the answer by them.",
    }


def _answer_schema(manifest: ModelManifest) -> dict[str, Any]:
    if manifest.task == "regression":
        return {"prediction": {"type": "number"}, "probability": {"type": "null"}}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    classes = list(manifest.classes or ())
    if manifest.task == "binary":
        described = {**share, "description": f"Probability of {classes[1]!r}."}
        return {"prediction": {"enum": classes}, "probability": described}
    return {
        "prediction": {"enum": classes},
        "probability": _object(dict.fromkeys(classes, share)),
    }


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _keyed_schemas(
    view: OnlineView, entity: dict[str, Any], unit: dict[str, Any], max_rows: int
) -> dict[str, Any]:
    """Bodies of keys, whose features the endpoint looks up."""
    columns = {name: _column_schema(view, name) for name in view.request}
    keys = {**entity, "type": "object"}
    many: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": max_rows}
    return {
        "Columns": {**_object(columns), "description": "What only the caller knows; the rest is looked up."},
        "KeyedRequest": _object(
            {"entity": keys, "request": _ref("Columns"), "unit": unit}, required=["entity", "request"]
        ),
        "KeyedBatchRequest": _object(
            {
                "entities": {**many, "items": keys},
                "requests": {**many, "items": _ref("Columns")},
                "unit": unit,
            },
            required=["entities", "requests"],
        ),
    }


def _column_schema(view: OnlineView, name: str) -> dict[str, Any]:
    kind = view.columns[name]
    types = {"timestamp": "string", "date": "string"}.get(kind, kind)
    made: dict[str, Any] = {"type": types if name == view.event_timestamp else [types, "null"]}
    if kind == "timestamp":
        made |= {"format": "date-time", "description": "ISO 8601 with its zone."}
    if kind == "date":
        made |= {"format": "date"}
    if kind == "integer":
        made |= {"minimum": -(2**53), "maximum": 2**53}
    return made


def _inference_paths(model: str, example: dict[str, Any], version: str) -> dict[str, Any]:
    """The paths of the V2 protocol; ``model`` is the model's own."""
    infer = _post("V2: infer", "InferRequest", "InferResponse", example)
    # The binary tensor extension: the same JSON, then the bytes of tensors.
    raw = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    infer["requestBody"]["content"] |= raw
    infer["responses"]["200"]["content"] |= raw
    infer["responses"] |= _errors(["404"])  # The body may name a version, too.
    paths = {
        f"{model}/infer": {"post": infer},
        model: {"get": _get("V2: model metadata", _ref("ModelMetadata"))},
        f"{model}/ready": {"get": _get("V2: the model answers", _ref("ModelReady"), open_to=True)},
        "/v2": {"get": _get("V2: server metadata", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _get("V2: liveness", _ref("ServerLive"), open_to=True)},
        "/v2/health/ready": {"get": _get("V2: readiness", _ref("ServerReady"), open_to=True)},
    }
    named = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": _STRING,
        "example": version,
        "description": "A version that has traffic. No other one answers.",
    }
    for below in ("", "/ready", "/infer"):
        (method, operation), *_ = paths[model + below].items()
        paths[f"{model}/versions/{{version}}{below}"] = {
            method: {
                **operation,
                "summary": f"{operation['summary']}, one version",
                "parameters": [*operation.get("parameters", []), named],
                "responses": {**operation["responses"], **_errors(["404"])},
            }
        }
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    response["content"] = {"application/json": {"schema": _ref("V2Error")}}
    return paths


def _inference_schemas(manifest: ModelManifest, name: str) -> dict[str, Any]:
    """Tensors of the V2 protocol. JSON Schema cannot say that each feature is there once and equally long."""
    shape = {"type": "array", "items": {"type": "integer"}}
    tensor = {"name": _STRING, "datatype": {"enum": list(KNOWN_DATATYPES)}, "shape": shape}
    data = {"type": "array"}
    parameters = {"type": ["object", "null"]}
    online = manifest.online
    sent = online.request if online else ()
    names = list(dict.fromkeys([*manifest.feature_names, *manifest.entity, *sent]))
    given = {**tensor, "name": {"enum": names}, "data": data, "parameters": parameters}
    keys = f"; and, to be joined with outcomes, {', '.join(manifest.entity)}" if manifest.entity else ""
    inputs = {
        "type": "array",
        "minItems": len((*online.entity, *online.request)) if online else len(manifest.features),
        "maxItems": len(names),
        "description": "One tensor per feature: "
        + ", ".join(f"{feature.name} {DATATYPES[feature.type]}" for feature in manifest.features)
        + keys
        + (f"; or of keys to look up: {', '.join((*online.entity, *online.request))}" if online else ""),
        # As bytes after the JSON (binary_data_size) a tensor has no data.
        "items": _object(given, required=list(tensor)),
    }
    outputs = {
        "type": ["array", "null"],
        "description": "Which outputs, in which order; all of them where none is named.",
        "items": _object(
            {"name": {"enum": output_names(manifest)}, "parameters": parameters}, required=["name"]
        ),
    }
    request = {
        "id": {"type": ["string", "null"], "maxLength": MAX_ID_LENGTH},
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {
            **parameters,
            "description": "binary_data_output: outputs as bytes after the JSON; unit: sticky key.",
        },
        "model_name": {"enum": [name, "", None]},
        "model_version": _NAME_OR_NULL,
    }
    return {
        "InferRequest": _object(request, required=["inputs"]),
        "InferResponse": _object(
            {
                "model_name": _STRING,
                "model_version": _STRING,
                "id": _STRING,
                "parameters": _object({"variant": {"enum": ["stable", "canary"]}, "answer_id": _ANSWER_ID}),
                "outputs": {
                    "type": "array",
                    "items": _object(
                        {**tensor, "data": data, "parameters": {"type": "object"}}, required=list(tensor)
                    ),
                },
            }
        ),
        "ModelMetadata": _object(
            {
                "name": _STRING,
                "versions": {"type": "array", "items": _STRING},
                "platform": _STRING,
                "inputs": {"type": "array", "items": _object(tensor)},
                "outputs": {"type": "array", "items": _object(tensor)},
                "parameters": _object({"join_keys": _STRING, "request_columns": _STRING}, required=[]),
            },
            required=["name", "versions", "platform", "inputs", "outputs"],
        ),
        "ServerMetadata": _object(
            {"name": _STRING, "version": _STRING, "extensions": {"type": "array", "items": _STRING}}
        ),
        "ServerLive": _object({"live": {"const": True}}),
        "ServerReady": _object({"ready": {"const": True}}),
        "ModelReady": _object(
            {"name": _STRING, "version": _STRING, "ready": {"const": True}}, required=["name", "ready"]
        ),
    }


def _state_schemas() -> dict[str, Any]:
    route = {
        "application": _STRING,
        "weight": {"type": "integer", "minimum": 0, "maximum": 10_000},
        "variant": {"enum": ["stable", "canary"]},
        "answers": {"type": "boolean"},
        "problem": _NAME_OR_NULL,
        "digest": _NAME_OR_NULL,
    }
    state: dict[str, Any] = {
        "name": _STRING,
        "ready": {"type": "boolean"},
        "replica": _STRING,
        "revision": {"type": ["integer", "null"]},
        "stable": _NAME_OR_NULL,
        "config_error": _NAME_OR_NULL,
        "api_keys": _object({"enabled": {"type": "boolean"}, "problem": _NAME_OR_NULL}),
        "routes": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": route, "required": list(route)},
        },
    }
    # More is said of a replica than is promised here.
    return {
        "State": {"type": "object", "properties": state, "required": list(state)},
        "NotReady": {
            "type": "object",
            "properties": {**state, "error": _ref("Problem")},
            "required": [*state, "error"],
        },
        "Health": _object({"status": {"const": "ok"}, "model_version": _STRING}),
    }


@cache
def _evidence_schemas() -> dict[str, Any]:
    _, made = models_json_schema(
        [(Evidence, "serialization"), (Trip, "serialization"), (MonitoringReport, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    found: dict[str, Any] = made["$defs"]
    return found


_ANSWER_ID = {
    **_STRING,
    "pattern": "^[0-9a-f]{32}$",
    "description": "Made by the gateway: tells this answer from every other one.",
}
_HEADERS = {"x-request-id": {"schema": _STRING, "required": True, "description": "Also in the log."}}
_REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "schema": {**_STRING, "pattern": f"^([!-~]([ -~]{{0,{MAX_ID_LENGTH - 2}}}[!-~])?)?$"},
    "description": "The caller's name of the request, given back with the answer and searchable. It need not "
    "be unique: an answer is told from others by its answer_id, which is given where no name is.",
}
_ANSWERED_HEADERS = {
    **_HEADERS,
    "x-answer-id": {"schema": _ANSWER_ID, "required": True},
    "x-model-version": {"schema": _STRING, "required": True},
    "x-variant": {"schema": {"enum": ["stable", "canary"]}, "required": True},
}
_RETRY_HEADERS = {
    **_HEADERS,
    "retry-after": {"schema": {"type": "integer", "minimum": 1}, "required": True, "description": "Seconds."},
}
_REFUSAL_HEADERS = {
    "401": {**_HEADERS, "www-authenticate": {"schema": _STRING, "required": True}},
    "429": _RETRY_HEADERS,
    "503": _RETRY_HEADERS,
}


def _errors(codes: Sequence[str]) -> dict[str, Any]:
    return {
        code: {
            "description": _ERRORS[code],
            "headers": _REFUSAL_HEADERS.get(code, _HEADERS),
            "content": {"application/json": {"schema": _ref("Error")}},
        }
        for code in codes
    }


def _answered(media: str, schema: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "Answered.", "headers": headers, "content": {media: {"schema": schema}}}}


def _post(
    summary: str, request: str, response: str, example: dict[str, Any], *, or_else: Sequence[str] = ()
) -> dict[str, Any]:
    """``or_else``: other bodies that are taken; their fields tell which one is meant."""
    predicts = request not in ("TripRequest", "MonitoringReport")
    headers = _ANSWERED_HEADERS if predicts else _HEADERS
    schema = {"oneOf": [_ref(name) for name in (request, *or_else)]} if or_else else _ref(request)
    return {
        "summary": summary,
        "parameters": [_REQUEST_ID] if predicts else [],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {
            **_answered("application/json", _ref(response), headers),
            **_errors(("408", "415", *_GUARDED)),
        },
    }


def _get(
    summary: str, schema: dict[str, Any], media: str = "application/json", *, open_to: bool = False
) -> dict[str, Any]:
    """``open_to`` everybody: no key is asked for, also where keys are on."""
    described: dict[str, Any] = {
        "summary": summary,
        "responses": {
            **_answered(media, schema, _HEADERS),
            **_errors(_OPEN if open_to else _GUARDED),
        },
    }
    return {**described, "security": []} if open_to else described


def _ready() -> dict[str, Any]:
    described = _get("Readiness, versions, weights and revision", _ref("State"), open_to=True)
    described["responses"]["503"]["content"]["application/json"]["schema"] = _ref("NotReady")
    return described
