"""Keys over HTTP: looked up once, computed, scored by every variant, logged with what the store knew."""

import asyncio
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.redis_server import RedisServer
from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import routing
from mlops_assets.testing.small_view import REQUEST, ROW, SOURCE, VIEW, fill, store_of
from serve.inference_log import PredictionLog
from serve.online.applying import Change, changed
from serve.online.held import HEAD, Head, HeldView
from serve.online.stores.redis import VARIABLE
from serve.schema import OnlineTransform, OnlineView, PredictionLogArgs


def body(entity: Any = None, **request: Any) -> dict[str, Any]:
    return {"entity": entity or {"flight": 7}, "request": {**REQUEST, **request}}


def keyed(folder: Path, view: OnlineView = VIEW, **site: Any) -> Site:
    made = Site(online_uri=str(folder), **site)
    for version in (made.v1, made.v2):
        changes = {"entity": view.entity, "online": view}
        version.manifest = version.manifest.model_copy(update=changes)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "online")
    return tmp_path / "online"


def test_keys_are_answered_as_the_features_that_they_stand_for(folder: Path) -> None:
    async def story(site: Site) -> None:
        found = await site.post("/predict", body())
        assert found.status_code == 200, found.text
        finished = await site.predict(ROW)
        assert found.json()["probability"] == finished.json()["probability"]
        other = await site.post("/predict", body(carrier="DL", at="2013-12-31T21:30:00+01:00"))
        expected = await site.predict({**ROW, "carrier": "DL", "delay": None})
        assert other.json()["probability"] == expected.json()["probability"]

    run(story, keyed(folder))


def test_a_batch_is_looked_up_at_once_and_answered_in_its_order(folder: Path) -> None:
    async def story(site: Site) -> None:
        sent = [REQUEST, {**REQUEST, "carrier": "DL"}, {**REQUEST, "origin": "EWR", "carrier": None}]
        answer = await site.post("/batch-predict", {"entities": [{"flight": 1}] * 3, "requests": sent})
        told = reasons(answer)
        assert told == {"requests[2]: computed.distance": "must not be null"}
        answer = await site.post("/batch-predict", {"entities": [{"flight": 1}] * 2, "requests": sent[:2]})
        rows = [ROW, {**ROW, "carrier": "DL", "delay": None}]
        expected = await site.post("/batch-predict", {"instances": rows})
        assert answer.json()["predictions"] == expected.json()["predictions"]

    run(story, keyed(folder))


def tensors(**changed: Any) -> dict[str, Any]:
    columns = {"flight": ("INT64", 7), **{name: ("BYTES", value) for name, value in REQUEST.items()}}
    columns |= {name: ("BYTES", value) for name, value in changed.items()}
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "data": [value]}
        for name, (kind, value) in columns.items()
    ]
    return {"inputs": inputs}


def test_the_v2_protocol_takes_keys(folder: Path) -> None:
    async def story(site: Site) -> None:
        for path in ("/v2/models/flights/infer", "/v2/models/flights/versions/v1/infer"):
            answer = await site.post(path, tensors())
            assert answer.status_code == 200, answer.text
            outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
            finished = (await site.predict(ROW)).json()
            assert outputs["probability"] == [finished["probability"]]
        assert reasons(await site.post(path, tensors(at="yesterday"))) == {
            "row 0.at": "must be a time with its zone, like 2013-12-31T22:15:00Z"
        }
        without = {"inputs": tensors()["inputs"][:-1]}
        assert reasons(await site.post(path, without)) == {"origin": "is missing"}
        parameters = (await site.http.get("/v2/models/flights")).json()["parameters"]
        assert parameters == {"join_keys": "flight", "request_columns": "at,carrier,origin"}

    run(story, keyed(folder))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"request": REQUEST}, {"entity": "must hold the join keys: flight"}),
        (
            {"entity": {"flight": "x"}, "request": {"at": None, "carrier": 7}},
            {
                "entity.flight": "must be an integer",
                "request.origin": "is missing",
                "request.at": "must not be null",
                "request.carrier": "must be a string, not a number",
            },
        ),
        (
            {**body(), "features": ROW},
            {"features": "is not a field of this request; allowed: request, unit, entity"},
        ),
        (
            body(at="2013-12-31T18:59:59Z"),
            {"request.at": "lies before what is looked up: from 2013-12-31T19:00:00+00:00 on"},
        ),
    ],
)
def test_what_is_wrong_with_keys_is_told(folder: Path, sent: Any, told: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        assert reasons(await site.post("/predict", sent)) == told

    run(story, keyed(folder))


def test_a_model_that_looks_nothing_up_says_so() -> None:
    async def story(site: Site) -> None:
        assert reasons(await site.post("/predict", body())) == {
            "request": "is not taken: this model looks nothing up; send features"
        }
        many = {"entities": [], "requests": []}
        assert list(reasons(await site.post("/batch-predict", many))) == ["requests"]

    run(story)


def test_an_answer_is_logged_with_its_request_and_what_the_store_knew(folder: Path, tmp_path: Path) -> None:
    args = PredictionLogArgs(uri=str(tmp_path / "log"), flush_interval_s=0.01)
    log = PredictionLog(args, deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        assert (await site.post("/predict", body())).status_code == 200
        assert (await site.predict(ROW)).status_code == 200
        await site.traffic.mirrored()

    first = routing(v1=10_000, v2=0)
    first["routes"]["v2"]["shadow"] = 10_000
    run(story, keyed(folder, log=log), first)
    log.close()
    rows = ds.dataset(tmp_path / "log").to_table().to_pylist()
    assert sorted((one["variant"], one["request"] is None) for one in rows) == [
        ("shadow", False),
        ("shadow", True),
        ("stable", False),
        ("stable", True),
    ]
    first, second = (one for one in rows if one["request"])
    assert first["request"] == second["request"] and json.loads(first["request"]) == REQUEST
    assert first["features"] == second["features"] and json.loads(first["features"]) == ROW
    assert json.loads(first["online"]) == {
        "view": "flights",
        "shape": VIEW.shape,
        "state": "fresh",
        "age_s": 10.0,
        "applied": {"flights": 3, "routes": 0},
    }


@pytest.mark.parametrize("policy", ["answer", "refuse"])
def test_a_stale_store_is_said_and_the_policy_decides(tmp_path: Path, policy: str) -> None:
    view = VIEW.model_copy(update={"when_stale": policy})
    fill(tmp_path, view, as_of=-1.0)

    async def story(site: Site) -> None:
        answer = await site.post("/predict", body())
        if policy == "answer":
            assert answer.status_code == 200
        else:
            error = refused(answer, 503, "stale_features")
            assert error["details"] == {"view": "flights", "age_s": 101.0, "limit_s": 100.0}
            assert answer.headers["retry-after"] == "1"
        online = (await site.http.get("/ready")).json()["routes"]["v1"]["online"]
        assert (online["state"], online["age_s"], online["when_stale"]) == ("stale", 101.0, policy)
        labels = '{deployment="flights",view="flights"}'
        assert await site.metric(f"mlops_online_age_seconds{labels}") == 101.0
        assert (await site.predict(ROW)).status_code == 200

    run(story, keyed(tmp_path, view))


@pytest.mark.parametrize("policy", ["answer", "refuse"])
def test_a_lost_store_is_said_and_comes_back(tmp_path: Path, policy: str) -> None:
    view = VIEW.model_copy(update={"when_stale": policy, "joins": ()})
    source = SOURCE.replace('"hour":', '"distance": 1.0, "hour":')
    transform = OnlineTransform(source=source, function="features")
    view = view.model_copy(update={"transform": transform, "examples": ()})

    async def story(site: Site) -> None:
        answer = await site.post("/predict", body())
        if policy == "answer":
            expected = await site.predict({**ROW, "distance": 1.0, "delay": None})
            assert answer.json()["probability"] == expected.json()["probability"]
        else:
            refused(answer, 503, "no_online_store")
        online = (await site.http.get("/ready")).json()["routes"]["v1"]["online"]
        assert (online["state"], online["age_s"], online["applied"]) == ("lost", None, None)
        assert "cannot be used" in online["problem"]
        labels = '{deployment="flights",view="flights"}'
        assert await site.metric(f"mlops_online_age_seconds{labels}") == float("inf")
        fill(tmp_path, view)
        found = await site.post("/predict", body())
        expected = await site.predict({**ROW, "distance": 1.0})
        assert found.json()["probability"] == expected.json()["probability"]
        online = (await site.http.get("/ready")).json()["routes"]["v1"]["online"]
        assert (online["state"], online["problem"]) == ("fresh", None)

    run(story, keyed(tmp_path, view))


def test_a_version_whose_function_gives_other_features_gets_no_traffic(folder: Path) -> None:
    site = keyed(folder)
    right = VIEW.examples[0].model_copy(update={"features": {**VIEW.examples[0].features, "hour": 11}})
    site.v1.manifest = site.v1.manifest.model_copy(
        update={"online": VIEW.model_copy(update={"examples": (right,)})}
    )

    async def story(site: Site) -> None:
        problem = site.traffic.states["v1"].problem or ""
        assert "ExampleMismatch" in problem and "feature 'hour' is 10 here, offline it was 11" in problem
        assert site.traffic.states["v2"].answers

    run(story, site, routing(v1=5_000, v2=5_000))


def test_a_canary_whose_function_fails_costs_no_caller_an_answer(folder: Path) -> None:
    site = keyed(folder)
    failing = SOURCE.replace("return", "1 / (row['at'].year - 2013)\n    return")
    view = VIEW.model_copy(
        update={"transform": OnlineTransform(source=failing, function="features"), "examples": ()}
    )
    site.v2.manifest = site.v2.manifest.model_copy(update={"online": view})

    async def story(site: Site) -> None:
        answers = [await site.post("/predict", {**body(), "unit": f"u{n}"}) for n in range(20)]
        assert {one.status_code for one in answers} == {200}
        assert {one.json()["model_version"] for one in answers} == {"v1"}
        failures = 'mlops_version_failures_total{deployment="flights",reason="model_error",version="v2"}'
        assert await site.metric(failures) > 3

    run(story, site, routing(v1=5_000, v2=5_000))


def test_the_description_shows_keys_and_its_examples_work(folder: Path) -> None:
    async def story(site: Site) -> None:
        document = (await site.http.get("/openapi.json")).json()
        for path in ("/predict", "/batch-predict"):
            content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert len(content["schema"]["oneOf"]) == 2
            answer = await site.post(path, content["example"])
            assert answer.status_code == 200, answer.text
        assert content["example"]["requests"][0]["at"] == "2014-01-01T10:00:00+00:00"
        columns = document["components"]["schemas"]["Columns"]
        assert columns["required"] == ["at", "carrier", "origin"]
        assert columns["properties"]["at"]["type"] == "string"
        assert columns["properties"]["carrier"]["type"] == ["string", "null"]
        assert "entity" in (await site.http.get("/docs")).text

    run(story, keyed(folder))


def move_on(folder: Path, view: OnlineView = VIEW) -> None:
    """The route of JFK gets shorter."""
    store = store_of(folder, view)
    [head] = store.read([HEAD])
    row = {"origin": "JFK", "distance": 20.0}
    puts = changed(HeldView(view), [Change("routes", ("JFK",), row)], store.read, since=None)
    moved = Head({"flights": 4, "routes": 0}, 95.0)
    store.commit(puts, head=moved.to_bytes(), expected=head)


def test_a_store_that_moves_on_is_seen_by_the_next_request(folder: Path) -> None:
    async def story(site: Site) -> None:
        before = (await site.post("/predict", body())).json()["probability"]
        move_on(folder)
        after = (await site.post("/predict", body())).json()["probability"]
        expected = (await site.predict({**ROW, "distance": 20.0})).json()["probability"]
        assert after == expected != before
        assert (await site.http.get("/ready")).json()["routes"]["v1"]["online"]["applied"]["flights"] == 4

    run(story, keyed(folder))


def test_ages_are_measured_while_nobody_asks(folder: Path) -> None:
    async def story(site: Site) -> None:
        watch = asyncio.ensure_future(site.endpoint.watch())
        while not site.metrics.snapshot()["online_age"]:
            await asyncio.sleep(0.01)
        watch.cancel()
        assert site.metrics.snapshot()["online_age"] == {"flights": 10.0}

    run(story, keyed(folder))


def answers(view: OnlineView, requests: int, asked: Any, answered: Any) -> None:
    """A gateway in a process of its own: what it answers, each time that it is asked."""

    async def story(site: Site) -> None:
        for _ in range(requests):
            asked.get()
            answer = await site.post("/predict", body())
            ready = (await site.http.get("/ready")).json()["routes"]["v1"]
            answered.put((answer.json().get("probability"), ready))

    run(story, keyed(Path("nowhere"), view))


def test_two_gateways_of_different_processes_share_one_redis(redis: RedisServer, folder: Path) -> None:
    view = VIEW.model_copy(update={"store": "redis"})
    fill(folder, view)
    forked = multiprocessing.get_context("fork")
    links = [(forked.Queue(), forked.Queue()) for _ in range(2)]
    gateways = [
        forked.Process(target=answers, args=(view, 2, asked, answered), daemon=True)
        for asked, answered in links
    ]

    def asked_both() -> list[Any]:
        for asked, _ in links:
            asked.put("now")
        return [answered.get(timeout=60) for _, answered in links]

    async def alone(site: Site) -> None:
        expected.append((await site.post("/predict", body())).json()["probability"])

    expected: list[float] = []
    for gateway in gateways:
        gateway.start()
    for applied in (3, 4):
        run(alone, keyed(folder))
        for probability, ready in asked_both():
            assert probability == expected[-1]
            assert ready["online"] == {**ready["online"], "store": "redis", "state": "fresh"}
            assert ready["online"]["applied"]["flights"] == applied
        for one in (view, VIEW):
            if applied == 3:
                move_on(folder, one)
    assert expected[0] != expected[1]
    for gateway in gateways:
        gateway.join()


def test_a_version_whose_store_is_not_set_up_gets_no_traffic_and_says_what_to_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    site = keyed(folder)
    elsewhere = {"online": VIEW.model_copy(update={"store": "redis"})}
    site.v2.manifest = site.v2.manifest.model_copy(update=elsewhere)

    async def story(site: Site) -> None:
        assert (await site.post("/predict", body())).json()["model_version"] == "v1"
        assert f"Environment variable {VARIABLE} is not set" in (site.traffic.states["v2"].problem or "")

    run(story, site, routing(v1=1_000, v2=9_000))


def test_a_redis_that_is_lost_is_said_and_answers_go_on_as_the_policy_says(
    redis: RedisServer, folder: Path
) -> None:
    view = VIEW.model_copy(update={"store": "redis", "when_stale": "refuse"})
    fill(folder, view)

    async def story(site: Site) -> None:
        assert (await site.post("/predict", body())).status_code == 200
        redis.stop()
        try:
            refused(await site.post("/predict", body()), 503, "no_online_store")
            online = (await site.http.get("/ready")).json()["routes"]["v1"]["online"]
            assert online["state"] == "lost" and redis.address in online["problem"]
            assert "se:cr" not in str(online)
        finally:
            redis.start()

    run(story, keyed(folder, view))
