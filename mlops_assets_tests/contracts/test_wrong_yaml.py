"""Every mistake in a declaration names file, line and what is allowed, and nothing loads."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from mlops_assets.definitions import with_platform_policy
from mlops_assets.defs.platform.resources import resources

RIGHT = """\
type: mlops_assets.components.DatasetComponent
attributes:
  name: shop
  source: {format: csv, path: raw.csv}
  columns: {row_id: integer, price: number, sold: boolean}
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: shop
  entity: {name: row, join_keys: [row_id]}
  base: shop
  features:
    - {name: price, type: number}
---
type: mlops_assets.components.ModelComponent
attributes:
  name: shop
  task: binary
  feature_view: shop
  label: {dataset: shop, column: sold}
  candidates:
    - {trainer: lightgbm}
---
type: mlops_assets.components.DeploymentComponent
attributes:
  name: shop
  model: shop
"""


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as made:
        (made.defs_folder_path / "shop").mkdir()
        yield made


def errors(sandbox: DefsFolderSandbox, text: str) -> str:
    """What loading says, causes included; "" when it loads."""
    (sandbox.defs_folder_path / "shop" / "defs.yaml").write_text(text, encoding="utf-8")
    try:
        with sandbox.build_all_defs() as loaded:
            with_platform_policy(dg.Definitions.merge(loaded, resources()))
    except Exception as error:  # noqa: BLE001 (whatever loading raises is what a person reads)
        told: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            told.append(str(cause))
            cause = cause.__cause__ or cause.__context__
        return "\n".join(told)
    return ""


def test_the_right_text_loads(sandbox: DefsFolderSandbox) -> None:
    assert errors(sandbox, RIGHT) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("  base: shop", "  bases: shop", 8, "base"),
        ("task: binary", "task: binray", 18, "'binary', 'multiclass' or 'regression'"),
        ("task: binary", "task: binary\n  folds: many", 19, "valid integer"),
        ("{trainer: lightgbm}", "{trainer: lgbm}", 22, "'lightgbm', 'xgboost', 'random_forest'"),
        ("{trainer: lightgbm}", "{trainer: lightgbm, params: {leaves: 3}}", 16, "num_leaves"),
        ("{trainer: lightgbm}", "{trainer: ridge}", 16, "it does regression"),
        ("feature_view: shop", "feature_view: shoop", 19, "'shoop'. Allowed: shop"),
        ("label: {dataset: shop,", "label: {dataset: shoop,", 20, "datasets/shop"),
        ("  base: shop", "  base: shoop", 11, "shop"),
        ("  model: shop", "  model: shoop", 27, "models/shop"),
        ("label: {dataset: shop, column: sold}", "label: {dataset: shop}", 20, "either column or function"),
        (
            "label: {dataset: shop, column: sold}",
            "label: {dataset: shop, function: mlops_assets.errors.sold}", 20, "DataError",
        ),
        ("task: binary", "task: binary\n  gate: {metric: rmse}", 16, "roc_auc"),
        ("task: binary", "task: binary\n  gate: {metric: auc}", 19, "roc_auc"),
        ("path: raw.csv", "path: raw.csv, colour: red", 4, "Extra inputs are not permitted"),
        ("row_id: integer", "row_id: int", 5, "'integer'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_what_is_allowed(
    sandbox: DefsFolderSandbox, right: str, wrong: str, line: int, said: str
) -> None:
    assert right in RIGHT
    found = errors(sandbox, RIGHT.replace(right, wrong))
    assert f"defs.yaml:{line}" in found
    assert said in found


GOOD_STEPS = "  steps: [{shadow: 100, min_requests: 9}, {set_weight: 100}]\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("steps: [{set_weight: 50, min_requests: 9}]", "the last step must be {set_weight: 100}"),
        ("steps: [{shadow: 10, set_weight: 10}, {set_weight: 100}]", "either {shadow: PERCENT} or"),
        ("steps: [{set_weight: 10.005, min_requests: 9}, {set_weight: 100}]", "finer than 0.01 %"),
        ("steps: [{set_weight: 10}, {set_weight: 100}]", "needs min_requests"),
        ("steps: [{set_weight: 10, pause: soon}, {set_weight: 100}]", "'soon' is not a duration"),
        ("steps: [{set_weight: 120}, {set_weight: 100}]", "less than or equal to 100"),
        ("analysis: [{metric: speed, success_condition: value <= 1}]", "'error_rate'"),
        (
            "analysis: [{metric: error_rate, success_condition: ratio <= 1}]",
            "error_rate has no quantity 'ratio'",
        ),
        ("analysis: [{metric: error_rate, success_condition: low}]", "for example `increase <= 0.02`"),
        ("guard: {min_errors: 1}", "greater than or equal to 2"),
        ("guard: {max_errors: 9}", "Extra inputs are not permitted"),
        ("ab: {unit: price, split: 100}", "less than 100"),
        (GOOD_STEPS.strip() + "\n  ab: {unit: price}", "declare either steps or ab"),
        ("device: tpu", "'auto', 'cpu' or 'gpu'"),
        ("keep_warm: long", "'long' is not a duration"),
    ],
)
def test_a_rollout_that_cannot_work_is_refused_with_the_rule(
    sandbox: DefsFolderSandbox, more: str, said: str
) -> None:
    found = errors(sandbox, f"{RIGHT}  {more}\n")
    assert "defs.yaml:2" in found
    assert said in found


@pytest.mark.parametrize(
    "more", [GOOD_STEPS, "  ab: {unit: price, split: 50}\n", "  steps: [{set_weight: 100}]\n"]
)
def test_a_rollout_that_works_loads(sandbox: DefsFolderSandbox, more: str) -> None:
    assert errors(sandbox, RIGHT + more) == ""
