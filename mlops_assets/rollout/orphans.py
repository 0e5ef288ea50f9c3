"""Deployments that answer and that no document declares any more. Pure.

Belongs here: which deployments are orphans, and how long one has to be one before anything happens by itself.
Does not belong here: reading what is deployed or declared (``deploying/retiring.py``).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

OrphanPolicy = Literal["keep", "retire"]
POLICIES: tuple[OrphanPolicy, ...] = ("keep", "retire")
GRACE_S = 600.0
"""A checkout that is just being changed lacks folders for a moment."""


@dataclass(frozen=True)
class Deployed:
    """A deployment and the use case it was declared in when it last changed; "" when that is not recorded."""

    name: str
    use_case: str


def orphans(
    deployed: Collection[Deployed], declared: Collection[str], unread: Collection[str]
) -> list[Deployed]:
    """The deployments that nothing declares, by name.

    ``unread`` are use cases with a document that does not even tell what it declares: a deployment of theirs
    may be declared in it, and so may one whose use case is not known.
    """
    return [
        one
        for one in sorted(deployed, key=lambda one: one.name)
        if one.name not in declared and not (unread and (not one.use_case or one.use_case in unread))
    ]


def due(
    since: Mapping[str, float], found: Collection[str], *, now: float, grace_s: float = GRACE_S
) -> tuple[dict[str, float], list[str]]:
    """Since when each is an orphan, as remembered next time, and those that are long enough."""
    remembered = {name: since.get(name, now) for name in found}
    return remembered, sorted(name for name, at in remembered.items() if now - at >= grace_s)
