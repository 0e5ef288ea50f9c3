"""``FeatureViewComponent``: datasets become the features of an entity, as known before each event.

Belongs here: checking the document against its datasets at loading, which asset it becomes. Does not belong
here: the asset and its check (``assets/feature_view.py``), which columns a document may name
(``documents/view_columns.py``).

A run over a range reads the range and its look back once, and writes its good days in one commit.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import dagster as dg

from mlops_assets.asset_names import AssetName
from mlops_assets.assets.feature_view import FeatureTable, feature_table, features_asset
from mlops_assets.assets.followed_rows import FollowedDataset
from mlops_assets.assets.online_features import online_features_asset
from mlops_assets.assets.online_table import OnlineTable, online_table
from mlops_assets.components.dataset import datasets_of
from mlops_assets.components.document import DeclaredComponent, named
from mlops_assets.components.loaded_documents import documents_of
from mlops_assets.components.scaffolding import FeatureViewScaffolder
from mlops_assets.data.sources.stream import StreamSource
from mlops_assets.documents.contradictions import refuse
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.documents.view_columns import view_problem
from mlops_assets.errors import DeclarationError, UnknownName
from mlops_assets.features.online import imported
from mlops_assets.sensors.online_age import age_sensor
from serve.online.stores import STORES, StoreNotSetUp
from serve.schema import OnlineTransform


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

    @classmethod
    def makes(cls, attributes: Mapping[str, Any]) -> list[AssetName]:
        online = [AssetName("online_features", name) for _, name in named(attributes, "name")]
        return [*super().makes(attributes), *(online if attributes.get("online") else [])]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        components = datasets_of(context)
        problem = view_problem(self.declaration, components)
        refuse(self, [problem] if problem else [])
        assets, sensors = [features_asset(folder.name, self.table(context))], []
        if (online := self.online(context)) is not None:
            assets.append(online_features_asset(folder.name, online))
            by_runs = {one.stream.name: one.stream for one in online.followed.values()}
            by_runs = {name: one for name, one in by_runs.items() if one.read_by == "runs"}
            sensors += [age_sensor(online, list(by_runs.values()))] if by_runs else []
        return dg.Definitions(assets=assets, sensors=sensors)

    def table(self, context: dg.ComponentLoadContext) -> FeatureTable:
        """The view over its datasets, with its function imported."""
        declared = self.declaration
        datasets = {name: component.declaration for name, component in datasets_of(context).items()}
        transform = self.function(declared.transform, "transform") if declared.transform else None
        return feature_table(declared, datasets, transform)

    def online(self, context: dg.ComponentLoadContext) -> OnlineTable | None:
        """The view as replicas compute it, where it says ``online``."""
        online = self.declaration.online
        if online is None:
            return None
        try:
            STORES[online.store].check_installed()
        except StoreNotSetUp as error:
            raise DeclarationError(str(error), where=self.where("online", "store")) from error
        transform = self._one_row(online.transform) if online.transform else None
        return online_table(self.table(context), transform, self._followed(context, online.from_stream))

    def _followed(self, context: dg.ComponentLoadContext, names: Sequence[str]) -> dict[str, FollowedDataset]:
        """Datasets whose rows come from their stream, with what makes rows of its records."""
        if not names:
            return {}
        streams = {one.declaration.name: one.declaration for one in documents_of(context, StreamDeclaration)}
        datasets, found = datasets_of(context), {}
        for name in names:
            one = datasets[name]
            source = one.declaration.source
            assert isinstance(source, StreamSource)
            if source.stream not in streams:
                raise DeclarationError(
                    str(UnknownName("stream", source.stream, streams)), where=one.where("source", "stream")
                )
            found[name] = FollowedDataset(one.declaration, streams[source.stream], one.transform())
        self._refuse_one_topic_twice(found)
        return found

    def _refuse_one_topic_twice(self, found: Mapping[str, FollowedDataset]) -> None:
        """How far a topic was read is one number for each of its partitions."""
        by_topic: dict[str, dict[str, str]] = {}
        for name, one in found.items():
            by_topic.setdefault(one.stream.topic, {})[one.stream.name] = name
        for topic, names in by_topic.items():
            if len(names) > 1:
                raise DeclarationError(
                    f"streams {' and '.join(sorted(names))} read one topic, {topic!r}, and a store has one "
                    "offset for each partition of a topic. Make both datasets of one stream",
                    where=self.where("online", "from_stream"),
                )

    def _one_row(self, dotted: str) -> OnlineTransform:
        """The function on one row with the source of its module, which goes into every model package."""
        path = ("online", "transform")
        function = inspect.unwrap(self.function(dotted, *path))
        source = inspect.getsource(sys.modules[function.__module__])
        foreign = sorted(imported(source) - sys.stdlib_module_names)
        if foreign:
            raise DeclarationError(
                f"{function.__module__} imports {', '.join(foreign)}. The source of this module answers "
                "requests where only the standard library is sure to be there: give the function a module of "
                "its own that needs nothing else.",
                where=self.where(*path),
            )
        return OnlineTransform(source=source, function=function.__name__)
