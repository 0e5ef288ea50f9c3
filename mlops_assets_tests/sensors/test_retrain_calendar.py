"""The schedule of a drift monitor: what a tick asks for, and what it does not."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.event_log.retrain_requests import pending_retrain, retrain_refused, retrain_requested
from mlops_assets.monitoring.episodes import ManualRetrain
from mlops_assets.sensors.retrain_calendar import retrain_schedule

DUE = datetime(2024, 2, 1, 3, tzinfo=UTC)
MONITOR = DriftMonitorDeclaration.model_validate(
    {
        "model": "shop",
        "logs_since": "2024-01-01",
        "retrain": {"schedule": "0 3 1 * *", "timezone": "Europe/Berlin"},
    }
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One with a folder: Dagster gives a schedule no other."""
    with dg.DagsterInstance.local_temp() as made:
        yield made


def schedule() -> dg.ScheduleDefinition:
    assert MONITOR.retrain is not None
    return retrain_schedule(MONITOR, MONITOR.retrain)


def tick(instance: dg.DagsterInstance, due: datetime) -> str:
    with dg.build_schedule_context(instance, scheduled_execution_time=due) as context:
        said = schedule()(context)
    assert isinstance(said, dg.SkipReason)
    return str(said.skip_message)


def test_the_schedule_is_on_from_the_start_and_keeps_its_zone() -> None:
    made = schedule()
    assert made.name == "retrain_shop" and made.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (made.cron_schedule, made.execution_timezone) == ("0 3 1 * *", "Europe/Berlin")


def test_a_tick_asks_without_override_and_names_its_moment(instance: dg.DagsterInstance) -> None:
    assert tick(instance, DUE).endswith("the sensor drift_shop answers")
    pending = pending_retrain(instance, "shop")
    assert pending is not None
    assert pending.request == ManualRetrain(
        "schedule", "the calendar asks: 0 3 1 * *", False, "2024-02-01T03:00:00+00:00"
    )


def test_a_tick_that_is_evaluated_twice_asks_once(instance: dg.DagsterInstance) -> None:
    tick(instance, DUE)
    pending = pending_retrain(instance, "shop")
    assert pending is not None
    instance.report_runless_asset_event(retrain_refused("shop", pending, "refused, nothing is newer"))

    assert tick(instance, DUE) == "the retrain of 2024-02-01T03:00:00+00:00 has been asked for"
    assert pending_retrain(instance, "shop") is None
    tick(instance, datetime(2024, 3, 1, 3, tzinfo=UTC))
    assert pending_retrain(instance, "shop") is not None


def test_a_person_who_waits_is_answered_before_the_calendar(instance: dg.DagsterInstance) -> None:
    ana = ManualRetrain("ana", "prices")
    instance.report_runless_asset_event(retrain_requested("shop", ana))
    tick(instance, DUE)
    pending = pending_retrain(instance, "shop")
    assert pending is not None and pending.request == ana
