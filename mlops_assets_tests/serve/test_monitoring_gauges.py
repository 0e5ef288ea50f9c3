"""Monitoring reports at every replica: the newest of the version that answers, and no other."""

from typing import Any

from mlops_assets.testing.small_models import routing
from mlops_assets_tests.serve.replicas import Hall, Replica, declared, play, total
from serve.schema import MonitoringReport, Routing

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


def test_without_an_aggregator_a_report_is_refused_and_nothing_is_shown() -> None:
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
