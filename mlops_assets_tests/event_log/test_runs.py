"""What the rollout sensor and the monitors ask of Dagster's runs, on a real instance."""

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
