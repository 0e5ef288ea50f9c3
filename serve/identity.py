"""What an answer is called: the id that the gateway makes, and which ids of callers are taken beside it.

Belongs here: making answer ids, and what a caller's id may be. Does not belong here: where ids go
(``serve/endpoint.py``, ``serve/inference_log.py``), the sticky unit (``serve/splitting.py``). Pure.

A caller's id names whatever the caller likes, a nightly job or nothing at all, and comes as often as the
caller likes. So an answer is told from others by ``answer_id`` alone, and ``request_id`` is an attribute to
search by. It goes into headers, logs and files, so what could break a line or fill a disk is refused.
"""

import random
from collections.abc import Callable

MAX_ID_LENGTH = 256
ID_REASON = f"must be 1 to {MAX_ID_LENGTH} printable characters"
HEADER_ID_REASON = f"must be 1 to {MAX_ID_LENGTH} printable ASCII characters"


def answer_ids() -> Callable[[], str]:
    """A function that gives a new id at each call: 32 hex digits, random, like no other of any replica.

    A fifth of a microsecond each, where ``uuid4`` takes two. The generator is its own and seeded by the
    operating system: a model that seeds Python's does not make ids come twice. Not a secret.
    """
    # At 10,000,000,000 answers, two are the same with a probability of one in 10^18.
    new = random.Random().randbytes  # noqa: S311
    return lambda: new(16).hex()


def is_id(text: str) -> bool:
    """Whether a caller's id is taken: printable, so without line breaks, NUL or halves of characters."""
    return 0 < len(text) <= MAX_ID_LENGTH and text.isprintable()


def is_header_id(sent: bytes) -> bool:
    """Whether an id that came in a header is taken; a header's bytes beyond ASCII have no agreed meaning."""
    return 0 < len(sent) <= MAX_ID_LENGTH and sent.isascii() and sent.decode("ascii").isprintable()
