"""Documents that a document knows of without knowing their components: found by what they declare.

Belongs here: finding documents of a kind of declaration. Does not belong here: what they become (each
component), documents that are missing (``use_cases.py``), documents before they are loaded (``reading.py``).

A model asks whether a monitor watches it, and a monitor measures by the model's declaration: were each to
import the other's component, neither could be read without the other.
"""

from typing import TypeVar, cast

import dagster as dg
from pydantic import BaseModel

from mlops_assets.components.document import DeclaredComponent

D = TypeVar("D", bound=BaseModel)


def documents_of(context: dg.ComponentLoadContext, declaration: type[D]) -> list[DeclaredComponent[D]]:
    """Every document of a kind of declaration, whichever component reads it. Others are not loaded for it."""
    kinds = [kind for kind in DeclaredComponent.__subclasses__() if kind.Declaration is declaration]
    found = [one for kind in kinds for one in context.component_tree.get_all_components(kind)]
    return cast(list[DeclaredComponent[D]], found)
