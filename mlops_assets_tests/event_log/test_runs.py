"""What the rollout sensor and the monitors ask of Dagster's runs, on a real instance."""

import subprocess

import dagster as dg
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log import run_owner, runs
from mlops_assets.event_log.runs import unfinished_run

KEY = asset_key("training_set", "shop")
OTHER = asset_key("dataset", "shop")


@pytest.fixture
def job() -> dg.JobDefinition:
    @dg.asset(key=KEY)
    def training_set() -> None: ...

    @dg.asset(key=OTHER)
    def dataset() -> None: ...

    return dg.Definitions(assets=[training_set, dataset]).resolve_implicit_global_asset_job_def()


def run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, key: dg.AssetKey, status: str, **tags: str
) -> str:
    made = instance.create_run_for_job(
        job_def=job,
        asset_selection=frozenset({key}),
        status=dg.DagsterRunStatus(status),
        tags={name.replace("__", "/"): value for name, value in tags.items()},
    )
    return made.run_id


def test_a_run_is_found_behind_any_number_of_waiting_ones(
    instance: dg.DagsterInstance, job: dg.JobDefinition
) -> None:
    started = run(instance, job, KEY, "STARTED")
    for _ in range(201):
        run(instance, job, OTHER, "NOT_STARTED")

    assert unfinished_run(instance, KEY) == started
    assert unfinished_run(instance, asset_key("model", "shop")) is None


def test_the_search_goes_on_behind_runs_whose_process_is_gone(
    instance: dg.DagsterInstance, job: dg.JobDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUNS_AT_ONCE", 5)
    started = run(instance, job, KEY, "STARTED")
    gone = run_owner.this_process().rsplit(":", 1)[0] + ":1"
    lost = [run(instance, job, KEY, "STARTED", mlops__process=gone) for _ in range(11)]

    assert unfinished_run(instance, KEY) == started
    ended = instance.get_runs(filters=dg.RunsFilter(run_ids=lost))
    assert {one.status for one in ended} == {dg.DagsterRunStatus.FAILURE}


def test_a_run_that_ended_well_between_two_looks_is_not_lost(
    instance: dg.DagsterInstance, job: dg.JobDefinition
) -> None:
    gone = run_owner.this_process().rsplit(":", 1)[0] + ":1"
    run_id = run(instance, job, KEY, "STARTED", mlops__process=gone)
    seen = instance.get_run_by_id(run_id)
    assert seen is not None
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job.name), run_id=run_id
    )

    assert run_owner.end_lost(instance, seen)

    now = instance.get_run_by_id(run_id)
    assert now is not None and now.status == dg.DagsterRunStatus.SUCCESS


def test_a_process_that_had_ended_when_it_was_named_is_gone() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert run_owner.is_gone(run_owner.process_name(ended.pid))
    assert not run_owner.is_gone(run_owner.this_process())
