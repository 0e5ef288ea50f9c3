"""Asking one HTTP API, and nobody else: retries, rate, deadline, size, and what an answer means.

Belongs here: whatever is between a URL and a parsed answer. Does not belong here: which URL comes next
(``_http_pages.py``), rows (``http.py``).

The secret is a header of requests to the declared origin (scheme, host and port). A redirect or a link to
another one is refused before anything is sent there, and no error shows the secret.
"""

import email.utils
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.secrets import without

if TYPE_CHECKING:
    import httpx

TRIES = 5
"""How often a request is made that fails; one that is told to wait (429) is made until the deadline."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Between two tries, unless the API asks for more."""
REDIRECTS = 5
CONNECT_S, READ_S = 10.0, 60.0
SHOWN = 120
"""Characters of an answer that an error shows."""


@dataclass(frozen=True)
class HttpClock:
    """Time, as a test can stop it."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class HttpLimits(Protocol):
    """What the declaration allows."""

    timeout_s: float
    per_second: float | None
    max_answer_mb: float


@dataclass(frozen=True)
class Answer:
    """A parsed answer, and what its headers link to by relation."""

    url: str
    document: Any
    links: Mapping[str, str]


class _Failed(Exception):
    """A request that may be made again: ``final`` is what is wrong if that does not help."""

    def __init__(self, final: DataError, *, wait_s: float = 0.0, patient: bool = False) -> None:
        super().__init__(str(final))
        self.final, self.wait_s, self.patient = final, wait_s, patient


class HttpClient:
    """Requests to the origin of ``url``; ``secret`` says who holds it, for errors, and its value."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        secret: tuple[str, str] | None,
        limits: HttpLimits,
        clock: HttpClock,
    ) -> None:
        import httpx

        self._origin, self._secret, self._limits, self._clock = _origin(httpx.URL(url)), secret, limits, clock
        self._client = httpx.Client(
            headers={"accept": "application/json", **headers},
            follow_redirects=False,
        )
        self._may_ask_at = clock.monotonic()
        self._deadline = math.inf

    def close(self) -> None:
        """Lets the connections go."""
        self._client.close()

    def begin(self) -> None:
        """A new series of requests, with the whole time that one may take."""
        self._deadline = self._clock.monotonic() + self._limits.timeout_s

    def get(self, url: str, params: Mapping[str, str]) -> Answer:
        """The answer to a request, after as many tries as it takes.

        Raises SourceUnavailable when the API does not answer, lets nobody in or is not done at the deadline;
        DataError for what is wrong with this answer.
        """
        import httpx

        asked = httpx.URL(url).copy_merge_params(dict(params))
        for _ in range(REDIRECTS + 1):
            answer = self._tried(asked)
            if isinstance(answer, Answer):
                return answer
            asked = answer
        raise DataError(f"{self._shown(asked)} redirects again and again.")

    def linked(self, url: str, link: str) -> str:
        """Where a link of an answer leads; DataError where that is another origin, or nowhere."""
        import httpx

        shown = self.hidden(url)
        try:
            target = httpx.URL(url).join(link)
        except httpx.InvalidURL as error:
            raise DataError(f"{shown} links to {self.hidden(link)[:SHOWN]!r}, no address: {error}.") from None
        return str(self._same_origin(shown, target))

    def hidden(self, text: str) -> str:
        """The text without the secret."""
        return without([self._secret[1]], text) if self._secret else text

    # -- one request ------------------------------------------------------------------------------------

    def _tried(self, url: "httpx.URL") -> "Answer | httpx.URL":
        tries = 0
        while True:
            self._wait(
                self._may_ask_at - self._clock.monotonic(), f"the rate of {self._limits.per_second} a second"
            )
            if self._limits.per_second:
                self._may_ask_at = self._clock.monotonic() + 1 / self._limits.per_second
            try:
                return self._once(url)
            except _Failed as failed:
                tries += 1
                wait_s = max(failed.wait_s, min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S))
                if (tries >= TRIES and not failed.patient) or self._late(wait_s):
                    raise failed.final from None
            self._clock.sleep(wait_s)

    def _late(self, wait_s: float = 0.0) -> bool:
        return self._clock.monotonic() + wait_s > self._deadline

    def _wait(self, wait_s: float, why: str) -> None:
        if wait_s > 0:
            if self._late(wait_s):
                raise self._not_done(f"at {why}")
            self._clock.sleep(wait_s)

    def _not_done(self, where: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self._origin} was not done after {self._limits.timeout_s:g} s, {where}. Raise timeout_s, or "
            "ask for fewer days."
        )

    def _once(self, url: "httpx.URL") -> "Answer | httpx.URL":
        import httpx

        shown = self._shown(url)
        left_s = max(self._deadline - self._clock.monotonic(), FIRST_WAIT_S)
        timeout = httpx.Timeout(min(READ_S, left_s), connect=min(CONNECT_S, left_s))
        with self._failing(shown), self._client.stream("GET", url, timeout=timeout) as response:
            content = self._content(response, shown)
        status = response.status_code
        if response.is_redirect:
            return httpx.URL(self.linked(str(url), response.headers["location"]))
        if status != 200:
            raise self._refused(shown, response, self.hidden(content[:SHOWN].decode(errors="replace")))
        links = {relation or "": link.get("url", "") for relation, link in response.links.items()}
        return Answer(str(url), self._parsed(content, shown, response), links)

    @contextmanager
    def _failing(self, shown: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.TimeoutException, httpx.ProxyError) as error:
            said = self.hidden(f"{type(error).__name__}: {error}")
            raise _Failed(
                SourceUnavailable(f"{shown} does not answer: {said}. Start it, or mend `url`.")
            ) from None
        except httpx.TransportError as error:
            said = self.hidden(f"{type(error).__name__}: {error}")
            raise _Failed(SourceUnavailable(f"The answer of {shown} breaks off: {said}.")) from None
        except httpx.DecodingError as error:
            raise DataError(f"The answer of {shown} cannot be unpacked: {error}.") from None

    def _content(self, response: "httpx.Response", shown: str) -> bytes:
        content, most = bytearray(), int(self._limits.max_answer_mb * 1_000_000)
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > most:
                raise DataError(
                    f"The answer of {shown} is larger than {self._limits.max_answer_mb:g} MB. Ask for "
                    "smaller pages, or raise max_answer_mb."
                )
            if self._late():
                raise self._not_done(f"within the answer of {shown}")
        return bytes(content)

    def _refused(self, shown: str, response: "httpx.Response", body: str) -> Exception:
        """What an answer other than 200 means."""
        status = response.status_code
        said = f"{status} {response.reason_phrase}".strip() + (f", {body!r}" if body else "")
        if status in (401, 403):
            holder = f"what {self._secret[0]} holds" if self._secret else "no secret: declare auth"
            return SourceUnavailable(f"{shown} lets nobody in with {holder}: {said}.")
        if status == 404:
            return DataError(f"{shown} is not there: {said}.")
        if status == 429:
            asked = response.headers.get("retry-after")
            until = f" It asked to wait: Retry-After: {asked}." if asked else ""
            final = SourceUnavailable(
                f"{shown} still had too many requests after {self._limits.timeout_s:g} s: {said}.{until} "
                "Lower per_second, or raise timeout_s."
            )
            return _Failed(final, wait_s=self._retry_after(response), patient=True)
        if status >= 500 or status == 408:
            final = SourceUnavailable(f"{shown} failed, {TRIES} times or to the deadline: {said}.")
            return _Failed(final, wait_s=self._retry_after(response))
        return DataError(f"{shown} does not take the request: {said}.")

    def _retry_after(self, response: "httpx.Response") -> float:
        """Seconds that the answer asks to wait; 0 where it says nothing that can be read."""
        asked = response.headers.get("retry-after", "").strip()
        if asked.isdecimal():
            return float(asked)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - self._clock.wall())
        except (ValueError, TypeError):
            return 0.0

    def _same_origin(self, shown: str, target: "httpx.URL") -> "httpx.URL":
        if _origin(target) != self._origin:
            raise DataError(
                f"{shown} leads to {_origin(target)}, which is not {self._origin}: nothing was sent there. "
                "If it is meant, declare it as the url."
            )
        return target

    def _parsed(self, content: bytes, shown: str, response: "httpx.Response") -> Any:
        try:
            return json.loads(
                content.decode("utf-8-sig"),
                parse_constant=_no_number,
                parse_float=_finite,
                object_pairs_hook=_distinct,
            )
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("content-type", "no content type")
            start = self.hidden(content[:SHOWN].decode(errors="replace"))
            raise DataError(
                f"The answer of {shown} is not whole JSON: {error}. It is {len(content)} bytes of {kind}, "
                f"and begins with {start!r}."
            ) from None

    def _shown(self, url: "httpx.URL") -> str:
        return self.hidden(str(url))


def _origin(url: "httpx.URL") -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return f"{url.scheme}://{url.host}:{port}"


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is beyond what a 64-bit float holds")
    return float(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r} comes twice in one object"
        )
    return made
