"""The prediction log as a resource: find one answer, read a time range, make few files of many.

Belongs here: reading what gateways logged. Does not belong here: the columns, the layout and the writing
(``serve/inference_log.py``), what an answer goes back to (``commands/explain.py``), which files of an
hour count (``resources/log_hour.py``), drift.

The log is ``<uri>/<deployment>/dt=YYYY-MM-DD/hr=HH/*.parquet``, days and hours in UTC. Only the hours
asked for are listed and read. A folder that is empty or absent holds no answers, which is not an error; a
file that cannot be read is one. Names that start with a dot are files being written, and are left alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field, PrivateAttr

from mlops_assets.data.locations import S3, s3_filesystem
from mlops_assets.errors import DataError, UnknownName
from mlops_assets.resources.conditional_store import ConditionalStore
from mlops_assets.resources.lake import BATCH_ROWS, Lake, S3Config
from mlops_assets.resources.log_hour import TRIES, Compaction, LogFile, LogHour, one_at_a_time

if TYPE_CHECKING:
    import pyarrow as pa

Taken = TypeVar("Taken")

HOUR = timedelta(hours=1)
MAX_FOUND = 20
FOUND_WITHIN = timedelta(days=7)
AHEAD = 4
"""Files and batches that are read ahead of the one in use: most files of the log are small."""


@dataclass(frozen=True)
class LogStats:
    """What one deployment's log holds. ``first_hour`` and ``last_hour`` are None when it holds nothing."""

    folder: str
    files: int
    size_bytes: int
    first_hour: datetime | None
    last_hour: datetime | None

    def __str__(self) -> str:
        if self.first_hour is None or self.last_hour is None:
            return f"{self.folder} (no files)"
        times = f"{self.first_hour:%Y-%m-%d %H:%M} to {self.last_hour + HOUR:%Y-%m-%d %H:%M} UTC"
        return f"{self.folder} ({self.files} files, {times})"


class InferenceLog(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Answers that gateways logged, under one root."""

    uri: str = Field(description="Root of the log: a local path or s3://bucket/prefix.")
    s3: S3Config = Field(
        default_factory=S3Config, description="The store, when the root is s3://. Not used otherwise."
    )
    flush_interval_s: float = Field(
        default=1.0, description="How long gateways keep rows before they write them."
    )

    _opened: Any = PrivateAttr(default=None)
    _conditional: ConditionalStore | None = PrivateAttr(default=None)

    def deployments(self) -> list[str]:
        """Names of the deployments that have a folder in the log."""
        return sorted(name for name in self._folders(self._path()) if not name.startswith("."))

    def find(
        self,
        deployment: str,
        asked: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The logged rows of every answer that has ``asked`` as its answer id or its request id: the newest
        answer first, and of each its shadows' rows last. ``features`` and ``entity`` are dicts.

        An answer id has one answer. A caller may use a request id for many: the newest ``MAX_FOUND`` are
        given, none more than ``FOUND_WITHIN`` older than the newest. Hours are searched newest first, only
        as far as that needs; ``since`` and ``until`` (with a zone) narrow them.
        """
        import pyarrow.compute as pc

        own, of_caller = pc.field("answer_id"), pc.field("request_id")
        named = (own == asked) | (of_caller == asked)
        found: dict[str, list[dict[str, Any]]] = {}
        searched_from: datetime | None = None
        is_own = False
        for hour in self._hours(deployment, newest_first=True):
            if (since and hour + HOUR <= since) or (until and hour > until):
                continue
            if searched_from is not None and hour < searched_from:
                break
            # Without the rows first: there can be a million with the same request id.
            heads = self._read(deployment, [hour], ["answer_id", "request_id", "at"], named).to_pylist()
            if not heads:
                continue
            if any(head["answer_id"] == asked for head in heads):
                # Whoever else used it as the name of a request is not meant.
                found, is_own = {asked: found.get(asked, [])}, True
            for head in sorted(heads, key=lambda head: head["at"], reverse=True):
                if not is_own and len(found) < MAX_FOUND:
                    found.setdefault(_identity(head), [])
            wanted = named & pc.coalesce(own, of_caller).isin(list(found))
            for row in self._read(deployment, [hour], None, wanted).to_pylist():
                found[_identity(row)].append(row)
            if searched_from is None:
                searched_from = hour - FOUND_WITHIN
            if is_own or len(found) == MAX_FOUND:
                # A shadow's answer can fall into the next hour.
                searched_from = max(searched_from, hour - HOUR)
        answers = [_answer(rows) for rows in found.values()]
        return sorted(answers, key=lambda rows: rows[0]["at"], reverse=True)

    def frame(
        self,
        deployment: str,
        start: datetime,
        end: datetime,
        columns: Sequence[str] | None = None,
    ) -> "pa.Table":
        """Rows answered from ``start`` (inclusive) to ``end`` (exclusive), in no particular order.

        All columns if None; ``features`` is JSON text. Both times carry a zone. Raises UnknownName for a
        column that the log does not have.
        """
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("start and end of a range of the prediction log need a time zone")
        hours = self._hours_between(deployment, start, end)
        return self._read(deployment, hours, columns, _answered_between(start, end))

    def day(self, deployment: str, day: date, columns: Sequence[str] | None = None) -> "pa.Table":
        """All rows answered on one day, UTC, in no particular order; otherwise as ``frame``."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return self.frame(deployment, start, start + timedelta(days=1), columns)

    def read_day(self, deployment: str, day: date, take: "Callable[[Iterator[pa.Table]], Taken]") -> "Taken":
        """What ``take`` makes of the rows answered on one day, UTC, in no particular order and all columns.

        The rows come some ten thousand at a time. ``take`` is called anew, with all of them, when a
        compaction replaces a file while it is being read.
        """
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        hours = self._hours_between(deployment, start, start + timedelta(days=1))
        within = _answered_between(start, start + timedelta(days=1))
        return self._reading(deployment, hours, lambda files: take(self._batches(files, within)))

    def compact(self, deployment: str, *, before: datetime, since: datetime | None = None) -> Compaction:
        """Makes one file of the many small ones of every hour that ended by ``before``, and began at or
        after ``since``; what it did. Readers meanwhile, and after a crash, find every row once.

        Answers that come late for an hour are small files again, until the next compaction. Two may run at
        the same time: in a local folder one waits for the other, in an object store the first one counts.
        Both times carry a zone. Raises DataError naming the hours that could not be compacted, after all
        others are done; for an object store that ignores conditional writes before any is begun.
        """
        if before.tzinfo is None or (since is not None and since.tzinfo is None):
            raise ValueError("the times of a compaction of the prediction log need a time zone")
        done = Compaction()
        failed: list[str] = []
        hours = [
            hour
            for hour in self._hours(deployment, newest_first=False)
            if hour + HOUR <= before and (since is None or hour >= since)
        ]
        if not hours:
            return done
        store = self._conditional_store() if self.uri.startswith(S3) else None
        if store is not None:
            store.require_conditions(self._path())
        with one_at_a_time(self._path(deployment)) if store is None else nullcontext():
            for hour in hours:
                try:
                    done += self._hour(deployment, hour).compact(log_schema(), store)
                except DataError as error:
                    failed.append(str(error))
        if failed:
            raise DataError(f"{len(failed)} hours of {self.folder(deployment)}: {'; '.join(failed[:3])}")
        return done

    def stats(self, deployment: str) -> LogStats:
        """Files, bytes and hours of one deployment; lists the whole folder."""
        hours = self._hours(deployment, newest_first=False)
        files = [file for hour in hours for file in self._files(deployment, hour)]
        held = [file.hour for file in files]
        return LogStats(
            folder=self.folder(deployment),
            files=len(files),
            size_bytes=sum(file.size_bytes for file in files),
            first_hour=min(held, default=None),
            last_hour=max(held, default=None),
        )

    def last_files(self, deployment: str, count: int = 10) -> list[LogFile]:
        """The newest files, newest first."""
        found: list[LogFile] = []
        for hour in self._hours(deployment, newest_first=True):
            found.extend(sorted(self._files(deployment, hour), key=lambda file: file.path, reverse=True))
            if len(found) >= count:
                break
        return found[:count]

    def folder(self, deployment: str = "") -> str:
        """Where a deployment's answers are (the root without one), absolute."""
        import os.path

        root = self.uri if self.uri.startswith(S3) else os.path.abspath(self.uri.removeprefix("file://"))
        return "/".join(part for part in (root.rstrip("/"), deployment) if part)

    def _hours(self, deployment: str, *, newest_first: bool) -> Iterator[datetime]:
        """Hours that have a folder; days are listed only as far as the caller goes on."""
        root = self._path(deployment)
        for day in sorted(self._folders(root), reverse=newest_first):
            if not day.startswith("dt="):
                continue
            for hour in sorted(self._folders(f"{root}/{day}"), reverse=newest_first):
                if hour.startswith("hr="):
                    yield datetime.strptime(f"{day[3:]} {hour[3:]}", "%Y-%m-%d %H").replace(tzinfo=UTC)

    def _files(self, deployment: str, hour: datetime) -> list[LogFile]:
        return self._hour(deployment, hour).files()

    def _hour(self, deployment: str, hour: datetime) -> LogHour:
        folder = f"{self._path(deployment)}/{hour:dt=%Y-%m-%d/hr=%H}"
        return LogHour(self._filesystem(), folder, hour, is_local=not self.uri.startswith(S3))

    def _folders(self, path: str) -> list[str]:
        from pyarrow import fs

        return [found.base_name for found in self._listed(path) if found.type == fs.FileType.Directory]

    def _listed(self, path: str) -> list[Any]:
        from pyarrow import fs

        return list(self._filesystem().get_file_info(fs.FileSelector(path, allow_not_found=True)))

    def _read(
        self, deployment: str, hours: Sequence[datetime], columns: Sequence[str] | None, condition: Any
    ) -> "pa.Table":
        """Rows of these hours that fit; files are read side by side, and only the columns needed."""
        schema = log_schema()
        unknown = sorted(set(columns or ()) - set(schema.names))
        if unknown:
            raise UnknownName("column of the prediction log", unknown[0], schema.names)
        wanted = list(columns) if columns is not None else None
        return self._reading(deployment, hours, lambda files: self._table(files, schema, wanted, condition))

    def _reading(
        self, deployment: str, hours: Sequence[datetime], take: "Callable[[Sequence[LogFile]], Taken]"
    ) -> "Taken":
        """What ``take`` makes of the files of these hours; anew when they were replaced meanwhile."""
        files = self._listed_files(deployment, hours)
        for _ in range(TRIES):
            try:
                return take(files)
            except (OSError, ValueError) as error:  # Arrow's errors are among these, and name the file.
                failed = error
            # A compaction may have replaced a file since it was listed. A store says so in many ways: an
            # object that is deleted while it is read only ends too early.
            now = self._listed_files(deployment, hours)
            if {file.path for file in files} <= {file.path for file in now}:
                break
            files = now
        raise DataError(f"Cannot read the prediction log {self.folder()}: {failed}") from failed

    def _listed_files(self, deployment: str, hours: Sequence[datetime]) -> list[LogFile]:
        """The files of these hours; listed again when a compaction replaces some meanwhile."""
        for _ in range(TRIES):
            try:
                return [file for hour in hours for file in self._files(deployment, hour)]
            except FileNotFoundError as error:
                gone = error
        raise DataError(f"Cannot list the prediction log {self.folder()}: {gone}") from gone

    def _table(
        self, files: Sequence[LogFile], schema: "pa.Schema", wanted: list[str] | None, condition: Any
    ) -> "pa.Table":
        import pyarrow.dataset as ds

        if not files:
            empty = schema.empty_table()
            return empty if wanted is None else empty.select(wanted)
        dataset = ds.dataset(
            [file.path for file in files], schema=schema, format="parquet", filesystem=self._filesystem()
        )
        return dataset.to_table(columns=wanted, filter=condition)

    def _batches(self, files: Sequence[LogFile], condition: Any) -> "Iterator[pa.Table]":
        """Rows of these files that fit, ``BATCH_ROWS`` and more at a time: a minute's file holds few."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        if not files:
            return
        schema = log_schema()
        dataset = ds.dataset(
            [file.path for file in files], schema=schema, format="parquet", filesystem=self._filesystem()
        )
        waiting: list[Any] = []
        for batch in dataset.to_batches(
            filter=condition, batch_size=BATCH_ROWS, batch_readahead=AHEAD, fragment_readahead=AHEAD
        ):
            waiting.append(batch)
            if sum(one.num_rows for one in waiting) >= BATCH_ROWS:
                yield pa.Table.from_batches(waiting, schema)
                waiting = []
        yield pa.Table.from_batches(waiting, schema)

    def _hours_between(self, deployment: str, start: datetime, end: datetime) -> list[datetime]:
        return [
            hour for hour in self._hours(deployment, newest_first=False) if hour < end and hour + HOUR > start
        ]

    def _path(self, deployment: str = "") -> str:
        return self.folder(deployment).removeprefix(S3)

    def _filesystem(self) -> Any:
        """The store, opened once per resource."""
        from pyarrow import fs

        if self._opened is None:
            is_s3 = self.uri.startswith(S3)
            self._opened = s3_filesystem(self._storage_options()) if is_s3 else fs.LocalFileSystem()
        return self._opened

    def _conditional_store(self) -> ConditionalStore:
        """The same store for conditional writes, opened once per resource."""
        if self._conditional is None:
            self._conditional = ConditionalStore(self._storage_options())
        return self._conditional

    def _storage_options(self) -> dict[str, str]:
        # Where credentials come from is the lake's business, also for this folder.
        return Lake(uri=self.uri, s3=self.s3).storage_options()


def _identity(row: Mapping[str, Any]) -> str:
    """What tells an answer from others; before answers had an id of their own, the request's."""
    return str(row["request_id"] if row["answer_id"] is None else row["answer_id"])


def _answer(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        row["features"] = json.loads(row["features"])
        row["entity"] = None if row["entity"] is None else json.loads(row["entity"])
    return sorted(rows, key=lambda row: (row["variant"] == "shadow", row["at"], row["row"]))


def _answered_between(start: datetime, end: datetime) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    first, last = (pa.scalar(time.astimezone(UTC), pa.timestamp("us", tz="UTC")) for time in (start, end))
    return (pc.field("at") >= first) & (pc.field("at") < last)


def log_schema() -> "pa.Schema":
    """The columns of the log, as ``serve/inference_log.py`` writes them (a test compares the two)."""
    import pyarrow as pa

    return pa.schema(
        [
            ("answer_id", pa.string()),
            ("request_id", pa.string()),
            ("row", pa.int32()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("unit", pa.string()),
            ("entity", pa.string()),
            ("variant", pa.string()),
            ("version", pa.string()),
            ("revision", pa.int64()),
            ("weight", pa.int32()),
            ("endpoint", pa.string()),
            ("latency_ms", pa.float64()),
            ("features", pa.string()),
            ("score", pa.float64()),
            ("scores", pa.list_(pa.float64())),
            ("fell_back_from", pa.string()),
            ("request", pa.string()),
            ("online", pa.string()),
        ]
    )
