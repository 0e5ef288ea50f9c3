"""From keys and what comes with a request to a row of features, with what the store knew when it was made.

Belongs here: looking rows up, when a store counts as stale or lost, what is then refused. Does not belong
here: computing (``evaluate.py``, ``transform.py``), stores (``stores/``), HTTP (``serve/endpoint.py``).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from serve.errors import InvalidFields, NoOnlineStore, Problems, StaleFeatures
from serve.online.evaluate import Place
from serve.online.held import Head, plain_value
from serve.online.kept import KeptStore, State
from serve.online.request import KeyedRow, held_event
from serve.online.stores import STORES
from serve.online.transform import Transformed, TransformFailed, column_kinds, verify_examples
from serve.schema import FeatureSpec, FeatureValue, ModelManifest, OnlineView

Row = dict[str, FeatureValue]
DAY = timedelta(days=1)
_MADE_UP: Mapping[str, Any] = {
    "timestamp": "2013-12-31T22:15:00+00:00",
    "date": "2013-12-31",
    "string": "a",
    "boolean": True,
}
Freshness = Literal["fresh", "stale", "lost"]
Field = Callable[[int], str]
"""Says where a row stands in a request."""

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
    state: Freshness


class OnlineFeatures:
    """The features of one view from one store. ``clock`` gives Unix seconds.

    Raises TransformFailed and ExampleMismatch for a view whose function is not what it was offline.
    """

    def __init__(
        self,
        view: OnlineView,
        features: Sequence[FeatureSpec],
        store: KeptStore,
        clock: Callable[[], float],
    ) -> None:
        verify_examples(view, features)
        self.view = view
        self._store, self._clock = store, clock
        self._transformed = Transformed(view, features)
        self._timed = [
            (name, kind) for name, kind in column_kinds(view).items() if kind in ("timestamp", "date")
        ]
        self._shape = view.shape
        self._head_told: tuple[Head | None, str] | None = None

    @property
    def problem(self) -> str | None:
        """Why the store cannot be read; None while it can."""
        return self._store.problem

    def look_up(self, sent: Sequence[KeyedRow], field: Field) -> Looked:
        """The rows of what was sent, all from one state of the store. ``field`` says where a row stands.

        Raises InvalidFields for an event before what the store holds, StaleFeatures and NoOnlineStore where
        the view refuses then, TransformFailed.
        """
        asked = self._asked(sent)
        return self._answer(sent, asked, self._store.read(asked.all), field)

    async def look_up_aside(self, sent: Sequence[KeyedRow], field: Field) -> Looked:
        """The same; the event loop goes on where the store waits."""
        asked = self._asked(sent)
        return self._answer(sent, asked, await self._store.read_aside(asked.all), field)

    def _asked(self, sent: Sequence[KeyedRow]) -> "_Asked":
        events = [held_event(self.view, one.entity, one.request) for one in sent]
        places = [self._store.event_columns.places(event) for event in events]
        return _Asked(events, places, {place: None for of in places for place in of if place is not None})

    def _answer(self, sent: Sequence[KeyedRow], asked: "_Asked", found: State, field: Field) -> Looked:
        head = found.head
        state, age = self._freshness(head)
        if state != "fresh" and self.view.when_stale == "refuse":
            if head is None:
                raise NoOnlineStore(f"The features of {self.view.name} cannot be looked up now.")
            raise StaleFeatures(self.view.name, age_s=age or 0.0, limit_s=self.view.stale_after_s)
        self._refuse_early(asked.events, head, field)
        return Looked(
            rows=[
                self._row(event, places, found)
                for event, places in zip(asked.events, asked.places, strict=True)
            ],
            requests=[one.request for one in sent],
            knew=self._knew(head, state, age),
            state=state,
        )

    def example(self) -> KeyedRow:
        """A row that is answered now: the last example, moved by whole days to what the store holds."""
        return self._example(self._store.read(()).head)

    async def example_aside(self) -> KeyedRow:
        """The same; the event loop goes on where the store waits."""
        return self._example((await self._store.read_aside(())).head)

    def _example(self, head: Head | None) -> KeyedRow:
        row: dict[str, Any] = dict(self.view.examples[-1].row) if self.view.examples else {}
        for name, kind in self.view.columns.items():
            row.setdefault(name, _MADE_UP.get(kind, 1))
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
        return self._report(self._store.read(()).head)

    async def report_aside(self) -> dict[str, Any]:
        """The same; the event loop goes on where the store waits."""
        return self._report((await self._store.read_aside(())).head)

    def _report(self, head: Head | None) -> dict[str, Any]:
        state, age = self._freshness(head)
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

    def _freshness(self, head: Head | None) -> tuple[Freshness, float | None]:
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

    def _row(self, event: Mapping[str, Any], places: Sequence[Place | None], found: State) -> Row:
        values = found.values
        parsed = [None if place is None else values.get(place) for place in places]
        try:
            row = {**event, **self._store.event_columns.columns(event, parsed)}
        except OverflowError as error:
            raise TransformFailed(f"view {self.view.name}: a sum is beyond the largest number") from error
        for name, kind in self._timed:
            row[name] = plain_value(row[name], kind)
        return self._transformed.row(row)

    def _knew(self, head: Head | None, state: Freshness, age: float | None) -> str:
        if self._head_told is None or self._head_told[0] is not head:
            applied = None if head is None else head.applied
            told = {"view": self.view.name, "shape": self._shape, "applied": applied}
            judged = None if head is None else head.judged
            self._head_told = head, _encode(told if judged is None else {**told, "judged": judged})[:-1]
        return f'{self._head_told[1]},"state":"{state}","age_s":{"null" if age is None else age}}}'


class _Asked(NamedTuple):
    """The events of a request, where the values of each lie, and all of these places once."""

    events: Sequence[Mapping[str, Any]]
    places: Sequence[Sequence[Place | None]]
    all: Mapping[Place, None]


class Lookups:
    """The views of a gateway's versions, each with its store; two versions of one view share a store."""

    def __init__(self, uri: str, clock: Callable[[], float]) -> None:
        self._uri, self._clock = uri, clock
        self._stores: dict[tuple[str, str], KeptStore] = {}

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
            store = STORES[view.store](self._uri, view=name)
            self._stores[view.store, name] = KeptStore.of(view, store)
        return OnlineFeatures(view, manifest.features, self._stores[view.store, name], self._clock)
