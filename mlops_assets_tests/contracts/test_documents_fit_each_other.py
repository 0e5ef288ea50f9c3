"""What two documents say of one thing must agree: found at loading, with both places."""

import pytest

from mlops_assets_tests.contracts.test_wrong_yaml import DefsFolderSandbox, errors, sandbox  # noqa: F401

TWO = """\
type: mlops_assets.components.DatasetComponent
attributes:
  name: orders
  source: {format: csv, path: orders.csv}
  columns: {order: integer, customer: integer, at: timestamp, amount: number, gift: boolean, note: string}
---
type: mlops_assets.components.DatasetComponent
attributes:
  name: visits
  source: {format: csv, path: visits.csv}
  columns: {customer: integer, known_at: timestamp, pages: integer, amount: number}
---
type: mlops_assets.components.DatasetComponent
attributes:
  name: outcomes
  source: {format: csv, path: outcomes.csv}
  columns: {order: integer, returned: boolean, refund: number, closed: date, order_note: string}
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: orders
  entity: {name: order, join_keys: [order]}
  event_timestamp: at
  base: orders
  joins:
    - {dataset: visits, keys: [customer], timestamp: known_at, tolerance: 3h, columns: [pages]}
  lookback_days: 2
  rolling:
    - {name: spent, keys: [customer], value: amount, known_at: at, window: 24h, aggregate: sum}
  features:
    - {name: amount, type: number}
    - {name: pages, type: integer}
    - {name: spent, type: number}
---
type: mlops_assets.components.ModelComponent
attributes:
  name: orders
  task: binary
  feature_view: orders
  label: {dataset: outcomes, column: returned}
  candidates:
    - {trainer: lightgbm}
"""


def test_documents_that_agree_load(sandbox) -> None:  # noqa: F811
    assert errors(sandbox, TWO) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        (
            "columns: {customer: integer, known_at",
            "columns: {customer: string, known_at",
            26,
            "key 'customer' is declared as integer in dataset 'orders' (",
        ),
        (
            "columns: {order: integer, returned",
            "columns: {order: string, returned",
            40,
            "key 'order' is declared as integer in dataset 'orders' (",
        ),
        (
            "columns: {order: integer, returned",
            "columns: {id: integer, returned",
            40,
            "joined by the join keys",
        ),
        (
            "column: returned",
            "column: closed",
            40,
            "'closed' of dataset 'outcomes' is a date, which is no label of a binary",
        ),
        ("column: returned", "column: nothing", 40, "Unknown column of dataset 'outcomes' 'nothing'"),
        ("task: binary", "task: regression", 40, "a boolean, which is no label of a regression task"),
        ("task: binary", "task: multiclass", 40, "a boolean, which is no label of a multiclass task"),
        ("gift: boolean", "split: boolean", 31, "Unknown feature"),
        (
            "{name: amount, type: number}",
            "{name: note, type: number}",
            31,
            "but its column as string; a number",
        ),
        (
            "{name: amount, type: number}",
            "{name: amount, type: category}",
            31,
            "its column as number; a category",
        ),
        (
            "{name: amount, type: number}",
            "{name: gift, type: number}",
            31,
            "its column as boolean; a number can",
        ),
        (
            "{name: amount, type: number}",
            "{name: at, type: number}",
            31,
            "kept beside the features as timestamp",
        ),
        (
            "{name: amount, type: number}",
            "{name: order, type: number}",
            31,
            "kept beside the features as integer",
        ),
        ("columns: [pages]}", "columns: [pages, amount]}", 26, "column 'amount' is there already"),
        ("{name: spent, keys", "{name: pages, keys", 29, "column 'pages' is there already"),
    ],
)
def test_a_disagreement_is_named_with_both_places(sandbox, right, wrong, line, said) -> None:  # noqa: F811
    assert right in TWO
    text = TWO.replace(right, wrong)
    if "gift" in right:
        text = text.replace("{name: amount, type: number}", "{name: nothing, type: boolean}")
    found = errors(sandbox, text)
    assert said in found
    assert f"defs.yaml:{line}: " in found
    if "is declared as" in said:
        other = 17 if "order" in said[:10] else 11
        assert "dataset 'orders' (" in found
        assert "defs.yaml:5) and as string in dataset" in found
        assert f"defs.yaml:{other}): no row of one would match" in found


@pytest.mark.parametrize("name", ["label", "split", "Label"])
@pytest.mark.parametrize("place", ["feature", "key", "time"])
def test_names_of_the_training_set_are_taken(sandbox, name, place) -> None:  # noqa: F811
    changes = {
        "feature": [
            ("gift: boolean", f"{name}: boolean"),
            ("name: amount, type: number", f"name: {name}, type: boolean"),
        ],
        "key": [("order: integer", f"{name}: integer"), ("join_keys: [order]", f"join_keys: [{name}]")],
        "time": [
            ("at: timestamp", f"{name}: timestamp"),
            ("timestamp: at", f"timestamp: {name}"),
            ("known_known_at", "known_at"),
            ("known_at: at,", f"known_at: {name},"),
        ],
    }[place]
    text = TWO
    for right, wrong in changes:
        text = text.replace(right, wrong)
    text = text.replace(f"known_{name}: timestamp", "known_at: timestamp")
    found = errors(sandbox, text)
    assert f"column name {name!r} is taken: it is a column of the training set" in found
    assert "defs.yaml:30" in found


def test_a_partition_column_may_have_any_printable_name(sandbox) -> None:  # noqa: F811
    text = TWO.split("---")[0].replace("columns: {", 'columns: {"order date": string, ')
    partitions = '  partitions: {start: "2024-01-01", column: order date}\n'
    assert errors(sandbox, text + partitions) == ""
