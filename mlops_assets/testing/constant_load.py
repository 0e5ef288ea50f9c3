"""Requests at a constant rate from a thread of their own, every one of them recorded.

Belongs here: sending, and what came back when. Does not belong here: what happens to the servers
meanwhile (``life_cycle.py``). Requests start when they are due, however late the answers are, so a
stall of the server shows as slow requests and as a gap. Nothing is sent twice: a lost connection is a
failure.
"""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

TIMEOUT_S = 15.0


@dataclass(frozen=True)
class SentRequest:
    """``status`` 0: no answer, ``problem`` says why. Times are of time.monotonic."""

    phase: str
    started: float
    finished: float
    status: int
    version: str
    variant: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class PhaseLoad:
    """What one phase's requests got. ``longest_gap_s``: the longest time without an answer."""

    requests: int
    failures: int
    problems: tuple[str, ...]
    longest_gap_s: float
    slowest_s: float
    p99_s: float
    shares: dict[str, float]


class ConstantLoad:
    """``with ConstantLoad(url, body, rate=200) as load``: sends until the block ends."""

    def __init__(self, url: str, body: bytes, *, rate: float) -> None:
        self._url, self._body, self._interval_s = urlsplit(url), body, 1.0 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="constant-load")
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.phase = "start"
        self.sent: list[SentRequest] = []

    def __enter__(self) -> "ConstantLoad":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)

    def of(self, phase: str) -> PhaseLoad:
        """The requests that started in this phase."""
        found = sorted((each for each in list(self.sent) if each.phase == phase), key=lambda e: e.finished)
        answered = [each for each in found if each.ok]
        gaps = [late.finished - early.finished for early, late in pairwise(answered)]
        slow = sorted(each.finished - each.started for each in answered)
        versions = sorted({each.version for each in answered})
        problems = {each.problem or f"status {each.status}" for each in found if not each.ok}
        return PhaseLoad(
            requests=len(found),
            failures=len(found) - len(answered),
            problems=tuple(sorted(problems)[:5]),
            longest_gap_s=max(gaps, default=0.0),
            slowest_s=slow[-1] if slow else 0.0,
            p99_s=slow[int(0.99 * (len(slow) - 1))] if slow else 0.0,
            shares={v: sum(e.version == v for e in answered) / len(answered) for v in versions},
        )

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(self.phase))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += self._interval_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _one(self, phase: str) -> None:
        started = time.monotonic()
        status, version, variant, problem = 0, "", "", ""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, version, variant, problem = await self._ask()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        self.sent.append(SentRequest(phase, started, time.monotonic(), status, version, variant, problem))

    async def _ask(self) -> tuple[int, str, str, str]:
        host, port = self._url.hostname or "127.0.0.1", self._url.port or 80
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(host, port)
        keep = False
        try:
            head = (
                f"POST {self._url.path} HTTP/1.1\r\nhost: {host}:{port}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(self._body)}\r\n\r\n"
            )
            writer.write(head.encode() + self._body)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            status = int(first.split()[1])
            keep = headers.get("connection", "").lower() != "close"
            version, variant = headers.get("x-model-version", ""), headers.get("x-variant", "")
            return status, version, variant, "" if status == 200 else _said(status, content)
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()


def _said(status: int, content: bytes) -> str:
    try:
        return f"{status} {json.loads(content)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{status} {content[:80]!r}"


def shortest(problems: Sequence[str]) -> str:
    """The first problem, cut to fit a table."""
    return problems[0][:70] if problems else ""
