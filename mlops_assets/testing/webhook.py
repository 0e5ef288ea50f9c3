"""A real HTTP server that takes what a webhook takes, for tests."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """``statuses`` are answered one after the other, then 200; ``pages`` are answered to GET,
    ``answer`` to POST.

    ``encoding``: what answers claim to be encoded in; they are not.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    encoding: str = ""
    answer: str = "ok"

    def kinds(self) -> list[str]:
        return [json.loads(body)["alert"]["kind"] for _, body in self.requests]


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook on a free port of loopback; gone when the block ends."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.requests.append((dict(self.headers.items()), body))
            self._answer(hook.statuses.pop(0) if hook.statuses else 200, hook.answer)

        def do_GET(self) -> None:
            found = hook.pages.get(self.path)
            self._answer(404 if found is None else 200, found or "nothing here")

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            if hook.encoding:
                self.send_header("Content-Encoding", hook.encoding)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
