"""Who may ask, how often, and how much at once. Pure apart from reading the keys file.

Belongs here: API keys, roles, rate limits, the body limit. Does not belong here: which role an endpoint
needs (``serve/endpoint.py``), what a body is (``serve/bodies.py``), the JSON of a refusal
(``serve/errors.py``).

Order, before any byte of a body is parsed: declared body length (413), key (401), role (403), rate
(429); then the body is read and cut off at its limit (413), so a chunked body cannot pass either, and
after ``BODY_TIMEOUT_S`` (408).

The keys file is a JSON list, or one JSON object per line::

    {"name": "dashboard", "sha256": "<64 hex characters>", "role": "observe"}
    {"name": "shop", "sha256": "...", "role": "predict", "requests_per_minute": 6000}

``sha256`` is the digest of the key, so the file holds no key. The file is looked at once a second:
adding or removing a line works without a restart. A file that has vanished lets nobody in; one that
cannot be read leaves the last good keys in force, and ``/ready`` says so.
"""

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from serve.bodies import inflated
from serve.errors import CallerLeft, Forbidden, LateBody, OtherSite, RateLimited, TooLarge, Unauthenticated

Role = Literal["observe", "predict", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From low to high: a role may do whatever the roles before it may."""

OWN_SITES = (b"same-origin", b"none")
"""What browsers say of a page's own requests, and of an address that a person typed."""
CHECK_INTERVAL_S = 1.0
BODY_TIMEOUT_S = 30.0
_KEY_FIELDS = {"name", "sha256", "role", "requests_per_minute"}


class KeysFileError(ValueError):
    """The keys file is not usable; the message names the file, the entry and what is wrong."""


@dataclass(frozen=True)
class ApiKey:
    """One line of the keys file. ``requests_per_minute`` None: not limited."""

    name: str
    sha256: str
    role: Role
    requests_per_minute: float | None = None


def parse_keys(text: str, *, source: str) -> tuple[ApiKey, ...]:
    """The keys in a file's text; KeysFileError naming the entry when one is wrong."""
    try:
        entries = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as error:
        raise KeysFileError(f"{source}: not JSON: {error}") from error
    keys = tuple(_key(entry, f"{source}, entry {number}") for number, entry in enumerate(entries, 1))
    for field in ("name", "sha256"):
        values = [getattr(key, field) for key in keys]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise KeysFileError(f"{source}: {field} given twice: {', '.join(twice)}")
    return keys


def _key(entry: Any, where: str) -> ApiKey:
    if not isinstance(entry, dict):
        raise KeysFileError(f"{where}: must be an object with {', '.join(sorted(_KEY_FIELDS))}")
    unknown = sorted(set(entry) - _KEY_FIELDS)
    if unknown:
        raise KeysFileError(
            f"{where}: unknown {', '.join(unknown)}; allowed: {', '.join(sorted(_KEY_FIELDS))}"
        )
    name, digest, role = entry.get("name"), entry.get("sha256"), entry.get("role")
    if not isinstance(name, str) or not name:
        raise KeysFileError(f"{where}: name must be a text")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise KeysFileError(f"{where} ({name}): sha256 must be 64 lower-case hex characters")
    if role not in ROLES:
        raise KeysFileError(f"{where} ({name}): role {role!r} is not one of {', '.join(ROLES)}")
    limit = entry.get("requests_per_minute")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
        raise KeysFileError(f"{where} ({name}): requests_per_minute must be a number above 0")
    return ApiKey(name, digest, role, limit)


class TokenBucket:
    """Lets ``per_minute`` requests through, at most that many at once.

    Thread-unsafe on purpose: a gateway replica has one event loop.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._capacity = max(1.0, per_minute)
        self._per_second = per_minute / 60.0
        self._tokens, self._at = self._capacity, now

    def wait_s(self, now: float) -> float:
        """Takes a token and gives 0.0, or gives the seconds until there is one."""
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._per_second


class Protection:
    """Admits a request or raises the refusal. ``keys_file`` None: keys and rates are off.

    A key's rate is split evenly over ``replicas``: each replica counts for itself.
    Raises KeysFileError when the file cannot be used at the start.
    """

    def __init__(
        self,
        keys_file: str | None,
        *,
        max_body_bytes: int,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(keys_file) if keys_file is not None else None
        self._max_body_bytes = max_body_bytes
        self._replicas = replicas
        self._clock = clock
        self._keys: tuple[ApiKey, ...] = ()
        self._buckets: dict[ApiKey, TokenBucket] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = clock()
        self._reading: dict[asyncio.Task[Any], float | None] = {}
        self.problem: str | None = None
        if self._path is not None:
            self._stamp = self._file_stamp()
            if self._stamp is None:
                raise KeysFileError(f"{self._path}: there is no such file")
            self._keys = parse_keys(self._path.read_text(encoding="utf-8"), source=str(self._path))

    @property
    def is_on(self) -> bool:
        return self._path is not None

    def admit(self, headers: Mapping[bytes, bytes], *, role: Role | None) -> None:
        """Returns when the request may go on; ``role`` None: open to everybody.

        Raises TooLarge, Unauthenticated, Forbidden or RateLimited, in this order. Without keys it raises
        OtherSite where the page of another web site would predict or operate through a browser here.
        """
        self._refuse_declared_length(headers.get(b"content-length"))
        if role is None:
            return
        if self._path is None:
            site = headers.get(b"sec-fetch-site")
            if site is not None and site not in OWN_SITES and role != "observe":
                raise OtherSite(site=site.decode("latin-1"))
            return
        now = self._clock()
        if now - self._looked_at >= CHECK_INTERVAL_S:
            self._looked_at = now
            self._reload()
        presented = _presented(headers)
        key = self._find(presented) if presented else None
        if key is None:
            raise Unauthenticated(presented=presented is not None)
        if ROLES.index(key.role) < ROLES.index(role):
            raise Forbidden(role=key.role, needed=role)
        self._count(key, now)

    async def read_body(self, receive: Callable[[], Awaitable[Any]], coding: str | None = None) -> bytes:
        """The whole body, without its content coding; TooLarge as soon as either passes the limit.

        CallerLeft when the connection ended first, LateBody when ``refuse_late_bodies`` found it.
        """
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = self._clock()
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeft()
                part = message.get("body", b"")
                size += len(part)
                if size > self._max_body_bytes:
                    raise TooLarge("body", limit=self._max_body_bytes, unit="bytes")
                if not message.get("more_body"):
                    break
                parts.append(part)
        except asyncio.CancelledError:
            if self._reading[task] is not None:
                raise
            task.uncancel()
            raise LateBody(timeout_s=BODY_TIMEOUT_S) from None
        finally:
            del self._reading[task]
        body = b"".join((*parts, part)) if parts else part
        return body if coding is None else inflated(body, coding, max_bytes=self._max_body_bytes)

    def refuse_late_bodies(self) -> None:
        """Ends the reading of every body that is not there after ``BODY_TIMEOUT_S``.

        Called from time to time by the event loop's thread: a deadline per request would cost more than
        reading most bodies does. Without it, callers that never send what they announce hold their places
        for as long as they like.
        """
        now = self._clock()
        for task, since in list(self._reading.items()):
            if since is not None and now - since > BODY_TIMEOUT_S:
                self._reading[task] = None
                task.cancel()

    def _refuse_declared_length(self, declared: bytes | None) -> None:
        # A length that is no number is the HTTP server's to refuse; the read is limited anyway.
        if declared is not None and declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            raise TooLarge("body", limit=self._max_body_bytes, unit="bytes")

    def _find(self, presented: bytes) -> ApiKey | None:
        digest = hashlib.sha256(presented).hexdigest()
        found = None
        for key in self._keys:  # All of them: the time must not tell which one was close.
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def _count(self, key: ApiKey, now: float) -> None:
        if key.requests_per_minute is None:
            return
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(key.requests_per_minute / self._replicas, now)
        wait_s = bucket.wait_s(now)
        if wait_s > 0:
            raise RateLimited(requests_per_minute=key.requests_per_minute, retry_after_s=wait_s)

    def _file_stamp(self) -> tuple[int, int, int] | None:
        assert self._path is not None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _reload(self) -> None:
        assert self._path is not None
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            self._keys, self.problem = (), "the keys file is gone; no key is valid"
            return
        try:
            # The name without its folder: /ready shows the problem to everybody.
            self._keys = parse_keys(self._path.read_text(encoding="utf-8"), source=self._path.name)
            self.problem = None
        except KeysFileError as error:
            self.problem = f"{error}; the keys from before stay in force"
        except (OSError, UnicodeDecodeError) as error:
            self.problem = (
                f"the keys file cannot be read ({type(error).__name__}); the keys from before stay in force"
            )
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in self._keys}


def _presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    key = headers.get(b"x-api-key")
    if key:
        return key.strip()
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None
