"""What another page in the browser may have from Dagster: nothing."""

import asyncio

import pytest

from mlops_assets.local_stack.webserver import guarded, refusal

OWN = {"host": "127.0.0.1:3000"}
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", {}),
        ("POST", "/graphql", {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:3000"}),
        ("GET", "/runs", {"sec-fetch-site": "none", **LINK}),
        ("GET", "/runs", {"sec-fetch-site": "cross-site", **LINK}),
        ("POST", "/graphql", {"origin": "http://127.0.0.1:3000"}),
    ],
)
def test_programs_own_pages_and_links_are_let_through(method, path, headers):
    assert refusal(method, path, {**OWN, **headers}) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/graphql", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", "/graphql", LINK),
        ("POST", "/graphql", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"}),
        ("POST", "/runs", LINK),
        ("GET", "/runs", {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}),
        ("GET", "/logs/x", {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}),
    ],
)
def test_another_site_gets_nothing_but_a_page_by_a_link(site, method, path, more):
    # Another port of this machine is another site here, though browsers call it the same one.
    assert f"({site})" in str(refusal(method, path, {**OWN, "sec-fetch-site": site, **more}))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8000"])
def test_a_browser_that_tells_the_origin_only_is_understood_too(origin):
    assert origin in str(refusal("POST", "/graphql", {**OWN, "origin": origin}))


async def dagster(scope, receive, send):
    """Stands for the webserver: does what it is asked."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def ask(path="/graphql", *, kind="http", **headers):
    """What is sent back: messages without their types."""
    sent = []

    async def send(message):
        sent.append({name: value for name, value in message.items() if name != "type"})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    told = {"host": "127.0.0.1:3000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
    }
    asyncio.run(guarded(dagster)(scope, receive, send))
    return sent


def test_a_refused_request_does_not_reach_dagster_and_is_told_why():
    assert ask()[1] == {"body": b"done"}

    start, body = ask(sec_fetch_site="cross-site")

    assert start["status"] == 403
    assert body == {"body": b"a page of another site (cross-site) may not ask Dagster\n"}


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:3000", 200), ("127.0.0.1", 200), ("evil.example", 400), ("", 400)]
)
def test_a_name_that_somebody_else_gave_this_machine_is_refused(host, status):
    assert ask(host=host)[0]["status"] == status


def test_so_are_web_sockets():
    assert ask(kind="websocket", origin="http://127.0.0.1:3000") == [{}]

    (closed,) = ask(kind="websocket", origin="http://evil.example")

    assert closed == {"code": 1008, "reason": "the page http://evil.example may not ask Dagster"}
