"""Episodes of drift, the retrains granted to end them, and the next action of the drift sensor. Pure.

Belongs here: an episode's life as plain values, its JSON, what comes next. Does not belong here: what
counts as drift (``policy.py``), the limits on retrains (``governor.py``), events and runs (components).

An episode opens on the version that answers and stays open until a candidate passes the gate or a person
closes it. Each retrain granted to it is an attempt. The log of episodes is never kept in a file of its own:
it travels in the metadata of the events that it leads to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mlops_assets.errors import DataError, EpisodeError
from mlops_assets.monitoring.durations import duration_text
from mlops_assets.monitoring.governor import AttemptOutcome, GovernorPolicy, Grant, back_off, permit
from mlops_assets.monitoring.policy import DriftVerdict
from mlops_assets.monitoring.relaunch import Launch, NextLaunch, RelaunchPolicy, next_launch, run_key

KEPT_EPISODES = 50
LOST_AFTER = 10
"""So many times the grace without any run, and the attempt counts as failed."""
REFRESH = "refresh"
"""``asked_by`` of a retrain that nobody asked for and nothing but the age of the data is the reason of."""
CALENDAR = "schedule"
"""``asked_by`` of a retrain that the declared calendar asked for."""
GATE = "gate"
"""``closed_by`` of an episode that ended because a candidate passed the gate."""

NEVER = datetime.fromtimestamp(0, UTC)

ActionKind = Literal["open", "grant", "judge", "refuse", "outcome", "close", "reconcile", "wait"]

RunScope = Literal["chain", "approval"]
"""What a reconciling run makes: the chain from the training set on, or approval and deployment only."""

SHIFTS = frozenset(("features", "labels", "prediction", "age"))
"""Signals that do not say that what was learned is no longer true: inputs and answers move by season."""


@dataclass(frozen=True)
class Attempt:
    """One granted retrain. ``data``: the training data it was granted for, as text. Times: ISO 8601, zone.

    ``asked_by``: who asked for it, "" for nobody; ``overrode``: the limits that person overrode.
    ``looks``: how often its candidate was judged; ``judged_on``: the newest data when it was judged again;
    ``judged_at``: that moment.
    """

    number: int
    granted_at: str
    data: str
    outcome: AttemptOutcome = "running"
    ended_at: str | None = None
    reason: str = ""
    asked_by: str = ""
    overrode: str = ""
    looks: int = 1
    judged_on: str = ""
    judged_at: str = ""


@dataclass(frozen=True)
class ManualRetrain:
    """A retrain that a person or the declared calendar asks for.

    ``override`` counts only together with ``by`` and ``reason``. A request that was reported to Dagster
    without a name has ``by`` "" and overrides nothing. ``due``: the moment for which the calendar asks (ISO,
    with a zone); "" for a person.
    """

    by: str = ""
    reason: str = ""
    override: bool = False
    due: str = ""

    @property
    def who(self) -> str:
        return self.by or "somebody"

    @property
    def overrides(self) -> bool:
        return self.override and bool(self.by) and bool(self.reason)


def asked_by_calendar(schedule: str, due: datetime) -> ManualRetrain:
    """What the calendar asks for at a moment of its schedule (cron): it overrides no limit, ever."""
    return ManualRetrain(CALENDAR, f"the calendar asks: {schedule}", due=_text(due))


@dataclass(frozen=True)
class Episode:
    """One episode on ``version``. Open while ``closed_at`` is None.

    ``asked_by``: who asked for its one retrain, which ends it (``REFRESH`` for nobody); "" for an episode of
    drift.
    ``changed_by``: a time by which what was learned was no longer true, where labels have proven that.
    """

    number: int
    opened_at: str
    version: str
    reason: str
    attempts: tuple[Attempt, ...] = ()
    closed_at: str | None = None
    closed_by: str | None = None
    close_reason: str = ""
    asked_by: str = ""
    changed_by: str | None = None

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def is_routine(self) -> bool:
        """Whether it is a retrain that neither drift nor a person asked for."""
        return self.asked_by in (REFRESH, CALENDAR)

    @property
    def data_version(self) -> str:
        """``episode-N``: the data version of its drift signal."""
        return f"episode-{self.number}"

    @property
    def request_version(self) -> str | None:
        """``episode-N.k``: the data version of its newest retrain request; None without one."""
        return f"{self.data_version}.{self.attempts[-1].number}" if self.attempts else None


@dataclass(frozen=True)
class EpisodeLog:
    """The last episodes, oldest first; at most the last one is open."""

    episodes: tuple[Episode, ...] = ()

    @property
    def newest(self) -> Episode | None:
        return self.episodes[-1] if self.episodes else None

    @property
    def open(self) -> Episode | None:
        """The open episode, if there is one."""
        return self.newest if self.newest is not None and self.newest.is_open else None

    @property
    def of_drift(self) -> "EpisodeLog":
        """The log without retrains that were asked for, by a person, a calendar or the age of the data."""
        return EpisodeLog(tuple(one for one in self.episodes if not one.asked_by))

    @property
    def grants(self) -> list[Grant]:
        """Every remembered attempt, as the governor takes it."""
        return [
            Grant(
                episode=episode.number,
                number=attempt.number,
                granted_at=datetime.fromisoformat(attempt.granted_at),
                outcome=attempt.outcome,
                ended_at=datetime.fromisoformat(attempt.ended_at) if attempt.ended_at else None,
            )
            for episode in self.episodes
            for attempt in episode.attempts
        ]

    def dumps(self) -> str:
        """JSON text of this log."""
        return json.dumps({"episodes": [asdict(one) for one in self.episodes]}, ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> "EpisodeLog":
        """The log of ``dumps``; the empty log for "". DataError for any other text."""
        if not text:
            return cls()
        try:
            return cls(tuple(_episode(one) for one in json.loads(text)["episodes"]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"the text is not a log of episodes ({error!r}): {text[:120]}") from error


@dataclass(frozen=True)
class AttemptFacts:
    """What became of the newest attempt. ``outcome`` None: no run has read its request yet.

    ``version``: of the candidate that was made, if any. ``ended_at``: of its run or verdict, in the time of
    ``now``. ``unread_for``: while no run has read the request, how long it has been there, in *real* time:
    how long automation takes does not depend on a clock that is replayed. ``request``: the attempt these
    facts are of, as ``Episode.request_version`` says it (None: of the newest); facts of another one are not
    used.
    """

    outcome: AttemptOutcome | None = None
    reason: str = ""
    version: str | None = None
    ended_at: datetime | None = None
    unread_for: timedelta | None = None
    request: str | None = None


@dataclass(frozen=True)
class LoopFacts:
    """What is true now, as plain values.

    ``served``: the version that answers as stable. ``successor``: a version that passed the gate, was not
    withdrawn and is not stable yet, whether its rollout has begun or not. ``in_flight``: id of a run of
    this model's chain (training set to deployment) that has not ended. ``attempt``: of the newest attempt.
    ``data``: the newest training data, as text (any text that differs when the data does); ``served_data``:
    that of the model that answers, where known. ``signal_read``: whether the newest model was made after
    reading the newest drift signal, whose data version is ``signal``. ``launches``: runs that were launched
    for what was lost, oldest first, whatever became of them. ``unapproved``: a successor under mode auto to
    which no approval is bound, with no run of either in flight, for longer than the grace; it passed the gate
    at ``unapproved_since``. ``asked``: a person's request that was not answered yet. ``real_now``: real time,
    which launches are judged by. What is left out stands for a loop at rest.
    """

    served: str | None
    successor: str | None = None
    in_flight: str | None = None
    attempt: AttemptFacts = AttemptFacts()
    data: str | None = None
    served_data: str | None = None
    signal_read: bool = True
    signal: str | None = None
    launches: tuple[Launch, ...] = ()
    unapproved: str | None = None
    unapproved_since: datetime | None = None
    asked: ManualRetrain | None = None
    real_now: datetime = NEVER


@dataclass(frozen=True)
class LoopRules:
    """The limits that the next action keeps to.

    ``refresh_after``: the age of data past which the policy asks for a routine retrain, and how long none was
    granted before one.

    ``grace``: how long, in real time, automation may take to start a run for a grant before a reconciling run
    is launched; ten times that without any run, and the attempt has failed. ``relaunch``: how often, and
    after which pauses, a run is launched for what automation lost.
    """

    governor: GovernorPolicy
    relaunch: RelaunchPolicy = field(default_factory=RelaunchPolicy)
    grace: timedelta = timedelta(minutes=2)
    refresh_after: timedelta = timedelta(days=45)


@dataclass(frozen=True)
class LoopAction:
    """What the drift sensor does next, why, and the log after it.

    ``episode`` and ``attempt``: numbers it is about. ``next_at``: when time alone will change the answer.
    ``run_key``: of kinds reconcile and judge, the key of the one run to launch; one key launches one run for
    ever, so the action may be carried out again. ``scope``: what that run makes.
    ``may_override``: of kind refuse, whether a person can override the limits. ``answers_person``: it answers
    a manual retrain.
    """

    kind: ActionKind
    reason: str
    log: EpisodeLog
    episode: int | None = None
    attempt: int | None = None
    run_key: str | None = None
    next_at: datetime | None = None
    scope: RunScope = "chain"
    may_override: bool = False
    answers_person: bool = False


def open_episode(
    log: EpisodeLog,
    *,
    version: str,
    reason: str,
    now: datetime,
    asked_by: str = "",
    changed_by: str | None = None,
) -> EpisodeLog:
    """The log with one more episode, open. EpisodeError when one is open."""
    if log.open is not None:
        raise EpisodeError(f"{log.open.data_version} on {log.open.version} is open: close it first")
    number = log.newest.number + 1 if log.newest is not None else 1
    made = Episode(number, _text(now), version, reason, asked_by=asked_by, changed_by=changed_by)
    return EpisodeLog((*log.episodes, made)[-KEPT_EPISODES:])


def grant(log: EpisodeLog, *, data: str, now: datetime, asked_by: str = "", overrode: str = "") -> EpisodeLog:
    """The log with one more attempt of the open episode. EpisodeError when none is open or one is running."""
    episode = _open(log, "granted a retrain")
    if episode.attempts and episode.attempts[-1].outcome == "running":
        raise EpisodeError(f"attempt {episode.request_version} is running: one at a time")
    number = episode.attempts[-1].number + 1 if episode.attempts else 1
    made = Attempt(number, _text(now), data, asked_by=asked_by, overrode=overrode)
    return _with(log, replace(episode, attempts=(*episode.attempts, made)))


def record_outcome(
    log: EpisodeLog, outcome: AttemptOutcome, *, reason: str, ended_at: datetime
) -> EpisodeLog:
    """The log with the running attempt ended. EpisodeError when none is running, or for outcome running."""
    episode = _open(log, "given an outcome")
    if outcome == "running" or not episode.attempts or episode.attempts[-1].outcome != "running":
        raise EpisodeError(f"no attempt of {episode.data_version} can end as {outcome}: none is running")
    ended = replace(episode.attempts[-1], outcome=outcome, reason=reason, ended_at=_text(ended_at))
    return _with(log, replace(episode, attempts=(*episode.attempts[:-1], ended)))


def judge_again(log: EpisodeLog, *, data: str, now: datetime) -> EpisodeLog:
    """The log with the newest attempt's candidate judged once more, on ``data`` too. EpisodeError when no
    attempt of the open episode ended undecided.
    """
    episode = _open(log, "judged again")
    if not episode.attempts or episode.attempts[-1].outcome != "inconclusive":
        raise EpisodeError(f"no candidate of {episode.data_version} is undecided")
    attempt = episode.attempts[-1]
    judged = replace(attempt, looks=attempt.looks + 1, judged_on=data, judged_at=_text(now))
    return _with(log, replace(episode, attempts=(*episode.attempts[:-1], judged)))


def close(log: EpisodeLog, *, by: str, reason: str, now: datetime) -> EpisodeLog:
    """The log with the open episode closed. EpisodeError when none is open.

    ``by``: ``GATE`` or a person's name. An attempt that is still running ends as inconclusive: nobody waits
    for it any more, and its run goes on as far as it comes.
    """
    episode = _open(log, "closed")
    if episode.attempts and episode.attempts[-1].outcome == "running":
        log = record_outcome(log, "inconclusive", reason=f"closed by {by}: {reason}", ended_at=now)
        episode = _open(log, "closed")
    return _with(log, replace(episode, closed_at=_text(now), closed_by=by, close_reason=reason))


def next_action(
    log: EpisodeLog, verdict: DriftVerdict, facts: LoopFacts, rules: LoopRules, now: datetime
) -> LoopAction:
    """The next action of the drift sensor. Carry it out, then ask again with its log until it waits.

    ``verdict``: on the windows of the version that answers.

    An episode opens only for the version that answers, when no successor is on its way and no run under way
    that could become one; after a person closed one on the same version, only on windows that ended since.
    A retrain is granted when the governor permits it and there is training data that no attempt (unless it
    failed) and not the answering model itself was made from. A further one of the same episode is granted
    on windows that ended since the last, or when twice as much time lies behind the change, unless that
    failed; old data retrains an open episode as it would without one. An undecided candidate is judged again
    on data that has come since, at a distance that grows: neither model has seen it. A candidate that passes
    the gate closes the episode, whoever asked for it, unless it is the episode's own version once more. A
    lost approval is launched again before anything else that is due, until ``lost_approval`` gives up.

    Old data alone asks for a routine retrain: an episode of its own that is no drift, with one attempt, when
    none was granted for as long as the data may be old. Its candidate is judged again while it is undecided,
    until drift or a person asks, or the next one is due. A manual retrain passes the same governor: it is
    granted as an attempt of the open episode, or as an episode of its own, or refused. Only an explicit
    override lifts limits, and none lifts one at a time.
    """
    lost = lost_approval(facts, rules.relaunch)
    if lost is not None and lost.choice == "launch":
        return _reconcile(
            log,
            facts,
            f"{facts.unapproved}/approval",
            f"{facts.unapproved} passed the gate and no approval followed: automation lost it",
            scope="approval",
        )
    episode = log.open
    if episode is None:
        if facts.asked is not None:
            return _answer(log, facts.asked, facts, rules.governor, now)
        return _without_episode(log, verdict, facts, rules, now)
    attempt = episode.attempts[-1] if episode.attempts else None
    if attempt is not None and attempt.outcome == "running":
        found = _running(log, episode, attempt, facts, rules, now)
        if found.kind == "wait" and facts.asked is not None:
            return _answer(log, facts.asked, facts, rules.governor, now)
        return found
    next_refresh = _refresh_due(log, rules, now)
    looked_at = _is_looked_at(episode, attempt, facts) and verdict.action != "open" and now < next_refresh
    ended = None if looked_at else _ended(log, episode, attempt, facts, now)
    if ended is not None:
        return ended
    if facts.asked is not None:
        return _answer(log, facts.asked, facts, rules.governor, now)
    again = _another_look(log, episode, facts, rules.governor, now) if episode.attempts else None
    if again is None and looked_at:
        return _undecided(log, episode, next_refresh)
    return again or _next_attempt(log, _changed(episode, verdict), verdict, facts, rules, now)


def _is_looked_at(episode: Episode, attempt: Attempt | None, facts: LoopFacts) -> bool:
    """Whether the candidate of a routine retrain is undecided and may be decided as labels come."""
    return (
        episode.asked_by == REFRESH
        and attempt is not None
        and attempt.outcome == "inconclusive"
        and facts.asked is None
        and facts.served == episode.version
        and facts.successor is None
        and facts.attempt.version not in (None, episode.version)
        and facts.attempt.request in (None, episode.request_version)
    )


def _undecided(log: EpisodeLog, episode: Episode, next_refresh: datetime) -> LoopAction:
    why = f"the routine retrain {episode.request_version} is undecided: newer labels may decide it"
    return LoopAction("wait", why, log, episode.number, episode.attempts[-1].number, next_at=next_refresh)


def _another_look(
    log: EpisodeLog, episode: Episode, facts: LoopFacts, governor: GovernorPolicy, now: datetime
) -> LoopAction | None:
    """What an undecided candidate is due: to be judged again, or what became of that; None for nothing.

    Each look needs more proof than the one before, so looks wait for more days each time: the governor's
    back-off lies between them. None once another version answers: it was judged beside the one that answered
    then.
    """
    attempt, found, request = episode.attempts[-1], facts.attempt, episode.request_version
    if attempt.outcome != "inconclusive" or facts.in_flight is not None or facts.served != episode.version:
        return None
    if found.version is None or found.version == episode.version or found.request not in (None, request):
        return None
    if found.outcome == "rejected":
        ended = replace(attempt, outcome="rejected", reason=found.reason)
        after = _with(log, replace(episode, attempts=(*episode.attempts[:-1], ended)))
        why = f"{request} rejected after all: {found.reason}"
        return LoopAction("outcome", why, after, episode.number, attempt.number)
    if facts.data is None or facts.data == (attempt.judged_on or attempt.data):
        return None
    last = _time(attempt.judged_at or attempt.ended_at or attempt.granted_at)
    if last <= now < last + back_off(governor, attempt.looks):
        return None
    after = judge_again(log, data=facts.data, now=now)
    look = attempt.looks + 1
    return LoopAction(
        "judge",
        f"{found.version} of {request} is undecided and newer data has come: look {look} at it",
        after,
        episode.number,
        attempt.number,
        run_key=f"{request}/look-{look}",
    )


def _changed(episode: Episode, verdict: DriftVerdict) -> Episode:
    """The episode with the time by which what was learned was no longer true, once labels have proven it."""
    return episode if episode.changed_by else replace(episode, changed_by=_changed_by(verdict))


def _changed_by(verdict: DriftVerdict) -> str | None:
    shown = [
        one.evidence_since
        for one in verdict.signals
        if one.action == "open" and one.name not in SHIFTS and one.evidence_since
    ]
    return min(shown, key=datetime.fromisoformat, default=None)


def _ended(
    log: EpisodeLog, episode: Episode, attempt: Attempt | None, facts: LoopFacts, now: datetime
) -> LoopAction | None:
    """The closing of an open episode without a running attempt; None while it stays open."""
    passed = _passed(episode, attempt, facts)
    if passed:
        by, reason = GATE, passed
    elif episode.asked_by:
        became = attempt.outcome if attempt else "not made"
        what = (
            "routine retrain" if episode.asked_by == REFRESH else f"retrain that {episode.asked_by} asked for"
        )
        by, reason = episode.asked_by, f"the {what} was {became}"
        reason = f"{reason}: {attempt.reason}" if attempt and attempt.reason else reason
    else:
        return None
    after = close(log, by=by, reason=reason, now=now)
    return LoopAction("close", f"episode {episode.number} ends: {reason}", after, episode.number)


def _next_attempt(
    log: EpisodeLog,
    episode: Episode,
    verdict: DriftVerdict,
    facts: LoopFacts,
    rules: LoopRules,
    now: datetime,
) -> LoopAction:
    """A grant to the open episode, or why it waits."""
    permitted = permit(rules.governor, log.grants, episode=episode.number, in_flight=None, now=now)
    routine = verdict.data_is_old and _refresh_due(log, rules, now) <= now
    waits = (
        _impossible(facts)
        or (f"run {facts.in_flight} is under way" if facts.in_flight is not None else "")
        or _unknown_data(facts)
        or ("" if routine else _nothing_new(episode, verdict, now))
        or _used_before(log, facts)
    )
    if waits or not permitted.allowed:
        return LoopAction(
            "wait",
            f"episode {episode.number} on {episode.version} is open: {waits or permitted.reason}",
            log,
            episode.number,
            episode.attempts[-1].number if episode.attempts else None,
            next_at=None if waits else permitted.next_at,
        )
    assert facts.data is not None
    after = grant(_with(log, episode), data=facts.data, now=now)
    return _granted(after, f"{episode.version}: {episode.reason}")


def _nothing_new(episode: Episode, verdict: DriftVerdict, now: datetime) -> str:
    """Why one more retrain of the episode would learn and answer nothing new; empty when it would.

    As after a person closed one, the windows that were there have had their retrain: those that ended since
    have to show by themselves what opens an episode. Or there is twice as much time behind the change as the
    last attempt had, so there is as much again to learn from; that is a few times in a year, however long
    the episode stays open. A failed run was no retrain.
    """
    last = episode.attempts[-1] if episode.attempts else None
    if last is None or last.outcome == "failed":
        return ""
    granted = _time(last.granted_at)
    since = verdict.evidence_since if verdict.action == "open" else None
    if since is not None and _time(since) > granted:
        return ""
    later = ""
    if episode.changed_by:
        behind = max(granted - _time(episode.changed_by), timedelta(days=1))
        doubled_at = _time(episode.changed_by) + 2 * behind
        if now >= doubled_at:
            return ""
        later = f", or until {_text(doubled_at)}, when there are twice as many days to learn from"
    return (
        f"attempt {episode.number}.{last.number} was {last.outcome}, and the next waits until windows that "
        f"ended since show again what opens an episode ({verdict.action}: {verdict.reason}){later}"
    )


def _granted(log: EpisodeLog, why: str, *, answers_person: bool = False) -> LoopAction:
    """The action after which ``log`` holds one more attempt."""
    episode = _open(log, "granted a retrain")
    return LoopAction(
        "grant",
        f"retrain {episode.request_version} is granted for {why}",
        log,
        episode.number,
        episode.attempts[-1].number,
        answers_person=answers_person,
    )


def _impossible(facts: LoopFacts) -> str:
    return "" if facts.served is not None else "nothing answers, so there is nothing to replace"


def _unknown_data(facts: LoopFacts) -> str:
    return "" if facts.data is not None else "the newest training data is not known"


def _answer(
    log: EpisodeLog, asked: ManualRetrain, facts: LoopFacts, governor: GovernorPolicy, now: datetime
) -> LoopAction:
    """The answer to a manual retrain: granted, or refused with the limit and until when."""
    episode = log.open
    number = episode.number if episode is not None else None
    request = f"{asked.who} asked for a retrain" + (f" ({asked.reason})" if asked.reason else "")

    def refuse(why: str, next_at: datetime | None = None, *, may_override: bool = False) -> LoopAction:
        return LoopAction(
            "refuse",
            f"{request}: refused, {why}",
            log,
            number,
            next_at=next_at,
            may_override=may_override,
            answers_person=True,
        )

    following = log.newest.number + 1 if log.newest is not None else 1
    permitted = permit(governor, log.grants, episode=number or following, in_flight=facts.in_flight, now=now)
    if not permitted.allowed and permitted.next_at is None:
        return refuse(permitted.reason)
    if facts.served is None or facts.data is None:
        return refuse(_impossible(facts) or _unknown_data(facts))
    on_its_way = f"{facts.successor} passed the gate and is on its way" if facts.successor is not None else ""
    limits = [on_its_way, _used_before(log, facts), "" if permitted.allowed else permitted.reason]
    reached = "; ".join(limit for limit in limits if limit)
    if reached and not asked.overrides:
        unnamed = "; an override needs by and reason" if asked.override else ""
        return refuse(f"{reached}{unnamed}", permitted.next_at, may_override=True)
    if episode is None:
        log = open_episode(log, version=facts.served, reason=request, now=now, asked_by=asked.who)
    after = grant(log, data=facts.data, now=now, asked_by=asked.who, overrode=reached)
    overrode = f"; {asked.by} overrode: {reached}" if reached else ""
    return _granted(after, f"{facts.served}: {request}{overrode}", answers_person=True)


def version_number(version: str) -> int | None:
    """7 of "v7"; None for a text of another form."""
    return int(version[1:]) if version[:1] == "v" and version[1:].isdecimal() else None


def _without_episode(
    log: EpisodeLog, verdict: DriftVerdict, facts: LoopFacts, rules: LoopRules, now: datetime
) -> LoopAction:
    def wait(why: str) -> LoopAction:
        return LoopAction("wait", why, log)

    last = log.of_drift.newest
    if last is not None and last.closed_by == GATE and facts.in_flight is None:
        what = f"{last.data_version}/unread"
        # A signal that somebody reported by hand is no episode: nothing was lost.
        unread = not facts.signal_read and facts.signal == last.data_version
        # Once only: it costs a training that the governor granted to nobody.
        if unread and not _launches(facts, what):
            why = f"{last.data_version} ended, but the newest model was made before it was opened"
            return _reconcile(log, facts, what, why)
    if verdict.action not in ("open", "refresh"):
        return wait(f"{verdict.action}: {verdict.reason}")
    if facts.served is None:
        return wait("nothing answers")
    if verdict.version != facts.served:
        return wait(f"the windows are of {verdict.version}, and {facts.served} answers")
    if facts.successor is not None:
        return wait(f"{facts.successor} passed the gate and is on its way: {verdict.reason}")
    if facts.in_flight is not None:
        return wait(f"run {facts.in_flight} is under way and may bring a successor: {verdict.reason}")
    if verdict.action == "refresh":
        return _refresh(log, verdict, facts, rules, now)
    if last is not None and last.closed_by not in (None, GATE) and last.version == facts.served:
        since = verdict.evidence_since
        if since is None or datetime.fromisoformat(since) <= _time(last.closed_at):
            return wait(
                f"{last.closed_by} closed episode {last.number} on {last.version} ({last.close_reason}); "
                f"windows that ended since then have to show it again"
            )
    after = open_episode(
        log, version=facts.served, reason=verdict.reason, now=now, changed_by=_changed_by(verdict)
    )
    made = after.open
    assert made is not None
    return LoopAction(
        "open", f"episode {made.number} opens on {facts.served}: {verdict.reason}", after, made.number
    )


def _refresh(
    log: EpisodeLog, verdict: DriftVerdict, facts: LoopFacts, rules: LoopRules, now: datetime
) -> LoopAction:
    """The grant of a routine retrain, which is an episode of its own and no drift; or why it waits."""
    number = log.newest.number + 1 if log.newest is not None else 1
    permitted = permit(rules.governor, log.grants, episode=number, in_flight=None, now=now)
    due = _refresh_due(log, rules, now)
    waits = _unknown_data(facts) or _used_before(log, facts)
    next_at = max(due, permitted.next_at or due)
    if not waits and due > now:
        before = _text(due - rules.refresh_after)
        waits = f"the last retrain was granted at {before}, the next is due {_text(due)}"
    if waits or not permitted.allowed:
        why = f"{verdict.action}: {verdict.reason}; {waits or permitted.reason}"
        return LoopAction("wait", why, log, next_at=next_at if next_at > now else None)
    assert facts.served is not None and facts.data is not None
    reason = f"routine: {verdict.reason}"
    log = open_episode(log, version=facts.served, reason=reason, now=now, asked_by=REFRESH)
    return _granted(grant(log, data=facts.data, now=now, asked_by=REFRESH), f"{facts.served}: {reason}")


def _refresh_due(log: EpisodeLog, rules: LoopRules, now: datetime) -> datetime:
    """Since when a routine retrain is due where the data is old: so long after any retrain."""
    granted = max((one.granted_at for one in log.grants if one.granted_at <= now), default=None)
    return now if granted is None else granted + rules.refresh_after


def _running(
    log: EpisodeLog,
    episode: Episode,
    attempt: Attempt,
    facts: LoopFacts,
    rules: LoopRules,
    now: datetime,
) -> LoopAction:
    """The running attempt: its outcome, a reconciling run, or to wait."""
    request = episode.request_version
    found = facts.attempt
    earlier = found.ended_at is not None and found.ended_at < _time(attempt.granted_at)
    if earlier or found.request not in (None, request):
        found = AttemptFacts()
    outcome, reason = found.outcome, found.reason
    if outcome is None and facts.in_flight is None and found.unread_for is not None:
        if found.unread_for >= rules.grace * LOST_AFTER:
            outcome, reason = (
                "failed",
                f"no run read {request} within {duration_text(rules.grace * LOST_AFTER)}",
            )
        elif found.unread_for >= rules.grace:
            what = f"{request}/unread"
            if next_launch(_launches(facts, what), rules.relaunch, facts.real_now).choice == "launch":
                why = f"no run read {request} within {duration_text(rules.grace)}: automation lost it"
                return _reconcile(log, facts, what, why, attempt=attempt.number)
    if outcome is None or outcome == "running":
        under_way = f"run {facts.in_flight} is under way" if facts.in_flight else "a run is expected"
        return LoopAction("wait", f"{request} was granted: {under_way}", log, episode.number, attempt.number)
    named = ""
    if outcome == "promoted" and found.version is not None:
        if _same_again(found.version, episode, facts):
            outcome, named = "inconclusive", f"trained the same model again ({found.version})"
        else:
            named = f"{found.version} passed the gate"
    reason = ": ".join(part for part in (named, reason) if part)
    after = record_outcome(log, outcome, reason=reason, ended_at=found.ended_at or now)
    return LoopAction("outcome", f"{request} {outcome}: {reason}", after, episode.number, attempt.number)


def _passed(episode: Episode, attempt: Attempt | None, facts: LoopFacts) -> str:
    """Which candidate passed the gate since the episode opened, in words; empty when none did."""
    if attempt is not None and attempt.outcome == "promoted":
        return attempt.reason or f"attempt {episode.request_version} passed the gate"
    if episode.asked_by not in ("", REFRESH):
        return ""
    if facts.successor is not None and not _same_again(facts.successor, episode, facts):
        return f"{facts.successor} passed the gate"
    served, own = version_number(facts.served or ""), version_number(episode.version)
    if served is not None and own is not None and served > own:
        return f"{facts.served} passed the gate and answers"
    return ""


def _same_again(version: str, episode: Episode, facts: LoopFacts) -> bool:
    """Whether a version that passed the gate is the one that drifted, or the one that answers in its place.

    The same bytes get the same version, and the gate promotes them. A version that answers and is newer than
    the episode's did replace it: then the rollout was faster than this decision.
    """
    if version == episode.version:
        return True
    number, own = version_number(version), version_number(episode.version)
    newer = number is not None and own is not None and number > own
    return version == facts.served and not newer


def lost_approval(facts: LoopFacts, relaunch: RelaunchPolicy) -> NextLaunch | None:
    """Whether the lost approval of a successor is launched again; None when none is lost.

    A decision of a person ends the loss, and so does a newer version: then another one is unapproved. What
    was launched before the version last passed the gate does not count.
    """
    if facts.unapproved is None or facts.in_flight is not None:
        return None
    since = facts.unapproved_since
    launches = [
        one
        for one in _launches(facts, f"{facts.unapproved}/approval")
        if since is None or one.ended_at is None or one.at >= since
    ]
    return next_launch(launches, relaunch, facts.real_now)


def _launches(facts: LoopFacts, what: str) -> list[Launch]:
    return [one for one in facts.launches if one.what == what]


def _reconcile(
    log: EpisodeLog,
    facts: LoopFacts,
    what: str,
    why: str,
    *,
    attempt: int | None = None,
    scope: RunScope = "chain",
) -> LoopAction:
    """The action that launches one more run for what was lost."""
    launch = len(_launches(facts, what)) + 1
    return LoopAction(
        "reconcile",
        f"{why}; launch {launch}" if launch > 1 else why,
        log,
        log.newest.number if log.newest is not None else None,
        attempt,
        run_key=run_key(what, launch),
        scope=scope,
    )


def _used_before(log: EpisodeLog, facts: LoopFacts) -> str:
    """Why a retrain on the newest data would make the same model again; empty when it would not."""
    attempts = [
        (episode, attempt)
        for episode in log.episodes
        for attempt in episode.attempts
        if attempt.outcome != "failed"
    ]
    if attempts and attempts[-1][1].data == facts.data:
        episode, attempt = attempts[-1]
        made = f"attempt {episode.number}.{attempt.number} ({attempt.outcome})"
        return f"{made} was made from the same data; newer data is waited for"
    if facts.served_data is not None and facts.served_data == facts.data:
        return f"{facts.served} was trained on all the data there is; newer data is waited for"
    return ""


def _open(log: EpisodeLog, act: str) -> Episode:
    if log.open is None:
        raise EpisodeError(f"no episode is open that could be {act}")
    return log.open


def _with(log: EpisodeLog, episode: Episode) -> EpisodeLog:
    return EpisodeLog((*log.episodes[:-1], episode))


def _episode(values: Mapping[str, Any]) -> Episode:
    attempts = tuple(Attempt(**one) for one in values["attempts"])
    made = Episode(**{**values, "attempts": attempts})
    # A broken time is an error of the log, so it is read here.
    for time in (made.opened_at, made.closed_at, *(one.granted_at for one in attempts)):
        _time(time or made.opened_at)
    return made


def _text(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} needs a time zone")
    return time.isoformat()


def _time(text: str | None) -> datetime:
    time = datetime.fromisoformat(text or "")
    if time.tzinfo is None:
        raise ValueError(f"{text} needs a time zone")
    return time
