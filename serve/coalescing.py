"""Requests that wait anyway travel together: fewer calls to a version under load, none later without.

Belongs here: putting rows of several requests into one call. Does not belong here: the call itself
(``serve/ray_versions.py``), retries (``serve/traffic.py``).

A call between replicas costs far more than scoring a row. While fewer than ``max_calls`` are under
way a request goes out at once and alone, so an idle endpoint gains no latency. Beyond that requests
wait for a call to return and then leave as one. A row's scores do not depend on the rows beside it
(a test of ``serve/scoring.py`` holds it to the bit), so answers are the same.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from serve.validation import Row
from serve.versions import Scores, Version, VersionError

Waiting = tuple[Sequence[Row], float, "asyncio.Future[Scores]"]
"""Rows of a waiting request, its timeout, and where its scores go."""


class Coalescing(Version):
    """The same version, asked in larger calls when there are many.

    When the model raises on a joint call, each request is asked again alone: one request cannot make
    another one fail.
    """

    def __init__(self, version: Version, *, max_calls: int = 2, max_rows: int = 256) -> None:
        self._version = version
        self._max_calls, self._max_rows = max_calls, max_rows
        self._calls = 0
        self._waiting: deque[Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def info(self, *, timeout_s: float) -> dict[str, Any]:
        return await self._version.info(timeout_s=timeout_s)

    async def score_rows(self, rows: Sequence[Row], *, timeout_s: float) -> Scores:
        if self._calls >= self._max_calls:
            future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
            self._waiting.append((rows, timeout_s, future))
            return await future
        self._calls += 1
        try:
            return await self._version.score_rows(rows, timeout_s=timeout_s)
        finally:
            self._calls -= 1
            self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self._calls < self._max_calls:
            group: list[Waiting] = []
            size = 0
            while self._waiting and (not group or size + len(self._waiting[0][0]) <= self._max_rows):
                entry = self._waiting.popleft()
                if not entry[2].done():  # Its caller may have given up.
                    group.append(entry)
                    size += len(entry[0])
            if group:
                self._calls += 1
                task = asyncio.ensure_future(self._send(group))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _send(self, group: list[Waiting]) -> None:
        try:
            rows = [row for entry in group for row in entry[0]]
            try:
                scores = await self._version.score_rows(rows, timeout_s=group[0][1])
            except (VersionError, TimeoutError) as error:
                for _, _, future in group:
                    _fail(future, error)
            except Exception as error:  # noqa: BLE001 - each request gets it, or its own answer
                await self._send_alone(group, error)
            else:
                if len(scores) != len(rows):
                    # Nobody can tell whose are missing.
                    await self._send_alone(group, RuntimeError(f"{len(scores)} scores for {len(rows)} rows"))
                    return
                start = 0
                for own, _, future in group:
                    if not future.done():
                        future.set_result(scores[start : start + len(own)])
                    start += len(own)
        finally:
            self._calls -= 1
            self._send_waiting()

    async def _send_alone(self, group: list[Waiting], error: Exception) -> None:
        if len(group) == 1:
            _fail(group[0][2], error)
            return
        for rows, timeout_s, future in group:
            if future.done():
                continue
            try:
                scores = await self._version.score_rows(rows, timeout_s=timeout_s)
            except Exception as own_error:  # noqa: BLE001 - handed to the request it belongs to
                _fail(future, own_error)
            else:
                if not future.done():
                    future.set_result(scores)


def _fail(future: "asyncio.Future[Scores]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
