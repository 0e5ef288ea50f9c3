"""What was read of a store lately, ready for any event, for as long as the store's head stands.

Belongs here: reading a store for many look-ups, what is kept between them and how much of it. Does not
belong here: stores (``stores/``), what the values mean (``evaluate.py``), when one is stale (``lookup.py``).

Guarantees. Every look-up reads the store's head together with what is not kept of it, in one read. What is
kept counts for a look-up only while that head is the one that it was read with; otherwise everything that the
look-up needs is read again, in one read. So an answer is made of one state of the store, and of the
newest: a commit is seen by the next look-up. A value that a commit left as it was keeps its ready form.

A store that waits (``OnlineStore.waits``) is read by one thread at a time, and look-ups that come meanwhile
are read together by the next read: a slow store holds up those who ask it, and nobody else.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from serve.online.evaluate import EventColumns, Parsed, Place
from serve.online.held import HEAD, Head, HeldView
from serve.online.stores import OnlineStore, StoreLost
from serve.schema import OnlineView

KEPT_BYTES = 64 << 20
"""About how much memory one store may take in a process."""
_OVERHEAD, _FACTOR = 500, 3
"""Bytes that an entry takes beside its content, and how often it holds that."""

logger = logging.getLogger(__name__)


class State(NamedTuple):
    """What a store held at one moment; ``head`` None: it cannot be read, or was never filled."""

    head: Head | None
    values: Mapping[Place, Parsed]


class _Kept:
    """A value and its ready form; ``reading`` says under which head it was read last."""

    __slots__ = ("content", "parsed", "reading")

    def __init__(self, content: bytes | None, parsed: Parsed, reading: int) -> None:
        self.content, self.parsed, self.reading = content, parsed, reading

    @property
    def size(self) -> int:
        return _OVERHEAD + _FACTOR * len(self.content or b"")


class KeptStore:
    """A store of one view. ``most`` is about how many bytes it keeps; any thread may ask it."""

    def __init__(self, event_columns: EventColumns, store: OnlineStore, *, most: int = KEPT_BYTES) -> None:
        self.event_columns = event_columns
        self._store, self._most = store, most
        self._lock = threading.Lock()
        self._head_read: tuple[bytes | None, Head | None] = (None, None)
        self._reading = 0
        # What was asked lately, and what was asked before that: the latter goes when the former is full.
        self._young: dict[Place, _Kept] = {}
        self._old: dict[Place, _Kept] = {}
        self._young_bytes = 0
        self._waiting: list[tuple[Collection[Place], asyncio.Future[State]]] = []
        self._reader: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why the store cannot be read; None while it can."""

    @classmethod
    def of(cls, view: OnlineView, store: OnlineStore) -> "KeptStore":
        """The store of a view; views of one shape share it."""
        return cls(EventColumns(HeldView(view)), store)

    def read(self, places: Collection[Place]) -> State:
        """What lies at places that are all different. Waits where the store does."""
        with self._lock:
            try:
                found = self._read(places)
            except StoreLost as error:
                if self.problem is None:
                    logger.error("%s", error)
                self.problem = str(error)
                self._move(None)
                return State(None, {})
        self.problem = None if found.head is not None else "the store was never filled"
        return found

    async def read_aside(self, places: Collection[Place]) -> State:
        """The same; the event loop goes on while a store waits. One event loop may ask."""
        if not self._store.waits:
            return self.read(places)
        asked: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.append((places, asked))
        if self._reader is None:
            self._reader = asyncio.ensure_future(self._read_waiting())
        return await asked

    async def _read_waiting(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                places = {place for asked, _ in together for place in asked}
                try:
                    found: State | Exception = await asyncio.to_thread(self.read, places)
                except Exception as error:  # noqa: BLE001 - it belongs to those who asked
                    found = error
                for _, answer in together:
                    if answer.done():
                        continue  # Whoever asked has gone.
                    if isinstance(found, Exception):
                        answer.set_exception(found)
                    else:
                        answer.set_result(found)
        finally:
            self._reader = None

    def _read(self, places: Collection[Place]) -> State:
        found: dict[Place, Parsed] = {}
        unread: list[Place] = []
        young, reading = self._young, self._reading
        for place in places:
            kept = young.get(place) or self._asked_again(place)
            if kept is not None and kept.reading == reading:
                found[place] = kept.parsed
            else:
                unread.append(place)
        missing: Collection[Place] = unread
        head, contents = self._contents(missing)
        if head != self._head_read[0]:
            self._move(head)
            if found:
                # They are of the head before; all of this look-up is read at one moment.
                found, missing = {}, places
                head, contents = self._contents(missing)
                if head != self._head_read[0]:
                    self._move(head)
        if head is None:
            return State(None, {})
        for place, content in zip(missing, contents, strict=True):
            found[place] = self._take(place, content)
        return State(self._head_read[1], found)

    def _contents(self, places: Collection[Place]) -> tuple[bytes | None, Sequence[bytes | None]]:
        head, *contents = self._store.read([HEAD, *map(self.event_columns.key, places)])
        return head, contents

    def _move(self, head: bytes | None) -> None:
        self._reading += 1
        self._head_read = head, None if head is None else Head.of(head)

    def _asked_again(self, place: Place) -> _Kept | None:
        kept = self._old.pop(place, None)
        if kept is not None:
            self._keep(place, kept)
        return kept

    def _take(self, place: Place, content: bytes | None) -> Parsed:
        kept = self._young.get(place)
        if kept is not None and kept.content == content:
            kept.reading = self._reading
            return kept.parsed
        if kept is not None:
            self._young_bytes -= kept.size
        made = _Kept(content, self.event_columns.parsed(place, content), self._reading)
        self._keep(place, made)
        return made.parsed

    def _keep(self, place: Place, kept: _Kept) -> None:
        if self._young_bytes + kept.size > self._most // 2:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[place] = kept
        self._young_bytes += kept.size
