"""Odd bodies, headers, methods and paths: each has one defined answer, said in words."""

import asyncio
import contextlib
import gzip
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW
from mlops_assets_tests.serve.listening import listening
from mlops_assets_tests.serve.v2 import INFER, as_bytes, tensors
from serve.bodies import inflated, parse_object
from serve.errors import MAX_PROBLEMS, InvalidFields, MalformedBody, TooLarge
from serve.security import BODY_TIMEOUT_S

BODIES: dict[str, Any] = {
    "/predict": {"features": ROW},
    "/batch-predict": {"instances": [ROW]},
    INFER: tensors(),
}
everywhere = pytest.mark.parametrize("path", BODIES)


def encoded(path: str, **changes: Any) -> bytes:
    return json.dumps({**BODIES[path], **changes}).encode()


# -- media types -------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    "sent",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON; Charset="UTF-8"',
     "application/json;charset=us-ascii", "application/vnd.kserve+json", "application/json; odata=verbose"],
)  # fmt: skip
def test_json_is_taken_under_its_names(path: str, sent: str) -> None:
    async def story(site: Site) -> None:
        assert (await site.post(path, encoded(path), **{"content-type": sent})).status_code == 200

    run(story)


@everywhere
@pytest.mark.parametrize(
    "sent",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/json; charset=latin-1", "application/json; charset=utf-16", "json", "", "text/json"],
)  # fmt: skip
def test_other_types_and_characters_are_refused_in_words(path: str, sent: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.post(path, encoded(path), **{"content-type": sent})
        told = refused(answer, 415, "unsupported_media_type")
        assert repr(sent) in told["message"] and "content-type: application/json" in told["message"]
        assert answer.headers["accept"] == "application/json"

    run(story)


@everywhere
def test_no_type_is_taken_for_json_and_no_other_page_may_read_answers(path: str) -> None:
    async def story(site: Site) -> None:
        assert (await site.http.post(path, content=encoded(path))).status_code == 200
        asked = await site.http.options(path, headers={"origin": "http://elsewhere.example"})
        assert not [name for name in asked.headers if name.startswith("access-control")]

    run(story)


def test_bytes_are_for_tensors_only() -> None:
    async def story(site: Site) -> None:
        raw = {"content-type": "application/octet-stream"}
        refused(await site.post("/predict", encoded("/predict"), **raw), 415, "unsupported_media_type")
        assert (await site.post(INFER, encoded(INFER), **raw)).status_code == 200

    run(story)


# -- content codings ---------------------------------------------------------------------------------


def bare_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


@everywhere
@pytest.mark.parametrize(
    ("sent", "encode"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress),
     ("deflate", bare_deflate), ("identity", bytes), ("", bytes)],
)  # fmt: skip
def test_encoded_bodies_are_answered_as_plain_ones(path: str, sent: str, encode: Any) -> None:
    async def story(site: Site) -> None:
        plain = (await site.post(path, encoded(path))).json()
        answer = await site.post(path, encode(encoded(path)), **{"content-encoding": sent})
        assert answer.status_code == 200, answer.text
        for name in ("prediction", "probability", "predictions", "outputs"):
            assert answer.json().get(name) == plain.get(name)

    run(story)


def test_tensors_as_bytes_are_taken_encoded() -> None:
    async def story(site: Site) -> None:
        body, headers = as_bytes(distance=("FP64", b"\x00" * 8))
        encoding = {"content-encoding": "gzip"}
        assert (await site.post(INFER, gzip.compress(body), **headers, **encoding)).status_code == 200

    run(story)


@pytest.mark.parametrize("sent", ["br", "zstd", "compress", "gzip, gzip", "gzip, deflate", "x" * 9_000])
def test_other_encodings_are_refused_in_words(sent: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.post("/predict", encoded("/predict"), **{"content-encoding": sent})
        told = refused(answer, 415, "unsupported_media_type")
        assert "Send one of gzip, deflate, or none" in told["message"] and len(told["message"]) < 400
        assert answer.headers["accept-encoding"] == "gzip, deflate"

    run(story)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends too early"),
        (b"hello", "Error -3"),
        (gzip.compress(b"{}", mtime=0)[:-1], "ends too early"),
        (gzip.compress(b"{}", mtime=0)[:4], "ends too early"),
        (gzip.compress(b"{}", mtime=0) + b"x", "1 bytes follow it"),
        (gzip.compress(b"{}", mtime=0) * 2, "bytes follow it"),
        (gzip.compress(b"{}", mtime=0)[:-8] + b"\x00" * 8, "Error -3"),
        (zlib.compress(b"{}"), "Error -3"),
    ],
)
def test_what_is_not_gzip_is_refused(body: bytes, reason: str) -> None:
    async def story(site: Site) -> None:
        told = refused(
            await site.post("/predict", body, **{"content-encoding": "gzip"}), 400, "malformed_body"
        )
        assert told["message"].startswith("The body is not") and reason in told["message"]

    run(story)


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, bare_deflate])
def test_a_bomb_is_cut_off_at_the_limit_of_bodies(encode: Any) -> None:
    coding = "gzip" if encode is gzip.compress else "deflate"
    bomb = encode(b" " * 50_000_000)
    started = time.process_time()
    with pytest.raises(TooLarge):
        inflated(bomb, coding, max_bytes=20_000)
    assert time.process_time() - started < 0.05

    async def story(site: Site) -> None:
        small = encode(b" " * 30_000)
        told = refused(await site.post("/predict", small, **{"content-encoding": coding}), 413, "too_large")
        assert told["message"].startswith("The body, once decoded, is larger than 20000 bytes")
        whole = encode(encoded("/predict") + b" " * (20_000 - len(encoded("/predict"))))
        assert (await site.post("/predict", whole, **{"content-encoding": coding})).status_code == 200

    run(story)


# -- characters --------------------------------------------------------------------------------------


@everywhere
def test_a_byte_order_mark_is_skipped(path: str) -> None:
    async def story(site: Site) -> None:
        assert (await site.post(path, b"\xef\xbb\xbf" + encoded(path))).status_code == 200
        refused(await site.post(path, b"\xef\xbb\xbf" * 2 + encoded(path)), 400, "malformed_body")

    run(story)


@everywhere
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_characters_are_refused(path: str, codec: str) -> None:
    async def story(site: Site) -> None:
        refused(await site.post(path, encoded(path).decode().encode(codec)), 400, "malformed_body")

    run(story)


def test_utf_16_is_recognised() -> None:
    with pytest.raises(MalformedBody, match="looks like UTF-16"):
        parse_object("{}".encode("utf-16"))


@pytest.mark.parametrize(
    "text",
    [r'{"features": {"carrier": "\ud800"}}', r'{"unit": "\udfff"}', r'{"a\ud83d": 1}',
     r'{"a": ["\ud83d\ud83d"]}', r'{"a": {"b": {"c": "x\uDC00"}}}'],
)  # fmt: skip
def test_half_a_character_is_refused_wherever_it_stands(text: str) -> None:
    async def story(site: Site) -> None:
        told = refused(await site.post("/predict", text.encode()), 400, "malformed_body")
        assert "half of a surrogate pair" in told["message"]

    run(story)


def test_strings_are_compared_code_point_by_code_point() -> None:
    composed, decomposed = "Z\u00fcrich", "Zu\u0308rich"
    found = parse_object(
        json.dumps({composed: 1, decomposed: 2, "\U0001f6eb": "\x00", "\\u003a": ":"}).encode()
    )
    assert found == {composed: 1, decomposed: 2, "\U0001f6eb": "\x00", "\\u003a": ":"}


# -- repeated keys -----------------------------------------------------------------------------------

REPEATED = [
    ('{"a": 1, "a": 2}', "a"),
    ('{"a":1,"b":2,"a":1}', "a"),
    ('{"features": {"x": 1, "y": {"z": 2, "z": 2}}}', "z"),
    ('{"features": {}, "features": {}}', "features"),
    ('{"instances": [{"x": 1}, {"x": 1, "x": 1}]}', "x"),
    ('{"inputs": [{"name": "x", "parameters": {"a": 1, "a": 2}}]}', "a"),
    # Written differently, the same key.
    ('{"a": 1, "\\u0061": 2}', "a"),
    ('{"a" : 1, "a"  :2}', "a"),
    # Colons in strings, and colons that are hidden, must not hide it.
    ('{"unit": "a:b", "x": 1, "x": 2}', "x"),
    ('{"request": {"at": "10:00", "at": "10:00"}}', "at"),
    ('{"request": {"at": "1:2"}, "request": {"at": "1:2:3", "b": 1}}', "request"),
    ('{"x": "a:b:c", "x": 2}', "x"),
    ('{"x": 1, "x": "\\u003a"}', "x"),
    ('{"x": ":", "x": "\\u003A", "y": "\\u003a"}', "x"),
    ('{"x": 1, "x": "\\ud83d\\udeeb\\u003a"}', "x"),
    ('{"": 1, "": 2}', ""),
    ('{"a:b": 1, "a:b": 2}', "a:b"),
]


@pytest.mark.parametrize(("text", "name"), REPEATED)
def test_a_key_that_is_given_twice_is_named(text: str, name: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        parse_object(text.encode())
    assert caught.value.details == [{"field": name, "reason": "is given 2 times"}]


@pytest.mark.parametrize(
    "text",
    ['{"a": {"x": 1}, "b": {"x": 1}}', '{"a": "b:c", "b": ":::", "\\u003a": "\\u003a"}', '{":": {":": ":"}}',
     "{}", '{"a": [{"x": 1}, {"x": {"y": [{"x": ":"}]}}]}', '{"a": "\\"a\\": 1", "b": "\\\\u003a"}'],
)  # fmt: skip
def test_keys_of_different_objects_are_not_repeated(text: str) -> None:
    assert parse_object(text.encode()) == json.loads(text)


@everywhere
def test_a_feature_or_field_given_twice_is_400_naming_it(path: str) -> None:
    async def story(site: Site) -> None:
        text = encoded(path).decode()
        name = "inputs" if path == INFER else "distance"
        twice = text.replace(f'"{name}": ', f'"{name}": 1, "{name}": ', 1)
        assert reasons(await site.post(path, twice.encode())) == {name: "is given 2 times"}

    run(story)


# -- numbers and nesting -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "-" + "9" * 4_000])
def test_a_huge_number_is_not_finite(number: str) -> None:
    async def story(site: Site) -> None:
        text = encoded("/predict").decode().replace('"delay": null', f'"delay": {number}')
        assert reasons(await site.post("/predict", text.encode())) == {
            "features.delay": "must be a finite number"
        }

    run(story)


@pytest.mark.parametrize(
    "text",
    ["9" * 5_000, "NaN", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1_000", "[" * 9_000, '{"a":' * 3_000],
)
def test_what_is_no_json_value_is_refused(text: str) -> None:
    async def story(site: Site) -> None:
        body = encoded("/predict").decode().replace('"delay": null', f'"delay": {text}')
        refused(await site.post("/predict", body.encode()), 400, "malformed_body")

    run(story)


@pytest.mark.parametrize("depth", [50, 500, 5_000])
def test_nesting_is_read_or_refused_and_breaks_nothing(depth: int) -> None:
    # One level more or less decides whether it can be read.
    for levels in range(depth, depth + 500 if depth == 500 else depth + 1):
        for text in ("[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels):
            # With an escaped colon the body is read a second time, deeper in the stack.
            with contextlib.suppress(MalformedBody):
                parse_object(f'{{"x": {text}, "y": "\\u003a"}}'.encode())


def test_a_small_body_does_not_get_a_large_answer() -> None:
    async def story(site: Site) -> None:
        body = {"features": {f"f{number}": 1 for number in range(1_500)}}
        answer = await site.post("/predict", body)
        told = refused(answer, 400, "invalid_fields")
        assert (
            told["message"].startswith("1506 fields are not valid") and len(told["details"]) == MAX_PROBLEMS
        )
        assert len((await site.post("/predict", {"x" * 19_000: 1})).content) < 2_000
        assert len((await site.http.get("/" + "x" * 19_000)).content) < 2_000
        assert len((await site.http.get("/v2/models/flights/versions/" + "x" * 19_000)).content) < 2_000

    run(story)


# -- headers, methods, paths -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x-request-id", "x-api-key", "authorization", "content-type", "content-encoding"]
)
def test_a_header_that_is_sent_twice_is_refused(name: str) -> None:
    async def story(site: Site) -> None:
        value = {"content-type": "application/json", "content-encoding": "identity"}.get(name, "a")
        sent = [("content-type", "application/json")] * (name != "content-type") + [(name, value)] * 2
        answer = await site.http.post("/predict", content=encoded("/predict"), headers=sent)
        assert reasons(answer) == {name: "this header is sent more than once"}
        # Others may come as often as they like.
        many = [("content-type", "application/json"), ("via", "a"), ("via", "b"), ("accept", "*/*")]
        assert (
            await site.http.post("/predict", content=encoded("/predict"), headers=many)
        ).status_code == 200

    run(story)


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json", "/v2/models/flights"]
)
def test_head_is_answered_where_get_is(path: str) -> None:
    async def story(site: Site) -> None:
        head, get = await site.http.head(path), await site.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(get.content))

    run(story)


def test_head_is_refused_where_get_is() -> None:
    async def story(site: Site) -> None:
        for path, status in (("/predict", 405), ("/nope", 404)):
            answer = await site.http.head(path)
            assert (answer.status_code, answer.content) == (status, b"")

    run(story)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/predict", "OPTIONS, POST"), ("/health", "GET, HEAD, OPTIONS"), (INFER, "OPTIONS, POST"),
     ("/v2/models/flights/versions/v1/infer", "OPTIONS, POST"), ("/v2/models/flights", "GET, HEAD, OPTIONS")],
)  # fmt: skip
def test_options_says_what_a_path_takes_and_405_too(path: str, allowed: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (200, allowed)
        assert answer.json() == {"allow": allowed.split(", ")}
        for method in ("PUT", "DELETE", "PATCH", "TRACE"):
            answer = await site.http.request(method, path)
            refused(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == allowed
        refused(await site.http.options("/nope"), 404, "not_found")

    run(story)


def test_options_tells_strangers_nothing(keys_file: str) -> None:
    async def story(site: Site) -> None:
        for path in ("/predict", "/nope"):
            refused(await site.http.options(path), 401, "unauthenticated")
        assert (await site.http.options("/predict", headers={"x-api-key": "shop"})).status_code == 200

    run(story, Site(keys_file=keys_file))


# -- over a socket -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wire() -> Any:
    """An endpoint at a real socket: its address, and a way to send it any bytes at all."""
    site = Site()
    with listening(site) as where:
        yield Wire(where, site)


class Wire:
    def __init__(self, where: str, site: Site) -> None:
        self.base, self.site = f"http://{where}", site
        host, port = where.split("/")[0].split(":")
        self.address = (host, int(port))

    def send(self, *parts: bytes, answers: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
        """Status, headers and body of each answer."""
        with socket.create_connection(self.address, timeout=5) as connection:
            for part in parts:
                connection.sendall(part)
            reader = connection.makefile("rb")
            found = []
            while len(found) < answers:
                status = int(reader.readline().split()[1])
                headers = {}
                while (line := reader.readline().strip()) != b"":
                    name, _, value = line.decode("latin-1").partition(": ")
                    headers[name] = value
                body = reader.read(int(headers.get("content-length", 0)))
                found.append((status, headers, body))
            return found

    def request(
        self, method: str, target: str, *headers: str, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
        (answer,) = self.send("\r\n".join(lines).encode("latin-1") + body)
        return answer


BODY = encoded("/predict")


def test_a_chunked_body_is_a_body(wire: Wire) -> None:
    head = b"POST /flights/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:1], BODY[1:50], BODY[50:])]
    ((status, _, _),) = wire.send(head, *chunks, b"0\r\n\r\n")
    assert status == 200


def test_who_expects_100_continue_is_told_to_go_on(wire: Wire) -> None:
    head = (
        b"POST /flights/predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        % len(BODY)
    )
    statuses = [status for status, _, _ in wire.send(head, BODY, answers=2)]
    assert statuses == [100, 200]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/flights/predict", 200),
        ("/flights/%70redict", 200),
        ("/flights/predict?a=1&a=2&unit=b", 200),
        ("http://elsewhere.example/flights/predict", 200),
        ("/flights/predict/", 404),
        ("/flights//predict", 404),
        ("/flights/./predict", 404),
        ("/flights/../flights/predict", 404),
        ("/flights/predict%20", 404),
        ("/flights/predict%00", 404),
        ("/flights/%ff%fe", 404),
        ("/flights/PREDICT", 404),
    ],
)
def test_a_path_is_taken_literally_once_it_is_decoded(wire: Wire, target: str, status: int) -> None:
    found, headers, body = wire.request("POST", target, body=BODY)
    assert found == status and headers["x-request-id"]
    assert status == 200 or json.loads(body)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "lines",
    [
        ("transfer-encoding: chunked",),
        (f"content-length: {len(BODY) + 1}",),
        ("x-request-id: a\x00b",),
        ("x request id: a",),
    ],
)
def test_what_is_no_http_is_refused_by_the_server(wire: Wire, lines: tuple[str, ...]) -> None:
    assert wire.request("POST", "/flights/predict", *lines, body=BODY)[0] == 400


def test_head_over_a_socket_has_the_length_and_no_body(wire: Wire) -> None:
    with httpx.Client() as client:
        for _ in range(3):  # On one connection: a body would be taken for the next answer.
            answer = client.head(f"{wire.base}/health")
            assert (answer.status_code, answer.content) == (200, b"") and answer.headers[
                "content-length"
            ] != "0"


def test_a_caller_that_leaves_half_way_is_no_failure_of_ours(wire: Wire) -> None:
    with socket.create_connection(wire.address) as connection:
        connection.sendall(b"POST /flights/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 400\r\n\r\n{")
    end = time.monotonic() + 5
    while not wire.site.errors("incomplete_body"):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert wire.site.errors("internal") == 0


def test_a_body_that_does_not_come_is_refused_and_gives_its_place_back() -> None:
    async def story(site: Site) -> None:
        async def half() -> AsyncIterator[bytes]:
            yield b'{"features":'
            await asyncio.Event().wait()

        waiting = [asyncio.ensure_future(site.http.post("/predict", content=half())) for _ in range(3)]
        await site.waiting(3)
        refused(await site.predict(), 503, "overloaded")
        site.now += BODY_TIMEOUT_S - 1
        site.protection.refuse_late_bodies()
        await asyncio.sleep(0.01)
        assert not any(one.done() for one in waiting)
        site.now += 2
        site.protection.refuse_late_bodies()
        for answer in await asyncio.gather(*waiting):
            refused(answer, 408, "late_body")
            assert answer.headers["connection"] == "close"
        assert (await site.predict()).status_code == 200
        # Somebody else's cancellation is not taken for it.
        gone = asyncio.ensure_future(site.http.post("/predict", content=half()))
        await site.waiting(1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await site.predict()).status_code == 200

    run(story, Site(max_in_flight=3))
