"""What is declared of a table is what its readers get, whatever earlier declarations left in it."""

from datetime import date

import dagster as dg
import pyarrow as pa
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import AssetName
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.fields import DailyPartitions
from mlops_assets.errors import DataError

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
NAME = AssetName("dataset", "items")


@pytest.fixture
def table(lake):
    rows = pa.table({"day": DAYS, "id": [1, 2, 3, 4], "old": ["a", "b", "c", "d"]})
    lake.write("datasets/items", rows, partition_column="day", partitions=DAYS, commit={})
    return lake


def days(**given: date) -> DailyPartitions:
    return DailyPartitions(column="day", **{"start": date(2024, 1, 1), **given})


def test_days_and_columns_of_an_earlier_declaration_are_not_read(table):
    declared = DeclaredTable(NAME, ("id", "new"), days(start=date(2024, 1, 2), end=date(2024, 1, 4)))
    found = declared.read(table)
    assert sorted(found["id"]) == [2, 3] and list(found.columns) == ["id"]
    assert found.index.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"has no columns \['new'\]"):
        declared.read(table, columns=["new"])


def test_without_a_document_it_is_all_there_is(table):
    assert sorted(DeclaredTable(NAME).read(table).columns) == ["day", "id", "old"]
    assert DeclaredTable(NAME).key == asset_key("dataset", "items")
    assert len(DeclaredTable(NAME, ("day",), days()).read(table)) == 4


YAML = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: items
  source: {format: csv, path: "raw/{partition}.csv"}
  partitions: {start: "2024-01-01", end: "2024-01-05", column: day}
  columns: {id: integer, day: string, x: number, y: number}
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: items
  entity: {name: item, join_keys: [id]}
  base: items
  features: [{name: x, type: number}]
---
type: mlops_assets.components.ModelComponent
attributes:
  name: items
  task: regression
  feature_view: items
  label: {dataset: items, column: y}
  candidates: [{trainer: ridge}]
  evaluation_fraction: 0.5
"""
MADE = [asset_key(kind, "items") for kind in ("dataset", "features")]
TRAINED = asset_key("training_set", "items")


def test_a_later_start_takes_the_days_before_it_out_of_the_training_set(use_case, load, lake, instance):
    (use_case / "raw").mkdir()
    for number, day in enumerate(DAYS):
        rows = "".join(f"{10 * number + row},{row},{row}\n" for row in range(10))
        (use_case / "raw" / f"{day}.csv").write_text(f"id,x,y\n{rows}", encoding="utf-8")

    def run(text: str, *keys: dg.AssetKey, **tags: str) -> None:
        (use_case / "defs.yaml").unlink(missing_ok=True)
        defs = load(text)
        wanted = [defs.get_assets_def(key) for key in keys]
        assert dg.materialize(wanted, instance=instance, resources={"lake": lake}, tags=tags).success

    def trained(text: str) -> list[int]:
        run(text, TRAINED)
        return sorted(lake.read("training_sets/items")["id"])

    whole = {
        f"dagster/asset_partition_range_{end}": day for end, day in (("start", DAYS[0]), ("end", DAYS[-1]))
    }
    run(YAML, *MADE, **whole)
    assert trained(YAML) == list(range(40))
    assert trained(YAML.replace('start: "2024-01-01"', 'start: "2024-01-03"')) == list(range(20, 40))
    assert trained(YAML.replace('end: "2024-01-05"', 'end: "2024-01-02"')) == list(range(10))
