"""What makes a canary trip, and above all what does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.evidence import Collector, Reason, merged
from serve.guard import Guard
from serve.schema import LATENCY_BOUNDS_S, GuardRules


class Watched:
    """A guard over a collector, on a clock that the test moves."""

    def __init__(self, **rules: Any) -> None:
        self.rules = GuardRules(**rules)
        self.guard = Guard(self.rules, revision=7)
        self.now = 1_000.0
        self.counting = Collector(clock=lambda: self.now)
        self.counting.start(7)

    def fail(self, times: int, reason: Reason = "model_error", version: str = "v2") -> None:
        for _ in range(times):
            self.counting.failed(version, reason, 0.01)

    def answer(self, times: int, seconds: float = 0.01, version: str = "v2") -> None:
        for _ in range(times):
            self.counting.answered(version, seconds, 0.5)

    def shadow(self, times: int, seconds: float = 0.01) -> None:
        for _ in range(times):
            self.counting.shadow_answered(
                "v2", seconds=seconds, live_seconds=0.01, output=0.5, live_output=0.5, distance=0.0
            )

    def look(self, after_s: float = 0.25) -> dict[str, str]:
        self.now += after_s
        return self.guard.observe(self.now, *merged([self.counting.snapshot()], 7), stable="v1")


def test_no_evidence_trips_nothing() -> None:
    watched = Watched()
    assert watched.look() == watched.look() == {}


@pytest.mark.parametrize("reason", ["model_error", "timeout", "lost", "gone", "non_finite"])
def test_one_error_never_trips_however_sharp_the_rules(reason: Reason) -> None:
    watched = Watched(
        min_requests=1, min_errors=2, max_error_rate=0, max_p95_ms=1, max_non_finite=1, max_losses=1
    )
    watched.fail(1, reason)
    watched.counting.lost("v2")
    assert watched.look() == {}


def test_a_rate_above_the_limit_trips_and_says_how_many_of_what() -> None:
    watched = Watched()
    watched.answer(28)
    watched.fail(2, "model_error")
    watched.fail(10, "timeout")
    assert watched.look() == {
        "v2": "12 of 40 requests failed in the last 30 s (30.0 %, allowed 5 %): 10 timeout, 2 model_error"
    }


def test_too_few_requests_or_too_few_errors_do_not_trip() -> None:
    watched = Watched()
    watched.fail(19)
    assert watched.look() == {}
    watched.fail(1)
    assert "20 of 20 requests failed" in watched.look()["v2"]

    watched = Watched()
    watched.answer(20)
    watched.fail(4)
    assert watched.look() == {}
    watched.fail(1)
    assert "5 of 25 requests failed" in watched.look()["v2"]


@pytest.mark.parametrize("percent", range(1, 100))
def test_exactly_the_allowed_rate_does_not_trip(percent: int) -> None:
    watched = Watched(max_error_rate=percent / 100, min_errors=2)
    watched.answer(200 - 2 * percent)
    watched.fail(2 * percent)
    assert watched.look() == {}
    watched.fail(1)
    assert "v2" in watched.look()


def test_stable_is_never_tripped() -> None:
    watched = Watched()
    watched.fail(100, version="v1")
    for _ in range(10):
        watched.counting.lost("v1")
        watched.counting.shadow_failed("v1", "non_finite", 5.0)
    assert watched.look() == {}


def test_what_is_older_than_the_window_does_not_count() -> None:
    watched = Watched(window_s=10.0)
    watched.fail(4)
    watched.answer(4)
    watched.look()
    for _ in range(60):
        watched.answer(1)
        assert watched.look() == {}
    watched.fail(4)
    assert watched.look() == {}, "4 old and 4 new errors, and only 5 within the window trip"
    watched.fail(1)
    assert watched.look()["v2"].startswith("5 of ")


def test_errors_within_the_window_count_wherever_they_lie_in_it() -> None:
    watched = Watched(window_s=10.0, max_error_rate=0.01)
    for _ in range(5):
        watched.answer(10)
        watched.fail(1)
        tripped = watched.look(1.9)
    assert tripped["v2"].startswith("5 of 55 requests failed in the last 10 s")


def test_a_sick_spell_is_over_when_the_window_has_passed() -> None:
    watched = Watched(window_s=10.0)
    watched.fail(40)
    assert watched.look() != {}
    watched.look()
    assert watched.look(9.0) != {}
    assert watched.look(2.0) == {}


def test_observing_often_keeps_a_bounded_number_of_samples() -> None:
    watched = Watched(window_s=10.0)
    for _ in range(5_000):
        watched.answer(1)
        watched.look(0.01)
    assert len(watched.guard._samples) <= 122


def test_counts_of_before_a_rebase_do_not_trip() -> None:
    watched = Watched()
    watched.fail(100, "lost")
    for _ in range(10):
        watched.counting.lost("v2")
    watched.guard.rebase(watched.now, *merged([watched.counting.snapshot()], 7))
    assert watched.look() == {}
    watched.fail(20, "lost")
    assert watched.look()["v2"].startswith("20 of 20 requests failed")


def test_a_crash_loop_trips() -> None:
    watched = Watched(max_losses=3)
    for _ in range(3):
        watched.counting.lost("v2")
    assert watched.look() == {}
    watched.counting.lost("v2")
    assert watched.look() == {"v2": "it stopped answering 4 times in the last 30 s (allowed 3)"}


def test_non_finite_outputs_trip_without_a_minimum_of_requests() -> None:
    watched = Watched(max_non_finite=2)
    watched.fail(2, "non_finite")
    assert watched.look() == {}
    watched.fail(1, "non_finite")
    assert watched.look() == {"v2": "3 non-finite outputs in the last 30 s (allowed 2)"}


def test_slow_answers_trip_when_more_than_one_in_twenty_is() -> None:
    watched = Watched(max_p95_ms=500.0)
    watched.answer(95)
    watched.answer(5, 0.51)
    assert watched.look() == {}
    watched.answer(1, 0.51)
    assert watched.look() == {
        "v2": "6 of 101 requests took more than 500 ms in the last 30 s (5.9 %, allowed 5 % above 500 ms)"
    }


def test_few_slow_answers_do_not_trip_even_if_they_are_more_than_one_in_twenty() -> None:
    watched = Watched(min_errors=5)
    watched.answer(20)
    watched.answer(4, 2.0)
    assert watched.look() == {}


def test_a_limit_that_is_no_bound_never_trips_too_early() -> None:
    watched = Watched(max_p95_ms=600.0)
    watched.answer(50, 0.74)
    assert watched.look() == {}, "between 0.5 s and 0.75 s: some may be below 0.6 s"
    watched.answer(50, 0.76)
    assert "50 of 100 requests took more than 750 ms" in watched.look()["v2"]


@given(st.floats(0.1, 20_000.0), st.floats(0.0, 20.0))
def test_no_limit_trips_on_answers_within_it(limit_ms: float, seconds: float) -> None:
    watched = Watched(max_p95_ms=limit_ms)
    watched.answer(100, seconds)
    if watched.look():
        assert seconds * 1000 > limit_ms


@pytest.mark.parametrize("bound", LATENCY_BOUNDS_S)
def test_a_limit_that_is_a_bound_is_exact(bound: float) -> None:
    watched = Watched(max_p95_ms=bound * 1000)
    watched.answer(100, bound)
    assert watched.look() == {}
    watched.answer(100, bound * 1.001)
    assert "v2" in watched.look()


def test_without_a_latency_limit_nothing_is_slow() -> None:
    watched = Watched(max_p95_ms=None)
    watched.answer(100, 20.0)
    assert watched.look() == {}


def test_timeouts_count_as_slow_as_they_were() -> None:
    watched = Watched(max_error_rate=0.5)
    watched.answer(50)
    for _ in range(10):
        watched.counting.failed("v2", "timeout", 1.0)
    assert watched.look()["v2"].startswith("10 of 60 requests took more than 500 ms")


def test_all_rules_that_apply_are_said() -> None:
    watched = Watched()
    watched.fail(20, "non_finite")
    reason = watched.look()["v2"]
    assert reason.split("; ") == [
        "20 of 20 requests failed in the last 30 s (100.0 %, allowed 5 %): 20 non_finite",
        "20 non-finite outputs in the last 30 s (allowed 2)",
    ]


def test_shadows_are_judged_by_the_same_rules() -> None:
    watched = Watched()
    watched.shadow(30)
    assert watched.look() == {}
    for _ in range(10):
        watched.counting.shadow_failed("v2", "gone", 0.01)
    assert watched.look() == {
        "v2": "as a shadow, 10 of 40 requests failed in the last 30 s (25.0 %, allowed 5 %): 10 gone"
    }
    slow = Watched()
    slow.shadow(30, seconds=0.8)
    assert slow.look()["v2"].startswith("as a shadow, 30 of 30 requests took more than 500 ms")


def test_shed_shadows_are_nobodys_fault() -> None:
    watched = Watched()
    watched.shadow(30)
    for _ in range(1_000):
        watched.counting.shadow_shed("v2")
    assert watched.look() == {}


def test_a_long_gap_between_looks_still_counts_what_came_meanwhile() -> None:
    watched = Watched(window_s=10.0)
    watched.answer(5)
    watched.look()
    watched.look()
    watched.fail(20)
    assert watched.look(60.0)["v2"].startswith("20 of 20 requests failed")
