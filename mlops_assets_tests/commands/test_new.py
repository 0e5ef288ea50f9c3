"""A folder made from one file loads as it stands, and is built up to a verdict."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from mlops_assets import cli, environment
from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.commands import new
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.data.inference import format_of
from mlops_assets.definitions import with_platform_policy
from mlops_assets.defs.platform.resources import resources
from mlops_assets.errors import MlopsError
from mlops_assets.event_log.records import latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry

TODAY = date(2026, 11, 30)


def tea(count: int = 400) -> pd.DataFrame:
    """Three columns and no id: tea that draws for longer is bitter."""
    minutes = [1 + (7 * n) % 9 for n in range(count)]
    return pd.DataFrame(
        {
            "minutes": minutes,
            "origin": [("assam", "sencha", "oolong")[n % 3] for n in range(count)],
            "bitter": ["yes" if one > 5 or n % 11 == 0 else "no" for n, one in enumerate(minutes)],
        }
    )


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as made:
        yield made


Make = Callable[..., new.Made]


@pytest.fixture
def make(sandbox: DefsFolderSandbox, tmp_path: Path) -> Make:
    """`mlops new tea` for a frame or a text, into a project of its own."""

    def made(rows: "pd.DataFrame | str", name: str = "tea", label: Any = "bitter", **more: Any) -> new.Made:
        file = tmp_path / more.pop("filename", "own.csv")
        if isinstance(rows, str):
            file.write_text(rows, encoding="utf-8")
        elif file.suffix == ".parquet":
            rows.to_parquet(file)
        else:
            rows.to_csv(file, index=False)
        asked = new.NewUseCase(name, file, format_of(file), label, **more)
        module = f"{sandbox.project_name}.defs"
        return new.new_use_case(asked, today=TODAY, defs=sandbox.defs_folder_path, module=module)

    return made


@pytest.fixture
def beside(tmp_path: Path, mlflow_uri: str) -> dg.Definitions:
    """The platform's resources, on a lake and an MLflow store of their own."""
    own = {
        "lake": Lake(uri=str(tmp_path / "lake")),
        "model_registry": ModelRegistry(tracking_uri=mlflow_uri),
        "experiment_tracker": ExperimentTracker(tracking_uri=mlflow_uri, artifact_root=str(tmp_path)),
        "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
    }
    return dg.Definitions(resources={**(resources().resources or {}), **own})


def loaded(sandbox: DefsFolderSandbox, beside: dg.Definitions) -> dg.Definitions:
    with sandbox.build_component_tree() as tree:
        return with_platform_policy(load_use_cases(tree, beside=beside, strict=True))


def built(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *kinds: Kind
) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=[asset_key(kind, "tea") for kind in kinds], raise_on_error=False
    )


def test_three_columns_become_a_use_case_with_a_verdict(
    make: Make, sandbox: DefsFolderSandbox, beside: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    made = make(tea())
    definitions = loaded(sandbox, beside)
    wanted: tuple[Kind, ...] = ("dataset", "features", "training_set", "candidates", "model", "evaluation")
    assert built(definitions, instance, *wanted).success
    verdict = latest(instance, asset_key("evaluation", "tea"))
    assert verdict is not None and verdict.metadata["outcome"] == "promote"
    graph = definitions.resolve_asset_graph()
    after: tuple[Kind, ...] = ("approval", "deployment", "drift", "retrain_request")
    assert all(graph.has(asset_key(kind, "tea")) for kind in after)
    assert made.request == {"features": {"minutes": 1, "origin": "assam"}}


@pytest.mark.parametrize("case", ["parquet", "odd", "timed", "regression"])
def test_what_is_written_loads_as_it_stands(
    make: Make, sandbox: DefsFolderSandbox, beside: dg.Definitions, instance: dg.DagsterInstance, case: str
) -> None:
    frame = tea()
    if case == "parquet":
        make(frame.assign(tea_id=[f"t{n}" for n in range(len(frame))]), filename="own.parquet")
    elif case == "odd":
        odd = frame.rename(columns={"minutes": "Split", "origin": "yes"}).assign(label=1.5, split="?", Yes=2)
        odd.loc[::2, "split"] = "7"
        make(odd.to_csv(index=True, sep=";").rstrip("\n"))
    elif case == "timed":
        make(frame.assign(drawn=[f"2026-0{n % 9 + 1}-{n % 27 + 1:02}" for n in range(len(frame))]))
    else:
        make(frame, label="minutes", task="regression")
    definitions = loaded(sandbox, beside)
    assert built(definitions, instance, "dataset", "features").success
    assert definitions.resolve_asset_graph().has(asset_key("drift", "tea"))
    style = ["ruff", "check", "--config", str(environment.PROJECT_ROOT / "pyproject.toml")]
    folder = str(sandbox.defs_folder_path)
    subprocess.run([sys.executable, "-m", *style, folder], check=True)
    subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "110", folder], check=True
    )


def test_what_was_guessed_is_said_with_how_to_say_otherwise(make: Make) -> None:
    told = "\n".join(new.lines(make(tea()), "http://127.0.0.1:8000"))
    for said in (
        "minutes: integer; origin: string; bitter: string",
        "rows are numbered as row_id",
        "otherwise: --task, or task of the model",
        "yes is the positive class",
        "make up",
        """-d '{"features": {"minutes": 1, "origin": "assam"}}'""",
    ):
        assert said in told


def test_every_line_of_the_documents_is_yaml_with_every_kind_of_document(make: Make) -> None:
    made = make(tea())
    documents = list(yaml.safe_load_all((made.folder / "defs.yaml").read_text(encoding="utf-8")))
    assert [one["type"].rpartition(".")[2] for one in documents] == [
        "DatasetComponent",
        "FeatureViewComponent",
        "ModelComponent",
        "DeploymentComponent",
        "DriftMonitorComponent",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Tea Shop", "like tea_shop"),
        ("2tea", "like data_2tea"),
        ("tea_model", "choose a name that does not end in _model"),
        ("platform", "is there already"),
    ],
)
def test_an_odd_name_is_refused_with_one_that_would_do(
    make: Make, sandbox: DefsFolderSandbox, name: str, words: str
) -> None:
    (sandbox.defs_folder_path / "platform").mkdir()
    with pytest.raises(MlopsError, match=words):
        make(tea(), name=name)
    assert [one.name for one in sandbox.defs_folder_path.iterdir() if one.is_dir()] == ["platform"]


def test_a_name_that_is_declared_elsewhere_is_refused(make: Make) -> None:
    make(tea())
    with pytest.raises(MlopsError, match="tea is there already"):
        make(tea())
    other = new.DEFS / "flights" / "defs.yaml"
    assert other.exists()
    with pytest.raises(MlopsError, match=r"'weather' is declared in mlops_assets/defs/flights/defs\.yaml"):
        new.require_free("weather", new.DEFS)


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [("", "bitter", "is empty"), ("a,b\n1,2\n", "c", "Unknown column 'c'. Allowed: a, b")],
)
def test_nothing_is_written_when_it_cannot_be(
    make: Make, sandbox: DefsFolderSandbox, text: str, label: str, words: str
) -> None:
    with pytest.raises(MlopsError, match=words):
        make(text, label=label)
    assert not (sandbox.defs_folder_path / "tea").exists()


def test_a_large_file_stays_where_it_is(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(new, "LARGEST_COPIED", 10)
    made = make(tea())
    assert not (made.folder / "raw.csv").exists()
    assert f'path: "{tmp_path}/own.csv"' in (made.folder / "defs.yaml").read_text(encoding="utf-8")


def test_without_a_label_a_person_is_asked_and_a_pipe_is_told(
    sandbox: DefsFolderSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "DEFS", sandbox.defs_folder_path)
    file = tmp_path / "own.csv"
    tea().to_csv(file, index=False)
    told = CliRunner().invoke(cli.main, ["new", "tea", "--csv", str(file)])
    assert told.exit_code == 1
    assert "--label COLUMN. Columns: minutes, origin, bitter. The likely one: bitter" in told.output
    assert CliRunner().invoke(cli.main, ["new", "tea"]).exit_code == 2
    missing = CliRunner().invoke(cli.main, ["new", "tea", "--csv", "nowhere.csv", "--label", "x"])
    assert missing.exit_code == 1 and "nowhere.csv is no file" in missing.output
    made = CliRunner().invoke(cli.main, ["new", "tea", "--csv", str(file), "--label", "bitter"])
    assert made.exit_code == 0 and (sandbox.defs_folder_path / "tea" / "defs.yaml").is_file()
