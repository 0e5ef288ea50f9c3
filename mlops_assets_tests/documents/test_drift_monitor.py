"""The document of a drift monitor: the moments of its calendar."""

from datetime import UTC, datetime, timedelta

from mlops_assets.documents.drift_monitor import RetrainCalendar


def between(start: datetime, end: datetime, **declared: str) -> list[datetime]:
    return list(RetrainCalendar.model_validate(declared).between(start, end))


def test_a_calendar_names_its_moments_without_the_end() -> None:
    first = datetime(2024, 1, 1, 3, tzinfo=UTC)
    found = between(first, datetime(2024, 3, 1, 3, tzinfo=UTC), schedule="0 3 1 * *")
    assert found == [first, datetime(2024, 2, 1, 3, tzinfo=UTC)]
    assert between(first + timedelta(seconds=1), first + timedelta(days=20), schedule="0 3 1 * *") == []


def test_a_calendar_keeps_the_hours_of_its_zone_when_the_clocks_change() -> None:
    found = between(
        datetime(2024, 3, 25, tzinfo=UTC),
        datetime(2024, 4, 2, tzinfo=UTC),
        schedule="0 3 * * 1",
        timezone="Europe/Berlin",
    )
    assert [one.hour for one in found] == [2, 1]
    assert all(one.utcoffset() == timedelta(0) for one in found)
