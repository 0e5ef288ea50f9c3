"""``ModelComponent``: features and labels become a judged model.

Belongs here: finding the documents that a model names, refusing what they rule out, which assets it becomes.
Does not belong here: the assets (``assets/training_set.py``, ``assets/candidates.py``, ``assets/model.py``,
``assets/evaluation.py``), training (``training/``), judging (``evaluation/``), MLflow (``resources/``).
"""

from typing import ClassVar

import dagster as dg

from mlops_assets.asset_names import AssetName
from mlops_assets.assets.candidates import candidates_asset
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.evaluation import evaluation_asset
from mlops_assets.assets.model import model_asset
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.assets.training_set import training_set_asset
from mlops_assets.components.dataset import datasets_of
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.feature_view import FeatureViewComponent
from mlops_assets.components.loaded_documents import documents_of
from mlops_assets.components.scaffolding import ModelScaffolder
from mlops_assets.documents.contradictions import of_model, refuse
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.label_column import label_problem
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import DeclarationError, UnknownName
from mlops_assets.training.label import Label


@dg.scaffold_with(ModelScaffolder)
class ModelComponent(DeclaredComponent[ModelDeclaration]):
    """Trains candidates side by side, registers the best, and judges it against the champion.

    .. code-block:: yaml

        type: mlops_assets.components.ModelComponent
        attributes:
          name: flights
          task: binary
          feature_view: flights
          label: {dataset: flights, function: mlops_assets.defs.flights.features.arrived_late}
          candidates:
            - {trainer: lightgbm}
            - {trainer: logistic_regression}
    """

    Declaration = ModelDeclaration
    MAKES: ClassVar = {"name": ("model", "training_set", "candidates", "evaluation")}
    NEEDS: ClassVar = {"feature_view": "features", "label.dataset": "dataset"}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        group, view = context.path.name, self.feature_view(context)
        self._refuse(context, view)
        monitor = self.monitor(context)
        model = self.declared_model(context, view)
        return dg.Definitions(
            assets=[
                training_set_asset(group, model, monitored=monitor is not None),
                candidates_asset(group, model),
                model_asset(group, model, monitor),
                evaluation_asset(group, model),
            ]
        )

    def declared_model(self, context: dg.ComponentLoadContext, view: FeatureViewDeclaration) -> DeclaredModel:
        """The model as its documents declare it, with its label function imported."""
        features, outcomes = self._tables(context, view)
        return DeclaredModel(self.declaration, view, features, outcomes, self._label(), self._online(context))

    def _online(self, context: dg.ComponentLoadContext) -> OnlineTable | None:
        """The view as replicas compute it. A view that cannot be loaded takes its models with it."""
        views = context.component_tree.get_all_components(FeatureViewComponent)
        named = (one for one in views if one.declaration.name == self.declaration.feature_view)
        found = next(named, None)
        return found.online(context) if found else None

    def _label(self) -> Label:
        label = self.declaration.label
        if label.function:
            return Label(label.function, self.function(label.function, "label", "function"))
        return Label(str(label.column))

    def _refuse(self, context: dg.ComponentLoadContext, view: FeatureViewDeclaration) -> None:
        """DeclarationError for what the view or the datasets rule out."""
        declared, datasets = self.declaration, datasets_of(context)
        refuse(self, of_model(declared, view))
        problem = label_problem(
            declared, view, base=datasets.get(view.base), outcomes=datasets.get(declared.label.dataset)
        )
        refuse(self, [problem] if problem else [])

    def monitor(self, context: dg.ComponentLoadContext) -> DriftMonitorDeclaration | None:
        """The monitor of this model, when one is declared."""
        monitors = documents_of(context, DriftMonitorDeclaration)
        declared = [one.declaration for one in monitors if one.declaration.model == self.declaration.name]
        if len(declared) > 1:
            raise DeclarationError(
                f"model {self.declaration.name!r} has {len(declared)} DriftMonitorComponents; declare one",
                where=self.where("name"),
            )
        return declared[0] if declared else None

    def feature_view(self, context: dg.ComponentLoadContext) -> FeatureViewDeclaration:
        """The declaration of the feature view this model names."""
        views = {
            document.declaration.name: document.declaration
            for document in documents_of(context, FeatureViewDeclaration)
        }
        name = self.declaration.feature_view
        if name not in views:
            raise DeclarationError(
                str(UnknownName("feature view", name, views)), where=self.where("feature_view")
            )
        return views[name]

    def _tables(
        self, context: dg.ComponentLoadContext, view: FeatureViewDeclaration
    ) -> tuple[DeclaredTable, DeclaredTable]:
        """The tables of the features and of the labels, as declared."""
        datasets = datasets_of(context)
        label = self.declaration.label.dataset
        features = DeclaredTable(AssetName("features", view.name))
        if view.base in datasets:
            features = view.table(datasets[view.base].declaration)
        if label not in datasets:
            return features, DeclaredTable(AssetName("dataset", label))
        return features, datasets[label].declaration.table()
