"""The calendar of a drift monitor: at the declared moments it asks the governor for a retrain.

Belongs here: turning a tick of the schedule into one request. Does not belong here: the ruling on it
(``monitoring/episodes.py``, carried out by the sensor of ``sensors/drift.py``), the form of a request
(``event_log/retrain_requests.py``).

A tick launches nothing. What it asks for passes the limits that drift and a person's request pass.
"""

from datetime import UTC, datetime

import dagster as dg

from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration, RetrainCalendar
from mlops_assets.event_log.retrain_requests import asked_by_calendar_for, retrain_requested
from mlops_assets.monitoring.episodes import asked_by_calendar
from mlops_assets.sensors.drift_actions import chain_keys


def retrain_schedule(declared: DriftMonitorDeclaration, calendar: RetrainCalendar) -> dg.ScheduleDefinition:
    """The schedule ``retrain_<model>``, on from the start: one request for each moment of the calendar."""
    model = declared.model

    @dg.schedule(
        name=f"retrain_{model}",
        cron_schedule=calendar.schedule,
        execution_timezone=calendar.timezone,
        target=dg.AssetSelection.assets(*chain_keys(declared)),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Asks the governor for a retrain of {model}; the sensor drift_{model} answers.",
    )
    def ask(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        due = context.scheduled_execution_time.astimezone(UTC)
        return dg.SkipReason(ask_governor(context.instance, model, calendar, due))

    return ask


def ask_governor(instance: dg.DagsterInstance, model: str, calendar: RetrainCalendar, due: datetime) -> str:
    """Asks for the retrain that is due, in UTC, and says so. A moment that was asked for asks for nothing.

    A daemon that is killed within a tick evaluates it once more.
    """
    request = asked_by_calendar(calendar.schedule, due)
    if asked_by_calendar_for(instance, model) == request.due:
        return f"the retrain of {request.due} has been asked for"
    instance.report_runless_asset_event(retrain_requested(model, request))
    return f"the governor is asked for a retrain; the sensor drift_{model} answers"
