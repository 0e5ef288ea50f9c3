"""The world outside of the platform: time that passes, callers who ask, outcomes that arrive late.

Belongs here: living one day. Does not belong here: what the platform makes of it (``story.py``).
"""

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from demo.callers import Ask, by_hour
from demo.deliveries import Delivered, Deliveries
from demo.traffic import Answer, Sent, Traffic
from demo.virtual_time import ClockFile, midnight

LABEL_DELAY = timedelta(days=2)
"""The outcomes of a day are complete when this much has passed since it began."""
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Lived:
    """One day: its requests with their answers (None: lost), and the days whose outcomes arrived, if any.

    ``without``: features that the callers did not know; ``ended``: Unix seconds just before the next day.
    """

    day: date
    asks: tuple[Ask, ...]
    answers: tuple[Answer | None, ...]
    problems: tuple[str, ...]
    seconds: float
    arrived: tuple[date, date] | None
    without: tuple[str, ...] = ()
    ended: float = 0.0

    @property
    def lost(self) -> int:
        return sum(answer is None for answer in self.answers)

    def by_version(self) -> dict[str, int]:
        """Answers by version and role, like ``v2 canary``; stable is not named."""
        counted: dict[str, int] = {}
        for answer in self.answers:
            if answer is not None:
                role = "" if answer.variant == "stable" else f" {answer.variant}"
                counted[answer.version + role] = counted.get(answer.version + role, 0) + 1
        return dict(sorted(counted.items()))


class World:
    """Time, callers and late outcomes.

    ``asks`` are the requests of every day that may be lived; ``arrivals`` the weekdays (Monday is 0) on which
    outcomes arrive, all that are complete by then.
    """

    def __init__(
        self,
        clock: ClockFile,
        traffic: Traffic,
        deliveries: Deliveries,
        asks: Mapping[date, Sequence[Ask]],
        *,
        delivered_until: date,
        arrivals: Collection[int] = range(7),
    ) -> None:
        self.clock, self._traffic, self._deliveries, self._asks = clock, traffic, deliveries, asks
        self._delivered_until, self._arrivals = delivered_until, frozenset(arrivals)

    def plant(self, model: str, without: list[str]) -> dict[str, Any]:
        """A colleague's model, which breaks when these features are missing; its version and digest."""
        return self._deliveries.plant(model, without)

    def live(self, day: date, without: Sequence[str] = ()) -> Lived:
        """Lives one day, hour by hour; ``without``: features that the callers do not know today."""
        self.clock.set(midnight(day))
        bringing = self._bring(day - LABEL_DELAY) if day.weekday() in self._arrivals else None
        sent: list[Sent] = []
        for at, asks in by_hour(self._asks[day]):
            self.clock.set(at)
            sent.append(self._traffic.send([ask.body(without) for ask in asks]))
        delivered = bringing.result() if bringing is not None else None
        ended = time.time()
        self.clock.set(midnight(day + ONE_DAY))
        return Lived(
            day=day,
            asks=tuple(self._asks[day]),
            answers=tuple(answer for one in sent for answer in one.answers),
            problems=tuple(problem for one in sent for problem in one.problems),
            seconds=sum(one.seconds for one in sent),
            arrived=(delivered.first, delivered.last) if delivered else None,
            without=tuple(without),
            ended=ended,
        )

    def _bring(self, until: date) -> "Future[Delivered] | None":
        """All outcomes that have not arrived, up to that day; None when they all have."""
        first = self._delivered_until + ONE_DAY
        if until < first:
            return None
        self._delivered_until = until
        return self._deliveries.bring(first, until)
