"""An episode's life, and the one decision of the drift sensor in every situation that differs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mlops_assets.errors import DataError, EpisodeError
from mlops_assets.monitoring.episodes import (
    GATE,
    REFRESH,
    AttemptFacts,
    EpisodeLog,
    LoopAction,
    LoopFacts,
    LoopRules,
    ManualRetrain,
    close,
    grant,
    judge_again,
    lost_approval,
    next_action,
    open_episode,
    record_outcome,
)
from mlops_assets.monitoring.governor import AttemptOutcome, GovernorPolicy
from mlops_assets.monitoring.policy import DriftVerdict, SignalAction, SignalState
from mlops_assets.monitoring.relaunch import Launch, RelaunchPolicy

NOW = datetime(2013, 6, 3, 12, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
RULES = LoopRules(GovernorPolicy())
QUIET = DriftVerdict("quiet", "nothing moved", "v7")
SAID_OLD = "the newest training row of v7 is 46.0 days old, 45 are allowed"
AGE = SignalState("age", "refresh", 1, 1, 1, 1, SAID_OLD)
OLD = DriftVerdict("refresh", SAID_OLD, "v7", (AGE,))
AT_REST = LoopFacts(served="v7", data="2013-06-01", served_data="2013-03-31")


def drifting(version: str = "v7", since: datetime = NOW) -> DriftVerdict:
    signal = SignalState("prediction", "open", 2, 3, 2, 3, "said", evidence_since=since.isoformat())
    return DriftVerdict("open", "predictions drifted in 2 of 3 judged windows", version, (signal,))


def opened() -> EpisodeLog:
    return open_episode(EpisodeLog(), version="v7", reason="predictions drifted", now=NOW)


def attempted(outcome: AttemptOutcome | None = None, reason: str = "said") -> EpisodeLog:
    log = grant(opened(), data=str(AT_REST.data), now=NOW)
    return log if outcome is None else record_outcome(log, outcome, reason=reason, ended_at=NOW)


def step(
    log: EpisodeLog, decision: DriftVerdict = QUIET, facts: LoopFacts = AT_REST, now: datetime = NOW
) -> LoopAction:
    return next_action(log, decision, facts, RULES, now)


def launched(*what: str) -> tuple[Launch, ...]:
    """A launch for each that ended now, in real time."""
    return tuple(Launch(one, NOW, NOW) for one in what)


# -- transitions -------------------------------------------------------------------------------------------


def test_steps_that_an_episode_cannot_take_are_refused() -> None:
    with pytest.raises(EpisodeError, match="episode-1 on v7 is open: close it first"):
        open_episode(opened(), version="v8", reason="", now=NOW)
    with pytest.raises(EpisodeError, match="no episode is open that could be granted a retrain"):
        grant(EpisodeLog(), data="x", now=NOW)
    with pytest.raises(EpisodeError, match=r"attempt episode-1.1 is running: one at a time"):
        grant(attempted(), data="x", now=NOW)
    with pytest.raises(EpisodeError, match="none is running"):
        record_outcome(opened(), "failed", reason="", ended_at=NOW)
    with pytest.raises(EpisodeError, match="can end as running"):
        record_outcome(attempted(), "running", reason="", ended_at=NOW)
    with pytest.raises(EpisodeError, match="no episode is open that could be closed"):
        close(EpisodeLog(), by="ada", reason="", now=NOW)
    with pytest.raises(ValueError, match="needs a time zone"):
        open_episode(EpisodeLog(), version="v7", reason="", now=datetime(2013, 6, 3))


def test_a_log_survives_json_and_anything_else_is_refused() -> None:
    log = open_episode(
        close(attempted("rejected", "nié"), by="ada", reason="season", now=NOW),
        version="v8",
        reason="again",
        now=NOW + DAY,
    )
    assert EpisodeLog.loads(log.dumps()) == log
    assert EpisodeLog.loads("") == EpisodeLog()
    for text in ("{", "[]", "{}", '{"episodes": [{}]}', opened().dumps().replace("+00:00", "")):
        with pytest.raises(DataError, match="not a log of episodes"):
            EpisodeLog.loads(text)


def test_versions_of_signal_and_request_count_on() -> None:
    log = attempted("rejected")
    assert log.open is not None
    assert (log.open.data_version, log.open.request_version) == ("episode-1", "episode-1.1")
    again = grant(log, data="x", now=NOW)
    assert again.open is not None and again.open.request_version == "episode-1.2"


def test_closing_ends_the_running_attempt() -> None:
    closed = close(attempted(), by="ada", reason="the season", now=NOW).newest
    assert closed is not None and not closed.is_open and closed.closed_by == "ada"
    assert closed.attempts[-1].outcome == "inconclusive"
    assert closed.attempts[-1].reason == "closed by ada: the season"


# -- opening -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["quiet", "warn", "inconclusive"])
def test_only_a_decision_to_open_opens(action: str) -> None:
    found = step(EpisodeLog(), DriftVerdict(action, "said", "v7"))  # type: ignore[arg-type]
    assert found.kind == "wait" and found.reason == f"{action}: said"


def test_an_episode_opens_with_the_decisions_reason() -> None:
    found = step(EpisodeLog(), drifting())
    assert found.kind == "open" and found.episode == 1 and found.log.open is not None
    assert found.reason == "episode 1 opens on v7: predictions drifted in 2 of 3 judged windows"
    assert step(found.log, drifting()).kind == "grant"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (replace(AT_REST, served=None), "nothing answers"),
        (replace(AT_REST, served="v8"), "the windows are of v7, and v8 answers"),
        (replace(AT_REST, successor="v8"), "v8 passed the gate and is on its way"),
        (replace(AT_REST, in_flight="abc"), "run abc is under way and may bring a successor"),
    ],
)
def test_no_episode_opens_while_what_answers_is_about_to_change(facts: LoopFacts, says: str) -> None:
    found = step(EpisodeLog(), drifting(), facts)
    assert found.kind == "wait" and says in found.reason and found.log == EpisodeLog()


def test_what_a_person_closed_opens_again_only_on_windows_that_ended_since() -> None:
    closed = close(opened(), by="ada", reason="the season", now=NOW)
    found = step(closed, drifting(since=NOW), now=NOW + 30 * DAY)
    assert found.kind == "wait"
    assert "ada closed episode 1 on v7 (the season)" in found.reason
    assert step(closed, drifting(since=NOW + DAY), now=NOW + 30 * DAY).kind == "open"
    other = step(closed, drifting("v8", since=NOW), replace(AT_REST, served="v8"))
    assert other.kind == "open"


def test_a_successor_that_was_withdrawn_lets_the_next_episode_open_on_the_same_windows() -> None:
    closed = close(attempted("promoted"), by=GATE, reason="v8 passed the gate", now=NOW)
    again = step(closed, drifting(since=NOW - DAY))
    assert again.kind == "open" and again.episode == 2
    held = step(again.log, drifting())
    assert held.kind == "wait"
    assert "attempt 1.1 (promoted) was made from the same data; newer data" in held.reason
    newer = replace(AT_REST, data="2013-06-02")
    cooling = step(again.log, drifting(), newer)
    assert cooling.kind == "wait" and cooling.next_at == NOW + 7 * DAY
    assert step(again.log, drifting(), newer, NOW + 7 * DAY).kind == "grant"


# -- granting ----------------------------------------------------------------------------------------------


def test_a_grant_names_data_and_attempt() -> None:
    found = step(opened())
    assert (found.kind, found.episode, found.attempt) == ("grant", 1, 1)
    assert found.log.open is not None
    assert found.log.open.attempts[0].data == "2013-06-01"
    assert found.reason == "retrain episode-1.1 is granted for v7: predictions drifted"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (replace(AT_REST, served=None), "nothing answers"),
        (replace(AT_REST, in_flight="abc"), "run abc is under way"),
        (replace(AT_REST, data=None), "training data is not known"),
        (replace(AT_REST, served_data="2013-06-01"), "v7 was trained on all the data there is"),
    ],
)
def test_an_open_episode_waits_when_a_retrain_could_bring_nothing(facts: LoopFacts, says: str) -> None:
    found = step(opened(), facts=facts)
    assert found.kind == "wait" and says in found.reason and found.log == opened()


@pytest.mark.parametrize("outcome", ["rejected", "inconclusive"])
def test_a_candidate_that_did_not_pass_is_tried_again_with_newer_data_and_after_back_off(
    outcome: AttemptOutcome,
) -> None:
    log, newer, still = attempted(outcome), replace(AT_REST, data="2013-06-02"), drifting(since=NOW + MINUTE)
    same = step(log, still, now=NOW + 30 * DAY)
    assert same.kind == "wait"
    assert f"attempt 1.1 ({outcome}) was made from the same data" in same.reason
    early = step(log, still, newer, NOW + DAY / 2)
    assert early.kind == "wait" and early.next_at == NOW + DAY
    assert step(log, still, newer, NOW + DAY).kind == "grant"


@pytest.mark.parametrize("action", ["quiet", "warn", "inconclusive"])
@pytest.mark.parametrize("outcome", ["rejected", "inconclusive"])
def test_an_episode_whose_evidence_is_gone_is_granted_no_further_retrain(
    outcome: AttemptOutcome, action: SignalAction
) -> None:
    log, newer = attempted(outcome), replace(AT_REST, data="2013-06-02")
    found = step(log, DriftVerdict(action, "nothing moved", "v7"), newer, NOW + 90 * DAY)
    assert found.kind == "wait" and found.log == log and found.next_at is None
    assert found.reason == (
        f"episode 1 on v7 is open: attempt 1.1 was {outcome}, and the next waits until windows that ended "
        f"since show again what opens an episode ({action}: nothing moved)"
    )
    # It comes back, and so does the next attempt.
    assert step(log, drifting(since=NOW + 97 * DAY), newer, NOW + 97 * DAY).kind == "grant"


def test_the_windows_that_had_their_retrain_ask_for_no_other() -> None:
    log, newer = attempted("rejected"), replace(AT_REST, data="2013-06-02")
    for since in (NOW - DAY, NOW):
        found = step(log, drifting(since=since), newer, NOW + 30 * DAY)
        assert found.kind == "wait"
        assert "the next waits until windows that ended since show again what opens an episode (open:" in (
            found.reason
        )
    # The windows of another version that answers now tell of that one.
    back = replace(newer, served="v6")
    assert step(log, drifting("v6", since=NOW + 7 * DAY), back, NOW + 7 * DAY).kind == "grant"


def test_old_data_retrains_an_open_episode_as_often_as_it_would_without_one() -> None:
    log, newer = attempted("rejected"), replace(AT_REST, data="2013-08-01")
    early = step(log, OLD, newer, NOW + 44 * DAY)
    assert early.kind == "wait" and "refresh: the newest training row of v7 is 46.0 days old" in early.reason
    # Windows that had their retrain hide it no more than they ask for another.
    open_too = replace(AGE, action="open", evidence_since=(NOW - DAY).isoformat())
    for states in ((AGE,), (*drifting().signals, AGE), (open_too,)):
        assert step(log, DriftVerdict("open", "said", "v7", states), newer, NOW + 44 * DAY).kind == "wait"
        assert step(log, DriftVerdict("open", "said", "v7", states), newer, NOW + 45 * DAY).kind == "grant"
    found = step(log, OLD, newer, NOW + 45 * DAY)
    assert found.kind == "grant" and found.log.open is not None
    assert [one.number for one in found.log.open.attempts] == [1, 2]
    assert not found.log.open.asked_by


def test_a_failed_run_is_tried_again_after_back_off_whatever_the_data_and_the_windows() -> None:
    assert step(attempted("failed"), now=NOW + DAY / 2).kind == "wait"
    assert step(attempted("failed"), now=NOW + DAY).kind == "grant"
    # It was granted on evidence, and has not answered it.
    rejected = attempted("rejected")
    again = grant(rejected, data="2013-06-08", now=NOW + 7 * DAY)
    failed = record_outcome(again, "failed", reason="said", ended_at=NOW + 7 * DAY)
    newer = replace(AT_REST, data="2013-06-08")
    assert step(failed, facts=newer, now=NOW + 30 * DAY).kind == "grant"


# -- outcomes ----------------------------------------------------------------------------------------------


def test_a_running_attempt_is_waited_for() -> None:
    for attempt in (AttemptFacts(), AttemptFacts("running"), AttemptFacts(unread_for=MINUTE)):
        assert step(attempted(), facts=replace(AT_REST, attempt=attempt)).kind == "wait"


def test_an_outcome_is_recorded_once_and_a_promotion_closes_the_episode() -> None:
    ended = AttemptFacts("promoted", "log_loss better by 0.01", "v8", NOW + MINUTE)
    found = step(attempted(), facts=replace(AT_REST, attempt=ended))
    assert found.kind == "outcome" and found.log.open is not None
    assert found.log.open.attempts[-1].ended_at == (NOW + MINUTE).isoformat()
    last = step(found.log, facts=replace(AT_REST, attempt=ended, successor="v8"))
    assert last.kind == "close" and last.log.newest is not None
    assert last.log.newest.closed_by == GATE
    assert last.log.newest.close_reason == "v8 passed the gate: log_loss better by 0.01"
    after = step(last.log, drifting(), replace(AT_REST, successor="v8"))
    assert after.kind == "wait" and "on its way" in after.reason


def test_facts_of_an_earlier_attempt_are_not_taken_for_those_of_the_newest() -> None:
    second = grant(attempted("rejected"), data="2013-06-02", now=NOW + DAY)
    for old in (
        AttemptFacts("rejected", request="episode-1.1"),
        AttemptFacts("rejected", ended_at=NOW),
    ):
        assert step(second, facts=replace(AT_REST, attempt=old), now=NOW + DAY).kind == "wait"
    own = AttemptFacts("rejected", ended_at=NOW + DAY, request="episode-1.2")
    assert step(second, facts=replace(AT_REST, attempt=own), now=NOW + DAY).kind == "outcome"


@pytest.mark.parametrize(
    ("version", "served", "outcome", "ends"),
    [
        ("v7", "v7", "inconclusive", False),
        ("v7", "v6", "inconclusive", False),
        ("v6", "v6", "inconclusive", False),
        ("v8", "v8", "promoted", True),
        ("v8", "v7", "promoted", True),
    ],
)
def test_the_same_model_again_ends_no_episode(
    version: str, served: str, outcome: AttemptOutcome, ends: bool
) -> None:
    ended = AttemptFacts("promoted", "byte for byte the champion", version, NOW + MINUTE)
    facts = replace(AT_REST, served=served, successor=version if version != served else None, attempt=ended)
    found = step(attempted(), facts=facts)
    assert found.kind == "outcome" and found.log.open is not None
    attempt = found.log.open.attempts[-1]
    assert attempt.outcome == outcome
    assert ("trained the same model again" in attempt.reason) is not ends
    after = step(found.log, drifting(served, since=NOW + MINUTE), facts)
    assert after.kind == ("close" if ends else "wait")
    if not ends:
        assert "attempt 1.1 (inconclusive) was made from the same data" in after.reason


def test_a_version_that_passed_the_gate_without_a_grant_closes_the_episode_too() -> None:
    successor = step(opened(), facts=replace(AT_REST, successor="v8"))
    assert successor.kind == "close" and "v8 passed the gate" in successor.reason
    answers = step(opened(), facts=replace(AT_REST, served="v8"))
    assert answers.kind == "close" and "v8 passed the gate and answers" in answers.reason


def test_a_rollback_to_an_older_version_ends_no_episode() -> None:
    assert step(opened(), facts=replace(AT_REST, served="v6")).kind == "grant"


# -- what people ask for -----------------------------------------------------------------------------------

ASK = ManualRetrain("ana", "the price list changed")
ASKED = replace(AT_REST, asked=ASK)
OVERRIDDEN = replace(AT_REST, asked=replace(ASK, override=True))


def test_a_request_is_granted_as_an_episode_of_its_own_and_counts_for_every_limit() -> None:
    found = step(EpisodeLog(), facts=ASKED)
    assert found.kind == "grant"
    assert found.reason == (
        "retrain episode-1.1 is granted for v7: ana asked for a retrain (the price list changed)"
    )
    assert found.log.open is not None and found.log.open.asked_by == "ana"
    assert found.log.of_drift == EpisodeLog() and EpisodeLog.loads(found.log.dumps()) == found.log
    ended = record_outcome(found.log, "rejected", reason="worse", ended_at=NOW)
    closed = step(ended, drifting(), AT_REST)
    assert closed.kind == "close"
    assert closed.reason == "episode 1 ends: the retrain that ana asked for was rejected: worse"
    # The governor remembers it: drift and the next request wait for the cooldown like after any other.
    newer = replace(AT_REST, data="2013-06-02")
    drift = step(step(closed.log, drifting(), newer).log, drifting(), newer)
    assert drift.kind == "wait" and "cooldown of 7 days" in drift.reason
    assert step(closed.log, facts=replace(newer, asked=ASK)).kind == "refuse"


def test_a_request_that_passes_the_gate_ends_by_the_gate() -> None:
    granted = step(EpisodeLog(), facts=ASKED).log
    promoted = record_outcome(granted, "promoted", reason="v8 passed the gate", ended_at=NOW)
    found = step(promoted, facts=replace(AT_REST, successor="v8"))
    assert found.kind == "close" and found.log.newest is not None
    assert found.log.newest.closed_by == GATE


def refused_by_hand() -> list[tuple[EpisodeLog, LoopFacts, timedelta, str, datetime | None]]:
    back_off, asked_again = attempted("failed"), replace(ASKED, data="2013-06-02")
    cooling = close(attempted("rejected"), by="ada", reason="season", now=NOW)
    spent = EpisodeLog()
    for number in (1, 2):
        spent = open_episode(spent, version="v7", reason="said", now=NOW)
        spent = grant(spent, data=str(number), now=NOW)
        spent = close(record_outcome(spent, "failed", reason="", ended_at=NOW), by="ada", reason="", now=NOW)
    trained = replace(ASKED, served_data=AT_REST.data)
    return [
        (back_off, asked_again, DAY / 2, "back-off of 1 day", NOW + DAY),
        (cooling, asked_again, DAY, "cooldown of 7 days", NOW + 7 * DAY),
        (spent, asked_again, DAY / 2, "cooldown of 7 days", NOW + 7 * DAY),
        (EpisodeLog(), trained, DAY, "v7 was trained on all the data there is; newer data is waited", None),
        (EpisodeLog(), replace(ASKED, successor="v8"), DAY, "v8 passed the gate and is on its way", None),
    ]


@pytest.mark.parametrize(("log", "facts", "later", "says", "until"), refused_by_hand())
def test_a_request_is_held_to_each_limit_unless_a_person_overrides_it_by_name(
    log: EpisodeLog, facts: LoopFacts, later: timedelta, says: str, until: datetime | None
) -> None:
    found = step(log, facts=facts, now=NOW + later)
    assert found.kind == "refuse" and found.may_override and found.log == log
    assert "ana asked for a retrain (the price list changed): refused, " in found.reason
    assert says in found.reason and found.next_at == until
    nameless = ManualRetrain(reason="because", override=True)
    unnamed = step(log, facts=replace(facts, asked=nameless), now=NOW + later)
    assert unnamed.kind == "refuse" and "an override needs by and reason" in unnamed.reason
    overridden = step(log, facts=replace(facts, asked=OVERRIDDEN.asked), now=NOW + later)
    assert overridden.kind == "grant" and "; ana overrode: " in overridden.reason
    assert overridden.log.open is not None
    assert says in overridden.log.open.attempts[-1].overrode


def test_the_daily_budget_refuses_requests_too() -> None:
    policy = GovernorPolicy(cooldown=timedelta(0), daily_budget=1)
    spent = close(attempted("rejected"), by="ada", reason="season", now=NOW)
    found = next_action(spent, QUIET, replace(ASKED, data="2013-06-02"), LoopRules(policy), NOW + DAY / 2)
    assert found.kind == "refuse" and "the daily budget is 1" in found.reason
    assert found.next_at == NOW + DAY


@pytest.mark.parametrize(
    ("log", "facts", "says"),
    [
        (attempted(), OVERRIDDEN, "attempt 1.1 has not ended: one at a time"),
        (EpisodeLog(), replace(OVERRIDDEN, in_flight="abc"), "run abc is under way: one at a time"),
        (EpisodeLog(), replace(OVERRIDDEN, served=None), "nothing answers"),
        (EpisodeLog(), replace(OVERRIDDEN, data=None), "training data is not known"),
    ],
)
def test_no_override_puts_two_retrains_beside_each_other_or_makes_up_data(
    log: EpisodeLog, facts: LoopFacts, says: str
) -> None:
    found = step(log, facts=facts)
    assert found.kind == "refuse" and not found.may_override and says in found.reason


def test_a_request_that_names_nobody_is_judged_like_any_other() -> None:
    found = step(EpisodeLog(), facts=replace(AT_REST, asked=ManualRetrain()))
    assert found.kind == "grant" and "somebody asked for a retrain" in found.reason


def test_what_ended_is_recorded_before_a_request_is_judged() -> None:
    ended = AttemptFacts("rejected", "said", "v8", NOW)
    assert step(attempted(), facts=replace(ASKED, attempt=ended)).kind == "outcome"


def test_a_request_leaves_what_a_person_closed_closed() -> None:
    closed = close(opened(), by="ada", reason="the season", now=NOW)
    asked = step(closed, facts=OVERRIDDEN, now=NOW + DAY).log
    failed = record_outcome(asked, "failed", reason="", ended_at=NOW + DAY)
    after = step(failed, drifting(since=NOW), now=NOW + DAY).log
    found = step(after, drifting(since=NOW), now=NOW + 30 * DAY)
    assert found.kind == "wait" and "ada closed episode 1 on v7" in found.reason
    assert step(after, drifting(since=NOW + DAY), now=NOW + 30 * DAY).kind == "open"


# -- lost events -------------------------------------------------------------------------------------------


def test_a_request_that_no_run_reads_is_launched_once_and_fails_in_the_end() -> None:
    def unread(minutes: float) -> LoopAction:
        return step(attempted(), facts=replace(AT_REST, attempt=AttemptFacts(unread_for=minutes * MINUTE)))

    assert unread(1).kind == "wait"
    lost = unread(2)
    assert lost.kind == "reconcile" and lost.run_key == "episode-1.1/unread" and lost.log == attempted()
    assert "no run read episode-1.1 within 2 minutes" in lost.reason
    given_up = unread(20)
    assert given_up.kind == "outcome" and given_up.log.open is not None
    assert given_up.log.open.attempts[-1].outcome == "failed"


def test_a_request_is_not_lost_while_a_run_is_under_way() -> None:
    facts = replace(AT_REST, in_flight="abc", attempt=AttemptFacts(unread_for=timedelta(hours=9)))
    found = step(attempted(), facts=facts)
    assert found.kind == "wait" and "run abc is under way" in found.reason


def test_a_signal_that_the_model_never_read_is_reconciled_after_the_gate_only() -> None:
    unread = replace(AT_REST, signal_read=False, signal="episode-1")
    passed = close(attempted("promoted"), by=GATE, reason="v8 passed the gate", now=NOW)
    found = step(passed, facts=unread)
    assert found.kind == "reconcile" and found.run_key == "episode-1/unread"
    assert step(passed, facts=replace(unread, in_flight="abc")).kind == "wait"
    assert step(close(opened(), by="ada", reason="season", now=NOW), facts=unread).kind == "wait"


@pytest.mark.parametrize(
    "facts",
    [
        replace(AT_REST, signal_read=False, signal="by-hand-1"),
        replace(AT_REST, signal_read=False),
        replace(AT_REST, signal_read=False, signal="episode-1", launches=launched("episode-1/unread")),
    ],
)
def test_a_signal_by_hand_or_one_that_was_launched_already_is_no_dead_end(facts: LoopFacts) -> None:
    passed = close(attempted("promoted"), by=GATE, reason="v8 passed the gate", now=NOW)
    assert step(passed, facts=facts).reason == "quiet: nothing moved"
    found = step(passed, drifting(), facts)
    assert found.kind == "open" and found.episode == 2


def test_a_request_that_was_launched_and_is_unread_still_is_launched_again_and_fails_in_the_end() -> None:
    def unread(minutes: float) -> LoopAction:
        attempt = AttemptFacts(unread_for=minutes * MINUTE)
        launches = launched("episode-1.1/unread")
        return step(attempted(), facts=replace(AT_REST, attempt=attempt, launches=launches, real_now=NOW))

    assert unread(3).kind == "wait"
    late = replace(AT_REST, attempt=AttemptFacts(unread_for=5 * MINUTE), real_now=NOW + 2 * MINUTE)
    again = step(attempted(), facts=replace(late, launches=launched("episode-1.1/unread")))
    assert again.kind == "reconcile" and again.run_key == "episode-1.1/unread/2"
    assert again.reason.endswith("automation lost it; launch 2")
    assert unread(20).kind == "outcome"


LOST = replace(AT_REST, successor="v8", unapproved="v8", unapproved_since=NOW - 5 * MINUTE, real_now=NOW)


@pytest.mark.parametrize(
    "log", [EpisodeLog(), opened(), attempted(), close(opened(), by=GATE, reason="passed", now=NOW)]
)
def test_a_lost_approval_is_asked_for_first_in_any_state(log: EpisodeLog) -> None:
    found = step(log, drifting(), LOST)
    assert (found.kind, found.scope, found.run_key) == ("reconcile", "approval", "v8/approval")
    assert "v8 passed the gate and no approval followed" in found.reason and found.log == log
    # Until the next launch is due, the loop goes on as if nothing was lost.
    asked = step(log, drifting(), replace(LOST, launches=launched("v8/approval")))
    assert asked == step(log, drifting(), replace(AT_REST, successor="v8"))
    assert step(log, drifting(), replace(LOST, in_flight="abc")).kind != "reconcile"
    # Another version's launches do not stand for this one's.
    assert step(log, drifting(), replace(LOST, launches=launched("v7/approval"))) == found


def test_a_lost_approval_is_launched_again_with_back_off_until_a_person_is_needed() -> None:
    launches: tuple[Launch, ...] = ()
    real, keys = NOW, []
    for _ in range(1_000):
        facts = replace(LOST, launches=launches, real_now=real)
        found = step(EpisodeLog(), facts=facts)
        if found.kind == "reconcile":
            assert found.run_key is not None
            keys.append((found.run_key, (real - NOW) / MINUTE))
            launches = (*launches, Launch("v8/approval", real, real))
        real += MINUTE
    assert keys == [
        ("v8/approval", 0),
        ("v8/approval/2", 2),
        ("v8/approval/3", 6),
        ("v8/approval/4", 14),
        ("v8/approval/5", 30),
        ("v8/approval/6", 62),
    ]
    given_up = lost_approval(replace(LOST, launches=launches, real_now=real), RelaunchPolicy())
    assert given_up is not None and given_up.choice == "give_up"


def test_a_lost_approval_is_never_launched_beside_its_own_run() -> None:
    under_way = (Launch("v8/approval", NOW - 9 * DAY),)
    assert step(EpisodeLog(), facts=replace(LOST, launches=under_way)).kind == "wait"


def test_a_decision_or_a_newer_version_ends_a_lost_approval() -> None:
    used = tuple(Launch("v8/approval", NOW - 4 * MINUTE, NOW - 3 * MINUTE) for _ in range(6))
    decided = replace(AT_REST, launches=used, real_now=NOW)
    assert lost_approval(decided, RelaunchPolicy()) is None
    newer = replace(LOST, successor="v9", unapproved="v9", launches=used)
    found = step(EpisodeLog(), facts=newer)
    assert (found.kind, found.run_key) == ("reconcile", "v9/approval")
    # The same version passed the gate once more: it is another loss, and no run key is used twice.
    passed_again = replace(LOST, launches=used, unapproved_since=NOW - MINUTE)
    found = step(EpisodeLog(), facts=passed_again)
    assert (found.kind, found.run_key) == ("reconcile", "v8/approval/7")


def test_every_other_reconciling_run_is_of_the_chain() -> None:
    facts = replace(AT_REST, attempt=AttemptFacts(unread_for=2 * MINUTE))
    assert step(attempted(), facts=facts).scope == "chain"


# -- another look at an undecided candidate ----------------------------------------------------------------


def undecided(data: str = "2013-06-02", **more: object) -> LoopFacts:
    """Version v8 was made by the newest attempt and left the gate undecided; a day's labels came since."""
    found = AttemptFacts("inconclusive", "too few days", "v8", request="episode-1.1")
    return replace(AT_REST, data=data, attempt=replace(found, **more))  # type: ignore[arg-type]


def test_an_undecided_candidate_is_judged_again_when_a_days_labels_come_before_one_is_trained() -> None:
    found = step(attempted("inconclusive"), facts=undecided(), now=NOW + DAY)
    assert (found.kind, found.run_key, found.episode, found.attempt) == ("judge", "episode-1.1/look-2", 1, 1)
    assert found.reason == "v8 of episode-1.1 is undecided and newer data has come: look 2 at it"
    # A third look on the same data tells nothing: another one is trained, where windows ask for it.
    assert step(found.log, drifting(since=NOW + DAY), undecided(), NOW + DAY).kind == "grant"
    assert step(found.log, facts=undecided(), now=NOW + DAY).kind == "wait"
    third = step(found.log, facts=undecided("2013-06-04"), now=NOW + 3 * DAY)
    assert (third.kind, third.run_key) == ("judge", "episode-1.1/look-3")
    assert EpisodeLog.loads(third.log.dumps()) == third.log


def test_looks_at_one_candidate_wait_for_ever_more_days_of_labels() -> None:
    log, looked = attempted("inconclusive"), []
    for day in range(1, 60):
        found = step(log, facts=undecided(f"2013-06-01+{day}"), now=NOW + day * DAY)
        if found.kind == "judge":
            looked.append(day)
            log = found.log
    assert looked == [1, 3, 7, 15, 29, 43, 57] and log.open is not None
    assert log.open.attempts[-1].looks == 8
    # A clock that was wrong holds nothing back, and a limit that is switched off neither.
    early = step(log, facts=undecided("2013-06-02"), now=NOW)
    assert early.kind == "judge"
    off = LoopRules(GovernorPolicy(first_back_off=timedelta(0), longest_back_off=timedelta(0)))
    assert next_action(log, QUIET, undecided("2013-08-01"), off, NOW + 57 * DAY + MINUTE).kind == "judge"


def test_a_candidate_is_not_looked_at_within_a_back_off_and_none_is_trained_then() -> None:
    soon = NOW + DAY / 2
    found = step(attempted("inconclusive"), drifting(since=soon), undecided(), soon)
    assert found.kind == "wait" and "back-off of 1 day" in found.reason


def test_a_candidate_that_passes_at_a_later_look_closes_the_episode() -> None:
    log = step(attempted("inconclusive"), facts=undecided(), now=NOW + DAY).log
    facts = replace(undecided(outcome="promoted"), successor="v8")
    assert step(log, facts=facts).kind == "close"


def test_a_rejection_at_a_later_look_is_recorded_and_no_further_look_is_taken() -> None:
    log = step(attempted("inconclusive"), facts=undecided(), now=NOW + DAY).log
    facts = undecided("2013-06-04", outcome="rejected", reason="worse")
    found = step(log, facts=facts)
    assert (found.kind, found.reason) == ("outcome", "episode-1.1 rejected after all: worse")
    assert step(found.log, facts=facts).kind == "wait"
    assert step(found.log, drifting(since=NOW + DAY), facts, NOW + DAY).kind == "grant"


@pytest.mark.parametrize(
    ("outcome", "facts"),
    [
        ("rejected", undecided()),
        ("failed", undecided()),
        # The same model once more is no candidate, and of another attempt or none nothing is known.
        ("inconclusive", undecided(version="v7")),
        ("inconclusive", undecided(version=None)),
        ("inconclusive", undecided(request="episode-1.2")),
        ("inconclusive", replace(undecided(), served="v6")),
        ("inconclusive", replace(undecided(), in_flight="abc")),
        ("inconclusive", replace(undecided(), data=None)),
        ("inconclusive", undecided(str(AT_REST.data))),
    ],
)
def test_only_an_undecided_candidate_beside_the_same_champion_is_judged_again(
    outcome: AttemptOutcome, facts: LoopFacts
) -> None:
    assert step(attempted(outcome), facts=facts, now=NOW + DAY).kind != "judge"


def test_what_a_person_asks_for_comes_before_another_look() -> None:
    asked = replace(undecided(), asked=ManualRetrain("ana", "now"))
    assert step(attempted("inconclusive"), facts=asked, now=NOW + DAY).kind == "grant"


def test_only_a_candidate_that_is_undecided_can_be_judged_again() -> None:
    for log in (opened(), attempted(), attempted("rejected")):
        with pytest.raises(EpisodeError, match="no candidate of episode-1 is undecided"):
            judge_again(log, data="x", now=NOW)


# -- by when something had changed -------------------------------------------------------------------------


def lost(*signals: tuple[str, datetime]) -> DriftVerdict:
    states = [
        SignalState(name, "open", 1, 1, 1, 1, "said", evidence_since=since.isoformat())  # type: ignore[arg-type]
        for name, since in signals
    ]
    return DriftVerdict("open", "said", "v7", tuple(states))


def test_an_episode_knows_by_when_labels_had_proven_a_change() -> None:
    found = step(EpisodeLog(), lost(("prediction", NOW - 9 * DAY), ("performance", NOW - 7 * DAY))).log.open
    assert found is not None and found.changed_by == (NOW - 7 * DAY).isoformat()


@pytest.mark.parametrize("name", ["features", "labels", "prediction", "age"])
def test_a_shift_or_age_proves_no_change_of_what_was_learned(name: str) -> None:
    found = step(EpisodeLog(), lost((name, NOW))).log.open
    assert found is not None and found.changed_by is None


def test_a_change_that_is_proven_later_is_known_to_the_next_retrain() -> None:
    log = step(EpisodeLog(), drifting()).log
    first = step(log, drifting()).log
    assert first.open is not None and first.open.changed_by is None
    failed = record_outcome(first, "rejected", reason="said", ended_at=NOW)
    facts = replace(AT_REST, data="2013-06-09")
    second = step(failed, lost(("performance", NOW + DAY)), facts, NOW + 8 * DAY)
    assert second.kind == "grant" and second.log.open is not None
    assert second.log.open.changed_by == (NOW + DAY).isoformat()


def test_an_episode_is_retrained_again_when_twice_as_many_days_lie_behind_the_change() -> None:
    log = step(EpisodeLog(), lost(("performance", NOW - 6 * DAY))).log
    granted = []
    for day in range(0, 100):
        facts = replace(AT_REST, data=f"2013-06-01+{day}")
        found = step(log, QUIET, facts, NOW + day * DAY)
        if found.kind == "grant":
            granted.append(day)
            ended = NOW + day * DAY
            log = record_outcome(found.log, "rejected", reason="not better", ended_at=ended)
        elif day == 1:
            until = (NOW + 6 * DAY).isoformat()
            assert f", or until {until}, when there are twice as many days" in found.reason
    assert granted == [0, 6, 18, 42, 90]


def test_an_episode_whose_change_no_label_has_proven_waits_for_windows() -> None:
    waits = step(attempted("rejected"), QUIET, replace(AT_REST, data="2014-06-01"), NOW + 365 * DAY)
    assert waits.kind == "wait" and "twice as many" not in waits.reason


# -- a routine refresh -------------------------------------------------------------------------------------


def test_old_data_is_granted_a_routine_retrain_that_is_no_drift() -> None:
    found = step(EpisodeLog(), OLD)
    assert found.kind == "grant" and not found.answers_person
    assert found.reason == (
        "retrain episode-1.1 is granted for v7: routine: the newest training row of v7 is 46.0 days old, "
        "45 are allowed"
    )
    assert found.log.of_drift.newest is None and found.log.open is not None
    assert found.log.open.asked_by == REFRESH and found.log.open.changed_by is None


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (replace(AT_REST, served=None), "nothing answers"),
        (replace(AT_REST, served="v8"), "the windows are of v7, and v8 answers"),
        (replace(AT_REST, successor="v8"), "v8 passed the gate and is on its way"),
        (replace(AT_REST, in_flight="run"), "run run is under way"),
        (replace(AT_REST, data=None), "the newest training data is not known"),
        (replace(AT_REST, served_data=AT_REST.data), "newer data is waited for"),
    ],
)
def test_a_refresh_waits_where_a_retrain_could_bring_nothing(facts: LoopFacts, says: str) -> None:
    found = step(EpisodeLog(), OLD, facts)
    assert found.kind == "wait" and says in found.reason


@pytest.mark.parametrize("outcome", ["promoted", "rejected", "inconclusive", "failed"])
def test_a_refresh_has_one_attempt_and_the_next_is_due_after_as_long(outcome: AttemptOutcome) -> None:
    granted = step(EpisodeLog(), OLD)
    ended = record_outcome(granted.log, outcome, reason="said", ended_at=NOW)
    closed = step(ended, OLD)
    assert closed.kind == "close" and closed.log.open is None
    newer = replace(AT_REST, data="2013-08-01")
    for days, kind in ((44, "wait"), (45, "grant")):
        found = step(closed.log, OLD, newer, NOW + timedelta(days=days))
        assert found.kind == kind
        if kind == "wait":
            assert found.next_at == NOW + timedelta(days=45)
            assert f"the next is due {(NOW + timedelta(days=45)).isoformat()}" in found.reason


def test_a_retrain_for_drift_puts_off_the_refresh() -> None:
    closed = step(record_outcome(attempted(), "promoted", reason="said", ended_at=NOW))
    assert closed.kind == "close" and closed.log.of_drift.newest is not None
    newer = replace(AT_REST, data="2013-08-01")
    assert step(closed.log, OLD, newer, NOW + timedelta(days=44)).kind == "wait"


def test_an_undecided_refresh_is_judged_again_until_the_next_is_due() -> None:
    log = record_outcome(step(EpisodeLog(), OLD).log, "inconclusive", reason="few days", ended_at=NOW)
    looked = []
    for day in range(1, 45):
        found = step(log, OLD, undecided(f"2013-06-01+{day}"), NOW + day * DAY)
        if found.kind == "judge":
            looked.append(day)
            log = found.log
        else:
            assert found.kind == "wait" and "is undecided: newer labels may decide it" in found.reason
            assert found.next_at == NOW + timedelta(days=45) and found.log.of_drift.newest is None
    assert looked == [1, 3, 7, 15, 29, 43]
    due = step(log, OLD, undecided("2013-08-01"), NOW + timedelta(days=45))
    assert due.kind == "close"
    assert due.reason == "episode 1 ends: the routine retrain was inconclusive: few days"
    assert step(due.log, OLD, undecided("2013-08-01"), NOW + timedelta(days=45)).kind == "grant"


def test_a_refresh_that_passes_at_a_later_look_ends() -> None:
    log = record_outcome(step(EpisodeLog(), OLD).log, "inconclusive", reason="few days", ended_at=NOW)
    judged = step(log, OLD, undecided(), NOW + DAY)
    passed = step(judged.log, OLD, replace(undecided(), successor="v8"), NOW + DAY)
    assert (passed.kind, passed.reason) == ("close", "episode 1 ends: v8 passed the gate")
    answers = step(judged.log, QUIET, replace(undecided(), served="v8"), NOW + DAY)
    assert (answers.kind, answers.reason) == ("close", "episode 1 ends: v8 passed the gate and answers")


def test_drift_or_a_person_does_not_wait_for_an_undecided_refresh() -> None:
    log = record_outcome(step(EpisodeLog(), OLD).log, "inconclusive", reason="few days", ended_at=NOW)
    closed = step(log, drifting(), undecided(), NOW + DAY)
    assert closed.kind == "close" and closed.log.open is None
    assert step(closed.log, drifting(), undecided(), NOW + DAY).kind == "open"
    asked = replace(undecided(), asked=ManualRetrain("ana", "now"))
    assert step(log, OLD, asked, NOW + DAY).kind == "close"
    assert step(step(log, OLD, asked, NOW + DAY).log, OLD, asked, NOW + DAY).answers_person


def test_a_refresh_that_made_the_same_model_again_is_not_looked_at() -> None:
    log = record_outcome(step(EpisodeLog(), OLD).log, "inconclusive", reason="same model", ended_at=NOW)
    same = replace(undecided(), attempt=replace(undecided().attempt, version="v7"))
    assert step(log, OLD, same, NOW + DAY).kind == "close"


def test_how_a_refresh_ended_is_said() -> None:
    ended = record_outcome(step(EpisodeLog(), OLD).log, "inconclusive", reason="too few days", ended_at=NOW)
    assert step(ended).reason == "episode 1 ends: the routine retrain was inconclusive: too few days"
