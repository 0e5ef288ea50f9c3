"""Data time as a resource."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_assets.errors import DataError
from mlops_assets.resources.clock import Clock


def test_a_file_that_holds_no_instant_is_an_error_and_no_guess(tmp_path: Path) -> None:
    clock = Clock(file=str(tmp_path / "clock"))
    with pytest.raises(DataError, match="cannot be read"):
        clock.now()
    (tmp_path / "clock").write_text("2013-04-01T12:00:00")
    with pytest.raises(DataError, match="instant with its zone"):
        clock.now()


def test_the_replayed_time_is_in_utc_and_followed(tmp_path: Path) -> None:
    clock = Clock(file=str(tmp_path / "clock"))
    for hour in (8, 9):
        (tmp_path / "clock").write_text(f"2013-04-01T{hour:02}:00:00-04:00")
        assert clock.now() == datetime(2013, 4, 1, hour + 4, tzinfo=UTC)
        assert clock.now().tzinfo is UTC


def test_without_a_file_it_is_now() -> None:
    before = datetime.now(UTC)
    assert before <= Clock().now() <= datetime.now(UTC)
