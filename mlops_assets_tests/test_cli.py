"""What a person at the prompt is told, and the exit code that goes with it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from mlops_assets import cli, instance
from mlops_assets.asset_keys import asset_key
from mlops_assets.commands import decisions
from mlops_assets.event_log.records import Record


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The metadata that the act will have recorded; the act itself has tests of its own."""
    metadata: dict[str, Any] = {
        "phase": "successful",
        "reason": "seen enough",
        "stable": "v1",
        "revision": 4,
        "weights": {"v1": 100.0},
        "verified": "all gateway replicas report revision 4 with these weights",
    }

    @contextlib.contextmanager
    def no_instance() -> Iterator[None]:
        yield

    def recorded(*_: Any, **__: Any) -> Record:
        return Record(asset_key("deployment", "flights"), "v1@4", "run-1", 0.0, metadata)

    monkeypatch.setattr(instance, "running_instance", no_instance)
    monkeypatch.setattr(cli, "_definitions", dg.Definitions)
    monkeypatch.setattr(decisions, "decide_rollout", recorded)
    return metadata


def promote() -> Any:
    return CliRunner().invoke(cli.main, ["promote", "flights", "--by", "ana", "--reason", "seen enough"])


def test_an_act_that_ended_in_an_error_is_told_and_fails(acted: dict[str, Any]) -> None:
    acted.update(phase="error", reason="promotion failed: golden row 3 differs")
    result = promote()
    assert result.exit_code == 1
    assert "golden row 3 differs" in result.output and "v1 answers everything" in result.output


def test_an_act_that_went_well_says_where_the_traffic_is(acted: dict[str, Any]) -> None:
    result = promote()
    assert result.exit_code == 0
    assert "revision 4: v1 100 %" in result.output


def test_a_wrong_policy_is_told_before_anything_runs(acted: dict[str, Any]) -> None:
    result = CliRunner().invoke(cli.main, ["backtest", "flights", "--policy", "{windows: 1}"])
    assert result.exit_code == 1
    assert "--policy '{windows: 1}' is no JSON" in result.output


def test_a_backtest_of_a_model_without_a_monitor_names_those_with_one(acted: dict[str, Any]) -> None:
    result = CliRunner().invoke(cli.main, ["backtest", "flights"])
    assert result.exit_code == 1
    assert "Unknown model with a drift monitor 'flights'" in result.output
