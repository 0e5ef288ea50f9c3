"""Life without the aggregator: gone, hanging, or not yet there."""

import asyncio

import pytest

from mlops_assets_tests.serve.replicas import (
    Hall,
    Replica,
    declared,
    play,
    requests_of,
    total,
    until,
)
from serve.aggregator import (
    AggregatorLink,
    AggregatorProxy,
)
from serve.evidence import Collector
from serve.metrics import GatewayMetrics


def test_without_an_aggregator_the_local_part_is_gathered_and_says_so() -> None:
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


def test_an_aggregator_that_hangs_delays_a_gather_by_its_timeout_only() -> None:
    async def story() -> None:
        hall = Hall(patience=0.05)
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
        hall = Hall(patience=0.05)
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


def test_the_loop_survives_every_way_in_which_an_aggregator_is_away() -> None:
    async def story() -> None:
        hall = Hall(patience=0.05)
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
