"""Compacting the prediction log: whoever reads meanwhile or after a crash finds every row once."""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlops_assets.errors import DataError
from mlops_assets.resources.conditional_store import ConditionalStore
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import S3Config
from mlops_assets.resources.log_hour import MANIFEST, Compaction, LogHour
from mlops_assets.testing.s3_server import ACCESS_KEY, SECRET_KEY
from mlops_assets_tests.resources.test_inference_log import answered, local, log, write
from serve.inference_log import SCHEMA

__all__ = ["local", "log"]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOMORROW = NOON + timedelta(days=1)


def filled(log: InferenceLog, hours: int = 2, files: int = 4) -> Counter[str]:
    """Puts several small files into each hour; what a reader has to find."""
    expected: Counter[str] = Counter()
    for hour in range(hours):
        for number in range(files):
            at = NOON + timedelta(hours=hour, minutes=number)
            keys = [{"flight_id": number}, None]
            name = f"{hour}-{number}"
            write(
                log,
                answered(name, at, rows=[{"x": 1.5}] * 2, scores=[0.25, 0.5], entities=keys),
                replica=f"replica-{number}",
            )
            expected[name] = 2
    return expected


def found(log: InferenceLog) -> Counter[str]:
    rows = log.frame("flights", NOON - timedelta(days=1), TOMORROW, ["request_id"])
    return Counter(rows.column("request_id").to_pylist())


def names(log: InferenceLog, hour: int = 12) -> list[str]:
    folder = Path(log.folder("flights")) / f"dt=2026-03-01/hr={hour:02}"
    return sorted(path.name for path in folder.iterdir())


class Crash(BaseException):
    """What ends a compaction in the middle; nothing catches it."""


def crashing(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the process, as it were, before the step-th change to the folder."""
    left = [step]

    def counted(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return method(*arguments)

        return call

    def one_by_one(hour: LogHour, paths: Any) -> None:
        for path in paths:
            delete(hour, [path])

    delete = counted(LogHour._delete)
    monkeypatch.setattr(LogHour, "_write_merged", counted(LogHour._write_merged))
    monkeypatch.setattr(LogHour, "_commit", counted(LogHour._commit))
    monkeypatch.setattr(LogHour, "_delete", one_by_one)


@pytest.fixture
def on_s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> InferenceLog:
    """An empty log in a real S3-compatible store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    server = request.getfixturevalue("s3_server")
    return InferenceLog(
        uri=f"s3://{server.bucket}/{uuid.uuid4().hex}", s3=request.getfixturevalue("s3_config")
    )


def again(log: InferenceLog) -> InferenceLog:
    """The same log as another process opens it."""
    return InferenceLog(uri=log.uri, s3=log.s3)


def held(log: InferenceLog) -> list[str]:
    """The files of the hour from noon in S3, whether they count or not."""
    from pyarrow import fs

    folder = f"{log._path('flights')}/dt=2026-03-01/hr=12"
    return sorted(one.base_name for one in log._filesystem().get_file_info(fs.FileSelector(folder)))


# -- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(7))
def test_a_compaction_that_is_cut_off_anywhere_costs_no_row_and_is_finished_later(
    local: InferenceLog, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    expected = filled(local, hours=1)
    before = local.find("flights", "0-2")
    with monkeypatch.context() as patch:
        crashing(patch, step)
        if step < 6:
            with pytest.raises(Crash):
                local.compact("flights", before=TOMORROW)
        else:
            local.compact("flights", before=TOMORROW)
    assert found(local) == expected and local.find("flights", "0-2") == before
    local.compact("flights", before=TOMORROW)
    assert found(local) == expected and local.find("flights", "0-2") == before
    assert local.stats("flights").files == 1 and len(names(local)) == 2


@pytest.mark.parametrize("step", range(8))
def test_late_answers_and_a_second_compaction_that_is_cut_off_cost_no_row_either(
    local: InferenceLog, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    expected = filled(local, hours=1, files=3)
    local.compact("flights", before=TOMORROW)
    for name in ("late-1", "late-2"):
        write(local, answered(name, NOON + timedelta(minutes=59)), replica=name)
        expected[name] = 1
    assert found(local) == expected
    with monkeypatch.context() as patch:
        crashing(patch, step)
        if step < 5:
            with pytest.raises(Crash):
                local.compact("flights", before=TOMORROW)
        else:
            local.compact("flights", before=TOMORROW)
    assert found(local) == expected
    local.compact("flights", before=TOMORROW)
    assert found(local) == expected and local.stats("flights").files == 1


def test_an_hour_with_a_broken_file_is_named_and_the_others_are_done(local: InferenceLog) -> None:
    filled(local)
    broken = Path(local.folder("flights")) / "dt=2026-03-01/hr=12/1-r-000000.parquet"
    broken.write_bytes(b"not a parquet file at all")
    with pytest.raises(DataError, match=r"1 hours of .*hr=12.*1-r-000000\.parquet"):
        local.compact("flights", before=TOMORROW)
    assert len([name for name in names(local) if name.endswith(".parquet")]) == 5
    assert names(local, 13)[0] == MANIFEST and len(names(local, 13)) == 2
    broken.unlink()
    local.compact("flights", before=TOMORROW)
    assert local.stats("flights").files == 2


def test_a_manifest_that_says_nothing_true_is_an_error_and_no_guess(
    local: InferenceLog,
) -> None:
    filled(local, hours=1)
    local.compact("flights", before=TOMORROW)
    folder = Path(local.folder("flights")) / "dt=2026-03-01/hr=12"
    (merged,) = folder.glob("compacted-*.parquet")
    merged.rename(folder / ".away")
    with pytest.raises(DataError, match="names a file that is not there"):
        found(local)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="is not what a compaction writes"):
        local.compact("flights", before=TOMORROW)


def test_times_without_a_zone_are_refused(local: InferenceLog) -> None:
    for times in ({"before": NOON.replace(tzinfo=None)}, {"before": NOON, "since": datetime(2026, 3, 1)}):
        with pytest.raises(ValueError, match="time zone"):
            local.compact("flights", **times)


# -- what it does ------------------------------------------------------------------------------------


def test_finished_hours_become_one_file_each_and_nothing_else_changes(log: InferenceLog) -> None:
    expected = filled(log, hours=3)
    before = log.frame("flights", NOON, TOMORROW).sort_by([("request_id", "ascending"), ("row", "ascending")])
    stats = log.stats("flights")
    assert log.compact("nobody", before=TOMORROW) == Compaction()
    # The hour from 14:00 has not ended by then.
    done = log.compact("flights", before=NOON + timedelta(hours=2, minutes=59))
    assert (done.hours, done.files, done.rows) == (2, 8, 16)
    after = log.stats("flights")
    assert (stats.files, after.files) == (12, 6)
    assert after.size_bytes == stats.size_bytes - done.bytes_before + done.bytes_after
    assert found(log) == expected
    rows = log.frame("flights", NOON, TOMORROW).sort_by([("request_id", "ascending"), ("row", "ascending")])
    assert rows.equals(before) and rows.schema == SCHEMA
    assert [row["entity"] for row in log.find("flights", "1-2")[0]] == [{"flight_id": 2}, None]
    assert [file.hour.hour for file in log.last_files("flights", 6)] == [14, 14, 14, 14, 13, 12]
    assert log.compact("flights", before=NOON + timedelta(hours=2)) == Compaction()


def test_only_the_hours_asked_for_are_compacted(local: InferenceLog) -> None:
    filled(local, hours=3)
    done = local.compact("flights", since=NOON + timedelta(hours=1), before=NOON + timedelta(hours=2))
    assert done.hours == 1
    assert [len(names(local, hour)) for hour in (12, 13, 14)] == [4, 2, 4]


def test_a_single_file_is_left_as_it_is(local: InferenceLog) -> None:
    write(local, answered("r1", NOON))
    before = names(local)
    assert local.compact("flights", before=TOMORROW) == Compaction() and names(local) == before


def test_a_file_that_a_gateway_writes_again_does_not_count_twice(local: InferenceLog) -> None:
    expected = filled(local, hours=1)
    folder = Path(local.folder("flights")) / "dt=2026-03-01/hr=12"
    again = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    local.compact("flights", before=TOMORROW)
    name, content = min(again.items())
    (folder / name).write_bytes(content)
    assert found(local) == expected
    assert local.compact("flights", before=TOMORROW) == Compaction()
    assert found(local) == expected and name not in names(local)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_merged_file_that_nothing_names_does_not_count_and_goes(
    local: InferenceLog, compacted: bool
) -> None:
    expected = filled(local, hours=1)
    folder = Path(local.folder("flights")) / "dt=2026-03-01/hr=12"
    if compacted:
        local.compact("flights", before=TOMORROW)
    orphan = folder / "compacted-0123456789abcdef.parquet"
    orphan.write_bytes(min(folder.glob("*.parquet")).read_bytes())
    assert found(local) == expected
    local.compact("flights", before=TOMORROW)
    assert found(local) == expected and not orphan.exists()


def test_other_readers_of_the_folder_find_a_compacted_hour_as_it_is(local: InferenceLog) -> None:
    import pyarrow.dataset as ds

    expected = filled(local)
    local.compact("flights", before=TOMORROW)
    rows = ds.dataset(local.folder("flights"), format="parquet", schema=SCHEMA).to_table()
    assert Counter(rows.column("request_id").to_pylist()) == expected


def test_an_hour_of_files_without_a_newer_column_is_compacted_with_it(local: InferenceLog) -> None:
    filled(local, hours=1)
    for file in Path(local.folder("flights")).rglob("*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["entity"]), file)
    local.compact("flights", before=TOMORROW)
    (merged,) = Path(local.folder("flights")).rglob("*.parquet")
    assert pq.read_schema(merged) == SCHEMA
    assert [row["entity"] for row in local.find("flights", "0-1")[0]] == [None, None]


def test_a_day_is_all_of_its_rows_in_utc(local: InferenceLog) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    for name, at in (
        ("last", midnight - timedelta(microseconds=1)),
        ("first", midnight),
        ("end", midnight + timedelta(hours=23, minutes=59)),
        ("next", midnight + timedelta(days=1)),
    ):
        write(local, answered(name, at))
    day = local.day("flights", date(2026, 3, 2))
    assert sorted(day.column("request_id").to_pylist()) == ["end", "first"] and day.schema == SCHEMA
    assert local.day("flights", date(2026, 3, 2), ["at"]).column_names == ["at"]
    assert local.day("flights", date(2026, 3, 5)).num_rows == 0


# -- side by side ------------------------------------------------------------------------------------


def test_a_reader_beside_a_compaction_finds_every_row_once(log: InferenceLog) -> None:
    expected = filled(log, hours=3, files=6)
    ended = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        reader = InferenceLog(uri=log.uri, s3=log.s3)
        while not ended.is_set():
            seen = Counter({name: rows for name, rows in found(reader).items() if "late" not in name})
            if seen != expected:
                wrong.append(seen)
            if len(reader.find("flights", "1-3")[0]) != 2:
                wrong.append("find")

    reading = threading.Thread(target=read)
    reading.start()
    try:
        for number in range(5):
            done = log.compact("flights", before=TOMORROW)
            assert done.hours == (1 if number else 3)
            # The next round merges the merged file once more.
            write(
                log, answered(f"late-{number}", NOON + timedelta(hours=1, minutes=59)), replica=f"r{number}"
            )
    finally:
        ended.set()
        reading.join()
    assert wrong == []
    assert log.stats("flights").files == 4


def test_two_compactions_at_once_take_turns(local: InferenceLog) -> None:
    expected = filled(local, hours=4, files=6)
    done: list[Compaction] = []
    both = [
        threading.Thread(
            target=lambda: done.append(InferenceLog(uri=local.uri).compact("flights", before=TOMORROW))
        )
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(one.hours for one in done) == [0, 4]
    assert found(local) == expected
    manifest = json.loads((Path(local.folder("flights")) / "dt=2026-03-01/hr=12" / MANIFEST).read_text())
    assert len(manifest["replaced"]) == 6


# -- two in an object store --------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(7))
def test_a_compaction_in_s3_that_is_cut_off_anywhere_costs_no_row_and_is_finished_later(
    on_s3: InferenceLog, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    expected = filled(on_s3, hours=1)
    with monkeypatch.context() as patch:
        crashing(patch, step)
        if step < 6:
            with pytest.raises(Crash):
                on_s3.compact("flights", before=TOMORROW)
        else:
            on_s3.compact("flights", before=TOMORROW)
    assert found(on_s3) == expected
    again(on_s3).compact("flights", before=TOMORROW)
    assert found(on_s3) == expected
    assert len(held(on_s3)) == 2


@pytest.mark.parametrize("late", [False, True], ids=["the same files", "one more file"])
@pytest.mark.parametrize("step", range(6))
def test_a_compaction_that_was_overtaken_at_any_point_costs_no_row(
    on_s3: InferenceLog, monkeypatch: pytest.MonkeyPatch, step: int, late: bool
) -> None:
    expected = filled(on_s3, hours=1)
    left = [step]

    def overtaken(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                if late:
                    write(on_s3, answered("late", NOON + timedelta(minutes=59)), replica="late")
                    expected["late"] = 1
                again(on_s3).compact("flights", before=TOMORROW)
                assert found(again(on_s3)) == expected
            return method(*arguments)

        return call

    def one_by_one(hour: LogHour, paths: Any) -> None:
        for path in paths:
            delete(hour, [path])

    delete = overtaken(LogHour._delete)
    monkeypatch.setattr(LogHour, "_write_merged", overtaken(LogHour._write_merged))
    monkeypatch.setattr(LogHour, "_commit", overtaken(LogHour._commit))
    monkeypatch.setattr(LogHour, "_delete", one_by_one)

    on_s3.compact("flights", before=TOMORROW)

    assert left[0] < 0 and found(on_s3) == expected
    again(on_s3).compact("flights", before=TOMORROW)
    assert found(on_s3) == expected and len(held(on_s3)) == 2


@pytest.mark.parametrize("step", [1, 2])
def test_a_merged_file_in_s3_is_not_removed_while_its_writer_can_still_name_it(
    on_s3: InferenceLog, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    expected = filled(on_s3, hours=1)
    with monkeypatch.context() as patch:
        crashing(patch, 1)  # It merged, and named nothing yet.
        with pytest.raises(Crash):
            on_s3.compact("flights", before=TOMORROW)
    (orphan,) = [name for name in held(on_s3) if name.startswith("compacted-")]
    again(on_s3).compact("flights", before=TOMORROW)
    assert orphan not in held(on_s3) and found(on_s3) == expected
    # Another one, where nothing is left to merge.
    write(on_s3, answered("late", NOON + timedelta(minutes=59)), replica="late")
    expected["late"] = 1
    with monkeypatch.context() as patch:
        crashing(patch, step)
        with pytest.raises(Crash):
            on_s3.compact("flights", before=TOMORROW)
    for _ in range(2):
        again(on_s3).compact("flights", before=TOMORROW)
        assert found(on_s3) == expected
    assert len(held(on_s3)) == 2


def test_a_manifest_whose_writing_was_answered_by_nobody_counts(
    on_s3: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = filled(on_s3, hours=1)
    really = ConditionalStore.write

    def lost(store: ConditionalStore, path: str, content: bytes, *, replacing: str | None) -> bool:
        """The store wrote, the answer was lost, and the second try was refused."""
        return really(store, path, content, replacing=replacing) and MANIFEST not in path

    monkeypatch.setattr(ConditionalStore, "write", lost)
    assert on_s3.compact("flights", before=TOMORROW).hours == 1
    assert found(on_s3) == expected and len(held(on_s3)) == 2


def test_two_compactions_of_one_object_store_and_its_readers_find_every_row_once(on_s3: InferenceLog) -> None:
    expected = filled(on_s3, hours=3, files=6)
    ended = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        reader = again(on_s3)
        while not ended.is_set():
            seen = Counter({name: rows for name, rows in found(reader).items() if "late" not in name})
            if seen != expected:
                wrong.append(seen)

    def compact() -> None:
        try:
            for _ in range(4):
                again(on_s3).compact("flights", before=TOMORROW)
        except Exception as error:  # noqa: BLE001 (told by the test)
            wrong.append(error)

    reading = threading.Thread(target=read)
    compacting = [threading.Thread(target=compact) for _ in range(2)]
    for thread in (reading, *compacting):
        thread.start()
    late: Counter[str] = Counter()
    for number in range(4):
        at = NOON + timedelta(hours=number % 3, minutes=59)
        write(on_s3, answered(f"late-{number}", at), replica=f"late{number}")
        late[f"late-{number}"] = 1
    for thread in compacting:
        thread.join()
    ended.set()
    reading.join()
    assert wrong == []
    on_s3.compact("flights", before=TOMORROW)
    assert found(on_s3) == expected + late and on_s3.stats("flights").files == 3


def test_a_store_that_ignores_conditions_is_refused_in_words(careless_store: str) -> None:
    config = S3Config(
        endpoint_url=careless_store,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    store = InferenceLog(uri="s3://bucket/log", s3=config)._conditional_store()
    with pytest.raises(
        DataError, match=r"s3://bucket/log ignores conditional writes \(If-None-Match and If-M"
    ):
        store.require_conditions("bucket/log")


def test_a_store_is_asked_once_whether_it_keeps_to_conditions(
    on_s3: InferenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(on_s3, hours=1)
    on_s3.compact("flights", before=TOMORROW)
    monkeypatch.setattr(ConditionalStore, "write", lambda *_, **__: pytest.fail("asked again"))
    on_s3.compact("flights", before=TOMORROW)
    assert on_s3.deployments() == ["flights"]


@pytest.fixture
def careless_store() -> Iterator[str]:
    """A server that takes every object, whatever the condition: there are such stores."""

    class Careless(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(200)

        def do_DELETE(self) -> None:
            self._answer(204)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("ETag", '"same"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
