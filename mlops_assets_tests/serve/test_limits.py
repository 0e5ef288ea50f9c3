"""What the endpoint does not take over HTTP: unknown paths, wrong methods, too much of a body."""

import json
from collections.abc import AsyncIterator

import pytest

from mlops_assets.testing.site import Site, refused, run
from mlops_assets.testing.small_models import ROW


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
