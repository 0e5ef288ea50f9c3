"""Models that do not answer, or answer nonsense: 503 and 500 over HTTP."""

import asyncio
import math

import pytest

from mlops_assets.testing.site import Site, refused, run
from mlops_assets.testing.small_models import ROW, routing
from serve.versions import VersionGone, VersionLost, VersionOverloaded


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
