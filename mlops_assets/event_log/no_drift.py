"""The check ``no_drift`` on ``<model>_model``: no drift episode of the version that answers is open.

Belongs here: the check as one that runs and as an event that needs no run. Does not belong here: the episodes
(``episode_records.py``), when one opens or closes (``monitoring/episodes.py``).
"""

from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.monitoring.episodes import EpisodeLog

NO_DRIFT = "no_drift"


def no_drift_check(model: str) -> dg.AssetChecksDefinition:
    """The check, for the model that a monitor watches."""

    @dg.asset_check(
        asset=asset_key("model", model),
        name=NO_DRIFT,
        description="No drift episode of the version that answers is open.",
    )
    def no_drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(**no_drift_result(episode_log(context.instance, model)))

    return no_drift


def no_drift_result(log: EpisodeLog) -> dict[str, Any]:
    """Passed, severity and description of the check ``no_drift``."""
    drift = log.of_drift
    episode = drift.open
    if episode is None:
        last = drift.newest
        ended = f"; episode {last.number} was closed: {last.close_reason}" if last else ""
        return {
            "passed": True,
            "severity": dg.AssetCheckSeverity.WARN,
            "description": f"No drift episode is open{ended}",
        }
    return {
        "passed": False,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"Episode {episode.number} on {episode.version} is open: {episode.reason}",
        "metadata": {
            "episode": episode.number,
            "version": episode.version,
            "opened_at": episode.opened_at,
            "retrains": len(episode.attempts),
        },
    }


def no_drift_evaluation(model: str, log: EpisodeLog) -> dg.AssetCheckEvaluation:
    """The check ``no_drift`` as an event that needs no run."""
    key = asset_key("model", model)
    return dg.AssetCheckEvaluation(asset_key=key, check_name=NO_DRIFT, **no_drift_result(log))
