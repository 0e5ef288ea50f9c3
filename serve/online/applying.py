"""Changed rows become changed runs and series: a store stays what its rows say. Pure.

Belongs here: which values of a store change when rows come, change or go. Does not belong here: their form
(``held.py``), committing them (``stores/``), where rows come from.

A row is known by its dataset and primary key: a new version of it takes the place of the old one, whichever
key, time or value it changed. What became known so long before the head's ``since`` that no event may ask
for it is left out of a run when the run changes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from serve.online.held import (
    Fact,
    HeldView,
    Run,
    RunRow,
    Series,
    Values,
    encode,
    join_key,
    row_key,
    run_bytes,
    series_bytes,
)

Puts = dict[str, bytes | None]
"""New values by key; None: the key goes."""
ReadMany = Callable[[Sequence[str]], Sequence[bytes | None]]
T = TypeVar("T", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Change:
    """A row as it is from now on, by its primary key; None: it is no more."""

    dataset: str
    identity: tuple[Any, ...]
    row: Values | None


def changed(held: HeldView, changes: Iterable[Change], read: ReadMany, *, since: int | None) -> Puts:
    """What a store has to take over, so that it holds the rows of ``changes`` instead of those before.

    Of several changes of one row the last one counts. ``read`` gives values that a store has now.
    """
    newest = {row_key(one.dataset, one.identity): one for one in changes}
    keys = list(newest)
    puts: Puts = {}
    lines = {line.number: _Moved[RunRow]() for line in held.lines}
    joins = {number: _Moved[Fact]() for number, _ in enumerate(held.view.joins)}
    for key, before in zip(keys, read(keys), strict=True):
        one = newest[key]
        columns = held.columns(one.dataset)
        old = None if before is None else row_of(columns, before)
        after = None if one.row is None else row_bytes(columns, one.row)
        if before == after:
            continue
        puts[key] = after
        _move(held, one.dataset, old, one.row, lines, joins)
    for line in held.lines:
        floor = None if since is None else since - line.window
        puts |= lines[line.number].applied(read, partial(_run_rows, len(line.values)), run_bytes, floor)
    for number, join in enumerate(held.view.joins):
        floor = None if since is None or join.tolerance_us is None else since - join.tolerance_us
        puts |= joins[number].applied(read, _facts, series_bytes, floor)
    return puts


def identity_of(key: str) -> tuple[Any, ...]:
    """The primary key of the row that lies at a key of ``row_key``."""
    return tuple(json.loads(key.partition(":")[2]))


def row_bytes(columns: Sequence[str], row: Values) -> bytes:
    """A row as a store holds it by itself."""
    return encode([row[name] for name in columns]).encode()


def row_of(columns: Sequence[str], content: bytes) -> dict[str, Any]:
    """The row that ``row_bytes`` made."""
    return dict(zip(columns, json.loads(content), strict=True))


class _Moved(Generic[T]):
    """What leaves and what enters the runs of one line, or the series of one join, by key."""

    def __init__(self) -> None:
        self.left: dict[str, Counter[T]] = defaultdict(Counter)
        self.entered: dict[str, list[T]] = defaultdict(list)

    def applied(
        self,
        read: ReadMany,
        content_of: Callable[[bytes | None], Sequence[T]],
        to_bytes: Callable[[Iterable[T]], bytes | None],
        floor: int | None,
    ) -> Puts:
        keys = list(dict.fromkeys([*self.left, *self.entered]))
        puts: Puts = {}
        for key, content in zip(keys, read(keys), strict=True):
            left = self.left[key]
            kept: list[T] = []
            for one in content_of(content):
                if left[one]:
                    left[one] -= 1
                else:
                    kept.append(one)
            now = [one for one in (*kept, *self.entered[key]) if floor is None or one[0] >= floor]
            made = to_bytes(now)
            if made != content:
                puts[key] = made
        return puts


def _move(
    held: HeldView,
    dataset: str,
    old: Values | None,
    new: Values | None,
    lines: Mapping[int, _Moved[RunRow]],
    joins: Mapping[int, _Moved[Fact]],
) -> None:
    for line in held.lines if dataset == held.view.base else ():
        for row, leaves in ((old, True), (new, False)):
            key = None if row is None else line.key(row)
            entry = None if row is None else held.entry(line, row)
            if key is not None and entry is not None:
                _note(lines[line.number], key, entry, leaves)
    for number, join in held.joins(dataset):
        for row, leaves in ((old, True), (new, False)):
            key = None if row is None else join_key(number, join, row)
            fact = None if row is None else _fact(row, join.timestamp, join.columns)
            if key is not None and fact is not None:
                _note(joins[number], key, fact, leaves)


def _run_rows(width: int, content: bytes | None) -> list[RunRow]:
    return Run(content, width).entries()


def _facts(content: bytes | None) -> list[Fact]:
    return Series(content).facts()


def _note(moved: _Moved[T], key: str, one: T, leaves: bool) -> None:
    if leaves:
        moved.left[key][one] += 1
    else:
        moved.entered[key].append(one)


def _fact(row: Values, timestamp: str | None, columns: Sequence[str]) -> Fact | None:
    """A row as it stands in a series; None: it is never known."""
    known = 0 if timestamp is None else row[timestamp]
    return None if known is None else (known, tuple(row[name] for name in columns))
