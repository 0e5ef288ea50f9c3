"""What `mlops status` says of an endpoint, asked of real servers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlops_assets.commands.status import _answers
from mlops_assets.resources.serve_client import ServeClient


class Proxy(BaseHTTPRequestHandler):
    """Ray's, with nothing behind it."""

    def do_GET(self) -> None:
        text = f"Path '{self.path}' not found. Ping http://.../-/routes for available routes.".encode()
        self.send_response(404)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_deployment_that_was_never_made_is_told_with_what_makes_it(proxy_url: str, tmp_path: Path) -> None:
    client = ServeClient(
        dashboard_url=proxy_url, serve_url=proxy_url, state_file=str(tmp_path / "s.json"), deadline_s=5
    )
    assert _answers(client, "tea") == {
        "status": "does not answer",
        "http_status": 404,
        "why": "nothing is deployed at /tea; `make up` builds and deploys what is missing",
    }
