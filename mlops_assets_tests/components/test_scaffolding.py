"""`dg scaffold defs` writes one document of each type, and together they load."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from dagster.components.component_scaffolding import scaffold_object
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

import mlops_assets.components
from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.defs.platform.resources import resources

Scaffold = Callable[..., str]


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as made:
        yield made


@pytest.fixture
def scaffold(sandbox: DefsFolderSandbox) -> Scaffold:
    """The command's own function; the text that it wrote."""

    def run(component: str, name: str, form: str = "yaml", **given: str) -> str:
        folder = sandbox.defs_folder_path / name
        params = json.dumps(given) if given else None
        typename = f"mlops_assets.components.{component}"
        scaffold_object(folder, typename, params, form, sandbox.project_root)
        return (folder / "defs.yaml").read_text(encoding="utf-8")

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tea.csv"
    path.write_text("tea_id;minutes;bitter\n" + "".join(f"{n};{n % 7},5;{n % 2}\n" for n in range(9)))
    return path


def test_one_document_of_each_type_loads_beside_the_others(
    scaffold: Scaffold, sandbox: DefsFolderSandbox, file: Path
) -> None:
    made = {
        scaffold("DatasetComponent", "tea", file=str(file)),
        scaffold("FeatureViewComponent", "brewing", base="tea"),
        scaffold("ModelComponent", "bitterness", feature_view="brewing", label="bitter"),
        scaffold("DeploymentComponent", "answers", model="bitterness"),
        scaffold("DriftMonitorComponent", "watch", model="bitterness"),
        scaffold("StreamComponent", "cups", topic="tea-cups"),
    }
    assert len(made) == len(mlops_assets.components.__all__)
    assert all("# " in text for text in made)
    with sandbox.build_component_tree() as tree:
        graph = load_use_cases(tree, beside=resources(), strict=True).resolve_asset_graph()
    wanted: list[tuple[Kind, str]] = [
        ("dataset", "tea"),
        ("features", "brewing"),
        ("model", "bitterness"),
        ("deployment", "answers"),
        ("drift", "bitterness"),
        ("stream", "cups"),
    ]
    assert all(graph.has(asset_key(*one)) for one in wanted)


def test_a_file_without_an_id_says_what_to_do_about_the_key(
    scaffold: Scaffold, sandbox: DefsFolderSandbox, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("minutes,bitter\n" + "".join(f"{n % 7},{n % 2}\n" for n in range(9)))
    text = scaffold("DatasetComponent", "tea", file=str(rows))
    assert "primary_key: []" in text
    assert "# no column is named like an id, so no key is declared; a feature view needs one." in text
    with pytest.raises(click.ClickException, match=r"'tea' declares no primary_key.* mlops new NAME"):
        scaffold("FeatureViewComponent", "brewing", base="tea")
    assert not (sandbox.defs_folder_path / "brewing").exists()


def test_a_dataset_without_a_file_is_one_to_start_from(scaffold: Scaffold) -> None:
    assert "columns:\n    row_id: integer\n" in scaffold("DatasetComponent", "tea")


@pytest.mark.parametrize(
    ("component", "given", "words"),
    [
        ("FeatureViewComponent", {"base": "coffee"}, "Unknown dataset 'coffee'. Allowed: tea"),
        ("ModelComponent", {}, "Unknown feature view 'second'. Allowed: none"),
        ("DeploymentComponent", {"model": "coffee"}, "Unknown model 'coffee'. Allowed: none"),
        ("DriftMonitorComponent", {"model": "coffee"}, "Unknown model 'coffee'. Allowed: none"),
        ("DatasetComponent", {"file": "/nowhere.csv"}, "does not exist"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_no_folder(
    scaffold: Scaffold, sandbox: DefsFolderSandbox, component: str, given: dict[str, str], words: str
) -> None:
    scaffold("DatasetComponent", "tea")
    with pytest.raises(click.ClickException, match=words):
        scaffold(component, "second", **given)
    assert not (sandbox.defs_folder_path / "second").exists()


def test_another_form_than_yaml_is_refused(scaffold: Scaffold) -> None:
    with pytest.raises(click.ClickException, match="a document is YAML"):
        scaffold("DatasetComponent", "tea", form="python")
