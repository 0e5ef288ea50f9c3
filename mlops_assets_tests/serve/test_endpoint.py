"""The HTTP contract through HTTP: the whole ASGI application over real models in this process."""

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.site import CANARY, MODELS, Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW, LocalVersion, routing
from serve.inference_log import SCHEMA, PredictionLog
from serve.schema import PredictionLogArgs
from serve.versions import VersionGone, VersionLost, VersionOverloaded

# -- answers -----------------------------------------------------------------------------------------


def test_binary_answers_the_offline_probability_to_the_bit() -> None:
    async def story(site: Site) -> None:
        answer = await site.predict()
        golden = MODELS["binary"][0].golden[0].scores[0]
        assert answer.json() == {
            "request_id": answer.headers["x-request-id"],
            "answer_id": answer.headers["x-answer-id"],
            "model_version": "v1",
            "variant": "stable",
            "prediction": "late" if golden >= 0.5 else "on time",
            "probability": golden,
        }
        assert answer.headers["x-model-version"] == "v1"
        assert answer.headers["x-variant"] == "stable"

    run(story)


def test_multiclass_answers_a_label_and_every_probability() -> None:
    async def story(site: Site) -> None:
        answer = (await site.predict()).json()
        scores = MODELS["multiclass"][0].golden[0].scores
        assert answer["probability"] == dict(zip(("early", "on time", "late"), scores, strict=True))
        assert answer["prediction"] == max(answer["probability"], key=answer["probability"].__getitem__)

    run(story, Site("multiclass"))


def test_regression_answers_a_number_and_no_probability() -> None:
    async def story(site: Site) -> None:
        answer = (await site.predict()).json()
        assert answer["prediction"] == MODELS["regression"][0].golden[0].scores[0]
        assert answer["probability"] is None

    run(story, Site("regression"))


def test_the_threshold_of_the_manifest_decides_the_label() -> None:
    async def story(site: Site) -> None:
        score = MODELS["binary"][0].golden[0].scores[0]
        for threshold, label in ((score, "late"), (math.nextafter(score, 1), "on time")):
            site.v1.manifest = MODELS["binary"][0].model_copy(update={"threshold": threshold})
            site.traffic.states["v1"].live = None
            await site.traffic.settle()
            assert (await site.predict()).json()["prediction"] == label

    run(story)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_batch_answers_what_single_rows_answer(task: str) -> None:
    async def story(site: Site) -> None:
        rows = [{**ROW, "distance": float(value)} for value in range(0, 6000, 137)]
        batch = (await site.post("/batch-predict", {"instances": rows})).json()
        single = [(await site.predict(row)).json() for row in rows]
        assert batch["predictions"] == [
            {key: one[key] for key in ("prediction", "probability")} for one in single
        ]
        assert set(batch) == {"request_id", "answer_id", "model_version", "variant", "predictions"}

    run(story, Site(task))


def test_under_serve_the_request_id_header_is_left_to_serve() -> None:
    async def story(site: Site) -> None:
        site.endpoint._adds_request_id = False
        assert "x-request-id" not in (await site.predict()).headers

    run(story)


def test_concurrent_requests_share_calls_and_keep_their_own_answers() -> None:
    async def story(site: Site) -> None:
        rows = [{**ROW, "distance": value * 150.0} for value in range(40)]
        answers = await asyncio.gather(*(site.predict(row) for row in rows))
        expected = site.v1.scorer.score_rows(rows).tolist()
        assert [answer.json()["probability"] for answer in answers] == expected
        assert len(set(expected)) > 3
        assert len(site.v1.calls) < 40

    run(story)


# -- 400 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"features": NaN}', b'{"features": {"distance": Infinity}}', b"[" * 15_000,
     b'{"a": ' + b"1" * 5_000 + b"}", b"[]", b'"x"', b"1", b"null", b"{}{}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/batch-predict", "/v2/models/flights/infer"])
def test_a_body_that_is_no_json_object_is_refused(path: str, body: bytes) -> None:
    async def story(site: Site) -> None:
        refused(await site.post(path, body), 400, "malformed_body")
        assert site.errors("malformed_body") == 1

    run(story)


def test_every_bad_feature_is_named_with_its_reason() -> None:
    async def story(site: Site) -> None:
        features = {
            "distance": "1.5",
            "delay": True,
            "hour": 3.5,
            "weekend": 0,
            "carrier": 7,
            "gate": 1,
        }
        found = reasons(await site.predict(features, colour="red", unit=5))
        assert found == {
            "features.distance": "must be a number, not a string",
            "features.delay": "must be a number, not a boolean",
            "features.hour": "must be an integer, not a fraction",
            "features.weekend": "must be true or false, not a number",
            "features.carrier": "must be a string, not a number",
            "features.origin": "is missing",
            "features.gate": "is not a feature of this model",
            "unit": "must be a string of 1 to 256 characters, or null",
            "colour": "is not a field of this request; allowed: features, unit, entity",
        }
        assert site.errors("invalid_fields") == 1

    run(story)


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("distance", "1e999", "must be a finite number"),
        ("distance", "-1e999", "must be a finite number"),
        ("distance", "1" + "0" * 400, "must be a finite number"),
        ("distance", "-0.001", "must be >= 0 and <= 6000"),
        ("distance", "6000.5", "must be >= 0 and <= 6000"),
        ("distance", "null", "must not be null"),
        ("distance", "{}", "must be a number, not an object"),
        ("delay", "[1]", "must be a number, not an array"),
        ("hour", "24", "must be >= 0 and <= 23"),
        ("hour", "true", "must be an integer, not a boolean"),
        ("hour", '"3"', "must be an integer, not a string"),
        ("hour", "1e999", "must be an integer"),
        ("hour", "1e300", "must be within -2^53 and 2^53"),
        ("hour", "9" * 400, "must be within -2^53 and 2^53"),
        ("weekend", '"true"', "must be true or false, not a string"),
        ("origin", '"LGA"', "must be one of 'EWR', 'JFK'"),
        ("origin", "null", "must not be null"),
        ("carrier", "false", "must be a string, not a boolean"),
    ],
)
def test_values_that_are_not_strictly_valid_are_refused(field: str, text: str, reason: str) -> None:
    async def story(site: Site) -> None:
        features = ", ".join(f'"{name}": {text if name == field else json.dumps(ROW[name])}' for name in ROW)
        assert reasons(await site.post("/predict", f'{{"features": {{{features}}}}}'.encode())) == {
            f"features.{field}": reason
        }

    run(story)


@pytest.mark.parametrize(
    "changes",
    [{"distance": 0}, {"distance": 6000}, {"delay": -1e308}, {"hour": 3.0}, {"hour": None}, {"weekend": None},
     {"carrier": "ZZ"}, {"carrier": "\x00"}, {"carrier": None}],
)  # fmt: skip
def test_values_at_the_edge_of_valid_are_answered(changes: dict[str, Any]) -> None:
    async def story(site: Site) -> None:
        assert (await site.predict({**ROW, **changes})).status_code == 200

    run(story)


def test_a_category_outside_the_dictionary_scores_as_missing() -> None:
    async def story(site: Site) -> None:
        unseen, missing = (
            await site.predict({**ROW, "carrier": "ZZ"}),
            await site.predict({**ROW, "carrier": None}),
        )
        assert unseen.json()["probability"] == missing.json()["probability"]

    run(story)


def test_a_category_of_whole_numbers_answers_and_logs_the_same_for_3_and_its_text(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        single = [await site.predict({**ROW, "carrier": sent}) for sent in ("3", 3, 3.0)]
        batch = await site.post("/batch-predict", {"instances": [{**ROW, "carrier": 3}]})
        told = {answer.json()["probability"] for answer in single}
        assert told == {batch.json()["predictions"][0]["probability"]}
        other = await site.predict({**ROW, "carrier": 7})
        assert other.json()["probability"] not in told

    site = Site(log=log)
    manifest, payload = MODELS["binary"]
    coded = tuple(
        feature.model_copy(update={"categories": ("7", "12", "3")}) if feature.name == "carrier" else feature
        for feature in manifest.features
    )
    v1 = LocalVersion("v1", manifest.model_copy(update={"features": coded}), payload)
    site.versions.applications["flights--v1"] = v1
    run(story, site)
    log.close()
    rows = ds.dataset(str(tmp_path), format="parquet", schema=SCHEMA).to_table().to_pylist()
    assert sorted(json.loads(row["features"])["carrier"] for row in rows) == ["3", "3", "3", "3", "7"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "features"),
        ({"features": None}, "features"),
        ({"features": []}, "features"),
        ({"unit": "a"}, "features"),
    ],
)
def test_features_must_be_an_object(body: dict[str, Any], field: str) -> None:
    async def story(site: Site) -> None:
        assert field in reasons(await site.post("/predict", body))

    run(story)


def test_every_bad_row_of_a_batch_is_named() -> None:
    async def story(site: Site) -> None:
        rows = [ROW, {**ROW, "hour": 99}, "row", {**ROW, "gate": 1}]
        found = reasons(await site.post("/batch-predict", {"instances": rows}))
        assert set(found) == {"instances[1].hour", "instances[2]", "instances[3].gate"}
        assert set(reasons(await site.post("/batch-predict", {"instances": ROW}))) == {"instances"}
        assert set(reasons(await site.post("/batch-predict", {"rows": []}))) == {"instances", "rows"}

    run(story)


def test_an_empty_batch_is_refused() -> None:
    async def story(site: Site) -> None:
        refused(await site.post("/batch-predict", {"instances": []}), 400, "empty_batch")

    run(story)


# -- 401, 403, 429 -----------------------------------------------------------------------------------


def test_without_a_valid_key_nothing_is_parsed_and_the_way_in_is_said(keys_file: str) -> None:
    async def story(site: Site) -> None:
        presented = ["Bearer nobody", "Basic c2hvcA==", "Bearer ", "shop"]
        wrong = [{}, {"x-api-key": "nobody"}, {"x-api-key": hashlib.sha256(b"shop").hexdigest()}]
        wrong += [{"authorization": value} for value in presented]
        for headers in wrong:
            for path in ("/predict", "/batch-predict", "/v2/models/flights/infer"):
                answer = await site.post(path, b"{not json", **headers)
                refused(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")
            for path in ("/metrics", "/openapi.json", "/docs", "/v2/models/flights", "/no/such/path"):
                refused(await site.http.get(path, headers=headers), 401, "unauthenticated")
        assert site.errors("unauthenticated") == len(wrong) * 8

    run(story, Site(keys_file=keys_file))


def test_a_key_is_taken_as_bearer_token_and_as_header(keys_file: str) -> None:
    async def story(site: Site) -> None:
        for headers in (
            {"authorization": "Bearer shop"},
            {"authorization": "bearer shop"},
            {"x-api-key": "boss"},
        ):
            assert (await site.post("/predict", {"features": ROW}, **headers)).status_code == 200

    run(story, Site(keys_file=keys_file))


def test_a_role_that_is_too_low_is_refused_before_the_body(keys_file: str) -> None:
    async def story(site: Site) -> None:
        error = refused(
            await site.post("/predict", b"{not json", **{"x-api-key": "watcher"}), 403, "forbidden"
        )
        assert error["details"] == {"role": "observe", "needed": "predict"}
        assert (await site.http.get("/metrics", headers={"x-api-key": "watcher"})).status_code == 200
        assert site.errors("forbidden") == 1

    run(story, Site(keys_file=keys_file))


def test_health_and_readiness_need_no_key(keys_file: str) -> None:
    async def story(site: Site) -> None:
        for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/flights/ready"):
            assert (await site.http.get(path)).status_code == 200, path
        assert (await site.http.get("/ready")).json()["api_keys"] == {"enabled": True, "problem": None}

    run(story, Site(keys_file=keys_file))


def test_ready_says_that_keys_are_off() -> None:
    async def story(site: Site) -> None:
        assert (await site.http.get("/ready")).json()["api_keys"]["enabled"] is False

    run(story)


def test_a_key_beyond_its_rate_is_told_when_to_come_back(keys_file: str) -> None:
    async def story(site: Site) -> None:
        async def ask() -> httpx.Response:
            return await site.post("/predict", {"features": ROW}, **{"x-api-key": "slow"})

        assert [(await ask()).status_code for _ in range(2)] == [200, 200]
        answer = await ask()
        refused(answer, 429, "rate_limited")
        assert answer.headers["retry-after"] == "30"
        site.now += 30
        assert (await ask()).status_code == 200
        assert site.errors("rate_limited") == 1

    run(story, Site(keys_file=keys_file))


# -- 404, 405, 413 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/predict/", "/v2/models/other/infer", "/-/routes", "/PREDICT"]
)
def test_an_unknown_path_says_which_exist(path: str) -> None:
    async def story(site: Site) -> None:
        assert "/predict" in refused(await site.http.get(path), 404, "not_found")["details"]["paths"]
        assert site.errors("not_found") == 1
        assert 'endpoint="other"' in site.metrics.text().decode()

    run(story)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/predict"), ("POST", "/health"), ("DELETE", "/v2/models/flights")]
)
def test_a_wrong_method_says_which_is_right(method: str, path: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == ("OPTIONS, POST" if path == "/predict" else "GET, HEAD, OPTIONS")

    run(story)


def test_a_body_beyond_the_limit_is_refused_by_its_declared_length(keys_file: str) -> None:
    async def story(site: Site) -> None:
        error = refused(await site.post("/predict", b"x" * 20_001), 413, "too_large")
        assert error["details"] == {"limit": 20_000, "unit": "bytes"}

    run(story, Site(keys_file=keys_file))


def test_a_chunked_body_is_cut_off_at_the_limit() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 10_000_000:
            read += 1_000
            yield b" " * 1_000

    async def story(site: Site) -> None:
        refused(await site.http.post("/predict", content=endless()), 413, "too_large")
        assert read <= 22_000

    run(story)


def test_a_chunked_body_within_the_limit_is_answered() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for byte in json.dumps({"features": ROW}).encode():
            yield bytes([byte])

    async def story(site: Site) -> None:
        assert (await site.http.post("/predict", content=parts())).status_code == 200

    run(story)


def test_a_batch_beyond_the_limit_is_refused() -> None:
    async def story(site: Site) -> None:
        error = refused(await site.post("/batch-predict", {"instances": [ROW] * 51}), 413, "too_large")
        assert error["details"] == {"limit": 50, "unit": "rows"}
        assert (await site.post("/batch-predict", {"instances": [ROW] * 50})).status_code == 200

    run(story)


# -- 503, 500 ----------------------------------------------------------------------------------------


def test_before_a_version_answers_there_is_no_model() -> None:
    async def story(site: Site) -> None:
        paths = ("/health", "/v2/health/ready", "/docs")
        for answer in (await site.predict(), *[await site.http.get(path) for path in paths]):
            refused(answer, 503, "no_model")
            assert answer.headers["retry-after"] == "1"
        ready = await site.http.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["error"]["message"] == (
            "The stable version does not answer: flights--v9: there is no such application."
        )

    run(story, first=routing("v9"))


def test_without_any_routing_there_is_no_model() -> None:
    async def story() -> None:
        site = Site()
        refused(await site.predict(), 503, "no_model")
        assert (await site.http.get("/ready")).status_code == 503

    asyncio.run(story())


@pytest.mark.parametrize(
    ("failure", "code", "retry_after"),
    [
        (VersionOverloaded("full", retry_after_s=2.5), "overloaded", "3"),
        (VersionGone("deleted"), "no_model", "1"),
        (VersionLost("died"), "no_model", "1"),
    ],
)
def test_a_stable_version_that_cannot_answer_is_503(failure: Exception, code: str, retry_after: str) -> None:
    async def story(site: Site) -> None:
        site.v1.always = failure
        answer = await site.predict()
        refused(answer, 503, code)
        assert answer.headers["retry-after"] == retry_after
        assert site.errors(code) == 1

    run(story)


def test_a_model_that_hangs_is_a_timeout() -> None:
    async def story(site: Site) -> None:
        site.v1.hold = asyncio.Event()
        answer = await site.predict()
        refused(answer, 503, "timed_out")
        assert answer.headers["retry-after"] == "1"

    run(story, first={**routing(), "timeout_s": 0.05})


def test_more_requests_at_once_than_the_limit_are_shed() -> None:
    async def story(site: Site) -> None:
        site.v1.hold = asyncio.Event()
        waiting = [asyncio.ensure_future(site.predict()) for _ in range(3)]
        await site.waiting(3)
        refused(await site.predict(), 503, "overloaded")
        site.v1.hold.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await site.predict()).status_code == 200

    run(story, Site(max_in_flight=3))


@pytest.mark.parametrize("path", ["/predict", "/batch-predict"])
def test_anything_else_is_500_with_the_ids_and_nothing_else(path: str) -> None:
    async def story(site: Site) -> None:
        site.v1.always = RuntimeError("password=hunter2 at /srv/secret")
        body = {"features": ROW} if path == "/predict" else {"instances": [ROW]}
        answer = await site.post(path, body, **{"x-request-id": "r-1"})
        error = refused(answer, 500, "internal")
        assert error["details"]["request_id"] == "r-1"
        assert len(error["details"].pop("answer_id")) == 32 and len(error["details"]) == 1
        assert "hunter2" not in answer.text and "secret" not in answer.text
        assert site.errors("internal") == 1

    run(story)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_never_answered(bad: float) -> None:
    async def story(site: Site) -> None:
        site.v1.alter = lambda scores: [bad] * len(scores)
        refused(await site.predict(), 500, "internal")

    run(story)


def test_a_request_that_makes_the_model_fail_fails_alone() -> None:
    async def story(site: Site) -> None:
        site.v1.poison = poison = {**ROW, "distance": 5999.0}
        rows = [ROW, ROW, ROW, poison, ROW, ROW]
        answers = await asyncio.gather(*(site.predict(row) for row in rows))
        assert [answer.status_code for answer in answers] == [200, 200, 200, 500, 200, 200]
        assert max(site.v1.calls) > 1

    run(story)


# -- retry, fallback, traffic ------------------------------------------------------------------------


def test_a_replica_that_dies_during_a_call_costs_the_caller_nothing() -> None:
    async def story(site: Site) -> None:
        site.v1.failures = [VersionLost("died")]
        assert (await site.predict()).status_code == 200
        assert await site.metric("mlops_retries_total") == 1

    run(story)


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("bug"), VersionGone("x"), VersionLost("x"), VersionOverloaded("x"), TimeoutError()],
)
def test_a_canary_that_fails_is_answered_by_stable(failure: Exception) -> None:
    async def story(site: Site) -> None:
        assert (await site.predict()).json()["variant"] == "canary"
        site.v2.always = failure
        answer = await site.predict()
        assert answer.status_code == 200
        assert (answer.json()["model_version"], answer.json()["variant"]) == ("v1", "stable")
        assert answer.headers["x-variant"] == "stable"
        assert await site.metric("mlops_fallbacks_total") == 1

    run(story, first=routing(v1=0, v2=10_000))


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [], [0.5, 0.5]])
def test_a_canary_that_scores_nonsense_is_answered_by_stable(bad: list[float]) -> None:
    async def story(site: Site) -> None:
        site.v2.alter = lambda scores: bad
        answer = (await site.predict()).json()
        assert (answer["variant"], answer["probability"]) == (
            "stable",
            MODELS["binary"][0].golden[0].scores[0],
        )

    run(story, first=routing(v1=0, v2=10_000))


def test_while_a_new_stable_version_starts_the_previous_one_answers() -> None:
    async def story(site: Site) -> None:
        site.v2.info_error = TimeoutError()
        await site.declare(routing("v2", revision=2))
        answer = await site.predict()
        assert (answer.json()["model_version"], answer.json()["variant"]) == ("v1", "stable")
        assert (await site.http.get("/ready")).status_code == 503
        assert (await site.http.get("/health")).status_code == 200
        site.v2.info_error = None
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v2"
        assert (await site.http.get("/ready")).status_code == 200

    run(story)


def test_a_canary_that_is_lost_gets_no_traffic_until_it_answers_again() -> None:
    async def story(site: Site) -> None:
        site.v2.info_error, site.now = VersionGone("deleted"), site.now + 5
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v1"
        assert site.v2.calls == []
        assert await site.metric('mlops_version_answers{deployment="flights",version="v2"}') == 0
        site.v2.info_error = None
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v2"

    run(story, first=routing(v1=0, v2=10_000))


def test_a_version_that_answers_under_a_wrong_name_gets_no_traffic() -> None:
    async def story(site: Site) -> None:
        assert (await site.predict()).json()["model_version"] == "v1"
        ready = (await site.http.get("/ready")).json()
        assert "answers as version 'v1', not 'v2'" in ready["routes"]["v2"]["problem"]

    site = Site()
    site.versions.applications["flights--v2"] = site.v1
    run(story, site, first=routing(v1=0, v2=10_000))


def test_units_stick_to_their_variant_and_shares_are_as_declared() -> None:
    async def story(site: Site) -> None:
        async def version(unit: str) -> str:
            return (await site.predict(unit=unit)).json()["model_version"]

        first = [await version(f"u{number}") for number in range(200)]
        assert first == [await version(f"u{number}") for number in range(200)]
        assert 70 < first.count("v2") < 130
        assert {(await site.predict()).json()["model_version"] for _ in range(50)} == {"v1", "v2"}

    run(story, first=routing(v1=5_000, v2=5_000))


def test_a_new_routing_is_visible_at_once() -> None:
    async def story(site: Site) -> None:
        await site.declare(routing(revision=2, v1=2_500, v2=7_500))
        ready = (await site.http.get("/ready")).json()
        assert ready["revision"] == 2
        assert {name: route["weight"] for name, route in ready["routes"].items()} == {
            "v1": 2_500,
            "v2": 7_500,
        }
        assert ready["routes"]["v2"]["application"] == "flights--v2"
        assert ready["routes"]["v2"]["digest"] == site.v2.scorer.digest
        assert (ready["routes"]["v1"]["variant"], ready["routes"]["v2"]["variant"]) == ("stable", "canary")
        assert await site.metric('mlops_traffic_weight{deployment="flights",version="v2"}') == 0.75
        assert await site.metric("mlops_routing_revision") == 2

    run(story)


def test_a_bad_routing_keeps_the_last_good_one_and_says_so() -> None:
    async def story(site: Site) -> None:
        site.traffic.declare({**routing(), "revision": 9, "stable": "v7"})
        ready = (await site.http.get("/ready")).json()
        assert ready["revision"] == 1
        assert "v7" in ready["config_error"]
        assert (await site.predict()).status_code == 200
        await site.declare(routing(revision=3))
        assert (await site.http.get("/ready")).json()["config_error"] is None

    run(story)


def test_a_canary_that_takes_other_features_costs_nobody_the_answer_and_is_blamed() -> None:
    async def story(site: Site) -> None:
        fewer = CANARY[0].model_copy(update={"features": CANARY[0].features[1:]})
        site.v2.manifest = fewer
        await site.declare(routing(revision=2, v1=0, v2=10_000))
        answer = await site.predict()
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
        evidence = (await site.http.get("/evidence")).json()
        assert evidence["versions"]["v2"]["errors"] == {"schema": 1}
        # What stable refuses too is the caller's mistake, in stable's words.
        assert list(reasons(await site.predict({**ROW, "hour": "late"}))) == ["features.hour"]
        assert (await site.http.get("/evidence")).json()["versions"]["v2"]["errors"] == {"schema": 1}

    run(story)


# -- join keys ---------------------------------------------------------------------------------------


def keyed(site: Site, *names: str) -> Site:
    """The site, with both versions taking these join keys."""
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": names})
    return site


@pytest.mark.parametrize(
    ("entity", "told"),
    [
        ({}, {"entity.flight_id": "is missing", "entity.day": "is missing"}),
        ({"flight_id": 4711}, {"entity.day": "is missing"}),
        (
            {"flight_id": 4711, "day": "2013-04-01", "colour": "red"},
            {"entity.colour": "is not a join key of this model; allowed: flight_id, day"},
        ),
        (
            {"flight_id": "x" * 257, "day": ""},
            {
                "entity.flight_id": "must have 1 to 256 characters",
                "entity.day": "must have 1 to 256 characters",
            },
        ),
        (
            {"flight_id": True, "day": None},
            {
                "entity.flight_id": "must be a string or an integer, not a boolean",
                "entity.day": "must be a string or an integer, not null",
            },
        ),
        (
            {"flight_id": 4711.5, "day": 2**63},
            {
                "entity.flight_id": "must be a string or an integer, not a fraction",
                "entity.day": "must be within -2^63 and 2^63 - 1",
            },
        ),
        ({"flight_id": 2.0**60, "day": 1}, {"entity.flight_id": "must be an integer without a point"}),
        (4711, {"entity": "must be an object of join keys, not a number"}),
        ([4711], {"entity": "must be an object of join keys, not an array"}),
    ],
)
def test_every_join_key_that_is_not_valid_is_named(entity: Any, told: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        assert reasons(await site.predict(entity=entity)) == told
        in_batch = {name.replace("entity", "entities[1]", 1): reason for name, reason in told.items()}
        good = {"flight_id": 1, "day": 2}
        body = {"instances": [ROW, ROW], "entities": [good, entity]}
        assert reasons(await site.post("/batch-predict", body)) == in_batch

    run(story, keyed(Site(), "flight_id", "day"))


def test_join_keys_of_a_batch_come_one_per_instance() -> None:
    async def story(site: Site) -> None:
        for entities, reason in (
            ([{"flight_id": 1}], "must hold one object (or null) per instance: 1 for 2 instances"),
            ({"flight_id": 1}, "must be an array of objects, not an object"),
        ):
            answer = await site.post("/batch-predict", {"instances": [ROW, ROW], "entities": entities})
            assert reasons(answer) == {"entities": reason}
        # All that is wrong is named together.
        both = await site.predict({**ROW, "hour": "late"}, entity={}, unit=7)
        assert set(reasons(both)) == {"features.hour", "entity.flight_id", "unit"}

    run(story, keyed(Site(), "flight_id"))


def test_a_model_without_join_keys_takes_none() -> None:
    async def story(site: Site) -> None:
        refused = "is not taken: this model was declared without join keys"
        for entity in ({"flight_id": 1}, {}, None):
            assert reasons(await site.predict(entity=entity)) == {"entity": refused}
            batch = {"instances": [ROW], "entities": entity}
            assert reasons(await site.post("/batch-predict", batch)) == {"entities": refused}
        schemas = (await site.http.get("/openapi.json")).json()["components"]["schemas"]
        assert set(schemas["PredictRequest"]["properties"]) == {"features", "unit"}
        assert set(schemas["BatchRequest"]["properties"]) == {"instances", "unit"}

    run(story)


def test_join_keys_are_logged_in_the_manifests_order_and_change_no_answer(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        await site.declare({**routing(revision=2), "routes": {
            "v1": {"application": "flights--v1", "weight": 10_000},
            "v2": {"application": "flights--v2", "weight": 0, "shadow": 10_000},
        }})  # fmt: skip
        bare = await site.predict()
        named = await site.predict(entity={"day": "1. März", "flight_id": 4711.0})
        assert bare.json()["probability"] == named.json()["probability"]
        assert (await site.predict(entity=None)).status_code == 200
        batch = {"instances": [ROW, ROW], "entities": [{"flight_id": "a", "day": -1}, None]}
        assert (await site.post("/batch-predict", batch)).status_code == 200
        await site.traffic.mirrored()

    run(story, keyed(Site(log=log), "flight_id", "day"))
    log.close()
    rows = ds.dataset(str(tmp_path), format="parquet", schema=SCHEMA).to_table().to_pylist()
    for variant in ("stable", "shadow"):
        found = sorted(str(row["entity"]) for row in rows if row["variant"] == variant)
        assert found == [
            "None", "None", "None", '{"flight_id":"a","day":-1}', '{"flight_id":4711,"day":"1. März"}',
        ]  # fmt: skip


def test_a_canary_with_fewer_join_keys_costs_nobody_the_answer_and_is_blamed() -> None:
    async def story(site: Site) -> None:
        site.v2.manifest = site.v2.manifest.model_copy(update={"entity": ()})
        await site.declare(routing(revision=2, v1=0, v2=10_000))
        assert (await site.predict()).json()["model_version"] == "v2"
        answer = await site.predict(entity={"flight_id": 1})
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
        evidence = (await site.http.get("/evidence")).json()
        assert evidence["versions"]["v2"]["errors"] == {"schema": 1}

    run(story, keyed(Site(), "flight_id"))


# -- metrics -----------------------------------------------------------------------------------------


def test_requests_rows_and_latency_are_counted_by_variant_and_version() -> None:
    async def story(site: Site) -> None:
        await site.predict()
        await site.post("/batch-predict", {"instances": [ROW] * 3})
        await site.predict({})
        labels = 'deployment="flights"'
        at = f'{labels},endpoint="/predict"'
        assert (
            await site.metric(f'mlops_requests_total{{{at},status="200",variant="stable",version="v1"}}') == 1
        )
        assert (
            await site.metric(f'mlops_requests_total{{{at},status="400",variant="stable",version="v1"}}') == 1
        )
        who = f'{{{labels},variant="stable",version="v1"}}'
        assert await site.metric(f"mlops_rows_total{who}") == 4
        assert await site.metric(f"mlops_request_latency_seconds_count{who}") == 2
        text = await site.http.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")

    run(story)


# -- monitoring --------------------------------------------------------------------------------------

REPORT = {
    "version": "v1",
    "stale": {"drift": True, "data": False, "code": False, "rollback": False},
    "data_until": 1364774400,
    "drift": {"distance": {"psi": 0.31}},
    "drift_thresholds": {"distance": {"psi": 0.11}},
    "episode_open": True,
}


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"version": "v2"}, "version", "must be the stable version, which is v1"),
        ({"version": None}, "version", "valid string"),
        ({"stale": {"rain": True}}, "stale.rain.[key]", "'drift', 'data', 'code' or 'rollback'"),
        ({"stale": {"drift": 1}}, "stale.drift", "valid boolean"),
        ({"drift": {"distance": {"psi": "high"}}}, "drift.distance.psi", "valid number"),
        ({"drift": {"distance": {"P S I": 0.1}}}, "drift.distance.P S I.[key]", "match pattern"),
        ({"drift": {str(number): {} for number in range(21)}}, "drift", "at most 20 items"),
        ({"data_until": "yesterday"}, "data_until", "valid number"),
        ({"rows": 7}, "rows", "not permitted"),
    ],
)
def test_a_monitoring_report_that_is_not_valid_is_refused_by_field(
    changes: dict[str, Any], field: str, reason: str
) -> None:
    async def story(site: Site) -> None:
        told = reasons(await site.post("/monitoring", {**REPORT, **changes}))
        assert list(told) == [field] and reason in told[field]
        assert "mlops_served_stale" not in (await site.http.get("/metrics")).text

    run(story)


def test_a_monitoring_report_needs_the_role_operate_and_a_routing(keys_file: str) -> None:
    async def story(site: Site) -> None:
        refused(await site.post("/monitoring", REPORT, **{"x-api-key": "shop"}), 403, "forbidden")

    run(story, Site(keys_file=keys_file))

    async def without() -> None:
        site = Site()
        async with site.http:
            refused(await site.post("/monitoring", REPORT), 503, "no_model")

    asyncio.run(without())


def test_without_a_referee_a_monitoring_report_is_asked_for_again() -> None:
    async def story(site: Site) -> None:
        async def nowhere() -> Any:
            raise ConnectionError("no actor of this name")

        site.link._connect, site.link._proxy = nowhere, None
        answer = await site.post("/monitoring", REPORT)
        assert "no actor of this name" in refused(answer, 503, "no_referee")["message"]
        assert answer.headers["retry-after"] == "1"

    run(story)


def test_a_monitoring_report_is_shown_with_the_metrics() -> None:
    async def story(site: Site) -> None:
        answer = await site.post("/monitoring", REPORT)
        assert (answer.status_code, answer.json()) == (200, {"monitoring": REPORT})
        labels = 'cause="drift",deployment="flights"'
        assert await site.metric(f"mlops_served_stale{{{labels}}}") == 1
        assert await site.metric("mlops_served_data_timestamp_seconds{") == 1_364_774_400
        labels = 'column="distance",deployment="flights",statistic="psi"'
        assert await site.metric(f"mlops_drift_score{{{labels}}}") == 0.31
        assert await site.metric(f"mlops_drift_threshold{{{labels}}}") == 0.11
        assert await site.metric("mlops_drift_episode_open{") == 1

    run(story)


# -- description -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_example_of_the_openapi_document_works(task: str) -> None:
    async def story(site: Site) -> None:
        document = (await site.http.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        assert document["servers"] == [{"url": "/flights"}]
        posts = {
            path: operations["post"] for path, operations in document["paths"].items() if "post" in operations
        }
        assert set(posts) == {
            "/predict",
            "/batch-predict",
            "/v2/models/flights/infer",
            "/v2/models/flights/versions/{version}/infer",
            "/trip",
            "/monitoring",
        }
        for path, operation in posts.items():
            example = operation["requestBody"]["content"]["application/json"]["example"]
            assert (await site.post(path.format(version="v1"), example)).status_code == 200
        gets = [path for path, operations in document["paths"].items() if "get" in operations]
        for path in gets:
            assert (await site.http.get(path.format(version="v1"))).status_code == 200, path

    run(story, Site(task), routing(v1=7_000, v2=3_000))


def test_the_openapi_document_carries_the_rules_of_the_features() -> None:
    async def story(site: Site) -> None:
        features = (await site.http.get("/openapi.json")).json()["components"]["schemas"]["Features"]
        assert features["required"] == list(ROW)
        assert features["additionalProperties"] is False
        assert features["properties"]["distance"] == {
            "type": "number",
            "description": "Miles <x>",
            "minimum": 0,
            "maximum": 6000,
        }
        assert features["properties"]["hour"]["type"] == ["integer", "null"]
        assert features["properties"]["origin"]["enum"] == ["EWR", "JFK"]

    run(story)


def test_the_docs_page_loads_nothing_and_escapes_what_it_shows() -> None:
    async def story(site: Site) -> None:
        answer = await site.http.get("/docs")
        assert answer.status_code == 200
        assert "Miles &lt;x&gt;" in answer.text and "Miles <x>" not in answer.text
        assert "http://" not in answer.text and "https://" not in answer.text and "src=" not in answer.text
        assert 'fetch("/flights/predict"' in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")

    run(story)
