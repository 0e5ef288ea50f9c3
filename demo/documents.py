"""The documents that the loop runs on: those of the project, with what the story changes in them.

Belongs here: writing them into a project of the loop's own, in its state folder. Does not belong here: what
they mean (``mlops_assets/documents/``), loading them (``definitions.py``).

All that differs: the label counts as ``lateness.py`` says; answers are measured when a window ends or labels
arrive, not by the hour, because a week of the story lasts a minute; two of the four candidates compete.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlops_assets import defs
from mlops_assets.errors import StackError

PROJECT = "project"
"""Folder of the loop's own project, below its state folder."""
PACKAGE = "loop_documents"
WHAT_CHANGES: Mapping[tuple[str, ...], Any] = {
    ("ModelComponent", "label", "function"): "demo.lateness.counted_late",
    ("DriftMonitorComponent", "every"): "7d",
}
"""Component and path of an attribute of the flights documents, and its value in the loop."""
TRAINERS = ("lightgbm", "xgboost")
"""Those of the declared candidates that compete in the loop."""
_MANIFEST = f"""[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{PACKAGE}"
registry_modules = ["mlops_assets.components"]
"""


def write_project(state: Path) -> Path:
    """The project below the state folder, written anew; gives the flights document in it.

    Raises StackError when a changed document is not declared.
    """
    project = state / PROJECT
    shutil.rmtree(project, ignore_errors=True)
    own = project / PACKAGE / "defs"
    shutil.copytree(Path(defs.__file__).parent, own, ignore=shutil.ignore_patterns("__pycache__"))
    (project / PACKAGE / "__init__.py").write_text("", encoding="utf-8")
    (project / "pyproject.toml").write_text(_MANIFEST, encoding="utf-8")
    written = own / "flights" / "defs.yaml"
    documents = list(yaml.safe_load_all(written.read_text(encoding="utf-8")))
    written.write_text(yaml.safe_dump_all(changed(documents), sort_keys=False), encoding="utf-8")
    return written


def changed(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents with what the loop changes; StackError when one of those is not among them."""
    for (component, *path), value in WHAT_CHANGES.items():
        found = [one for one in documents if one["type"].endswith(f".{component}")]
        if len(found) != 1:
            raise StackError(
                f"the loop changes {'.'.join(path)} of one {component}, and flights declares {len(found)}; "
                "bring WHAT_CHANGES of demo/documents.py up to date"
            )
        attributes = found[0]["attributes"]
        for name in path[:-1]:
            attributes = attributes[name]
        attributes[path[-1]] = value
        if component == "ModelComponent":
            competing = [one for one in found[0]["attributes"]["candidates"] if one["trainer"] in TRAINERS]
            found[0]["attributes"]["candidates"] = competing
    return documents
