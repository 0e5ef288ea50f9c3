"""Every mistake in a declaration names file, line and what is allowed, and nothing loads."""

import re
from collections.abc import Iterator

import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.definitions import with_platform_policy
from mlops_assets.defs.platform.resources import resources
from mlops_assets.testing.shop import whole

RIGHT = whole("shop")


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as made:
        (made.defs_folder_path / "shop").mkdir()
        yield made


def errors(sandbox: DefsFolderSandbox, text: str) -> str:
    """What loading says, causes included; "" when it loads."""
    (sandbox.defs_folder_path / "shop" / "defs.yaml").write_text(text, encoding="utf-8")
    try:
        with sandbox.build_component_tree() as tree:
            with_platform_policy(load_use_cases(tree, beside=resources(), strict=True))
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
        ("{trainer: lightgbm}", "{trainer: lgbm}", 22, "'lgbm'. Allowed: lightgbm, logistic_regression"),
        ("{trainer: lightgbm}", "{trainer: lightgbm, params: {leaves: 3}}", 16, "num_leaves"),
        ("{trainer: lightgbm}", "{trainer: ridge}", 16, "it does regression"),
        ("trainer: lightgbm", "trainer: lightgbm, training_window: 12h", 22, "the shortest is 1d"),
        ("trainer: lightgbm", "trainer: lightgbm, training_window: [all, 90]", 22, "or whole days like 28d"),
        ("trainer: lightgbm", "trainer: lightgbm, training_window: [28d, 4w]", 22, "28d is listed more than"),
        ("trainer: lightgbm", "trainer: lightgbm, training_window: 28d", 22, "declares no event_timestamp"),
        ("feature_view: shop", "feature_view: shoop", 19, "'shoop'. Allowed: shop"),
        ("label: {dataset: shop,", "label: {dataset: shoop,", 20, "dataset 'shoop'. Allowed: shop"),
        ("  base: shop", "  base: shoop", 11, "dataset 'shoop'. Allowed: shop"),
        ("  model: shop", "  model: shoop", 27, "model 'shoop'. Allowed: shop"),
        ("label: {dataset: shop, column: sold}", "label: {dataset: shop}", 20, "either column or function"),
        (
            "label: {dataset: shop, column: sold}",
            "label: {dataset: shop, function: mlops_assets.errors.sold}", 20, "DataError",
        ),
        ("task: binary", "task: binary\n  gate: {metric: rmse}", 16, "roc_auc"),
        ("task: binary", "task: binary\n  gate: {metric: auc}", 19, "roc_auc"),
        ("path: raw.csv", "path: raw.csv, colour: red", 4, "Extra inputs are not permitted"),
        ("format: csv", "format: xls", 4, "Unknown source format 'xls'. Allowed: csv, http, parquet"),
        (
            "source: {format: csv, path: raw.csv}",
            "source: {format: stream, stream: clicks}", 4, "Unknown stream 'clicks'. Allowed: none. Dec",
        ),
        ("{format: csv, path: raw.csv}", "raw.csv", 4, "is no mapping with a format (csv, http, parquet"),
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


def test_a_secret_that_stands_where_its_variable_should_is_not_repeated(sandbox: DefsFolderSandbox) -> None:
    address = "{format: sql, table: sales, connection_variable: 'postgresql://ana:hidden-word@host/shop'}"
    found = errors(sandbox, RIGHT.split("---")[0].replace("{format: csv, path: raw.csv}", address))
    assert "defs.yaml:4" in found and "this is no name of an environment variable" in found
    assert "hidden-word" not in found


def test_a_name_that_makes_the_key_of_another_kind_is_refused_with_both_places(
    sandbox: DefsFolderSandbox,
) -> None:
    second = """---
type: mlops_assets.components.DatasetComponent
attributes:
  name: shop_model
  source: {format: csv, path: raw.csv}
  columns: {row_id: integer}
  primary_key: [row_id]
"""
    alone = errors(sandbox, RIGHT.replace("name: shop\n  source", "name: shop_drift\n  source", 1))
    assert "defs.yaml:3: name: the key shop_drift is that of the drift of 'shop'" in alone
    found = errors(sandbox, RIGHT + second)
    assert "defs.yaml:29: shop_model is declared by" in found and "defs.yaml:15 too" in found


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
        (
            "analysis: [{metric: speed, success_condition: value <= 1}]",
            "'speed'. Allowed: error_rate",
        ),
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


# -- documents that would load and never do what they say ----------------------------------------------

WATCHED = (
    RIGHT.replace("sold: boolean}", "sold: boolean, at: timestamp}").replace(
        "  base: shop\n", "  base: shop\n  event_timestamp: at\n"
    )
    + """\
  steps: [{set_weight: 50, min_requests: 200}, {set_weight: 100}]
  analysis:
    - {metric: error_rate, success_condition: increase <= 0.02}
---
type: mlops_assets.components.DriftMonitorComponent
attributes:
  model: shop
  logs_since: "2024-01-01"
"""
)
OTHER = """\
---
type: mlops_assets.components.ModelComponent
attributes:
  name: other
  task: binary
  feature_view: shop
  label: {dataset: shop, column: sold}
  candidates: [{trainer: lightgbm}]
---
type: mlops_assets.components.DeploymentComponent
attributes: {name: other, model: other}
"""
QUALITY = "{metric: quality, success_condition: increase <= 0.02}"
ERRORS = "{metric: error_rate, success_condition: increase <= 0.02}"
UNWATCHED = WATCHED[: WATCHED.index("---\ntype: mlops_assets.components.DriftMonitorComponent")]
UNLOGGED = WATCHED.replace("  analysis:", "  prediction_log: false\n  analysis:")
OF_OTHER = f"{WATCHED}  deployment: other\n{OTHER}"


def changed(right: str, wrong: str, text: str = WATCHED) -> str:
    assert right in text
    return text.replace(right, wrong)


def added(field: str) -> str:
    """One more field of the monitor, on line 37."""
    return f"{WATCHED}  {field}\n"


@pytest.mark.parametrize(
    "text",
    [
        WATCHED,
        WATCHED.replace(ERRORS, QUALITY),
        WATCHED + "  deployment: shop\n  policy: {performance: {metric: roc_auc}}\n  slices: [price]\n",
        WATCHED + '  retrain: {schedule: "0 3 1 * *", timezone: Europe/Berlin}\n',
        WATCHED + "  max_data_age: 14d\n  labels: {within: 30d}\n  policy: {age: {action: open}}\n",
        WATCHED.replace("task: binary", "task: binary\n  evaluation_window_days: 7"),
    ],
)
def test_a_monitor_and_a_rollout_that_can_work_load(sandbox: DefsFolderSandbox, text: str) -> None:
    assert errors(sandbox, text) == ""


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        # Nobody joins labels to the answers of this deployment.
        (changed(ERRORS, QUALITY, UNWATCHED), 31, "model 'shop' has no DriftMonitorComponent"),
        (changed(ERRORS, QUALITY, OF_OTHER), 31, "reads the answers of deployment 'other'"),
        (changed(ERRORS, QUALITY, UNLOGGED), 26, "quality is measured on logged answers"),
        # A monitor without answers to read, or of other answers.
        (OF_OTHER, 37, "deployment 'other' serves model 'other'"),
        (UNLOGGED, 36, "prediction_log: false, so there are no answers to measure"),
        # Names that the monitored model does not have.
        (added("slices: [colour]"), 37, "Unknown feature 'colour'. Allowed: price"),
        (added("policy: {performance: {metric: rmse}}"), 37, "Unknown metric of task binary 'rmse'"),
        # Windows that are gone before anybody could judge them.
        (added("windows_kept: 2"), 34, "policy.features asks the newest 3 windows, and windows_kept is 2"),
        (added("labels: {within: 84d}"), 34, "(windows_kept 12) the window is measured no more"),
        # A model that is stale from its first day on, or whose age nobody knows.
        (added("max_data_age: 13d"), 37, "keeps the newest 14 days from training"),
        (
            changed("  event_timestamp: at\n", "", added("max_data_age: 30d")),
            36, "declares no event_timestamp, so nobody knows how old",
        ),
        # Limits that the governor cannot hold.
        (added("governor: {first_back_off: 20d}"), 37, "longest_back_off (14 days) is shorter than"),
        (added("governor: {daily_budget: 0}"), 37, "greater than or equal to 1"),
        # A calendar that names no moment.
        (added('retrain: {schedule: "0 3 32 * *"}'), 37, "'0 3 32 * *' is no schedule: write cron's five"),
        (added("retrain: {schedule: monthly}"), 37, "'monthly' is no schedule"),
        (added('retrain: {schedule: "0 3 1 * *", timezone: Mars}'), 37, "'Mars' is no time zone: write"),
        (added("retrain: {timezone: UTC}"), 37, "schedule"),
        # Analyses and steps that nothing can meet, or that nobody looks at.
        (changed("{set_weight: 50, min_requests: 200}, ", ""), 26, "a plan of one step takes all"),
        (changed("{set_weight: 50, min_requests: 200}, {", "{pause: 5m, "), 26, "count for nothing"),
        (changed("error_rate, success_condition: increase", "prediction_shift, success_condition: distance"),
         26, "which only a shadow step has"),
        (changed("increase <= 0.02", "value <= 0"), 31, "could both keep and break"),
        (changed("increase <= 0.02", "increase <= 1"), 31, "could both keep and break"),
        (changed(ERRORS, "{metric: latency_p95, success_condition: value_ms <= 2000}"), 26, "after 1000 ms"),
        (changed("  analysis:", "  guard: {max_p95_ms: 1500}\n  analysis:"), 26, "can never take so long"),
        (changed("  analysis:", "  device: cpu\n  num_gpus: 0.5\n  analysis:"), 26, "held and not used"),
        (changed("  analysis:", "  num_gpus: 1.5\n  analysis:"), 26, "parts of one GPU (up to 1)"),
        # Fields of a model that count for nothing.
        (changed("task: binary", "task: binary\n  evaluation_fraction: 0.3"), 20, "leave it out"),
        (changed("task: binary", "task: binary\n  training_window_days: 9", RIGHT), 19, "days of event time"),
        (
            changed("{trainer: lightgbm}", "{trainer: lightgbm, training_window: [all, 28d]}",
                    changed("task: binary", "task: binary\n  training_window_days: 28")),
            24, "is not shorter than training_window_days 28",
        ),
        (changed("task: binary", "task: binary\n  gate: {slices: [colour]}"), 20, "Unknown feature 'colour'"),
        (changed("task: binary", "task: binary\n  gate: {max_slice_loss: 0.1}"), 17, "judges gate.slices"),
        (changed("task: binary", "task: binary\n  classes: [a, b, c]"), 17, "needs two different classes"),
        # Two deployments that one approval would be of.
        (f"{RIGHT}{OTHER}".replace("model: other", "model: shop"), 27, "is deployed by 'other' too"),
        # A unit that no request has.
        (f"{RIGHT}  ab: {{unit: colour}}\n", 28, "Unknown feature 'colour'. Allowed: price, unit"),
    ],
)  # fmt: skip
def test_what_can_never_do_what_it_says_is_refused_at_load(
    sandbox: DefsFolderSandbox, text: str, line: int, said: str
) -> None:
    found = errors(sandbox, text)
    assert f"defs.yaml:{line}" in found
    assert said in found


def test_each_contradiction_of_a_document_is_named(sandbox: DefsFolderSandbox) -> None:
    found = errors(sandbox, f"{WATCHED}  slices: [colour]\n  max_data_age: 2d\n")
    assert "defs.yaml:37: Unknown feature" in found and "defs.yaml:38: max_data_age is 2 days" in found


PARTS = WATCHED.split("---\n")
"""Dataset, feature view, model, deployment and monitor of ``shop``."""


@pytest.mark.parametrize(
    ("number", "unknown", "completed"),
    [
        (
            0,
            "Unknown dataset 'shop'",
            {"COLUMN: string": "row_id: integer, price: number, sold: boolean, at: timestamp"},
        ),
        (1, "Unknown feature view 'shop'", {"[COLUMN]": "[row_id]", "name: COLUMN": "name: price"}),
        (2, "Unknown model 'shop'", {"COLUMN": "sold"}),
        (3, "Unknown deployment 'shop'", {}),
    ],
)
def test_a_document_that_is_needed_is_shown_in_its_shortest_form(
    sandbox: DefsFolderSandbox, number: int, unknown: str, completed: dict[str, str]
) -> None:
    without = "---\n".join(part for position, part in enumerate(PARTS) if position != number)
    said = errors(sandbox, without)
    assert re.search(rf"defs\.yaml:\d+: {unknown}", said)
    form = re.findall(r"^---\ntype: \S+\nattributes:\n(?:  .+\n?)+", said, re.MULTILINE)[0]
    for open_end, column in completed.items():
        form = form.replace(open_end, column)
    assert errors(sandbox, f"{without}{form}\n") == ""
