"""Tensors that come in by the V2 protocol: names, shapes, values and join keys."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW
from mlops_assets_tests.serve.v2 import INFER, as_bytes, outputs, section, tensors, with_keys
from serve.inference_log import PredictionLog
from serve.schema import PredictionLogArgs

NUMPY = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2",
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}  # fmt: skip


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
