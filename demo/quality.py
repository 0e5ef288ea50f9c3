"""What the loop was worth: its answers beside those the first champion would have given. Pure.

Belongs here: scoring the same requests with the first champion and comparing by month. Does not belong here:
sending them (``world.py``), printing (``scenes.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demo.world import Lived
from mlops_assets.evaluation.metrics.log_loss import log_losses
from mlops_assets.evaluation.metrics.roc_auc import roc_auc

if TYPE_CHECKING:
    from serve.scoring import Scorer


@dataclass(frozen=True)
class Month:
    """One month (``2013-07``, or ``all``): AUC and mean log loss of both; None where AUC is not defined."""

    month: str
    rows: int
    late_share: float
    never_auc: float | None
    never_log_loss: float
    loop_auc: float | None
    loop_log_loss: float


def by_month(lived: Sequence[Lived], never: "Scorer") -> list[Month]:
    """The answered requests that have an outcome, by month of the request, and all together; [] for none.

    ``never`` is the first champion, binary. Requests of callers who lacked a feed are scored as sent.
    """
    months, targets, answers, features = [], [], [], []
    for day in lived:
        for ask, answer in zip(day.asks, day.answers, strict=True):
            if ask.label is not None and answer is not None:
                months.append(ask.at.strftime("%Y-%m"))
                targets.append(ask.label)
                answers.append(answer.probability)
                features.append({**ask.features, **dict.fromkeys(day.without)})
    if not targets:
        return []
    target, loop = np.asarray(targets, dtype=np.float64), np.asarray(answers)
    first, of = never.score_rows(features), np.asarray(months)
    parts = [(month, of == month) for month in sorted(set(months))]
    return [
        Month(
            month=month,
            rows=int(rows.sum()),
            late_share=float(target[rows].mean()),
            never_auc=roc_auc(target[rows], first[rows]),
            never_log_loss=float(log_losses(target[rows], first[rows]).mean()),
            loop_auc=roc_auc(target[rows], loop[rows]),
            loop_log_loss=float(log_losses(target[rows], loop[rows]).mean()),
        )
        for month, rows in [*parts, ("all", np.ones(len(target), dtype=bool))]
    ]
