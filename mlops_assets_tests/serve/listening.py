"""An endpoint that listens on a real socket, as a gateway replica does: same HTTP server, same way in.

Belongs here: starting and stopping it. Does not belong here: the endpoint (``site.py``), a cluster
(``mlops_assets/testing/ray_cluster.py``).
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import routing
from serve import shortcut
from serve.shortcut import Shortcut

NAME = "flights"


@contextlib.contextmanager
def listening(site: Site, first: dict[str, Any] | None = None) -> Iterator[str]:
    """``host:port/flights`` while the site answers there, on a thread of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        # As Ray Serve 2.60 configures a replica's server (serve/_private/http_util.py).
        server = uvicorn.Server(
            uvicorn.Config(
                Shortcut(_nothing_else), lifespan="off", access_log=False, log_level=None, log_config=None
            )
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        up = threading.Event()

        async def serve() -> None:
            await site.declare(first or routing())
            shortcut.lead_to(site.endpoint, prefix=f"/{NAME}")
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            up.set()
            await serving
            await site.http.aclose()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), name="endpoint")
        thread.start()
        try:
            assert up.wait(10) and server.started
            yield f"127.0.0.1:{port}/{NAME}"
        finally:
            server.should_exit = True
            thread.join(10)
            shortcut.close()


async def _nothing_else(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b""})
