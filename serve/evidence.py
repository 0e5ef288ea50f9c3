"""What one gateway replica measured of its versions since a routing took effect, and sums of it.

Belongs here: counting on the hot path, and exact merging over replicas. Does not belong here: judging
the counts (``serve/guard.py``, the control plane), carrying them to the aggregator (``serve/aggregator.py``),
Prometheus metrics, which outlive a routing (``serve/metrics.py``).

Counts are cumulative for one revision: whoever missed a snapshot loses nothing with the next one.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Literal, NamedTuple

from serve.schema import LATENCY_BOUNDS_S, Moments, ShadowEvidence, VersionEvidence

Reason = Literal["model_error", "timeout", "lost", "gone", "non_finite", "schema"]

Series = tuple[int, float, float]
"""Count, mean and sum of squared deviations."""

_EMPTY: Series = (0, 0.0, 0.0)


class VersionCounts(NamedTuple):
    """The fields of ``serve.schema.VersionEvidence`` as plain values."""

    requests: int
    errors: dict[str, int]
    losses: int
    latency: tuple[int, ...]
    outputs: Series


class ShadowCounts(NamedTuple):
    """The fields of ``serve.schema.ShadowEvidence`` as plain values."""

    requests: int
    errors: dict[str, int]
    shed: int
    latency: tuple[int, ...]
    live_latency: tuple[int, ...]
    outputs: Series
    live_outputs: Series
    differences: Series
    distances: Series


class Snapshot(NamedTuple):
    """Cumulative counts of one revision; ``since`` is the Unix time at which the counting began."""

    revision: int | None
    since: float
    versions: dict[str, VersionCounts]
    shadows: dict[str, ShadowCounts]


class _Running:
    """Welford's running mean and squared deviations: stable where a sum of squares cancels out."""

    __slots__ = ("count", "m2", "mean")

    def __init__(self) -> None:
        self.count, self.mean, self.m2 = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.m2 += off * (value - self.mean)

    def series(self) -> Series:
        return self.count, self.mean, self.m2


def _no_latency() -> list[int]:
    return [0] * (len(LATENCY_BOUNDS_S) + 1)


class _Version:
    __slots__ = ("errors", "latency", "losses", "outputs", "requests")

    def __init__(self) -> None:
        self.requests, self.losses = 0, 0
        self.errors: dict[str, int] = {}
        self.latency = _no_latency()
        self.outputs = _Running()

    def counts(self) -> VersionCounts:
        return VersionCounts(
            self.requests, dict(self.errors), self.losses, tuple(self.latency), self.outputs.series()
        )


class _Shadow:
    __slots__ = (
        "differences", "distances", "errors", "latency", "live_latency", "live_outputs", "outputs",
        "requests", "shed",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests, self.shed = 0, 0
        self.errors: dict[str, int] = {}
        self.latency, self.live_latency = _no_latency(), _no_latency()
        self.outputs, self.live_outputs = _Running(), _Running()
        self.differences, self.distances = _Running(), _Running()

    def counts(self) -> ShadowCounts:
        return ShadowCounts(
            self.requests, dict(self.errors), self.shed, tuple(self.latency), tuple(self.live_latency),
            self.outputs.series(), self.live_outputs.series(),
            self.differences.series(), self.distances.series(),
        )  # fmt: skip


class Collector:
    """Counts of one gateway replica. Lives on one event loop; a call costs about a microsecond.

    Outputs are finite: a version that gave something else has ``failed`` with ``non_finite``. What is
    answered after a new revision began counts for the new one, whichever routing chose the version.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.revision: int | None = None
        self._since = clock()
        self._versions: dict[str, _Version] = {}
        self._shadows: dict[str, _Shadow] = {}

    def start(self, revision: int) -> None:
        """Counts for ``revision`` from now on: goes on counting when it is the same one, else resets."""
        if revision != self.revision:
            self.revision, self._since = revision, self._clock()
            self._versions, self._shadows = {}, {}

    def _version(self, version: str) -> _Version:
        counts = self._versions.get(version)
        if counts is None:
            counts = self._versions[version] = _Version()
        return counts

    def _shadow(self, version: str) -> _Shadow:
        counts = self._shadows.get(version)
        if counts is None:
            counts = self._shadows[version] = _Shadow()
        return counts

    def answered(self, version: str, seconds: float, output: float) -> None:
        """A request it was chosen for and answered: its own time, and the mean output over its rows."""
        counts = self._version(version)
        counts.requests += 1
        counts.latency[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        counts.outputs.add(output)

    def failed(self, version: str, reason: Reason, seconds: float) -> None:
        """A request it was chosen for and did not answer, and its own time until that was clear."""
        counts = self._version(version)
        counts.requests += 1
        counts.errors[reason] = counts.errors.get(reason, 0) + 1
        counts.latency[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1

    def lost(self, version: str) -> None:
        """Counts an outage of the version (a replica died); the request counts as answered or failed."""
        self._version(version).losses += 1

    def shadow_answered(
        self,
        version: str,
        *,
        seconds: float,
        live_seconds: float,
        output: float,
        live_output: float,
        distance: float,
    ) -> None:
        """A mirrored request it answered, paired with the live answer of the same request."""
        counts = self._shadow(version)
        counts.requests += 1
        counts.latency[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        counts.live_latency[bisect_left(LATENCY_BOUNDS_S, live_seconds)] += 1
        counts.outputs.add(output)
        counts.live_outputs.add(live_output)
        counts.differences.add(output - live_output)
        counts.distances.add(distance)

    def shadow_failed(self, version: str, reason: Reason, seconds: float) -> None:
        """A mirrored request it did not answer; the live one is not counted, for it has no pair."""
        counts = self._shadow(version)
        counts.requests += 1
        counts.errors[reason] = counts.errors.get(reason, 0) + 1
        counts.latency[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1

    def shadow_shed(self, version: str) -> None:
        """A request that was not mirrored because too many were under way."""
        self._shadow(version).shed += 1

    def snapshot(self) -> Snapshot:
        """The counts so far, as plain values that later calls do not change."""
        return Snapshot(
            self.revision,
            self._since,
            {version: counts.counts() for version, counts in self._versions.items()},
            {version: counts.counts() for version, counts in self._shadows.items()},
        )


def summed(snapshots: Iterable[Snapshot], revision: int, *, now: float) -> Snapshot:
    """One snapshot as if one replica had counted everything; snapshots of other revisions add nothing.

    ``since`` is the earliest of the snapshots that count, or ``now`` when there is none.
    """
    versions: dict[str, VersionCounts] = {}
    shadows: dict[str, ShadowCounts] = {}
    since = now
    for snapshot in snapshots:
        if snapshot.revision != revision:
            continue
        since = min(since, snapshot.since)
        for version, mine in snapshot.versions.items():
            versions[version] = _both_versions(versions[version], mine) if version in versions else mine
        for version, its in snapshot.shadows.items():
            shadows[version] = _both_shadows(shadows[version], its) if version in shadows else its
    return Snapshot(revision, since, versions, shadows)


def merged(
    snapshots: Iterable[Snapshot], revision: int
) -> tuple[dict[str, VersionEvidence], dict[str, ShadowEvidence]]:
    """The sum of the snapshots of ``revision`` as documents, by version: (versions, shadows)."""
    total = summed(snapshots, revision, now=0.0)
    versions = {
        version: VersionEvidence(
            requests=counts.requests,
            errors=counts.errors,
            losses=counts.losses,
            latency=counts.latency,
            outputs=_moments(counts.outputs),
        )
        for version, counts in total.versions.items()
    }
    shadows = {
        version: ShadowEvidence(
            requests=counts.requests,
            errors=counts.errors,
            shed=counts.shed,
            latency=counts.latency,
            live_latency=counts.live_latency,
            outputs=_moments(counts.outputs),
            live_outputs=_moments(counts.live_outputs),
            differences=_moments(counts.differences),
            distances=_moments(counts.distances),
        )
        for version, counts in total.shadows.items()
    }
    return versions, shadows


def merged_series(*series: Series) -> Series:
    """Count, mean and squared deviations of all values together (Chan, Golub and LeVeque, 1979)."""
    return reduce(_both_series, series, _EMPTY)


def _both_series(one: Series, other: Series) -> Series:
    if not one[0] or not other[0]:
        return one if one[0] else other
    count = one[0] + other[0]
    apart = other[1] - one[1]
    mean = one[1] + apart * other[0] / count
    return count, mean, one[2] + other[2] + apart * apart * one[0] * other[0] / count


def _both_versions(one: VersionCounts, other: VersionCounts) -> VersionCounts:
    return VersionCounts(
        one.requests + other.requests,
        _both_errors(one.errors, other.errors),
        one.losses + other.losses,
        _both_latencies(one.latency, other.latency),
        _both_series(one.outputs, other.outputs),
    )


def _both_shadows(one: ShadowCounts, other: ShadowCounts) -> ShadowCounts:
    return ShadowCounts(
        one.requests + other.requests,
        _both_errors(one.errors, other.errors),
        one.shed + other.shed,
        _both_latencies(one.latency, other.latency),
        _both_latencies(one.live_latency, other.live_latency),
        _both_series(one.outputs, other.outputs),
        _both_series(one.live_outputs, other.live_outputs),
        _both_series(one.differences, other.differences),
        _both_series(one.distances, other.distances),
    )


def _both_errors(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {reason: one.get(reason, 0) + other.get(reason, 0) for reason in {**one, **other}}


def _both_latencies(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int.__add__, one, other))


def _moments(series: Series) -> Moments:
    count, mean, m2 = series
    return Moments(count=count, mean=mean, m2=m2)
