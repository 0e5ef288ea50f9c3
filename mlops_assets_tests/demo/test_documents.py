"""The loop's own documents are the project's, but for what the story changes."""

from pathlib import Path

import pytest
import yaml

from demo.callers import DECLARATIONS, Flights
from demo.documents import WHAT_CHANGES, changed, write_project
from mlops_assets import environment
from mlops_assets.errors import StackError


def documents(file: Path) -> list[dict]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def test_only_what_the_story_changes_differs(tmp_path: Path) -> None:
    own, declared = documents(write_project(tmp_path)), documents(DECLARATIONS)
    assert own == changed(declared) != documents(DECLARATIONS)
    model = next(one for one in own if one["type"].endswith("ModelComponent"))
    assert model["attributes"]["label"]["function"] == "demo.lateness.counted_late"


def test_they_load_as_the_code_location_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from demo.definitions import defs
    from mlops_assets.definitions import defs as project

    write_project(tmp_path)
    monkeypatch.setenv(environment.STATE_DIR.name, str(tmp_path))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    own, declared = (made().resolve_asset_graph().get_all_asset_keys() for made in (defs, project))
    assert own == declared


def test_callers_read_the_documents_that_they_are_given(tmp_path: Path) -> None:
    given = write_project(tmp_path)
    assert Flights(given)._model.label.function == WHAT_CHANGES["ModelComponent", "label", "function"]
    assert Flights().classes == Flights(given).classes


def test_a_document_that_is_not_there_is_named() -> None:
    with pytest.raises(StackError, match=r"label\.function of one ModelComponent, and flights declares 0"):
        changed([])
