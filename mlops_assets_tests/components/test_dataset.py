"""A dataset document becomes assets that write good days, refuse bad ones and say why."""

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.resources.lake import Lake

SALES = asset_key("dataset", "sales")
QUARANTINE = asset_key("quarantine", "sales")
DAYS = [f"2024-01-0{day}" for day in range(1, 6)]
YAML = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: sales
  source: {format: csv, path: "raw/{partition}.csv"}
  partitions: {start: "2024-01-01", end: "2024-01-06", column: day}
  columns: {id: integer, day: string, amount: number, shop: string}
  primary_key: [id]
  row_rules:
    - {type: expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0}}
  max_quarantine_share: 0.3
  suite:
    - {type: expect_column_mean_to_be_between, kwargs: {column: amount, max_value: 100}}
    - {type: expect_column_values_to_not_be_null, kwargs: {column: shop, mostly: 0.5}, severity: warning}
"""


def write_day(use_case, day, rows="1,10,A\n2,20,B\n3,30,A\n4,40,B\n", header="id,amount,shop\n"):
    folder = use_case / "raw"
    folder.mkdir(exist_ok=True)
    (folder / f"{day}.csv").write_text(header + rows, encoding="utf-8")


def materialize(defs, instance, start, end=None, assets=(SALES,)):
    tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end or start}
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(assets))
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def checks(result):
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.event_specific_data.error.message + str(event.event_specific_data.error.cause)


@pytest.fixture
def sales(use_case, load):
    for day in DAYS:
        write_day(use_case, day)
    return load(YAML)


def test_the_assets_carry_what_a_person_looks_for(sales):
    graph = sales.resolve_asset_graph()
    node = graph.get(SALES)
    assert node.group_name == "shop"
    assert node.partitions_def.get_partition_keys() == DAYS
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    assert [column.name for column in node.metadata["dagster/column_schema"].columns] == [
        "id",
        "day",
        "amount",
        "shop",
    ]
    assert {key.name for key in graph.asset_check_keys} == {"schema", "rows", "expectations"}
    assert graph.get(QUARANTINE).parent_keys == {SALES}
    assert not graph.get(QUARANTINE).is_materializable


def test_a_range_is_one_run_and_one_commit(sales, lake, instance):
    result = materialize(sales, instance, DAYS[0], DAYS[-1])
    assert result.success
    frame = lake.read("datasets/sales")
    assert frame.groupby("day").size().to_dict() == dict.fromkeys(DAYS, 4)
    assert len(lake.history("datasets/sales")) == 1
    assert lake.history("datasets/sales")[0]["run_id"] == result.run_id
    assert all(check.passed for check in checks(result).values())
    assert instance.get_materialized_partitions(SALES) == set(DAYS)


def test_the_metadata_of_a_day_is_that_day_only(sales, use_case, instance):
    write_day(use_case, DAYS[1], "1,10,A\n2,-5,B\n3,30,A\n4,1,A\n")
    materialize(sales, instance, DAYS[0], DAYS[2])
    filters = dg.AssetRecordsFilter(asset_key=SALES, asset_partitions=[DAYS[1]])
    event = instance.fetch_materializations(filters, limit=1).records[0].asset_materialization
    found = {name: value.value for name, value in event.metadata.items()}
    assert (found["dagster/partition_row_count"], found["quarantined_rows"]) == (3, 1)
    assert found["delta_version"] == 0
    assert found["dagster/uri"].endswith("/datasets/sales")


def test_rows_that_break_a_rule_go_to_quarantine_with_the_reason(sales, use_case, lake, instance):
    write_day(use_case, DAYS[0], "1,10,A\n2,-5,B\n3,30,A\n4,1,A\n")
    result = materialize(sales, instance, DAYS[0])
    assert result.success
    assert lake.read("datasets/sales")["id"].tolist() == [1, 3, 4]
    broken = lake.read("quarantine/sales")
    assert broken["id"].tolist() == [2]
    assert broken["reasons"].tolist() == ["expect_column_values_to_be_between(column=amount, min_value=0)"]
    rows = checks(result)["rows"]
    assert rows.metadata["quarantined_rows"].value == 1
    assert instance.get_materialized_partitions(QUARANTINE) == {DAYS[0]}

    write_day(use_case, DAYS[0])
    materialize(sales, instance, DAYS[0])
    assert lake.read("quarantine/sales").empty
    event = instance.get_latest_materialization_event(QUARANTINE).asset_materialization
    assert event.metadata["dagster/partition_row_count"].value == 0


CUT_OFF = "1,10,A\n2,20,B\n3,3"
BAD_DAYS = {
    "truncated file": ({"rows": CUT_OFF}, "schema", "looks cut off"),
    "half a row": ({"rows": "1,10,A\n2,20\n3,30,C\n"}, "schema", "not valid CSV"),
    "no rows": ({"rows": ""}, "rows", "row count"),
    "half its columns missing": ({"rows": "1\n2\n", "header": "id\n"}, "schema", "missing: amount, shop"),
    "text in a number": ({"rows": "1,10,A\n2,lots,B\n"}, "schema", "'lots'"),
    "too many broken rows": ({"rows": "1,-1,A\n2,-2,A\n3,3,B\n"}, "rows", "0.6667 (2 of 3 rows)"),
    "unmet expectation": ({"rows": "1,500,A\n2,500,A\n"}, "expectations", "observed 500"),
}


@pytest.mark.parametrize("kind", BAD_DAYS)
def test_a_bad_day_is_refused_and_the_good_days_are_written(kind, sales, use_case, lake, instance):
    fault, concern, reason = BAD_DAYS[kind]
    assert materialize(sales, instance, DAYS[0], DAYS[2]).success
    before = lake.read("datasets/sales", partitions=[DAYS[1]], partition_column="day")

    write_day(use_case, DAYS[0], "9,90,A\n")
    write_day(use_case, DAYS[1], **fault)
    write_day(use_case, DAYS[2], "8,80,A\n")
    result = materialize(sales, instance, DAYS[0], DAYS[2])

    assert not result.success
    message = failure(result)
    assert DAYS[1] in message and reason in message
    assert f"{DAYS[0]}:" not in message
    failed = {name for name, check in checks(result).items() if not check.passed}
    assert failed == {concern}
    check = checks(result)[concern]
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert DAYS[1] in check.metadata["findings"].value
    assert check.metadata["partitions_failed"].value == 1
    frame = lake.read("datasets/sales")
    assert frame[frame["day"] == DAYS[0]]["id"].tolist() == [9]
    assert frame[frame["day"] == DAYS[2]]["id"].tolist() == [8]
    pd.testing.assert_frame_equal(frame[frame["day"] == DAYS[1]].reset_index(drop=True), before)


def test_a_bad_day_gets_no_event_and_the_good_days_do(sales, use_case, instance):
    (use_case / "raw" / f"{DAYS[1]}.csv").unlink()
    result = materialize(sales, instance, DAYS[0], DAYS[2])
    assert not result.success
    assert "does not exist" in failure(result)
    assert instance.get_materialized_partitions(SALES) == {DAYS[0], DAYS[2]}


def test_a_bad_single_day_writes_nothing(sales, use_case, lake, instance):
    write_day(use_case, DAYS[0], "")
    result = materialize(sales, instance, DAYS[0])
    assert not result.success
    assert not lake.exists("datasets/sales")
    assert instance.get_materialized_partitions(SALES) == set()


def test_a_warning_is_shown_and_blocks_nothing(sales, use_case, lake, instance):
    write_day(use_case, DAYS[0], "1,10,\n2,20,\n3,30,A\n")
    result = materialize(sales, instance, DAYS[0])
    assert result.success
    check = checks(result)["expectations"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "0.3333 of 3 values" in check.metadata["observed"].value
    assert len(lake.read("datasets/sales")) == 3


def test_an_expectation_that_cannot_be_evaluated_has_errored_not_failed(use_case, load, lake, instance):
    write_day(use_case, DAYS[0])
    rule = "expect_column_values_to_match_json_schema, kwargs: {column: shop, json_schema: {type: nothing}}"
    defs = load(
        YAML.replace("expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0}", rule)
    )
    result = materialize(defs, instance, DAYS[0])
    assert not result.success
    assert "could not be evaluated" in failure(result)
    assert checks(result)["rows"].metadata["errored"].value == 1
    assert not lake.exists("datasets/sales")


@pytest.mark.parametrize("said", ['known_empty: ["2024-01-01"]', "empty_days: allow"])
def test_a_declared_empty_day_is_written_empty(said, use_case, load, lake, instance):
    write_day(use_case, DAYS[0], "")
    write_day(use_case, DAYS[1])
    defs = load(YAML.replace("column: day}", f"column: day, {said}}}"))
    assert materialize(defs, instance, DAYS[0], DAYS[1]).success
    assert set(lake.read("datasets/sales")["day"]) == {DAYS[1]}
    assert instance.get_materialized_partitions(SALES) == {DAYS[0], DAYS[1]}


def test_a_check_of_many_days_says_how_many_are_bad_and_the_first(sales, use_case, instance):
    write_day(use_case, DAYS[0])
    for day in DAYS[1:3]:
        write_day(use_case, day, "")
    failed = checks(materialize(sales, instance, DAYS[0], DAYS[2]))["rows"]
    assert failed.description.startswith(
        f"2 of 3 partitions, the first {DAYS[1]}: row count: expected at least 1"
    )


def test_data_without_partitions_is_replaced_as_a_whole(use_case, load, lake, instance):
    whole = YAML.replace("{partition}", "all").replace(
        '  partitions: {start: "2024-01-01", end: "2024-01-06", column: day}\n', ""
    )
    write_day(use_case, "all", "1,mon,10,A\n", "id,day,amount,shop\n")
    defs = load(whole)
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).success
    write_day(use_case, "all", "2,mon,10,A\n3,mon,10,A\n", "id,day,amount,shop\n")
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).success
    assert lake.read("datasets/sales")["id"].tolist() == [2, 3]
    event = instance.get_latest_materialization_event(SALES).asset_materialization
    assert event.metadata["dagster/row_count"].value == 2
    assert "| id |" in event.metadata["preview"].value


def test_a_failing_transform_names_itself_and_the_columns(use_case, load, lake, instance):
    write_day(use_case, DAYS[0])
    name = "mlops_assets.defs.flights.datasets.prepare_weather"
    defs = load(YAML.replace("  columns:", f"  transform: {name}\n  columns:"))
    result = materialize(defs, instance, DAYS[0])
    assert "prepare_weather failed" in failure(result)
    assert "Columns read: id, amount, shop" in failure(result)


WRONG = {
    "unknown key": ("  primary_key: [id]", "  primary_keys: [id]", "primary_keys"),
    "unknown column": (
        "primary_key: [id]",
        "primary_key: [nope]",
        "unknown columns in primary_key: nope; declared: id, day",
    ),
    "unknown column type": ("amount: number", "amount: float", "'string', 'integer', 'number'"),
    "unknown row rule": (
        "expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0}",
        "expect_column_mean_to_be_between, kwargs: {column: amount}",
        "not a rule on single rows",
    ),
    "unknown expectation": (
        "expect_column_mean_to_be_between",
        "expect_wonders",
        "'expect_wonders' is not an",
    ),
    "unknown column of a rule": (
        "column: amount, min_value",
        "column: nope, min_value",
        "Unknown column 'nope'",
    ),
    "no value set": (
        "expect_column_values_to_be_between, kwargs: {column: amount, min_value: 0}",
        "expect_column_values_to_be_in_set, kwargs: {column: shop}",
        "expect_column_values_to_be_in_set needs the argument value_set",
    ),
    "no bound": ("{column: amount, max_value: 100}", "{column: amount}", "needs min_value or max_value"),
    "mean of text": (
        "{column: amount, max_value: 100}",
        "{column: shop, max_value: 100}",
        "cannot be asked of column 'shop', which is declared as string; it takes: boolean, integer, number",
    ),
    "column names that differ by case": (
        "shop: string",
        "shop: string, Shop: string",
        "upper and lower case",
    ),
    "the quarantine's column": (
        "shop: string",
        "shop: string, Reasons: string",
        "the quarantine's own column",
    ),
    "a control character in a name": (
        "shop: string",
        'shop: string, "a\\nb": string',
        "is not a column name",
    ),
    "an unknown encoding": ("format: csv,", "format: csv, encoding: klingon,", "is no encoding that Python"),
    "an encoding that is not of text": ("format: csv,", "format: csv, encoding: hex,", "is no encoding that"),
    "a delimiter of two bytes": (
        "format: csv,",
        "format: csv, delimiter: ¦,",
        "is no delimiter: it is one ASCII",
    ),
    "missing values of an unknown column": (
        "format: csv,",
        "format: csv, column_null_values: {amuont: [NA]},",
        "unknown columns in column_null_values: amuont; declared: id, day",
    ),
    "text columns without a transform": (
        "format: csv,",
        "format: csv, text_columns: [id],",
        "declare the columns as string",
    ),
    "no format": ("{format: csv, path:", "{path:", "Field required. Allowed: csv, http, parquet"),
    "unknown format": ("format: csv", "format: xls", "Unknown source format 'xls'. Allowed: csv, http"),
    "share above one": ("max_quarantine_share: 0.3", "max_quarantine_share: 3", "less than or equal to 1"),
    "partition column not text": ("day: string", "day: date", "must be declared as a string"),
    "end before start": ('end: "2024-01-06"', 'end: "2023-01-06"', "must be after start"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_document_fails_loading_and_says_what_is_allowed(kind, load):
    right, wrong, message = WRONG[kind]
    assert right in YAML
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps the error in its own kinds
        load(YAML.replace(right, wrong))
    chain, error = "", caught.value
    while error is not None:
        chain, error = chain + str(error), error.__cause__ or error.__context__
    assert message in chain


def test_the_lake_can_be_any_root(sales, tmp_path, instance):
    other = Lake(uri=str(tmp_path / "elsewhere"))
    defs = dg.Definitions.merge(
        dg.Definitions(assets=sales.assets), dg.Definitions(resources={"lake": other})
    )
    assert materialize(defs, instance, DAYS[0]).success
    assert other.version("datasets/sales") == 0
