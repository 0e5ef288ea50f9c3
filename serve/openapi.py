"""The endpoint's description for people and machines, generated from the stable model's manifest. Pure.

Belongs here: ``/openapi.json`` and the page at ``/docs``. Does not belong here: answering requests
(``serve/endpoint.py``). The page loads nothing from anywhere: it works without internet.
"""

import html
import json
from typing import Any

from serve.inference_protocol import example_request
from serve.schema import FeatureSpec, ModelManifest
from serve.validation import MAX_UNIT_LENGTH, example_row

_JSON_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean", "category": "string"}
_ERRORS = {
    "400": "Malformed JSON, or fields that are missing, unknown, wrong-typed or out of range: all of them.",
    "401": "No API key, or one that is not valid.",
    "403": "The key's role is too low.",
    "413": "Body or batch too large.",
    "429": "Too many requests with this key; see Retry-After.",
    "500": "Anything else, with the request id.",
    "503": "Overload or no model; see Retry-After.",
}


def feature_schema(feature: FeatureSpec) -> dict[str, Any]:
    """JSON Schema of one feature."""
    kind = _JSON_TYPES[feature.type]
    schema: dict[str, Any] = {"type": [kind, "null"] if feature.nullable else kind}
    if feature.description:
        schema["description"] = feature.description
    if feature.minimum is not None:
        schema["minimum"] = feature.minimum
    if feature.maximum is not None:
        schema["maximum"] = feature.maximum
    if feature.categories is not None:
        if feature.unseen == "reject":
            schema["enum"] = [*feature.categories, *([None] if feature.nullable else [])]
        else:
            schema["examples"] = list(feature.categories[:10])
    return schema


def document(
    manifest: ModelManifest, *, name: str, version: str, server: str, keys: bool, max_rows: int
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a deployment whose stable version has this manifest."""
    row = example_row(manifest)
    features = {
        "type": "object",
        "properties": {feature.name: feature_schema(feature) for feature in manifest.features},
        "required": list(manifest.feature_names),
        "additionalProperties": False,
    }
    unit = {
        "type": ["string", "null"],
        "maxLength": MAX_UNIT_LENGTH,
        "description": "Sticky key, e.g. a customer id: the same unit gets the same variant.",
    }
    answered = {
        "request_id": {"type": "string"},
        "model_version": {"type": "string"},
        "variant": {"enum": ["stable", "canary"]},
    }
    answer = _answer_schema(manifest)
    schemas = {
        "Features": features,
        "PredictRequest": _object({"features": _ref("Features"), "unit": unit}, required=["features"]),
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
            },
            required=["instances"],
        ),
        "BatchResponse": _object({**answered, "predictions": {"type": "array", "items": _object(answer)}}),
        "Error": _object(
            {"error": _object({"code": {"type": "string"}, "message": {"type": "string"}, "details": {}})}
        ),
    }
    v2 = f"/v2/models/{name}"
    paths = {
        "/predict": {
            "post": _post("Predict one row", "PredictRequest", "PredictResponse", {"features": row})
        },
        "/batch-predict": {
            "post": _post("Predict many rows", "BatchRequest", "BatchResponse", {"instances": [row]})
        },
        f"{v2}/infer": {
            "post": _post("Open Inference Protocol V2: infer", None, None, example_request(manifest, row))
        },
        v2: {"get": _get("Open Inference Protocol V2: model metadata")},
        f"{v2}/ready": {"get": _get("Open Inference Protocol V2: the model answers")},
        "/v2/health/live": {"get": _get("Open Inference Protocol V2: liveness")},
        "/v2/health/ready": {"get": _get("Open Inference Protocol V2: readiness")},
        "/health": {"get": _get("Liveness: 503 until the stable version has answered")},
        "/ready": {"get": _get("Readiness, versions, weights and revision")},
        "/metrics": {"get": _get("Prometheus metrics", media="text/plain")},
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


def _errors(*codes: str) -> dict[str, Any]:
    return {
        code: {"description": _ERRORS[code], "content": {"application/json": {"schema": _ref("Error")}}}
        for code in codes
    }


def _post(summary: str, request: str | None, response: str | None, example: dict[str, Any]) -> dict[str, Any]:
    taken = _ref(request) if request else {"type": "object"}
    given = _ref(response) if response else {"type": "object"}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": taken, "example": example}},
        },
        "responses": {
            "200": {"description": "Answered.", "content": {"application/json": {"schema": given}}},
            **_errors(*_ERRORS),
        },
    }


def _get(summary: str, media: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "Answered.", "content": {media: {}}}, **_errors("503")},
    }
