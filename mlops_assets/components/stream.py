"""``StreamComponent``: a Kafka topic becomes an append-only table, each record in it exactly once.

Belongs here: which asset and sensor the document becomes. Does not belong here: the asset
(``assets/stream.py``), the sensor (``sensors/stream.py``), what it may say (``documents/stream.py``).
"""

from pathlib import Path
from typing import ClassVar

import dagster as dg

from mlops_assets.assets.ingest import DeclaredStream
from mlops_assets.assets.stream import stream_asset
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.scaffolding import StreamScaffolder
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.sensors.stream import lag_sensor


@dg.scaffold_with(StreamScaffolder)
class StreamComponent(DeclaredComponent[StreamDeclaration]):
    """The records of a topic.

    .. code-block:: yaml

        type: mlops_assets.components.StreamComponent
        attributes:
          name: orders
          topic: orders
          bootstrap_servers: ORDERS_BROKER      # the variable that holds the address
          client: {sasl.username: ORDERS_USER, sasl.password: ORDERS_PASSWORD}
          value: {format: json}
          columns: {order_id: integer, amount: number, ordered_at: timestamp}
          event_time: ordered_at
    """

    Declaration = StreamDeclaration
    MAKES: ClassVar = {"name": ("stream",)}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        source = self.source(folder)
        by_runs = self.declaration.read_by == "runs"
        return dg.Definitions(
            assets=[stream_asset(folder.name, source)], sensors=[lag_sensor(source)] if by_runs else []
        )

    def source(self, folder: Path) -> DeclaredStream:
        """The stream as declared, with the folder that its files lie in."""
        return DeclaredStream(self.declaration, folder)
