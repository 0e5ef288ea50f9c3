"""The V2 protocol, section by section: each row of the table in ``docs/http.md`` has its test here.

Whole requests through the whole endpoint. Clients that others wrote are in ``test_clients.py``.
"""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW, package, routing
from serve.inference_log import PredictionLog
from serve.schema import FeatureSpec, PredictionLogArgs

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
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
TESTED: dict[str, Callable[..., None]] = {}
"""By the first column of the table."""


def section(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of a row of the table."""

    def marked(test: Callable[..., None]) -> Callable[..., None]:
        TESTED.setdefault(title, test)
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


def test_every_row_of_the_table_has_its_test() -> None:
    table = DOCS.read_text().split("## The V2 protocol", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    assert rows[0] == "part of the protocol"
    assert rows[1:] == list(TESTED)


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


# -- inputs ------------------------------------------------------------------------------------------


@section("`inputs`: names and shapes")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": [1]}, "inputs[0]"),
        ({"inputs": [{"name": []}]}, "inputs[0].name"),
        (tensors(distance={"name": "gate"}), "inputs[0].name"),
        (tensors(distance={"datatype": "BYTES"}), "inputs[0].datatype"),
        (tensors(distance={"datatype": ["FP64"]}), "inputs[0].datatype"),
        (tensors(distance={"datatype": "fp64"}), "inputs[0].datatype"),
        (tensors(weekend={"datatype": "INT64", "data": [1]}), "inputs[3].datatype"),
        (tensors(distance={"shape": [2]}), "inputs[0].shape"),
        (tensors(distance={"shape": "x"}), "inputs[0].shape"),
        (tensors(distance={"shape": []}), "inputs[0].shape"),
        (tensors(distance={"shape": [1, 2]}), "inputs[0].shape"),
        (tensors(distance={"shape": [1, 1, 1]}), "inputs[0].shape"),
        (tensors(distance={"shape": [-1]}), "inputs[0].shape"),
        (tensors(weekend={"shape": [True]}), "inputs[3].shape"),
        (tensors(distance={"data": 1.5}), "inputs[0].data"),
        (tensors(distance={"data": None}), "inputs[0].data"),
        (tensors(distance={"data": [1.0, 2.0], "shape": [2]}), "inputs"),
        (tensors(distance={"name": "delay"}), "distance"),
        (tensors(distance={"name": "delay"}), "inputs[1].name"),
        (tensors(distance={"colour": 1}), "inputs[0].colour"),
        (tensors(origin={"data": [None]}), "row 0.origin"),
    ],
)
def test_bad_tensors_are_named(body: dict[str, Any], field: str) -> None:
    async def story(site: Site) -> None:
        assert field in reasons(await site.post(INFER, body))

    run(story)


def test_columns_nested_data_and_any_order_are_taken() -> None:
    async def story(site: Site) -> None:
        expected = (await outputs(site, tensors(2)))["probability"]["data"]
        column = {"shape": [2, 1], "data": [[1400.5], [1400.5]]}
        assert (await outputs(site, tensors(2, distance=column)))["probability"]["data"] == expected
        flat = {"shape": [2, 1]}
        assert (await outputs(site, tensors(2, distance=flat)))["probability"]["data"] == expected
        turned = {"inputs": tensors(2)["inputs"][::-1]}
        assert (await outputs(site, turned))["probability"]["data"] == expected
        refused(await site.post(INFER, tensors(0)), 400, "empty_batch")
        refused(await site.post(INFER, tensors(51)), 413, "too_large")
        # The shape is read first: a small body cannot announce a billion rows.
        refused(await site.post(INFER, tensors(distance={"shape": [10**9]})), 413, "too_large")

    run(story)


@section("datatypes")
@pytest.mark.parametrize(
    "datatype",
    ["FP64", "FP32", "FP16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"],
)
def test_every_width_of_a_number_is_taken_for_numbers_and_integers(datatype: str) -> None:
    async def story(site: Site) -> None:
        expected = (await site.predict({**ROW, "distance": 17, "hour": 17})).json()["probability"]
        as_json = {"datatype": datatype, "data": [17]}
        for changes in (
            {"distance": as_json, "hour": as_json},
            {"hour": {"datatype": datatype, "data": [17.0]}},
        ):
            found = await outputs(site, tensors(**{"distance": {"data": [17]}, **changes}))
            assert found["probability"]["data"] == [expected]
        content = np.array([17]).astype(NUMPY[datatype]).tobytes()
        body, headers = as_bytes(distance=(datatype, content), hour=(datatype, content))
        answer = (await site.post(INFER, body, **headers)).json()
        assert answer["outputs"][1]["data"] == [expected]

    run(story)


NUMPY = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2",
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}  # fmt: skip


@section("values and their datatype")
@pytest.mark.parametrize(
    ("tensor", "datatype", "value", "reason"),
    [
        ("hour", "INT64", 1.5, "is no integer, and the tensor is declared as INT64"),
        ("distance", "INT32", 1.5, "is no integer, and the tensor is declared as INT32"),
        ("hour", "FP64", 1.5, "must be an integer, not a fraction"),
        ("distance", "UINT8", 256, "is outside UINT8, which is 0 to 255"),
        ("distance", "UINT8", -1, "is outside UINT8, which is 0 to 255"),
        ("distance", "INT8", 128, "is outside INT8, which is -128 to 127"),
        ("distance", "INT64", 2**63, f"is outside INT64, which is {-(2**63)} to {2**63 - 1}"),
        ("distance", "INT64", 1e300, f"is outside INT64, which is {-(2**63)} to {2**63 - 1}"),
        ("delay", "FP32", 1e39, "is beyond what FP32 holds"),
        ("delay", "FP16", 1e5, "is beyond what FP16 holds"),
        ("delay", "FP32", 10**400, "is beyond what FP32 holds"),
        ("delay", "FP64", 10**400, "must be a finite number"),
        # It would be 16777216: another number.
        ("delay", "FP32", 2**24 + 1, "is an integer that FP32 cannot hold"),
        ("delay", "FP16", 2049, "is an integer that FP16 cannot hold"),
        ("delay", "BF16", 1.0, "BF16 is taken as bytes only"),
        ("distance", "FP64", "1.5", "must be a number, not a string"),
        ("hour", "INT64", True, "must be an integer, not a boolean"),
        ("delay", "FP64", True, "must be a number, not a boolean"),
        ("weekend", "BOOL", 1, "must be true or false, not a number"),
        ("weekend", "BOOL", "true", "must be true or false, not a string"),
        ("carrier", "BYTES", 5, "must be a string, not a number"),
        ("hour", "INT64", 24, "must be >= 0 and <= 23"),
        ("origin", "BYTES", "LGA", "must be one of"),
    ],
)
def test_a_value_must_fit_its_tensor_and_its_feature(
    tensor: str, datatype: str, value: Any, reason: str
) -> None:
    async def story(site: Site) -> None:
        (told,) = reasons(
            await site.post(INFER, tensors(**{tensor: {"datatype": datatype, "data": [value]}}))
        ).values()
        assert reason in told

    run(story)


def test_a_fraction_of_a_narrow_tensor_is_the_number_of_that_width_in_json_and_in_bytes() -> None:
    async def story(site: Site) -> None:
        for datatype, kind in (("FP32", np.float32), ("FP16", np.float16)):
            expected = (await site.predict({**ROW, "distance": float(kind(1400.1))})).json()["probability"]
            found = await outputs(site, tensors(distance={"datatype": datatype, "data": [1400.1]}))
            body, headers = as_bytes(distance=(datatype, kind(1400.1).tobytes()))
            assert found["probability"]["data"] == [expected]
            assert (await site.post(INFER, body, **headers)).json()["outputs"][1]["data"] == [expected]

    run(story)


@section("missing values")
def test_null_is_missing_in_json_and_nan_in_bytes() -> None:
    async def story(site: Site) -> None:
        missing = {**ROW, "hour": None, "delay": None, "weekend": None, "carrier": None}
        expected = (await site.predict(missing)).json()["probability"]
        nothing = {name: {"data": [None]} for name in ("hour", "delay", "weekend", "carrier")}
        assert (await outputs(site, tensors(**nothing)))["probability"]["data"] == [expected]
        expected = (await site.predict({**ROW, "hour": None, "delay": None})).json()["probability"]
        for datatype, content in (
            ("FP64", struct.pack("<d", float("nan"))),
            ("FP32", struct.pack("<f", float("nan"))),
            ("FP16", struct.pack("<e", float("nan"))),
            ("BF16", b"\xc0\x7f"),
        ):
            body, headers = as_bytes(hour=(datatype, content), delay=(datatype, content))
            assert (await site.post(INFER, body, **headers)).json()["outputs"][1]["data"] == [expected]
        nan, infinite = (struct.pack("<d", float(name)) for name in ("nan", "inf"))
        body, headers = as_bytes(distance=("FP64", nan), delay=("FP64", infinite))
        assert reasons(await site.post(INFER, body, **headers)) == {
            "row 0.distance": "must not be null", "row 0.delay": "must be a finite number",
        }  # fmt: skip

    run(story)


def with_keys(log: PredictionLog | None = None) -> Site:
    site = Site(log=log)
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": ("flight_id", "day")})
    return site


@section("join keys")
def test_join_keys_are_tensors_named_like_them(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    def keyed(ids: Any, days: Any, **more: Any) -> dict[str, Any]:
        body = tensors(len(days["data"]))
        body["inputs"] += [
            {"name": "flight_id", "shape": [len(ids["data"])], "datatype": "INT64", **ids},
            {"name": "day", "shape": [len(days["data"])], "datatype": "BYTES", **days},
        ]
        return {**body, **more}

    async def story(site: Site) -> None:
        large = 1_582_218_195_625_938_945
        answer = await site.post(INFER, keyed({"data": [large, None]}, {"data": ["2013-01-01", None]}))
        assert answer.status_code == 200, answer.text
        # pandas keeps whole numbers as floats where one is missing.
        floats = {"data": [7.0, None], "datatype": "FP64"}
        assert (await site.post(INFER, keyed(floats, {"data": ["a", None]}))).status_code == 200
        assert (await site.post(INFER, tensors())).status_code == 200
        log.close()
        rows = [
            row for file in tmp_path.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()
        ]
        assert [row["entity"] for row in rows] == [
            f'{{"flight_id":{large},"day":"2013-01-01"}}', None, '{"flight_id":7,"day":"a"}', None, None,
        ]  # fmt: skip

        alone = keyed({"data": [1]}, {"data": ["a"]})
        alone["inputs"].pop()
        assert reasons(await site.post(INFER, alone)) == {"row 0.day": "is missing"}
        half = keyed({"data": [1, 2]}, {"data": ["a", None]})
        assert reasons(await site.post(INFER, half)) == {
            "row 1.day": "must be a string or an integer, not null"
        }
        for ids, reason in (
            ({"data": [1.5], "datatype": "FP64"}, "not a fraction"),
            # Beyond 2^53 a float has lost digits: two things would become one.
            ({"data": [1582218195625938945.0], "datatype": "FP64"}, "an integer without a point"),
            ({"data": [""], "datatype": "BYTES"}, "1 to 256 characters"),
            ({"data": [2**63], "datatype": "UINT64"}, "must be within -2^63 and 2^63 - 1"),
        ):
            (told,) = reasons(await site.post(INFER, keyed(ids, {"data": ["a"]}))).values()
            assert reason in told
        told = reasons(await site.post(INFER, keyed({"data": [True], "datatype": "BOOL"}, {"data": ["a"]})))
        assert told == {"inputs[6].datatype": "flight_id takes BYTES or INT64"}
        short = keyed({"data": [1]}, {"data": ["a", "b"]})
        assert "tensors differ in length" in reasons(await site.post(INFER, short))["inputs"]

    run(story, with_keys(log))

    async def without(site: Site) -> None:
        body = tensors()
        body["inputs"].append({"name": "flight_id", "shape": [1], "datatype": "INT64", "data": [1]})
        told = reasons(await site.post(INFER, body))
        assert told == {"inputs[6].name": "flight_id is no feature of this model"}

    run(without)


# -- parameters and outputs --------------------------------------------------------------------------


@section("`parameters` of a request")
def test_the_parameters_that_mean_something_are_taken_or_refused() -> None:
    async def story(site: Site) -> None:
        for hint in ({"priority": 1}, {"timeout": 5}, {"content_type": "pd"}, {"headers": None}, None, {}):
            assert (await site.post(INFER, {**tensors(), "parameters": hint})).status_code == 200
        for name in ("sequence_id", "sequence_start", "sequence_end"):
            told = reasons(await site.post(INFER, {**tensors(), "parameters": {name: True}}))
            assert told == {f"parameters.{name}": "is not taken: answers do not depend on earlier ones"}
        assert "parameters" in reasons(await site.post(INFER, {**tensors(), "parameters": [1]}))
        told = reasons(await site.post(INFER, {**tensors(), "parameters": {"binary_data_output": "yes"}}))
        assert told == {"parameters.binary_data_output": "must be true or false, not a string"}
        for unit in ("", 5, "x" * 257):
            assert "parameters.unit" in reasons(
                await site.post(INFER, {**tensors(), "parameters": {"unit": unit}})
            )

    run(story)

    async def sticky(site: Site) -> None:
        for unit in range(20):
            named = {"parameters": {"unit": f"u{unit}"}}
            same = {
                (await site.post(INFER, {**tensors(), **named})).json()["model_version"] for _ in range(3)
            }
            same.add((await site.predict(unit=f"u{unit}")).json()["model_version"])
            assert len(same) == 1

    run(sticky, first=routing(v1=5_000, v2=5_000))

    async def cohorts(site: Site) -> None:
        for hour in range(24):
            own = {
                (await site.predict({**ROW, "hour": value})).json()["model_version"]
                for value in (hour, float(hour))
            }
            for kind, value in (("INT64", hour), ("FP64", float(hour))):
                body = tensors(2, hour={"datatype": kind, "data": [value, value]})
                own.add((await site.post(INFER, body)).json()["model_version"])
            assert len(own) == 1, hour

    run(cohorts, first={**routing(v1=5_000, v2=5_000), "unit_feature": "hour"})


@section("`parameters` of a tensor")
def test_tensors_that_are_elsewhere_are_refused() -> None:
    async def story(site: Site) -> None:
        mlserver = {"parameters": {"content_type": "np", "headers": None}}
        assert (await site.post(INFER, tensors(distance=mlserver))).status_code == 200
        shared = {"parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 8}}
        told = reasons(await site.post(INFER, tensors(distance=shared)))
        assert told["inputs[0].parameters.shared_memory_region"].startswith("is not taken: tensors come with")
        assert "inputs[0].parameters" in reasons(await site.post(INFER, tensors(distance={"parameters": 5})))

    run(story)


@section("`outputs`")
def test_the_outputs_asked_for_come_in_their_order() -> None:
    async def story(site: Site) -> None:
        for names in (["probability"], ["prediction"], ["probability", "prediction"], []):
            body = {**tensors(), "outputs": [{"name": name} for name in names]}
            assert list(await outputs(site, body)) == (names or ["prediction", "probability"])
        assert list(await outputs(site, {**tensors(), "outputs": None})) == ["prediction", "probability"]
        told = reasons(await site.post(INFER, {**tensors(), "outputs": [{"name": "nonsense"}]}))
        assert told == {
            "outputs[0].name": "nonsense is no output of this model; there is: prediction, probability"
        }
        for bad, field in (
            (5, "outputs"), ([5], "outputs[0].name"), ([{}], "outputs[0].name"),
            ([{"name": "prediction"}] * 2, "outputs[1].name"),
            ([{"name": "prediction", "colour": 1}], "outputs[0].colour"),
            ([{"name": "prediction", "parameters": 1}], "outputs[0].parameters"),
        ):  # fmt: skip
            assert list(reasons(await site.post(INFER, {**tensors(), "outputs": bad}))) == [field]

    run(story)

    async def regression(site: Site) -> None:
        told = reasons(await site.post(INFER, {**tensors(), "outputs": [{"name": "probability"}]}))
        assert told["outputs[0].name"].endswith("there is: prediction")

    run(regression, Site("regression"))


@section("`parameters` of an output")
def test_outputs_elsewhere_and_as_classifications_are_refused() -> None:
    async def story(site: Site) -> None:
        def asking(**parameters: Any) -> dict[str, Any]:
            return {**tensors(), "outputs": [{"name": "prediction", "parameters": parameters}]}

        assert (await site.post(INFER, asking(binary_data=False, colour=1))).status_code == 200
        for name in ("classification", "shared_memory_region"):
            assert f"outputs[0].parameters.{name}" in reasons(await site.post(INFER, asking(**{name: 3})))
        told = reasons(await site.post(INFER, asking(binary_data=1)))
        assert told == {"outputs[0].parameters.binary_data": "must be true or false, not a number"}

    run(story)


# -- the binary extension ----------------------------------------------------------------------------


@section("binary tensors in")
def test_tensors_of_every_kind_are_taken_as_bytes() -> None:
    async def story(site: Site) -> None:
        rows = [ROW, {**ROW, "distance": 10.0, "carrier": "Zürich", "weekend": True, "hour": 3}]
        expected = [(await site.predict(row)).json()["probability"] for row in rows]
        body, headers = as_bytes(
            2,
            distance=("FP64", struct.pack("<2d", 1400.5, 10.0)),
            hour=("INT64", struct.pack("<2q", 17, 3)),
            weekend=("BOOL", b"\x00\x01"),
            carrier=("BYTES", texts("UA", "Zürich")),
            origin=("BYTES", texts("JFK", "JFK")),
        )
        answer = await site.post(INFER, body, **headers)
        assert answer.json()["outputs"][1]["data"] == expected, answer.text
        # Triton's client declares no type, KServe's bytes, MLServer's JSON.
        for sent in ("application/octet-stream", "application/json", "Application/JSON; charset=UTF-8"):
            assert (await site.post(INFER, body, **headers, **{"content-type": sent})).status_code == 200
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(site.endpoint), base_url="http://t"
        ) as bare:
            assert (await bare.post(INFER, content=body, headers=headers)).status_code == 200

    run(story)


def test_the_upper_half_of_a_float_is_a_number() -> None:
    async def story(site: Site) -> None:
        expected = (await site.predict({**ROW, "distance": 1400.0})).json()["probability"]
        content = struct.pack("<f", 1400.0)[2:]
        body, headers = as_bytes(distance=("BF16", content))
        assert (await site.post(INFER, body, **headers)).json()["outputs"][1]["data"] == [expected]

    run(story)


@pytest.mark.parametrize(
    ("raw", "rows", "field", "reason"),
    [
        ({"distance": ("FP64", b"\x00" * 7)}, 1, "inputs[0]", "1 values of FP64 are 8 bytes, not 7"),
        ({"distance": ("FP64", b"\x00" * 9)}, 1, "inputs[0]", "1 values of FP64 are 8 bytes, not 9"),
        ({"distance": ("FP64", b"")}, 1, "inputs[0]", "1 values of FP64 are 8 bytes, not 0"),
        ({"weekend": ("BOOL", b"\x00\x02")}, 2, "inputs[3][1]", "a BOOL is a byte 0 or 1, not 2"),
        ({"carrier": ("BYTES", b"\x02\x00\x00")}, 1, "inputs[4][0]", "3 bytes are left where a length"),
        ({"carrier": ("BYTES", b"\x05\x00\x00\x00UA")}, 1, "inputs[4][0]", "it has 5 bytes, and 2 are left"),
        ({"carrier": ("BYTES", b"\xff\xff\xff\xffUA")}, 1, "inputs[4][0]", "it has 4294967295 bytes"),
        ({"carrier": ("BYTES", texts("UA"))}, 2, "inputs[4]", "says 2 values, and there are 1"),
        ({"carrier": ("BYTES", texts("UA", "AA"))}, 1, "inputs[4]", "says 1 values, and there are more"),
        ({"carrier": ("BYTES", b"\x00" * 4_000)}, 1, "inputs[4]", "says 1 values, and there are more"),
        ({"carrier": ("BYTES", b"\x01\x00\x00\x00\xff")}, 1, "inputs[4][0]", "is not UTF-8"),
        ({"distance": ("UINT8", b"\xff\xff")}, 2, "", ""),
    ],
)
def test_bytes_that_are_not_what_they_are_declared_as_are_refused(
    raw: dict[str, tuple[str, bytes]], rows: int, field: str, reason: str
) -> None:
    async def story(site: Site) -> None:
        body, headers = as_bytes(rows, **raw)
        answer = await site.post(INFER, body, **headers)
        if not field:
            assert answer.status_code == 200, answer.text
        else:
            assert reason in reasons(answer)[field]

    run(story)


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "", "99999", "1" * 30, "0x10"])
def test_a_length_of_the_json_that_is_none_is_refused(length: str) -> None:
    async def story(site: Site) -> None:
        header = {"inference-header-content-length": length}
        told = refused(await site.post(INFER, tensors(), **header), 400, "malformed_body")
        assert "Inference-Header-Content-Length" in told["message"]

    run(story)


def test_lengths_that_do_not_add_up_are_refused() -> None:
    async def story(site: Site) -> None:
        body, headers = as_bytes(distance=("FP64", struct.pack("<d", 1.0)))
        told = refused(await site.post(INFER, body + b"\x00", **headers), 400, "malformed_body")
        assert "the tensors take 8 of 9 bytes" in told["message"]
        told = reasons(await site.post(INFER, body[:-1], **headers))
        assert "7 are left" in told["inputs[0].parameters.binary_data_size"]
        short = {"inference-header-content-length": str(int(headers["inference-header-content-length"]) - 1)}
        refused(await site.post(INFER, body, **short), 400, "malformed_body")
        for size in (-8, 8.0, True, "8"):
            head = json.dumps(
                tensors(distance={"data": None, "parameters": {"binary_data_size": size}})
            ).encode()
            header = {"inference-header-content-length": str(len(head))}
            told = reasons(await site.post(INFER, head + b"\x00" * 8, **header))
            assert "must be a number of bytes" in told["inputs[0].parameters.binary_data_size"]
        # Without the header there are no bytes after the JSON.
        sized = tensors(distance={"parameters": {"binary_data_size": 8}})
        assert "0 are left" in reasons(await site.post(INFER, sized))["inputs[0].parameters.binary_data_size"]
        both = tensors(distance={"parameters": {"binary_data_size": 0}})
        assert "beside binary_data_size" in reasons(await site.post(INFER, both))["inputs[0].data"]

    run(story)


def read_binary(answer: httpx.Response) -> dict[str, Any]:
    """Outputs of a binary response, by the protocol."""
    end = int(answer.headers["inference-header-content-length"])
    rest = answer.content[end:]
    found: dict[str, Any] = {}
    for output in json.loads(answer.content[:end])["outputs"]:
        if "data" in output:
            found[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        own, rest = rest[:size], rest[size:]
        if output["datatype"] == "FP64":
            found[output["name"]] = list(struct.unpack(f"<{len(own) // 8}d", own))
        else:
            values = []
            while own:
                (length,) = struct.unpack_from("<I", own)
                values.append(own[4 : 4 + length].decode())
                own = own[4 + length :]
            found[output["name"]] = values
    assert rest == b""
    return found


@section("binary tensors out")
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_outputs_come_as_bytes_when_they_are_asked_for(task: str) -> None:
    async def story(site: Site) -> None:
        expected = {name: output["data"] for name, output in (await outputs(site, tensors(2))).items()}
        whole = {"parameters": {"binary_data_output": True}}
        answer = await site.post(INFER, {**tensors(2), **whole})
        assert answer.headers["content-type"] == "application/octet-stream"
        assert read_binary(answer) == expected
        one = {"outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
        assert read_binary(await site.post(INFER, {**tensors(2), **one})) == {
            "prediction": expected["prediction"]
        }
        # What an output says counts more than what the request says.
        one["outputs"][0]["parameters"]["binary_data"] = False
        answer = await site.post(INFER, {**tensors(2), **one, **whole})
        assert "inference-header-content-length" not in answer.headers
        assert answer.json()["outputs"][0]["data"] == expected["prediction"]
        if task != "regression":
            mixed = {
                "outputs": [
                    {"name": "probability"},
                    {"name": "prediction", "parameters": {"binary_data": True}},
                ]
            }
            assert read_binary(await site.post(INFER, {**tensors(2), **mixed})) == expected

    run(story, Site(task))


# -- errors, and what is not there ---------------------------------------------------------------------


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
