"""From the replica's HTTP server straight to the endpoint, past Serve's own request path.

Belongs here: the middleware that Serve puts around a replica's HTTP server, and the endpoint it leads to.
Does not belong here: what the endpoint does (``serve/endpoint.py``).

Serve wraps every HTTP request of a replica in two tasks, a request context, its own metrics and a log
record. The endpoint has its own limit of requests in flight, its own deadlines, ids and counts, so for the
paths below its prefix all of that is done twice, and costs more than answering. Serve keeps what it alone
can do: its health path, routing to replicas, draining and replacing them.

Switched on for every process of the cluster by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` =
``serve.shortcut:middlewares``. Without it, or where user code runs on an event loop of its own, requests
take Serve's path and get the same answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

DIRECT = "mlops_direct"
"""Scope key of a request that Serve has not touched: nobody else adds its ``x-request-id``."""


class _Way:
    """Where the requests of this process lead; a replica has one endpoint."""

    prefix = ""
    endpoint: App | None = None
    loop: asyncio.AbstractEventLoop | None = None


def lead_to(endpoint: App, *, prefix: str) -> None:
    """Requests below ``prefix`` go to the endpoint from now on, on the event loop that runs now."""
    _Way.prefix, _Way.endpoint, _Way.loop = prefix, endpoint, asyncio.get_running_loop()


def close() -> None:
    """Requests take Serve's path again."""
    _Way.endpoint = _Way.loop = None


class Shortcut:
    """The middleware: below the prefix the endpoint answers, everything else goes on to Serve."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        endpoint = _Way.endpoint
        if (
            endpoint is None
            or scope["type"] != "http"
            or not scope["path"].startswith(_Way.prefix + "/")
            or asyncio.get_running_loop() is not _Way.loop
        ):
            await self._app(scope, receive, send)
            return
        scope["root_path"] = _Way.prefix
        scope[DIRECT] = True
        await endpoint(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve asks for when it starts an HTTP server."""
    return [Middleware(Shortcut)]
