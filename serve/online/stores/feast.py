"""A feature store of Feast (0.67): for those who have one, and want these rows in its online database.

Belongs here: what Feast is told there is, how rows become visible in a store that writes one row at a time,
how it is reached. Does not belong here: what is held (``serve/online/held.py``).

Per view Feast gets an entity (its join key is our key), a feature view with one feature, the value as bytes,
a push source and a feature service. Feast has no transaction over rows and no delete, so a row holds two
values, each with the generation of the commit that wrote it: the newest, and the one before. The row of the
head is written last, with the generation that counts from then on; a reader takes of each row the newest
value that is not newer than its head. A generation whose writer died never counts. Feast cannot list keys
either: rows of their own hold them, in ``BUCKETS`` parts.

What Feast cannot promise stands in ``weaker``. Besides: what is deleted goes on taking space, and the online
database must show writes in the order they were made, as Feast's SQLite, Redis and PostgreSQL do. How long a
read takes at most is what that database is told in Feast's settings.
"""

import importlib.util
import json
import os
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from serve.online.held import HEAD
from serve.online.stores._base import Content, Guarantee, OnlineStore, StoreLost, StoreMoved, StoreNotSetUp

VARIABLE = "MLOPS_ONLINE_FEAST_REPO"
"""Environment variable with the folder of the feature repository."""
SETTINGS = "feature_store.yaml"
KEYED, LISTED, HEAD_ROW, BEGUN_ROW = "k:", "l:", "head", "begun"
"""Keys in Feast: of values, of lists of keys, of the head, of the commit that began last."""
BUCKETS = 64
PIECE_ROWS, PIECE_BYTES = 1_000, 4 << 20
TRIES = 20
FIRST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
"""A row's time for Feast is this and a second per generation, for databases that keep the newest row."""
_SLOT = struct.Struct("<q?q")
_LENGTH = struct.Struct("<q")
_MULTIPROCESS = "PROMETHEUS_MULTIPROCESS_DIR"


@dataclass(frozen=True)
class _Slot:
    """A value, None where the key is gone, and the generation that wrote it."""

    generation: int
    value: Content


@dataclass(frozen=True)
class _Row:
    """What a row holds, the newest first."""

    newest: _Slot
    before: _Slot | None

    def to_bytes(self) -> bytes:
        slots = [self.newest, *([self.before] if self.before else [])]
        return b"".join(
            _SLOT.pack(one.generation, one.value is not None, len(one.value or b"")) + (one.value or b"")
            for one in slots
        )

    @classmethod
    def of(cls, content: bytes) -> "_Row":
        slots, start = [], 0
        while start < len(content):
            generation, there, length = _SLOT.unpack_from(content, start)
            start += _SLOT.size
            slots.append(_Slot(generation, content[start : start + length] if there else None))
            start += length
        return cls(slots[0], slots[1] if len(slots) > 1 else None)


@dataclass(frozen=True)
class _Head:
    """Which generations count: from ``first`` to ``generation``, less the ``ended``, whose writers died."""

    generation: int
    first: int
    ended: tuple[int, ...]
    content: bytes

    def to_bytes(self) -> bytes:
        facts = json.dumps([self.generation, self.first, self.ended]).encode()
        return _LENGTH.pack(len(facts)) + facts + self.content

    @classmethod
    def of(cls, row: bytes) -> "_Head":
        (length,) = _LENGTH.unpack_from(row)
        start = _LENGTH.size
        generation, first, ended = json.loads(row[start : start + length])
        return cls(generation, first, tuple(ended), row[start + length :])

    def shows(self, slot: _Slot) -> bool:
        return self.first <= slot.generation <= self.generation and slot.generation not in self.ended

    def slot(self, row: bytes | None) -> _Slot | None:
        """What the row holds under this head, None for nothing. Raises _Overtaken when that is gone."""
        if row is None:
            return None
        held = _Row.of(row)
        if self.shows(held.newest):
            return held.newest
        if held.before is None or self.shows(held.before):
            return held.before
        if held.before.generation > self.generation:
            raise _Overtaken
        return None

    def value(self, row: bytes | None) -> Content:
        slot = self.slot(row)
        return None if slot is None else slot.value


class _Overtaken(Exception):
    """Two commits were made since the head was read."""


class FeastStore(OnlineStore):
    """``MLOPS_ONLINE_FEAST_REPO`` names the folder with ``feature_store.yaml``; ``uri`` says nothing here."""

    name: ClassVar[str] = "feast"
    waits: ClassVar[bool] = True
    weaker: ClassVar[Mapping[Guarantee, str]] = {
        "fence": "Feast cannot compare and set: of two writers at once the one that began first is refused, "
        "but for the moment between its last look and its head. Let one run at a time fill a view."
    }

    def __init__(self, uri: str, *, view: str) -> None:
        self.check_installed()
        self._folder = _folder()
        self._view = view
        self._feast_name = f"mlops_{re.sub(r'[^0-9A-Za-z]', '_', view)}"
        self._opened: Any = None
        self._service: Any = None
        self._head: _Head | None = None

    @classmethod
    def check_installed(cls) -> None:
        if importlib.util.find_spec("feast") is None:
            raise StoreNotSetUp(
                "The online store 'feast' needs Feast, which is not installed: install the extra 'feast' "
                "(pip install 'mlops-assets[feast]') in an environment of its own (requirements-feast.lock)."
            )

    def read(self, keys: Sequence[str]) -> list[Content]:
        return self._read_state(keys)[1]

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        for _ in range(TRIES):
            head, lists = self._read_lists()
            found = sorted(key for names in lists.values() for key in names if key.startswith(prefix))
            after, values = self._read_state(found)
            if after == head:
                break
        else:
            raise StoreLost(f"{self._told()} was written to whenever it was scanned; try again.")
        yield from ((key, value) for key, value in zip(found, values, strict=True) if value is not None)
        if head is not None and HEAD.startswith(prefix):
            yield HEAD, head.content

    def commit(
        self, puts: Mapping[str, Content], *, head: bytes, expected: Content, clear: bool = False
    ) -> None:
        self._declare()
        before = self._read_head()
        if (None if before is None else before.content) != expected:
            raise self._moved()
        after = self._begin(before, head, clear=clear)
        for piece in _pieces(self._changes(puts, before, after, clear=clear)):
            self._push(piece, after.generation)
        # Nobody else may have begun or ended meanwhile; between here and the next line nothing is sure.
        if self._begun()[0] != after.generation or self._read_head() != before:
            raise self._moved()
        self._push({HEAD_ROW: after.to_bytes()}, after.generation)
        if self._read_head() != after:
            raise StoreLost(f"{self._told()} did not take the head of a commit; see its online database.")

    def close(self) -> None:
        self._opened = self._service = None

    # -- states ------------------------------------------------------------------------------------

    def _read_state(self, keys: Sequence[str]) -> tuple[_Head | None, list[Content]]:
        """Values of one moment, with the head of it."""
        for _ in range(TRIES):
            # What is written while rows are read is newer than a head that was read before them.
            head = self._head = self._head or self._read_head()
            found: list[Content] = []
            for part in _parts(keys):
                *rows, now = self._get([*(f"{KEYED}{key}" for key in part), HEAD_ROW])
                after = None if now is None else _Head.of(now)
                if after != head:
                    self._head = after
                    break
                try:
                    found += [None if head is None else head.value(row) for row in rows]
                except _Overtaken:
                    break
            else:
                content = None if head is None else head.content
                return head, [
                    content if key == HEAD else value for key, value in zip(keys, found, strict=True)
                ]
        raise StoreLost(f"{self._told()} was written to whenever it was read; try again.")

    def _read_head(self) -> _Head | None:
        [row] = self._get([HEAD_ROW])
        return None if row is None else _Head.of(row)

    def _read_lists(self) -> tuple[_Head | None, dict[int, set[str]]]:
        """All keys, by their bucket; as of the head, which is read before them."""
        for _ in range(TRIES):
            head = self._read_head()
            if head is None:
                return None, {}
            rows = self._get([f"{LISTED}{bucket}" for bucket in range(BUCKETS)])
            try:
                values = [head.value(row) for row in rows]
            except _Overtaken:
                continue
            return head, {bucket: _names(value) for bucket, value in enumerate(values)}
        raise StoreLost(f"{self._told()} was written to whenever it was read; try again.")

    def _begun(self) -> tuple[int, list[int]]:
        """The generation of the commit that began last, and those that had ended without a head before it."""
        [row] = self._get([BEGUN_ROW])
        generation, ended = (0, []) if row is None else json.loads(row)
        return generation, ended

    def _begin(self, before: _Head | None, content: bytes, *, clear: bool) -> _Head:
        """The head that a commit will have, after saying that it begins."""
        reached = 0 if before is None else before.generation
        begun, ended = self._begun()
        if begun > reached:
            ended = [*ended, begun]
        generation = max(reached, begun) + 1
        first = generation if clear or before is None else before.first
        self._push({BEGUN_ROW: json.dumps([generation, ended]).encode()}, generation)
        return _Head(generation, first, tuple(one for one in ended if one >= first), content)

    def _changes(
        self, puts: Mapping[str, Content], before: _Head | None, after: _Head, *, clear: bool
    ) -> Iterator[tuple[str, bytes]]:
        """New rows: of the values, and of the lists of keys that change."""
        lists = {} if clear else self._read_lists()[1]
        moved: dict[int, set[str]] = defaultdict(set)
        for key, value in puts.items():
            bucket = zlib.crc32(key.encode()) % BUCKETS
            names = moved[bucket] if bucket in moved else set(lists.get(bucket, ()))
            (names.discard if value is None else names.add)(key)
            moved[bucket] = names
        rows: dict[str, Content] = {f"{KEYED}{key}": value for key, value in puts.items()}
        rows |= {
            f"{LISTED}{bucket}": zlib.compress(json.dumps(sorted(names)).encode())
            for bucket, names in moved.items()
            if names != lists.get(bucket, set())
        }
        for part in _parts(list(rows)):
            held = [None] * len(part) if before is None else self._get(part)
            for key, row in zip(part, held, strict=True):
                # What readers of the former head go on seeing.
                slot = None if before is None else before.slot(row)
                yield key, _Row(_Slot(after.generation, rows[key]), slot).to_bytes()

    # -- Feast -------------------------------------------------------------------------------------

    def _declare(self) -> None:
        """Tells Feast what there is of the view, unless it knows."""
        with self._told_errors():
            store = self._store()
            store.refresh_registry()
            if self._feast_name not in {one.name for one in store.list_feature_services()}:
                store.apply(self._declared())

    def _declared(self) -> list[Any]:
        feast = _library()
        entity = feast.Entity(
            name=f"{self._feast_name}_key", join_keys=["key"], value_type=feast.ValueType.STRING
        )
        # Nothing is ever read from the file: what the lake holds is pushed.
        batch = feast.FileSource(path=f"{self._feast_name}.parquet", timestamp_field="at")
        view = feast.FeatureView(
            name=self._feast_name,
            entities=[entity],
            schema=[feast.Field(name="value", dtype=feast.types.Bytes)],
            # Feast ignores it online; what is too old for an event is left out when that is computed.
            ttl=timedelta(0),
            source=feast.PushSource(name=f"{self._feast_name}_push", batch_source=batch),
            tags={"made_by": "mlops-assets", "view": self._view},
        )
        return [entity, view, feast.FeatureService(name=self._feast_name, features=[view])]

    def _store(self) -> Any:
        if self._opened is None:
            if not (self._folder / SETTINGS).is_file():
                raise StoreLost(f"{self._told()} cannot be used: the folder has no {SETTINGS}. {_ADVICE}")
            self._opened = _library().FeatureStore(repo_path=str(self._folder))
        return self._opened

    def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Rows as Feast has them."""
        if not keys:
            return []
        with self._told_errors():
            rows = [{"key": key} for key in keys]
            return self._store().get_online_features(self._known_service(), rows).to_dict()["value"]

    def _known_service(self) -> Any:
        from feast.errors import FeatureServiceNotFoundException

        if self._service is None:
            try:
                self._service = self._store().get_feature_service(self._feast_name)
            except FeatureServiceNotFoundException:
                # It may have been declared after this process read what there is.
                self._store().refresh_registry()
                self._service = self._store().get_feature_service(self._feast_name)
        return self._service

    def _push(self, rows: Mapping[str, bytes], generation: int) -> None:
        import pandas as pd
        from feast.data_source import PushMode

        with self._told_errors():
            moment = FIRST_MOMENT + timedelta(seconds=generation)
            frame = pd.DataFrame({"key": list(rows), "value": list(rows.values()), "at": moment})
            self._store().push(f"{self._feast_name}_push", frame, to=PushMode.ONLINE)

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except (StoreLost, StoreMoved):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the database raises that Feast was given
            self.close()
            # Without the error itself: it may repeat a setting that is a secret.
            text = f"{type(error).__name__}: {' '.join(self._without_secrets(str(error)).split())}"
            raise StoreLost(f"{self._told()} cannot be used: {text.rstrip('.')}. {_ADVICE}") from None

    def _without_secrets(self, text: str) -> str:
        """The text with the variable in place of its value, for those that the settings name."""
        settings = self._folder / SETTINGS
        named = re.findall(r"\$\{?(\w+)\}?", settings.read_text("utf-8")) if settings.is_file() else []
        for variable in named:
            if value := os.environ.get(variable):
                text = text.replace(value, f"${variable}")
        return text

    def _told(self) -> str:
        return f"The online store {self._view} in Feast at {self._folder} (environment variable {VARIABLE})"

    def _moved(self) -> StoreMoved:
        return StoreMoved(f"{self._told()} was written meanwhile; read its head and try again.")


_ADVICE = (
    "See that the folder, its registry and its online database are there; the store is filled by the asset "
    "<view>_online_features."
)


def _folder() -> Path:
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        raise StoreNotSetUp(
            f"Environment variable {VARIABLE} is not set: it names the folder of a Feast feature repository, "
            f"with its {SETTINGS}. Set it where gateways (Ray) and runs (Dagster) start."
        )
    return Path(folder).absolute()


def _library() -> Any:
    # First: Feast sets the variable by which this client writes its numbers to files, for all of a process.
    import prometheus_client  # noqa: F401

    before = os.environ.get(_MULTIPROCESS)
    import feast
    import feast.types

    if before is None:
        os.environ.pop(_MULTIPROCESS, None)
    return feast


def _names(value: Content) -> set[str]:
    return set() if value is None else set(json.loads(zlib.decompress(value)))


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (keys[start : start + PIECE_ROWS] for start in range(0, max(1, len(keys)), PIECE_ROWS))


def _pieces(rows: Iterable[tuple[str, bytes]]) -> Iterator[dict[str, bytes]]:
    piece: dict[str, bytes] = {}
    size = 0
    for key, row in rows:
        piece[key] = row
        size += len(row)
        if len(piece) >= PIECE_ROWS or size > PIECE_BYTES:
            yield piece
            piece, size = {}, 0
    if piece:
        yield piece
