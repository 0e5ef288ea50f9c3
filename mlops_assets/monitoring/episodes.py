"""Episodes of drift and the retrains granted to end them; the one decision of the drift sensor. Pure.

Belongs here: an episode's life as plain values, its JSON, what comes next. Does not belong here: what
counts as drift (``policy.py``), the limits on retrains (``governor.py``), events and runs (components).

An episode opens on the version that answers and stays open until a candidate passes the gate or a person
closes it. Each retrain granted to it is an attempt. The log of episodes is never kept in a file of its own:
it travels in the metadata of the events that it leads to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mlops_assets.errors import DataError, EpisodeError
from mlops_assets.monitoring.governor import GovernorPolicy, Grant, Outcome, permit
from mlops_assets.monitoring.lost import Again, Launch, RelaunchPolicy, again, run_key, told
from mlops_assets.monitoring.policy import Decision

KEPT_EPISODES = 50
LOST_AFTER = 10
"""So many times the grace without any run, and the attempt counts as failed."""
GATE = "gate"
"""``closed_by`` of an episode that ended because a candidate passed the gate."""

NEVER = datetime.fromtimestamp(0, UTC)
RELAUNCH = RelaunchPolicy()

Action = Literal["open", "grant", "refuse", "outcome", "close", "reconcile", "wait"]

Target = Literal["chain", "approval"]
"""What a reconciling run carries out: the chain from the training set on, or approval and deployment only."""


@dataclass(frozen=True)
class Attempt:
    """One granted retrain. ``data``: the training data it was granted for, as text. Times: ISO 8601, zone.

    ``asked_by``: the person who asked for it, "" for none; ``overrode``: the limits that person overrode.
    """

    number: int
    granted_at: str
    data: str
    outcome: Outcome = "running"
    ended_at: str | None = None
    reason: str = ""
    asked_by: str = ""
    overrode: str = ""


@dataclass(frozen=True)
class Ask:
    """A retrain that a person asks for. ``override`` counts only together with ``by`` and ``reason``.

    A request that was merely reported names nobody: it asks, and overrides nothing.
    """

    by: str = ""
    reason: str = ""
    override: bool = False

    @property
    def who(self) -> str:
        return self.by or "somebody"

    @property
    def overrides(self) -> bool:
        return self.override and bool(self.by) and bool(self.reason)


@dataclass(frozen=True)
class Episode:
    """One episode on ``version``. Open while ``closed_at`` is None.

    ``asked_by``: it is no drift; a person asked for its one retrain, and it ends with that.
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

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

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
        """The log without what people asked for."""
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
            raise DataError(f"this is no log of episodes ({error!r}): {text[:120]}") from error


@dataclass(frozen=True)
class AttemptFacts:
    """What became of the newest attempt. ``outcome`` None: no run has read its request yet.

    ``version``: of the candidate that was made, if any. ``ended_at``: of its run or verdict, in the time of
    ``now``. ``unread_for``: while no run has read the request, how long it has been there, in *real* time:
    how long automation takes does not depend on a clock that is replayed. ``request``: the attempt these
    facts are of, as ``Episode.request_version`` says it (None: of the newest); facts of another one are not
    used.
    """

    outcome: Outcome | None = None
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
    asked: Ask | None = None
    real_now: datetime = NEVER


@dataclass(frozen=True)
class Step:
    """What to do next, why, and the log after it.

    ``episode`` and ``attempt``: numbers it is about. ``next_at``: when time alone will change the answer.
    ``run_key``: of action reconcile, the key of the one run to launch for an event that automation lost; one
    key launches one run for ever, so the step may be carried out again. ``target``: what that run is of.
    ``may_override``: of action refuse, whether a person's word would do. ``asked``: it answers a
    person's request.
    """

    action: Action
    reason: str
    log: EpisodeLog
    episode: int | None = None
    attempt: int | None = None
    run_key: str | None = None
    next_at: datetime | None = None
    target: Target = "chain"
    may_override: bool = False
    asked: bool = False


def open_episode(
    log: EpisodeLog, *, version: str, reason: str, now: datetime, asked_by: str = ""
) -> EpisodeLog:
    """The log with one more episode, open. EpisodeError when one is open."""
    if log.open is not None:
        raise EpisodeError(f"{log.open.data_version} on {log.open.version} is open: close it first")
    number = log.newest.number + 1 if log.newest is not None else 1
    made = Episode(number, _text(now), version, reason, asked_by=asked_by)
    return EpisodeLog((*log.episodes, made)[-KEPT_EPISODES:])


def grant(log: EpisodeLog, *, data: str, now: datetime, asked_by: str = "", overrode: str = "") -> EpisodeLog:
    """The log with one more attempt of the open episode. EpisodeError when none is open or one is running."""
    episode = _open(log, "granted a retrain")
    if episode.attempts and episode.attempts[-1].outcome == "running":
        raise EpisodeError(f"attempt {episode.request_version} is running: one at a time")
    number = episode.attempts[-1].number + 1 if episode.attempts else 1
    made = Attempt(number, _text(now), data, asked_by=asked_by, overrode=overrode)
    return _with(log, replace(episode, attempts=(*episode.attempts, made)))


def record_outcome(log: EpisodeLog, outcome: Outcome, *, reason: str, ended_at: datetime) -> EpisodeLog:
    """The log with the running attempt ended. EpisodeError when none is running, or for outcome running."""
    episode = _open(log, "given an outcome")
    if outcome == "running" or not episode.attempts or episode.attempts[-1].outcome != "running":
        raise EpisodeError(f"no attempt of {episode.data_version} can end as {outcome}: none is running")
    ended = replace(episode.attempts[-1], outcome=outcome, reason=reason, ended_at=_text(ended_at))
    return _with(log, replace(episode, attempts=(*episode.attempts[:-1], ended)))


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


def next_step(
    log: EpisodeLog,
    decision: Decision,
    facts: LoopFacts,
    governor: GovernorPolicy,
    now: datetime,
    *,
    relaunch: RelaunchPolicy = RELAUNCH,
    grace: timedelta = timedelta(minutes=2),
) -> Step:
    """The one decision of the drift sensor. Carry it out, then ask again with ``step.log`` until it waits.

    ``decision``: on the windows of the version that answers. ``grace``: how long, in real time, automation
    may take to start a run for a grant before a reconciling run is launched; ten times that without any run,
    and the attempt has failed. ``relaunch``: how often, and after which pauses, what was lost is launched.

    An episode opens only for the version that answers, when no successor is on its way and no run under way
    that could become one; after a person closed one on the same version, only on windows that ended since.
    A retrain is granted when the governor permits it and there is training data that no attempt (unless it
    failed) and not the answering model itself was made from. A candidate that passes the gate closes the
    episode, whoever asked for it, unless it is the episode's own version once more. An approval that was lost
    is asked for first, whatever else is due, until ``lost_approval`` gives up.

    What a person asks for passes the same governor: it is granted as an attempt of the open episode, or as
    an episode of its own, or refused. Only an explicit override lifts limits, and none lifts one at a time.
    """
    lost = lost_approval(facts, relaunch)
    if lost is not None and lost.verdict == "launch":
        return _relaunch(
            log,
            facts,
            f"{facts.unapproved}/approval",
            f"{facts.unapproved} passed the gate and no approval followed: automation lost it",
            target="approval",
        )
    episode = log.open
    if episode is None:
        if facts.asked is not None:
            return _judged(log, facts.asked, facts, governor, now)
        return _without_episode(log, decision, facts, now)
    number = episode.number
    attempt = episode.attempts[-1] if episode.attempts else None
    if attempt is not None and attempt.outcome == "running":
        found = _running(log, episode, attempt, facts, now, grace, relaunch)
        if found.action == "wait" and facts.asked is not None:
            return _judged(log, facts.asked, facts, governor, now)
        return found

    def wait(why: str, next_at: datetime | None = None) -> Step:
        told = f"episode {number} on {episode.version} is open: {why}"
        return Step("wait", told, log, number, attempt.number if attempt else None, next_at=next_at)

    passed = _passed(episode, attempt, facts)
    if passed:
        after = close(log, by=GATE, reason=passed, now=now)
        return Step("close", f"episode {number} ends: {passed}", after, number)
    if episode.asked_by:
        became = attempt.outcome if attempt else "not made"
        ended = f"the retrain that {episode.asked_by} asked for was {became}"
        ended = f"{ended}: {attempt.reason}" if attempt and attempt.reason else ended
        after = close(log, by=episode.asked_by, reason=ended, now=now)
        return Step("close", f"episode {number} ends: {ended}", after, number)
    if facts.asked is not None:
        return _judged(log, facts.asked, facts, governor, now)
    if facts.served is None:
        return wait("nothing answers, so there is nothing to replace")
    if facts.in_flight is not None:
        return wait(f"run {facts.in_flight} is under way")
    if facts.data is None:
        return wait("it is not known what data there is to train on")
    stale_data = _used_before(log, facts)
    if stale_data:
        return wait(f"{stale_data}; newer data is waited for")
    permitted = permit(governor, log.grants, episode=number, in_flight=None, now=now)
    if not permitted.allowed:
        return wait(permitted.reason, permitted.next_at)
    after = grant(log, data=facts.data, now=now)
    made = after.open
    assert made is not None
    return Step(
        "grant",
        f"retrain {made.request_version} is granted for {episode.version}: {episode.reason}",
        after,
        number,
        made.attempts[-1].number,
    )


def _judged(log: EpisodeLog, ask: Ask, facts: LoopFacts, governor: GovernorPolicy, now: datetime) -> Step:
    """The answer to a person's request: granted, or refused with the limit and until when."""
    episode = log.open
    number = episode.number if episode is not None else None
    told_by = f"{ask.who} asked for a retrain" + (f" ({ask.reason})" if ask.reason else "")

    def refuse(why: str, next_at: datetime | None = None, *, may_override: bool = False) -> Step:
        reason = f"{told_by}: refused, {why}"
        return Step("refuse", reason, log, number, next_at=next_at, may_override=may_override, asked=True)

    following = log.newest.number + 1 if log.newest is not None else 1
    permitted = permit(governor, log.grants, episode=number or following, in_flight=facts.in_flight, now=now)
    if not permitted.allowed and permitted.next_at is None:
        return refuse(permitted.reason)
    if facts.served is None:
        return refuse("nothing answers, so there is nothing to replace")
    if facts.data is None:
        return refuse("it is not known what data there is to train on")
    limits = []
    if facts.successor is not None:
        limits.append(f"{facts.successor} passed the gate and is on its way")
    stale_data = _used_before(log, facts)
    if stale_data:
        limits.append(f"{stale_data}; newer data is waited for")
    if not permitted.allowed:
        limits.append(permitted.reason)
    reached = "; ".join(limits)
    if limits and not ask.overrides:
        unnamed = "; an override needs by and reason" if ask.override else ""
        return refuse(f"{reached}{unnamed}", permitted.next_at, may_override=True)
    if episode is None:
        log = open_episode(log, version=facts.served, reason=told_by, now=now, asked_by=ask.who)
    after = grant(log, data=facts.data, now=now, asked_by=ask.who, overrode=reached)
    made = after.open
    assert made is not None
    overrode = f"; {ask.by} overrode: {reached}" if reached else ""
    return Step(
        "grant",
        f"retrain {made.request_version} is granted for {facts.served}: {told_by}{overrode}",
        after,
        made.number,
        made.attempts[-1].number,
        asked=True,
    )


def version_number(version: str) -> int | None:
    """7 of "v7"; None for a text of another form."""
    return int(version[1:]) if version[:1] == "v" and version[1:].isdecimal() else None


def _without_episode(log: EpisodeLog, decision: Decision, facts: LoopFacts, now: datetime) -> Step:
    def wait(why: str) -> Step:
        return Step("wait", why, log)

    last = log.of_drift.newest
    if last is not None and last.closed_by == GATE and facts.in_flight is None:
        what = f"{last.data_version}/unread"
        # A signal that somebody reported by hand is no episode: nothing was lost.
        unread = not facts.signal_read and facts.signal == last.data_version
        # Once only: it costs a training that the governor granted to nobody.
        if unread and not _launches(facts, what):
            why = f"{last.data_version} ended, but the newest model was made before it was opened"
            return _relaunch(log, facts, what, why)
    if decision.action != "open":
        return wait(f"{decision.action}: {decision.reason}")
    if facts.served is None:
        return wait("nothing answers")
    if decision.version != facts.served:
        return wait(f"the windows are of {decision.version}, and {facts.served} answers")
    if facts.successor is not None:
        return wait(f"{facts.successor} passed the gate and is on its way: {decision.reason}")
    if facts.in_flight is not None:
        return wait(f"run {facts.in_flight} is under way and may bring a successor: {decision.reason}")
    if last is not None and last.closed_by not in (None, GATE) and last.version == facts.served:
        since = decision.evidence_since
        if since is None or datetime.fromisoformat(since) <= _time(last.closed_at):
            return wait(
                f"{last.closed_by} closed episode {last.number} on {last.version} ({last.close_reason}); "
                f"windows that ended since then have to show it again"
            )
    after = open_episode(log, version=facts.served, reason=decision.reason, now=now)
    made = after.open
    assert made is not None
    return Step(
        "open", f"episode {made.number} opens on {facts.served}: {decision.reason}", after, made.number
    )


def _running(
    log: EpisodeLog,
    episode: Episode,
    attempt: Attempt,
    facts: LoopFacts,
    now: datetime,
    grace: timedelta,
    relaunch: RelaunchPolicy,
) -> Step:
    request = episode.request_version
    found = facts.attempt
    earlier = found.ended_at is not None and found.ended_at < _time(attempt.granted_at)
    if earlier or found.request not in (None, request):
        found = AttemptFacts()
    outcome, reason = found.outcome, found.reason
    if outcome is None and facts.in_flight is None and found.unread_for is not None:
        if found.unread_for >= grace * LOST_AFTER:
            outcome, reason = "failed", f"no run read {request} within {told(grace * LOST_AFTER)}"
        elif found.unread_for >= grace:
            what = f"{request}/unread"
            if again(_launches(facts, what), relaunch, facts.real_now).verdict == "launch":
                why = f"no run read {request} within {told(grace)}: automation lost it"
                return _relaunch(log, facts, what, why, attempt=attempt.number)
    if outcome is None or outcome == "running":
        under_way = f"run {facts.in_flight} is under way" if facts.in_flight else "a run is expected"
        return Step("wait", f"{request} was granted: {under_way}", log, episode.number, attempt.number)
    named = ""
    if outcome == "promoted" and found.version is not None:
        if _same_again(found.version, episode, facts):
            outcome, named = "inconclusive", f"trained the same model again ({found.version})"
        else:
            named = f"{found.version} passed the gate"
    reason = ": ".join(part for part in (named, reason) if part)
    after = record_outcome(log, outcome, reason=reason, ended_at=found.ended_at or now)
    return Step("outcome", f"{request} {outcome}: {reason}", after, episode.number, attempt.number)


def _passed(episode: Episode, attempt: Attempt | None, facts: LoopFacts) -> str:
    """Which candidate passed the gate since the episode opened, in words; empty when none did."""
    if attempt is not None and attempt.outcome == "promoted":
        return attempt.reason or f"attempt {episode.request_version} passed the gate"
    if episode.asked_by:
        return ""
    if facts.successor is not None and not _same_again(facts.successor, episode, facts):
        return f"{facts.successor} passed the gate"
    served, own = version_number(facts.served or ""), version_number(episode.version)
    if served is not None and own is not None and served > own:
        return f"{facts.served} passed the gate and answers"
    return ""


def _same_again(version: str, episode: Episode, facts: LoopFacts) -> bool:
    """Whether a version that passed the gate is none but the one that drifted, or that answers in its place.

    The same bytes get the same version, and the gate promotes them. A version that answers and is newer than
    the episode's did replace it: then the rollout was faster than this decision.
    """
    if version == episode.version:
        return True
    number, own = version_number(version), version_number(episode.version)
    newer = number is not None and own is not None and number > own
    return version == facts.served and not newer


def lost_approval(facts: LoopFacts, relaunch: RelaunchPolicy) -> Again | None:
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
    return again(launches, relaunch, facts.real_now)


def _launches(facts: LoopFacts, what: str) -> list[Launch]:
    return [one for one in facts.launches if one.what == what]


def _relaunch(
    log: EpisodeLog,
    facts: LoopFacts,
    what: str,
    why: str,
    *,
    attempt: int | None = None,
    target: Target = "chain",
) -> Step:
    """The step that launches one run more for what was lost."""
    launch = len(_launches(facts, what)) + 1
    return Step(
        "reconcile",
        f"{why}; launch {launch}" if launch > 1 else why,
        log,
        log.newest.number if log.newest is not None else None,
        attempt,
        run_key=run_key(what, launch),
        target=target,
    )


def _used_before(log: EpisodeLog, facts: LoopFacts) -> str:
    """Why a retrain on the newest data would only make the same model again; empty when it would not."""
    attempts = [
        (episode, attempt)
        for episode in log.episodes
        for attempt in episode.attempts
        if attempt.outcome != "failed"
    ]
    if attempts and attempts[-1][1].data == facts.data:
        episode, attempt = attempts[-1]
        return f"attempt {episode.number}.{attempt.number} ({attempt.outcome}) was made from the same data"
    if facts.served_data is not None and facts.served_data == facts.data:
        return f"{facts.served} was trained on all the data there is"
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
    # Read once, so that a broken time is said here and not in the middle of a decision.
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
