"""Code versions: a text that changes when a document or the code it names changes.

Belongs here: hashing a declaration together with source code. Does not belong here: content versions of
data (``data/content.py``).
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

from pydantic import BaseModel


def code_version(
    declaration: BaseModel,
    functions: Iterable[Callable[..., Any]] = (),
    *,
    fields: Collection[str] | None = None,
) -> str:
    """Version of a document and the modules its functions stand in; descriptions do not count.

    The whole module counts, since a function is what it is through the helpers and constants beside it.
    ``fields`` names those that matter to the asset, where one document becomes several: a new gate must
    not make the training set stale.
    """
    declared = declaration.model_dump_json(exclude={"description"}, include=set(fields) if fields else None)
    digest = hashlib.sha256(declared.encode())
    for function in functions:
        digest.update(f"{function.__module__}.{function.__qualname__}".encode())
        digest.update(inspect.getsource(sys.modules[function.__module__]).encode())
    return digest.hexdigest()[:12]
