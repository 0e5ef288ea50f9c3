"""The README's table says what the code reads, and nobody else reads the environment."""

import re
from pathlib import Path

import pytest

from mlops_assets import environment
from mlops_assets.environment import VARIABLES

ROOT = Path(environment.__file__).parent.parent


def table_rows() -> dict[str, tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*?) \|$", text, flags=re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in rows}


def test_the_readme_lists_exactly_the_variables_with_default_and_meaning() -> None:
    declared = {
        variable.name: (variable.default.replace("{root}/", "") or "(empty)", variable.meaning)
        for variable in VARIABLES
    }
    assert table_rows() == declared


def test_only_one_module_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("mlops_assets", "serve")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(
            r"os\.environ\.get|os\.environ\[[^]]*\](?! = )|os\.getenv", path.read_text(encoding="utf-8")
        )
    }
    # What CUDA shows a replica, and whether its Ray speaks TLS, are facts of it, not settings of ours.
    assert readers == {"mlops_assets/environment.py", "serve/devices.py", "serve/replica_port.py"}


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MLOPS_LAKE_URI", "")
    assert environment.LAKE_URI.read() == f"{tmp_path}/lake"
    monkeypatch.setenv("MLOPS_LAKE_URI", "s3://bucket")
    assert environment.LAKE_URI.read() == "s3://bucket"


def test_the_endpoint_is_on_loopback_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_SERVE_PORT", "8123")
    assert environment.serve_url() == "http://127.0.0.1:8123"
    monkeypatch.setenv("MLOPS_SERVE_URL", "https://models.example/")
    assert environment.serve_url() == "https://models.example"
