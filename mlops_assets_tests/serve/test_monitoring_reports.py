"""What the endpoint counts, and the monitoring reports that it shows beside its metrics."""

import asyncio
from typing import Any

import pytest

from mlops_assets.testing.site import Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW


def test_requests_rows_and_latency_are_counted_by_variant_and_version() -> None:
    async def story(site: Site) -> None:
        await site.predict()
        await site.post("/batch-predict", {"instances": [ROW] * 3})
        await site.predict({})
        labels = 'deployment="flights"'
        at = f'{labels},endpoint="/predict"'
        assert (
            await site.metric(f'mlops_requests_total{{{at},status="200",variant="stable",version="v1"}}') == 1
        )
        assert (
            await site.metric(f'mlops_requests_total{{{at},status="400",variant="stable",version="v1"}}') == 1
        )
        who = f'{{{labels},variant="stable",version="v1"}}'
        assert await site.metric(f"mlops_rows_total{who}") == 4
        assert await site.metric(f"mlops_request_latency_seconds_count{who}") == 2
        text = await site.http.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")

    run(story)


# -- monitoring --------------------------------------------------------------------------------------

REPORT = {
    "version": "v1",
    "stale": {"drift": True, "data": False, "code": False, "rollback": False},
    "data_until": 1364774400,
    "drift": {"distance": {"psi": 0.31}},
    "drift_thresholds": {"distance": {"psi": 0.11}},
    "episode_open": True,
}


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"version": "v2"}, "version", "must be the stable version, which is v1"),
        ({"version": None}, "version", "valid string"),
        ({"stale": {"rain": True}}, "stale.rain.[key]", "'drift', 'data', 'code' or 'rollback'"),
        ({"stale": {"drift": 1}}, "stale.drift", "valid boolean"),
        ({"drift": {"distance": {"psi": "high"}}}, "drift.distance.psi", "valid number"),
        ({"drift": {"distance": {"P S I": 0.1}}}, "drift.distance.P S I.[key]", "match pattern"),
        ({"drift": {str(number): {} for number in range(21)}}, "drift", "at most 20 items"),
        ({"data_until": "yesterday"}, "data_until", "valid number"),
        ({"rows": 7}, "rows", "not permitted"),
    ],
)
def test_a_monitoring_report_that_is_not_valid_is_refused_by_field(
    changes: dict[str, Any], field: str, reason: str
) -> None:
    async def story(site: Site) -> None:
        told = reasons(await site.post("/monitoring", {**REPORT, **changes}))
        assert list(told) == [field] and reason in told[field]
        assert "mlops_served_stale" not in (await site.http.get("/metrics")).text

    run(story)


def test_a_monitoring_report_needs_the_role_operate_and_a_routing(keys_file: str) -> None:
    async def story(site: Site) -> None:
        refused(await site.post("/monitoring", REPORT, **{"x-api-key": "shop"}), 403, "forbidden")

    run(story, Site(keys_file=keys_file))

    async def without() -> None:
        site = Site()
        async with site.http:
            refused(await site.post("/monitoring", REPORT), 503, "no_model")

    asyncio.run(without())


def test_without_a_aggregator_a_monitoring_report_is_asked_for_again() -> None:
    async def story(site: Site) -> None:
        async def nowhere() -> Any:
            raise ConnectionError("no actor of this name")

        site.link._connect, site.link._proxy = nowhere, None
        answer = await site.post("/monitoring", REPORT)
        assert "no actor of this name" in refused(answer, 503, "no_referee")["message"]
        assert answer.headers["retry-after"] == "1"

    run(story)


def test_a_monitoring_report_is_shown_with_the_metrics() -> None:
    async def story(site: Site) -> None:
        answer = await site.post("/monitoring", REPORT)
        assert (answer.status_code, answer.json()) == (200, {"monitoring": REPORT})
        labels = 'cause="drift",deployment="flights"'
        assert await site.metric(f"mlops_served_stale{{{labels}}}") == 1
        assert await site.metric("mlops_served_data_timestamp_seconds{") == 1_364_774_400
        labels = 'column="distance",deployment="flights",statistic="psi"'
        assert await site.metric(f"mlops_drift_score{{{labels}}}") == 0.31
        assert await site.metric(f"mlops_drift_threshold{{{labels}}}") == 0.11
        assert await site.metric("mlops_drift_episode_open{") == 1

    run(story)
