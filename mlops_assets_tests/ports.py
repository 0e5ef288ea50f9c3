"""Ports for the servers that tests start.

Belongs here: finding free ones. Does not belong here: the servers (``ray_cluster.py``, ``s3_server.py``).
"""

import contextlib
import random
import socket

LOWEST, BEYOND = 10_000, 22_000
"""The kernel gives numbers from 32,768 on to whoever connects or asks for any port: a free one of those may
be taken a moment later, above all while several workers run tests. SeaweedFS takes each number + 10,000 too.
"""


def unused_ports(count: int, *, offset: int = 0) -> list[int]:
    """Different ports of loopback that nobody listens on now, nor on their number + ``offset``."""
    # Seeds of tests must not lead two workers to the same numbers.
    numbers = random.SystemRandom().sample(range(LOWEST, BEYOND), BEYOND - LOWEST)
    found = []
    for number in numbers:
        if len(found) == count:
            break
        if all(_is_free(port) for port in {number, number + offset}):
            found.append(number)
    return found


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
