"""Errors of the V2 protocol, and what is not there."""

import pytest

from mlops_assets.testing.site import Site, refused, run
from mlops_assets.testing.small_models import routing
from mlops_assets_tests.serve.v2 import INFER, MODEL, section, tensors
from serve.schema import FeatureSpec


@section("errors")
def test_errors_are_the_protocols_string_with_code_and_details_beside_it() -> None:
    async def story(site: Site) -> None:
        answer = await site.post(INFER, tensors(hour={"data": [24]}, origin={"data": [None]}))
        assert answer.json() == {
            "error": "row 0.hour must be >= 0 and <= 23; row 0.origin must not be null.",
            "code": "invalid_fields",
            "details": [
                {"field": "row 0.hour", "reason": "must be >= 0 and <= 23"},
                {"field": "row 0.origin", "reason": "must not be null"},
            ],
        }
        many = await site.post(INFER, tensors(50, hour={"data": [24] * 50}))
        assert many.json()["error"].endswith("; and 40 more.") and len(many.json()["details"]) == 50
        for answer, code in (
            (await site.http.get("/v2/nope"), "not_found"),
            (await site.http.get(INFER), "method_not_allowed"),
            (await site.post(INFER, b"{"), "malformed_body"),
        ):
            body = answer.json()
            assert list(body) == ["error", "code", "details"] and type(body["error"]) is str
            assert body["code"] == code
        assert type((await site.http.get("/nope")).json()["error"]) is dict

    run(story)


@section("model repository, configuration, statistics")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/flights/load"),
        ("POST", "/v2/repository/models/flights/unload"),
        ("GET", f"{MODEL}/config"),
        ("GET", f"{MODEL}/stats"),
        ("GET", "/v2/models/stats"),
    ],
)
def test_what_the_platform_does_elsewhere_is_not_found(method: str, path: str) -> None:
    async def story(site: Site) -> None:
        told = refused(await site.http.request(method, path), 404, "not_found")
        assert INFER in told["details"]["paths"]

    run(story)


@section("shared memory, trace, logging")
@pytest.mark.parametrize(
    "path",
    ["/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v2/trace/setting", "/v2/logging"],
)
def test_what_belongs_to_a_server_of_its_own_is_not_found(path: str) -> None:
    test_what_the_platform_does_elsewhere_is_not_found("GET", path)


@section("protocol V1, generate, gRPC")
@pytest.mark.parametrize("path", ["/v1/models/flights:predict", "/v1/models/flights", f"{MODEL}/generate"])
def test_other_protocols_are_not_found(path: str) -> None:
    async def story(site: Site) -> None:
        refused(await site.http.post(path, json={}), 404, "not_found")

    run(story)


def test_a_join_key_that_is_a_feature_too_has_one_tensor() -> None:
    async def story(site: Site) -> None:
        body = tensors()
        assert (await site.post(INFER, body)).status_code == 200
        body["inputs"].append({"name": "flight_id", "shape": [1], "datatype": "INT64", "data": [1]})
        assert (await site.post(INFER, body)).status_code == 200

    site = Site()
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": ("flight_id", "carrier")})
    run(story, site)


def test_a_narrower_canary_leaves_tensors_to_stable() -> None:
    async def story(site: Site) -> None:
        answer = await site.post(INFER, tensors(carrier={"data": ["ZZ"]}))
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")

    site = Site()
    strict = tuple(
        FeatureSpec(name="carrier", type="category", categories=("AA", "UA"), unseen="reject")
        if feature.name == "carrier"
        else feature
        for feature in site.v2.manifest.features
    )
    site.v2.manifest = site.v2.manifest.model_copy(update={"features": strict})
    run(story, site, routing(v1=0, v2=10_000))
