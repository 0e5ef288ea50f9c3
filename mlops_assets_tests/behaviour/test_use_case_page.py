"""What the page of a use case shows can be loaded; ``test_use_case_by_yaml.py`` shows that it answers."""

import re

import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from mlops_assets import cli
from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.definitions import with_platform_policy
from mlops_assets.defs.platform.resources import resources
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import DeclarationError
from mlops_assets_tests.behaviour.use_case_page import DOCUMENTS, FRAGMENTS, IRIS, OF_MODELS, PAGE


def test_all_documents_of_the_page_load_together() -> None:
    whole = "---\n".join([IRIS, *(one for one in DOCUMENTS if one != IRIS)])
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "iris"
        folder.mkdir()
        (folder / "defs.yaml").write_text(whole, encoding="utf-8")
        with sandbox.build_component_tree() as tree:
            definitions = with_platform_policy(load_use_cases(tree, beside=resources(), strict=True))
    graph = definitions.resolve_asset_graph()
    made: tuple[Kind, ...] = ("dataset", "features", "model", "approval", "deployment", "drift")
    assert all(graph.has(asset_key(kind, "iris")) for kind in made)


def test_a_mistake_is_named_as_the_page_says() -> None:
    wrong = IRIS.replace("{trainer: lightgbm,", "{trainer: lgbm,")
    (shown,) = re.findall(r"^mlops_assets/(defs/iris/defs\.yaml:\d+: .*)$", PAGE, re.MULTILINE)
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "iris"
        folder.mkdir()
        (folder / "defs.yaml").write_text(wrong, encoding="utf-8")
        with sandbox.build_component_tree() as tree, pytest.raises(DeclarationError) as refused:
            load_use_cases(tree, beside=resources(), strict=True)
    assert str(refused.value).endswith(shown)


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_of_the_page_fits_a_dataset(fragment: str) -> None:
    changed = yaml.safe_load(fragment)
    attributes = next(yaml.safe_load_all(IRIS))["attributes"]
    columns = {**attributes["columns"], changed["partitions"]["column"]: "string"}
    declared = DatasetDeclaration.model_validate({**attributes, **changed, "columns": columns})
    assert declared.partitions is not None and "{partition}" in declared.source.path


@pytest.mark.parametrize("fragment", OF_MODELS)
def test_a_fragment_of_the_page_fits_a_model_and_makes_the_candidates_that_it_says(fragment: str) -> None:
    attributes = next(one for one in yaml.safe_load_all(IRIS) if one["type"].endswith("ModelComponent"))
    declared = ModelDeclaration.model_validate(
        {**attributes["attributes"], "task": "binary", **yaml.safe_load(fragment)}
    )
    assert [one.name for one in declared.competing(timed=True)] == [
        "lightgbm", "lightgbm 90d", "lightgbm 28d", "logistic_regression", "random_forest",
        "random_forest 90d", "random_forest 28d", "random_forest 7d",
    ]  # fmt: skip


def test_the_commands_of_the_page_exist() -> None:
    named = set(re.findall(r"^mlops ([a-z-]+)", PAGE, re.MULTILINE)) | set(
        re.findall(r"`mlops ([a-z-]+)", PAGE)
    )
    assert named >= {"new", "approve", "status", "retrain"}
    assert named <= set(cli.main.commands)
