"""The README's table says what the code reads, and nobody else reads the environment."""

import re
from pathlib import Path

import pytest

from mlops_assets import environment
from mlops_assets.environment import VARIABLES
from mlops_assets.local_stack.layout import Layout

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
    # Secrets stand in variables that documents name; the place of a replica's store may be one.
    assert readers == {
        "mlops_assets/environment.py",
        "mlops_assets/secrets.py",
        "serve/devices.py",
        "serve/online/stores/feast.py",
        "serve/online/stores/redis.py",
        "serve/replica_port.py",
    }


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


def test_rays_token_is_the_shells_then_that_of_the_local_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in (environment.RAY_TOKEN, environment.RAY_TOKEN_FILE, environment.RAY_DASHBOARD_URL):
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path))
    assert environment.ray_token() == ""
    environment.own_ray_token_file().parent.mkdir()
    environment.own_ray_token_file().write_text("own")
    assert environment.ray_token() == "own"
    (tmp_path / "file").write_text("from a file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert environment.ray_token() == "from a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "said")
    assert environment.ray_token() == "said"


def test_the_token_of_the_local_ray_is_not_told_to_another_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in (environment.RAY_TOKEN, environment.RAY_TOKEN_FILE):
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", "http://ray.example:8265")
    environment.own_ray_token_file().parent.mkdir()
    environment.own_ray_token_file().write_text("own")
    assert environment.ray_token() == ""


def test_the_local_stack_puts_the_token_where_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path))
    assert environment.own_ray_token_file() == Layout(tmp_path).ray_token
