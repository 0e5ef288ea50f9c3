"""What the replicas of a gateway counted, summed exactly through deaths, restarts and revisions."""

import random

import pytest

from mlops_assets.testing.small_models import routing
from mlops_assets_tests.serve.replicas import Hall, Replica, declared, play, requests_of, total
from serve.aggregator import (
    REST_INTERVAL_S,
    ROLL_UP_AFTER_S,
    SILENT_AFTER_S,
)
from serve.schema import Routing


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


def test_replicas_that_are_long_gone_are_rolled_up_and_still_counted_once() -> None:
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


def test_a_replica_without_news_pushes_only_to_show_that_it_lives() -> None:
    async def story() -> None:
        hall = Hall()
        alone = Routing.model_validate(routing(revision=1, v1=10_000))
        replica = Replica(hall, "r1", alone)
        assert replica.link._should_push(), "the aggregator has not heard of it"
        await replica.link.push()
        assert not replica.link._should_push()
        replica.answer(1)
        assert replica.link._should_push(), "an answer is news"
        await replica.link.push()
        replica.metrics.count_error("invalid_fields")
        assert replica.link._should_push(), "a refused request is news, though no version was asked"
        await replica.link.gather()
        assert not replica.link._should_push(), "gathering told it"
        hall.now += REST_INTERVAL_S
        assert replica.link._should_push(), "a sign of life is due"
        await replica.link.push()
        replica.declare(Routing.model_validate(routing(revision=2, v1=10_000)))
        assert replica.link._should_push(), "a revision is news"

    play(story)


def test_a_replica_pushes_while_a_trip_may_have_to_be_heard_of_or_nobody_hears_it() -> None:
    async def story() -> None:
        hall = Hall()
        beside = Replica(hall, "beside", declared())
        await beside.link.push()
        assert beside.link._should_push()
        alone = Replica(hall, "alone", Routing.model_validate(routing(revision=1, v1=10_000)))
        await alone.link.push()
        hall.kill()
        assert not await alone.link.push()
        assert alone.link._should_push()

    play(story)


def test_pushes_at_rest_keep_a_replica_among_the_living() -> None:
    assert REST_INTERVAL_S * 3 <= SILENT_AFTER_S
