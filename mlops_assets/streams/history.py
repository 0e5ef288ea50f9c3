"""What the commits of a stream's table say: which days they touched, and whether something came between them.

Belongs here: the facts in a commit, judging a table's history by them. Does not belong here: reading and
writing the history (``resources/stream_table.py``).

``restore`` brings a table's old rows back and leaves the offsets where they are: the records between would
be neither in the table nor read again. Delta refuses no restore, so it is found in the history. Each commit
says which version it was made on, so none before it has to be looked at twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

KEY = "stream"
"""Name of the facts in a commit's metadata."""


@dataclass(frozen=True)
class CommitFacts:
    """``opened``: the version that was read before the commit. ``days``: event days that it has rows of.

    ``reached``: the next offset of each partition that it moved; ``partitions``: those the topic had then.
    ``complete``: Unix seconds up to which the topic is known to have nothing that the table has not; None:
    nobody knows. Commits of earlier versions of this code say none of the three. ``timezone``: the zone of
    the days; earlier versions knew UTC alone.
    """

    opened: int
    topic_id: str
    days: Sequence[str]
    rows: int
    run_id: str
    reached: Mapping[str, int] = field(default_factory=dict)
    partitions: Sequence[int] = ()
    complete: float | None = None
    timezone: str = "UTC"

    def metadata(self) -> dict[str, str]:
        """What a commit says in the table's history."""
        return {KEY: json.dumps(asdict(self)), "run_id": self.run_id}

    @staticmethod
    def of(entry: Mapping[str, Any]) -> "CommitFacts | None":
        """The facts of a commit in a table's history; None when it is no commit of records."""
        return CommitFacts(**json.loads(entry[KEY])) if KEY in entry else None


def newest_commit(history: Sequence[Mapping[str, Any]]) -> CommitFacts | None:
    """The newest commit of records; ``history`` begins with the newest entry."""
    return next((found for entry in history if (found := CommitFacts.of(entry)) is not None), None)


def newest_time(history: Sequence[Mapping[str, Any]]) -> float | None:
    """When the newest commit of records was made, in seconds since 1970; None when there is none."""
    return next((entry["timestamp"] / 1000 for entry in history if KEY in entry), None)


def restored(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The version that a restore made, or None. ``history`` begins with the newest entry.

    Looked at is what no earlier look has seen: all after the newest commit of records, and what came between
    it and the version it was made on.
    """
    newest = newest_commit(history)
    seen = newest.opened if newest is not None else -1
    for entry in history:
        if entry["version"] <= seen:
            return None
        if entry.get("operation") == "RESTORE":
            return int(entry["version"])
    return None


@dataclass(frozen=True)
class Since:
    """What a table got since it went up to some offsets.

    ``days`` None: its history does not tell. ``complete``: as of a commit, the newest that says it.
    """

    days: frozenset[str] | None
    complete: float | None


def since(history: Sequence[Mapping[str, Any]], applied: Mapping[int, int], *, whole: bool) -> Since | None:
    """What came after the offsets ``applied``; ``history`` begins with the newest entry.

    None: the entries do not reach back to what was applied. ``whole``: there are no earlier ones, so the
    history does not tell what it was.
    """
    days: set[str] = set()
    complete: float | None = None
    for facts in filter(None, map(CommitFacts.of, history)):
        complete = facts.complete if complete is None else complete
        if not facts.reached:
            return Since(None, complete)
        if all(applied.get(int(one), 0) >= offset for one, offset in facts.reached.items()):
            return Since(frozenset(days), complete)
        days |= set(facts.days)
    if not whole:
        return None
    return Since(None if applied else frozenset(days), complete)
