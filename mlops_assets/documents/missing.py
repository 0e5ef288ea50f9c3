"""Documents that cannot be loaded, as the graph tells of them.

Belongs here: the facts of a missing document and reading it from loaded definitions. Does not belong here:
finding out why (``components/use_cases.py``).
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg

MISSING = "mlops/missing"
"""Metadata key of a placeholder: the ``MissingDocument`` it stands for, as plain values."""


CHECK = "document_loads"
"""The check of a placeholder; it always fails."""


@dataclass(frozen=True)
class MissingDocument:
    """A document that is not there: ``problem`` says why, with file and line.

    ``because`` is the place of the document that it cannot do without, "" when the problem is its own.
    ``upstream`` are the assets that it names.
    """

    where: str
    use_case: str
    what: str
    problem: str
    because: str
    assets: tuple[str, ...]
    upstream: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What a person does about it."""
        return f"mend {self.because or self.where}, see that `dg check defs` passes, then: make up"


def missing_documents(definitions: dg.Definitions) -> list[MissingDocument]:
    """What is missing in loaded definitions, causes before what falls with them."""
    return missing_in(definitions.resolve_asset_graph())


def missing_in(graph: Any) -> list[MissingDocument]:
    """What is missing in an asset graph, causes before what falls with them."""
    found = {}
    for node in graph.asset_nodes:
        value = node.metadata.get(MISSING)
        if value is not None:
            kept = value.value
            lists = {name: tuple(kept[name]) for name in ("assets", "upstream")}
            one = MissingDocument(**{**kept, **lists})
            found[one.where, one.what] = one
    return sorted(found.values(), key=lambda one: (bool(one.because), one.where))
