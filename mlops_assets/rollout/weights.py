"""Which sticky buckets change hands when weights change: as few as the change needs. Pure.

Belongs here: weights as basis points, new segments from old ones and new weights. Does not belong here:
the hash and the lookup (``serve/splitting.py``), which weights are right (``rollout/plan.py``).
"""

import math
from collections.abc import Mapping, Sequence

from serve.schema import WEIGHT_TOTAL, Routing, Segment


def basis_points(percent: float | None) -> int:
    """A percentage in basis points; ValueError unless it is one from 0 to 100, to 0.01 %."""
    if percent is None or not math.isfinite(percent) or not 0 <= percent <= 100:
        raise ValueError(f"weight {percent} is not a percentage between 0 and 100")
    if abs(percent * 100 - round(percent * 100)) > 1e-6:
        raise ValueError(f"weight {percent} % is finer than 0.01 %: weights are basis points")
    return round(percent * 100)


def reassigned(current: Routing | None, weights: Mapping[str, int]) -> tuple[Segment, ...]:
    """Segments that give every version exactly its weight in basis points.

    Only versions that shrink give buckets up, only versions that grow take them: a unit whose version
    keeps its weight or grows stays where it is. Without a current routing the versions stand in the
    order given. Raises ValueError when the weights do not add up to 10,000.
    """
    if sum(weights.values()) != WEIGHT_TOTAL or min(weights.values(), default=0) < 0:
        raise ValueError(f"weights {dict(weights)} must be 0 or more and add up to {WEIGHT_TOTAL}")
    owners: list[str | None] = list(_owners(current))
    held: dict[str, list[int]] = {version: [] for version in weights}
    for number, owner in enumerate(owners):
        if owner in held:
            held[owner].append(number)
        else:
            owners[number] = None
    for version, weight in weights.items():
        for number in held[version][weight:]:
            owners[number] = None
    free = iter([number for number, owner in enumerate(owners) if owner is None])
    for version, weight in weights.items():
        for _ in range(weight - len(held[version])):
            owners[next(free)] = version
    return _segments(owners)


def _owners(current: Routing | None) -> Sequence[str | None]:
    if current is None:
        return [None] * WEIGHT_TOTAL
    if not current.segments:
        # The order in which a routing without segments is read: canaries first, stable last.
        canaries = [
            version
            for version, route in current.routes.items()
            if version != current.stable
            for _ in range(route.weight)
        ]
        return [*canaries, *[current.stable] * (WEIGHT_TOTAL - len(canaries))]
    return [s.version for s in current.segments for _ in range(s.high - s.low)]


def _segments(owners: Sequence[str | None]) -> tuple[Segment, ...]:
    segments = []
    start = 0
    for number in range(1, WEIGHT_TOTAL + 1):
        if number == WEIGHT_TOTAL or owners[number] != owners[start]:
            version = owners[start]
            assert version is not None
            segments.append(Segment(low=start, high=number, version=version))
            start = number
    return tuple(segments)
