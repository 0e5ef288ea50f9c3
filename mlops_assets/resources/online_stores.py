"""Stores of online features as a resource: where they lie.

Belongs here: opening the store of a view. Does not belong here: what it holds and its kinds
(``serve/online/``), filling it (``assets/online_features.py``).
"""

import dagster as dg
from pydantic import Field

from mlops_assets.errors import DataError
from serve.online.stores import STORES, OnlineStore, StoreNotSetUp
from serve.schema import OnlineView


class OnlineStores(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The stores of all views."""

    uri: str = Field(description="Where those without a server lie: a folder of this host.")

    def of(self, view: OnlineView) -> OnlineStore:
        """The store of a view, as gateways open it; DataError when this process lacks what it needs."""
        try:
            return STORES[view.store](self.uri, view=f"{view.name}-{view.shape}")
        except StoreNotSetUp as error:
            raise DataError(str(error)) from error
