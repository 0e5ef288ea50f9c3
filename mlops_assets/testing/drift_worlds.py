"""Worlds that change, or do not, of which it is known what happened: M1 to M7.

Belongs here: histories drawn from a known relation of inputs and label, row by row, and what a model that
learned the time before says. Does not belong here: how they are judged (``monitoring/``), how often a rule
is right on them (``bench/drift.py``).

Every world has days that differ: how strongly the label follows ``x`` is drawn anew each day. So the skill of
one day lies about .4 from that of another while nothing changes, and no week proves a loss of .5 by itself.
A world begins with ``history_weeks`` weeks to train on; week 0 is the first that a model answers in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serve.schema import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

START = datetime(2024, 1, 1, tzinfo=UTC)
"""A Monday: the first day of week 0."""
CHANGE_WEEK = 8
"""Changes begin with the ninth week."""
ROWS_A_DAY = 96
FOLLOWS, DIFFERS = 3.2, 2.0
"""How strongly log-odds follow ``x``: mean and deviation over days."""
SAID = 1.85
"""How strongly the score of a model that learned all days follows ``x``."""
CLASSES = ("no", "yes")


@dataclass(frozen=True)
class DriftWorld:
    """One of M1 to M7. ``changed_week``: since when answers are worse, or could be better; None: never.

    ``follows`` gives the mean strength of a week; ``shift`` the mean of ``x``; ``more`` further columns of a
    day with what they add to log-odds.
    """

    name: str
    told: str
    changed_week: int | None = None
    history_weeks: int = 12
    follows: Callable[[float], float] = lambda week: FOLLOWS
    shift: Callable[[float], float] = lambda week: 0.0
    more: Callable[[float, np.random.Generator], tuple[Mapping[str, Floats], Floats | float]] | None = None
    drops_a_row: bool = False

    @property
    def specs(self) -> list[FeatureSpec]:
        """Features of its models."""
        names = ["x", "noise"]
        if self.more is not None:
            names += list(self.more(-1.0, np.random.default_rng(0))[0])
        return [FeatureSpec(name=name, type="number") for name in names]

    def days(self, random: np.random.Generator, first: int, last: int) -> "pd.DataFrame":
        """Rows of the days from ``first`` to ``last`` (exclusive; day 0 begins week 0, history is negative).

        Columns: the features, ``at`` (UTC), ``day``, ``label`` ("no", "yes"), ``row`` (a key) and ``score``:
        what a model says that learned the time before.
        """
        import pandas as pd

        drawn = [self._day(random, day) for day in range(first, last)]
        columns = {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}
        day, minute = columns["day"], pd.to_timedelta(columns.pop("minute"), unit="min")
        at = pd.Timestamp(START) + pd.to_timedelta(day, unit="D") + minute
        label = np.array(CLASSES, dtype=object)[columns.pop("label")]
        return pd.DataFrame({**columns, "at": at, "label": label})

    def _day(self, random: np.random.Generator, day: int) -> dict[str, NDArray[Any]]:
        week = day / 7
        count = ROWS_A_DAY - (self.drops_a_row and day % 28 == 3)
        x = random.normal(size=count) + self.shift(week)
        columns: Mapping[str, Floats] = {}
        added: Floats | float = 0.0
        if self.more is not None:
            columns, added = self.more(week, random)
            columns = {name: values[:count] for name, values in columns.items()}
            added = added[:count] if isinstance(added, np.ndarray) else added
        strength = self.follows(week) + DIFFERS * random.normal()
        chance = 1 / (1 + np.exp(-(strength * x + added)))
        place = np.arange(count)
        label = (random.random(count) < chance).astype(np.int64)
        return {
            "x": x,
            "noise": random.normal(size=count),
            **columns,
            "minute": place * 15,
            "day": np.full(count, day),
            "label": label,
            "row": day * 1_000 + place,
            "score": 1 / (1 + np.exp(-SAID * x)),
        }


def _later(before: float, after: float) -> Callable[[float], float]:
    return lambda week: after if week >= CHANGE_WEEK else before


def _waking(week: float, random: np.random.Generator) -> tuple[Mapping[str, Floats], Floats | float]:
    """Three columns that never moved, and then do."""
    if week < CHANGE_WEEK:
        return {f"z{number}": np.zeros(ROWS_A_DAY) for number in range(3)}, 0.0
    drawn = {f"z{number}": random.normal(size=ROWS_A_DAY) for number in range(3)}
    return drawn, 0.8 * np.sum(list(drawn.values()), axis=0)


def _calendar(week: float, random: np.random.Generator) -> tuple[Mapping[str, Floats], Floats | float]:
    """Columns that are the same in every week by construction."""
    return {
        "half_hour": np.arange(ROWS_A_DAY, dtype=np.float64) % 48,
        "weekday": np.full(ROWS_A_DAY, float(round(week * 7) % 7)),
    }, 0.0


WORLDS: Mapping[str, DriftWorld] = {
    one.name: one
    for one in (
        DriftWorld(
            "M1", "worse than the base rate from week 9 on", CHANGE_WEEK, follows=_later(FOLLOWS, -2.0)
        ),
        DriftWorld("M2", "half the skill lost from week 9 on", CHANGE_WEEK, follows=_later(FOLLOWS, 1.0)),
        DriftWorld("M3", "three constant columns begin to vary in week 9", CHANGE_WEEK, more=_waking),
        DriftWorld("M4", "columns that are fixed by construction", more=_calendar, drops_a_row=True),
        DriftWorld(
            "M5",
            "inputs move with the season, nothing is lost",
            shift=lambda week: 0.5 * np.sin(week * np.pi / 26),
        ),
        DriftWorld("M6", "nothing changes"),
        DriftWorld(
            "M7",
            "the relation of input and label is turned around in week 9",
            CHANGE_WEEK,
            history_weeks=40,
            follows=_later(FOLLOWS, -FOLLOWS),
        ),
    )
}
