"""Sensors of the platform that belong to no single use case.

Belongs here: the sensor that evaluates every asset's automation condition. Does not belong here:
the conditions (``mlops_assets/components/automation.py``).
"""

import dagster as dg


@dg.definitions
def sensors() -> dg.Definitions:
    """The automation sensor, running from the start."""
    return dg.Definitions(
        sensors=[
            dg.AutomationConditionSensorDefinition(
                "automation",
                target=dg.AssetSelection.all(),
                default_status=dg.DefaultSensorStatus.RUNNING,
                minimum_interval_seconds=10,
                run_tags={"mlops/launched_by": "automation"},
            )
        ]
    )
