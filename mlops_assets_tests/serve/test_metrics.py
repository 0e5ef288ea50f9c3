"""That one replica counts right, and that the text over several is valid and exact."""

import pickle

from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.testing.small_models import routing
from serve.metrics import GatewayMetrics, MetricsSnapshot, exposition, summed
from serve.schema import Routing


def replica(name: str = "r1") -> GatewayMetrics:
    return GatewayMetrics(deployment="flights", replica=name)


def samples(text: bytes) -> dict[str, float]:
    """{name{label="value",...} without the deployment: value}, after checking that the text is valid."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("deployment") == "flights", sample
            inner = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            key = f"{sample.name}{{{inner}}}" if inner else sample.name
            assert key not in found, f"{key} appears twice"
            found[key] = sample.value
    return found


def declared(revision: int = 1, **weights: int) -> Routing:
    return Routing.model_validate(routing(revision=revision, **weights))


def test_a_fresh_replica_has_a_valid_text_and_counted_nothing() -> None:
    found = samples(replica().text())
    assert found == {
        "mlops_gateway_replicas": 1.0,
        'mlops_replica_revision{replica="r1"}': -1.0,
        "mlops_requests_in_flight": 0.0,
        'mlops_prediction_log_rows_total{outcome="logged"}': 0.0,
        'mlops_prediction_log_rows_total{outcome="dropped"}': 0.0,
    }


def test_every_counter_counts_under_its_name_and_labels() -> None:
    metrics = replica()
    for _ in range(3):
        metrics.count_request("/predict", 200, "stable", "v1")
    metrics.count_request("/predict", 400, "none", "none")
    metrics.count_answer("stable", "v1", rows=1, seconds=0.004)
    metrics.count_answer("stable", "v1", rows=10, seconds=0.3)
    metrics.count_error("invalid_json")
    metrics.count_fallback("v2", "TimeoutError")
    metrics.count_retry("v2")
    metrics.count_failure("v2", "timeout")
    metrics.count_shadow("v3", "answered")
    metrics.count_shadow("v3", "failed")
    metrics.count_shadow("v3", "shed")
    metrics.count_logged("logged", 50)
    metrics.count_logged("dropped", 2)
    found = samples(metrics.text())
    expected = {
        'mlops_requests_total{endpoint="/predict",status="200",variant="stable",version="v1"}': 3,
        'mlops_requests_total{endpoint="/predict",status="400",variant="none",version="none"}': 1,
        'mlops_rows_total{variant="stable",version="v1"}': 11,
        'mlops_errors_total{code="invalid_json"}': 1,
        'mlops_fallbacks_total{reason="TimeoutError",version="v2"}': 1,
        'mlops_retries_total{version="v2"}': 1,
        'mlops_version_failures_total{reason="timeout",version="v2"}': 1,
        'mlops_shadow_requests_total{outcome="answered",version="v3"}': 1,
        'mlops_shadow_requests_total{outcome="failed",version="v3"}': 1,
        'mlops_shadow_requests_total{outcome="shed",version="v3"}': 1,
        'mlops_prediction_log_rows_total{outcome="logged"}': 50,
        'mlops_prediction_log_rows_total{outcome="dropped"}': 2,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_the_histogram_is_cumulative_and_its_bounds_are_inclusive() -> None:
    metrics = replica()
    for seconds in (0.001, 0.0011, 0.5, 11.0):
        metrics.count_answer("stable", "v1", rows=1, seconds=seconds)
    found = samples(metrics.text())
    name, labels = "mlops_request_latency_seconds", 'variant="stable",version="v1"'
    buckets = {
        bound: found[f'{name}_bucket{{le="{bound}",{labels}}}'] for bound in ("0.001", "0.0025", "0.25")
    }
    assert buckets == {"0.001": 1, "0.0025": 2, "0.25": 2}
    assert found[f'{name}_bucket{{le="0.5",{labels}}}'] == found[f'{name}_bucket{{le="10.0",{labels}}}'] == 3
    assert found[f'{name}_bucket{{le="+Inf",{labels}}}'] == found[f"{name}_count{{{labels}}}"] == 4
    assert abs(found[f"{name}_sum{{{labels}}}"] - 11.5021) < 1e-9


def test_a_version_that_left_the_routing_leaves_the_gauges_and_keeps_its_counts() -> None:
    metrics = replica()
    metrics.set_routing(declared(1, v1=9000, v2=1000))
    metrics.set_answers("v1", True)
    metrics.set_answers("v2", False)
    metrics.count_failure("v2", "gone")
    metrics.set_in_gateway("v1", True)
    found = samples(metrics.text())
    assert found['mlops_traffic_weight{version="v2"}'] == 0.1
    assert found['mlops_version_answers{version="v2"}'] == 0
    assert found['mlops_stable_in_gateway{version="v1"}'] == 1
    assert found["mlops_routing_revision"] == 1
    metrics.set_routing(declared(2, v1=10000))
    found = samples(metrics.text())
    assert [name for name in found if "v2" in name] == [
        'mlops_version_failures_total{reason="gone",version="v2"}'
    ]
    assert found["mlops_routing_revision"] == 2


def test_a_trip_lasts_for_its_revision() -> None:
    metrics = replica()
    metrics.set_routing(declared(1, v1=9000, v2=1000))
    assert samples(metrics.text())['mlops_version_tripped{version="v2"}'] == 0
    metrics.set_tripped("v2", True)
    metrics.count_trip("v2")
    metrics.set_routing(declared(1, v1=9000, v2=1000))
    assert samples(metrics.text())['mlops_version_tripped{version="v2"}'] == 1
    metrics.set_routing(declared(2, v1=9000, v2=1000))
    found = samples(metrics.text())
    assert found['mlops_version_tripped{version="v2"}'] == 0
    assert found['mlops_guard_trips_total{version="v2"}'] == 1


def test_counters_of_all_replicas_are_summed_those_that_are_gone_included() -> None:
    replicas = [replica(f"r{number}") for number in range(4)]
    for number, each in enumerate(replicas, 1):
        for _ in range(number):
            each.count_request("/predict", 200, "stable", "v1")
            each.count_answer("stable", "v1", rows=2, seconds=0.01 * number)
    snapshots = [each.snapshot() for each in replicas]
    everything = samples(exposition(snapshots, deployment="flights"))
    some_gone = samples(exposition(snapshots[:2], snapshots[2:], deployment="flights"))
    rollup = samples(exposition(snapshots[:2], [summed(snapshots[2:])], deployment="flights"))
    key = 'mlops_requests_total{endpoint="/predict",status="200",variant="stable",version="v1"}'
    for found in (everything, some_gone, rollup):
        assert found[key] == 10
        assert found['mlops_rows_total{variant="stable",version="v1"}'] == 20
        assert found['mlops_request_latency_seconds_count{variant="stable",version="v1"}'] == 10
        total = found['mlops_request_latency_seconds_sum{variant="stable",version="v1"}']
        assert abs(total - 0.30) < 1e-9
    assert everything["mlops_gateway_replicas"] == 4
    assert some_gone["mlops_gateway_replicas"] == rollup["mlops_gateway_replicas"] == 2
    assert not [name for name in rollup if "replica=" in name and "r3" in name]


def test_gauges_are_those_of_the_newest_revision_and_answers_the_least_of_them() -> None:
    old, one, two, dead = (replica(name) for name in ("old", "one", "two", "dead"))
    old.set_routing(declared(1, v1=10000))
    old.set_answers("v1", False)
    for each in (one, two, dead):
        each.set_routing(declared(2, v1=5000, v2=5000))
        each.set_answers("v1", True)
        each.set_answers("v2", each is one)
        each.set_in_gateway("v1", each is one)
        each.set_in_flight(5)
    two.set_tripped("v2", True)
    old.set_in_flight(2)
    snapshots = [each.snapshot() for each in (old, one, two)]
    text = exposition(snapshots, [dead.snapshot()], deployment="flights", aggregator_reachable=True)
    found = samples(text)
    expected = {
        'mlops_traffic_weight{version="v2"}': 0.5,
        'mlops_version_answers{version="v1"}': 1,
        'mlops_version_answers{version="v2"}': 0,
        'mlops_version_tripped{version="v2"}': 1,
        'mlops_version_tripped{version="v1"}': 0,
        'mlops_stable_in_gateway{version="v1"}': 0,
        "mlops_routing_revision": 2,
        "mlops_gateway_replicas": 3,
        'mlops_replica_revision{replica="old"}': 1,
        'mlops_replica_revision{replica="two"}': 2,
        "mlops_requests_in_flight": 12,
        "mlops_referee_reachable": 1,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_trip_that_several_replicas_know_of_counts_once() -> None:
    replicas = [replica("r1"), replica("r2")]
    for revision in (1, 2):
        for each in replicas:
            each.set_routing(declared(revision, v1=9000, v2=1000))
            each.count_trip("v2")
            each.count_trip("v2")
    snapshots = [each.snapshot() for each in replicas]
    assert samples(exposition(snapshots, deployment="flights"))['mlops_guard_trips_total{version="v2"}'] == 2
    gone = [summed([snapshot]) for snapshot in snapshots]
    text = exposition([], [summed(gone)], deployment="flights")
    assert samples(text)['mlops_guard_trips_total{version="v2"}'] == 2


def test_label_values_are_escaped() -> None:
    metrics = replica()
    metrics.count_failure('v"2\\\n', "timeout")
    families = list(text_string_to_metric_families(metrics.text().decode()))
    labels = [
        sample.labels["version"]
        for family in families
        for sample in family.samples
        if sample.labels.get("reason")
    ]
    assert labels == ['v"2\\\n']


def test_a_snapshot_is_plain_and_later_calls_do_not_change_it() -> None:
    metrics = replica()
    metrics.set_routing(declared(1, v1=9000, v2=1000))

    def count() -> None:
        metrics.count_request("/predict", 200, "stable", "v1")
        metrics.count_answer("stable", "v1", rows=1, seconds=0.1)
        metrics.count_trip("v2")
        metrics.set_tripped("v2", True)

    count()
    before: MetricsSnapshot = metrics.snapshot()
    copy = pickle.loads(pickle.dumps(before))
    count()
    metrics.set_answers("v2", True)
    assert before == copy


def test_nothing_at_all_is_a_valid_text() -> None:
    found = samples(exposition([], deployment="flights", aggregator_reachable=False))
    assert found == {
        "mlops_gateway_replicas": 0,
        "mlops_requests_in_flight": 0,
        "mlops_referee_reachable": 0,
    }
