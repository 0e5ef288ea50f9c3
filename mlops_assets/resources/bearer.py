"""Secrets of the environment in the header of a request, and where they may go.

Belongs here: that rule, for every client. Does not belong here: reading secrets (``environment.py``),
sending.
"""


def same_address(url: str, declared: str) -> bool:
    """Whether a secret of the environment may go there: to the address that the environment names, alone.

    A run's configuration can point a client anywhere. For the same reason no secret is a field; besides,
    Dagster's UI shows those.
    """
    return url.rstrip("/") == declared


def bearer(secret: str) -> dict[str, str]:
    """The header that carries a secret; {} for none."""
    return {"Authorization": f"Bearer {secret}"} if secret else {}
