"""Answers of keys are recomputed from what had been applied: skew is told, late rows are counted."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.assets.logged_days import DAY_COLUMN
from mlops_assets.assets.replayed import Replayed, check_result, replay
from mlops_assets.data.schema import column_schema, typed_table
from mlops_assets.resources.lake import Lake
from mlops_assets_tests.components.test_dataset import materialize
from mlops_assets_tests.components.test_feature_view import DAYS, write_trips
from mlops_assets_tests.components.test_online_features import (
    BASE,
    PLANES,
    WEATHER,
    filled,
    kept,
    opened,
    raw,
    tables,
)
from serve.online.request import KeyedRow

__all__ = ["kept", "raw"]

LOG = dict.fromkeys(("answer_id", "variant", "entity", "request", "features", "online", DAY_COLUMN), "string")
SENT = [
    KeyedRow({"id": "a"}, {"leaves": "2024-01-05T09:00:00Z", "origin": "EWR", "plane": "N1"}),
    # The first is an event of the base from then on, and still nothing that the second may look back on.
    KeyedRow({"id": "b"}, {"leaves": "2024-01-05T10:30:00+01:00", "origin": "EWR", "plane": None}),
    KeyedRow({"id": "c"}, {"leaves": "2024-01-05T11:00:00Z", "origin": "JFK", "plane": "N2"}),
]


def logged(lake: Lake, online: Any, day: str, **changed: Any) -> None:
    """Answers to what is ``SENT``, as the compacted log has them; a shadow scored the first."""
    import pandas as pd

    looked = online.look_up(SENT, lambda number: f"requests[{number}]")
    rows = [
        {
            "answer_id": f"{day}-{number // 2}",
            "row": number % 2,
            "at": pd.Timestamp(f"{day}T12:00:00Z").as_unit("us"),
            "variant": "stable",
            "entity": json.dumps(sent.entity),
            "request": json.dumps(sent.request),
            "features": json.dumps({**row, **(changed if number == 1 else {})}),
            "online": looked.knew,
            DAY_COLUMN: day,
        }
        for number, (sent, row) in enumerate(zip(SENT, looked.rows, strict=True))
    ]
    finished = {**rows[0], "answer_id": "f", "entity": None, "request": None, "online": None}
    shadow = {**rows[0], "variant": "shadow", "features": "{}"}
    frame = pd.DataFrame([*rows, shadow, finished])
    types = {**LOG, "row": "integer", "at": "timestamp"}
    lake.write(
        "prediction_logs/trips",
        typed_table(frame, column_schema(types)),  # type: ignore[arg-type]
        partition_column=DAY_COLUMN,
        partitions=[day],
        commit={},
    )


@pytest.fixture
def answering(kept: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path) -> Any:
    assert materialize(kept, instance, DAYS[0], DAYS[4], (BASE, WEATHER, PLANES)).success
    filled(kept, instance)
    return opened(tmp_path)


def replayed(lake: Lake, *days: str) -> Replayed:
    return replay(lake, tables(), "trips", day_column=DAY_COLUMN, days=days)


def test_what_was_answered_is_what_the_offline_view_has(answering: Any, lake: Lake) -> None:
    logged(lake, answering, DAYS[4])
    found = replayed(lake, DAYS[4])
    assert (found.rows, found.late, found.skewed, found.problems) == (3, 0, [], [])
    result = check_result("trips", found)
    assert result.passed and result.metadata["rows"].value == 3


def test_one_bit_fails_the_check_and_is_told_with_both_values(answering: Any, lake: Lake) -> None:
    logged(lake, answering, DAYS[4], delay_24h=35.00000000000001)
    found = replayed(lake, DAYS[4])
    result = check_result("trips", found)
    assert not result.passed and result.metadata["rows_skewed"].value == 1
    assert result.description == (
        '1 of 3 rows differ from the offline view: feature \'delay_24h\' of {"id": "b"} was '
        "35.00000000000001 in the answer and is 35.0 offline (answer 2024-01-05-0, row 1)"
    )


def test_rows_that_came_after_the_answer_make_it_late_and_no_skew(
    answering: Any, kept: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, raw: Path
) -> None:
    logged(lake, answering, DAYS[4])
    write_trips(raw, DAYS[3], delay=90.0)
    assert materialize(kept, instance, DAYS[3], DAYS[3], (BASE,)).success
    found = replayed(lake, DAYS[4])
    # Both of EWR; nothing is known of JFK, then or now.
    assert (found.rows, found.late, found.skewed) == (3, 2, [])
    # The next answers know of it, and each is held against what it knew.
    filled(kept, instance)
    logged(lake, answering, DAYS[5])
    both = replayed(lake, DAYS[4], DAYS[5])
    assert (both.rows, both.late, both.skewed) == (6, 2, [])
    assert check_result("trips", both).passed


def test_answers_of_a_lost_store_and_of_another_view_are_told_apart(
    answering: Any, lake: Lake, tmp_path: Path
) -> None:
    file = next((tmp_path / "online").glob("*.sqlite"))
    file.rename(file.with_suffix(".away"))
    logged(lake, answering, DAYS[4])
    found = replayed(lake, DAYS[4])
    # They had nothing to look up, which is what their log says: late by all that is known, and no skew.
    assert (found.rows, found.late, found.skewed) == (3, 3, [])
    answering._shape, answering._head_told = "another", None
    logged(lake, answering, DAYS[4])
    found = replayed(lake, DAYS[4])
    assert (found.rows, found.other_shapes) == (0, 3)


def test_answers_whose_tables_are_gone_fail_the_check(answering: Any, lake: Lake, tmp_path: Path) -> None:
    logged(lake, answering, DAYS[4])
    (tmp_path / "lake" / "datasets" / "planes").rename(tmp_path / "gone")
    result = check_result("trips", replayed(lake, DAYS[4]))
    assert not result.passed and "There is no table 'datasets/planes'" in str(result.description)
