"""What a rollout asks of a gateway: shadows, trips, fallback, cohorts, the log, stable in this process."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlops_assets.testing.site import CANARY, MODELS, Site, refused, run
from mlops_assets.testing.small_models import ROW, LocalVersion, package, routing
from serve.aggregator import Aggregator
from serve.embedding import NotEmbedded, embedded
from serve.inference_log import PredictionLog
from serve.schema import PredictionLogArgs
from serve.scoring import Scorer, scorer_from_bytes, write_package
from serve.traffic import distance, output_of
from serve.versions import VersionGone, VersionLost, VersionOverloaded


def rollout(revision: int = 1, shadow: int = 0, guard: dict[str, Any] | None = None, **weights: int) -> Any:
    """A routing with v2 beside stable v1."""
    declared = routing(revision=revision, **(weights or {"v1": 10_000, "v2": 0}))
    declared["routes"]["v2"]["shadow"] = shadow
    return {**declared, "guard": guard or {}}


async def evidence(site: Site) -> dict[str, Any]:
    answer = await site.http.get("/evidence")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


# -- shadows -----------------------------------------------------------------------------------------


def test_a_shadow_never_touches_the_answer_and_is_compared_pair_by_pair() -> None:
    async def story(site: Site) -> None:
        expected = MODELS["binary"][0].golden[0].scores[0]
        for _ in range(20):
            answer = await site.predict()
            assert (answer.json()["variant"], answer.json()["probability"]) == ("stable", expected)
        await site.traffic.mirrored()
        found = await evidence(site)
        shadow, difference = found["shadows"]["v2"], CANARY[0].golden[0].scores[0] - expected
        assert shadow["requests"] == 20
        assert shadow["differences"]["mean"] == pytest.approx(difference)
        assert shadow["distances"]["mean"] == pytest.approx(abs(difference))
        assert shadow["live_outputs"]["mean"] == pytest.approx(expected)
        assert found["versions"]["v1"]["requests"] == 20
        assert found["versions"].get("v2", {}).get("requests", 0) == 0

    run(story, first=rollout(shadow=10_000))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("broken"), "model_error"),
        (VersionLost("died"), "lost"),
        (VersionGone("deleted"), "gone"),
    ],
)
def test_a_failing_shadow_is_counted_and_nothing_else(failure: Exception, reason: str) -> None:
    async def story(site: Site) -> None:
        site.v2.always = failure
        for _ in range(4):
            assert (await site.predict()).status_code == 200
        await site.traffic.mirrored()
        assert (await evidence(site))["shadows"]["v2"]["errors"] == {reason: 4}

    run(story, first=rollout(shadow=10_000))


def test_a_shadow_that_hangs_holds_nobody_up_and_is_shed_beyond_its_limit() -> None:
    async def story(site: Site) -> None:
        site.v2.hold = asyncio.Event()
        for _ in range(10):
            assert (await asyncio.wait_for(site.predict(), 5)).status_code == 200
        shadow = (await evidence(site))["shadows"]["v2"]
        assert (shadow["shed"], shadow["requests"]) == (7, 0)
        site.v2.hold.set()
        await site.traffic.mirrored()
        assert (await evidence(site))["shadows"]["v2"]["requests"] == 3

    run(story, Site(max_shadows=3), first=rollout(shadow=10_000))


def test_a_shadow_that_hangs_is_cut_off() -> None:
    async def story(site: Site) -> None:
        site.v2.hold = asyncio.Event()
        for _ in range(3):
            assert (await site.predict()).status_code == 200
        await site.traffic.mirrored()
        assert (await evidence(site))["shadows"]["v2"]["errors"] == {"timeout": 3}

    run(story, first=rollout(shadow=10_000, guard={"timeout_s": 0.05}))


def test_a_shadow_with_a_full_queue_is_shed_and_not_blamed() -> None:
    async def story(site: Site) -> None:
        site.v2.always = VersionOverloaded("full")
        await site.predict()
        await site.traffic.mirrored()
        shadow = (await evidence(site))["shadows"]["v2"]
        assert (shadow["shed"], shadow["errors"]) == (1, {})

    run(story, first=rollout(shadow=10_000))


def test_a_part_of_the_requests_is_mirrored_as_declared() -> None:
    async def story(site: Site) -> None:
        for _ in range(1_000):
            await site.predict()
        await site.traffic.mirrored()
        assert 150 < (await evidence(site))["shadows"]["v2"]["requests"] < 250

    run(story, first=rollout(shadow=2_000))


# -- canaries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(RuntimeError("broken"), "model_error"), (VersionLost("died"), "lost"), (VersionGone("x"), "gone")],
)
def test_a_canary_that_fails_costs_nobody_the_answer_and_trips(failure: Exception, reason: str) -> None:
    async def story(site: Site) -> None:
        site.v2.always = failure
        tripped_after = 0
        for number in range(400):
            answer = await site.predict(unit=f"u{number}")
            assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
            if number % 5 == 4:
                site.now += 0.25
                await site.link.push()
                site.link._guard_own_traffic()
            if "v2" in site.traffic.trips:
                tripped_after = number
                break
        assert 20 <= tripped_after < 60
        trip = (await evidence(site))["trips"]["v2"]
        assert reason in trip["reason"]
        calls = len(site.v2.calls)
        for number in range(50):
            await site.predict(unit=f"u{number}")
        assert len(site.v2.calls) == calls
        ready = (await site.http.get("/ready")).json()
        assert ready["routes"]["v2"]["tripped"] == trip["reason"]
        assert await site.metric('mlops_version_tripped{deployment="flights",version="v2"}') == 1

    run(story, first=rollout(v1=5_000, v2=5_000))


def test_a_canary_that_hangs_is_cut_off_earlier_than_stable_would_be() -> None:
    async def story(site: Site) -> None:
        site.v2.hold = asyncio.Event()
        answer = await asyncio.wait_for(site.predict(), 3)
        assert (answer.status_code, answer.json()["variant"]) == (200, "stable")
        assert (await evidence(site))["versions"]["v2"]["errors"] == {"timeout": 1}

    run(story, first=rollout(v1=0, v2=10_000, guard={"timeout_s": 0.1}))


def test_a_score_that_is_not_finite_never_reaches_a_caller_and_is_named() -> None:
    async def story(site: Site) -> None:
        site.v2.alter = lambda scores: [math.nan] * len(scores)
        answer = await site.predict()
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
        assert (await evidence(site))["versions"]["v2"]["errors"] == {"non_finite": 1}

    run(story, first=rollout(v1=0, v2=10_000))


def test_one_error_trips_nobody_and_client_errors_do_not_count() -> None:
    async def story(site: Site) -> None:
        site.v2.failures = [RuntimeError("once")]
        for number in range(60):
            await site.predict(unit=f"u{number}")
            await site.predict({**ROW, "distance": "far"})
        site.now += 1
        await site.link.push()
        found = await evidence(site)
        assert found["trips"] == {}
        assert found["versions"]["v2"]["errors"] == {"model_error": 1}
        assert found["versions"]["v1"]["requests"] + found["versions"]["v2"]["requests"] == 61

    run(story, first=rollout(v1=5_000, v2=5_000))


def test_a_new_revision_gives_a_tripped_version_another_chance() -> None:
    async def story(site: Site) -> None:
        site.link.trip("v2", "told so", by="test")
        assert (await site.predict()).json()["model_version"] == "v1"
        await site.declare(rollout(revision=2, v1=0, v2=10_000))
        assert (await site.predict()).json()["model_version"] == "v2"

    run(story, first=rollout(v1=0, v2=10_000))


def test_a_trip_on_one_replica_reaches_the_others() -> None:
    async def story(one: Site) -> None:
        other = Site(aggregator=one.aggregator, replica="r2")
        await other.declare(rollout(v1=0, v2=10_000))
        async with other.http:
            one.link.trip("v2", "told so", by="r1")
            await one.link.push()
            await other.link.push()
            assert (await other.predict()).json()["model_version"] == "v1"
            assert sorted((await evidence(other))["replicas"]) == ["r1", "r2"]

    run(story, first=rollout(v1=0, v2=10_000))


# -- the hand on the brake ---------------------------------------------------------------------------


def test_a_person_can_trip_a_version_over_http() -> None:
    async def story(site: Site) -> None:
        answer = await site.post("/trip", {"version": "v2", "reason": "it insults customers"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["trip"]["reason"] == "tripped by hand: it insults customers"
        assert (await site.predict()).json()["model_version"] == "v1"

    run(story, first=rollout(v1=0, v2=10_000))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"version": "v1", "reason": "x"}, "version"),
        ({"version": "v9", "reason": "x"}, "version"),
        ({"reason": "x"}, "version"),
        ({"version": "v2"}, "reason"),
        ({"version": "v2", "reason": ""}, "reason"),
        ({"version": "v2", "reason": "x", "force": True}, "force"),
    ],
)
def test_a_trip_names_what_is_wrong_with_it(body: Any, field: str) -> None:
    async def story(site: Site) -> None:
        error = refused(await site.post("/trip", body), 400, "invalid_fields")
        assert field in [entry["field"] for entry in error["details"]]
        assert site.traffic.trips == {}

    run(story, first=rollout(v1=5_000, v2=5_000))


# -- cohorts -----------------------------------------------------------------------------------------


def test_a_cohort_stays_together_whatever_the_request() -> None:
    declared = {**rollout(v1=5_000, v2=5_000), "unit_feature": "carrier"}

    async def story(site: Site) -> None:
        seen = {}
        for carrier in (None, "AA", "DL", "UA", "B6", "WN", "EV", "MQ", "9E"):
            row = {**ROW, "carrier": carrier}
            versions = {(await site.predict(row)).json()["model_version"] for _ in range(5)}
            batch = await site.post("/batch-predict", {"instances": [row, {**row, "hour": 3}]})
            assert versions == {batch.json()["model_version"]}
            seen[carrier] = versions.pop()
        assert set(seen.values()) == {"v1", "v2"}

    run(story, first=declared)


# -- the log -----------------------------------------------------------------------------------------


def test_every_answer_is_logged_and_a_shadow_as_a_pair(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        answer = (await site.predict(unit="u1")).json()
        batch = (await site.post("/batch-predict", {"instances": [ROW, ROW]})).json()
        await site.predict({"distance": 1})
        await site.traffic.mirrored()
        log.close()
        files = sorted(tmp_path.rglob("*.parquet"))
        rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
        pairs = {(row["answer_id"], row["row"], row["variant"]): row for row in rows}
        assert set(pairs) == {
            (answer["answer_id"], 0, "stable"), (answer["answer_id"], 0, "shadow"),
            (batch["answer_id"], 0, "stable"), (batch["answer_id"], 1, "stable"),
            (batch["answer_id"], 0, "shadow"), (batch["answer_id"], 1, "shadow"),
        }  # fmt: skip
        live = pairs[answer["answer_id"], 0, "stable"]
        assert (live["score"], live["unit"], live["version"]) == (answer["probability"], "u1", "v1")
        assert (live["revision"], live["weight"], live["endpoint"]) == (1, 10_000, "/predict")
        assert pairs[answer["answer_id"], 0, "shadow"]["version"] == "v2"

    run(story, Site(log=log), first=rollout(shadow=10_000))


def test_an_answer_that_stable_gave_for_a_canary_says_so(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        site.v2.always = RuntimeError("broken")
        await site.predict()
        log.close()
        (row,) = [r for f in tmp_path.rglob("*.parquet") for r in pq.ParquetFile(f).read().to_pylist()]
        assert (row["version"], row["fell_back_from"], row["variant"]) == ("v1", "v2", "stable")

    run(story, Site(log=log), first=rollout(v1=0, v2=10_000))


# -- stable in the gateway ---------------------------------------------------------------------------


async def loaded(info: Any) -> Scorer:
    return scorer_from_bytes(*MODELS["binary"])


def test_a_proven_stable_is_scored_here_with_the_same_answers_and_large_batches_are_not() -> None:
    async def story(site: Site) -> None:
        expected = MODELS["binary"][0].golden[0].scores[0]
        calls = len(site.v1.calls)
        assert (await site.predict()).json()["probability"] == expected
        assert len(site.v1.calls) == calls
        await site.post("/batch-predict", {"instances": [ROW] * 40})
        assert site.v1.calls[calls:] == [40]
        assert (await site.http.get("/ready")).json()["routes"]["v1"]["in_gateway"]

    run(story, Site(embed=loaded))


def test_a_canary_stays_out_of_the_gateway_until_it_is_stable() -> None:
    async def story(site: Site) -> None:
        calls = len(site.v2.calls)
        await site.predict()
        assert len(site.v2.calls) == calls + 1
        assert not (await site.http.get("/ready")).json()["routes"]["v2"]["in_gateway"]

    run(story, Site(embed=loaded), first=rollout(v1=0, v2=10_000))


def test_a_stable_that_fails_here_is_answered_by_its_application() -> None:
    async def broken(info: Any) -> Scorer:
        scorer = scorer_from_bytes(*MODELS["binary"])
        scorer.score = lambda matrix: matrix[:, 0] * math.nan  # type: ignore[method-assign]
        return scorer

    async def story(site: Site) -> None:
        answer = await site.predict()
        assert answer.json()["probability"] == MODELS["binary"][0].golden[0].scores[0]

    run(story, Site(embed=broken))


def test_a_model_that_cannot_be_loaded_here_says_why_and_answers_as_before() -> None:
    async def refuses(info: Any) -> Scorer:
        raise NotEmbedded("no room")

    async def story(site: Site) -> None:
        assert (await site.predict()).status_code == 200
        route = (await site.http.get("/ready")).json()["routes"]["v1"]
        assert (route["in_gateway"], route["in_gateway_problem"]) == (False, "no room")

    run(story, Site(embed=refuses))


def info_of(folder: Path, **changes: Any) -> dict[str, Any]:
    manifest, payload = package("binary")
    write_package(str(folder), manifest, payload)
    version = LocalVersion("v1", manifest, payload)
    return {
        **asyncio.run(version.info(timeout_s=1)),
        "package_uri": str(folder),
        "storage_options": {},
        **changes,
    }


def test_a_package_is_loaded_here_only_when_it_is_what_the_replicas_hold(tmp_path: Path) -> None:
    assert asyncio.run(embedded(info_of(tmp_path))).score_rows([ROW])
    with pytest.raises(NotEmbedded, match="the replicas hold 000000000000"):
        asyncio.run(embedded(info_of(tmp_path, digest="0" * 64)))
    with pytest.raises(NotEmbedded, match="FileNotFoundError"):
        asyncio.run(embedded(info_of(tmp_path, package_uri=str(tmp_path / "gone"))))
    with pytest.raises(NotEmbedded, match="device gpu"):
        asyncio.run(embedded(info_of(tmp_path, device={"used": "gpu"})))


# -- numbers -----------------------------------------------------------------------------------------


def test_scores_of_all_kinds_have_an_output_and_a_distance() -> None:
    assert output_of([0.25, 0.75]) == 0.5
    assert output_of([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]) == 0.75
    assert distance([0.25], [0.75]) == 0.5
    assert distance([[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]) == 0.5
    assert distance([[0.5, 0.5]], [0.5]) == 1.0
    assert distance([[0.5, 0.5]], [[0.2, 0.3, 0.5]]) == 1.0


def test_metrics_count_every_request_of_every_replica() -> None:
    async def story(one: Site) -> None:
        other = Site(aggregator=one.aggregator, replica="r2")
        await other.declare(routing())
        async with other.http:
            for site, count in ((one, 7), (other, 5)):
                for _ in range(count):
                    await site.predict()
            await one.link.push()
            line = 'mlops_rows_total{deployment="flights",variant="stable",version="v1"}'
            assert await other.metric(line) == 12
            assert await one.metric(line) == 12

    run(story, Site(aggregator=Aggregator(clock=lambda: 100.0, steady=lambda: 100.0)))
