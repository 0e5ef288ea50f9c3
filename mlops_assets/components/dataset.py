"""``DatasetComponent``: raw files become a checked table, day by day, and its quarantine.

Belongs here: what of the document is checked at loading, which assets it becomes. Does not belong here: the
assets and their checks (``assets/dataset.py``), what the document may say (``documents/dataset.py``).

A run over a range writes its good days in one commit and leaves the bad ones as they were; then it fails,
naming the bad days.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.assets.dataset import dataset_asset, quarantine_asset
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.scaffolding import DatasetScaffolder
from mlops_assets.data.expectation_arguments import argument_problem
from mlops_assets.data.loading import Source
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DeclarationError
from mlops_assets.sensors.probe import probe_sensor


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
    NEEDS: ClassVar = {"source.stream": "stream"}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        declared = self.declaration
        self._check_expectations()
        source = Source(declared.source.reader(folder), self.transform(), declared.source.probed)
        return dg.Definitions(
            assets=[
                dataset_asset(folder.name, declared, source),
                quarantine_asset(folder.name, declared),
            ],
            sensors=[probe_sensor(declared, source)] if source.probed else [],
        )

    def transform(self) -> Callable[..., Any] | None:
        """The declared function that makes the columns, imported."""
        declared = self.declaration.transform
        return self.function(declared, "transform") if declared else None

    def _check_expectations(self) -> None:
        """DeclarationError, with file and line, for the first expectation that its columns cannot have."""
        for field in ("row_rules", "suite"):
            for position, one in enumerate(getattr(self.declaration, field)):
                problem = argument_problem(one.expectation(), self.declaration.columns)
                if problem is not None:
                    raise DeclarationError(problem, where=self.where(field, position, "kwargs"))


def datasets_of(context: dg.ComponentLoadContext) -> dict[str, DatasetComponent]:
    """Every dataset document, by name."""
    found = context.component_tree.get_all_components(DatasetComponent)
    return {component.declaration.name: component for component in found}
