"""Late labels: joined to predictions by key, and judged only when enough of them is there. Pure.

Belongs here: the join, the watermark of a window. Does not belong here: measuring (``performance.py``),
reading logs and tables (``components/drift_monitor.py``).

A window is judged once ``min_share`` of its answers is labelled, or once no label can come any more
(``within`` after its end). Judging before the last label prefers what is known early, and early labels can
differ from late ones (a flight that is late lands late): declare a high ``min_share`` where that matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["judged", "waiting", "too_few", "unlabelled", "no_keys"]

ENTITY = "entity"
LABEL = "label"
HAS_KEYS = "has_keys"


@dataclass(frozen=True)
class Watermark:
    """When a window counts as labelled. ``within`` after its end, labels are taken to be complete."""

    within: timedelta
    min_share: float = 0.8
    min_rows: int = 200


@dataclass(frozen=True)
class LabelState:
    """What the labels of a window allow. ``share`` is of all its answers, in [0, 1]."""

    status: Status
    share: float
    reason: str


def join_labels(
    predictions: "pd.DataFrame", labels: "pd.DataFrame", join_keys: Sequence[str]
) -> "pd.DataFrame":
    """``predictions`` with two columns more: ``label`` and ``has_keys``; same rows, same order, same index.

    ``predictions`` has a column ``entity``: JSON text like ``{"flight_id":"UA1545"}``, or missing.
    ``labels`` has the join keys and a column ``label``; rows whose label or key is missing label nothing.
    Keys are compared as text, so 7, 7.0 and "7" are one key. ``label`` is missing where there is none;
    ``has_keys`` says whether the answer carries every join key. Raises DataError when two labels have the
    same keys, when a column is not there, or when an entity is not the JSON text of an object.
    """
    raise NotImplementedError


def label_state(
    *, end: datetime, now: datetime, answers: int, with_keys: int, labelled: int, watermark: Watermark
) -> LabelState:
    """Whether a window that ends at ``end`` can be judged at ``now``, and in words why (not).

    Waiting: the window is not over, or labels can still come and fewer than ``min_share`` of the answers
    with keys have one. Otherwise judged with at least ``min_rows`` labels, too_few with some, unlabelled
    with none; no_keys when no answer says which entity it is about.
    """
    raise NotImplementedError
