"""Filling the store of a view: rows of its datasets by key, as far as their tables and streams go.

Belongs here: what a store has to take over, and committing it with how far it goes. Does not belong here:
reading rows (``online_rows.py``), the form of a store and computing from it (``serve/online/``), who fills
it and when (``online_features.py``, ``commands/streaming.py``).

The head of the store is read first, and a commit is made for this head: whoever comes in between, a run or a
consumer, makes the commit fail, and nothing is written. So rows never go back, and never move without what
says how far they go. Of streams that are followed only days that records came for are judged again; a store
of other rules, or of a shorter look back, is filled anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from mlops_assets.assets.followed_rows import FollowedDataset, FollowedRows
from mlops_assets.assets.online_rows import OnlineRows, Reached, reached
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.errors import AnotherWasFirst, DataError
from mlops_assets.features.online import changes_of, held_column
from mlops_assets.resources.lake import Lake
from serve.online.applying import Change, changed, identity_of
from serve.online.held import EPOCH, HEAD, ROWS, Head, HeldView, partition_prefix
from serve.online.stores import OnlineStore, StoreLost, StoreMoved

if TYPE_CHECKING:
    import pandas as pd

DAY = timedelta(days=1)
NEVER = 0.0
"""The age of a store that nobody ever knew to be complete."""


@dataclass(frozen=True)
class Filled:
    """What a fill knew and did; ``version`` is that of what the store holds.

    ``whole``: all rows were looked at. ``left_out``: {dataset: {day: why none of its rows is held}}, of the
    days of followed datasets that were judged.
    """

    head: Head
    whole: bool
    written: int
    size: int
    version: str
    left_out: Mapping[str, Mapping[str, str]]


@dataclass
class _News:
    """What a store has to take over; ``frames``: the rows that were read for it."""

    changes: list[Change] = field(default_factory=list)
    gone: list[Change] = field(default_factory=list)
    frames: "dict[str, pd.DataFrame]" = field(default_factory=dict)
    left_out: dict[str, Mapping[str, str]] = field(default_factory=dict)


def fill(
    lake: Lake,
    store: OnlineStore,
    served: OnlineTable,
    *,
    now: datetime,
    complete: Mapping[str, float] | None = None,
) -> Filled:
    """Brings a store to what the lake holds at this moment, in one commit.

    ``complete``: {stream: Unix seconds up to which its table has everything in the topic}, of what the caller
    knows beyond the commits of the table. Raises AnotherWasFirst when another writer was, and DataError when
    a table is missing or the store cannot be written.
    """
    try:
        before = _content(store)
        filling = _Filling(lake, store, served, before, now)
        news, since = filling.news()
        head = filling.head(since, complete or {})
        held = HeldView(served.online)
        read = store.read if before else _nothing
        puts = changed(held, [*news.gone, *news.changes], read, since=since)
        store.commit(puts, head=head.to_bytes(), expected=before)
    except StoreMoved as error:
        raise AnotherWasFirst(str(error)) from error
    except StoreLost as error:
        raise DataError(str(error)) from error
    finally:
        store.close()
    said = json.dumps([served.online.shape, sorted(head.applied.items()), since, head.judged])
    return Filled(
        head,
        filling.whole,
        len(puts),
        sum(len(value) for value in puts.values() if value is not None),
        hashlib.sha256(said.encode()).hexdigest()[:16],
        news.left_out,
    )


def nothing_new(lake: Lake, store: OnlineStore, served: OnlineTable) -> bool:
    """Whether a store was filled, and holds all that the lake holds now. Raises DataError."""
    try:
        content = _content(store)
    finally:
        store.close()
    if content is None:
        return False
    head = Head.of(content)
    return reached(lake, served, head.applied).applied == head.applied and head.judged == served.judged


def rows_held(store: OnlineStore) -> int:
    """How many rows of datasets a store holds. Raises DataError."""
    try:
        return sum(1 for _ in store.scan(ROWS))
    except StoreLost as error:
        raise DataError(str(error)) from error
    finally:
        store.close()


class _Filling:
    """One fill of a store with this head (None: it was never filled)."""

    def __init__(
        self, lake: Lake, store: OnlineStore, served: OnlineTable, head: bytes | None, now: datetime
    ) -> None:
        self._lake, self._store, self._served, self._now = lake, store, served, now
        self._empty = head is None
        known = None if head is None else Head.of(head)
        self._held = HeldView(served.online)
        self._there = reached(lake, served, known.applied if known else {})
        self._first = _first_day(lake, served, self._there, now, known.first if known else None)
        # What went back is not what it was: a table that is there anew, or another stream of the topic.
        back = known is not None and _back(served, known, self._there)
        self._known = None if back else known
        self.whole = self._known is None or not self._goes_on(self._known)

    def _goes_on(self, known: Head) -> bool:
        """Whether the store can take over what is new, instead of all anew."""
        streams = self._there.streams.values()
        if (
            not streams
            or known.judged != self._served.judged
            or any(one.since.days is None for one in streams)
        ):
            return False
        if self._first is None or known.first is None:
            return self._first is None and known.first is None
        return known.first <= self._first.isoformat()

    def news(self) -> tuple[_News, int | None]:
        """What the store has to take over, and the earliest event that its rows suffice for then."""
        news = self._all() if self.whole else self._new(self._known)
        since = _since(self._served, news.frames, self._first, self._now)
        if since is not None and not self.whole and self._known is not None and self._known.since is not None:
            since = max(since, self._known.since)
        return news, since

    def head(self, since: int | None, complete: Mapping[str, float]) -> Head:
        """The head of the store then."""
        moments = self._complete(complete)
        as_of = min([self._now.timestamp(), *moments.values()])
        known = self._known
        first = None if self._first is None or not self._there.streams else self._first.isoformat()
        return Head(
            self._there.applied,
            max(as_of, known.as_of if known else NEVER),
            since,
            moments,
            self._served.judged,
            first,
        )

    def _complete(self, told: Mapping[str, float]) -> dict[str, float]:
        """{followed stream: up to when it is known to be read to its end}, by the newest of all who know."""
        before = self._known.complete if self._known else {}
        found: dict[str, float] = {}
        for dataset, one in self._there.streams.items():
            stream = self._served.followed[dataset].stream.name
            known = (one.since.complete, told.get(stream), before.get(stream))
            found[stream] = max((moment for moment in known if moment is not None), default=NEVER)
        return found

    def _all(self) -> _News:
        """Every row that an event may still look back on; whatever else the store holds goes."""
        news, rows = _News(), OnlineRows(self._lake, self._served, self._first)
        for name in self._served.datasets:
            frame = rows.of(name, self._there.applied)
            if name in self._served.followed:
                news.left_out[name] = rows.of_stream(name, self._there.applied)[1]
            self._take(news, name, frame, [f"{ROWS}{name}:"])
        return news

    def _new(self, known: Head | None) -> _News:
        """Rows of days that records came for, and of tables that have another version."""
        assert known is not None
        news, rows = _News(), OnlineRows(self._lake, self._served, self._first)
        for name in self._served.datasets:
            if name in self._there.streams:
                touched = sorted(self._there.streams[name].since.days or ())
                days = [day for day in touched if self._first is None or day >= self._first.isoformat()]
                if days:
                    followed = FollowedRows(self._lake, self._served.followed[name], days)
                    frame, news.left_out[name] = followed.rows(self._there.applied)
                    self._take(news, name, frame, [partition_prefix(name, day) for day in days])
            elif self._there.applied[name] != known.applied.get(name):
                self._take(news, name, rows.of(name, self._there.applied), [f"{ROWS}{name}:"])
        if self._first is not None and known.first is not None and known.first < self._first.isoformat():
            news.gone += self._too_old(self._first)
        return news

    def _take(self, news: _News, name: str, frame: "pd.DataFrame", stead: Iterable[str]) -> None:
        """Rows of a dataset in the stead of all that the store holds under these prefixes."""
        changes = changes_of(
            name,
            frame,
            self._served.table.datasets[name].columns,
            identity=self._served.identity(name),
            columns=self._held.columns(name),
        )
        kept = {change.identity for change in changes}
        held = [identity_of(key) for prefix in stead for key, _ in self._scan(prefix)]
        news.changes += changes
        news.gone += [Change(name, identity, None) for identity in held if identity not in kept]
        news.frames[name] = frame

    def _too_old(self, first: date) -> list[Change]:
        """Held rows of days that no event looks back on any more."""
        return [
            Change(name, identity, None)
            for name in self._served.datasets
            if self._served.table.datasets[name].partitions is not None
            for key, _ in self._scan(f"{ROWS}{name}:")
            if (identity := identity_of(key))[0] < first.isoformat()
        ]

    def _scan(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        return () if self._empty else self._store.scan(prefix)


def _nothing(keys: Sequence[str]) -> list[bytes | None]:
    return [None] * len(keys)


def _content(store: OnlineStore) -> bytes | None:
    try:
        return store.read([HEAD])[0]
    except StoreLost:
        return None  # There is none yet; one that cannot be written says so at the commit.


def _back(served: OnlineTable, known: Head, there: Reached) -> bool:
    """Whether a stream's table ends before what the store had applied of it."""
    return any(
        offset > there.streams[name].following.get(partition, 0)
        for name, one in served.followed.items()
        if name in there.streams
        for partition, offset in one.following(known.applied).items()
    )


def _first_day(
    lake: Lake, served: OnlineTable, there: Reached, now: datetime, before: str | None
) -> date | None:
    """The first day whose rows an event may still look back on; None: all days count.

    ``before``: the one that the store has now.
    """
    table, base = served.table, served.table.declared.base
    if table.base.partitions is None:
        return None
    # A local day may begin a day before or after that of UTC.
    back = timedelta(days=table.declared.lookback_days) + served.declared.keep + 2 * DAY
    followed = served.followed.get(base) if base in there.streams else None
    if followed is None:
        days: Sequence[str] = lake.partition_keys(table.base.table().name, version=there.applied.get(base))
    else:
        days = [day for day in there.streams[base].days if followed.declares(day)]
    past = [day for day in days if day <= now.date().isoformat()] or days[:1]
    for day in reversed(past if followed is not None else ()):
        first = date.fromisoformat(day) - back
        # An undecodable record makes a day of its own time, which may be any.
        if first.isoformat() == before or (followed and _has_rows(lake, followed, day, there)):
            return first
    return date.fromisoformat(past[-1]) - back if past else None


def _has_rows(lake: Lake, followed: FollowedDataset, day: str, there: Reached) -> bool:
    return len(FollowedRows(lake, followed, [day]).of_day(day, there.applied).frame) > 0


def _since(
    served: OnlineTable, frames: "Mapping[str, pd.DataFrame]", first: date | None, now: datetime
) -> int | None:
    """The earliest event that the rows suffice for, in microseconds: ``keep`` before the newest of them."""
    declared = served.table.declared
    if declared.event_timestamp is None or first is None:
        return None
    times = {(declared.base, one.known_at) for one in declared.rolling}
    times |= {(declared.base, declared.event_timestamp)} if declared.rolling else set()
    times |= {(join.dataset, join.timestamp) for join in declared.joins if join.timestamp}
    limit = (now - EPOCH) // timedelta(microseconds=1)
    known = [
        moment
        for dataset, name in sorted(times)
        if dataset in frames
        for moment in held_column(frames[dataset][name], "timestamp")
        if moment is not None and moment <= limit
    ]
    begins = datetime(first.year, first.month, first.day, tzinfo=UTC)
    floor = (begins + timedelta(days=declared.lookback_days) + DAY - EPOCH) // timedelta(microseconds=1)
    keep = served.declared.keep // timedelta(microseconds=1)
    return max([floor, *([max(known) - keep] if known else [])])


def moment_text(moment: int) -> str:
    """Microseconds as an ISO text."""
    return (EPOCH + timedelta(microseconds=moment)).isoformat()
