"""``FeatureViewComponent``: datasets become the features of an entity, as known before each event.

Belongs here: checking the document against its datasets at loading, the definition of the asset features and
of its check. Does not belong here: what the step does (``assets/feature_view.py``), which columns a document
may name (``documents/view_columns.py``).

A run over a range reads the range and its look back once, and writes its good days in one commit.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.automation import FOLLOW_CHANGED_PARTITIONS
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.feature_view import CHECK, FeatureTable, make_features
from mlops_assets.components.dataset import datasets_of
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.scaffolding import FeatureViewScaffolder
from mlops_assets.documents.contradictions import refuse
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.view_columns import view_problem
from mlops_assets.features.declared import stored_columns
from mlops_assets.resources.lake import Lake


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
        return dg.Definitions(assets=[self._features(folder.name, datasets)])

    def _features(self, group: str, datasets: Mapping[str, DatasetDeclaration]) -> dg.AssetsDefinition:
        declared = self.declaration
        key = asset_key("features", declared.name)
        transform = self.function(declared.transform, "transform") if declared.transform else None
        partitions = datasets[declared.base].partitions
        lookback = timedelta(days=declared.lookback_days) if partitions else None
        table = FeatureTable(declared, datasets, declared.computed_as(lookback, transform))

        @dg.asset(
            key=key,
            deps=self._deps(datasets),
            group_name=group,
            description=declared.description,
            kinds={"features", "deltalake", "duckdb"},
            tags=name_tags("features", declared.name),
            partitions_def=partitions.definition() if partitions else None,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            automation_condition=FOLLOW_CHANGED_PARTITIONS,
            code_version=code_version(declared, [transform] if transform else []),
            metadata={
                "dagster/column_schema": self._column_schema(datasets[declared.base]),
            },
            check_specs=[
                dg.AssetCheckSpec(
                    CHECK,
                    asset=key,
                    blocking=True,
                    description="Every declared feature has its type, and its nulls and range as declared.",
                )
            ],
        )
        def features(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
            yield from make_features(context, lake, table)

        return features

    def _deps(self, datasets: Mapping[str, DatasetDeclaration]) -> list[dg.AssetDep]:
        base = self.declaration.base
        deps = []
        for name in dict.fromkeys([base, *(join.dataset for join in self.declaration.joins)]):
            mapping: dg.PartitionMapping | None = None
            if datasets[base].partitions and datasets[name].partitions:
                mapping = dg.TimeWindowPartitionMapping(
                    start_offset=-self.declaration.lookback_days, allow_nonexistent_upstream_partitions=True
                )
            deps.append(dg.AssetDep(asset_key("dataset", name), partition_mapping=mapping))
        return deps

    def _column_schema(self, base: DatasetDeclaration) -> dg.TableSchema:
        declared = self.declaration
        specs = {feature.name: feature for feature in declared.features}
        columns = []
        for name, kind in stored_columns(declared.kept(base), declared.features).items():
            spec = specs.get(name)
            constraints = dg.TableColumnConstraints(nullable=spec is None or spec.nullable)
            described = spec.description if spec else None
            columns.append(dg.TableColumn(name, kind, description=described, constraints=constraints))
        return dg.TableSchema(columns=columns)
