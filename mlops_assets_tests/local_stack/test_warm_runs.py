"""Runs are forked from one warm process: they run, are cancelled and are missed like any other."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import LaunchRunContext
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun

from mlops_assets.errors import StackError
from mlops_assets.event_log.run_owner import OWNER_TAG, process_name, this_process
from mlops_assets.local_stack import warm_runs
from mlops_assets.local_stack.warm_runs import WarmRunLauncher
from mlops_assets_tests.local_stack import forked

DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path_factory.mktemp("home")
    overrides = {
        "run_launcher": {"module": "mlops_assets.local_stack.warm_runs", "class": "WarmRunLauncher"},
        "telemetry": {"enabled": False},
    }
    with dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as made:
        yield made
        made.run_launcher.dispose()


@pytest.fixture
def launcher(instance: dg.DagsterInstance) -> WarmRunLauncher:
    found = instance.run_launcher
    assert isinstance(found, WarmRunLauncher)
    return found


def launched(instance: dg.DagsterInstance, job: dg.JobDefinition) -> str:
    run = instance.create_run_for_job(
        job, job_code_origin=dg.reconstructable(job).get_python_origin(), status=dg.DagsterRunStatus.STARTING
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id


def run_of(instance: dg.DagsterInstance, run_id: str) -> DagsterRun:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id)]


def test_a_run_finds_everything_imported_and_all_runs_have_one_parent(instance: dg.DagsterInstance) -> None:
    first, second = (launched(instance, forked.telling) for _ in range(2))
    until(lambda: all(run_of(instance, one).is_finished for one in (first, second)))
    assert {run_of(instance, one).status for one in (first, second)} == {dg.DagsterRunStatus.SUCCESS}
    told = [line for one in (first, second) for line in said(instance, one) if line.startswith("parent")]
    assert len(told) == 2 and len(set(told)) == 1
    assert told[0].endswith("Evidently imported True")


def test_two_runs_at_once_use_the_threads_of_every_library(instance: dg.DagsterInstance) -> None:
    runs = [launched(instance, forked.computing) for _ in range(2)]
    until(lambda: all(run_of(instance, one).is_finished for one in runs))
    assert {run_of(instance, one).status for one in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_a_run_under_way_is_healthy_and_can_be_cancelled(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    run_id = launched(instance, forked.waiting)
    until(lambda: forked.STARTED in said(instance, run_id))
    assert launcher.check_run_worker_health(run_of(instance, run_id)).status == WorkerStatus.RUNNING

    assert launcher.terminate(run_id)

    until(lambda: run_of(instance, run_id).is_finished)
    assert run_of(instance, run_id).status == dg.DagsterRunStatus.CANCELED
    assert not launcher.terminate(run_id)


def test_a_run_whose_process_died_is_missed(instance: dg.DagsterInstance, launcher: WarmRunLauncher) -> None:
    run_id = launched(instance, forked.dying)
    until(lambda: launcher.check_run_worker_health(run_of(instance, run_id)).status == WorkerStatus.FAILED)
    assert not launcher.terminate(run_id)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm process that imports little."""
    monkeypatch.setattr(warm_runs, "IMPORTED", ("dagster._cli.api",))


@pytest.mark.usefixtures("light")
def test_a_change_of_the_platforms_code_starts_another_warm_process(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = launched(instance, forked.telling)
    changed = tmp_path / "new.py"
    changed.write_text("", encoding="utf-8")
    monkeypatch.setattr(warm_runs, "_own_files", lambda: iter([changed]))
    after = [launched(instance, forked.telling) for _ in range(2)]
    until(lambda: all(run_of(instance, one).is_finished for one in (before, *after)))
    parents = [
        line.split(",")[0] for one in (before, *after) for line in said(instance, one) if "parent" in line
    ]
    assert parents[0] != parents[1] == parents[2]


@pytest.mark.usefixtures("light")
def test_a_warm_process_that_died_is_told_and_the_next_run_starts_another(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(instance, forked.telling)
    warm = launcher._warm
    assert warm is not None
    warm._process.kill()
    warm._process.wait()
    with monkeypatch.context() as patch:
        # It died after the launcher had looked.
        patch.setattr(warm_runs._Warm, "serves", lambda *_: True)
        with pytest.raises(StackError, match="ended with exit code -9"):
            launched(instance, forked.telling)
    run_id = launched(instance, forked.telling)
    until(lambda: run_of(instance, run_id).is_finished)
    assert run_of(instance, run_id).status == dg.DagsterRunStatus.SUCCESS


def test_a_run_of_this_very_process_is_no_ones_to_cancel(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    made = instance.create_run_for_job(forked.telling)
    assert not launcher.terminate(made.run_id)
    assert launcher.check_run_worker_health(made).status == WorkerStatus.UNKNOWN
    instance.add_run_tags(made.run_id, {OWNER_TAG: this_process()})
    status = launcher.check_run_worker_health(run_of(instance, made.run_id)).status
    assert status == WorkerStatus.RUNNING


def test_a_run_of_another_host_interrupts_no_process_of_this_one(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        owner = process_name(bystander.pid).split(":", 1)[1]
        made = instance.create_run_for_job(forked.telling, tags={OWNER_TAG: f"elsewhere:{owner}"})
        cancelled = launcher.terminate(made.run_id)
        alive = bystander.poll() is None
        bystander.kill()
    assert alive and not cancelled
    assert run_of(instance, made.run_id).status != dg.DagsterRunStatus.CANCELING
