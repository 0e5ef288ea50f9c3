"""Secrets that documents name by their environment variable, like the address of a database.

Belongs here: reading such a variable, and taking what it holds out of a text. Does not belong here: the
variables that the platform itself knows (``environment.py``). A value read here goes to the one who needs it
and into no log, error, event or repr.
"""

import os
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

HIDDEN = "***"
SHORTEST = 3
"""A shorter secret is not looked for in a text: it would be found in every other word."""


def _variable(name: str) -> str:
    if not (name.isascii() and name.isidentifier()):
        # What stands there may be the secret itself, so it is not repeated.
        raise ValueError(
            "this is no name of an environment variable: write the name, like SHOP_DATABASE_URL, and set the "
            "variable where the platform runs"
        )
    return name


VariableName = Annotated[str, AfterValidator(_variable)]
"""Name of an environment variable that holds a secret."""


def secret(variable: str) -> str:
    """What the variable holds; empty when it is unset."""
    return os.environ.get(variable, "")


def without(secrets: Iterable[str], text: str) -> str:
    """The text with ``***`` for each of the secrets."""
    for one in sorted(secrets, key=len, reverse=True):
        if len(one) >= SHORTEST:
            text = text.replace(one, HIDDEN)
    return text
