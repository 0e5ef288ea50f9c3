"""What an answer is called, whatever callers call their requests: ids through the whole endpoint."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlops_assets.testing.site import CANARY, Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW, LocalVersion, routing
from serve.identity import MAX_ID_LENGTH, answer_ids, is_header_id, is_id
from serve.inference_log import PredictionLog
from serve.inference_protocol import example_request
from serve.schema import PredictionLogArgs

SAME = {"x-request-id": "nightly-job-42"}
V2 = "/v2/models/flights/infer"


def tensors(**more: Any) -> dict[str, Any]:
    return {**example_request(Site().v1.manifest, ROW), **more}


def log_in(folder: Path) -> PredictionLog:
    return PredictionLog(PredictionLogArgs(uri=str(folder)), deployment="flights", replica="r1")


def logged(log: PredictionLog, folder: Path) -> list[dict[str, Any]]:
    log.close()
    return [row for file in folder.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]


# -- ours --------------------------------------------------------------------------------------------


def test_ids_are_unique_over_replicas_and_restarts_whatever_a_model_seeds() -> None:
    found = set()
    for _ in range(20):
        random.seed(7)
        new = answer_ids()
        found |= {new() for _ in range(500)}
    assert len(found) == 10_000
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in found)


def test_every_answer_has_an_id_of_its_own_also_under_one_request_id(tmp_path: Path) -> None:
    log = log_in(tmp_path)

    async def story(site: Site) -> None:
        answers = [
            await site.post("/predict", {"features": {**ROW, "hour": hour}}, **SAME) for hour in (1, 2, 3)
        ]
        batch = await site.post("/batch-predict", {"instances": [ROW, ROW]}, **SAME)
        infer = await site.post(V2, tensors(), **SAME)
        ids = [answer.json()["answer_id"] for answer in (*answers, batch)]
        ids.append(infer.json()["parameters"]["answer_id"])
        assert len(set(ids)) == 5
        everyone = (*answers, batch, infer)
        assert [answer.headers["x-answer-id"] for answer in everyone] == ids
        assert {answer.headers["x-request-id"] for answer in everyone} == {"nightly-job-42"}
        assert {answer.json()["request_id"] for answer in (*answers, batch)} == {"nightly-job-42"}
        assert infer.json()["id"] == "nightly-job-42"
        await site.traffic.mirrored()
        rows = logged(log, tmp_path)
        live = [row for row in rows if row["variant"] == "stable"]
        assert {row["request_id"] for row in rows} == {"nightly-job-42"}
        assert sorted((row["answer_id"], row["row"]) for row in live) == sorted(
            [*((one, 0) for one in ids), (ids[3], 1)]
        )
        # A shadow's answer to a request is the same answer's, so that pairs join by answer id and row.
        shadows = [row for row in rows if row["variant"] == "shadow"]
        assert sorted((row["answer_id"], row["row"]) for row in shadows) == sorted(
            (row["answer_id"], row["row"]) for row in live
        )
        hours = {(row["answer_id"], row["variant"]): json.loads(row["features"])["hour"] for row in rows}
        assert all(hours[one, "stable"] == hours[one, "shadow"] for one in ids)

    first = {**routing(v1=10_000, v2=0), "rollout": None}
    first["routes"]["v2"]["shadow"] = 10_000
    run(story, Site(log=log), first)


def test_without_a_callers_id_the_answer_id_stands_for_it(tmp_path: Path) -> None:
    log = log_in(tmp_path)

    async def story(site: Site) -> None:
        for sent in ({}, {"x-request-id": ""}):
            answer = await site.post("/predict", {"features": ROW}, **sent)
            body = answer.json()
            assert body["request_id"] == body["answer_id"] == answer.headers["x-request-id"]
        infer = (await site.post(V2, tensors(id=""))).json()
        assert infer["id"] == infer["parameters"]["answer_id"]
        rows = logged(log, tmp_path)
        assert len(rows) == 3 and all(row["request_id"] == row["answer_id"] for row in rows)

    run(story, Site(log=log))


def test_one_request_id_does_not_put_every_request_on_one_side() -> None:
    async def story(site: Site) -> None:
        answers = [await site.post("/predict", {"features": ROW}, **SAME) for _ in range(200)]
        canary = sum(answer.json()["variant"] == "canary" for answer in answers)
        assert 60 < canary < 140
        site.now += 60
        await site.traffic.mirrored()
        shadows = site.traffic.collector.snapshot().shadows
        assert 20 < shadows["v3"].requests + shadows["v3"].shed < 100

    first = routing(v1=5_000, v2=5_000)
    first["routes"]["v3"] = {"application": "flights--v3", "weight": 0, "shadow": 3_000}
    site = Site()
    site.versions.applications["flights--v3"] = LocalVersion("v3", *CANARY)
    run(story, site, first)


def test_a_refusal_is_no_answer_and_has_no_answer_id() -> None:
    async def story(site: Site) -> None:
        for answer in (
            await site.post("/predict", b"{"),
            await site.http.get("/nope"),
            await site.http.get("/ready"),
        ):
            assert "x-answer-id" not in answer.headers and answer.headers["x-request-id"]

    run(story)


# -- callers' ----------------------------------------------------------------------------------------

ODD_HEADERS = {
    "too long": b"x" * (MAX_ID_LENGTH + 1),
    "10 kB": b"x" * 10_240,
    "UTF-8": "Überflug".encode(),
    "Latin-1": "Überflug".encode("latin-1"),
    "NUL": b"a\x00b",
    "tab": b"a\tb",
    "escape": b"a\x1b[31mb",
    "delete": b"a\x7fb",
    "header injection": b"a\r\nset-cookie: b=c",
    "line feed": b"a\nb",
}


@pytest.mark.parametrize("sent", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_an_odd_id_in_a_header_is_refused_and_not_given_back(sent: bytes) -> None:
    async def story(site: Site) -> None:
        scope = {"type": "http", "method": "POST", "root_path": "", "headers": [(b"x-request-id", sent)]}

        async def ask(method: str, path: str, body: Any) -> tuple[int, dict[bytes, bytes], Any]:
            told: list[dict[str, Any]] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

            async def send(message: dict[str, Any]) -> None:
                told.append(message)

            await site.endpoint({**scope, "method": method, "path": path}, receive, send)
            return told[0]["status"], dict(told[0]["headers"]), json.loads(told[1]["body"])

        for path, body in (
            ("/predict", {"features": ROW}),
            ("/batch-predict", {"instances": [ROW]}),
            (V2, tensors(id="mine")),
        ):
            status, headers, answer = await ask("POST", path, body)
            assert status == 400, answer
            assert "x-request-id" in json.dumps(answer) and "printable ASCII" in json.dumps(answer)
            assert len(headers[b"x-request-id"]) == 32
        # It matters only where it would be recorded.
        status, headers, _ = await ask("GET", "/health", None)
        assert status == 200 and len(headers[b"x-request-id"]) == 32

    run(story)


@pytest.mark.parametrize("sent", ["a", "job 42", "~" * MAX_ID_LENGTH, '"; drop table', "%00", "<b>"])
def test_any_printable_id_in_a_header_is_kept(sent: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.post("/predict", {"features": ROW}, **{"x-request-id": sent})
        assert answer.headers.get_list("x-request-id") == [sent]
        assert answer.json()["request_id"] == sent

    run(story)


@pytest.mark.parametrize("sent", ["x" * (MAX_ID_LENGTH + 1), "a\nb", "a\x00", "a\u202eb", "\u2028"])
def test_an_odd_id_in_a_v2_body_is_refused(sent: str) -> None:
    async def story(site: Site) -> None:
        assert "printable" in reasons(await site.post(V2, tensors(id=sent)))["id"]

    run(story)


def test_the_body_answers_the_body_and_the_header_the_header(tmp_path: Path) -> None:
    log = log_in(tmp_path)

    async def story(site: Site) -> None:
        answer = await site.post(V2, tensors(id="Überflug-🛫"), **SAME)
        assert answer.json()["id"] == "Überflug-🛫"
        assert answer.headers["x-request-id"] == "nightly-job-42"
        assert logged(log, tmp_path)[0]["request_id"] == "Überflug-🛫"

    run(story, Site(log=log))


def test_a_failure_inside_is_logged_under_both_ids(caplog: pytest.LogCaptureFixture) -> None:
    async def story(site: Site) -> None:
        site.v1.always = RuntimeError("broken")
        details = refused(await site.post("/predict", {"features": ROW}, **SAME), 500, "internal")["details"]
        assert details["request_id"] == "nightly-job-42"
        assert "'nightly-job-42'" in caplog.text and details["answer_id"] in caplog.text

    run(story)


def test_what_is_an_id() -> None:
    assert is_id("a") and is_id("ü") and is_header_id(b"a b")
    assert not any(map(is_id, ("", "\n", "x" * 257, "\ud800")))
    assert not any(map(is_header_id, (b"", b"\n", b"x" * 257, "ü".encode(), b"\xfc", b"\x00")))
