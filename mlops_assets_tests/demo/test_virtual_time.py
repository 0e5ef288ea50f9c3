"""Virtual time is one instant in a file, which is replaced as a whole and never goes back."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from demo.virtual_time import ClockFile, midnight
from mlops_assets.errors import StackError
from mlops_assets.resources.clock import Clock

START = midnight(date(2013, 4, 1))


def test_time_cannot_go_back(tmp_path):
    clock = ClockFile(tmp_path / "clock", START)
    with pytest.raises(StackError, match="cannot go back"):
        clock.set(START - timedelta(seconds=1))
    assert clock.now == START


def test_time_needs_a_zone(tmp_path):
    with pytest.raises(StackError, match="has no zone"):
        ClockFile(tmp_path / "clock", datetime(2013, 4, 1))


def test_the_platform_reads_what_was_set(tmp_path):
    clock = ClockFile(tmp_path / "clock", START)
    there = Clock(file=str(tmp_path / "clock"))
    assert there.now() == START

    clock.set(datetime(2013, 4, 1, 8, 30, tzinfo=timezone(timedelta(hours=-4))))

    assert there.now() == clock.now == datetime(2013, 4, 1, 12, 30, tzinfo=UTC)
    assert [path.name for path in tmp_path.iterdir()] == ["clock"]
