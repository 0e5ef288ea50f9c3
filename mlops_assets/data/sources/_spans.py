"""Neighbouring days as one span, for sources that are asked for a range. Pure."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Span:
    """Neighbouring days: from ``first`` on, before ``after``."""

    first: dt.date
    after: dt.date


def spans(keys: Sequence[str]) -> list[Span]:
    """The days as few spans, in order."""
    found: list[Span] = []
    for day in sorted(map(dt.date.fromisoformat, set(keys))):
        if found and found[-1].after == day:
            found[-1] = Span(found[-1].first, day + ONE_DAY)
        else:
            found.append(Span(day, day + ONE_DAY))
    return found
