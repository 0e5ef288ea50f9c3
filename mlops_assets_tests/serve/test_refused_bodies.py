"""Bodies that the endpoint refuses with 400, field by field, and values at the edge of valid."""

import json
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.site import MODELS, Site, reasons, refused, run
from mlops_assets.testing.small_models import ROW, LocalVersion
from serve.inference_log import SCHEMA, PredictionLog
from serve.schema import PredictionLogArgs


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"features": NaN}', b'{"features": {"distance": Infinity}}', b"[" * 15_000,
     b'{"a": ' + b"1" * 5_000 + b"}", b"[]", b'"x"', b"1", b"null", b"{}{}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/batch-predict", "/v2/models/flights/infer"])
def test_a_body_that_is_no_json_object_is_refused(path: str, body: bytes) -> None:
    async def story(site: Site) -> None:
        refused(await site.post(path, body), 400, "malformed_body")
        assert site.errors("malformed_body") == 1

    run(story)


def test_every_bad_feature_is_named_with_its_reason() -> None:
    async def story(site: Site) -> None:
        features = {
            "distance": "1.5",
            "delay": True,
            "hour": 3.5,
            "weekend": 0,
            "carrier": 7,
            "gate": 1,
        }
        found = reasons(await site.predict(features, colour="red", unit=5))
        assert found == {
            "features.distance": "must be a number, not a string",
            "features.delay": "must be a number, not a boolean",
            "features.hour": "must be an integer, not a fraction",
            "features.weekend": "must be true or false, not a number",
            "features.carrier": "must be a string, not a number",
            "features.origin": "is missing",
            "features.gate": "is not a feature of this model",
            "unit": "must be a string of 1 to 256 characters, or null",
            "colour": "is not a field of this request; allowed: features, unit, entity",
        }
        assert site.errors("invalid_fields") == 1

    run(story)


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("distance", "1e999", "must be a finite number"),
        ("distance", "-1e999", "must be a finite number"),
        ("distance", "1" + "0" * 400, "must be a finite number"),
        ("distance", "-0.001", "must be >= 0 and <= 6000"),
        ("distance", "6000.5", "must be >= 0 and <= 6000"),
        ("distance", "null", "must not be null"),
        ("distance", "{}", "must be a number, not an object"),
        ("delay", "[1]", "must be a number, not an array"),
        ("hour", "24", "must be >= 0 and <= 23"),
        ("hour", "true", "must be an integer, not a boolean"),
        ("hour", '"3"', "must be an integer, not a string"),
        ("hour", "1e999", "must be an integer"),
        ("hour", "1e300", "must be within -2^53 and 2^53"),
        ("hour", "9" * 400, "must be within -2^53 and 2^53"),
        ("weekend", '"true"', "must be true or false, not a string"),
        ("origin", '"LGA"', "must be one of 'EWR', 'JFK'"),
        ("origin", "null", "must not be null"),
        ("carrier", "false", "must be a string, not a boolean"),
    ],
)
def test_values_that_are_not_strictly_valid_are_refused(field: str, text: str, reason: str) -> None:
    async def story(site: Site) -> None:
        features = ", ".join(f'"{name}": {text if name == field else json.dumps(ROW[name])}' for name in ROW)
        assert reasons(await site.post("/predict", f'{{"features": {{{features}}}}}'.encode())) == {
            f"features.{field}": reason
        }

    run(story)


@pytest.mark.parametrize(
    "changes",
    [{"distance": 0}, {"distance": 6000}, {"delay": -1e308}, {"hour": 3.0}, {"hour": None}, {"weekend": None},
     {"carrier": "ZZ"}, {"carrier": "\x00"}, {"carrier": None}],
)  # fmt: skip
def test_values_at_the_edge_of_valid_are_answered(changes: dict[str, Any]) -> None:
    async def story(site: Site) -> None:
        assert (await site.predict({**ROW, **changes})).status_code == 200

    run(story)


def test_a_category_outside_the_dictionary_scores_as_missing() -> None:
    async def story(site: Site) -> None:
        unseen, missing = (
            await site.predict({**ROW, "carrier": "ZZ"}),
            await site.predict({**ROW, "carrier": None}),
        )
        assert unseen.json()["probability"] == missing.json()["probability"]

    run(story)


def test_a_category_of_whole_numbers_answers_and_logs_the_same_for_3_and_its_text(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path)), deployment="flights", replica="r1")

    async def story(site: Site) -> None:
        single = [await site.predict({**ROW, "carrier": sent}) for sent in ("3", 3, 3.0)]
        batch = await site.post("/batch-predict", {"instances": [{**ROW, "carrier": 3}]})
        told = {answer.json()["probability"] for answer in single}
        assert told == {batch.json()["predictions"][0]["probability"]}
        other = await site.predict({**ROW, "carrier": 7})
        assert other.json()["probability"] not in told

    site = Site(log=log)
    manifest, payload = MODELS["binary"]
    coded = tuple(
        feature.model_copy(update={"categories": ("7", "12", "3")}) if feature.name == "carrier" else feature
        for feature in manifest.features
    )
    v1 = LocalVersion("v1", manifest.model_copy(update={"features": coded}), payload)
    site.versions.applications["flights--v1"] = v1
    run(story, site)
    log.close()
    rows = ds.dataset(str(tmp_path), format="parquet", schema=SCHEMA).to_table().to_pylist()
    assert sorted(json.loads(row["features"])["carrier"] for row in rows) == ["3", "3", "3", "3", "7"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "features"),
        ({"features": None}, "features"),
        ({"features": []}, "features"),
        ({"unit": "a"}, "features"),
    ],
)
def test_features_must_be_an_object(body: dict[str, Any], field: str) -> None:
    async def story(site: Site) -> None:
        assert field in reasons(await site.post("/predict", body))

    run(story)


def test_every_bad_row_of_a_batch_is_named() -> None:
    async def story(site: Site) -> None:
        rows = [ROW, {**ROW, "hour": 99}, "row", {**ROW, "gate": 1}]
        found = reasons(await site.post("/batch-predict", {"instances": rows}))
        assert set(found) == {"instances[1].hour", "instances[2]", "instances[3].gate"}
        assert set(reasons(await site.post("/batch-predict", {"instances": ROW}))) == {"instances"}
        assert set(reasons(await site.post("/batch-predict", {"rows": []}))) == {"instances", "rows"}

    run(story)


def test_an_empty_batch_is_refused() -> None:
    async def story(site: Site) -> None:
        refused(await site.post("/batch-predict", {"instances": []}), 400, "empty_batch")

    run(story)
