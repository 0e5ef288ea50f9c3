"""Keys on a real Ray Serve: canary and stable with their own views, a shadow, batches, V2 and the log."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.ray_cluster import RayCluster
from mlops_assets.testing.small_models import package, routing
from mlops_assets.testing.small_view import AT, HOUR, REQUEST, ROW, SOURCE, VIEW, fill
from mlops_assets_tests.serve.online.test_served import body, tensors
from mlops_assets_tests.serve.test_on_ray import version_application, wait_for_revision
from serve.schema import OnlineTransform, OnlineView
from serve.scoring import scorer_from_bytes, write_package

pytestmark = pytest.mark.ray

HALVED = SOURCE.replace("**row,", '**row, "distance": row["distance"] / 2,')
[EXAMPLE] = VIEW.examples
RECENT = VIEW.model_copy(
    update={
        "rolling": tuple(one.model_copy(update={"window_us": HOUR // 2}) for one in VIEW.rolling),
        "transform": OnlineTransform(source=HALVED, function="features"),
        "examples": (EXAMPLE.model_copy(update={"features": {**EXAMPLE.features, "distance": 250.0}}),),
    }
)
"""The canary's view: it sees the later of two departures, in a store of its own; and half the distance."""
VIEWS = {"v1": VIEW, "v2": RECENT}
SEEN = {"v1": {**ROW, "delay": 15.0}, "v2": {**ROW, "delay": 20.0, "distance": 700.25}}
SHADOWED = {**routing(revision=2, v1=10_000, v2=0)}
SHADOWED["routes"]["v2"]["shadow"] = 10_000


def packaged(view: OnlineView, seed: int) -> tuple[Any, bytes]:
    return package("binary", seed=seed, entity=view.entity, online=view)


def probability(version: str, row: dict[str, Any]) -> float:
    """What the version gives offline."""
    scores = scorer_from_bytes(*packaged(VIEWS[version], int(version == "v2"))).score_rows([row])
    return float(scores[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keyed")
    for number, (version, view) in enumerate(VIEWS.items()):
        write_package(str(made / version), *packaged(view, number))
        fill(made / "online", view, as_of=AT / 1e6 - 10)
    (made / "clock").write_text("2013-12-31T20:00:00+00:00")
    return made


@pytest.fixture(scope="module")
def site(ray_cluster: RayCluster, folder: Path) -> Iterator[httpx.Client]:
    declare(ray_cluster, folder, routing(v1=5_000, v2=5_000))
    for name in ("flights--v1", "flights--v2", "flights"):
        ray_cluster.wait(name)
    with httpx.Client(base_url=f"{ray_cluster.http_url}/flights", timeout=30, trust_env=False) as client:
        wait_for_revision(client, 1)
        yield client


def declare(cluster: RayCluster, folder: Path, user_config: dict[str, Any]) -> None:
    gateway = {
        "name": "flights",
        "route_prefix": "/flights",
        "import_path": "serve.builder:build_gateway",
        "args": {
            "name": "flights",
            "clock_file": str(folder / "clock"),
            "online_uri": str(folder / "online"),
            "prediction_log": {"uri": str(folder / "log"), "flush_interval_s": 0.2},
        },
        "deployments": [{"name": "Gateway", "user_config": user_config}],
    }
    cluster.declare(*(version_application(name, folder / name) for name in VIEWS), gateway)


def looked_up(site: httpx.Client) -> float:
    """Rows that the gateway has looked up so far."""
    lines = site.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mlops_online_lookups_total")
    )


def logged(folder: Path, requests: Sequence[str], *, variants: int) -> list[dict[str, Any]]:
    """The log's rows of answers, once so many variants' are there."""
    end = time.monotonic() + 30
    while True:
        rows = ds.dataset(folder / "log").to_table().to_pylist() if (folder / "log").exists() else []
        found = [row for row in rows if row["answer_id"] in requests]
        if len(found) == variants * len(requests):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)


def test_canary_and_stable_look_up_what_their_own_views_say(site: httpx.Client, folder: Path) -> None:
    online = {name: route["online"] for name, route in site.get("/ready").json()["routes"].items()}
    assert {name: (one["state"], one["age_s"]) for name, one in online.items()} == {
        "v1": ("fresh", 10.0),
        "v2": ("fresh", 10.0),
    }
    expected = {version: probability(version, row) for version, row in SEEN.items()}
    assert probability("v2", SEEN["v1"]) != expected["v2"]
    answers = [site.post("/predict", json={**body(), "unit": f"u{number}"}) for number in range(30)]
    assert {one.status_code for one in answers} == {200}
    assert {one.json()["model_version"]: one.json()["probability"] for one in answers} == expected
    rows = logged(folder, [one.json()["answer_id"] for one in answers], variants=1)
    assert {row["version"]: json.loads(row["features"]) for row in rows} == SEEN
    shapes = {row["version"]: json.loads(row["online"])["shape"] for row in rows}
    assert (
        shapes == {version: view.shape for version, view in VIEWS.items()} and len(set(shapes.values())) == 2
    )


def test_the_v2_protocol_asks_a_version_for_keys(site: httpx.Client) -> None:
    for version, row in SEEN.items():
        answer = site.post(f"/v2/models/flights/versions/{version}/infer", json=tensors())
        assert answer.status_code == 200, answer.text
        outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
        assert outputs["probability"] == [probability(version, row)]


def test_a_batch_and_a_shadow_are_looked_up_once_a_row(
    ray_cluster: RayCluster, site: httpx.Client, folder: Path
) -> None:
    declare(ray_cluster, folder, SHADOWED)
    wait_for_revision(site, 2)
    before = looked_up(site)
    rows = 20
    batch = site.post(
        "/batch-predict", json={"entities": [{"flight": 7}] * rows, "requests": [REQUEST] * rows}
    )
    assert batch.status_code == 200, batch.text
    expected = probability("v1", SEEN["v1"])
    assert [one["probability"] for one in batch.json()["predictions"]] == [expected] * rows
    single = [site.post("/predict", json=body()) for _ in range(5)]
    assert {one.json()["probability"] for one in single} == {expected}
    answers = logged(folder, [one.json()["answer_id"] for one in single], variants=2)
    assert looked_up(site) - before == rows + len(single)
    assert sorted({(row["variant"], row["version"]) for row in answers}) == [
        ("shadow", "v2"),
        ("stable", "v1"),
    ]
    # The shadow scores what was looked up for stable.
    assert {row["features"] for row in answers} == {json.dumps(SEEN["v1"], separators=(",", ":"))}
    [online] = {row["online"] for row in answers}
    assert json.loads(online)["shape"] == VIEW.shape
    scores = {row["variant"]: row["score"] for row in answers}
    assert scores == {"stable": expected, "shadow": probability("v2", SEEN["v1"])}
