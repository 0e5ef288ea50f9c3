"""Records become rows: bytes as they are, declared columns decoded, and a reason where they cannot be."""

import datetime as dt
import json
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from mlops_assets.streams.formats.json_format import JsonRecords
from mlops_assets.streams.records import TopicRecord, Wanted, rows_of, table_schema

COLUMNS = {"id": "integer", "amount": "number", "at": "timestamp"}
WANTED = Wanted("orders", COLUMNS, {})
DECODE = JsonRecords(format="json").decoder(Path(), lambda *_: None)
NOON_MS = 1_704_110_400_000
"""2024-01-01 12:00 UTC."""


def record(document, offset=0, **changes):
    value = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
    return TopicRecord(
        **{"partition": 0, "offset": offset, "timestamp_ms": NOON_MS, "key": b"k", "value": value} | changes
    )


def rows(*documents, wanted=WANTED):
    return rows_of([record(one, offset) for offset, one in enumerate(documents)], wanted, DECODE)


def test_a_record_is_a_row_with_its_bytes_and_the_declared_columns():
    found = rows_of(
        [
            record(
                {"id": 1, "amount": 2.5, "at": "2024-01-02T00:00:00Z"}, 7, headers=[("h", b"1"), ("n", None)]
            )
        ],
        WANTED,
        DECODE,
    )
    assert found.table.schema == table_schema(COLUMNS)
    (row,) = found.table.to_pylist()
    assert row["value"] == b'{"id": 1, "amount": 2.5, "at": "2024-01-02T00:00:00Z"}'
    assert (row["topic"], row["partition"], row["offset"], row["key"]) == ("orders", 0, 7, b"k")
    assert row["headers"] == [{"name": "h", "value": b"1"}, {"name": "n", "value": None}]
    assert row["timestamp"] == dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC) == found.newest
    assert (row["id"], row["amount"], row["undecodable"]) == (1, 2.5, None)
    assert row["at"] == dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    assert row["event_date"] == "2024-01-01" and found.days == ["2024-01-01"]


def test_the_day_of_an_event_is_that_of_the_declared_time_and_else_of_the_record():
    wanted = Wanted("orders", COLUMNS, {}, event_time="at")
    found = rows({"at": "2024-03-01T23:59:59Z"}, {"id": 2}, b"no", wanted=wanted)
    assert found.table.column("event_date").to_pylist() == ["2024-03-01", "2024-01-01", "2024-01-01"]
    assert found.days == ["2024-01-01", "2024-03-01"]


NEW_YORK = "America/New_York"


@pytest.mark.parametrize(
    ("zone", "first", "last", "hours"),
    [
        ("UTC", "2026-03-08T00:00:00Z", "2026-03-08T23:59:59.999999Z", 24),
        (NEW_YORK, "2026-03-08T05:00:00Z", "2026-03-09T03:59:59.999999Z", 23),
        (NEW_YORK, "2026-11-01T04:00:00Z", "2026-11-02T04:59:59.999999Z", 25),
        ("Asia/Kolkata", "2026-03-07T18:30:00Z", "2026-03-08T18:29:59.999999Z", 24),
    ],
)
def test_the_day_of_an_event_is_that_of_the_declared_zone(zone, first, last, hours):
    begin, end = (dt.datetime.fromisoformat(one) for one in (first, last))
    day, step = begin.astimezone(ZoneInfo(zone)).date(), dt.timedelta(microseconds=1)
    assert end - begin == dt.timedelta(hours=hours) - step
    times = [begin - step, *(begin + dt.timedelta(hours=one) for one in range(hours)), end, end + step]
    wanted = Wanted("orders", COLUMNS, {}, event_time="at", timezone=zone)
    found = rows(*({"at": time.isoformat()} for time in times), wanted=wanted)
    before, *within, after = found.table.column("event_date").to_pylist()
    assert set(within) == {day.isoformat()}
    assert [before, after] == [str(day - dt.timedelta(days=1)), str(day + dt.timedelta(days=1))]
    # The moments themselves stay as they are.
    assert found.table.column("at").to_pylist() == times and found.table.schema == table_schema(COLUMNS)


def test_a_record_without_an_event_time_has_the_local_day_of_its_own():
    found = rows_of(
        [record({"id": 1}, timestamp_ms=NOON_MS - 8 * 3_600_000)],
        Wanted("orders", COLUMNS, {}, event_time="at", timezone=NEW_YORK),
        DECODE,
    )
    assert found.days == ["2023-12-31"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"{", "it is not JSON"),
        ({"id": "many"}, "id: 'many' does not fit: an integer is a whole number"),
        ({"id": 1, "at": 1_704_110_400}, "at: 1704110400 does not fit: .* does not say its unit"),
        ({"amount": {"value": 1}}, "amount: .* does not fit"),
    ],
)
def test_what_cannot_be_decoded_keeps_its_bytes_and_no_declared_value(document, said):
    found = rows({"id": 1}, document, {"id": 3})
    bad = found.table.to_pylist()[1]
    assert bad["value"] == record(document).value
    assert [bad[name] for name in COLUMNS] == [None, None, None]
    ((partition, offset, why),) = found.reasons
    assert (partition, offset) == (0, 1) and why == bad["undecodable"]
    assert re.search(said, why)
    assert found.table.column("id").to_pylist() == [1, None, 3]


def test_a_record_without_a_value_is_no_mistake():
    found = rows(None, {"id": 1})
    assert found.reasons == [] and found.table.column("id").to_pylist() == [None, 1]
    assert found.table.column("value").to_pylist()[0] is None


def test_a_field_may_lie_deeper_and_have_another_name():
    wanted = Wanted("orders", {"id": "integer", "key_of": "string"}, {"id": "after.id", "key_of": "key"})
    found = rows({"after": {"id": 5}, "key": "x"}, {"after": None, "key": "y"}, wanted=wanted)
    assert found.table.column("id").to_pylist() == [5, None]
    assert found.table.column("key_of").to_pylist() == ["x", "y"]


def test_a_declared_column_that_no_record_has_is_told():
    found = rows({"id": 1, "amount": None})
    assert found.unseen == ["at"]
    assert rows(b"{").unseen == [] and rows().unseen == []


@pytest.mark.parametrize("timestamp", [None, 10**18, -(10**18)])
def test_a_time_that_no_table_holds_is_no_time(timestamp):
    found = rows_of([record({"id": 1}, timestamp_ms=timestamp)], WANTED, DECODE)
    assert (
        found.table.column("timestamp").to_pylist() == [None] == found.table.column("event_date").to_pylist()
    )
    assert found.days == [] and found.newest is None


def test_no_record_is_a_table_without_rows():
    found = rows()
    assert found.table.num_rows == 0 and found.table.schema == table_schema(COLUMNS)
    assert isinstance(found.table, pa.Table)
