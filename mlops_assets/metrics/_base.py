"""What a series is, and what a collector of them must do.

Belongs here: the form of series and samples, the ABC of collectors. Does not belong here: one collector (a
file beside this one), asking collectors and answering scrapes (``_exporting.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple


@dataclass(frozen=True)
class MetricSeries:
    """One series: its name with the unit in it, its labels, and what it says. A counter ends in ``_total``.

    The table in docs/operations.md is compared with these.
    """

    name: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    meaning: str


class MetricSample(NamedTuple):
    """The value of a series for these labels, now."""

    series: MetricSeries
    labels: Mapping[str, str]
    value: float


class MetricsCollector(ABC):
    """What can be said of one part of the platform.

    A file of a collector imports nothing heavy: the exporter is there all the time, and imports what a
    collector needs when somebody scrapes.
    """

    name: ClassVar[str]
    series: ClassVar[tuple[MetricSeries, ...]]
    """Every series that ``collect`` may give."""

    @classmethod
    @abstractmethod
    def of_platform(cls) -> "MetricsCollector":
        """The collector of the platform that this environment names; nothing is opened yet."""

    @abstractmethod
    def collect(self) -> Iterator[MetricSample]:
        """What is true now. Something that does not answer is left out within seconds, or said by a series of
        its own; MlopsError when nothing can be said. Nothing is changed anywhere.
        """
