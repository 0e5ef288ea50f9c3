"""From keys and what comes with a request to a row of features, with what the store knew when it was made.

Belongs here: looking rows up, when a store counts as stale or lost, what is then refused. Does not belong
here: computing (``evaluate.py``, ``transform.py``), stores (``stores/``), HTTP (``serve/endpoint.py``).
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from serve.errors import InvalidFields, NoOnlineStore, Problems, StaleFeatures
from serve.online.evaluate import Keys, columns, keys_for
from serve.online.held import HEAD, Head, HeldView, plain_value
from serve.online.request import KeyedRow, held_event
from serve.online.stores import STORES, OnlineStore, StoreLost
from serve.online.transform import Transformed, TransformFailed, verify_examples
from serve.schema import FeatureSpec, FeatureValue, ModelManifest, OnlineView

Row = dict[str, FeatureValue]
DAY = timedelta(days=1)
_MADE_UP: Mapping[str, Any] = {
    "timestamp": "2013-12-31T22:15:00+00:00",
    "date": "2013-12-31",
    "string": "a",
    "boolean": True,
}
State = Literal["fresh", "stale", "lost"]

logger = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


@dataclass(frozen=True)
class Looked:
    """Rows that were looked up together, what came with each request, and what the store knew then."""

    rows: list[Row]
    requests: Sequence[dict[str, Any]]
    knew: str
    """JSON: ``view``, ``shape``, ``state``, ``age_s``, what was ``applied``, and by which rules records of
    streams were ``judged``; as the log has it.
    """
    state: State


class OnlineFeatures:
    """The features of one view from one store. ``clock`` gives Unix seconds.

    Raises TransformFailed and ExampleMismatch for a view whose function is not what it was offline.
    """

    def __init__(
        self,
        view: OnlineView,
        features: Sequence[FeatureSpec],
        store: OnlineStore,
        clock: Callable[[], float],
    ) -> None:
        verify_examples(view, features)
        self.view = view
        self._held, self._store, self._clock = HeldView(view), store, clock
        self._transformed = Transformed(view, features)
        self._timed = [
            (f"{join.prefix}{name}", kind)
            for join in view.joins
            for name, kind in join.kinds.items()
            if kind in ("timestamp", "date")
        ]
        self._shape = view.shape
        self._head_read: tuple[bytes, Head] | None = None
        self.problem: str | None = None
        """Why the store cannot be read; None while it can."""

    def look_up(self, sent: Sequence[KeyedRow], field: Callable[[int], str]) -> Looked:
        """The rows of what was sent, all from one state of the store. ``field`` says where a row stands.

        Raises InvalidFields for an event before what the store holds, StaleFeatures and NoOnlineStore where
        the view refuses then, TransformFailed.
        """
        events = [held_event(self.view, one.entity, one.request) for one in sent]
        keys = [keys_for(self._held, event) for event in events]
        read, head = self._read(sorted({key for one in keys for key in one.all()}))
        state, age = self._state(head)
        if state != "fresh" and self.view.when_stale == "refuse":
            if head is None:
                raise NoOnlineStore(f"The features of {self.view.name} cannot be looked up now.")
            raise StaleFeatures(self.view.name, age_s=age or 0.0, limit_s=self.view.stale_after_s)
        self._refuse_early(events, head, field)
        return Looked(
            rows=[self._row(event, one, read) for event, one in zip(events, keys, strict=True)],
            requests=[one.request for one in sent],
            knew=self._knew(head, state, age),
            state=state,
        )

    def example(self) -> KeyedRow:
        """A row that is answered now: the last example, moved by whole days to what the store holds."""
        row: dict[str, Any] = dict(self.view.examples[-1].row) if self.view.examples else {}
        for name, kind in self.view.columns.items():
            row.setdefault(name, _MADE_UP.get(kind, 1))
        _, head = self._read([])
        at = row[self.view.event_timestamp] if self.view.event_timestamp else None
        if at is not None and head is not None and head.since is not None:
            early = plain_value(head.since, "timestamp") - datetime.fromisoformat(at)
            later = max(timedelta(0), -(-early // DAY) * DAY)
            for name in (one for one in self.view.request if self.view.columns[one] == "timestamp"):
                row[name] = row[name] and (datetime.fromisoformat(row[name]) + later).isoformat()
        return KeyedRow(
            {name: row[name] for name in self.view.entity}, {name: row[name] for name in self.view.request}
        )

    def report(self) -> dict[str, Any]:
        """State of the store for ``/ready``: ``fresh``, ``stale`` or ``lost``, its age, what was applied."""
        _, head = self._read([])
        state, age = self._state(head)
        return {
            "view": self.view.name,
            "store": self.view.store,
            "state": state,
            "age_s": age,
            "stale_after_s": self.view.stale_after_s,
            "when_stale": self.view.when_stale,
            "applied": None if head is None else dict(head.applied),
            "problem": self.problem,
        }

    def _read(self, keys: Sequence[str]) -> tuple[dict[str, bytes | None], Head | None]:
        try:
            content, *values = self._store.read([HEAD, *keys])
        except StoreLost as error:
            if self.problem is None:
                logger.error("%s", error)
            self.problem = str(error)
            return {}, None
        self.problem = None if content is not None else "the store was never filled"
        if content is None:
            return {}, None
        if self._head_read is None or self._head_read[0] != content:
            self._head_read = content, Head.of(content)
        return dict(zip(keys, values, strict=True)), self._head_read[1]

    def _state(self, head: Head | None) -> tuple[State, float | None]:
        if head is None:
            return "lost", None
        age = max(0.0, self._clock() - head.as_of)
        return ("stale" if age > self.view.stale_after_s else "fresh"), round(age, 3)

    def _refuse_early(
        self, events: Sequence[Mapping[str, Any]], head: Head | None, field: Callable[[int], str]
    ) -> None:
        since, at = head.since if head else None, self.view.event_timestamp
        if since is None or at is None:
            return
        first = plain_value(since, "timestamp").isoformat()
        early: Problems = [
            {
                "field": f"{field(number)}.{at}",
                "reason": f"lies before what is looked up: from {first} on",
            }
            for number, event in enumerate(events)
            if event[at] < since
        ]
        if early:
            raise InvalidFields(early)

    def _row(self, event: Mapping[str, Any], keys: Keys, read: Mapping[str, bytes | None]) -> Row:
        kinds = self.view.columns
        given = {name: plain_value(value, kinds[name]) for name, value in event.items()}
        try:
            found = columns(self._held, event, keys, read)
        except OverflowError as error:
            raise TransformFailed(f"view {self.view.name}: a sum is beyond the largest number") from error
        for name, kind in self._timed:
            found[name] = plain_value(found[name], kind)
        return self._transformed.row({**given, **found})

    def _knew(self, head: Head | None, state: State, age: float | None) -> str:
        applied = None if head is None else head.applied
        knew = {
            "view": self.view.name,
            "shape": self._shape,
            "state": state,
            "age_s": age,
            "applied": applied,
        }
        judged = None if head is None else head.judged
        return _encode(knew if judged is None else {**knew, "judged": judged})


class Lookups:
    """The views of a gateway's versions, each with its store; two versions of one view share a store."""

    def __init__(self, uri: str, clock: Callable[[], float]) -> None:
        self._uri, self._clock = uri, clock
        self._stores: dict[tuple[str, str], OnlineStore] = {}

    def of(self, manifest: ModelManifest) -> OnlineFeatures | None:
        """How features of a model are looked up; None for one whose callers send them.

        Raises as OnlineFeatures, UnknownMember for a kind of store that is not here, and StoreNotSetUp for
        one that lacks something here.
        """
        view = manifest.online
        if view is None:
            return None
        name = f"{view.name}-{view.shape}"
        if (view.store, name) not in self._stores:
            self._stores[view.store, name] = STORES[view.store](self._uri, view=name)
        return OnlineFeatures(view, manifest.features, self._stores[view.store, name], self._clock)
