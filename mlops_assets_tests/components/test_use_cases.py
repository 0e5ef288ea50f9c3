"""A document that cannot be loaded costs only what needs it, and says where and why."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.asset_names import asset_name
from mlops_assets.components.reading import COMPONENTS, read_documents
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.definitions import defs, with_platform_policy
from mlops_assets.defs.platform.resources import resources
from mlops_assets.documents.missing import CHECK, MissingDocument, missing_documents
from mlops_assets.errors import DeclarationError
from mlops_assets.testing.shop import DATASET, DEPLOYMENT, MODEL, MONITOR, VIEW, WHOLE, whole

MODEL_KINDS = ("training_set", "candidates", "model", "evaluation")
KINDS = ("dataset", "features", *MODEL_KINDS, "approval", "deployment")


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as made:
        yield made


Load = Callable[..., dg.Definitions]


@pytest.fixture
def load(sandbox: DefsFolderSandbox) -> Iterator[Load]:
    """Writes each text into a folder of that name and loads them all, as the code location does."""
    with ExitStack() as stack:

        def loaded(*, strict: bool = False, **texts: str) -> dg.Definitions:
            for folder, text in texts.items():
                path = sandbox.defs_folder_path / folder / "defs.yaml"
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
            tree = stack.enter_context(sandbox.build_component_tree())
            return with_platform_policy(load_use_cases(tree, beside=resources(), strict=strict))

        yield loaded


def materialisable(definitions: dg.Definitions) -> set[str]:
    """Without quarantines, which come with their datasets."""
    keys = definitions.resolve_asset_graph().materializable_asset_keys
    return {key.to_user_string() for key in keys if read_key(key).kind != "quarantine"}


def all_of(name: str) -> set[str]:
    return {asset_name(kind, name) for kind in KINDS}


def only(definitions: dg.Definitions) -> MissingDocument:
    (found,) = [one for one in missing_documents(definitions) if not one.because]
    return found


def test_every_component_says_which_assets_it_makes(sandbox: DefsFolderSandbox, load: Load) -> None:
    load(shop=(WHOLE + MONITOR).format(name="shop"))
    with sandbox.build_component_tree() as tree:
        for document in read_documents(tree):
            if document.component is None:
                continue
            built = dg.Definitions.merge(tree.build_defs(document.loc), resources())
            specs = built.resolve_all_asset_specs()
            assert {spec.key for spec in specs if spec.group_name == "shop"} == {
                asset_key(*made) for made in document.makes
            }


def test_nothing_is_missing_where_everything_loads(load: Load) -> None:
    loaded = load(shop=whole("shop"), fruit=whole("fruit"))
    assert missing_documents(loaded) == []
    assert materialisable(loaded) == all_of("shop") | all_of("fruit")
    assert missing_documents(defs()) == []


BROKEN = {
    "no YAML": ("  base: fruit", "  base: [fruit", 12, "expected ',' or ']'"),
    "a tab": ("  base: fruit", "\tbase: fruit", 11, "found character '\\t' that cannot start any token"),
    "a wrong field": ("  base: fruit", "  bases: fruit", 11, "bases: Extra inputs are not permitted"),
    "a wrong value": ("type: number}\n", "type: numbr}\n", 13, "Input should be"),
    "a key twice": ("  base: fruit", "  base: fruit\n  base: fruit", 12, "'base' stands here and in line 11"),
    "an unknown type": (
        "components.FeatureViewComponent", "components.FeatureVewComponent", 7,
        "Allowed: mlops_assets.components.DatasetComponent",
    ),
    "another reference": ("  base: fruit", "  base: froot", 11, "dataset 'froot'. Allowed: fruit, shop"),
    "no mapping": (f"type: {COMPONENTS}.FeatureViewComponent\n", "- a\n", 8, "expected <block end>"),
    "no such function": (
        "  base: fruit", "  base: fruit\n  transform: mlops_assets.errors.nothing", 12, "function",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_document_costs_what_needs_it_and_nothing_else(load: Load, mistake: str) -> None:
    right, wrong, line, said = BROKEN[mistake]
    assert right in whole("fruit")

    loaded = load(shop=whole("shop"), fruit=whole("fruit").replace(right, wrong, 1))

    assert materialisable(loaded) == all_of("shop") | {"fruit"}
    missing = missing_documents(loaded)
    assert f"fruit/defs.yaml:{line}: " in missing[0].problem and said in missing[0].problem
    assert missing[0].use_case == "fruit" and not missing[0].because
    if mistake in ("no mapping", "an unknown type"):
        assert missing[0].assets == ("fruit_2_document",)
        assert all(one.because == missing[0].where for one in missing[1:])
        return
    # What it would have made stands in the graph, and so does what falls with it.
    assert {key for one in missing for key in one.assets} == all_of("fruit") - materialisable(loaded)
    model, deployment = missing[1], missing[2]
    assert model.because == missing[0].where and "needs fruit_features, which is missing" in model.problem
    assert deployment.because == missing[0].where and "needs fruit_model" in deployment.problem


def test_all_that_is_wrong_is_named_where_documents_are_checked(load: Load) -> None:
    with pytest.raises(DeclarationError) as caught:
        load(
            strict=True,
            shop=whole("shop").replace("task: binary", "task: binray"),
            fruit=whole("fruit").replace("  base: fruit", "  base: [fruit"),
            tea=whole("tea"),
            nuts=whole("nuts").replace("price: number", "price: nummer").replace("base: nuts", "bass: nuts"),
        )
    lines = str(caught.value).splitlines()
    assert [line.rpartition("/defs/")[2].split(": ")[0] for line in lines] == [
        "fruit/defs.yaml:12",
        "nuts/defs.yaml:5",
        "nuts/defs.yaml:8",
        "nuts/defs.yaml:11",
        "shop/defs.yaml:18",
    ]


def test_a_use_case_may_need_another_and_falls_with_it(load: Load) -> None:
    texts = {
        "data": DATASET.format(name="shop") + VIEW.format(name="shop"),
        "model": (MODEL + DEPLOYMENT).format(name="shop").removeprefix("---\n"),
        "other": whole("other"),
    }
    assert materialisable(load(**texts)) == all_of("shop") | all_of("other")

    loaded = load(**{**texts, "data": texts["data"].replace("price: number", "price: nummer")})

    assert materialisable(loaded) == all_of("other")
    own, *fallen = missing_documents(loaded)
    assert "data/defs.yaml:5: columns.price: " in own.problem
    assert {one.because for one in fallen} == {own.where}
    assert [one.what for one in fallen] == [
        "FeatureViewComponent shop", "ModelComponent shop", "DeploymentComponent shop",
    ]  # fmt: skip
    assert own.command == f"mend {own.where}, see that `dg check defs` passes, then: make up"


def test_a_broken_monitor_leaves_its_model_and_deployment_standing(load: Load) -> None:
    text = (WHOLE + MONITOR).format(name="shop")
    loaded = load(shop=text.replace('"2024-01-01"', "someday"))
    assert materialisable(loaded) == all_of("shop")
    assert only(loaded).what == "DriftMonitorComponent shop"
    assert "shop_drift" in only(loaded).assets


def test_a_rollout_judged_by_labels_falls_with_the_monitor_that_joins_them(load: Load) -> None:
    text = (WHOLE + MONITOR).format(name="shop").replace(
        "  name: shop\n  model: shop\n",
        "  name: shop\n  model: shop\n  steps: [{set_weight: 50, min_requests: 200}, {set_weight: 100}]\n"
        "  analysis: [{metric: quality, success_condition: increase <= 0.02}]\n",
    )  # fmt: skip
    assert missing_documents(load(shop=text)) == []

    loaded = load(shop=text.replace('"2024-01-01"', "someday"))

    assert "shop_deployment" not in materialisable(loaded)
    assert "shop_model" in materialisable(loaded)
    (fallen,) = [one for one in missing_documents(loaded) if one.because]
    assert "needs shop_drift" in fallen.problem and fallen.because == only(loaded).where


def test_a_copied_use_case_does_not_take_the_place_of_the_one_it_was_copied_from(load: Load) -> None:
    loaded = load(shop=whole("shop"), a_copy=whole("shop"))

    nodes = loaded.resolve_asset_graph()
    assert materialisable(loaded) == all_of("shop")
    assert {nodes.get(asset_key("model", "shop")).group_name} == {"shop"}
    told = missing_documents(loaded)
    assert len(told) == 4 and {one.use_case for one in told} == {"a_copy"}
    assert "shop is declared by" in told[0].problem and "shop/defs.yaml:1 too" in told[0].problem


def test_of_two_that_claim_a_name_neither_stands(load: Load) -> None:
    loaded = load(one=DATASET.format(name="shop"), two=DATASET.format(name="shop"), tea=whole("tea"))
    assert materialisable(loaded) == all_of("tea")
    assert [one.use_case for one in missing_documents(loaded)] == ["one", "two"]
    assert all("shop is declared by" in one.problem for one in missing_documents(loaded))


def test_a_function_whose_module_cannot_be_imported_is_named_with_both_lines(
    sandbox: DefsFolderSandbox, load: Load
) -> None:
    (sandbox.defs_folder_path / "fruit").mkdir(exist_ok=True)
    module = sandbox.defs_folder_path / "fruit" / "wrong.py"
    dotted = f"{sandbox.project_name}.defs.fruit.wrong.sold"
    text = whole("fruit").replace("column: sold", f"function: {dotted}")
    for source, said in (
        ("import nowhere\n", "wrong.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\ndef sold(frame:\n", "wrong.py:2: SyntaxError: "),
        ("\n\nsold = {}['column']\n", "wrong.py:3: KeyError: 'column'"),
        ("import sys\nsys.exit(4)\n", "wrong.py:2: SystemExit: 4"),
    ):
        module.write_text(source, encoding="utf-8")

        loaded = load(shop=whole("shop"), fruit=text)

        assert {"shop_model", "fruit_features"} <= materialisable(loaded)
        assert "fruit_model" not in materialisable(loaded)
        assert f"fruit/defs.yaml:20: cannot import {dotted!r}: " in only(loaded).problem
        assert said in only(loaded).problem


def test_a_python_file_of_definitions_is_a_document_too(sandbox: DefsFolderSandbox, load: Load) -> None:
    folder = sandbox.defs_folder_path / "plain"
    folder.mkdir()
    (folder / "good.py").write_text(
        "import dagster as dg\n@dg.asset(key='plain')\ndef plain(): ...\n", encoding="utf-8"
    )
    (folder / "bad.py").write_text("import dagster as dg\n\nraise ValueError('no')\n", encoding="utf-8")
    (folder / "falls.py").write_text(
        "import dagster as dg\n@dg.asset(deps=['fruit_model'])\ndef report(): ...\n", encoding="utf-8"
    )
    text = whole("fruit").replace("dataset: fruit", "dataset: plain").replace("task: binary", "task: b")

    loaded = load(fruit=text, shop=whole("shop").replace("dataset: shop", "dataset: plain"))

    assert {"plain", "shop_model"} <= materialisable(loaded)
    assert "report" not in materialisable(loaded)
    told = {one.where.rpartition("/defs/")[2]: one for one in missing_documents(loaded)}
    assert "plain/bad.py:3: ValueError: no" in told["plain/bad.py:3"].problem
    assert told["plain/bad.py:3"].assets == ("plain_bad_document",)
    assert "needs fruit_model" in told["plain/falls.py:1"].problem


def test_what_only_shows_when_everything_is_put_together_is_told_of_the_document_that_brings_it(
    sandbox: DefsFolderSandbox, load: Load
) -> None:
    folder = sandbox.defs_folder_path / "zoo"
    folder.mkdir()
    (folder / "same.py").write_text(
        "import dagster as dg\n@dg.asset(key='shop_model')\ndef same(): ...\n", encoding="utf-8"
    )
    loaded = load(shop=whole("shop"))
    assert materialisable(loaded) == all_of("shop")
    assert only(loaded).where.endswith("zoo/same.py:1")
    assert "Duplicate asset key: AssetKey(['shop_model'])" in only(loaded).problem


def test_an_empty_file_and_one_that_is_no_text_are_told(sandbox: DefsFolderSandbox, load: Load) -> None:
    (sandbox.defs_folder_path / "bytes").mkdir()
    (sandbox.defs_folder_path / "bytes" / "defs.yaml").write_bytes(b"type: \xff\xfe\n")
    loaded = load(empty="# nothing yet\n", shop=whole("shop"))
    told = {one.use_case: one.problem for one in missing_documents(loaded)}
    assert "empty/defs.yaml:1: it holds no document" in told["empty"]
    assert "bytes/defs.yaml:1: it cannot be read" in told["bytes"]


def test_a_broken_platform_is_not_passed_over(sandbox: DefsFolderSandbox, load: Load) -> None:
    folder = sandbox.defs_folder_path / "platform"
    folder.mkdir()
    (folder / "sensors.py").write_text("raise ValueError('no')\n", encoding="utf-8")
    with pytest.raises(DeclarationError, match=r"platform/sensors\.py:1: ValueError: no"):
        load(shop=whole("shop"))


def test_a_placeholder_cannot_be_materialised_and_its_check_fails_with_the_reason(load: Load) -> None:
    loaded = load(shop=whole("shop").replace("task: binary", "task: binray"))
    graph = loaded.resolve_asset_graph()
    node = graph.get(asset_key("model", "shop"))
    assert not node.is_materializable and node.group_name == "shop"
    assert "shop/defs.yaml:18: task: Input should be 'binary'" in (node.description or "")

    with dg.DagsterInstance.ephemeral() as instance:
        checks = dg.AssetSelection.checks(dg.AssetCheckKey(node.key, CHECK))
        job = dg.Definitions.merge(
            loaded, dg.Definitions(jobs=[dg.define_asset_job("look", selection=checks)])
        ).resolve_job_def("look")
        (result,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not result.passed and "task: Input should be 'binary'" in (result.description or "")


def test_a_separator_within_text_does_not_shift_lines(load: Load) -> None:
    text = whole("shop").replace(
        "  name: shop\n  source", "  name: shop\n  description: |\n    a --- b\n    ---\n  source", 1
    )
    loaded = load(shop=text.replace("task: binary", "task: binray"))
    assert "shop/defs.yaml:21: task: " in only(loaded).problem


def test_what_is_missing_is_plain_values(load: Load) -> None:
    loaded = load(shop=whole("shop").replace("task: binary", "task: binray"))
    told = json.loads(json.dumps([asdict(one) for one in missing_documents(loaded)]))
    assert told[0]["use_case"] == "shop" and Path(told[0]["where"].split(":")[0]).name == "defs.yaml"
