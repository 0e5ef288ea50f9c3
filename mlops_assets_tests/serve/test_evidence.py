"""What a replica counts, and that merging replicas loses nothing."""

import pickle
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.evidence import Collector, merged, merged_series, summed
from serve.schema import LATENCY_BOUNDS_S, VersionEvidence

SERIES = st.lists(st.floats(-1e6, 1e6), max_size=30)


def collector(revision: int = 7, since: float = 50.0) -> Collector:
    made = Collector(clock=lambda: since)
    made.start(revision)
    return made


def bucket(seconds: float) -> int:
    """Index of the only count of a request that took this long."""
    counting = collector()
    counting.answered("v2", seconds, 0.5)
    latency = counting.snapshot().versions["v2"].latency
    assert sum(latency) == 1 and len(latency) == len(LATENCY_BOUNDS_S) + 1
    return latency.index(1)


def test_snapshots_of_another_revision_add_nothing() -> None:
    one, other = collector(7), collector(6)
    one.answered("v2", 0.01, 0.5)
    other.answered("v2", 0.01, 0.5)
    assert merged([one.snapshot(), other.snapshot()], 7)[0]["v2"].requests == 1
    assert merged([other.snapshot()], 7) == ({}, {})


def test_bounds_are_inclusive_and_the_last_count_is_what_is_above_all() -> None:
    assert bucket(0.0) == bucket(LATENCY_BOUNDS_S[0]) == 0
    assert bucket(0.001_000_1) == 1
    assert bucket(0.5) == LATENCY_BOUNDS_S.index(0.5)
    assert bucket(10.0) == len(LATENCY_BOUNDS_S) - 1
    assert bucket(10.000_1) == bucket(1e9) == len(LATENCY_BOUNDS_S)


def test_answers_failures_and_losses_are_counted_apart() -> None:
    counting = collector()
    for output in (0.2, 0.4, 0.9):
        counting.answered("v2", 0.004, output)
    counting.failed("v2", "timeout", 1.0)
    counting.failed("v2", "timeout", 1.0)
    counting.failed("v2", "non_finite", 0.004)
    counting.lost("v2")
    counting.lost("v1")
    versions, shadows = merged([counting.snapshot()], 7)
    found = versions["v2"]
    assert (found.requests, found.errors, found.losses) == (6, {"timeout": 2, "non_finite": 1}, 1)
    assert sum(found.latency) == 6
    assert found.outputs.count == 3
    assert found.outputs.mean == pytest.approx(0.5)
    assert found.outputs.m2 == pytest.approx(0.26)
    assert versions["v1"] == VersionEvidence(losses=1)
    assert shadows == {}


def test_shadows_are_paired_with_the_live_answers() -> None:
    counting = collector()
    pairs = [(0.5, 0.4, 0.01, 0.002), (0.1, 0.3, 0.02, 0.003)]
    for output, live, seconds, live_seconds in pairs:
        counting.shadow_answered(
            "v3",
            seconds=seconds,
            live_seconds=live_seconds,
            output=output,
            live_output=live,
            distance=abs(output - live),
        )
    counting.shadow_failed("v3", "model_error", 0.001)
    counting.shadow_shed("v3")
    found = merged([counting.snapshot()], 7)[1]["v3"]
    assert (found.requests, found.errors, found.shed) == (3, {"model_error": 1}, 1)
    assert (sum(found.latency), sum(found.live_latency)) == (3, 2)
    assert found.outputs.mean == pytest.approx(0.3)
    assert found.live_outputs.mean == pytest.approx(0.35)
    assert found.differences.mean == pytest.approx(-0.05)
    assert found.distances.mean == pytest.approx(0.15)
    assert found.differences.count == found.distances.count == 2


def test_the_same_revision_goes_on_and_a_new_one_begins_at_zero() -> None:
    now = 50.0
    counting = Collector(clock=lambda: now)
    assert counting.snapshot().revision is None
    counting.start(7)
    counting.answered("v2", 0.01, 0.5)
    now = 60.0
    counting.start(7)
    assert counting.snapshot().versions["v2"].requests == 1
    assert counting.snapshot().since == 50.0
    counting.start(8)
    assert counting.snapshot() == (8, 60.0, {}, {})


def test_a_snapshot_is_plain_and_later_calls_do_not_change_it() -> None:
    counting = collector()
    counting.answered("v2", 0.01, 0.5)
    counting.failed("v2", "lost", 0.01)
    before = counting.snapshot()
    copy = pickle.loads(pickle.dumps(before))
    counting.answered("v2", 0.01, 0.5)
    counting.failed("v2", "lost", 0.01)
    assert before == copy


def test_the_sum_began_with_the_earliest_replica() -> None:
    snapshots = [collector(7, 60.0).snapshot(), collector(7, 40.0).snapshot(), collector(6, 1.0).snapshot()]
    assert summed(snapshots, 7, now=99.0).since == 40.0
    assert summed(snapshots, 8, now=99.0) == (8, 99.0, {}, {})


@given(st.lists(SERIES, min_size=1, max_size=4))
def test_merged_moments_are_those_of_all_values_together(parts: list[list[float]]) -> None:
    snapshots = []
    for part in parts:
        counting = collector()
        for value in part:
            counting.answered("v2", 0.01, value)
        snapshots.append(counting.snapshot())
    values = [value for part in parts for value in part]
    found = merged(snapshots, 7)[0].get("v2", VersionEvidence()).outputs
    assert found.count == len(values)
    if values:
        assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert found.m2 == pytest.approx(len(values) * statistics.pvariance(values), rel=1e-6, abs=1e-4)


def test_a_large_offset_does_not_swallow_the_deviations() -> None:
    counting = collector()
    for value in (1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16):
        counting.answered("v2", 0.01, value)
    series = counting.snapshot().versions["v2"].outputs
    assert series[2] == pytest.approx(90.0)
    assert merged_series(series, series)[2] == pytest.approx(180.0)
    assert merged_series() == (0, 0.0, 0.0)


@given(st.permutations(range(4)))
def test_counts_do_not_depend_on_the_order_of_replicas(order: list[int]) -> None:
    snapshots = []
    for replica in range(4):
        counting = collector()
        for _ in range(replica):
            counting.failed("v2", "gone", 0.2)
            counting.shadow_failed("v3", "timeout", 0.2)
        snapshots.append(counting.snapshot())
    versions, shadows = merged([snapshots[replica] for replica in order], 7)
    assert (versions["v2"].requests, versions["v2"].errors) == (6, {"gone": 6})
    assert (shadows["v3"].requests, shadows["v3"].errors) == (6, {"timeout": 6})
