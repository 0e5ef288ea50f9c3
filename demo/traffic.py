"""Requests over a few kept-alive connections, every answer checked.

Belongs here: sending bodies as fast as the endpoint answers, and what came back. Does not belong here: what
is asked (``callers.py``) or when (``story.py``). Plain asyncio streams: a client library would take longer
than the answers do. Nothing is sent twice: a lost connection is a lost answer.
"""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 16
TIMEOUT_S = 20.0
PROBLEMS_KEPT = 5


@dataclass(frozen=True)
class Answer:
    """One correct answer: what was predicted, with which probability, by which version in which role."""

    prediction: str
    probability: float
    version: str
    variant: str


@dataclass(frozen=True)
class Sent:
    """What came of some requests, in their order; None for a request without a correct answer."""

    answers: tuple[Answer | None, ...]
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return sum(answer is None for answer in self.answers)

    @property
    def versions(self) -> Mapping[str, int]:
        """Answers by version, most first."""
        counted = Counter(answer.version for answer in self.answers if answer is not None)
        return dict(counted.most_common())


class Traffic:
    """Callers of ``POST <base>/predict``. ``classes`` are the predictions that may come back."""

    def __init__(self, base: str, classes: Collection[str], *, connections: int = CONNECTIONS) -> None:
        self._url, self._classes, self._connections = urlsplit(f"{base}/predict"), set(classes), connections

    def send(self, bodies: Sequence[bytes]) -> Sent:
        """Sends every body once and waits for all answers."""
        started = time.monotonic()
        round_ = _Round(bodies)
        asyncio.run(self._run(round_))
        return Sent(tuple(round_.answers), tuple(round_.problems), time.monotonic() - started)

    async def _run(self, round_: "_Round") -> None:
        callers = min(self._connections, len(round_.bodies))
        await asyncio.gather(*(self._call(round_) for _ in range(callers)))

    async def _call(self, round_: "_Round") -> None:
        """One caller with one connection: takes the next body until none is left."""
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (position := round_.take()) is not None:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if connection is None:
                        connection = await asyncio.open_connection(self._url.hostname, self._url.port)
                    status, content, keep = await self._ask(connection, round_.bodies[position])
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                round_.problem(f"{type(error).__name__}: {error}")
                keep = False
            else:
                told = answer_of(status, content, self._classes)
                if isinstance(told, Answer):
                    round_.answers[position] = told
                else:
                    round_.problem(told)
            if connection is not None and not keep:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _ask(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes
    ) -> tuple[int, bytes, bool]:
        reader, writer = connection
        head = (
            f"POST {self._url.path} HTTP/1.1\r\nhost: {self._url.netloc}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), content, headers.get("connection", "").lower() != "close"


@dataclass
class _Round:
    """Bodies that callers share, and what came of them."""

    bodies: Sequence[bytes]
    answers: list[Answer | None] = field(init=False)
    problems: list[str] = field(default_factory=list)
    _next: int = 0

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.bodies)

    def take(self) -> int | None:
        if self._next >= len(self.bodies):
            return None
        self._next += 1
        return self._next - 1

    def problem(self, told: str) -> None:
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(told)


def answer_of(status: int, content: bytes, classes: Collection[str]) -> Answer | str:
    """The answer, or in words what is wrong with it."""
    try:
        told: Any = json.loads(content)
    except ValueError:
        return f"HTTP {status}, no JSON: {content[:80]!r}"
    if status != 200:
        error = told.get("error") if isinstance(told, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        return f"HTTP {status}: {message or repr(content[:200])}"
    absent = [name for name in ("prediction", "probability", "model_version", "variant") if name not in told]
    if absent:
        return f"an answer without {', '.join(absent)}: {content[:200]!r}"
    probability = told["probability"]
    if told["prediction"] not in classes:
        return f"prediction {told['prediction']!r} is none of {', '.join(sorted(classes))}"
    number = isinstance(probability, int | float) and not isinstance(probability, bool)
    if not number or not math.isfinite(probability) or not 0 <= probability <= 1:
        return f"probability {probability!r} is none"
    return Answer(told["prediction"], float(probability), told["model_version"], told["variant"])
