"""Evidence that adds up over days: whether a version's days became worse than the days before them. Pure.

Belongs here: an e-detector on ranks of days, its limit for a rate of false alarms per year. Does not belong
here: the value of a day (``performance.py``), what an alarm leads to (``policy.py``).

Null hypothesis: the days before the version answered (those it was evaluated on) and the days since are
exchangeable. Nothing is assumed of their distribution: neither its shape, nor its tails, nor how good the
model is. Of exchangeable days the rank of each one among all days up to it is uniform, and independent of the
ranks before it; so a bet on the rank whose mean over all ranks is 1 cannot be expected to gain. (Conformal
test martingales: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman 2021, "Retrain or not retrain:
conformal test martingales for change-point detection", PMLR 152.)

When the world changed is not known, so one bettor starts with 1 at the first day of every window. Each
expects the days since its start to lie ``SHIFTS`` standard deviations of normal days higher than those
before: the bet on a rank is the likelihood ratio of that rank, days of either kind among the earlier ones
included, divided by its mean over all ranks. The sum over starts is an e-detector (Shin, Ramdas and Rinaldo
2023, "E-detectors: a nonparametric framework for sequential change detection", New England Journal of
Statistics in Data Science 2(2); the sum is Shiryaev's and Roberts'): while nothing changes, ``sum - starts``
is a martingale, so the number of windows until the sum reaches ``c`` is at least ``c`` on average. With ``c =
windows per year / rate`` there are at most ``rate`` false alarms per year of looking, however often somebody
looks. A mean of e-detectors is one too: that is how several measures share the rate.

What the guarantee does not cover: days that depend on each other. Weeks that differ by more than their days
do raise the rate (``docs/monitoring.md`` says how much).
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHIFTS = (0.5, 1.0, 2.0)
"""Shifts that are betted on, in standard deviations of a day; each with a third of the capital."""
KEPT_STARTS = 13
"""So many of the newest starts are followed: a quarter of a year of weeks. Fewer starts give fewer alarms."""
_GRID = np.linspace(-9.0, 9.0 + max(SHIFTS), 2_001)


Capital = Mapping[int, float]
"""What each followed start has, by the place of its window."""


@dataclass(frozen=True)
class AddedUp:
    """What had added up by the end of a window.

    ``value``: the sum on the window's best day, 1 to be expected per start; ``since``: the place of the
    newest window whose start, together with all later ones, brings the sum to the limit; None below it.
    """

    value: float
    since: int | None


def limit(windows_per_year: float, false_alarms_per_year: float) -> float:
    """What the sum must reach so that at most so many false alarms per year are to be expected."""
    return windows_per_year / false_alarms_per_year


def accumulate(
    measures: Mapping[str, tuple[float, Floats, Sequence[Floats]]], limit: float
) -> list[tuple[AddedUp, Mapping[str, float]]]:
    """Per window the evidence of all measures together, and that of each one alone on the same day.

    ``measures``: by name the share of the capital (they add up to 1), the days before the first window, and
    the days of every window, higher is worse. A window without days of a measure adds nothing to it. All
    measures have the same windows. The first day of all has no day to be worse than, and proves nothing.
    """
    shares = {name: share for name, (share, _, _) in measures.items()}
    paths = {name: _path(before, windows) for name, (_, before, windows) in measures.items()}
    count = max((len(path) for path in paths.values()), default=0)
    return [
        _added_up({name: path[place] for name, path in paths.items()}, shares, limit)
        for place in range(count)
    ]


def _added_up(
    paths: Mapping[str, Sequence[Capital]], shares: Mapping[str, float], limit: float
) -> tuple[AddedUp, Mapping[str, float]]:
    """What had added up on the best day of a window: the measures of one day, never the best of each."""
    days = max(len(path) for path in paths.values())
    # A measure with fewer days than others stays what it was after its last one.
    by_day = [{name: path[min(day, len(path) - 1)] for name, path in paths.items()} for day in range(days)]
    best = max(by_day, key=lambda day: sum(shares[name] * sum(held.values()) for name, held in day.items()))
    starts: dict[int, float] = {}
    for name, held in best.items():
        for start, value in held.items():
            starts[start] = starts.get(start, 0.0) + shares[name] * value
    total, since = 0.0, None
    for start in sorted(starts, reverse=True):
        total += starts[start]
        if since is None and total >= limit:
            since = start
    return AddedUp(total, since), {name: sum(held.values()) for name, held in best.items()}


def _path(before: Floats, windows: Sequence[Floats]) -> list[list[Capital]]:
    """Per window, what each followed start has after each day; of one without days, what it had before."""
    seen = sorted(float(one) for one in before)
    capital: dict[int, Floats] = {}
    age: dict[int, int] = {}
    found: list[list[Capital]] = []
    for place, days in enumerate(windows):
        if len(days):
            capital[place], age[place] = np.ones(len(SHIFTS)), 0
            for start in [one for one in capital if one <= place - KEPT_STARTS]:
                del capital[start], age[start]
        after: list[Capital] = []
        for day in days:
            count = len(seen) + 1
            rank = count - bisect_left(seen, float(day))
            for start in capital:
                capital[start] = capital[start] * _bet(count, age[start], rank)
                age[start] += 1
            insort(seen, float(day))
            after.append(_held(capital))
        found.append(after or [_held(capital)])
    return found


def _held(capital: Mapping[int, Floats]) -> Capital:
    return {start: float(one.mean()) for start, one in capital.items()}


def _bet(count: int, since: int, rank: int) -> Floats:
    """The factor of each shift for a day of that rank (1: the worst) among ``count`` days, itself included.

    ``since`` of the earlier days are of the time after the start that the bettor believes in.
    """
    return _bets(count, since)[rank - 1]


@lru_cache(maxsize=8_192)
def _bets(count: int, since: int) -> Floats:
    """The factor of every rank (count, shifts): its likelihood ratio over the mean ratio of all ranks."""
    later = since / (count - 1) if count > 1 else 0.0
    above = (np.arange(1, count + 1) - 0.5) / count
    ratios = np.empty((count, len(SHIFTS)))
    for column, shift in enumerate(SHIFTS):
        at = np.interp(-above, -_share_above(later, shift), _GRID)
        ratios[:, column] = 1.0 / ((1.0 - later) * np.exp(shift * (shift / 2 - at)) + later)
    return np.asarray(ratios / ratios.mean(axis=0))


def _share_above(later: float, shift: float) -> Floats:
    """Share of the days above each point of the grid, when a share ``later`` of them is shifted."""
    from scipy.special import ndtr

    return np.asarray((1.0 - later) * ndtr(-_GRID) + later * ndtr(shift - _GRID))
