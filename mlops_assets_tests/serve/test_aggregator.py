"""Replicas with a real aggregator in one process: exact sums, trips everywhere, and life without it."""

import asyncio
import pickle
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.testing.small_models import routing
from serve.aggregator import (
    ROLL_UP_AFTER_S,
    SILENT_AFTER_S,
    Aggregator,
    AggregatorLink,
    AggregatorProxy,
    Gathered,
    Reply,
    Report,
)
from serve.evidence import Collector
from serve.metrics import GatewayMetrics
from serve.schema import Evidence, GuardRules, MonitoringReport, Routing, Trip


class Unreachable(ConnectionError):
    pass


class Hall:
    """Where the aggregator is, if it is anywhere: it can be killed, restarted and made to hang."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.aggregator: Aggregator | None = None
        self.hangs = False
        self.connects = 0
        self.restart()

    def clock(self) -> float:
        return self.now

    def restart(self) -> None:
        self.aggregator = Aggregator(clock=self.clock, steady=self.clock)

    def kill(self) -> None:
        self.aggregator = None

    async def connect(self) -> AggregatorProxy:
        self.connects += 1
        return Near(self, self.alive())

    def alive(self) -> Aggregator:
        if self.aggregator is None:
            raise Unreachable("no actor of this name")
        return self.aggregator


class Near(AggregatorProxy):
    """A handle to one life of the aggregator. What passes is pickled, as between processes."""

    def __init__(self, hall: Hall, aggregator: Aggregator) -> None:
        self._hall, self._aggregator = hall, aggregator

    async def push(self, report: Report) -> Reply:
        await self._arrive()
        return pickle.loads(pickle.dumps(self._aggregator.push(pickle.loads(pickle.dumps(report)))))

    async def gathered(self) -> Gathered:
        await self._arrive()
        return pickle.loads(pickle.dumps(self._aggregator.gathered()))

    async def monitor(self, report: MonitoringReport) -> None:
        await self._arrive()
        self._aggregator.monitor(pickle.loads(pickle.dumps(report)))

    async def _arrive(self) -> None:
        if self._hall.hangs:
            await asyncio.Event().wait()
        if self._hall.alive() is not self._aggregator:
            raise Unreachable("the actor died")


class Replica:
    """One gateway replica without its traffic."""

    def __init__(self, hall: Hall, name: str, declared: Routing) -> None:
        self.name = name
        self.collector = Collector(clock=hall.clock)
        self.metrics = GatewayMetrics(deployment="flights", replica=name)
        self.applied: list[Trip] = []
        self.link = AggregatorLink(
            name="flights",
            replica=name,
            collector=self.collector,
            metrics=self.metrics,
            connect=hall.connect,
            on_trip=self.applied.append,
            clock=hall.clock,
            steady=hall.clock,
            interval_s=0.001,
            push_timeout_s=0.05,
            gather_timeout_s=0.05,
        )
        self.declare(declared)

    def declare(self, declared: Routing) -> None:
        self.metrics.set_routing(declared)
        self.link.declare(declared)

    def answer(self, times: int = 1, version: str = "v1") -> None:
        for _ in range(times):
            self.collector.answered(version, 0.01, 0.5)
            self.metrics.count_request("/predict", 200, "stable", version)
            self.metrics.count_answer("stable", version, rows=1, seconds=0.01)

    def fail(self, times: int = 1, version: str = "v2") -> None:
        for _ in range(times):
            self.collector.failed(version, "model_error", 0.01)
            self.metrics.count_failure(version, "model_error")
            self.metrics.count_request("/predict", 200, "stable", "v1")


def declared(revision: int = 1, **guard: Any) -> Routing:
    rules = GuardRules(**guard).model_dump()
    return Routing.model_validate({**routing(revision=revision, v1=9000, v2=1000), "guard": rules})


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def total(text: bytes, name: str, **labels: str) -> float:
    """Sum of a metric's samples that carry these labels; fails unless the whole text is valid."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def requests_of(found: Evidence) -> int:
    return sum(version.requests for version in found.versions.values())


# -- sums --------------------------------------------------------------------------------------------


def test_any_replica_gathers_what_all_have_counted() -> None:
    async def story() -> None:
        hall = Hall()
        replicas = [Replica(hall, f"r{number}", declared()) for number in range(3)]
        for number, replica in enumerate(replicas, 1):
            replica.answer(10 * number)
            replica.fail(number)
            assert await replica.link.push()
        replicas[0].answer(5)
        found, text = await replicas[0].link.gather()
        assert (found.versions["v1"].requests, found.versions["v2"].requests) == (65, 6)
        assert found.versions["v1"].outputs.count == 65
        assert (found.name, found.revision, sorted(found.replicas)) == ("flights", 1, ["r0", "r1", "r2"])
        assert total(text, "mlops_requests_total") == 71
        assert total(text, "mlops_request_latency_seconds_count") == 65
        assert total(text, "mlops_version_failures_total", version="v2") == 6
        assert total(text, "mlops_gateway_replicas") == 3
        assert total(text, "mlops_referee_reachable") == 1

    play(story)


def test_a_dead_replica_stays_in_the_sums_and_leaves_the_gauges() -> None:
    async def story() -> None:
        hall = Hall()
        one, dying = Replica(hall, "one", declared()), Replica(hall, "dying", declared())
        dying.answer(7)
        dying.metrics.set_in_flight(3)
        await dying.link.push()
        one.answer(5)
        hall.now += SILENT_AFTER_S + 0.1
        found, text = await one.link.gather()
        assert requests_of(found) == 12
        assert total(text, "mlops_requests_total") == 12
        assert list(found.replicas) == ["one"]
        assert total(text, "mlops_requests_in_flight") == 0
        assert total(text, "mlops_gateway_replicas") == 1

    play(story)


def test_the_sums_are_exact_after_the_death_of_a_replica_and_of_the_aggregator() -> None:
    async def story() -> None:
        hall = Hall()
        replicas = [Replica(hall, f"r{number}", declared()) for number in range(3)]
        for replica in replicas:
            replica.answer(100)
            await replica.link.push()
        del replicas[2]
        hall.now += SILENT_AFTER_S + 0.1
        for replica in replicas:
            await replica.link.push()
        for _ in range(2):
            hall.kill()
            replicas[0].answer(10)
            assert not await replicas[0].link.push()
            hall.restart()
            for replica in replicas:
                await replica.link.push()
        replicas[1].answer(1)
        found, text = await replicas[1].link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 321
        assert sorted(found.replicas) == ["r0", "r1"]
        assert total(text, "mlops_gateway_replicas") == 2

    play(story)


def test_of_two_memories_of_a_dead_replica_the_newer_one_counts() -> None:
    async def story() -> None:
        hall = Hall()
        one, two, dying = (Replica(hall, name, declared()) for name in ("one", "two", "dying"))
        for replica in (one, two):
            dying.answer(5)
            await dying.link.push()
            hall.now += SILENT_AFTER_S + 0.1
            await replica.link.push()
        assert one.link._remembered["dying"].number < two.link._remembered["dying"].number
        hall.restart()
        await one.link.push()
        await two.link.push()
        found, text = await one.link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 10

    play(story)


def test_replicas_that_are_long_gone_are_rollup_and_still_counted_once() -> None:
    async def story() -> None:
        hall = Hall()
        staying = Replica(hall, "staying", declared())
        gone = []
        for number in range(20):
            gone.append(Replica(hall, f"gone-{number}", declared()))
            gone[-1].answer(3)
            await gone[-1].link.push()
            staying.answer(1)
            await staying.link.push()
            hall.now += 60.0
        found, text = await staying.link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 80
        assert hall.aggregator is not None
        assert len(hall.aggregator._heard) <= ROLL_UP_AFTER_S / 60.0 + 2
        assert len(staying.link._remembered) <= ROLL_UP_AFTER_S / 60.0 + 2
        hall.restart()
        found, text = await staying.link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 80
        await gone[0].link.push()
        found, text = await staying.link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 80, "it was rollup already"

    play(story)


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_exact_through_any_history(seed: int) -> None:
    """Replicas come, count, push and go, and the aggregator restarts: nothing is lost or counted twice."""

    async def story() -> None:
        chance = random.Random(seed)
        hall = Hall()
        revision, made = 1, 2
        replicas = [Replica(hall, "r0", declared()), Replica(hall, "r1", declared())]
        requests = 0
        for _ in range(300):
            hall.now += chance.choice((0.25, 0.25, 1.0))
            for replica in replicas:
                count = chance.randrange(4)
                replica.answer(count)
                requests += count
                await replica.link.push()
            event = chance.random()
            if event < 0.05 and len(replicas) > 1:
                replicas.pop(chance.randrange(len(replicas)))
                # Its last push may be as old as this; an aggregator that dies sooner never told the others.
                for _ in range(3):
                    hall.now += SILENT_AFTER_S / 2
                    for replica in replicas:
                        await replica.link.push()
            elif event < 0.10:
                replicas.append(Replica(hall, f"r{made}", declared(revision)))
                made += 1
            elif event < 0.15:
                hall.restart()
            elif event < 0.18:
                revision += 1
                for replica in replicas:
                    replica.declare(declared(revision))
            elif event < 0.21:
                hall.now += ROLL_UP_AFTER_S / 3
                for replica in replicas:
                    await replica.link.push()
        # All but the last to push may have met an aggregator that did not know everybody yet.
        for replica in replicas:
            await replica.link.push()
        for replica in replicas:
            found, text = await replica.link.gather()
            assert total(text, "mlops_requests_total") == requests
            assert found.revision == revision

    play(story)


def test_a_late_or_repeated_report_changes_nothing() -> None:
    async def story() -> None:
        hall = Hall()
        replica = Replica(hall, "r1", declared())
        assert hall.aggregator is not None
        replica.answer(1)
        early = replica.link._report()
        replica.answer(9)
        late = replica.link._report()
        for report in (late, early, late):
            hall.aggregator.push(report)
        assert requests_of(hall.aggregator.gathered().evidence) == 10

    play(story)


# -- revisions ---------------------------------------------------------------------------------------


def test_evidence_is_of_the_newest_revision_and_metrics_are_of_all() -> None:
    async def story() -> None:
        hall = Hall()
        ahead, behind = Replica(hall, "ahead", declared(1)), Replica(hall, "behind", declared(1))
        for replica in (ahead, behind):
            replica.answer(10)
            await replica.link.push()
        hall.now += 1.0
        ahead.declare(declared(2))
        ahead.answer(1)
        await ahead.link.push()
        behind.answer(1)
        found, text = await behind.link.gather()
        assert (found.revision, found.since, requests_of(found)) == (2, 1_001.0, 1)
        assert {name: report.revision for name, report in found.replicas.items()} == {
            "ahead": 2,
            "behind": 1,
        }
        assert total(text, "mlops_requests_total") == 22
        assert total(text, "mlops_replica_revision", replica="behind") == 1
        behind.declare(declared(2))
        behind.answer(1)
        found, text = await behind.link.gather()
        assert (requests_of(found), total(text, "mlops_requests_total")) == (2, 23)

    play(story)


def test_a_newer_revision_clears_the_trips_and_the_same_one_keeps_them() -> None:
    async def story() -> None:
        hall = Hall()
        one, two = Replica(hall, "one", declared(1)), Replica(hall, "two", declared(1))
        one.link.trip("v2", "by hand", by="operator")
        await one.link.push()
        one.declare(declared(1))
        assert list(one.link.trips) == ["v2"]
        two.declare(declared(2))
        found, _ = await two.link.gather()
        assert found.trips == {} and two.applied == []
        await one.link.push()
        found, _ = await two.link.gather()
        assert found.trips == {}, "a trip of an older revision"
        one.declare(declared(2))
        assert one.link.trips == {}
        one.link.trip("v2", "again", by="operator")
        assert [trip.revision for trip in one.applied] == [1, 2]

    play(story)


# -- trips -------------------------------------------------------------------------------------------


def test_a_trip_reaches_every_replica_exactly_once_with_its_first_reason() -> None:
    async def story() -> None:
        hall = Hall()
        one, two = Replica(hall, "one", declared()), Replica(hall, "two", declared())
        first = one.link.trip("v2", "first", by="operator")
        assert one.link.trip("v2", "second", by="operator") is first
        for _ in range(3):
            await one.link.push()
            await two.link.push()
        assert one.applied == two.applied == [first]
        assert (first.revision, first.at, first.by) == (1, 1_000.0, "operator")
        found, _ = await two.link.gather()
        assert found.trips == {"v2": first}

    play(story)


def test_the_aggregator_trips_on_what_no_replica_has_enough_of_alone() -> None:
    async def story() -> None:
        hall = Hall()
        replicas = [Replica(hall, f"r{number}", declared()) for number in range(4)]
        for replica in replicas:
            replica.answer(4, "v2")
            replica.fail(2)
            replica.link._guard_own_traffic()
            await replica.link.push()
        assert not any(replica.applied for replica in replicas[:3])
        for replica in replicas:
            await replica.link.push()
        trips = [replica.applied for replica in replicas]
        assert trips == [trips[0]] * 4
        assert trips[0][0].by == "referee"
        assert trips[0][0].reason == (
            "8 of 24 requests failed in the last 30 s (33.3 %, allowed 5 %): 8 model_error"
        )

    play(story)


def test_a_replica_trips_on_its_own_traffic_without_any_aggregator() -> None:
    async def story() -> None:
        hall = Hall()
        hall.kill()
        replica = Replica(hall, "r1", declared())
        loop = asyncio.create_task(replica.link.run())
        replica.fail(30)
        await until(lambda: replica.applied)
        assert replica.applied[0].by == "r1"
        assert replica.link.problem == "Unreachable: no actor of this name"
        hall.restart()
        await until(lambda: replica.link.problem is None)
        assert hall.aggregator is not None
        assert hall.aggregator.gathered().evidence.trips["v2"] == replica.applied[0]
        loop.cancel()

    play(story)


def test_a_restarted_aggregator_learns_the_trips_and_does_not_trip_on_old_news() -> None:
    async def story() -> None:
        hall = Hall()
        rules = {"window_s": 10.0, "max_losses": 3, "min_requests": 20, "min_errors": 5}
        one, two = Replica(hall, "one", declared(**rules)), Replica(hall, "two", declared(**rules))
        for _ in range(3):
            for replica in (one, two):
                replica.collector.lost("v2")
                replica.fail(2)
                await replica.link.push()
            hall.now += 1_000.0
        await one.link.push()
        await two.link.push()
        hall.restart()
        for _ in range(3):
            await one.link.push()
            await two.link.push()
            hall.now += 0.5
        assert one.applied == two.applied == []
        one.link.trip("v2", "by hand", by="operator")
        hall.restart()
        await one.link.push()
        await two.link.push()
        assert [trip.reason for trip in two.applied] == ["by hand"]

    play(story)


def test_what_another_replica_remembered_of_a_living_one_trips_nothing_when_it_speaks() -> None:
    async def story() -> None:
        hall = Hall()
        one, paused = Replica(hall, "one", declared()), Replica(hall, "paused", declared())
        await paused.link.push()
        hall.now += SILENT_AFTER_S + 0.1
        await one.link.push()
        assert list(one.link._remembered) == ["paused"]
        for _ in range(100):
            hall.now += 60.0
            paused.collector.lost("v2")
            await paused.link.push()
            await one.link.push()
        hall.restart()
        await one.link.push()
        await paused.link.push()
        await one.link.push()
        assert one.applied == paused.applied == []
        for _ in range(4):
            paused.collector.lost("v2")
        await paused.link.push()
        assert [trip.by for trip in paused.applied] == ["referee"]

    play(story)


def test_only_a_routed_version_other_than_stable_can_be_tripped() -> None:
    async def story() -> None:
        replica = Replica(Hall(), "r1", declared())
        for version in ("v1", "v9"):
            with pytest.raises(ValueError, match=rf"'{version}' cannot be tripped; .*\['v2'\]"):
                replica.link.trip(version, "no", by="operator")
        assert replica.applied == []

    play(story)


def test_an_on_trip_that_raises_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        hall = Hall()
        replica = Replica(hall, "r1", declared())

        def refuse(trip: Trip) -> None:
            raise RuntimeError("not now")

        replica.link._on_trip = refuse
        loop = asyncio.create_task(replica.link.run())
        replica.fail(30)
        await until(lambda: replica.link.trips)
        pushed = replica.link._pushes
        await until(lambda: replica.link._pushes > pushed + 2)
        assert not loop.done()
        loop.cancel()

    play(story)
    assert caplog.text.count("Acting on the trip of v2 failed") == 1


# -- an absent aggregator -------------------------------------------------------------------------------


def test_without_a_aggregator_the_local_part_is_gathered_and_says_so() -> None:
    async def story() -> None:
        hall = Hall()
        one, two = Replica(hall, "one", declared()), Replica(hall, "two", declared())
        one.answer(3)
        two.answer(4)
        await two.link.push()
        hall.kill()
        found, text = await one.link.gather()
        assert (requests_of(found), list(found.replicas), found.name) == (3, ["one"], "flights")
        assert total(text, "mlops_requests_total") == 3
        assert total(text, "mlops_referee_reachable") == 0
        assert one.link.problem == "Unreachable: no actor of this name"

    play(story)


def test_a_aggregator_that_hangs_delays_a_gather_by_its_timeout_only() -> None:
    async def story() -> None:
        hall = Hall()
        replica = Replica(hall, "r1", declared())
        replica.answer(3)
        await replica.link.push()
        hall.hangs = True
        found, text = await replica.link.gather()
        assert requests_of(found) == total(text, "mlops_requests_total") == 3
        assert total(text, "mlops_referee_reachable") == 0
        assert replica.link.problem == "the aggregator does not answer in time"
        hall.hangs = False
        _, text = await replica.link.gather()
        assert total(text, "mlops_referee_reachable") == 1
        assert replica.link.problem is None

    play(story)


def test_connecting_that_hangs_is_tried_once_at_a_time() -> None:
    async def story() -> None:
        hall = Hall()
        replica = Replica(hall, "r1", declared())
        tries: list[asyncio.Event] = []

        async def connect() -> AggregatorProxy:
            tries.append(asyncio.Event())
            await tries[-1].wait()
            return await hall.connect()

        replica.link._connect = connect
        assert [await replica.link.push() for _ in range(3)] == [False] * 3
        assert len(tries) == 1
        tries[0].set()
        assert await replica.link.push()
        assert hall.connects == 1

    play(story)


def test_the_loop_survives_every_way_in_which_a_aggregator_is_away() -> None:
    async def story() -> None:
        hall = Hall()
        hall.kill()
        replica = Replica(hall, "r1", declared())
        loop = asyncio.create_task(replica.link.run())
        for _ in range(3):
            await until(lambda: replica.link.problem == "Unreachable: no actor of this name")
            hall.restart()
            await until(lambda: replica.link.problem is None)
            hall.hangs = True
            await until(lambda: replica.link.problem == "the aggregator does not answer in time")
            hall.hangs = False
            hall.kill()
        assert not loop.done()
        loop.cancel()

    play(story)


def test_before_a_routing_is_declared_nothing_is_pushed_and_the_text_is_valid() -> None:
    async def story() -> None:
        hall = Hall()
        link = AggregatorLink(
            name="flights",
            replica="r1",
            collector=Collector(clock=hall.clock),
            metrics=GatewayMetrics(deployment="flights", replica="r1"),
            connect=hall.connect,
            on_trip=lambda trip: None,
        )
        assert not await link.push()
        found, text = await link.gather()
        assert (found.revision, found.versions) == (-1, {})
        assert total(text, "mlops_gateway_replicas") == 1
        assert hall.connects == 0
        with pytest.raises(ValueError, match="no routing has been declared"):
            link.trip("v2", "no", by="operator")

    play(story)


def test_a_trip_is_pushed_at_once_not_at_the_next_interval() -> None:
    async def story() -> None:
        hall = Hall()
        replica = Replica(hall, "r1", declared())
        replica.link._interval_s = 3_600.0
        loop = asyncio.create_task(replica.link.run())
        await until(lambda: replica.link.problem is None)
        replica.link.trip("v2", "by hand", by="operator")
        assert hall.aggregator is not None
        aggregator = hall.aggregator
        await until(lambda: aggregator.gathered().evidence.trips)
        loop.cancel()

    play(story)


# -- monitoring --------------------------------------------------------------------------------------


SHOWN = b"mlops_served_stale{"


def stale_report(version: str = "v1", **changes: Any) -> MonitoringReport:
    return MonitoringReport(
        version=version,
        stale={"drift": True, "rollback": False},
        data_until=1_364_774_400.0,
        drift={"distance": {"psi": 0.31, "ks": 0.12}},
        drift_thresholds={"distance": {"psi": 0.11}},
        episode_open=True,
    ).model_copy(update=changes)


def test_without_a_aggregator_a_report_is_refused_and_nothing_is_shown() -> None:
    async def story() -> None:
        hall = Hall()
        hall.kill()
        replica = Replica(hall, "one", declared())
        assert not await replica.link.monitor(stale_report())
        assert "no actor of this name" in str(replica.link.problem)
        hall.restart()
        assert b"mlops_served_stale" not in (await replica.link.gather())[1]
        assert await replica.link.monitor(stale_report()) and replica.link.problem is None

    play(story)


def test_every_replica_shows_the_newest_report_and_no_other() -> None:
    async def story() -> None:
        hall = Hall()
        one, other = (Replica(hall, name, declared()) for name in ("one", "other"))
        await other.link.push()
        assert await one.link.monitor(stale_report())
        for replica in (one, other):
            text = (await replica.link.gather())[1]
            assert total(text, "mlops_served_stale", cause="drift", deployment="flights") == 1
            assert total(text, "mlops_served_data_timestamp_seconds") == 1_364_774_400.0
            assert total(text, "mlops_drift_score", column="distance", statistic="psi") == 0.31
            assert total(text, "mlops_drift_threshold", column="distance") == 0.11
            assert total(text, "mlops_drift_episode_open") == 1
        assert await other.link.monitor(MonitoringReport(version="v1", stale={"data": False}))
        text = (await one.link.gather())[1]
        assert b'mlops_served_stale{cause="data",deployment="flights"} 0.0' in text
        assert b'cause="drift"' not in text and b"mlops_drift_score{" not in text
        assert b"mlops_served_data_timestamp" not in text

    play(story)


def test_a_report_goes_with_the_version_it_is_about() -> None:
    async def story() -> None:
        hall = Hall()
        one, other = (Replica(hall, name, declared()) for name in ("one", "other"))
        await one.link.monitor(stale_report())
        await other.link.push()
        # New weights change nothing about the version that is stable.
        one.declare(declared(revision=2))
        assert SHOWN in (await one.link.gather())[1]
        one.declare(Routing.model_validate(routing(stable="v2", revision=3)))
        assert SHOWN not in (await one.link.gather())[1]
        # Back at v1 nobody knows whether it is still as it was, also one that never heard of v2.
        await other.link.push()
        for replica in (one, other):
            replica.declare(Routing.model_validate(routing(stable="v1", revision=4)))
            assert SHOWN not in (await replica.link.gather())[1]

    play(story)


def test_a_report_survives_the_aggregator() -> None:
    async def story() -> None:
        hall = Hall()
        one, other = (Replica(hall, name, declared()) for name in ("one", "other"))
        await one.link.monitor(stale_report())
        await other.link.push()
        hall.kill()
        for replica in (one, other):
            # While nobody sums, each shows what it knows.
            text = (await replica.link.gather())[1]
            assert SHOWN in text and total(text, "mlops_referee_reachable") == 0
        hall.restart()
        newcomer = Replica(hall, "newcomer", declared())
        assert SHOWN not in (await newcomer.link.gather())[1]
        await other.link.push()
        for replica in (newcomer, one):
            text = (await replica.link.gather())[1]
            assert SHOWN in text and total(text, "mlops_referee_reachable") == 1

    play(story)


def test_what_a_replica_remembers_does_not_replace_a_newer_report() -> None:
    async def story() -> None:
        hall = Hall()
        one, other = (Replica(hall, name, declared()) for name in ("one", "other"))
        await one.link.monitor(stale_report())
        await other.link.push()
        hall.kill()
        hall.restart()
        hall.now -= 100  # The new one's clock is behind.
        assert await one.link.monitor(MonitoringReport(version="v1", stale={"drift": False}))
        await other.link.push()
        for replica in (one, other):
            text = (await replica.link.gather())[1]
            assert b'mlops_served_stale{cause="drift",deployment="flights"} 0.0' in text
        hall.kill()
        assert b'mlops_served_stale{cause="drift",deployment="flights"} 0.0' in (await other.link.gather())[1]

    play(story)


def test_a_report_of_a_version_that_is_stable_no_more_is_not_brought_back() -> None:
    async def story() -> None:
        hall = Hall()
        late, quick = (Replica(hall, name, declared()) for name in ("late", "quick"))
        await late.link.monitor(stale_report())
        hall.kill()
        hall.restart()
        quick.declare(declared(revision=2))
        await quick.link.push()
        await late.link.push()  # It has not taken the routing yet, and remembers what still holds.
        assert SHOWN in (await quick.link.gather())[1]
        hall.kill()
        hall.restart()
        quick.declare(Routing.model_validate(routing(stable="v2", revision=3)))
        await quick.link.push()
        await late.link.push()
        assert SHOWN not in (await quick.link.gather())[1]

    play(story)
