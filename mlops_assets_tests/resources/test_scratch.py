"""Databases of one computation: what they spill lies in the folder, and none of it stays."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mlops_assets.resources.scratch import LOCK, Scratch


def rooms(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.name != LOCK)


def test_more_rows_than_the_memory_lie_in_the_folder_and_are_gone_afterwards(tmp_path: Path) -> None:
    scratch = Scratch(folder=str(tmp_path), memory_limit="24MB", threads=1)
    with scratch.database() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT random() AS n FROM range(5_000_000)")
        (room,) = rooms(tmp_path)
        assert sum(file.stat().st_size for file in (tmp_path / room).rglob("*")) > 10_000_000
        assert connection.sql("SELECT count(*) FROM numbers").fetchall() == [(5_000_000,)]
    assert rooms(tmp_path) == []


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Scratch(folder=str(tmp_path)).database():
        raise ZeroDivisionError
    assert rooms(tmp_path) == []


def killed_in_a_room(folder: str) -> None:
    with Scratch(folder=folder).room() as room:
        (room / "rows").write_text("many")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=killed_in_a_room, args=[str(tmp_path)])
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(rooms(tmp_path)) == 1
    scratch = Scratch(folder=str(tmp_path))
    with scratch.room() as first, scratch.room() as second:
        assert rooms(tmp_path) == sorted([first.name, second.name])
    assert rooms(tmp_path) == []
