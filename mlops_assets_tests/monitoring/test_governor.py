"""The governor's limits: said in words, held under any sequence of events, and never for ever."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import ValidationError

from mlops_assets.monitoring.episodes import (
    AttemptFacts,
    EpisodeLog,
    LoopFacts,
    LoopRules,
    ManualRetrain,
    close,
    grant,
    next_action,
    open_episode,
    record_outcome,
)
from mlops_assets.monitoring.governor import AttemptOutcome, GovernorPolicy, Grant, back_off, permit
from mlops_assets.monitoring.policy import DriftVerdict, SignalState

NOW = datetime(2013, 6, 3, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
POLICY = GovernorPolicy()


def granted(episode: int, number: int, ago: timedelta, outcome: AttemptOutcome = "rejected") -> Grant:
    return Grant(episode, number, NOW - ago, outcome, None if outcome == "running" else NOW - ago)


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"longest_back_off \(1 hour\) is shorter than first_back_off"):
        GovernorPolicy(first_back_off=DAY, longest_back_off=HOUR)
    with pytest.raises(ValidationError, match="cooldown must not be negative"):
        GovernorPolicy(cooldown=-DAY)


def test_nothing_is_granted_beside_a_run_or_an_attempt_under_way() -> None:
    busy = permit(POLICY, [], episode=1, in_flight="abc", now=NOW)
    assert not busy.allowed and busy.reason == "run abc is under way: one at a time" and busy.next_at is None
    running = permit(POLICY, [granted(1, 1, 30 * DAY, "running")], episode=2, in_flight=None, now=NOW)
    assert not running.allowed and "attempt 1.1 has not ended" in running.reason


def test_the_first_retrain_ever_is_allowed_at_once() -> None:
    assert permit(POLICY, [], episode=1, in_flight=None, now=NOW).allowed


def test_back_off_doubles_with_each_unsuccessful_attempt_up_to_the_longest() -> None:
    pauses = [back_off(POLICY, count) / DAY for count in range(8)]
    assert pauses == [0, 1, 2, 4, 8, 14, 14, 14]
    assert back_off(GovernorPolicy(first_back_off=timedelta(0)), 10_000) == timedelta(0)
    assert back_off(POLICY, 10_000) == 14 * DAY


@pytest.mark.parametrize("outcome", ["rejected", "inconclusive", "failed"])
def test_an_unsuccessful_attempt_is_tried_again_after_its_back_off(outcome: AttemptOutcome) -> None:
    earlier = [granted(1, 1, 3 * DAY, outcome), granted(1, 2, 1.5 * DAY, outcome)]
    found = permit(POLICY, earlier, episode=1, in_flight=None, now=NOW)
    assert not found.allowed and found.next_at == NOW + 0.5 * DAY
    assert f"2 attempts were unsuccessful (the last {outcome}): back-off of 2 days" in found.reason
    assert permit(POLICY, earlier, episode=1, in_flight=None, now=found.next_at).allowed


def test_the_cooldown_is_between_first_attempts_of_episodes() -> None:
    earlier = [granted(1, 1, 6 * DAY, "promoted")]
    found = permit(POLICY, earlier, episode=2, in_flight=None, now=NOW)
    assert not found.allowed and found.next_at == NOW + DAY and "cooldown of 7 days" in found.reason
    # A later attempt of the earlier episode does not lengthen it.
    more = [granted(1, 1, 8 * DAY), granted(1, 2, 3 * DAY, "promoted")]
    assert permit(POLICY, more, episode=2, in_flight=None, now=NOW).allowed


def test_the_budget_is_of_any_24_hours() -> None:
    policy = GovernorPolicy(cooldown=timedelta(0), daily_budget=2)
    spent = [granted(1, 1, 23 * HOUR, "promoted"), granted(2, 1, 2 * HOUR, "promoted")]
    found = permit(policy, spent, episode=3, in_flight=None, now=NOW)
    assert not found.allowed and found.next_at == NOW + HOUR and "the daily budget is 2" in found.reason
    assert permit(policy, spent, episode=3, in_flight=None, now=NOW + HOUR).allowed
    older = [granted(1, 1, 25 * HOUR, "promoted"), granted(2, 1, 2 * HOUR, "promoted")]
    assert permit(policy, older, episode=3, in_flight=None, now=NOW).allowed


def test_a_clock_that_was_years_ahead_once_holds_no_retrain_back_until_then() -> None:
    """Whatever it wrote: the first grant of another episode, an attempt of this one, or the day's budget."""
    ahead = -7 * 365 * DAY
    for earlier in (
        [granted(1, 1, ahead, "promoted")],
        [granted(2, 1, ahead, "failed")],
        [granted(1, number, ahead, "promoted") for number in (2, 3)],
    ):
        found = permit(POLICY, earlier, episode=2, in_flight=None, now=NOW)
        assert found.allowed and "written by a wrong clock and do not count" in found.reason
    # What the right clock wrote holds on beside it.
    both = [granted(1, 1, DAY, "promoted"), granted(2, 1, ahead, "promoted")]
    found = permit(POLICY, both, episode=3, in_flight=None, now=NOW)
    assert not found.allowed and found.next_at == NOW + 6 * DAY


@pytest.mark.parametrize("hours", [1, 23])
def test_a_clock_that_was_set_back_a_little_frees_no_retrain(hours: int) -> None:
    near = [granted(1, 1, -hours * HOUR, "rejected")]
    for episode, length in ((1, DAY), (2, 7 * DAY)):
        found = permit(POLICY, near, episode=episode, in_flight=None, now=NOW)
        assert not found.allowed and found.next_at == NOW + hours * HOUR + length
        assert permit(POLICY, near, episode=episode, in_flight=None, now=found.next_at).allowed


def test_the_limit_that_lasts_longest_is_told() -> None:
    policy = GovernorPolicy(daily_budget=1)
    found = permit(policy, [granted(1, 1, HOUR, "promoted")], episode=2, in_flight=None, now=NOW)
    assert found.next_at == NOW - HOUR + 7 * DAY and "cooldown" in found.reason


def drift_storm(policy: GovernorPolicy, outcome: AttemptOutcome, data: Callable[[int], str]) -> int:
    """Retrains granted for 1000 drift events within an hour, each retrain over before the next event."""
    log, grants = EpisodeLog(), 0
    facts = LoopFacts(served="v7", data="0")
    for event in range(1000):
        now = NOW + event * HOUR / 1000
        facts = LoopFacts(served="v7", data=data(event), attempt=facts.attempt)
        for _ in range(5):
            # Each event is of windows that ended since the last grant: nothing but the governor limits.
            shown = SignalState("prediction", "open", 1, 1, 1, 1, "said", evidence_since=now.isoformat())
            verdict = DriftVerdict("open", "predictions drifted", "v7", (shown,))
            step = next_action(log, verdict, facts, LoopRules(policy), now)
            log = step.log
            if step.kind == "wait":
                break
            if step.kind == "grant":
                grants += 1
                made = log.open.request_version if log.open else None
                facts = LoopFacts(
                    served="v7", data=facts.data, attempt=AttemptFacts(outcome, "said", request=made)
                )
    return grants


@pytest.mark.parametrize("outcome", ["promoted", "rejected", "inconclusive", "failed"])
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_thousand_drift_events_within_an_hour_get_exactly_the_budget(
    outcome: AttemptOutcome, budget: int
) -> None:
    nothing_else_limits = GovernorPolicy(
        cooldown=timedelta(0), daily_budget=budget, first_back_off=timedelta(0)
    )
    assert drift_storm(nothing_else_limits, outcome, str) == budget


@pytest.mark.parametrize("outcome", ["promoted", "rejected", "inconclusive", "failed"])
def test_a_storm_gets_one_retrain_by_default_because_the_other_limits_hold_too(
    outcome: AttemptOutcome,
) -> None:
    assert drift_storm(GovernorPolicy(), outcome, str) == 1


def test_a_storm_on_unchanged_data_never_trains_the_same_model_twice() -> None:
    loose = GovernorPolicy(cooldown=timedelta(0), daily_budget=9, first_back_off=timedelta(0))
    assert drift_storm(loose, "rejected", lambda event: "same") == 1
    assert drift_storm(loose, "failed", lambda event: "same") == 9


class Loop(RuleBasedStateMachine):
    """The drift sensor against a world that does anything in any order."""

    policy = GovernorPolicy(
        cooldown=timedelta(days=2), daily_budget=2, first_back_off=HOUR, longest_back_off=DAY
    )

    def __init__(self) -> None:
        super().__init__()
        self.log, self.now, self.data = EpisodeLog(), NOW, 0
        self.drift, self.shown_at = False, NOW
        self.served, self.successor = 7, None
        self.made = 7
        self.running: str | None = None
        self.attempt = AttemptFacts()
        self.granted_at: list[datetime] = []
        self.overlaps = 0
        self.asked: ManualRetrain | None = None

    def facts(self) -> LoopFacts:
        return LoopFacts(
            served=f"v{self.served}",
            successor=f"v{self.successor}" if self.successor else None,
            in_flight=self.running,
            attempt=self.attempt,
            data=str(self.data),
            asked=self.asked,
        )

    @rule(override=st.booleans())
    def person_asks(self, override: bool) -> None:
        self.asked = ManualRetrain("ana", "said", override)
        self.tick()

    @rule()
    def tick(self) -> None:
        shown = SignalState(
            "prediction", "open", 1, 1, 1, 1, "said", evidence_since=self.shown_at.isoformat()
        )
        signals = (shown,) if self.drift else ()
        verdict = DriftVerdict("open" if self.drift else "quiet", "said", f"v{self.served}", signals)
        for _ in range(10):
            step = next_action(self.log, verdict, self.facts(), LoopRules(self.policy), self.now)
            self.log = EpisodeLog.loads(step.log.dumps())
            if step.kind in ("wait", "reconcile", "refuse"):
                self.asked = None if step.kind == "refuse" else self.asked
                return
            if step.kind == "grant":
                self.asked = None
                self.overlaps += self.running is not None
                assert self.log.open is not None
                self.running = self.log.open.request_version
                if not self.log.open.attempts[-1].overrode:
                    self.granted_at.append(self.now)
                self.attempt = AttemptFacts("running", request=self.running)
        raise AssertionError("the decision never came to rest")

    @rule(outcome=st.sampled_from(["promoted", "rejected", "inconclusive", "failed"]))
    @precondition(lambda self: self.running is not None)
    def run_ends(self, outcome: AttemptOutcome) -> None:
        version = None
        if outcome == "promoted":
            self.made += 1
            self.successor = self.made
            version = f"v{self.made}"
        self.attempt = AttemptFacts(outcome, "said", version, ended_at=self.now, request=self.running)
        self.running = None

    @rule(kept=st.booleans())
    @precondition(lambda self: self.successor is not None)
    def rollout_ends(self, kept: bool) -> None:
        assert self.successor is not None
        if kept:
            self.served = self.successor
        self.successor = None

    @rule(drift=st.booleans())
    def windows_are_judged(self, drift: bool) -> None:
        self.drift, self.shown_at = drift, self.now

    @rule(minutes=st.integers(1, 60 * 24 * 3))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def data_comes(self) -> None:
        self.data += 1

    @rule()
    @precondition(lambda self: self.log.open is not None)
    def person_closes(self) -> None:
        self.log = close(self.log, by="ada", reason="expected", now=self.now)

    @invariant()
    def never_two_in_flight(self) -> None:
        assert self.overlaps == 0
        running = [one for one in self.log.grants if one.outcome == "running"]
        assert len(running) <= 1

    @invariant()
    def never_beyond_the_budget(self) -> None:
        for at in self.granted_at:
            day = [one for one in self.granted_at if at - DAY < one <= at]
            assert len(day) <= self.policy.daily_budget

    @invariant()
    def at_most_one_episode_is_open_and_numbers_grow(self) -> None:
        numbers = [one.number for one in self.log.episodes]
        assert numbers == sorted(set(numbers))
        assert not any(one.is_open for one in self.log.episodes[:-1])

    def teardown(self) -> None:
        """Whatever happened: an open episode is granted a retrain once runs end, data and time go on, and so
        do windows that show it.
        """
        if self.running is not None:
            self.run_ends("failed")
        self.successor = None
        if self.log.open is None:
            return
        before = len(self.granted_at)
        for _ in range(40):
            self.windows_are_judged(True)
            self.tick()
            if len(self.granted_at) > before or self.log.open is None:
                return
            self.now += DAY / 2
            self.data += 1
        raise AssertionError("an open episode was never granted a retrain")


Loop.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLoop = Loop.TestCase


def test_a_backlog_of_episodes_is_remembered_for_the_budget_through_json() -> None:
    log = EpisodeLog()
    for number in range(60):
        log = open_episode(log, version="v7", reason="said", now=NOW + number * DAY)
        log = grant(log, data=str(number), now=NOW + number * DAY)
        log = record_outcome(log, "promoted", reason="", ended_at=NOW + number * DAY)
        log = close(log, by="gate", reason="", now=NOW + number * DAY)
    read = EpisodeLog.loads(log.dumps())
    assert read == log and len(read.episodes) == 50 and read.newest is not None and read.newest.number == 60
