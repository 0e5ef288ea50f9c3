"""The HTTP contract against its own description: whatever is sent, the answer is one that OpenAPI lists.

Schemathesis makes valid, boundary and invalid requests for every operation of ``/openapi.json`` and checks
status, content type, headers and body of each answer, and that keys are asked for. The same requests
each time. Everything runs in this process, on real models.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from mlops_assets_tests.serve.small_models import LocalVersion, LocalVersions, package, routing
from serve.coalescing import Coalescing
from serve.endpoint import Endpoint, Limits
from serve.metrics import GatewayMetrics
from serve.referee import Referee, RefereeLink
from serve.security import Protection
from serve.traffic import Traffic

PREFIX = "/flights"
KEY = "a key that may do everything"
EXAMPLES = 10
SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
)


class Mounted:
    """The endpoint under its route prefix, with a routing declared at startup, as Serve mounts it."""

    def __init__(
        self, task: Any, *, keys_file: str | None = None, answers: bool = True, entity: tuple[str, ...] = ()
    ) -> None:
        metrics = GatewayMetrics(deployment="flights", replica="r1")
        versions = LocalVersions(
            v1=LocalVersion("v1", *package(task, entity=entity)),
            v2=LocalVersion("v2", *package(task, seed=1, entity=entity)),
        )
        if not answers:
            versions.applications.clear()
        self.traffic = Traffic(versions, metrics, wrap=Coalescing)
        referee = Referee()

        async def connect() -> Any:
            return LocalReferee(referee)

        self.link = RefereeLink(
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


class LocalReferee:
    """A referee in this process, as the link calls it."""

    def __init__(self, referee: Referee) -> None:
        self.referee = referee

    async def push(self, report: Any) -> Any:
        return self.referee.push(report)

    async def gathered(self) -> Any:
        return self.referee.gathered()

    async def monitor(self, report: Any) -> None:
        self.referee.monitor(report)


def keys_file() -> str:
    entry = {"name": "fuzz", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "role": "operate"}
    path = Path(FOLDER.name) / "keys.json"
    path.write_text(json.dumps([entry]))
    return str(path)


def described(application: Mounted, *operations: dict[str, Any], **settings: Any) -> schemathesis.BaseSchema:
    """The application's own description, as it answers it."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 20,
            "generation": {"max-examples": EXAMPLES},
            "checks": {
                # A batch that is too long is a 413 here; the default takes that for an acceptance.
                "negative_data_rejection": {"expected-statuses": [400, 401, 413]},
                "positive_data_acceptance": {"expected-statuses": [200]},
            },
            "operations": [
                {
                    # JSON Schema cannot say: each feature once, all equally long; a version with traffic;
                    # the stable version.
                    "include-path": ["/v2/models/flights/infer", "/trip", "/monitoring"],
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


# At import, because each operation becomes a test of its own.
FOLDER = tempfile.TemporaryDirectory(prefix="mlops-fuzz-")
open_schema = described(Mounted("binary"))
keyed_schema = described(
    Mounted("multiclass", keys_file=keys_file(), entity=("flight_id", "day")),
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
    auth={"openapi": {"header": {"api_key": KEY}}},
)
not_ready = Mounted("binary", answers=False)


@open_schema.parametrize()
@SETTINGS
def test_no_request_gets_an_answer_outside_the_description(case: schemathesis.Case) -> None:
    case.call_and_validate()


@keyed_schema.parametrize()
@SETTINGS
def test_no_request_gets_an_answer_outside_the_description_with_keys_on(case: schemathesis.Case) -> None:
    case.call_and_validate()


@open_schema.parametrize()
@SETTINGS
def test_without_a_version_that_answers_the_description_holds_too(case: schemathesis.Case) -> None:
    # Nothing is accepted and a 503 is right; what remains is what every answer must keep to.
    case.call_and_validate(
        app=not_ready,
        checks=[
            schemathesis.checks.status_code_conformance,
            schemathesis.checks.content_type_conformance,
            schemathesis.checks.response_schema_conformance,
            schemathesis.checks.response_headers_conformance,
        ],
    )
