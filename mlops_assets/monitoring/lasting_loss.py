"""Whether a version is worse than it was, by all of its judged days together. Pure.

Belongs here: what the days of several windows and measures say together, in words and numbers. Does not
belong here: a window by itself (``performance.py``), the measures (``day_measures.py``), the detector
(``accumulation.py``), what follows (``policy.py``).

Days are compared with those before them and with the days that the version was evaluated on. A measure that
is wrong on either side (level) is watched on both, each with half of the measure's share, and never for
coming nearer to zero: the evaluated days are moved to zero where zero is worse than they were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring.accumulation import AddedUp, accumulate, limit
from mlops_assets.monitoring.day_measures import DayMeasure, day_measures
from mlops_assets.monitoring.findings import WindowPerformance
from mlops_assets.monitoring.performance import PerformanceReference
from mlops_assets.monitoring.policy import DriftPolicy
from mlops_assets.monitoring.windows import YEAR
from serve.schema import Task

Floats = NDArray[np.float64]

DAY = timedelta(days=1)


@dataclass(frozen=True)
class WindowDays:
    """The days of a judged window: by measure, what each one says. ``end``: ISO 8601, with a zone."""

    end: str
    days: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class LastingLossTest:
    """How the days of a version are held against the days before them.

    ``references``: of the version's measures on the days that it was evaluated on. ``window``: the length of
    its windows. ``false_alarms_per_year``: so many are to be expected at most. ``metric``: the declared one;
    None: the measures of the task.
    """

    task: Task
    references: Sequence[PerformanceReference]
    window: timedelta
    false_alarms_per_year: float
    metric: str | None = None

    @classmethod
    def declared(
        cls,
        policy: DriftPolicy,
        task: Task,
        references: Sequence[PerformanceReference],
        window: timedelta,
    ) -> "LastingLossTest":
        """The test that a policy declares."""
        return cls(task, references, window, policy.false_alarms_per_year, policy.performance.metric)

    @property
    def limit(self) -> float:
        """What the evidence has to reach."""
        return limit(YEAR / self.window, self.false_alarms_per_year)

    def before(self, measure: str) -> Floats:
        """The evaluated days; none for windows under a day, of which a day is no measure."""
        found = next((one for one in self.references if one.metric == measure), None)
        return np.asarray(found.days if found is not None and self.window >= DAY else (), dtype=np.float64)


def with_lasting_loss(
    windows: Sequence[WindowPerformance], test: LastingLossTest, *, earlier: Sequence[WindowDays] = ()
) -> list[WindowPerformance]:
    """The windows of one version, oldest first, each with the evidence that had added up by its end.

    ``earlier``: the judged windows before them, which are not measured any more. A window that is not judged
    adds nothing and gets nothing.
    """
    judged = [one for one in windows if one.status == "judged" and any(one.days.values())]
    every = [*earlier, *(WindowDays(one.end, one.days) for one in judged)]
    sides = _sides(every, test)
    if not sides:
        return list(windows)
    paths = accumulate({name: one.bet for name, one in sides.items()}, test.limit)
    found = {one.end: _in_words(every, place, paths[place], sides, test) for place, one in enumerate(every)}
    return [replace(one, **found[one.end]) if one in judged else one for one in windows]


@dataclass(frozen=True)
class _Side:
    """One side of one measure: higher is worse."""

    measure: DayMeasure
    sign: float
    share: float
    before: Floats
    windows: Sequence[Floats]

    @property
    def bet(self) -> tuple[float, Floats, Sequence[Floats]]:
        return self.share, self.before, self.windows

    def loss(self, since: int, until: int) -> tuple[float, float, int]:
        """(mean before, mean from window ``since`` to ``until``, days in those), in the measure's units."""
        old = np.concatenate([self.before, *self.windows[:since]])
        new = np.concatenate(self.windows[since : until + 1])
        was = float(old.mean()) if len(old) else float("nan")
        return self.sign * was, self.sign * float(new.mean()) if len(new) else float("nan"), len(new)


def _sides(windows: Sequence[WindowDays], test: LastingLossTest) -> dict[str, _Side]:
    """By name, the sides of the measures of which any window has days."""
    there = {
        one: share
        for one, share in day_measures(test.task, test.metric).items()
        if any(window.days.get(one.name) for window in windows)
    }
    found = {}
    for measure, share in there.items():
        signs = (1.0, -1.0) if measure.two_sided else (1.0 if measure.higher_is_worse else -1.0,)
        for sign in signs:
            before = sign * test.before(measure.name)
            if measure.two_sided and len(before):
                before = before + max(0.0, -float(before.mean()))
            days = [sign * np.asarray(one.days.get(measure.name, ()), dtype=np.float64) for one in windows]
            own = share / sum(there.values()) / len(signs)
            found[f"{measure.name} {'up' if sign > 0 else 'down'}"] = _Side(measure, sign, own, before, days)
    return found


def _in_words(
    windows: Sequence[WindowDays],
    place: int,
    found: tuple[AddedUp, Mapping[str, float]],
    sides: Mapping[str, _Side],
    test: LastingLossTest,
) -> dict[str, Any]:
    total, alone = found
    reached = total.value / test.limit
    if total.since is None:
        return {
            "accumulated": reached,
            "accumulated_reason": f"evidence of a lasting loss: {reached:.0%} of what an episode needs",
        }
    strongest = sides[max(alone, key=lambda name: sides[name].share * alone[name])]
    was, now, days = strongest.loss(total.since, place)
    years = 1 / test.false_alarms_per_year
    return {
        "accumulated": reached,
        "accumulated_since": windows[total.since].end,
        "accumulated_loss": abs(now) - abs(was) if strongest.measure.two_sided else abs(now - was),
        "accumulated_reason": (
            f"{strongest.measure.in_words(now, was, days)}: {reached:.1f} times the evidence that chance "
            f"gives at most once in {years:g} years"
        ),
    }
