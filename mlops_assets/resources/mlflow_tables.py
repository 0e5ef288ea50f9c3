"""One version of a registered model, from the tables of MLflow's SQLite store.

Belongs here: reading what sensors and ``mlops status`` ask for again and again. Does not belong here:
writing, stores elsewhere and everything else that is asked, which MLflow's client does
(``model_registry.py``).

Importing MLflow takes 2 s of CPU, which a command that looks up one row should not cost. The tables are
MLflow's; its version is pinned, and a test holds what is read here to what its client says.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mlops_assets.resources.mlflow_store import SQLITE, is_making

DELETED = "Deleted_Internal"
"""The stage of a version that was deleted; its row stays."""


class StoredVersion(NamedTuple):
    """A row of a version, and its tags."""

    number: int
    run_id: str
    tags: Mapping[str, str]


def are_at(uri: str) -> bool:
    """Whether there are such tables: the address of a SQLite file that MLflow has made."""
    return uri.startswith(SQLITE) and _file(uri).exists() and not is_making(uri)


def version(uri: str, name: str, asked: int | str) -> StoredVersion | None:
    """The version of that number, or the one that an alias points at; None when there is none."""
    with closing(sqlite3.connect(f"{_file(uri).as_uri()}?mode=ro", uri=True, timeout=30.0)) as tables:
        number = asked if isinstance(asked, int) else _pointed_at(tables, name, asked)
        row = tables.execute(
            "SELECT version, run_id FROM model_versions"
            " WHERE name = ? AND version = ? AND current_stage != ?",
            (name, number, DELETED),
        ).fetchone()
        if row is None:
            return None
        tags = tables.execute(
            "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (name, number)
        )
        return StoredVersion(int(row[0]), row[1] or "", dict(tags.fetchall()))


def _pointed_at(tables: sqlite3.Connection, name: str, alias: str) -> int | None:
    row = tables.execute(
        "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (name, alias)
    ).fetchone()
    return int(row[0]) if row else None


def _file(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()
