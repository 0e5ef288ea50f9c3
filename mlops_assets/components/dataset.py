"""``DatasetComponent``: raw files become a checked table, day by day, and its quarantine.

Belongs here: what of the document is checked at loading, the definitions of the assets dataset and quarantine
with their checks. Does not belong here: what the step does (``assets/dataset.py``), what the document may say
(``documents/dataset.py``).

A run over a range writes its good days in one commit and leaves the bad ones as they were; then it fails,
naming the bad days.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.dataset import CONCERNS, make_dataset
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.scaffolding import DatasetScaffolder
from mlops_assets.data.expectation_arguments import argument_problem
from mlops_assets.data.loading import Source
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DeclarationError
from mlops_assets.resources.lake import Lake


@dg.scaffold_with(DatasetScaffolder)
class DatasetComponent(DeclaredComponent[DatasetDeclaration]):
    """A checked table from raw files.

    .. code-block:: yaml

        type: mlops_assets.components.DatasetComponent
        attributes:
          name: flights
          source: {format: csv, path: "raw/{partition}.csv"}
          partitions: {start: "2013-01-01", column: flight_date}
          transform: mlops_assets.defs.flights.datasets.prepare_flights
          columns: {flight_id: string, flight_date: string, distance: integer}
          primary_key: [flight_id]
          row_rules:
            - {type: expect_column_values_to_be_between, kwargs: {column: distance, min_value: 1}}
          max_quarantine_share: 0.02
          suite:
            - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 100}}
    """

    Declaration = DatasetDeclaration
    MAKES: ClassVar = {"name": ("dataset", "quarantine")}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        self._check_expectations()
        return dg.Definitions(assets=[self._dataset(folder), self._quarantine(folder.name)])

    def _check_expectations(self) -> None:
        """DeclarationError, with file and line, for the first expectation that its columns cannot have."""
        for field in ("row_rules", "suite"):
            for position, one in enumerate(getattr(self.declaration, field)):
                problem = argument_problem(one.expectation(), self.declaration.columns)
                if problem is not None:
                    raise DeclarationError(problem, where=self.where(field, position, "kwargs"))

    @property
    def _key(self) -> dg.AssetKey:
        return asset_key("dataset", self.declaration.name)

    @property
    def _partitions(self) -> dg.DailyPartitionsDefinition | None:
        return self.declaration.partitions.definition() if self.declaration.partitions else None

    def _dataset(self, folder: Path) -> dg.AssetsDefinition:
        declared = self.declaration
        transform = self.function(declared.transform, "transform") if declared.transform else None
        source = Source(declared.source.path, declared.source.reader(), folder, transform)

        @dg.asset(
            key=self._key,
            group_name=folder.name,
            description=declared.description,
            kinds={"dataset", "deltalake", declared.source.format},
            tags=name_tags("dataset", declared.name),
            partitions_def=self._partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if declared.partitions else None,
            code_version=code_version(declared, [transform] if transform else []),
            metadata={"dagster/column_schema": self._column_schema()},
            check_specs=[
                dg.AssetCheckSpec(concern, asset=self._key, blocking=True, description=description)
                for concern, description in CONCERNS.items()
            ],
        )
        def dataset(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[Any]:
            yield from make_dataset(context, lake, declared, source)

        return dataset

    def _quarantine(self, group: str) -> dg.AssetSpec:
        name = self.declaration.name
        return dg.AssetSpec(
            asset_key("quarantine", name),
            deps=[self._key],
            group_name=group,
            kinds={"quarantine", "deltalake"},
            tags=name_tags("quarantine", name),
            partitions_def=self._partitions,
            description=f"Rows left out of {name}, with the rules they broke. Written with it.",
        )

    def _column_schema(self) -> dg.TableSchema:
        key = set(self.declaration.primary_key)
        return dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name,
                    type,
                    constraints=dg.TableColumnConstraints(nullable=name not in key, unique=key == {name}),
                )
                for name, type in self.declaration.columns.items()
            ]
        )


def datasets_of(context: dg.ComponentLoadContext) -> dict[str, DatasetComponent]:
    """Every dataset document, by name."""
    found = context.component_tree.get_all_components(DatasetComponent)
    return {component.declaration.name: component for component in found}
