"""Trips reach every replica once, whoever saw first that a version fails."""

import asyncio

import pytest

from mlops_assets_tests.serve.replicas import Hall, Replica, declared, play, until
from serve.aggregator import (
    SILENT_AFTER_S,
)
from serve.schema import Trip


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
