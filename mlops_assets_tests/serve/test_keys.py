"""Keys over HTTP: 401, 403 and 429, and what needs no key."""

import hashlib

import httpx

from mlops_assets.testing.site import Site, refused, run
from mlops_assets.testing.small_models import ROW


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
