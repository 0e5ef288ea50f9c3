"""Join keys over HTTP: named when not valid, and logged."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.site import Site, reasons, run
from mlops_assets.testing.small_models import ROW, routing
from serve.inference_log import SCHEMA, PredictionLog
from serve.schema import PredictionLogArgs


def keyed(site: Site, *names: str) -> Site:
    """The site, with both versions taking these join keys."""
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": names})
    return site


@pytest.mark.parametrize(
    ("entity", "told"),
    [
        ({}, {"entity.flight_id": "is missing", "entity.day": "is missing"}),
        ({"flight_id": 4711}, {"entity.day": "is missing"}),
        (
            {"flight_id": 4711, "day": "2013-04-01", "colour": "red"},
            {"entity.colour": "is not a join key of this model; allowed: flight_id, day"},
        ),
        (
            {"flight_id": "x" * 257, "day": ""},
            {
                "entity.flight_id": "must have 1 to 256 characters",
                "entity.day": "must have 1 to 256 characters",
            },
        ),
        (
            {"flight_id": True, "day": None},
            {
                "entity.flight_id": "must be a string or an integer, not a boolean",
                "entity.day": "must be a string or an integer, not null",
            },
        ),
        (
            {"flight_id": 4711.5, "day": 2**63},
            {
                "entity.flight_id": "must be a string or an integer, not a fraction",
                "entity.day": "must be within -2^63 and 2^63 - 1",
            },
        ),
        ({"flight_id": 2.0**60, "day": 1}, {"entity.flight_id": "must be an integer without a point"}),
        (4711, {"entity": "must be an object of join keys, not a number"}),
        ([4711], {"entity": "must be an object of join keys, not an array"}),
    ],
)
def test_every_join_key_that_is_not_valid_is_named(entity: Any, told: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        assert reasons(await site.predict(entity=entity)) == told
        in_batch = {name.replace("entity", "entities[1]", 1): reason for name, reason in told.items()}
        good = {"flight_id": 1, "day": 2}
        body = {"instances": [ROW, ROW], "entities": [good, entity]}
        assert reasons(await site.post("/batch-predict", body)) == in_batch

    run(story, keyed(Site(), "flight_id", "day"))


def test_join_keys_of_a_batch_come_one_per_instance() -> None:
    async def story(site: Site) -> None:
        for entities, reason in (
            ([{"flight_id": 1}], "must hold one object (or null) per instance: 1 for 2 instances"),
            ({"flight_id": 1}, "must be an array of objects, not an object"),
        ):
            answer = await site.post("/batch-predict", {"instances": [ROW, ROW], "entities": entities})
            assert reasons(answer) == {"entities": reason}
        # All that is wrong is named together.
        both = await site.predict({**ROW, "hour": "late"}, entity={}, unit=7)
        assert set(reasons(both)) == {"features.hour", "entity.flight_id", "unit"}

    run(story, keyed(Site(), "flight_id"))


def test_a_model_without_join_keys_takes_none() -> None:
    async def story(site: Site) -> None:
        refused = "is not taken: this model was declared without join keys"
        for entity in ({"flight_id": 1}, {}, None):
            assert reasons(await site.predict(entity=entity)) == {"entity": refused}
            batch = {"instances": [ROW], "entities": entity}
            assert reasons(await site.post("/batch-predict", batch)) == {"entities": refused}
        schemas = (await site.http.get("/openapi.json")).json()["components"]["schemas"]
        assert set(schemas["PredictRequest"]["properties"]) == {"features", "unit"}
        assert set(schemas["BatchRequest"]["properties"]) == {"instances", "unit"}

    run(story)


def test_join_keys_are_logged_in_the_manifests_order_and_change_no_answer(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        await site.declare({**routing(revision=2), "routes": {
            "v1": {"application": "flights--v1", "weight": 10_000},
            "v2": {"application": "flights--v2", "weight": 0, "shadow": 10_000},
        }})  # fmt: skip
        bare = await site.predict()
        named = await site.predict(entity={"day": "1. März", "flight_id": 4711.0})
        assert bare.json()["probability"] == named.json()["probability"]
        assert (await site.predict(entity=None)).status_code == 200
        batch = {"instances": [ROW, ROW], "entities": [{"flight_id": "a", "day": -1}, None]}
        assert (await site.post("/batch-predict", batch)).status_code == 200
        await site.traffic.mirrored()

    run(story, keyed(Site(log=log), "flight_id", "day"))
    log.close()
    rows = ds.dataset(str(tmp_path), format="parquet", schema=SCHEMA).to_table().to_pylist()
    for variant in ("stable", "shadow"):
        found = sorted(str(row["entity"]) for row in rows if row["variant"] == variant)
        assert found == [
            "None", "None", "None", '{"flight_id":"a","day":-1}', '{"flight_id":4711,"day":"1. März"}',
        ]  # fmt: skip


def test_a_canary_with_fewer_join_keys_costs_nobody_the_answer_and_is_blamed() -> None:
    async def story(site: Site) -> None:
        site.v2.manifest = site.v2.manifest.model_copy(update={"entity": ()})
        await site.declare(routing(revision=2, v1=0, v2=10_000))
        assert (await site.predict()).json()["model_version"] == "v2"
        answer = await site.predict(entity={"flight_id": 1})
        assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
        evidence = (await site.http.get("/evidence")).json()
        assert evidence["versions"]["v2"]["errors"] == {"schema": 1}

    run(story, keyed(Site(), "flight_id"))
