"""Ports for the servers that tests start.

Belongs here: finding free ones. Does not belong here: the servers (``ray_cluster.py``, ``s3_server.py``).
"""

import random

from mlops_assets.local_stack.ports import UNUSED, is_free


def unused_ports(count: int, *, offset: int = 0) -> list[int]:
    """Different ports that nobody listens on now, nor on their number + ``offset`` (SeaweedFS takes both)."""
    numbers = random.SystemRandom().sample(UNUSED, len(UNUSED))
    found: list[int] = []
    for number in numbers:
        if len(found) == count:
            break
        if all(is_free(port) for port in {number, number + offset}):
            found.append(number)
    return found
