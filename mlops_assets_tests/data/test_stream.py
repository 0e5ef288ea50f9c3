"""A dataset of a stream is read by the day of the event, and by no other."""

from pathlib import Path

import pytest

from mlops_assets.data.sources._base import Asked
from mlops_assets.data.sources.stream import StreamSource
from mlops_assets.errors import DataError

SOURCE = StreamSource(format="stream", stream="orders")


@pytest.mark.parametrize(
    ("columns", "partitioned", "wrong"),
    [
        ({"event_date": "string"}, True, False),
        ({"event_date": "string"}, False, True),
        ({"day": "string"}, True, True),
    ],
)
def test_its_days_are_declared(columns, partitioned, wrong):
    problem = SOURCE.problem(columns, transformed=False, partitioned=partitioned)
    assert (problem is not None and "a stream is read by day" in problem) == wrong


def test_another_column_of_days_is_refused_before_anything_is_read():
    asked = Asked({"event_date": "string", "day": "string"}, False, "day", ["2024-01-01"])
    with pytest.raises(DataError, match="stream orders has its days in event_date"):
        SOURCE.reader(Path()).read(asked, lake=None)
