"""``FeatureViewComponent``: datasets become the features of an entity, as known before each event.

Belongs here: checking the document against its datasets at loading, which asset it becomes. Does not belong
here: the asset and its check (``assets/feature_view.py``), which columns a document may name
(``documents/view_columns.py``).

A run over a range reads the range and its look back once, and writes its good days in one commit.
"""

from typing import ClassVar

import dagster as dg

from mlops_assets.assets.feature_view import features_asset
from mlops_assets.components.dataset import datasets_of
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.scaffolding import FeatureViewScaffolder
from mlops_assets.documents.contradictions import refuse
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.view_columns import view_problem


@dg.scaffold_with(FeatureViewScaffolder)
class FeatureViewComponent(DeclaredComponent[FeatureViewDeclaration]):
    """Features of an entity, from datasets, as they were known before each event.

    .. code-block:: yaml

        type: mlops_assets.components.FeatureViewComponent
        attributes:
          name: flights
          entity: {name: flight, join_keys: [flight_id]}
          event_timestamp: scheduled_departure
          base: flights
          joins:
            - {dataset: weather, keys: [origin], timestamp: known_at, tolerance: 3h, columns: [temp, visib]}
            - {dataset: planes, keys: [tailnum], columns: [seats], prefix: plane_}
          lookback_days: 2
          rolling:
            - {name: origin_delay_2h, keys: [origin], value: dep_delay, known_at: departed_at, window: 2h,
               aggregate: mean}
          transform: mlops_assets.defs.flights.features.flight_features
          features:
            - {name: distance, type: number, minimum: 0, description: Miles., example: 1400}
            - {name: temp, type: number}

    Everything but ``name``, ``entity``, ``base`` and ``features`` may be left out.
    """

    Declaration = FeatureViewDeclaration
    MAKES: ClassVar = {"name": ("features",)}
    NEEDS: ClassVar = {"base": "dataset", "joins.dataset": "dataset"}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        components = datasets_of(context)
        problem = view_problem(self.declaration, components)
        refuse(self, [problem] if problem else [])
        datasets = {name: component.declaration for name, component in components.items()}
        declared = self.declaration
        transform = self.function(declared.transform, "transform") if declared.transform else None
        return dg.Definitions(assets=[features_asset(folder.name, declared, datasets, transform)])
