"""The way past Serve's request path: same answers, and Serve still gets what is Serve's."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import ROW, routing
from serve import shortcut
from serve.shortcut import Shortcut, middlewares


@pytest.fixture(autouse=True)
def no_way_is_left() -> Iterator[None]:
    yield
    shortcut.close()


async def serves_path(scope: Any, receive: Any, send: Any) -> None:
    """What Serve would do with the request."""
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"serve"})


def client(**more: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Shortcut(serves_path), **more)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def test_requests_below_the_prefix_are_answered_by_the_endpoint_with_an_id() -> None:
    async def play() -> None:
        site = Site()
        site.endpoint._adds_request_id = False
        await site.declare(routing())
        shortcut.lead_to(site.endpoint, prefix="/flights")
        async with client() as http:
            answer = await http.post("/flights/predict", json={"features": ROW})
            assert answer.status_code == 200, answer.text
            assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]
            mine = await http.post("/flights/predict", json={"features": ROW}, headers={"x-request-id": "r1"})
            assert mine.json()["request_id"] == "r1"
            document = (await http.get("/flights/openapi.json")).json()
            assert document["servers"] == [{"url": "/flights"}]

    asyncio.run(play())


def test_everything_else_is_serves() -> None:
    async def play() -> None:
        site = Site()
        await site.declare(routing())
        async with client() as http:
            assert (await http.get("/flights/ready")).status_code == 299
            shortcut.lead_to(site.endpoint, prefix="/flights")
            for path in ("/-/healthz", "/-/routes", "/flights", "/flightsfoo/ready", "/"):
                assert (await http.get(path)).status_code == 299, path
            assert (await http.get("/flights/ready")).status_code == 200

    asyncio.run(play())


def test_an_endpoint_on_another_event_loop_is_left_to_serve() -> None:
    async def lead() -> Site:
        site = Site()
        await site.declare(routing())
        shortcut.lead_to(site.endpoint, prefix="/flights")
        return site

    async def ask() -> int:
        async with client() as http:
            return (await http.get("/flights/ready")).status_code

    site = asyncio.run(lead())
    assert asyncio.run(ask()) == 299
    asyncio.run(site.http.aclose())


def test_serve_accepts_what_it_is_given() -> None:
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    assert validate_http_proxy_callback_return(middlewares())
