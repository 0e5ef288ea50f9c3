"""The replayed clock: followed at once, a broken file said, the last known time kept."""

import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_models import ROW
from serve.clock import ClockFileError, FileClock, read_instant, wall_clock
from serve.inference_log import SCHEMA, PredictionLog
from serve.schema import PredictionLogArgs

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


def put(file: Path, text: str) -> None:
    """Replaces the file as whoever moves the clock does."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    put(tmp_path / "clock", NOON.isoformat() + "\n")
    return tmp_path / "clock"


@pytest.mark.parametrize("text", ["", "noon", "2013-04-01T12:00:00", "1364817600", "2013-13-01T00:00:00Z"])
def test_what_is_no_instant_with_a_zone_is_refused_at_the_start(file: Path, text: str) -> None:
    put(file, text)
    with pytest.raises(ClockFileError, match=r"clock must hold one ISO-8601 instant with its zone, like"):
        wall_clock(str(file))


def test_a_file_that_is_not_there_or_not_text_is_refused_at_the_start(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ClockFileError, match="cannot be read"):
        wall_clock(str(file))
    file.unlink()
    with pytest.raises(ClockFileError, match=r"cannot be read: .*No such file"):
        wall_clock(str(file))


def test_without_a_file_it_is_the_clock_of_the_machine() -> None:
    assert wall_clock("") is time.time


def test_any_zone_is_the_same_instant(file: Path) -> None:
    put(file, "2013-04-01T08:00:00-04:00")
    assert read_instant(str(file)) == NOON and wall_clock(str(file))() == NOON.timestamp()
    put(file, "2013-04-01T12:00:00Z")
    assert read_instant(str(file)) == NOON


def test_time_stands_still_until_the_file_changes_and_may_go_back(file: Path) -> None:
    clock = wall_clock(str(file))
    assert clock() == clock() == NOON.timestamp()
    for hours in (1, 25, -3):
        put(file, (NOON + timedelta(hours=hours)).isoformat())
        assert clock() == NOON.timestamp() + 3600 * hours


def test_a_file_that_breaks_is_said_once_and_the_last_time_goes_on(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FileClock(str(file))
    for breaks in (lambda: put(file, "late"), file.unlink):
        breaks()
        with caplog.at_level(logging.ERROR):
            caplog.clear()
            assert [clock() for _ in range(3)] == [NOON.timestamp()] * 3
        assert len(caplog.records) == 1 and "keep the last known time" in caplog.text
        assert clock.problem is not None and str(file) in clock.problem
    put(file, (NOON + timedelta(days=1)).isoformat())
    assert clock() == NOON.timestamp() + 86_400 and clock.problem is None


def test_answers_are_stamped_with_the_replayed_time_and_ready_says_when_it_breaks(
    file: Path, tmp_path: Path
) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        assert (await site.http.get("/ready")).json()["clock_problem"] is None
        await site.predict()
        put(file, (NOON + timedelta(days=1)).isoformat())
        await site.predict()
        put(file, "broken")
        await site.predict()
        assert "must hold one ISO-8601 instant" in (await site.http.get("/ready")).json()["clock_problem"]

    run(story, Site(log=log, wall_clock=wall_clock(str(file))))
    log.close()
    rows = ds.dataset(str(tmp_path / "log"), format="parquet", schema=SCHEMA).to_table().to_pylist()
    later = NOON + timedelta(days=1)
    assert sorted(row["at"] for row in rows) == [NOON, later, later]
    days = {path.name for path in (tmp_path / "log" / "flights").iterdir()}
    assert days == {"dt=2013-04-01", "dt=2013-04-02"}


def test_the_time_of_an_answer_is_that_before_it_is_sent(tmp_path: Path) -> None:
    """A caller that has its answer may move the clock at once."""
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="r1")
    now = [NOON.timestamp()]
    body = json.dumps({"features": ROW}).encode()

    async def story(site: Site) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            now[0] += 86_400

        scope = {
            "type": "http", "method": "POST", "path": "/flights/predict", "root_path": "/flights",
            "headers": [(b"content-type", b"application/json")], "query_string": b"",
        }  # fmt: skip
        await site.endpoint(scope, receive, send)

    run(story, Site(log=log, wall_clock=lambda: now[0]))
    log.close()
    (row,) = ds.dataset(str(tmp_path / "log"), format="parquet", schema=SCHEMA).to_table().to_pylist()
    assert row["at"] == NOON and now[0] > NOON.timestamp()
