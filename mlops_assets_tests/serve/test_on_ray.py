"""The data plane on a real Ray Serve cluster: what only the cluster can show."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.testing.ray_cluster import RayCluster
from mlops_assets.testing.small_models import ROW, package, routing
from serve.schema import GoldenRow
from serve.scoring import write_package

pytestmark = pytest.mark.ray


def version_application(name: str, uri: Path) -> dict[str, Any]:
    return {
        "name": f"flights--{name}",
        "route_prefix": None,
        "import_path": "serve.builder:build_model",
        "args": {"version": name, "package_uri": str(uri)},
    }


def gateway_application(user_config: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "name": "flights",
        "route_prefix": "/flights",
        "import_path": "serve.builder:build_gateway",
        "args": {
            "name": "flights",
            "max_body_bytes": 20_000,
            "clock_file": str(folder / "clock"),
            "prediction_log": {"uri": str(folder / "log"), "flush_interval_s": 0.2},
        },
        "deployments": [{"name": "Gateway", "user_config": user_config}],
    }


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    for name, seed in (("v1", 0), ("v2", 1)):
        write_package(str(folder / name), *package("binary", seed=seed, entity=("flight_id",)))
    (folder / "clock").write_text("2013-04-01T12:00:00+00:00")
    return {name: folder / name for name in ("v1", "v2")}


@pytest.fixture(scope="module")
def site(ray_cluster: RayCluster, packages: dict[str, Path]) -> Iterator[httpx.Client]:
    """HTTP client of a gateway with v1 stable and v2 warm at weight 0."""
    declare(ray_cluster, packages, routing(v1=10_000, v2=0))
    for name in ("flights--v1", "flights--v2", "flights"):
        ray_cluster.wait(name)
    with httpx.Client(base_url=f"{ray_cluster.http_url}/flights", timeout=30, trust_env=False) as client:
        wait_for_revision(client, 1)
        yield client


def declare(cluster: RayCluster, packages: dict[str, Path], user_config: dict[str, Any]) -> None:
    versions = [version_application(name, uri) for name, uri in packages.items()]
    cluster.declare(*versions, gateway_application(user_config, packages["v1"].parent))


def wait_for_revision(client: httpx.Client, revision: int, deadline_s: float = 30.0) -> dict[str, Any]:
    end = time.monotonic() + deadline_s
    while True:
        answer = client.get("/ready")
        if answer.status_code == 200:
            body: dict[str, Any] = answer.json()
            if body["revision"] == revision and all(route["answers"] for route in body["routes"].values()):
                return body
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)


def test_a_served_score_is_the_offline_score_to_the_bit(site: httpx.Client) -> None:
    manifest, _ = package("binary", seed=0)
    for golden in manifest.golden:
        answer = site.post("/predict", json={"features": golden.features})
        assert answer.status_code == 200, answer.text
        assert answer.json()["probability"] == golden.scores[0]
        assert answer.json()["model_version"] == "v1"
        assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]
        assert (answer.headers["x-model-version"], answer.headers["x-variant"]) == ("v1", "stable")


def test_a_replica_gives_way_to_nobody(site: httpx.Client, ray_cluster: RayCluster) -> None:
    pids = {*ray_cluster.pids("flights")["Gateway"], *ray_cluster.pids("flights--v1")["Model"]}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert {pid: os.getpriority(os.PRIO_PROCESS, pid) for pid in pids} == dict.fromkeys(pids, own)


def test_every_endpoint_answers_under_the_prefix(site: httpx.Client) -> None:
    rows = [{**ROW, "distance": float(value)} for value in range(100)]
    assert len(site.post("/batch-predict", json={"instances": rows}).json()["predictions"]) == 100
    document = site.get("/openapi.json").json()
    assert document["servers"] == [{"url": "/flights"}]
    example = document["paths"]["/v2/models/flights/infer"]["post"]["requestBody"]["content"]
    infer = site.post("/v2/models/flights/infer", json=example["application/json"]["example"])
    assert infer.status_code == 200, infer.text
    for path in ("/health", "/ready", "/docs", "/v2/models/flights", "/v2/health/ready", "/v2/health/live"):
        assert site.get(path).status_code == 200, path
    assert 'version="v1"' in site.get("/metrics").text


def test_errors_keep_their_json_through_the_proxy(site: httpx.Client) -> None:
    refusals = {
        400: site.post("/predict", content=b"{"),
        404: site.get("/nope"),
        405: site.get("/predict"),
        413: site.post("/predict", content=b" " * 20_001),
    }
    for status, answer in refusals.items():
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"code", "message", "details"}
        assert len(answer.headers.get_list("x-request-id")) == 1

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000

    assert site.post("/predict", content=chunks()).json()["error"]["code"] == "too_large"


def test_answers_are_logged_with_their_join_keys_at_the_replayed_time(
    site: httpx.Client, packages: dict[str, Path]
) -> None:
    folder = packages["v1"].parent
    headers = {"x-request-id": "keyed"}
    for day in ("2013-04-01", "2013-04-02"):
        (folder / "next").write_text(f"{day}T12:00:00+00:00")
        (folder / "next").rename(folder / "clock")
        sent = {"features": ROW, "entity": {"flight_id": 4711}}
        assert site.post("/predict", json=sent, headers=headers).status_code == 200
    log = InferenceLog(uri=str(folder / "log"))
    end = time.monotonic() + 20
    while len(answers := log.find("flights", "keyed")) != 2:
        assert time.monotonic() < end, answers
        time.sleep(0.1)
    (row,) = answers[1]
    assert (row["entity"], row["at"]) == ({"flight_id": 4711}, datetime(2013, 4, 1, 12, tzinfo=UTC))


def test_a_monitoring_report_reaches_the_aggregators_actor_and_the_metrics(site: httpx.Client) -> None:
    sent = {"version": "v1", "stale": {"drift": True}, "drift": {"distance": {"psi": 0.25}}}
    answer = site.post("/monitoring", json=sent)
    assert answer.status_code == 200, answer.text
    text = site.get("/metrics").text
    assert 'mlops_served_stale{cause="drift",deployment="flights"} 1.0' in text
    assert 'mlops_drift_score{column="distance",deployment="flights",statistic="psi"} 0.25' in text


def test_the_monitoring_gauges_survive_the_aggregator(ray_cluster: RayCluster, site: httpx.Client) -> None:
    (pid,) = ray_cluster.actors("AggregatorActor")
    os.kill(pid, signal.SIGKILL)
    end, text = time.monotonic() + 60, ""
    reachable = 'mlops_referee_reachable{deployment="flights"} 1.0'
    while ray_cluster.actors("AggregatorActor") in ([], [pid]) or reachable not in text:
        text = site.get("/metrics").text
        assert 'mlops_served_stale{cause="drift",deployment="flights"} 1.0' in text
        assert time.monotonic() < end, text
        time.sleep(0.2)
    assert 'mlops_drift_score{column="distance",deployment="flights",statistic="psi"} 0.25' in text


def test_a_weight_change_restarts_nothing_and_loses_no_request(
    ray_cluster: RayCluster, packages: dict[str, Path], site: httpx.Client
) -> None:
    names = ("flights--v1", "flights--v2", "flights")
    before = {name: ray_cluster.pids(name) for name in names}
    done = False

    def load() -> list[int]:
        statuses = []
        while not done:
            statuses.append(site.post("/predict", json={"features": ROW}).status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        declare(ray_cluster, packages, routing(revision=2, v1=5_000, v2=5_000))
        wait_for_revision(site, 2)
        units = {f"u{number}": site.post("/predict", json={"features": ROW, "unit": f"u{number}"}).json()
                 for number in range(100)}  # fmt: skip
        done = True
        statuses = [status for each in loads for status in each.result()]

    assert {name: ray_cluster.pids(name) for name in names} == before
    assert set(statuses) == {200}
    assert 30 < sum(answer["variant"] == "canary" for answer in units.values()) < 70
    assert {answer["variant"]: answer["model_version"] for answer in units.values()} == {
        "stable": "v1", "canary": "v2",
    }  # fmt: skip
    again = {unit: site.post("/predict", json={"features": ROW, "unit": unit}).json() for unit in units}
    assert [each["variant"] for each in again.values()] == [each["variant"] for each in units.values()]


def test_a_bad_routing_neither_stops_nor_changes_the_gateway(
    ray_cluster: RayCluster, packages: dict[str, Path], site: httpx.Client
) -> None:
    before, revision = ray_cluster.pids("flights"), site.get("/ready").json()["revision"]
    declare(ray_cluster, packages, {**routing(revision=7), "stable": "v9"})
    end = time.monotonic() + 20
    while (ready := site.get("/ready").json())["config_error"] is None:
        assert time.monotonic() < end, ready
        time.sleep(0.1)
    assert "v9" in ready["config_error"]
    assert ready["revision"] == revision
    assert site.post("/predict", json={"features": ROW}).status_code == 200
    assert ray_cluster.pids("flights") == before


def test_a_package_whose_golden_rows_do_not_match_never_turns_healthy(
    ray_cluster: RayCluster, packages: dict[str, Path], site: httpx.Client, tmp_path: Path
) -> None:
    manifest, payload = package("binary", seed=0)
    wrong = GoldenRow(features=ROW, scores=(manifest.golden[0].scores[0] + 1e-16,))
    assert wrong.scores != manifest.golden[0].scores
    write_package(str(tmp_path / "v3"), manifest.model_copy(update={"golden": (wrong,)}), payload)
    everything = {**packages, "v3": tmp_path / "v3"}
    share = routing(revision=8, v1=0, v3=10_000)

    declare(ray_cluster, everything, share)
    failed = ray_cluster.wait("flights--v3", "DEPLOY_FAILED")

    assert "golden row 0" in json.dumps(failed)
    end = time.monotonic() + 20
    while site.get("/ready").json()["revision"] != 8:
        assert time.monotonic() < end
        time.sleep(0.1)
    answer = site.post("/predict", json={"features": ROW})
    assert (answer.status_code, answer.json()["model_version"]) == (200, "v1")
    assert site.get("/ready").json()["routes"]["v3"]["answers"] is False


def test_a_killed_model_replica_is_a_503_in_the_contract_until_it_is_back(
    ray_cluster: RayCluster, packages: dict[str, Path], site: httpx.Client
) -> None:
    declare(ray_cluster, packages, routing(revision=9, v1=10_000))
    wait_for_revision(site, 9)
    (pid,) = ray_cluster.pids("flights--v1")["Model"]
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    seen = set()
    while True:
        answer = site.post("/predict", json={"features": ROW})
        seen.add(answer.status_code)
        if answer.status_code == 200:
            break
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] in ("no_model", "timed_out")
        assert time.monotonic() < end
    assert seen <= {200, 503}
