"""Requests of the V2 protocol, and which row of the table in ``docs/http.md`` a test is the test of."""

import json
import struct
from collections.abc import Callable
from typing import Any

from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import ROW
from serve.inference_log import PredictionLog

MODEL = "/v2/models/flights"
INFER = f"{MODEL}/infer"
KINDS = {
    "distance": "FP64",
    "delay": "FP64",
    "hour": "INT64",
    "weekend": "BOOL",
    "carrier": "BYTES",
    "origin": "BYTES",
}


def section(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test of a row of the table, by its first column."""

    def marked(test: Callable[..., None]) -> Callable[..., None]:
        vars(test)["row"] = title
        return test

    return marked


def tensors(rows: int = 1, **changes: Any) -> dict[str, Any]:
    """An infer request; ``changes`` by tensor."""
    inputs = [
        {"name": name, "shape": [rows], "datatype": kind, "data": [ROW[name]] * rows, **changes.get(name, {})}
        for name, kind in KINDS.items()
    ]
    return {"inputs": inputs}


def as_bytes(rows: int = 1, **raw: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A body whose named tensors are bytes (datatype, content), and the header that says so."""
    inputs = tensors(rows)["inputs"]
    tail = b""
    for tensor in inputs:
        if tensor["name"] in raw:
            tensor["datatype"], content = raw[tensor["name"]]
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(content)}
            tail += content
    head = json.dumps({"inputs": inputs}).encode()
    return head + tail, {"inference-header-content-length": str(len(head))}


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in values)


async def outputs(site: Site, body: dict[str, Any], path: str = INFER) -> dict[str, Any]:
    answer = await site.post(path, body)
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def with_keys(log: PredictionLog | None = None) -> Site:
    site = Site(log=log)
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": ("flight_id", "day")})
    return site
