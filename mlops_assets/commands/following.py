"""Stores of the views that follow a stream, filled by the process that reads it.

Belongs here: which views these are, filling them after a commit, what Dagster is told of it. Does not belong
here: reading the topic (``streaming.py``), filling itself (``assets/online_filling.py``).

Reading goes on whatever becomes of a store: one that cannot be filled grows old, and its reason is told once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster.components.core.component_tree import ComponentTree

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.online_features import online_metadata
from mlops_assets.assets.online_filling import Filled, fill, rows_held
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.components.feature_view import FeatureViewComponent
from mlops_assets.components.reading import ReadDocument, problem_of, read_documents
from mlops_assets.components.use_cases import tree_of
from mlops_assets.errors import AnotherWasFirst, DataError, DeclarationError
from mlops_assets.event_log.records import DATA_VERSION_TAG
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores

Tell = Callable[[str], None]


class Followers:
    """The stores of some views that follow one stream, with what is told of them since the last report."""

    def __init__(
        self, stream: str, views: Sequence[OnlineTable], stores: OnlineStores, clock: Clock, tell: Tell
    ) -> None:
        self.clock = clock
        self._stream, self._views, self._stores, self._tell = stream, views, stores, tell
        self._waiting: dict[str, Filled] = {}
        self._problems: dict[str, str] = {}

    def fill(self, lake: Lake, complete: float | None) -> None:
        """Brings every store to what the lake holds now.

        ``complete``: Unix seconds up to which the stream's table has everything in the topic.
        """
        told = {} if complete is None else {self._stream: complete}
        for served in self._views:
            name = served.table.declared.name
            try:
                self._fill(lake, served, told)
            except AnotherWasFirst as error:
                # What it brought is there, and whatever it did not see comes with the next commit.
                self._tell(f"{name}: {error}")
            except DataError as error:
                if self._problems.get(name) != str(error):
                    self._tell(f"The store of {name} cannot be filled: {error}")
                self._problems[name] = str(error)

    def _fill(self, lake: Lake, served: OnlineTable, complete: Mapping[str, float]) -> None:
        name, started = served.table.declared.name, time.monotonic()
        filled = fill(lake, self._stores.of(served.online), served, now=self.clock.now(), complete=complete)
        if self._problems.pop(name, None) is not None:
            self._tell(f"The store of {name} is filled again.")
        for dataset, days in filled.left_out.items():
            for day, why in days.items():
                self._tell(f"{name}: no row of {day} of {dataset} is held: {why}")
        if filled.written:
            self._waiting[name] = filled
            self._tell(f"{name}: {filled.written} values written in {time.monotonic() - started:.2f} s")

    def report(self, instance: dg.DagsterInstance) -> None:
        """A materialisation of each store that has something else than it was last told of."""
        for served in self._views:
            filled = self._waiting.pop(served.table.declared.name, None)
            if filled is not None:
                rows = rows_held(self._stores.of(served.online))
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        asset_key("online_features", served.table.declared.name),
                        metadata=online_metadata(served, filled, rows),
                        tags={DATA_VERSION_TAG: filled.version},
                    )
                )


def followers_of(tree: ComponentTree, stream: str, tell: Tell) -> list[OnlineTable]:
    """The views that follow a stream. One that cannot be loaded is told, and is not among them."""
    documents = read_documents(tree)
    views = [one for one in documents if one.component is FeatureViewComponent and _from_stream(one)]
    found = []
    for document in views:
        try:
            served = _loaded(tree, document, documents)
        except Exception as error:  # noqa: BLE001 (of whatever kind, it is this document's)
            tell(f"{document.title} is not filled: {problem_of(error, document.where)}")
            continue
        if any(one.stream.name == stream for one in served.followed.values()):
            found.append(served)
    return found


def _from_stream(document: ReadDocument) -> bool:
    online: Any = document.attributes.get("online")
    return isinstance(online, Mapping) and bool(online.get("from_stream"))


def _loaded(tree: ComponentTree, document: ReadDocument, documents: Sequence[ReadDocument]) -> OnlineTable:
    """One view with the datasets that it names and their streams; no other document has to be right."""
    made = {asset: one for one in documents for asset in one.makes}
    wanted, more = [document], [document]
    while more:
        needs = {need.asset for one in more for need in one.needs}
        more = [one for asset in needs if (one := made.get(asset)) is not None and one not in wanted]
        more = list(dict.fromkeys(more))
        wanted += more
    for one in wanted:
        if one.problem:
            raise DeclarationError(one.problem)
    fresh = tree_of(tree, wanted)
    [view] = fresh.get_all_components(FeatureViewComponent)
    view.build_defs(fresh.load_context.for_component_loc(document.loc))
    served = view.online(fresh.load_context)
    assert served is not None
    return served
