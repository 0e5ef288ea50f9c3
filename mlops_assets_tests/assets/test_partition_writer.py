"""Rows of good partitions and the failure that names the bad ones; components' tests cover the commits."""

import pandas as pd

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import AssetName
from mlops_assets.assets.partition_writer import WHOLE, GoodRows, JudgedPartitions
from mlops_assets.data.content import content_version
from mlops_assets.data.schema import column_schema

SALES = AssetName("dataset", "sales")
KEY = asset_key(*SALES)
DAYS = [f"2024-01-{day:02}" for day in range(1, 9)]
SCHEMA = column_schema({"day": "string", "amount": "integer"})
FRAME = pd.DataFrame({"day": [DAYS[0], DAYS[1], DAYS[1]], "amount": [1, 2, 3]})


def judged(*bad: str, asked: list[str] | None = DAYS) -> JudgedPartitions:
    column = None if asked is None else "day"
    return JudgedPartitions(asked, column, {key: ["too late", "too few"] for key in bad}, "not good enough")


def test_only_rows_of_good_partitions_are_taken_and_those_without_rows_count() -> None:
    rows = GoodRows.of_good(SALES, judged(DAYS[0], asked=DAYS[:3]), FRAME, SCHEMA)
    assert rows.typed["amount"].to_pylist() == [2, 3]
    assert rows.counts == {DAYS[1]: 2, DAYS[2]: 0}
    assert rows.versions == {
        DAYS[1]: content_version(FRAME.iloc[1:]),
        DAYS[2]: content_version(FRAME.iloc[:0]),
    }
    assert rows.version not in rows.versions.values()


def test_one_partition_and_a_table_without_any_have_the_version_of_their_content() -> None:
    one = GoodRows.of_good(SALES, judged(asked=[DAYS[0]]), FRAME.iloc[:1], SCHEMA)
    assert one.version == one.versions[DAYS[0]] == content_version(FRAME.iloc[:1])
    whole = GoodRows.of_good(SALES, judged(asked=None), FRAME, SCHEMA)
    assert (whole.judged.good, whole.counts) == (None, {WHOLE: 3})
    assert whole.version == content_version(FRAME)


def test_nothing_is_good_when_every_partition_or_the_whole_table_is_bad() -> None:
    assert not judged().none_good
    assert not judged(*DAYS[1:]).none_good
    assert judged(*DAYS).none_good
    assert judged("all", asked=None).none_good
    assert not judged(asked=None).none_good


def test_the_failure_names_five_bad_partitions_and_how_many_more_there_are() -> None:
    failure = judged(*DAYS[:6]).failure(KEY)
    assert failure.description.startswith(
        "sales: 6 of 8 partitions are not good enough and keep what they held; the others were written. "
        "2024-01-01: too late; too few | 2024-01-02: "
    )
    assert failure.description.endswith("2024-01-05: too late; too few (and 1 more)")
    assert failure.metadata["bad_partitions"].value == DAYS[:6]
    assert not failure.allow_retries


def test_the_failure_of_a_table_without_partitions_says_that_nothing_was_written() -> None:
    failure = judged("all", asked=None).failure(KEY)
    assert "1 of 1 partitions are not good enough and keep what they held; nothing was written. all: too" in (
        failure.description
    )
