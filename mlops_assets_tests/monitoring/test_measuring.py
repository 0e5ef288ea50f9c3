"""When answers are measured again: what starts a measurement at once, and which days it reads."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mlops_assets.monitoring.measuring import Checkpoint, days_to_measure

BEFORE = Checkpoint("2024-03-06T12:00:00+00:00", "2024-03-06", "12-a.parquet", 5.0, "v1")
LATER = replace(BEFORE, at="2024-03-06T12:30:00+00:00")
LAST_DAYS = ("2024-03-05", "2024-03-06")
"""The newest day that was read, and the one before: it may have got its last answers since."""


def due_now(now: Checkpoint, before: Checkpoint = BEFORE) -> tuple[tuple[str, str] | None, str]:
    return days_to_measure(before, now, every=timedelta(hours=1), length=timedelta(days=1))


@pytest.mark.parametrize(
    ("now", "days", "why"),
    [
        (replace(LATER, log=""), None, "nothing was logged yet"),
        (LATER, None, "nothing new since the last measurement"),
        (replace(LATER, log="12-b.parquet"), None, "new answers wait"),
        (replace(LATER, at="2024-03-06T13:00:00+00:00", log="13-a.parquet"), LAST_DAYS, "new answers"),
        (replace(LATER, labels=6.0), LAST_DAYS, "labels arrived"),
        (replace(LATER, labels=4.0), None, "nothing new since the last measurement"),
        (replace(LATER, stable="v2"), LAST_DAYS, "v2 answers now, v1 before"),
        (replace(LATER, stable=""), LAST_DAYS, "nothing answers now, v1 before"),
        (replace(LATER, at="2024-03-07T00:00:00+00:00"), LAST_DAYS, "a window ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_due_and_why(now: Checkpoint, days: tuple[str, str] | None, why: str) -> None:
    assert due_now(now) == (days, why)


def test_the_first_measurement_reads_from_the_oldest_logged_day() -> None:
    now = replace(LATER, day="2024-03-08")
    assert due_now(now, Checkpoint(day="2024-03-01")) == (
        ("2024-02-29", "2024-03-08"),
        "the first measurement",
    )
    assert due_now(now, Checkpoint()) == (("2024-03-07", "2024-03-08"), "the first measurement")


def test_days_without_a_measurement_are_read_together() -> None:
    now = replace(LATER, at="2024-03-09T01:00:00+00:00", day="2024-03-09")
    assert due_now(now)[0] == ("2024-03-05", "2024-03-09")


def test_a_newest_day_that_went_back_is_read_from_there() -> None:
    assert due_now(replace(LATER, day="2024-03-04", labels=6.0))[0] == ("2024-03-03", "2024-03-04")


def test_without_a_tag_nothing_was_measured() -> None:
    assert Checkpoint.read(None) == Checkpoint.read("") == Checkpoint()
    assert Checkpoint.read('{"at": "2024-03-06", "labels": 1.5}') == Checkpoint(at="2024-03-06", labels=1.5)
