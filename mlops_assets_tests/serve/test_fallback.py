"""Traffic over HTTP: retries, the fallback to stable, shares, and a new routing."""

import math

import pytest

from mlops_assets.testing.site import CANARY, MODELS, Site, reasons, run
from mlops_assets.testing.small_models import ROW, routing
from serve.versions import VersionGone, VersionLost, VersionOverloaded


def test_a_replica_that_dies_during_a_call_costs_the_caller_nothing() -> None:
    async def story(site: Site) -> None:
        site.v1.failures = [VersionLost("died")]
        assert (await site.predict()).status_code == 200
        assert await site.metric("mlops_retries_total") == 1

    run(story)


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("bug"), VersionGone("x"), VersionLost("x"), VersionOverloaded("x"), TimeoutError()],
)
def test_a_canary_that_fails_is_answered_by_stable(failure: Exception) -> None:
    async def story(site: Site) -> None:
        assert (await site.predict()).json()["variant"] == "canary"
        site.v2.always = failure
        answer = await site.predict()
        assert answer.status_code == 200
        assert (answer.json()["model_version"], answer.json()["variant"]) == ("v1", "stable")
        assert answer.headers["x-variant"] == "stable"
        assert await site.metric("mlops_fallbacks_total") == 1

    run(story, first=routing(v1=0, v2=10_000))


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [], [0.5, 0.5]])
def test_a_canary_that_scores_nonsense_is_answered_by_stable(bad: list[float]) -> None:
    async def story(site: Site) -> None:
        site.v2.alter = lambda scores: bad
        answer = (await site.predict()).json()
        assert (answer["variant"], answer["probability"]) == (
            "stable",
            MODELS["binary"][0].golden[0].scores[0],
        )

    run(story, first=routing(v1=0, v2=10_000))


def test_while_a_new_stable_version_starts_the_previous_one_answers() -> None:
    async def story(site: Site) -> None:
        site.v2.info_error = TimeoutError()
        await site.declare(routing("v2", revision=2))
        answer = await site.predict()
        assert (answer.json()["model_version"], answer.json()["variant"]) == ("v1", "stable")
        assert (await site.http.get("/ready")).status_code == 503
        assert (await site.http.get("/health")).status_code == 200
        site.v2.info_error = None
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v2"
        assert (await site.http.get("/ready")).status_code == 200

    run(story)


def test_a_canary_that_is_lost_gets_no_traffic_until_it_answers_again() -> None:
    async def story(site: Site) -> None:
        site.v2.info_error, site.now = VersionGone("deleted"), site.now + 5
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v1"
        assert site.v2.calls == []
        assert await site.metric('mlops_version_answers{deployment="flights",version="v2"}') == 0
        site.v2.info_error = None
        await site.traffic.settle()
        assert (await site.predict()).json()["model_version"] == "v2"

    run(story, first=routing(v1=0, v2=10_000))


def test_a_version_that_answers_under_a_wrong_name_gets_no_traffic() -> None:
    async def story(site: Site) -> None:
        assert (await site.predict()).json()["model_version"] == "v1"
        ready = (await site.http.get("/ready")).json()
        assert "answers as version 'v1', not 'v2'" in ready["routes"]["v2"]["problem"]

    site = Site()
    site.versions.applications["flights--v2"] = site.v1
    run(story, site, first=routing(v1=0, v2=10_000))


def test_units_stick_to_their_variant_and_shares_are_as_declared() -> None:
    async def story(site: Site) -> None:
        async def version(unit: str) -> str:
            return (await site.predict(unit=unit)).json()["model_version"]

        first = [await version(f"u{number}") for number in range(200)]
        assert first == [await version(f"u{number}") for number in range(200)]
        assert 70 < first.count("v2") < 130
        assert {(await site.predict()).json()["model_version"] for _ in range(50)} == {"v1", "v2"}

    run(story, first=routing(v1=5_000, v2=5_000))


def test_a_new_routing_is_visible_at_once() -> None:
    async def story(site: Site) -> None:
        await site.declare(routing(revision=2, v1=2_500, v2=7_500))
        ready = (await site.http.get("/ready")).json()
        assert ready["revision"] == 2
        assert {name: route["weight"] for name, route in ready["routes"].items()} == {
            "v1": 2_500,
            "v2": 7_500,
        }
        assert ready["routes"]["v2"]["application"] == "flights--v2"
        assert ready["routes"]["v2"]["digest"] == site.v2.scorer.digest
        assert (ready["routes"]["v1"]["variant"], ready["routes"]["v2"]["variant"]) == ("stable", "canary")
        assert await site.metric('mlops_traffic_weight{deployment="flights",version="v2"}') == 0.75
        assert await site.metric("mlops_routing_revision") == 2

    run(story)


def test_a_bad_routing_keeps_the_last_good_one_and_says_so() -> None:
    async def story(site: Site) -> None:
        site.traffic.declare({**routing(), "revision": 9, "stable": "v7"})
        ready = (await site.http.get("/ready")).json()
        assert ready["revision"] == 1
        assert "v7" in ready["config_error"]
        assert (await site.predict()).status_code == 200
        await site.declare(routing(revision=3))
        assert (await site.http.get("/ready")).json()["config_error"] is None

    run(story)


def test_a_canary_that_takes_other_features_costs_nobody_the_answer_and_is_blamed() -> None:
    async def story(site: Site) -> None:
        fewer = CANARY[0].model_copy(update={"features": CANARY[0].features[1:]})
        site.v2.manifest = fewer
        await site.declare(routing(revision=2, v1=0, v2=10_000))
        answer = await site.predict()
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
        evidence = (await site.http.get("/evidence")).json()
        assert evidence["versions"]["v2"]["errors"] == {"schema": 1}
        # What stable refuses too is the caller's mistake, in stable's words.
        assert list(reasons(await site.predict({**ROW, "hour": "late"}))) == ["features.hour"]
        assert (await site.http.get("/evidence")).json()["versions"]["v2"]["errors"] == {"schema": 1}

    run(story)
