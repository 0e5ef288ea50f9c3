"""The prediction log read back, from a local folder and from a real S3-compatible server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.errors import DataError, UnknownName
from mlops_assets.resources.inference_log import FOUND_WITHIN, MAX_FOUND, InferenceLog, log_schema
from mlops_assets.testing.s3_server import ACCESS_KEY, SECRET_KEY
from serve.inference_log import SCHEMA, Answered, PredictionLog
from serve.schema import PredictionLogArgs

AT = datetime(2026, 3, 1, 22, 59, 59, 500_000, tzinfo=UTC)


def answered(request_id: str, at: datetime = AT, **changes: Any) -> Answered:
    made = Answered(
        at.timestamp(),
        f"own-{request_id}",
        request_id,
        "ana",
        "stable",
        "v1",
        3,
        9_000,
        "/predict",
        0.01,
        [{"x": 1.5}],
        [0.25],
    )
    return made._replace(**changes)


def write(log: InferenceLog, *answers: Answered, deployment: str = "flights", replica: str = "a") -> None:
    options = {"endpoint_url": log.s3.endpoint_url or "", "region": log.s3.region_name or ""}
    gateway = PredictionLog(
        PredictionLogArgs(uri=log.uri, storage_options=options), deployment=deployment, replica=replica
    )
    for one in answers:
        assert gateway.put(one)
    gateway.flush(30)
    gateway.close()
    assert gateway.dropped == 0


@pytest.fixture(params=["local", "s3"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> InferenceLog:
    """An empty log of either kind; a gateway finds its S3 credentials in the environment."""
    if request.param == "local":
        return InferenceLog(uri=str(request.getfixturevalue("tmp_path") / "log"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    server = request.getfixturevalue("s3_server")
    name = request.node.name.split("[")[0].replace("_", "-")
    return InferenceLog(uri=f"s3://{server.bucket}/{name}", s3=request.getfixturevalue("s3_config"))


@pytest.fixture
def local(tmp_path: Path) -> InferenceLog:
    return InferenceLog(uri=str(tmp_path / "log"))


def test_the_columns_are_those_that_gateways_write() -> None:
    assert log_schema() == SCHEMA


def test_an_absent_log_holds_no_answers(log: InferenceLog) -> None:
    assert log.deployments() == [] and log.find("flights", "r1") == [] and log.last_files("flights") == []
    frame = log.frame("flights", AT, AT + timedelta(hours=1), ["at", "score"])
    assert (frame.num_rows, frame.column_names) == (0, ["at", "score"])
    stats = log.stats("flights")
    assert (stats.files, stats.first_hour) == (0, None) and str(stats).endswith("flights (no files)")


def test_an_answer_is_found_with_its_shadow_in_the_next_hour(log: InferenceLog) -> None:
    write(
        log,
        answered("r0"),
        answered("r1", rows=[{"x": 1.0}, {"x": None}], scores=[0.1, 0.2]),
        answered("r1", AT + timedelta(seconds=1), variant="shadow", version="v2", rows=[{"x": 1.0}]),
        answered("r2", AT + timedelta(hours=5)),
    )
    (found,) = log.find("flights", "r1")
    assert [(row["variant"], row["version"], row["row"], row["features"], row["score"]) for row in found] == [
        ("stable", "v1", 0, {"x": 1.0}, 0.1),
        ("stable", "v1", 1, {"x": None}, 0.2),
        ("shadow", "v2", 0, {"x": 1.0}, 0.25),
    ]
    assert log.find("flights", "own-r1") == [found]
    assert log.find("flights", "r9") == [] and log.find("others", "r1") == []
    assert log.deployments() == ["flights"]


def test_a_time_range_has_its_start_and_not_its_end(log: InferenceLog) -> None:
    times = [AT + timedelta(minutes=30 * step) for step in range(5)]
    write(log, *(answered(str(step), at) for step, at in enumerate(times)))
    found = log.frame("flights", times[1], times[3], ["request_id"])
    assert sorted(found.column("request_id").to_pylist()) == ["1", "2"]
    whole = log.frame("flights", times[0], times[4])
    assert whole.schema == SCHEMA and whole.num_rows == 4
    stats = log.stats("flights")
    assert stats.files >= 3 and stats.size_bytes > 0
    assert f"({stats.files} files, 2026-03-01 22:00 to 2026-03-02 01:00 UTC)" in str(stats)
    assert [file.hour.hour for file in log.last_files("flights", 2)] == [0, 23]


def test_an_id_used_again_gives_every_answer_newest_first(local: InferenceLog) -> None:
    times = [timedelta(0), timedelta(minutes=-1), timedelta(hours=3), FOUND_WITHIN + timedelta(hours=2)]
    write(
        local,
        *(answered("again", AT + late, answer_id=str(n)) for n, late in enumerate(times)),
        answered("x"),
    )

    def found(**limits: Any) -> list[str]:
        return [rows[0]["answer_id"] for rows in local.find("flights", "again", **limits)]

    # The first two are more than a week older than the newest, and a shadow's hour is not searched for them.
    assert found() == ["3", "2"]
    assert found(until=AT + timedelta(days=1)) == ["2", "0", "1"]
    assert found(until=AT + timedelta(hours=1)) == ["0", "1"]
    assert found(since=AT + timedelta(days=1)) == ["3"] and found(since=AT + timedelta(days=9)) == []
    for own in "0123":
        ((row,),) = local.find("flights", own)
        assert (row["answer_id"], row["request_id"]) == (own, "again")


def test_of_very_many_answers_to_one_id_the_newest_are_given_whole(local: InferenceLog) -> None:
    hour = AT - timedelta(minutes=40)
    answers = [
        answered("job", hour + timedelta(minutes=step), answer_id=f"{step:02d}", rows=[{"x": 1.0}] * 2,
                 scores=[0.1, 0.2])
        for step in range(60)
    ]  # fmt: skip
    # Its live row is the last of an hour, its shadow's the first of the next.
    shadow = answered("job", hour + timedelta(minutes=41), answer_id="40", variant="shadow", version="v2")
    write(local, *answers, shadow)
    found = local.find("flights", "job")
    assert [rows[0]["answer_id"] for rows in found] == [f"{step:02d}" for step in range(59, 39, -1)]
    assert [len(rows) for rows in found] == [*[2] * (MAX_FOUND - 1), 3]


def test_an_answer_id_that_a_caller_used_as_a_request_id_is_still_of_one_answer(local: InferenceLog) -> None:
    mine = answered("a", answer_id="0123")
    theirs = [answered("0123", AT + timedelta(hours=late), answer_id=f"t{late}") for late in (0, 2, 20)]
    write(local, mine, *theirs)
    assert [[row["answer_id"] for row in rows] for rows in local.find("flights", "0123")] == [["0123"]]


def test_files_being_written_and_strangers_are_left_alone(local: InferenceLog, tmp_path: Path) -> None:
    write(local, answered("r1"))
    (file,) = (tmp_path / "log").rglob("*.parquet")
    (file.parent / f".{file.name}.partial").write_bytes(b"half")
    (file.parent / ".half.parquet").write_bytes(b"half")
    (file.parent / "notes.txt").write_text("hello")
    (tmp_path / "log" / "flights" / "readme").mkdir()
    assert len(local.find("flights", "r1")[0]) == 1 and local.stats("flights").files == 1


def test_a_file_that_cannot_be_read_is_named(local: InferenceLog, tmp_path: Path) -> None:
    write(local, answered("r1"))
    (file,) = (tmp_path / "log").rglob("*.parquet")
    (file.parent / "broken.parquet").write_bytes(b"not a parquet file at all")
    with pytest.raises(DataError, match=r"Cannot read the prediction log .*broken\.parquet"):
        local.find("flights", "r1")


def test_an_older_file_without_a_column_reads_as_null(local: InferenceLog, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write(local, answered("r1", fell_back_from="v2", entities=[{"flight_id": 1}]))
    assert local.find("flights", "r1")[0][0]["entity"] == {"flight_id": 1}
    (file,) = (tmp_path / "log").rglob("*.parquet")
    older = ["fell_back_from", "entity"]
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(older), file)
    found = local.find("flights", "r1")[0][0]
    assert [found[name] for name in older] == [None, None]
    assert local.frame("flights", AT, AT + timedelta(seconds=1)).schema == SCHEMA


def test_an_unknown_column_is_refused_by_name(local: InferenceLog) -> None:
    with pytest.raises(UnknownName, match=r"column of the prediction log 'output'.*features"):
        local.frame("flights", AT, AT + timedelta(hours=1), ["output"])


def test_a_range_without_a_zone_is_refused(local: InferenceLog) -> None:
    with pytest.raises(ValueError, match="time zone"):
        local.frame("flights", AT.replace(tzinfo=None), AT)
