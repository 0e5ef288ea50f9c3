"""What a person at the prompt is told, and the exit code that goes with it. The acts are carried out."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from mlops_assets import cli, instance
from mlops_assets.asset_keys import asset_key
from mlops_assets.deploying import executor
from mlops_assets.errors import DeploymentError
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import latest
from mlops_assets.testing.deployed_world import (
    DeployedWorld,
    cluster,
    serve_client,
    start_v2,
    steps,
    why_failed,
    world,
)

__all__ = ["cluster", "serve_client", "steps", "world"]


def at_the_prompt(monkeypatch: pytest.MonkeyPatch, running: Any, definitions: dg.Definitions) -> None:
    """The commands find this instance and these definitions, as those of a running platform."""

    @contextlib.contextmanager
    def found() -> Iterator[Any]:
        yield running

    monkeypatch.setattr(instance, "running_instance", found)
    monkeypatch.setattr(cli, "_definitions", lambda: definitions)


@pytest.fixture
def deployed(world: DeployedWorld, monkeypatch: pytest.MonkeyPatch) -> DeployedWorld:
    """v1 of ``flights`` answers, and the commands act on it."""
    at_the_prompt(monkeypatch, world.instance, world.definitions)
    return world


@pytest.fixture
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_prompt(monkeypatch, None, dg.Definitions())


def mlops(*words: str) -> Result:
    """Runs one command as a person types it."""
    return CliRunner().invoke(cli.main, words)


def decided(command: str, *words: str) -> Result:
    return mlops(command, "flights", "--by", "ana", "--reason", "seen enough", *words)


def test_an_approval_is_recorded_and_told(deployed: DeployedWorld) -> None:
    result = decided("approve")
    assert result.exit_code == 0, result.output
    assert "flights_approval approved by ana: seen enough" in result.output
    record = latest(deployed.instance, asset_key("approval", "flights"))
    assert record is not None and record.metadata["approver"] == "ana"


def test_a_rejection_is_recorded_and_told_and_is_no_failure(deployed: DeployedWorld) -> None:
    result = decided("approve", "--reject")
    assert result.exit_code == 0, result.output
    assert "flights_approval rejected by ana: seen enough" in result.output
    decision = newest_decision(deployed.instance, asset_key("approval", "flights"))
    assert decision is not None and (decision.decision, decision.approver) == ("reject", "ana")
    assert deployed.tags(1)["approval"] == "reject"
    [run] = deployed.instance.get_runs(limit=1)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    refused = deployed.run()
    assert not refused.success and "is a rejection by ana" in why_failed(refused)


def test_an_approval_against_the_gate_is_refused(deployed: DeployedWorld) -> None:
    worse = {"outcome": "reject", "reason": "log loss 0.9 against 0.5", "model_version": 1}
    deployed.report("evaluation", "worse", worse)
    result = decided("approve")
    assert result.exit_code == 1
    assert "the gate says reject: log loss 0.9 against 0.5" in result.output


def test_a_promotion_says_where_the_traffic_is(deployed: DeployedWorld) -> None:
    start_v2(deployed)
    result = decided("promote")
    assert result.exit_code == 0, result.output
    assert "flights_deployment is at revision 3: v1 0 %, v2 100 %" in result.output
    assert deployed.last["stable"] == "v2" and deployed.champion() == 2


def test_a_promotion_that_fails_is_told_with_what_answers(
    deployed: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_v2(deployed)

    def differs(*_: Any, **__: Any) -> str:
        raise DeploymentError("golden row 3 differs")

    monkeypatch.setattr(executor, "verify_golden", differs)
    result = decided("promote")
    assert result.exit_code == 1
    assert "golden row 3 differs" in result.output and "v1 answers everything" in result.output


def test_a_wrong_policy_is_told_before_anything_runs(nothing_declared: None) -> None:
    result = mlops("backtest", "flights", "--policy", "{windows: 1}")
    assert result.exit_code == 1
    assert "--policy '{windows: 1}' is no JSON" in result.output


def test_a_backtest_of_a_model_without_a_monitor_names_those_with_one(nothing_declared: None) -> None:
    result = mlops("backtest", "flights")
    assert result.exit_code == 1
    assert "Unknown model with a drift monitor 'flights'" in result.output


def test_the_definitions_are_loaded_without_a_word_of_the_libraries() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cli._definitions().get_repository_def()
    assert [str(one.message) for one in told if not issubclass(one.category, DeprecationWarning)] == []
