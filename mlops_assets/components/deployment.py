"""``DeploymentComponent``: an approved model becomes a Ray Serve application, step by judged step.

Belongs here: which assets and which sensor a document becomes, and refusing one that its model rules out.
Does not belong here: the assets (``assets/approval.py``, ``assets/deployment.py``), the watch
(``sensors/rollout.py``), carrying a rollout out (``deploying/``).
"""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.asset_names import AssetName
from mlops_assets.assets.approval import approval_asset, bound_keys
from mlops_assets.assets.deployment import DeclaredDeployment, deployment_asset
from mlops_assets.components.document import DeclaredComponent, Need, named
from mlops_assets.components.model import ModelComponent
from mlops_assets.components.scaffolding import DeploymentScaffolder
from mlops_assets.documents.contradictions import of_deployment, refuse
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.rollout.plan import QUALITY
from mlops_assets.sensors.rollout import rollout_sensor


@dg.scaffold_with(DeploymentScaffolder)
class DeploymentComponent(DeclaredComponent[DeploymentDeclaration]):
    """Deploys what was approved, and verifies it over HTTP before it says so.

    .. code-block:: yaml

        type: mlops_assets.components.DeploymentComponent
        attributes:
          name: flights
          model: flights
          approval: {mode: auto}
          replicas: 2
          steps:
            - {shadow: 100, min_requests: 500}
            - {set_weight: 10, min_requests: 500, pause: 10m}
            - {set_weight: 50, min_requests: 500}
            - {set_weight: 100}
    """

    Declaration = DeploymentDeclaration
    MAKES: ClassVar = {"name": ("deployment",), "model": ("approval",)}
    NEEDS: ClassVar = {"model": "model"}
    clock = staticmethod(time.time)
    """Unix seconds, for the sensor and the acts."""

    @classmethod
    def needs(cls, attributes: Mapping[str, Any]) -> list[Need]:
        judged = [name for _, name in named(attributes, "analysis.metric")]
        by_labels = [
            Need(AssetName("drift", model), path, optional=True)
            for path, model in named(attributes, "model")
            if QUALITY in judged
        ]
        return [*super().needs(attributes), *by_labels]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        declared, group = self.declaration, context.path.name
        plan = declared.plan(labels_within=self._labels_within(context))
        deployed = DeclaredDeployment(declared, plan, self.clock)
        return dg.Definitions(
            assets=[
                approval_asset(group, declared.model, declared.approval.mode),
                deployment_asset(group, deployed),
            ],
            sensors=[
                rollout_sensor(
                    name=declared.name,
                    model=declared.model,
                    plan=plan,
                    bound=bound_keys(declared.model),
                    clock=self.clock,
                )
            ],
        )

    def _labels_within(self, context: dg.ComponentLoadContext) -> timedelta | None:
        """How long the model's monitor waits for labels, None without one; DeclarationError for a deployment
        that its model, the monitor or another deployment rules out.
        """
        labels_within = None
        # A model that nobody declares is refused by name, where all references are checked.
        for model in context.component_tree.get_all_components(ModelComponent):
            if model.declaration.name == self.declaration.model:
                monitor = model.monitor(context)
                view, others = model.feature_view(context), self._others(context)
                refuse(self, of_deployment(self.declaration, view, monitor, others))
                labels_within = monitor.labels.within if monitor else None
        return labels_within

    def _others(self, context: dg.ComponentLoadContext) -> list[str]:
        """Other deployments of the same model."""
        declared = (one.declaration for one in context.component_tree.get_all_components(DeploymentComponent))
        own = self.declaration
        return [one.name for one in declared if one.model == own.model and one.name != own.name]
