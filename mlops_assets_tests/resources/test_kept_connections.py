"""Connections stay open for a file that stays the same, and for no other."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as db

from mlops_assets.resources.kept_connections import MOST_FILES, kept


def _address(file: Path) -> str:
    return f"sqlite:///{file}"


def _make(file: Path, value: int) -> None:
    with sqlite3.connect(file) as made:
        made.execute("create table of_values (value integer)")
        made.execute("insert into of_values values (?)", [value])
    made.close()


def _value(file: Path) -> Any:
    with kept(_address(file)).engine.connect() as connection:
        return connection.execute(db.text("select value from of_values")).scalar_one()


def _opened(file: Path) -> int:
    """How many descriptors of this process are of the file."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += descriptor.readlink() == file
        except FileNotFoundError:  # The one that lists the folder.
            continue
    return found


def test_a_connection_stays_open_between_two_uses(tmp_path: Path) -> None:
    file = tmp_path / "one.db"
    _make(file, 1)
    assert _value(file) == 1 and _opened(file) == 1
    assert _value(file) == 1 and _opened(file) == 1


def test_a_file_that_was_replaced_is_opened_anew_and_nothing_is_known_of_it(tmp_path: Path) -> None:
    file, other = tmp_path / "one.db", tmp_path / "other.db"
    _make(file, 1)
    assert _value(file) == 1
    kept(_address(file)).known.add("a table")
    _make(other, 2)
    other.replace(file)
    assert _value(file) == 2
    assert kept(_address(file)).known == set()


def test_files_that_were_used_long_ago_are_closed(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.db" for number in range(MOST_FILES + 2)]
    for number, file in enumerate(files):
        _make(file, number)
        assert _value(file) == number
    assert [_opened(file) for file in files] == [0, 0, *[1] * MOST_FILES]
    assert _value(files[0]) == 0


def test_a_forked_process_opens_connections_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "one.db"
    _make(file, 1)
    before = kept(_address(file)).engine
    assert _value(file) == 1
    pid = os.fork()
    if pid == 0:
        # Nothing of the test's own process may run on in the child.
        os._exit(0 if kept(_address(file)).engine is not before and _value(file) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert _value(file) == 1
