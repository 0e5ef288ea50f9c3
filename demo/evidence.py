"""What only the windows of a version together prove, in one sentence with its numbers. Pure.

Belongs here: whether the story's mild loss was found the way the story says. Does not belong here: the
evidence itself (``mlops_assets/monitoring/lasting_loss.py``), waiting for an episode (``story.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_assets.monitoring.findings import WindowPerformance


@dataclass(frozen=True)
class TogetherOnly:
    """So many windows were judged and none proves a loss; the last ``needed`` prove it together.

    ``times``: their evidence, relative to what an episode needs.
    """

    windows: int
    needed: int
    times: float

    @property
    def sentence(self) -> str:
        together = "together they hold" if self.needed == self.windows else f"the last {self.needed} hold"
        return (
            f"none of the {self.windows} windows proves a loss by itself; {together} {self.times:.1f} times "
            "the evidence that an episode needs"
        )


def together_only(
    windows: Sequence[WindowPerformance], signals: Sequence[Mapping[str, Any]]
) -> TogetherOnly | str:
    """What the champion's windows prove together and none alone; in words what is otherwise.

    ``signals``: those of the opened episode, as the page of the drift signal has them.
    """
    opened_by = [str(one["name"]) for one in signals if one["action"] == "open"]
    if opened_by != ["performance"]:
        return f"the episode was opened by {', '.join(opened_by) or 'no signal'}, not by performance alone"
    judged = [one for one in windows if one.variant == "champion" and one.status == "judged"]
    for one in judged:
        if one.loss_low is not None and one.loss_low > 0:
            return f"the window until {one.end[:10]} proves a loss of {one.loss_low:.4f} by itself"
        if one.below_baseline is not None and one.below_baseline > 0:
            return f"the window until {one.end[:10]} is proven worse than the baseline"
    newest = judged[-1] if judged else None
    if newest is None or newest.accumulated is None or newest.accumulated_since is None:
        return "no evidence of a lasting loss had added up"
    since = datetime.fromisoformat(newest.accumulated_since)
    needed = [one for one in judged if datetime.fromisoformat(one.end) >= since]
    if len(needed) < 2:
        return f"the window until {newest.end[:10]} holds all the evidence"
    return TogetherOnly(len(judged), len(needed), newest.accumulated)
