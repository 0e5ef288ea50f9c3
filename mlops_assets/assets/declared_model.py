"""A model as its documents declare it: plain values that its assets and its monitor's assets take.

Belongs here: the declarations of one model side by side, its tables, its label, its asset keys. Does not
belong here: finding the documents and refusing what is wrong in them (``components/model.py``), what a step
does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.training.label import Label
from mlops_assets.training.trainers import trainer

if TYPE_CHECKING:
    from mlops_assets.training.candidates import Candidate


@dataclass(frozen=True)
class DeclaredModel:
    """``features`` is the table of the view, ``outcomes`` the one that ``label`` is made of; ``online`` the
    view as replicas compute it, where it says so.
    """

    declaration: ModelDeclaration
    view: FeatureViewDeclaration
    features: DeclaredTable
    outcomes: DeclaredTable
    label: Label
    online: OnlineTable | None = None

    def key(self, kind: Kind) -> dg.AssetKey:
        """The key of an asset of this model."""
        return asset_key(kind, self.declaration.name)

    @property
    def candidates(self) -> "tuple[Candidate, ...]":
        """Who competes: every declared candidate with each of its training windows."""
        return self.declaration.competing(timed=self.view.event_timestamp is not None)

    @property
    def trainers(self) -> list[Callable[..., Any]]:
        """The training functions, whose source is part of what a trained model is."""
        return [trainer(candidate.trainer)._fit for candidate in self.declaration.candidates]
