"""Every request is sent once over kept connections, and every answer is held to what an answer is."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from demo.traffic import Answer, Traffic, answer_of

CLASSES = ("on_time", "late")


def answer(**changed):
    told = {"prediction": "late", "probability": 0.75, "model_version": "v1", "variant": "stable"}
    return json.dumps({**told, **changed}).encode()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (503, b'{"error": {"code": "overloaded", "message": "try again"}}', "HTTP 503: try again"),
        (502, b"<html>bad gateway</html>", "HTTP 502, no JSON"),
        (500, b'"?"', "HTTP 500"),
        (200, b'{"prediction": "late"}', "without probability, model_version, variant"),
        (200, answer(prediction="early"), "'early' is none of late, on_time"),
        (200, answer(probability=1.2), "probability 1.2"),
        (200, answer(probability=None), "probability None"),
        (200, answer(probability=True), "probability True"),
    ],
)
def test_what_is_no_answer_is_said(status, content, said):
    told = answer_of(status, content, CLASSES)
    assert isinstance(told, str)
    assert said in told


def test_an_answer_is_read():
    assert answer_of(200, answer(), CLASSES) == Answer("late", 0.75, "v1", "stable")


@pytest.fixture
def endpoint():
    """Answers with the number of the request as probability; number 7 gets no answer at all, 8 is refused."""

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        connections: ClassVar[set[tuple[str, int]]] = set()

        def do_POST(self):
            Endpoint.connections.add(self.client_address)
            number = json.loads(self.rfile.read(int(self.headers["content-length"])))["number"]
            if number == 7:
                self.close_connection = True
                self.connection.close()
                return
            body = answer(probability=number / 100)
            if number == 8:
                body = b'{"error": {"message": "feature missing"}}'
            self.send_response(400 if number == 8 else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self):
            try:
                super().handle()
            except (OSError, ValueError):
                # Its own end of the connection that number 7 cut.
                return

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Endpoint
    server.shutdown()
    server.server_close()


def test_answers_come_back_in_the_order_of_the_requests_and_lost_ones_are_counted(endpoint):
    url, served = endpoint

    sent = Traffic(url, CLASSES, connections=4).send([json.dumps({"number": n}).encode() for n in range(50)])

    assert [n for n, got in enumerate(sent.answers) if got is None] == [7, 8]
    assert sent.lost == 2
    assert [got.probability for got in sent.answers if got] == [n / 100 for n in range(50) if n not in (7, 8)]
    assert any("feature missing" in problem for problem in sent.problems)
    assert len(sent.problems) == 2
    # Four callers, and one that had to connect again.
    assert len(served.connections) == 5


def test_nothing_to_send_is_nothing_sent():
    sent = Traffic("http://127.0.0.1:9", CLASSES).send([])
    assert (sent.answers, sent.lost) == ((), 0)
