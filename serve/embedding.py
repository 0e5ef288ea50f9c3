"""A proven stable model inside the gateway's own process: no second hop for small requests.

Belongs here: loading a version's package beside the gateway and proving that it is the same model. Does
not belong here: when a version may be loaded (``serve/traffic.py``), the application that goes on
running beside it (``serve/model.py``).

A call between replicas costs several times what scoring a row does. Isolation matters for a model that
has not proven itself, so canaries and shadows never come in here: they crash, hang and run out of memory
in actors of their own. Stable got here by answering live traffic in such an actor first. Its application
stays up: it takes large batches, and everything when loading fails.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from serve.model import verify_golden_rows
from serve.scoring import Scorer, load_package


class NotEmbedded(RuntimeError):
    """The model is not in this process; the message says why. Its application answers as before."""


async def embedded(info: Mapping[str, Any]) -> Scorer:
    """The scorer of the version that gave ``info``, loaded here and proven equal.

    Raises NotEmbedded when the version runs on a GPU, or when the package does not hold what the
    version's replicas hold.
    """
    device = info.get("device") or {}
    if device.get("used", "cpu") != "cpu":
        raise NotEmbedded(f"it answers on device {device['used']}")
    try:
        return await asyncio.to_thread(_load, info)
    except NotEmbedded:
        raise
    except Exception as error:
        raise NotEmbedded(f"{type(error).__name__}: {error}") from error


def _load(info: Mapping[str, Any]) -> Scorer:
    scorer = load_package(info["package_uri"], info["storage_options"])
    if scorer.digest != info["digest"]:
        raise NotEmbedded(f"the package holds {scorer.digest[:12]}, the replicas hold {info['digest'][:12]}")
    verify_golden_rows(scorer, version=info["version"])
    return scorer
