"""Pauses double up to a bound, and lengths of time read in whole units."""

from datetime import timedelta

from mlops_assets.monitoring.durations import doubled, duration_text

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def test_pauses_double_up_to_the_longest_whatever_the_first() -> None:
    assert [doubled(MINUTE, 5 * MINUTE, times) / MINUTE for times in range(5)] == [0, 1, 2, 4, 5]
    assert doubled(timedelta(0), HOUR, 10_000) == timedelta(0)
    assert doubled(MINUTE, HOUR, 10_000) == HOUR


def test_lengths_read_in_whole_units() -> None:
    lengths = [DAY, 90 * MINUTE, 2 * HOUR, timedelta(seconds=45)]
    assert [duration_text(length) for length in lengths] == ["1 day", "90 minutes", "2 hours", "45 seconds"]
