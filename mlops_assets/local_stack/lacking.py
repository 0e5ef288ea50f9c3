"""What `make up` could not bring up: facts, the lines a person reads, and the exit code.

Belongs here: the form of what failed or is missing while the rest is up. Does not belong here: finding it out
(``materialisation.py``, ``up.py``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

INCOMPLETE = 3
"""Exit code: the platform is up, and something of it is not. 1 means that it is not up at all."""
SHOWN_LINES = 12
AGAIN = "mend what it says, then: make up"


@dataclass(frozen=True)
class Lack:
    """One thing that is not up, why, and what a person does about it; ``use_case`` names the folder."""

    use_case: str
    reason: str
    command: str


@dataclass(frozen=True)
class Orphan:
    """A deployment that no document declares; ``retired`` when it was taken out of service just now."""

    deployment: str
    use_case: str
    retired: bool = False


def lines(lacks: Sequence[Lack], orphans: Sequence[Orphan]) -> Iterator[str]:
    """What is not up, and what is that should not be; nothing when there is neither."""
    if lacks:
        names = sorted({lack.use_case for lack in lacks})
        yield f"NOT UP: {', '.join(names)}. Everything else is."
        for lack in lacks:
            yield from _of_use_case(lack.use_case, [*_short(lack.reason), f"to do: {lack.command}"])
    if orphans:
        yield "No document declares these deployments any more:"
        for orphan in orphans:
            yield from _of_use_case(orphan.deployment, [_told(orphan)])


def _told(orphan: Orphan) -> str:
    where = f"it was declared in {orphan.use_case}; " if orphan.use_case else ""
    if orphan.retired:
        return f"{where}retired, as MLOPS_ORPHANS says"
    return (
        f"{where}it answers as before, and nothing trains it or watches it. To stop it: "
        f"mlops retire {orphan.deployment} --by NAME --reason TEXT"
    )


def _short(reason: str) -> list[str]:
    said = [line for line in reason.strip().splitlines() if line.strip()]
    more = len(said) - SHOWN_LINES
    return said if more <= 0 else [*said[:SHOWN_LINES], f"... and {more} lines more"]


def _of_use_case(name: str, said: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(said):
        yield f"  {name if number == 0 else '':<10} {line}"
