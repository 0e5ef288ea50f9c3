"""Which days of a source are to be read again: those that are new, changed or gone since they were judged.

Belongs here: the comparison of states, and what is asked for in one run. Does not belong here: states
themselves (``data/sources``), what was judged (``event_log/source_states.py``), the sensor
(``sensors/probe.py``).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RUNS_AT_ONCE = 20
"""Runs of one look; what is left comes when these have ended."""


def digest(state: str) -> str:
    """A state in few characters; that of a partition without rows is empty."""
    return hashlib.sha256(state.encode()).hexdigest()[:12] if state else ""


@dataclass(frozen=True)
class Due:
    """Ranges (first and last partition) to be read again, oldest first, and why, in words.

    ``asked`` holds the state with which each of their partitions is asked for.
    """

    ranges: Sequence[tuple[str, str]]
    asked: Mapping[str, str]
    why: str

    @property
    def token(self) -> str:
        """The same for the same partitions in the same states."""
        return digest("\n".join(f"{key} {state}" for key, state in self.asked.items()))


def due(
    now: Mapping[str, str],
    judged: Mapping[str, str],
    asked: Mapping[str, str],
    *,
    declared: Sequence[str],
    again: bool,
) -> Due:
    """What differs from what was judged last, as one range per row of neighbours in ``declared``.

    States are compared by partition; a partition that a mapping lacks has no rows there. A partition that
    ``asked`` holds in its present state was asked for and never judged (the run broke off): it is due only
    when ``again``. One that was judged is not due until its state changes, whatever the verdict was. At most
    ``RUNS_AT_ONCE`` ranges are given.
    """
    different = [position for position, key in enumerate(declared) if now.get(key, "") != judged.get(key, "")]
    wanted = [
        position
        for position in different
        if again or asked.get(declared[position]) != now.get(declared[position], "")
    ]
    if not wanted:
        broke_off = f"{len(different)} were asked for by runs that broke off, and are tried again later"
        return Due((), {}, broke_off if different else "nothing changed")
    ranges: list[list[int]] = []
    for position in wanted:
        if ranges and position == ranges[-1][-1] + 1:
            ranges[-1].append(position)
        else:
            ranges.append([position])
    chosen = ranges[:RUNS_AT_ONCE]
    keys = [declared[position] for one in chosen for position in one]
    kinds = {"new": 0, "changed": 0, "gone": 0}
    for key in keys:
        kinds["gone" if key not in now else "changed" if judged.get(key) else "new"] += 1
    why = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    return Due(
        [(declared[one[0]], declared[one[-1]]) for one in chosen],
        {key: now.get(key, "") for key in keys},
        f"{why} in {len(chosen)} of {len(ranges)} ranges" if len(chosen) < len(ranges) else why,
    )
