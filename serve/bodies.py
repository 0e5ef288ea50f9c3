"""From the bytes of a request to one JSON object: media types, content codings, characters, repeated keys.

Belongs here: what a body may be as such, and what it says in words when it may not. Does not belong here:
its size and the key that may send it (``serve/security.py``), its fields (``serve/validation.py``,
``serve/inference_protocol.py``), HTTP codes (``serve/errors.py``). Pure.

One answer for what JSON leaves open: a key that an object has twice is refused, and so is a string that
holds half of a surrogate pair, which no file can keep. Strings are compared code point by code
point: nothing is normalised, and NUL is a character like others. A byte order mark before the object is
skipped. Numbers beyond what a float holds are not finite, and refused where a finite number is needed.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from serve.errors import InvalidFields, MalformedBody, TooLarge, UnsupportedCoding, UnsupportedMedia

JSON_TYPE = b"application/json"
CODINGS = ("gzip", "deflate")
ONCE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"inference-header-content-length",
        b"sec-fetch-site",
        b"x-api-key",
        b"x-request-id",
    }
)
"""Headers that mean something here; of two values of one nobody can tell which is meant."""

Headers = Mapping[bytes, bytes]
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


# -- headers -----------------------------------------------------------------------------------------


def refuse_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises InvalidFields naming every header of ``ONCE`` that is there more than once."""
    names = [name for name, _ in headers]
    twice = sorted(name.decode("latin-1") for name in ONCE if names.count(name) > 1)
    if twice:
        raise InvalidFields(
            [{"field": name, "reason": "this header is sent more than once"} for name in twice]
        )


def json_coding(headers: Headers, *, also: str | None = None) -> str | None:
    """The content coding of a JSON body, None for none. ``also`` is another media type that is taken.

    No type at all is taken for JSON: Triton's client sends none. Raises UnsupportedMedia or
    UnsupportedCoding.
    """
    sent = headers.get(b"content-type")
    if sent != JSON_TYPE and sent is not None and not _is_taken(sent, also):
        raise UnsupportedMedia(sent.decode("latin-1"))
    coding = headers.get(b"content-encoding")
    return None if coding is None else _coding(coding.decode("latin-1").strip().lower())


def _is_taken(sent: bytes, also: str | None) -> bool:
    media, _, parameters = sent.decode("latin-1").lower().partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMedia(sent.decode("latin-1"))
    media = media.strip()
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    return is_json or media == also


def _coding(sent: str) -> str | None:
    if sent in ("", "identity"):
        return None
    coding = "gzip" if sent == "x-gzip" else sent
    if coding not in CODINGS:
        raise UnsupportedCoding(sent, CODINGS)
    return coding


# -- bytes -------------------------------------------------------------------------------------------


def inflated(body: bytes, coding: str, *, max_bytes: int) -> bytes:
    """The body without its coding. Never holds more than ``max_bytes`` of it, whatever it would become.

    ``deflate`` is zlib's format, as the standard says, or the bare stream that some send. Raises TooLarge,
    and MalformedBody when it is something else, too short, or followed by something else.
    """
    stream = zlib.decompressobj(_GZIP if coding == "gzip" else _ZLIB if _is_zlib(body) else _RAW)
    try:
        found = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise MalformedBody(f"The body is not {coding}: {error}.") from error
    if len(found) > max_bytes:
        raise TooLarge("body, once decoded,", limit=max_bytes, unit="bytes")
    if not stream.eof:
        raise MalformedBody(f"The body is not {coding}: it ends too early.")
    if stream.unused_data:
        raise MalformedBody(
            f"The body is not one {coding} stream: {len(stream.unused_data)} bytes follow it."
        )
    return found


def _is_zlib(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


# -- JSON --------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_decode, _raw_decode = _decoder.decode, _decoder.raw_decode


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``; MalformedBody with the position, InvalidFields for a repeated key."""
    try:
        text = body.decode("utf-8")
        try:
            # Spares looking for white space, of which most bodies have none around them.
            document, end = _raw_decode(text)
        except json.JSONDecodeError:
            end = -1
        if end != len(text):
            text = text.removeprefix("\ufeff")
            document = _decode(text)
        if type(document) is not dict:
            raise MalformedBody(f"The body must be a JSON object, not {kind_of(document)}.")
        # Each key has its colon: with as many colons as keys, no key was there twice. A hook that sees every
        # pair would say so too, and cost more than twice as much.
        # So have times, which have colons of their own.
        if "\\" in text or text.count(":") - _shallow_keys(document) not in (0, _shallow_colons(document)):
            _refuse_odd(document, text)
    except UnicodeDecodeError as error:
        looks = " It looks like UTF-16." if body[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise MalformedBody(f"The body is not UTF-8 (byte {error.start}).{looks}") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from error
    except ValueError as error:  # NaN and Infinity, and integers of thousands of digits.
        raise MalformedBody(f"The body is not JSON: {str(error).split(';')[0]}.") from error
    except RecursionError as error:
        raise MalformedBody("The body is not JSON that can be read: nested too deeply.") from error
    return document


def kind_of(value: Any) -> str:
    """The JSON type of a value, in words."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shallow_keys(document: dict[str, Any]) -> int:
    """Keys of the objects where bodies have them. Never more than there are."""
    count = len(document)
    for value in document.values():
        kind = type(value)
        if kind is dict:
            count += len(value)
        elif kind is list:
            for entry in value:
                if type(entry) is dict:
                    count += len(entry)
    return count


def _shallow_colons(document: dict[str, Any]) -> int:
    """Colons of the strings in the objects where bodies have them. Never more than there are."""
    count = 0
    for value in document.values():
        if type(value) is dict:
            for text in value.values():
                if type(text) is str:
                    count += text.count(":")
    return count


def _refuse_odd(document: dict[str, Any], text: str) -> None:
    """Raises for a repeated key or half a character; what made the quick look unsure may be neither."""
    keys = colons = 0
    waiting: list[Any] = [document]
    halves = False
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            colons += value.count(":")
            halves = halves or not is_unicode(value)
        elif type(value) is list:
            waiting += value
        elif type(value) is dict:
            keys += len(value)
            waiting += value
            waiting += value.values()
    if halves:
        raise MalformedBody("A string of the body holds half of a surrogate pair, which is no character.")
    # A colon that was written as an escape would hide another one.
    if text.count(":") != keys + colons or "\\u003" in text:
        json.JSONDecoder(object_pairs_hook=_distinct).decode(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _ in pairs)
        raise InvalidFields(
            [{"field": name, "reason": f"is given {times[name]} times"} for name in found if times[name] > 1]
        )
    return found


def is_unicode(text: str) -> bool:
    """JSON can hold half of a surrogate pair, which no file can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
