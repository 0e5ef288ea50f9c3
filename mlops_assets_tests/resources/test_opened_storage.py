"""Storage that is opened once per process is Dagster's own, and finds a database that was taken away."""

import fcntl
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.runs import SqliteRunStorage, sqlite
from dagster._core.storage.schedules import SqliteScheduleStorage

from mlops_assets.environment import PROJECT_ROOT


@dg.asset
def made() -> int:
    return 1


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstanceRef:
    """Of the platform's own storage, with everything else as Dagster has it."""
    import yaml

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    ours = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    kept = {name: ours[name] for name in ("run_storage", "schedule_storage", "event_log_storage")}
    return InstanceRef.from_dir(str(tmp_path), overrides=kept)


def test_the_second_instance_of_a_process_compares_no_revisions(
    reference: InstanceRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.from_ref(reference) as first:
        assert dg.materialize([made], instance=first).success
    compared: list[Any] = []
    original = sqlite.sqlite_run_storage.check_alembic_revision
    for module in (
        "dagster._core.storage.runs.sqlite.sqlite_run_storage",
        "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
        "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    ):

        def counting(*given: Any, module: str = module) -> Any:
            compared.append(module)
            return original(*given)

        monkeypatch.setattr(f"{module}.check_alembic_revision", counting)
    with dg.DagsterInstance.from_ref(reference) as second:
        assert len(second.get_runs()) == 1
        assert second.get_latest_materialization_event(dg.AssetKey("made")) is not None
        assert list(second.all_instigator_state()) == []
    assert compared == []


def test_dagsters_own_classes_read_what_is_stored(reference: InstanceRef, tmp_path: Path) -> None:
    for _ in range(2):
        with dg.DagsterInstance.from_ref(reference) as instance:
            assert dg.materialize([made], instance=instance).success
    assert len(SqliteRunStorage.from_local(str(tmp_path / "history")).get_runs()) == 2
    assert list(SqliteScheduleStorage.from_local(str(tmp_path / "schedules")).all_instigator_state()) == []
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as plain:
        assert len(plain.get_runs()) == 2
        assert plain.get_latest_materialization_event(dg.AssetKey("made")) is not None


def test_a_database_that_was_taken_away_is_made_anew(reference: InstanceRef, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_ref(reference) as instance:
        assert dg.materialize([made], instance=instance).success
    for file in tmp_path.rglob("*.db*"):
        file.unlink()
    with dg.DagsterInstance.from_ref(reference) as instance:
        assert instance.get_runs() == []
        assert dg.materialize([made], instance=instance).success


@pytest.mark.parametrize(
    ("module", "storage", "file"),
    [
        ("runs.sqlite.sqlite_run_storage", "run_storage", "history/runs.lock"),
        ("schedules.sqlite.sqlite_schedule_storage", "schedule_storage", "schedules/schedules.lock"),
    ],
)
def test_a_database_is_made_by_one_process_while_others_wait(
    reference: InstanceRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    storage: str,
    file: str,
) -> None:
    compared = sqlite.sqlite_run_storage.check_alembic_revision
    waits: list[bool] = []

    def another_asks(*given: Any) -> Any:
        with (tmp_path / file).open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        waits.append(True)
        return compared(*given)

    monkeypatch.setattr(f"dagster._core.storage.{module}.check_alembic_revision", another_asks)
    assert getattr(reference, storage) is not None and waits
    with (tmp_path / file).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
