"""The HTTP contract against its own description: whatever is sent, the answer is one that OpenAPI lists.

Schemathesis makes valid, boundary and invalid requests for every operation of ``/openapi.json`` and checks
status, content type, headers and body of each answer, and that keys are asked for. The same requests
each time. Everything runs in this process, on real models.
"""

import asyncio
import tempfile
from pathlib import Path

import schemathesis
from hypothesis import given

from mlops_assets.testing.fuzzing import (
    INFER,
    Mounted,
    described,
    fuzz_settings,
    infer_requests,
    keyed,
    keys_file,
    looked_up,
)
from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import routing

EXAMPLES = 10
SETTINGS = fuzz_settings(EXAMPLES)


# At import, because each operation becomes a test of its own.
FOLDER = tempfile.TemporaryDirectory(prefix="mlops-fuzz-")
open_schema = described(Mounted("binary"), examples=EXAMPLES)
keyed_schema = keyed(keys_file(Path(FOLDER.name)), examples=EXAMPLES)
looked_up_schema = looked_up(Path(FOLDER.name) / "online", examples=EXAMPLES)
not_ready = Mounted("binary", answers=False)


@open_schema.parametrize()
@SETTINGS
def test_no_request_gets_an_answer_outside_the_description(case: schemathesis.Case) -> None:
    case.call_and_validate()


@keyed_schema.parametrize()
@SETTINGS
def test_no_request_gets_an_answer_outside_the_description_with_keys_on(case: schemathesis.Case) -> None:
    case.call_and_validate()


@looked_up_schema.include(path_regex="/(batch-)?predict$|/infer$").parametrize()
@SETTINGS
def test_no_request_gets_an_answer_outside_the_description_of_a_model_that_looks_keys_up(
    case: schemathesis.Case,
) -> None:
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


def test_tensors_that_are_nearly_right_are_answered_or_refused_as_described() -> None:
    infer = open_schema[INFER]["POST"]
    answered = 0

    @given(infer_requests())
    @fuzz_settings(150)
    def ask(request: tuple[bytes, dict[str, str]]) -> None:
        nonlocal answered
        body, headers = request
        answer = runner.run(site.http.post(INFER, content=body, headers=headers))
        infer.validate_response(answer)
        assert answer.status_code in (200, 400, 413), answer.text
        answered += answer.status_code == 200

    with asyncio.Runner() as runner:
        site = Site()
        runner.run(site.declare(routing()))
        ask()
        runner.run(site.http.aclose())
    assert answered > 30
