"""The prediction log: what is refused, what is kept, what a kill costs. No Ray, real files."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from serve.inference_log import SCHEMA, Answered, LocalFolder, PredictionLog, Store, batches_by_hour
from serve.schema import PredictionLogArgs

AT = datetime(2026, 3, 1, 23, 59, 59, 250_000, tzinfo=UTC).timestamp()


def answered(request_id: str = "r1", **changes: Any) -> Answered:
    made = Answered(
        at=AT,
        answer_id=f"own-{request_id}",
        request_id=request_id,
        unit="ana",
        variant="canary",
        version="v2",
        revision=7,
        weight=1_000,
        endpoint="/predict",
        latency_s=0.0125,
        rows=[{"distance": 1_400, "origin": "JFK", "temp": None}],
        scores=[0.25],
    )
    return made._replace(**changes)


def log_in(
    folder: Path, store: Store | None = None, told: list[Any] | None = None, **args: Any
) -> PredictionLog:
    heard: list[Any] = [] if told is None else told
    return PredictionLog(
        PredictionLogArgs(uri=str(folder), **args),
        deployment="flights",
        replica="r/1",
        on_logged=lambda rows: heard.append(("logged", rows)),
        on_dropped=lambda rows: heard.append(("dropped", rows)),
        store=store,
    )


def read(folder: Path) -> list[dict[str, Any]]:
    """Rows of every whole file, as any Parquet reader finds them."""
    files = sorted(str(file) for file in folder.rglob("[!.]*.parquet"))
    return ds.dataset(files, schema=SCHEMA).to_table().to_pylist() if files else []


class Failing(Store):
    """A store that is away until ``answers`` is set, and then a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.answers, self.tried = LocalFolder(str(folder)), False, threading.Semaphore(0)
        self.paths: list[str] = []

    def write(self, path: str, content: pa.Buffer) -> None:
        self.paths.append(path)
        self.tried.release()
        if not self.answers:
            raise OSError("No space left on device")
        self.folder.write(path, content)


class Blocked(Store):
    """A store whose writes last until they are let through."""

    def __init__(self) -> None:
        self.begun, self.through = threading.Event(), threading.Event()

    def write(self, path: str, content: pa.Buffer) -> None:
        self.begun.set()
        assert self.through.wait(30)


# -- what is refused ---------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_counts_exactly() -> None:
    store = Blocked()
    log = log_in(Path("/nowhere"), store, max_queued_rows=10, flush_interval_s=0.01)
    try:
        three = [{"x": 1}] * 3
        assert [log.put(answered(rows=three, scores=[0.1] * 3)) for _ in range(4)] == [
            True,
            True,
            True,
            False,
        ]
        assert store.begun.wait(10)
        # A row fits still, and being written frees nothing: the rows are in memory until it is done.
        assert [log.put(answered()), log.put(answered())] == [True, False]
        assert (log.queued, log.dropped, log.logged) == (10, 4, 0)
    finally:
        store.through.set()
        log.close()
    assert (log.queued, log.dropped, log.logged) == (0, 4, 10)


def test_an_answer_with_more_rows_than_the_bound_is_dropped_whole(tmp_path: Path) -> None:
    log = log_in(tmp_path, max_queued_rows=2)
    assert not log.put(answered(rows=[{}] * 3, scores=[0.1] * 3))
    log.close()
    assert (log.dropped, log.logged, read(tmp_path)) == (3, 0, [])


def test_nothing_is_taken_after_close(tmp_path: Path) -> None:
    told: list[Any] = []
    log = log_in(tmp_path, told=told)
    log.put(answered(rows=[{}, {}], scores=[0.1, 0.2]))
    log.close()
    assert not log.put(answered()) and log.dropped == 1
    log.close()
    assert told == [("logged", 2), ("dropped", 1)]


def test_a_broken_row_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = log_in(tmp_path)
    for made in (
        answered("good-1"),
        answered("not-json", rows=[{"x": {1, 2}}]),  # type: ignore[dict-item]
        answered("no-score", rows=[{}, {}]),
        answered("no-time", at=float("nan")),
        answered("text", scores=["high"]),
        answered("too-few-keys", rows=[{}, {}], scores=[0.1, 0.2], entities=[{"id": 1}]),
        answered("good-2"),
    ):
        assert log.put(made)
    log.close()
    assert [row["request_id"] for row in read(tmp_path)] == ["good-1", "good-2"]
    assert (log.logged, log.dropped, log.queued, log.problem) == (2, 7, 0, None)
    assert all(name in caplog.text for name in ("not-json", "no-score", "no-time", "text"))


# -- a store that is away ----------------------------------------------------------------------------


def test_rows_wait_for_a_store_that_is_away_and_are_written_once(tmp_path: Path) -> None:
    store = Failing(tmp_path)
    log = log_in(tmp_path, store, max_queued_rows=5, flush_interval_s=0.02)
    log.put(answered("first"))
    assert store.tried.acquire(timeout=10) and store.tried.acquire(timeout=10)
    with pytest.raises(TimeoutError, match=r"1 rows .* No space left on device"):
        log.flush(0.05)
    assert log.problem == "OSError: No space left on device" and log.failed_writes >= 1
    taken = [log.put(answered(f"later-{number}")) for number in range(6)]
    assert taken == [True] * 4 + [False] * 2 and log.dropped == 2
    store.answers = True
    log.flush(10)
    assert log.put(answered("after"))
    log.close()
    assert log.problem is None and (log.logged, log.dropped, log.queued) == (6, 2, 0)
    names = sorted(row["request_id"] for row in read(tmp_path))
    assert names == ["after", "first", "later-0", "later-1", "later-2", "later-3"]
    # The same name each time: a write that failed after all was stored cannot be there twice.
    assert (
        len({path for path in store.paths if path == store.paths[0]}) == 1 < store.paths.count(store.paths[0])
    )


@pytest.mark.parametrize("step", ["batches_by_hour", "pq.write_table"])
def test_no_row_is_lost_when_making_a_file_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    failures = iter([MemoryError("no memory"), MemoryError("no memory")])
    works = batches_by_hour if step == "batches_by_hour" else pq.write_table

    def failing(*arguments: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return works(*arguments, **options)

    monkeypatch.setattr(f"serve.inference_log.{step}", failing)
    log = log_in(tmp_path, flush_interval_s=0.02)
    assert log.put(answered("first"))
    log.flush(10)
    log.close()
    assert log.failed_writes == 2 and (log.logged, log.dropped, log.queued) == (1, 0, 0)
    assert [row["request_id"] for row in read(tmp_path)] == ["first"]


def test_what_close_cannot_write_is_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_in(tmp_path, Failing(tmp_path))
    log.put(answered(rows=[{}, {}], scores=[0.1, 0.2]))
    log.close(timeout_s=0.05)
    assert (log.logged, log.dropped, log.queued) == (0, 2, 0)
    assert "ends with 2 rows not written: OSError: No space left on device" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_problem_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "flights").write_text("a file where the folder should be")
    log = log_in(tmp_path, flush_interval_s=0.01)
    assert log.put(answered())
    with pytest.raises(TimeoutError):
        log.flush(0.2)
    assert "NotADirectoryError" in str(log.problem) or "FileExistsError" in str(log.problem)
    (tmp_path / "flights").unlink()
    log.flush(10)
    log.close()
    assert len(read(tmp_path)) == 1 and log.dropped == 0


# -- what is written ---------------------------------------------------------------------------------


def test_every_column_of_an_answer_comes_back(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.put(
        answered(
            rows=[{"name": "Zoë", "x": 1}, {"name": None, "x": 2.5}],
            scores=[0.25, 1.0],
            fell_back_from="v3",
            entities=[{"id": "Zoë"}, None],
            requests=[{"name": "Zoë", "at": "2013-12-31"}, {"name": None, "at": None}],
            knew='{"view":"shop"}',
        )
    )
    log.close()
    first, second = read(tmp_path)
    assert json.loads(first.pop("features")) == {"name": "Zoë", "x": 1}
    assert first == {
        "answer_id": "own-r1",
        "request_id": "r1",
        "row": 0,
        "at": datetime.fromtimestamp(AT, UTC),
        "unit": "ana",
        "entity": '{"id":"Zoë"}',
        "variant": "canary",
        "version": "v2",
        "revision": 7,
        "weight": 1_000,
        "endpoint": "/predict",
        "latency_ms": 12.5,
        "score": 0.25,
        "scores": None,
        "fell_back_from": "v3",
        "request": '{"name":"Zoë","at":"2013-12-31"}',
        "online": '{"view":"shop"}',
    }
    assert (second["row"], second["entity"]) == (1, None)
    assert second["request"] == '{"name":null,"at":null}'
    assert (second["row"], second["score"], json.loads(second["features"])) == (
        1,
        1.0,
        {"name": None, "x": 2.5},
    )


def test_several_classes_are_a_list_and_a_value_is_a_number() -> None:
    batches, lost = batches_by_hour([answered(scores=[[0.1, 0.2, 0.7]]), answered(scores=[3])])
    ((table,),) = batches.values()
    assert lost == 0 and table.schema == SCHEMA
    assert table.column("scores").to_pylist() == [[0.1, 0.2, 0.7], None]
    assert table.column("score").to_pylist() == [None, 3.0]


def test_files_lie_by_hour_of_the_answer_in_utc(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.put(answered("before"))
    log.put(answered("after", at=AT + 1))
    log.close()
    found = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert found == [
        "flights/dt=2026-03-01/hr=23/1772409599250-r_1-000000.parquet",
        "flights/dt=2026-03-02/hr=00/1772409600250-r_1-000001.parquet",
    ]


def test_a_reader_never_sees_a_file_that_is_being_written(tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[list[str]] = []
    replace = os.replace

    def looking(source: Any, target: Any) -> None:
        seen.append([file.name for file in tmp_path.rglob("[!.]*.parquet")])
        assert Path(source).name.startswith(".") and Path(source).stat().st_size > 0
        replace(source, target)

    monkeypatch.setattr("serve.inference_log.os.replace", looking)
    log = log_in(tmp_path)
    log.put(answered())
    log.close()
    assert seen == [[]] and len(read(tmp_path)) == 1


def test_many_rows_are_written_before_the_interval_is_over(tmp_path: Path) -> None:
    log = log_in(tmp_path, flush_interval_s=3_600, max_queued_rows=100)
    log.put(answered())
    log.flush(10)
    for number in range(50):
        log.put(answered(str(number)))
    deadline = time.monotonic() + 10
    while log.queued and time.monotonic() < deadline:
        time.sleep(0.001)
    assert log.logged == 51
    log.close()


def test_close_after_load_loses_nothing(tmp_path: Path) -> None:
    log = log_in(tmp_path, flush_interval_s=0.05, max_queued_rows=200_000)
    rows = [{"x": 1.5, "name": "a"}] * 3
    for number in range(10_000):
        assert log.put(answered(str(number), rows=rows, scores=[0.1, 0.2, 0.3]))
    log.close(timeout_s=60)
    assert (log.logged, log.dropped, log.queued) == (30_000, 0, 0)
    found = {(row["request_id"], row["row"]) for row in read(tmp_path)}
    assert found == {(str(number), row) for number in range(10_000) for row in range(3)}


# -- processes that end ------------------------------------------------------------------------------

CHILD = """
import sys, time
from serve.inference_log import Answered, PredictionLog
from serve.schema import PredictionLogArgs
log = PredictionLog(PredictionLogArgs(uri=sys.argv[1]), deployment="flights", replica="child")
end = time.monotonic() + float(sys.argv[2])
number = 0
while time.monotonic() < end:
    at = time.time()
    row = {"x": number}
    name = str(number)
    taken = log.put(Answered(at, name, name, None, "stable", "v1", 1, 9_000, "/predict", 0.01, [row], [0.5]))
    print(number, at, int(taken), flush=True)
    number += 1
    time.sleep(0.002)
"""


def started(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_replica_loses_the_last_two_seconds_at_most(tmp_path: Path) -> None:
    child = started(tmp_path, 60)
    assert child.stdout is not None
    begun = float(child.stdout.readline().split()[1])
    put = {"0": begun}
    for line in child.stdout:
        number, at, taken = line.split()
        assert taken == "1"
        put[number] = float(at)
        if float(at) > begun + 4.5:  # Between two writes: half an interval of rows is at risk.
            break
    os.kill(child.pid, signal.SIGKILL)
    for line in child.stdout:
        put[line.split()[0]] = float(line.split()[1])
    child.wait()
    child.stdout.close()
    last = max(put.values())
    found = [row["request_id"] for row in read(tmp_path)]
    lost = set(put) - set(found)
    assert len(found) == len(set(found)) > 0
    assert lost, "the child was killed with rows in memory; the test would prove nothing otherwise"
    assert min(put[number] for number in lost) > last - 2.0


def test_a_process_that_ends_without_close_loses_nothing(tmp_path: Path) -> None:
    child = started(tmp_path, 0.3)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert [row["request_id"] for row in read(tmp_path)] == [line.split()[0] for line in out.splitlines()]
