"""A file that a charter or a page names is there: prose goes stale when things move."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`+((?:[A-Za-z_]+/)*[A-Za-z_]+(?:\.py|/))`+")
CHARTERS = [
    file
    for folder in ("mlops_assets", "serve", "demo", "bench")
    for file in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def missing(text: str, folder: Path) -> list[str]:
    """The files and folders that the text names and that are neither beside it nor in the tree."""
    bases = [folder, *folder.parents[: len(folder.relative_to(ROOT).parts)], ROOT / "mlops_assets"]
    return [named for named in NAMED.findall(text) if not any((base / named).exists() for base in bases)]


@pytest.mark.parametrize("file", CHARTERS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_charter_names_files_that_are_there(file: Path) -> None:
    assert missing(ast.get_docstring(ast.parse(file.read_text())) or "", file.parent) == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_a_page_names_modules_that_are_there(file: Path) -> None:
    modules = [named for named in missing(file.read_text(), ROOT) if "/" in named and named.endswith(".py")]
    assert modules == []


def test_a_file_that_is_gone_is_found() -> None:
    assert missing("what ``gone.py`` does, and `mlops_assets/errors.py`", ROOT / "docs") == ["gone.py"]
