"""How good a version's answers were, once their labels are there, and how much worse than expected. Pure.

Belongs here: metrics of a window with intervals, the loss against the reference, slices, losses for a
rollout's ``quality``. Does not belong here: when a window may be judged (``labels.py``), what a loss leads
to (``policy.py``), the formulas of the metrics (``evaluation/metrics.py``).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mlops_assets.monitoring.labels import Watermark
from serve.schema import Task

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.monitoring.findings import WindowPerformance

Array = NDArray[np.float64]


class PerformanceReference(BaseModel):
    """One metric on rows that the model was not trained on: what later windows are held to.

    ``standard_error`` is the jackknife's over ``groups`` groups; None when there are too few of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    value: float
    standard_error: float | None
    groups: int
    rows: int


def performance_references(
    task: Task, target: Array, scores: Array, groups: NDArray[np.int64] | None
) -> tuple[PerformanceReference, ...]:
    """One reference per metric of the task that is defined on these rows; () for no rows.

    ``groups``: day numbers of the rows, which vary together; None: rows are independent.
    """
    raise NotImplementedError


def window_performance(
    joined: "pd.DataFrame",
    *,
    start: datetime,
    end: datetime,
    version: str,
    variant: str,
    task: Task,
    classes: Sequence[str] | None,
    now: datetime,
    watermark: Watermark,
    level: float,
    references: Sequence[PerformanceReference] = (),
    metric: str | None = None,
    slices: Sequence[str] = (),
) -> "WindowPerformance":
    """The performance of one version in one window.

    ``joined`` comes from ``join_labels``: rows of this window, version and variant, with ``at`` (times with
    a zone), ``score`` or ``scores``, ``label``, ``has_keys``, and ``features`` (JSON text) or one column per
    slice. ``variant``: champion, canary or shadow (the log's "stable" is champion). ``level``: probability
    that ``loss_low`` is above the true loss. ``metric`` None: ``MONITORED`` of the task.
    """
    raise NotImplementedError


def losses_by_revision(
    joined: "pd.DataFrame", task: Task, classes: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """Losses of labelled answers, for a rollout's ``quality``: what each version lost under each routing.

    ``joined``: rows of all variants and versions. Gives, by revision as text::

        {"12": {"loss": "log loss",
                "versions":    {"v7": {"count": 10, "mean": 0.5, "m2": 0.1}, ...},
                "differences": {"v8": {"count": 9, "mean": -0.1, "m2": 0.02}, ...}}}
    """
    raise NotImplementedError


def quality_evidence(losses: Mapping[str, Any], revision: int, canary: str, stable: str) -> Any:
    """``rollout.judging.judge.QualityEvidence`` of one revision; None when it holds no labels."""
    raise NotImplementedError
