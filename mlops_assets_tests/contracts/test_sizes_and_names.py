"""A class has a name of its own, a function is short and takes few parameters; what does not is listed.

An entry that is not needed any more fails too: take it out. What is read best as a whole (a document, a
figure, a table of states) may be long. What a library or a person gives one by one may be many. Anything else
wants a value object, a table or a second function.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [file for folder in ("mlops_assets", "serve") for file in sorted((ROOT / folder).rglob("*.py"))]
MOST_LINES, MOST_PARAMETERS = 60, 6

SAME_NAME: Mapping[str, str] = {}
"""Names that several classes have, and of what. Best none."""

OPTIONS = "the options of one command, which a person gives one by one"
FIELDS = "the lines of one document, each with a default"
SETTINGS = "the settings of one object that lives as long as its process"
PAIRED = "rows, labels and scores that belong together, with how they are compared"
FIGURE = "one figure from its axes to its legend"
LISTED: Mapping[str, str] = {
    "mlops_assets/cli.py:backtest_command": OPTIONS,
    "mlops_assets/commands/decisions.py:ask_for_retrain": OPTIONS,
    "mlops_assets/commands/decisions.py:decide_rollout": OPTIONS,
    "mlops_assets/commands/explain.py:explain": OPTIONS,
    "mlops_assets/documents/written.py:dataset": FIELDS,
    "mlops_assets/documents/written.py:model": FIELDS,
    "mlops_assets/evaluation/slices.py:compare_slices": PAIRED,
    "mlops_assets/features/point_in_time.py:as_of_join": "the columns of both tables that a join goes by",
    "mlops_assets/monitoring/performance.py:window_performance": PAIRED,
    "mlops_assets/monitoring/report.py:evidently_html": "one report, put together for Evidently",
    "mlops_assets/resources/experiment_tracking.py:ExperimentTracker.log_candidate": "what MLflow shows",
    "mlops_assets/resources/model_registry.py:ModelRegistry.register": "what MLflow keeps of a version",
    "mlops_assets/rollout/capacity.py:place": "a cluster, what it holds, and what is asked of it",
    "mlops_assets/testing/deployed_world.py:world": "fixtures, which pytest gives one by one",
    "mlops_assets/testing/site.py:Site.__init__": SETTINGS,
    "serve/aggregator.py:AggregatorLink.__init__": SETTINGS,
    "serve/devices.py:load_on_device": "a package, a device, and what is measured of both",
    "serve/endpoint.py:Endpoint.__init__": SETTINGS,
    "serve/inference_log.py:PredictionLog.__init__": SETTINGS,
    "serve/inference_protocol.py:response": "the fields of one response",
    "serve/openapi.py:_inference_schemas": "one document, read best as a whole",
    "serve/openapi.py:document": "one document, read best as a whole",
    "serve/traffic.py:Traffic.__init__": SETTINGS,
}
"""Functions that are longer or take more, and why."""


def functions(
    node: ast.AST, within: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its name, and the class it is in before it."""
    for child in ast.iter_child_nodes(node):
        name = f"{within}{getattr(child, 'name', '')}"
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child
        nested = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        yield from functions(child, f"{name}." if nested else within)


def size(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    """Lines, and parameters without ``self`` or ``cls``."""
    given = function.args
    names = {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)} - {"self", "cls"}
    return (function.end_lineno or 0) - function.lineno + 1, len(names)


def too_large(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """{file:function: lines and parameters} of those beyond either limit."""
    return {
        f"{file.relative_to(ROOT)}:{name}": size(function)
        for file in files
        for name, function in functions(ast.parse(file.read_text(encoding="utf-8")))
        if size(function)[0] > MOST_LINES or size(function)[1] > MOST_PARAMETERS
    }


def places_of_classes(files: Iterable[Path]) -> dict[str, list[str]]:
    """{class: files that have one of that name}, of names that several have; nested ones count."""
    found = defaultdict(list)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(file.relative_to(ROOT)))
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_function_is_short_and_takes_few_parameters_or_is_listed() -> None:
    found = too_large(FILES)
    assert {name: size for name, size in found.items() if name not in LISTED} == {}


def test_a_listed_function_is_still_too_large() -> None:
    assert sorted(set(LISTED) - set(too_large(FILES))) == []


def test_a_class_has_a_name_of_its_own_or_is_listed() -> None:
    found = places_of_classes(FILES)
    assert {name: places for name, places in found.items() if name not in SAME_NAME} == {}


def test_a_listed_name_still_has_several_classes() -> None:
    assert sorted(set(SAME_NAME) - set(places_of_classes(FILES))) == []


def test_lines_and_parameters_are_counted() -> None:
    text = "class Shop:\n    def sell(self, a, /, b, *, c):\n        def inner(): ...\n        return inner\n"
    found = {name: size(function) for name, function in functions(ast.parse(text))}
    assert found == {"Shop.sell": (3, 3), "Shop.sell.inner": (1, 0)}
