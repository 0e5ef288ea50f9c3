"""How the replicas of one gateway know together what each measured, and act together on a trip.

Belongs here: the messages, the aggregator that sums and judges, and each replica's link to it. Does not
belong here: the rules (``serve/guard.py``), counting (``serve/evidence.py``, ``serve/metrics.py``),
Ray (``serve/ray_aggregator.py``), what a trip does to the traffic (``serve/traffic.py``).

Guarantees. Everything that travels is cumulative and numbered, so a message that is lost, repeated or late
changes no sum. A replica that died stays in the sums. The replicas remember for the aggregator what it cannot
be told again (dead replicas, trips, what monitoring reported), so a restarted one is complete as soon as each
has pushed once. Without an aggregator every replica goes on guarding its own traffic, and shows what was
reported last.

Limits. What a replica counted in the last push interval before it was killed is lost, and so is a
replica that dies together with the aggregator. Sums contain the other replicas as of their last push.
A monitoring report is lost when the aggregator and all replicas die: whoever made it tells it again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from serve import evidence, metrics
from serve.evidence import Collector, Snapshot
from serve.guard import Guard
from serve.metrics import GatewayMetrics, MetricsSnapshot, exposition
from serve.schema import Evidence, GuardRules, MonitoringReport, ReplicaReport, Routing, Trip

NO_REVISION = -1
"""Of a gateway that no routing was declared to."""

SILENT_AFTER_S = 3.0
"""A replica that pushed nothing for this long does not count as living any more."""
REST_INTERVAL_S = 1.0
"""A replica without news pushes this often, so that three pushes may fail before it counts as silent."""
ROLL_UP_AFTER_S = 300.0
"""A replica that was silent for this long is summed with the others that are gone."""
ROLLED_UP_NAMES = 1_000
"""Names in a rollup that are remembered, so that no replica is summed twice."""

MOMENT_S = 1e-3
"""Two reports are told apart by their times."""

PUSH_TIMEOUT_S = 2.0
GATHER_TIMEOUT_S = 1.0

BY_AGGREGATOR = "referee"
"""What the answers call it, as do the metric ``mlops_referee_reachable`` and the error ``no_referee``."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """All that one replica has counted, as of its push with this number."""

    replica: str
    number: int
    evidence: Snapshot
    metrics: MetricsSnapshot


@dataclass(frozen=True, slots=True)
class Rollup:
    """The sum of the replicas that are long gone. ``number`` is how many went into it."""

    number: int
    replicas: tuple[str, ...]
    evidence: Snapshot
    metrics: MetricsSnapshot


@dataclass(frozen=True, slots=True)
class TimedReport:
    """What monitoring reported of the stable version, and when (Unix seconds, never the same twice)."""

    reported_at: float
    report: MonitoringReport


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica tells the aggregator with each push.

    ``stable``, ``rules`` and ``trips`` are those of ``revision``. ``holds`` says which accounts of
    silent replicas it remembers already, by number, and ``holds_monitoring`` which report, by its time;
    ``remembered``, ``rollup`` and ``monitoring`` tell them to an aggregator that may be new.
    """

    deployment: str
    revision: int
    stable: str
    rules: GuardRules
    account: Account
    trips: Mapping[str, Trip]
    holds: Mapping[str, int]
    holds_rollup: int = 0
    remembered: tuple[Account, ...] = ()
    rollup: Rollup | None = None
    holds_monitoring: float | None = None
    monitoring: TimedReport | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """All trips of the newest revision, and what the replica shall remember for the next aggregator.

    ``monitored_at``: when the report was made that holds now, None where none does; ``monitoring``: that
    report, unless the replica has it.
    """

    revision: int
    trips: Mapping[str, Trip]
    remember: tuple[Account, ...] = ()
    rollup: Rollup | None = None
    monitored_at: float | None = None
    monitoring: TimedReport | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything merged: the evidence of the newest revision, the metrics of all replicas, and what was
    last reported of the version that is stable.
    """

    evidence: Evidence
    living: tuple[MetricsSnapshot, ...]
    gone: tuple[MetricsSnapshot, ...]
    monitoring: MonitoringReport | None = None


@dataclass(slots=True)
class _Heard:
    account: Account
    at: float
    spoke: bool = True
    """To this aggregator, itself; else another replica remembered its account."""


class Aggregator:
    """Sums the newest account of each replica and decides trips on the sum. Knows no clock but the given.

    ``clock`` gives Unix seconds, ``steady`` seconds that no adjustment of the time moves.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._steady = clock, steady
        self._deployment = ""
        self._revision = NO_REVISION
        self._stable = ""
        self._guard: Guard | None = None
        self._trips: dict[str, Trip] = {}
        self._heard: dict[str, _Heard] = {}
        self._rollup: Rollup | None = None
        self._monitoring: TimedReport | None = None

    def push(self, report: Report) -> Reply:
        """Takes a replica's report; the reply carries all trips of the newest revision."""
        self._deployment = report.deployment
        if report.revision > self._revision:
            self._revision, self._stable, self._trips = report.revision, report.stable, {}
            self._guard = Guard(report.rules, revision=report.revision)
            if self._monitoring is not None and self._monitoring.report.version != report.stable:
                # Nobody knows yet how the version stands that answers now.
                self._monitoring = None
        now = self._steady()
        self._learn_monitoring(report)
        if self._take_over(report, now) | self._hear(report.account, now):
            self._window_begins(now)
        if report.revision == self._revision:
            for version, trip in report.trips.items():
                self._trips.setdefault(version, trip)
            self._judge(now, report.stable)
        self._roll_up(now)
        return self._reply(report, now)

    def monitor(self, report: MonitoringReport) -> None:
        """Keeps what was found out about the stable version, in place of what was reported before."""
        before = self._monitoring.reported_at if self._monitoring else 0.0
        self._monitoring = TimedReport(max(self._clock(), before + MOMENT_S), report)

    def gathered(self) -> Gathered:
        """The evidence of the newest revision and the metrics, over all replicas that ever pushed."""
        now = self._steady()
        versions, shadows = evidence.merged(self._snapshots(), self._revision)
        living = {
            replica: heard for replica, heard in self._heard.items() if now - heard.at <= SILENT_AFTER_S
        }
        return Gathered(
            Evidence(
                name=self._deployment,
                revision=self._revision,
                since=evidence.summed(self._snapshots(), self._revision, now=self._clock()).since,
                replicas={
                    replica: ReplicaReport(
                        revision=_revision_of(heard.account.evidence), age_s=round(now - heard.at, 3)
                    )
                    for replica, heard in living.items()
                },
                versions=versions,
                shadows=shadows,
                trips=dict(self._trips),
            ),
            tuple(heard.account.metrics for heard in living.values()),
            tuple(heard.account.metrics for replica, heard in self._heard.items() if replica not in living)
            + ((self._rollup.metrics,) if self._rollup else ()),
            self._monitoring.report if self._monitoring else None,
        )

    def _snapshots(self) -> list[Snapshot]:
        snapshots = [heard.account.evidence for heard in self._heard.values()]
        return [*snapshots, self._rollup.evidence] if self._rollup else snapshots

    def _take_over(self, report: Report, now: float) -> bool:
        """Learns what an earlier aggregator knew, from a replica that remembers it. Whether it learnt any."""
        learnt = False
        rollup = report.rollup
        if rollup is not None and (self._rollup is None or rollup.number > self._rollup.number):
            learnt, self._rollup = True, rollup
            for replica in rollup.replicas:
                self._heard.pop(replica, None)
        for account in report.remembered:
            known = self._heard.get(account.replica)
            is_newer = known is None or known.account.number < account.number
            if is_newer and not self._is_rolled_up(account.replica):
                # They were silent already; for how long is not known, so it is counted from here.
                self._heard[account.replica] = _Heard(account, now - 2 * SILENT_AFTER_S, spoke=False)
                learnt = True
        return learnt

    def _learn_monitoring(self, report: Report) -> None:
        """Takes what a replica remembers of the version that is stable now, if nothing newer is known."""
        remembered = report.monitoring
        if remembered is None or remembered.report.version != self._stable:
            return
        if self._monitoring is None or self._monitoring.reported_at < remembered.reported_at:
            self._monitoring = remembered

    def _hear(self, account: Account, now: float) -> bool:
        """Takes a replica's newest account. Whether counts of unknown age came with it."""
        # One that was rolled up and is back cannot be taken out of the sum again, and must not count twice.
        if self._is_rolled_up(account.replica):
            return False
        known = self._heard.get(account.replica)
        if known is not None and known.account.number >= account.number:
            return False
        self._heard[account.replica] = _Heard(account, now)
        if account.evidence.revision != self._revision:
            return False
        followed = known is not None and known.spoke and known.account.evidence.revision == self._revision
        assert self._guard is not None
        return not followed and self._clock() - account.evidence.since > self._guard.rules.window_s

    def _is_rolled_up(self, replica: str) -> bool:
        return self._rollup is not None and replica in self._rollup.replicas

    def _window_begins(self, now: float) -> None:
        """Counts that this aggregator did not see coming may be hours old: they must not trip anything."""
        assert self._guard is not None
        self._guard.rebase(now, *evidence.merged(self._snapshots(), self._revision))

    def _judge(self, now: float, stable: str) -> None:
        assert self._guard is not None
        versions, shadows = evidence.merged(self._snapshots(), self._revision)
        for version, reason in self._guard.observe(now, versions, shadows, stable=stable).items():
            if version not in self._trips:
                self._trips[version] = Trip(
                    version=version,
                    revision=self._revision,
                    reason=reason,
                    at=self._clock(),
                    by=BY_AGGREGATOR,
                )

    def _roll_up(self, now: float) -> None:
        """Bounds the memory: the accounts of replicas that are long gone become one."""
        gone = [heard.account for heard in self._heard.values() if now - heard.at > ROLL_UP_AFTER_S]
        if not gone:
            return
        for account in gone:
            del self._heard[account.replica]
        before = self._rollup
        names = (*(before.replicas if before else ()), *(account.replica for account in gone))
        earlier_evidence = [before.evidence] if before else []
        earlier_metrics = [before.metrics] if before else []
        self._rollup = Rollup(
            number=len(gone) + (before.number if before else 0),
            replicas=names[-ROLLED_UP_NAMES:],
            evidence=evidence.summed(
                [*earlier_evidence, *(account.evidence for account in gone)],
                self._revision,
                now=self._clock(),
            ),
            metrics=metrics.summed([*earlier_metrics, *(account.metrics for account in gone)]),
        )

    def _reply(self, report: Report, now: float) -> Reply:
        remember = tuple(
            heard.account
            for replica, heard in self._heard.items()
            if now - heard.at > SILENT_AFTER_S and report.holds.get(replica, 0) < heard.account.number
        )
        rollup = self._rollup if self._rollup and self._rollup.number > report.holds_rollup else None
        known = self._monitoring
        return Reply(
            self._revision,
            dict(self._trips),
            remember,
            rollup,
            monitored_at=known.reported_at if known else None,
            monitoring=known if known and known.reported_at != report.holds_monitoring else None,
        )


def _revision_of(snapshot: Snapshot) -> int:
    return NO_REVISION if snapshot.revision is None else snapshot.revision


class AggregatorProxy(Protocol):
    """An aggregator that may be elsewhere, or gone: any call may raise or hang."""

    async def push(self, report: Report) -> Reply: ...

    async def gathered(self) -> Gathered: ...

    async def monitor(self, report: MonitoringReport) -> None: ...


class AggregatorLink:
    """The replica's side: pushes what was counted, guards its own traffic, passes trips on.

    ``on_trip`` is called once per version and revision, whoever decided: this replica's guard, the
    aggregator, another replica, or ``trip``. ``problem`` says why the aggregator is not reached, or is None.
    """

    def __init__(
        self,
        *,
        name: str,
        replica: str,
        collector: Collector,
        metrics: GatewayMetrics,
        connect: Callable[[], Awaitable[AggregatorProxy]],
        on_trip: Callable[[Trip], None],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        interval_s: float = 0.25,
        push_timeout_s: float = PUSH_TIMEOUT_S,
        gather_timeout_s: float = GATHER_TIMEOUT_S,
    ) -> None:
        self._name, self._replica = name, replica
        self._collector, self._metrics = collector, metrics
        self._connect, self._on_trip = connect, on_trip
        self._clock, self._steady = clock, steady
        self._interval_s, self._push_timeout_s = interval_s, push_timeout_s
        self._gather_timeout_s = gather_timeout_s
        self._routing: Routing | None = None
        self._guard: Guard | None = None
        self._proxy: AggregatorProxy | None = None
        self._connecting: asyncio.Task[AggregatorProxy] | None = None
        self._is_restored = False
        """Whether the aggregator behind the proxy knows what this replica remembers."""
        self._pushes = 0
        self._told: Account | None = None
        self._told_at = 0.0
        self._remembered: dict[str, Account] = {}
        self._rollup: Rollup | None = None
        self._monitoring: TimedReport | None = None
        self._wake = asyncio.Event()
        self.trips: dict[str, Trip] = {}
        self.problem: str | None = "the aggregator has not been asked yet"

    # -- declared state ------------------------------------------------------------------------------

    def declare(self, routing: Routing) -> None:
        """A new revision begins with a new guard and without trips; the same one again changes nothing."""
        known = self._routing
        self._routing = routing
        self._collector.start(routing.revision)
        if self._monitoring is not None and self._monitoring.report.version != routing.stable:
            self._monitoring = None
        if known is None or known.revision != routing.revision:
            self._guard = Guard(routing.guard, revision=routing.revision)
            self.trips = {}

    def trip(self, version: str, reason: str, *, by: str) -> Trip:
        """Takes a version out under the declared revision, here at once and elsewhere with the next pushes.

        Gives the trip that holds: an earlier one of this revision stays. Raises ValueError for the
        stable version, for one that is not routed, and when no routing was declared.
        """
        routing = self._routing
        if routing is None:
            raise ValueError(f"version {version!r} cannot be tripped: no routing has been declared yet")
        others = sorted(name for name in routing.routes if name != routing.stable)
        if version not in others:
            raise ValueError(f"version {version!r} cannot be tripped; versions beside stable: {others}")
        if version not in self.trips:
            self._take(
                Trip(version=version, revision=routing.revision, reason=reason, at=self._clock(), by=by)
            )
            self._wake.set()
        return self.trips[version]

    def _take(self, trip: Trip) -> None:
        self.trips[trip.version] = trip
        try:
            self._on_trip(trip)
        except Exception:
            logger.exception("Acting on the trip of %s failed: %s", trip.version, trip.reason)

    # -- the loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Guards every interval and pushes what is new, and at once after a trip, until cancelled."""
        while True:
            self._guard_own_traffic()
            if self._should_push():
                await self.push()
            try:
                await asyncio.wait_for(self._wake.wait(), self._interval_s)
            except TimeoutError:
                continue
            self._wake.clear()

    def _should_push(self) -> bool:
        """Whether the aggregator lacks a count, a trip may have to be heard of, or a sign of life is due.

        A push costs two processes a millisecond each; most gateways do nothing most of the time.
        """
        routing, told = self._routing, self._told
        if routing is None or told is None or self.problem is not None or len(routing.routes) > 1:
            return True
        if self._steady() - self._told_at >= REST_INTERVAL_S:
            return True
        return (told.evidence, told.metrics) != (self._collector.snapshot(), self._metrics.snapshot())

    def _guard_own_traffic(self) -> None:
        routing, guard = self._routing, self._guard
        if routing is None or guard is None:
            return
        versions, shadows = evidence.merged([self._collector.snapshot()], routing.revision)
        reasons = guard.observe(self._steady(), versions, shadows, stable=routing.stable)
        for version, reason in reasons.items():
            if version in routing.routes:
                self.trip(version, reason, by=self._replica)

    async def push(self) -> bool:
        """Tells the aggregator everything and takes its trips. False, with ``problem``, when it is away."""
        if self._routing is None:
            return False
        try:
            async with asyncio.timeout(self._push_timeout_s):
                await self._exchange()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the traffic goes on
            self._lose(error)
            return False
        return True

    async def gather(self) -> tuple[Evidence, bytes]:
        """Pushes now; (evidence, Prometheus text) of all replicas, or of this one without an aggregator.

        The text says which with ``mlops_referee_reachable``.
        """
        if self._routing is not None:
            try:
                async with asyncio.timeout(self._gather_timeout_s):
                    proxy = await self._exchange()
                    gathered = await proxy.gathered()
            except Exception as error:  # noqa: BLE001 - the local part is an answer too
                self._lose(error)
            else:
                text = exposition(
                    gathered.living,
                    gathered.gone,
                    deployment=self._name,
                    aggregator_reachable=True,
                    monitoring=gathered.monitoring,
                )
                return gathered.evidence, text
        return self._local()

    async def monitor(self, report: MonitoringReport) -> bool:
        """Gives the aggregator a report of the stable version. False, with ``problem``, when it is away."""
        try:
            async with asyncio.timeout(self._gather_timeout_s):
                # It must have heard of the routing first, or it would take the report for an older one's.
                proxy = await self._exchange()
                await proxy.monitor(report)
                # From here on this replica remembers it as well.
                await self._exchange()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the report is not shown
            self._lose(error)
            return False
        return True

    def _local(self) -> tuple[Evidence, bytes]:
        snapshot = self._collector.snapshot()
        revision = _revision_of(snapshot)
        versions, shadows = evidence.merged([snapshot], revision)
        found = Evidence(
            name=self._name,
            revision=revision,
            since=snapshot.since,
            replicas={self._replica: ReplicaReport(revision=revision, age_s=0.0)},
            versions=versions,
            shadows=shadows,
            trips=dict(self.trips),
        )
        known, stable = self._monitoring, self._routing.stable if self._routing else None
        text = exposition(
            [self._metrics.snapshot()],
            deployment=self._name,
            aggregator_reachable=False,
            monitoring=known.report if known is not None and known.report.version == stable else None,
        )
        return found, text

    async def _exchange(self) -> AggregatorProxy:
        """Pushes, through a new connection when the aggregator behind this one was replaced."""
        proxy, report = self._proxy, self._report()
        if proxy is not None:
            try:
                reply = await proxy.push(report)
            except Exception as error:  # noqa: BLE001 - whatever it is, connecting anew says what is wrong
                logger.info("Connecting to the aggregator anew: %s: %s", type(error).__name__, error)
                self._proxy = proxy = None
        if proxy is None:
            proxy = await self._connected()
            report = self._report()
            reply = await proxy.push(report)
        self._told, self._told_at = report.account, self._steady()
        if proxy is self._proxy:
            self._is_restored = True
        self._remember(reply)
        if self.problem is not None:
            logger.info("The aggregator answers")
            self.problem = None
        self._learn(reply)
        return proxy

    async def _connected(self) -> AggregatorProxy:
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._reach())
        connecting = self._connecting
        try:
            # One attempt at a time, however long it takes: each may hold a thread.
            proxy = await asyncio.shield(connecting)
        finally:
            if connecting.done():
                self._connecting = None
        if proxy is not self._proxy:
            self._proxy, self._is_restored = proxy, False
        return proxy

    async def _reach(self) -> AggregatorProxy:
        return await self._connect()

    def _lose(self, error: Exception) -> None:
        timed_out = isinstance(error, TimeoutError) and not str(error)
        late = "the aggregator does not answer in time"
        problem = late if timed_out else f"{type(error).__name__}: {error}"
        if self.problem is None:
            logger.warning("The aggregator is away, this replica guards its own traffic alone: %s", problem)
        # An actor that was restarted is reached through a new handle only.
        self.problem, self._proxy = problem, None

    def _report(self) -> Report:
        assert self._routing is not None
        self._pushes += 1
        return Report(
            deployment=self._name,
            revision=self._routing.revision,
            stable=self._routing.stable,
            rules=self._routing.guard,
            account=Account(
                self._replica, self._pushes, self._collector.snapshot(), self._metrics.snapshot()
            ),
            trips=dict(self.trips),
            holds={replica: account.number for replica, account in self._remembered.items()},
            holds_rollup=self._rollup.number if self._rollup else 0,
            remembered=tuple(self._remembered.values()) if not self._is_restored else (),
            rollup=self._rollup if not self._is_restored else None,
            holds_monitoring=self._monitoring.reported_at if self._monitoring else None,
            monitoring=self._monitoring if not self._is_restored else None,
        )

    def _remember(self, reply: Reply) -> None:
        for account in reply.remember:
            self._remembered[account.replica] = account
        if reply.rollup is not None:
            self._rollup = reply.rollup
            for replica in reply.rollup.replicas:
                self._remembered.pop(replica, None)
        if reply.monitoring is not None:
            self._monitoring = reply.monitoring
        elif reply.monitored_at is None:
            self._monitoring = None

    def _learn(self, reply: Reply) -> None:
        routing = self._routing
        if routing is None or reply.revision != routing.revision:
            return
        for version, trip in reply.trips.items():
            if version not in self.trips and trip.revision == routing.revision:
                self._take(trip)
