"""``DriftMonitorComponent``: what a deployment answered, measured, until its model is stale.

Belongs here: which assets, checks, sensors and schedule a document becomes, and refusing one that its model
or deployment rules out. Does not belong here: the assets (``assets/prediction_log.py``,
``assets/performance.py``, ``assets/drift.py``, ``assets/backtest.py``), the sensors
(``sensors/measuring.py``, ``sensors/drift.py``), arithmetic and decisions (``monitoring/``).
"""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.asset_names import AssetName
from mlops_assets.assets.backtest import backtest_asset
from mlops_assets.assets.drift import drift_asset
from mlops_assets.assets.model import training_code
from mlops_assets.assets.monitored_model import MonitoredModel
from mlops_assets.assets.performance import performance_asset
from mlops_assets.assets.prediction_log import prediction_log_asset
from mlops_assets.components.deployment import DeploymentComponent
from mlops_assets.components.document import DeclaredComponent, Need, named
from mlops_assets.components.model import ModelComponent
from mlops_assets.components.scaffolding import DriftMonitorScaffolder
from mlops_assets.documents.contradictions import of_monitor, refuse
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.errors import DeclarationError, UnknownName
from mlops_assets.event_log.episode_records import requests_key, signal_key
from mlops_assets.event_log.no_drift import no_drift_check
from mlops_assets.event_log.served_state import MonitorSummary, served_check
from mlops_assets.sensors.drift import drift_sensor
from mlops_assets.sensors.measuring import measure_sensor
from mlops_assets.sensors.retrain_calendar import retrain_schedule


@dg.scaffold_with(DriftMonitorScaffolder)
class DriftMonitorComponent(DeclaredComponent[DriftMonitorDeclaration]):
    """Watches the version that answers; drift opens an episode, which makes its model stale.

    .. code-block:: yaml

        type: mlops_assets.components.DriftMonitorComponent
        attributes:
          model: flights
          logs_since: "2013-01-01"
          window: 7d
          labels: {within: 3d, min_share: 0.8}
          policy:
            prediction: {action: open, windows: 2, of: 3}
            performance: {action: open}
          governor: {cooldown: 7d, daily_budget: 2}
          retrain: {schedule: "0 3 1 * *"}
    """

    Declaration = DriftMonitorDeclaration
    MAKES: ClassVar = {
        "model": (
            "drift",
            "prediction_log",
            "performance",
            "backtest",
            "drift_signal",
            "retrain_request",
        )
    }
    NEEDS: ClassVar = {"model": "model"}
    clock = staticmethod(time.time)
    """Real time, Unix seconds: by it runs are waited for and launched again."""

    @classmethod
    def needs(cls, attributes: Mapping[str, Any]) -> list[Need]:
        by = "deployment" if attributes.get("deployment") else "model"
        served_by = [Need(AssetName("deployment", name), path) for path, name in named(attributes, by)]
        return [*super().needs(attributes), *served_by]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        group, declared = folder.name, self.declaration
        deployment = self._deployment(context)
        monitored = self._monitored(context, deployment)
        summary = _summary(monitored, deployment)
        log, performance, drift = (
            prediction_log_asset(group, declared, monitored.model.online),
            performance_asset(group, monitored),
            drift_asset(group, monitored, summary),
        )
        return dg.Definitions(
            assets=[
                *_external(group, declared.model),
                log,
                performance,
                drift,
                backtest_asset(group, monitored),
            ],
            asset_checks=[no_drift_check(declared.model), served_check(summary)],
            sensors=[
                measure_sensor(
                    declared,
                    label_key=monitored.model.outcomes.key,
                    measured=[log.key, performance.key, drift.key],
                ),
                drift_sensor(declared, summary, clock=self.clock),
            ],
            schedules=[retrain_schedule(declared, declared.retrain)] if declared.retrain else [],
        )

    def _monitored(
        self, context: dg.ComponentLoadContext, deployment: DeploymentDeclaration | None
    ) -> MonitoredModel:
        """The model and this monitor of it; DeclarationError where they contradict each other."""
        model, declared = self._model(context), self.declaration
        view = model.feature_view(context)
        refuse(self, of_monitor(declared, model.declaration, view, deployment))
        return MonitoredModel(declared, model.declared_model(context, view))

    def _model(self, context: dg.ComponentLoadContext) -> ModelComponent:
        models = {
            component.declaration.name: component
            for component in context.component_tree.get_all_components(ModelComponent)
        }
        name = self.declaration.model
        if name not in models:
            raise DeclarationError(str(UnknownName("model", name, models)), where=self.where("model"))
        return models[name]

    def _deployment(self, context: dg.ComponentLoadContext) -> DeploymentDeclaration | None:
        """The declaration of the deployment whose answers are read; None where nobody declares it."""
        declared = (one.declaration for one in context.component_tree.get_all_components(DeploymentComponent))
        return next((one for one in declared if one.name == self.declaration.served_by), None)


def _summary(monitored: MonitoredModel, deployment: DeploymentDeclaration | None) -> MonitorSummary:
    declared = monitored.monitor
    return MonitorSummary(
        model=declared.model,
        deployment=declared.served_by,
        label_dataset=monitored.model.declaration.label.dataset,
        max_data_age_s=declared.max_data_age.total_seconds(),
        training_code=training_code(monitored.model),
        approval=deployment.approval.mode if deployment else "auto",
        relaunch=declared.relaunch.relaunch().model_dump(mode="json"),
        held_out_days=monitored.model.declaration.evaluation_window_days
        if monitored.model.view.event_timestamp
        else 0,
    )


def _external(group: str, model: str) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            signal_key(model),
            group_name=group,
            kinds={"drift_signal"},
            tags=name_tags("drift_signal", model),
            description=f"Drift episodes of {model}. A new one makes the model stale, and says why.",
        ),
        dg.AssetSpec(
            requests_key(model),
            group_name=group,
            kinds={"retrain_request"},
            description=f"Granted retrains of {model}; the sensor drift_{model} follows each with one "
            "run from the training set to the deployment. What is reported here by hand, or by the schedule "
            f"retrain_{model} where one is declared, is a request: the governor answers it.",
        ),
    ]
