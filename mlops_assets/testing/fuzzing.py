"""An endpoint and its own description for Schemathesis: every answer must be one that OpenAPI lists.

Belongs here: the endpoint as it is mounted, how its description is loaded and checked. Does not belong here:
how many requests (a test asks few, ``bench/fuzz.py`` ten thousand).
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from mlops_assets.testing.small_models import LocalVersion, LocalVersions, package, routing
from mlops_assets.testing.small_view import VIEW, fill
from serve.aggregator import Aggregator, AggregatorLink
from serve.coalescing import Coalescing
from serve.endpoint import Endpoint, Limits
from serve.metrics import GatewayMetrics
from serve.online.lookup import Lookups
from serve.schema import OnlineView
from serve.security import Protection
from serve.tensors import DATATYPES
from serve.traffic import Traffic

PREFIX = "/flights"
INFER = "/v2/models/flights/infer"
KEY = "a key that may do everything"


def now() -> float:
    """Soon after the store of a small view was filled, in Unix seconds."""
    return 100.0


class Mounted:
    """The endpoint under its route prefix, with a routing declared at startup, as Serve mounts it."""

    def __init__(
        self,
        task: Any,
        *,
        keys_file: str | None = None,
        answers: bool = True,
        entity: tuple[str, ...] = (),
        online: OnlineView | None = None,
        online_uri: str = "",
    ) -> None:
        metrics = GatewayMetrics(deployment="flights", replica="r1")
        versions = LocalVersions(
            v1=LocalVersion("v1", *package(task, entity=entity, online=online)),
            v2=LocalVersion("v2", *package(task, seed=1, entity=entity, online=online)),
        )
        if not answers:
            versions.applications.clear()
        self.traffic = Traffic(versions, metrics, wrap=Coalescing, looked_up=Lookups(online_uri, now).of)
        aggregator = Aggregator()

        async def connect() -> Any:
            return LocalAggregator(aggregator)

        self.link = AggregatorLink(
            name="flights",
            replica="r1",
            collector=self.traffic.collector,
            metrics=metrics,
            connect=connect,
            on_trip=self.traffic.apply_trip,
        )
        self.endpoint = Endpoint(
            "flights",
            self.traffic,
            Protection(keys_file, max_body_bytes=20_000),
            metrics,
            Limits(max_batch_rows=20),
            self.link,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and self.traffic.routing is None:
            declared = self.traffic.declare(routing(v1=7_000, v2=3_000))
            assert declared is not None
            self.link.declare(declared)
            await self.traffic.settle()
        await self.endpoint({**scope, "root_path": PREFIX}, receive, send)


class LocalAggregator:
    """An aggregator in this process, as the link calls it."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.aggregator = aggregator

    async def push(self, report: Any) -> Any:
        return self.aggregator.push(report)

    async def gathered(self) -> Any:
        return self.aggregator.gathered()

    async def monitor(self, report: Any) -> None:
        self.aggregator.monitor(report)


def fuzz_settings(examples: int) -> settings:
    """The same requests each time, so many of them per operation and test phase."""
    return settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
    )


def keys_file(folder: Path) -> str:
    """A keys file with ``KEY`` in it."""
    entry = {"name": "fuzz", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "role": "operate"}
    path = folder / "keys.json"
    path.write_text(json.dumps([entry]))
    return str(path)


def described(
    application: Mounted, *operations: dict[str, Any], examples: int, **settings: Any
) -> schemathesis.BaseSchema:
    """The application's own description, as it answers it, for ``examples`` requests of a kind."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 20,
            "generation": {"max-examples": examples},
            "checks": {
                # A batch that is too long is a 413 here; the default takes that for an acceptance. So it does
                # a 415, for a body that is left out together with its type.
                "negative_data_rejection": {"expected-statuses": [400, 401, 404, 413, 415]},
                "positive_data_acceptance": {"expected-statuses": [200]},
            },
            "operations": [
                {
                    # JSON Schema cannot say: each feature once, all equally long, bytes that begin with such
                    # JSON; a version with traffic; the stable version.
                    "include-path-regex": "(/infer|/versions/.*|/trip|/monitoring)$",
                    "checks": {"positive_data_acceptance": {"enabled": False}},
                },
                *operations,
            ],
            **settings,
        }
    )
    return schemathesis.openapi.from_asgi(
        f"{PREFIX}/openapi.json", application, config=config, headers={"x-api-key": KEY}
    )


def keyed(keys: str, *, examples: int) -> schemathesis.BaseSchema:
    """The same of an endpoint with keys, several classes and join keys."""
    return described(
        Mounted("multiclass", keys_file=keys, entity=("flight_id", "day")),
        {
            # JSON Schema cannot say: as many entities as instances.
            "include-path": "/batch-predict",
            "checks": {"positive_data_acceptance": {"enabled": False}},
        },
        {
            # A wrong method without a key is a 401, not a 405: strangers do not learn which paths exist.
            "include-path-regex": "(/health|/ready|/v2/health/live)$",
            "checks": {"unsupported_method": {"enabled": False}},
        },
        examples=examples,
        auth={"openapi": {"header": {"api_key": KEY}}},
    )


def looked_up(folder: Path, *, examples: int) -> schemathesis.BaseSchema:
    """The same of a model that looks features up by key, in a store that is filled in ``folder``."""
    fill(folder, since=None)
    return described(
        Mounted("binary", entity=VIEW.entity, online=VIEW, online_uri=str(folder)),
        {
            # JSON Schema cannot say: as many entities as requests, and an origin that the store has.
            "include-path-regex": "/predict$|/batch-predict$",
            "checks": {"positive_data_acceptance": {"enabled": False}},
        },
        examples=examples,
    )


# -- requests of the V2 protocol that are nearly right -----------------------------------------------------

_WIDTHS = {
    "FP64": "d",
    "FP32": "f",
    "FP16": "e",
    "INT64": "q",
    "INT32": "i",
    "INT8": "b",
    "UINT8": "B",
    "BOOL": "?",
}
_RIGHT: dict[str, tuple[list[str], st.SearchStrategy[Any]]] = {
    "distance": (["FP64", "FP32", "INT64"], st.integers(0, 6000)),
    "delay": (["FP64", "FP32", "FP16"], st.sampled_from([1.5, -0.0, 3, None])),
    "hour": (["INT64", "UINT8", "FP64"], st.integers(0, 23)),
    "weekend": (["BOOL"], st.booleans()),
    "carrier": (["BYTES"], st.sampled_from(["UA", "", "Zürich", "\x00"])),
    "origin": (["BYTES"], st.sampled_from(["JFK", "EWR"])),
}
"""By feature: datatypes that it takes, and values that fit."""
_ODD = st.sampled_from([5e-324, 1e39, 2**24 + 1, 2**53 + 1, 300, -1, None, True, "", "JFK", 1.5, 2**70])


@st.composite
def infer_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an infer request: each tensor as JSON or as bytes, some of it broken."""
    rows = draw(st.sampled_from([1, 2, 3, 0]))
    inputs, tail = [], b""
    for name, (datatypes, fitting) in _RIGHT.items():
        right = draw(st.integers(0, 29)) > 0
        datatype = draw(st.sampled_from(datatypes if right else sorted(DATATYPES)))
        values = draw(st.lists(fitting if right else _ODD, min_size=rows, max_size=rows))
        tensor: dict[str, Any] = {"name": name, "shape": [rows], "datatype": datatype}
        if draw(st.booleans()):
            tensor["data"] = values
        else:
            content = _bytes_of(datatype, values, draw)
            tensor["parameters"] = {
                "binary_data_size": len(content) + draw(st.sampled_from([0] * 20 + [1, -1]))
            }
            tail += content
        inputs.append(tensor)
    if draw(st.integers(0, 9)) == 0:
        spoilt = draw(st.sampled_from(inputs))
        spoilt[draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = draw(
            st.none()
            | st.integers()
            | st.text(max_size=3)
            | st.lists(st.integers(-2, 2), max_size=2)
            | st.just({})
        )
    body: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        binary = st.fixed_dictionaries({"binary_data": st.booleans()})
        output = st.fixed_dictionaries(
            {"name": st.sampled_from(["prediction", "probability", "nonsense"])},
            optional={"parameters": binary},
        )
        body["outputs"] = draw(st.lists(output, max_size=2))
        body["parameters"] = draw(st.sampled_from([None, {}, {"binary_data_output": True}, {"unit": "u"}]))
        body["id"] = draw(st.sampled_from([None, "", "mine", "x" * 300]))
    head = json.dumps(body).encode()
    headers = {"content-type": draw(st.sampled_from(["application/json", "application/octet-stream"]))}
    if tail or draw(st.booleans()):
        off = draw(st.sampled_from([0] * 20 + [1, -1, 10**6]))
        headers["inference-header-content-length"] = str(len(head) + off)
    return head + tail, headers


def _bytes_of(datatype: str, values: list[Any], draw: st.DrawFn) -> bytes:
    if datatype not in _WIDTHS:
        texts = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    content = b""
    for value in values:
        try:
            content += struct.pack("<" + _WIDTHS[datatype], float("nan") if value is None else value)
        except (struct.error, OverflowError, ValueError, TypeError):
            content += draw(st.binary(min_size=struct.calcsize(_WIDTHS[datatype]), max_size=8))
    return content
