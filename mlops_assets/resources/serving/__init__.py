"""Serving targets: places where the desired state of Ray Serve is declared, one file each.

A new target is one more file here; ``_base.py`` says what it must do.
"""

from mlops_assets.errors import UnknownName
from mlops_assets.resources.serving._base import (
    FAILED_STATUSES,
    SILENTLY,
    Document,
    ServingTarget,
    TargetSite,
    Wait,
)
from serve.families import Family

SERVING_TARGETS = Family("serving target", __name__, ServingTarget, unknown=UnknownName)

__all__ = [
    "FAILED_STATUSES",
    "SERVING_TARGETS",
    "SILENTLY",
    "Document",
    "ServingTarget",
    "TargetSite",
    "Wait",
]
