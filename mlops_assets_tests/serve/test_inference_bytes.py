"""The binary extension of the V2 protocol, in and out."""

import json
import struct
from typing import Any

import httpx
import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW
from mlops_assets_tests.serve.v2 import INFER, as_bytes, outputs, section, tensors, texts


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
