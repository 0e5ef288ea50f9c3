"""Which version answers a unit: sticky, exact to the basis point. Pure.

Belongs here: the hash and the assignment of its buckets. Does not belong here: whether a version is
up, and what happens when it is not (``serve/traffic.py``).

A unit falls into one of 10,000 buckets by a salted hash, and each version owns as many buckets as its
weight says. The first version that is not stable (in declared order) owns the lowest buckets and the
second one the highest; stable owns what lies between. So a growing canary takes units from stable
only and gives none back, with one canary or two. Further canaries stack on the first: they are exact
and sticky, but move when the first one grows.
"""

from hashlib import blake2b

from serve.schema import WEIGHT_TOTAL, Routing


def bucket(unit: str, salt: str) -> int:
    """Bucket of a unit, 0 to 9,999: the same for the same unit and salt, on every replica, for ever."""
    # JSON may carry half of a surrogate pair, which plain UTF-8 refuses to encode.
    text = f"{salt}:{unit}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % WEIGHT_TOTAL


class Split:
    """The assignment of one routing. Immutable; ``version_for`` costs about a microsecond."""

    def __init__(self, routing: Routing) -> None:
        self._salt = routing.salt
        canaries = [
            (version, route.weight)
            for version, route in routing.routes.items()
            if version != routing.stable and route.weight
        ]
        top = canaries.pop(1) if len(canaries) > 1 else None
        owners: list[str] = []
        for version, weight in canaries:
            owners += [version] * weight
        owners += [routing.stable] * routing.routes[routing.stable].weight
        if top:
            owners += [top[0]] * top[1]
        self._owners = tuple(owners)
        self._only = owners[0] if len(set(owners)) == 1 else None

    def version_for(self, unit: str) -> str:
        """The version that answers this unit, if it is up."""
        return self._only or self._owners[bucket(unit, self._salt)]

    def version_of_bucket(self, number: int) -> str:
        """The owner of one bucket."""
        return self._owners[number]
