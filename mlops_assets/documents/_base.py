"""The base of every declaration in YAML.

Belongs here: what holds for all of them. Does not belong here: loading a document
(``components/document.py``).
"""

from pydantic import BaseModel, ConfigDict


class Declaration(BaseModel):
    """What stands under ``attributes:``. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
