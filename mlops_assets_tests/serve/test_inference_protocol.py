"""The V2 protocol, section by section: each row of the table in ``docs/http.md`` has its test.

Whole requests through the whole endpoint: health, metadata and infer here, the rest in the files beside this.
Clients that others wrote are in ``test_clients.py``.
"""

import re
from inspect import isfunction
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import package, routing
from mlops_assets_tests.serve import (
    test_inference_bytes,
    test_inference_errors,
    test_inference_inputs,
    test_inference_outputs,
)
from mlops_assets_tests.serve.v2 import INFER, KINDS, MODEL, section, tensors, with_keys
from serve.inference_log import PredictionLog
from serve.schema import PredictionLogArgs

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
# In the order of the table.
OTHERS = (test_inference_inputs, test_inference_outputs, test_inference_bytes, test_inference_errors)


def test_every_row_of_the_table_has_its_test() -> None:
    table = DOCS.read_text().split("## The V2 protocol", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    assert rows[0] == "part of the protocol"
    names = [*globals().values(), *(value for module in OTHERS for value in vars(module).values())]
    tested = [vars(test)["row"] for test in names if isfunction(test) and "row" in vars(test)]
    assert rows[1:] == list(dict.fromkeys(tested))


# -- health and metadata -----------------------------------------------------------------------------


@section("server live, server ready")
def test_health_is_a_status_and_a_json_object() -> None:
    async def story(site: Site) -> None:
        for path, said in (("/v2/health/live", {"live": True}), ("/v2/health/ready", {"ready": True})):
            answer = await site.http.get(path)
            assert (answer.status_code, answer.json()) == (200, said)

    run(story)

    async def not_ready(site: Site) -> None:
        refused(await site.http.get("/v2/health/ready"), 503, "no_model")
        assert (await site.http.get("/v2/health/live")).status_code == 200

    run(not_ready, first=routing("v9"))


@section("server metadata")
def test_the_server_says_which_extensions_it_speaks() -> None:
    async def story(site: Site) -> None:
        body = (await site.http.get("/v2")).json()
        assert body == {"name": "flights", "version": "2", "extensions": ["binary_tensor_data"]}

    run(story)


@section("model ready")
def test_model_ready_names_the_model() -> None:
    async def story(site: Site) -> None:
        assert (await site.http.get(f"{MODEL}/ready")).json() == {"name": "flights", "ready": True}

    run(story)

    async def not_ready(site: Site) -> None:
        refused(await site.http.get(f"{MODEL}/ready"), 503, "no_model")

    run(not_ready, first=routing("v9"))


@section("model metadata")
def test_metadata_describes_the_tensors() -> None:
    async def story(site: Site) -> None:
        body = (await site.http.get(MODEL)).json()
        assert (body["name"], body["versions"], body["platform"]) == ("flights", ["v1"], "lightgbm-text")
        assert {tensor["name"]: tensor["datatype"] for tensor in body["inputs"]} == KINDS
        assert [output["name"] for output in body["outputs"]] == ["prediction", "probability"]
        assert "parameters" not in body

    run(story)

    async def keyed(site: Site) -> None:
        assert (await site.http.get(MODEL)).json()["parameters"] == {"join_keys": "flight_id,day"}

    run(keyed, with_keys())


@section("metadata and readiness of a version")
def test_a_version_with_traffic_describes_itself() -> None:
    async def story(site: Site) -> None:
        for version in ("v1", "v2"):
            body = (await site.http.get(f"{MODEL}/versions/{version}")).json()
            assert body["versions"] == [version]
            answer = await site.http.get(f"{MODEL}/versions/{version}/ready")
            assert answer.json() == {"name": "flights", "version": version, "ready": True}
        for path in ("v3", "v4", "v4/ready", "%20/ready"):
            told = refused(await site.http.get(f"{MODEL}/versions/{path}"), 404, "not_found")
            assert told["details"] == {"versions": ["v1", "v2"]}
        for path in ("", "v1/", "v1/nope", "/ready", "v1/ready/"):
            assert (
                "paths"
                in refused(await site.http.get(f"{MODEL}/versions/{path}"), 404, "not_found")["details"]
            )
        site.v2.info_error = RuntimeError("out of memory")
        site.traffic.states["v2"].asked_at = -1e9
        await site.traffic.settle()
        refused(await site.http.get(f"{MODEL}/versions/v2/ready"), 503, "no_model")
        text = (await site.http.get("/metrics")).text
        assert (
            f'endpoint="{MODEL}/versions/VERSION/ready"' in text
            and f'endpoint="{MODEL}/versions/v1"' not in text
        )

    # Version 3 is warm or a shadow: it has no traffic, so no caller can ask it.
    run(story, with_third(), routing(v1=9_000, v2=1_000, v3=0))


def with_third() -> Site:
    site = Site()
    site.versions.applications["flights--v3"] = site.v2
    return site


# -- infer -------------------------------------------------------------------------------------------


@section("infer")
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_infer_answers_the_same_as_predict(task: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.post(INFER, {"id": "q1", **tensors(3)})
        body, single = answer.json(), (await site.predict()).json()
        given = {output["name"]: output for output in body["outputs"]}
        assert (body["model_name"], body["model_version"], body["id"]) == ("flights", "v1", "q1")
        assert body["parameters"] == {"variant": "stable", "answer_id": answer.headers["x-answer-id"]}
        assert given["prediction"]["data"] == [single["prediction"]] * 3
        assert given["prediction"]["shape"] == [3]
        if task == "regression":
            assert list(given) == ["prediction"] and given["prediction"]["datatype"] == "FP64"
        elif task == "binary":
            assert given["probability"]["data"] == [single["probability"]] * 3
        else:
            assert given["probability"]["shape"] == [3, 3]
            assert given["probability"]["data"] == [*single["probability"].values()] * 3

    run(story, Site(task))


@section("infer by one version")
def test_the_version_of_the_path_answers_whatever_the_routing_would_draw(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        for version, variant in (("v1", "stable"), ("v2", "canary")):
            for _ in range(5):
                answer = await site.post(f"{MODEL}/versions/{version}/infer", tensors())
                assert answer.json()["model_version"] == version == answer.headers["x-model-version"]
                assert answer.headers["x-variant"] == variant
        body = (await site.post(INFER, {**tensors(), "model_version": "v2"})).json()
        assert body["model_version"] == "v2"
        # Whoever asks for a version is no draw of the routing, and no evidence for or against it.
        counted = site.traffic.collector.snapshot()
        assert not counted.versions and not counted.shadows
        await site.traffic.mirrored()
        # Its failure is its own: no other version answers in its place.
        site.v2.always = RuntimeError("broken")
        refused(await site.post(f"{MODEL}/versions/v2/infer", tensors()), 500, "internal")
        await site.http.post("/trip", json={"version": "v2", "reason": "broken"})
        refused(await site.post(f"{MODEL}/versions/v2/infer", tensors()), 503, "no_model")
        assert not any(told.requests for told in site.traffic.collector.snapshot().versions.values())
        refused(await site.post(f"{MODEL}/versions/v3/infer", tensors()), 404, "not_found")
        told = reasons(await site.post(f"{MODEL}/versions/v1/infer", {**tensors(), "model_version": "v2"}))
        assert told == {"model_version": "must be the version of the path, v1"}
        refused(await site.http.get(f"{MODEL}/versions/v1/infer"), 405, "method_not_allowed")
        log.close()
        rows = [
            row for file in tmp_path.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()
        ]
        assert {(row["endpoint"], row["variant"]) for row in rows} == {
            (f"{MODEL}/versions/v1/infer", "stable"),
            (f"{MODEL}/versions/v2/infer", "canary"),
        }

    first = routing(v1=9_999, v2=1, v3=0)
    first["routes"]["v3"]["shadow"] = 10_000
    site = Site(log=log)
    site.versions.applications["flights--v3"] = type(site.v2)("v3", *package(seed=2))
    run(story, site, first)


@section("`id`")
def test_the_id_comes_back_and_is_the_request_id() -> None:
    async def story(site: Site) -> None:
        assert (await site.post(INFER, {**tensors(), "id": "mine"})).json()["id"] == "mine"
        for none in ("", None):
            body = (await site.post(INFER, {**tensors(), "id": none})).json()
            assert body["id"] == body["parameters"]["answer_id"]
        assert "a number" in reasons(await site.post(INFER, {**tensors(), "id": 5}))["id"]

    run(story)


@section("`model_name`, `model_version` in the body")
def test_what_the_body_says_of_the_model_must_be_so() -> None:
    async def story(site: Site) -> None:
        for said in (
            {"model_name": "flights"},
            {"model_name": ""},
            {"model_name": None, "model_version": None},
        ):
            assert (await site.post(INFER, {**tensors(), **said})).status_code == 200
        told = reasons(await site.post(INFER, {**tensors(), "model_name": "other"}))
        assert told == {"model_name": "must be the model that is asked, flights"}
        assert (
            "a number" in reasons(await site.post(INFER, {**tensors(), "model_version": 1}))["model_version"]
        )
        refused(await site.post(INFER, {**tensors(), "model_version": "7"}), 404, "not_found")
        assert "colour" in reasons(await site.post(INFER, {**tensors(), "colour": 5}))

    run(story)
