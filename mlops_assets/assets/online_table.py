"""A declared view together with the same view as replicas compute it, and where its rows come from.

Belongs here: which datasets are looked up, what tells their rows apart, which of them are followed by their
stream. Does not belong here: reading rows (``online_rows.py``), filling a store (``online_filling.py``).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_assets.assets.feature_view import FeatureTable
from mlops_assets.assets.followed_rows import FollowedDataset
from mlops_assets.documents.feature_view import OnlineDeclaration
from mlops_assets.features.online import online_view
from serve.schema import OnlineTransform, OnlineView


@dataclass(frozen=True)
class OnlineTable:
    """A declared view and the same view as replicas compute it.

    ``followed``: datasets whose rows are taken from their stream, by name.
    """

    table: FeatureTable
    online: OnlineView
    followed: Mapping[str, FollowedDataset] = field(default_factory=dict)

    @property
    def declared(self) -> OnlineDeclaration:
        assert self.table.declared.online is not None
        return self.table.declared.online

    @property
    def datasets(self) -> list[str]:
        """The datasets that are looked up: the base where rows of it are aggregated, and what is joined."""
        return self.table.declared.looked_up

    @property
    def judged(self) -> str | None:
        """Changes when the same records of followed streams may give other rows; None: none is followed."""
        if not self.followed:
            return None
        said = "\n".join(f"{name} {one.version}" for name, one in sorted(self.followed.items()))
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def identity(self, dataset: str) -> list[str]:
        """The columns that tell a row of a dataset from all others; first its partition, where it has any."""
        declared = self.table.datasets[dataset]
        day = [declared.partitions.column] if declared.partitions else []
        keys = next((join.keys for join in self.table.declared.joins if join.dataset == dataset), ())
        return [*day, *(declared.primary_key or keys)]


def online_table(
    table: FeatureTable,
    transform: OnlineTransform | None,
    followed: Mapping[str, FollowedDataset] | None = None,
) -> OnlineTable:
    """The view of a table as replicas compute it; it says ``online``."""
    declared = table.declared
    assert declared.online is not None
    view = online_view(
        table.view,
        {name: dataset.columns for name, dataset in table.datasets.items()},
        name=declared.name,
        store=declared.online.store,
        base=declared.base,
        entity=declared.entity.join_keys,
        request=declared.online.request,
        transform=transform,
        stale_after_s=declared.online.stale_after.total_seconds(),
        when_stale=declared.online.when_stale,
    )
    return OnlineTable(table, view, followed or {})
