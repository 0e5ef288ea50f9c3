"""The story itself: day after day is lived, and what the platform does of itself is waited for and told.

Belongs here: the order of scenes, which transition must come and by when. Does not belong here: how a
transition is recognised (``changes.py``), how a day is sent or delivered (``world.py``), starting the stack
(``run.py``).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from demo.changes import Change, Kind, changes
from demo.evidence import TogetherOnly, together_only
from demo.readings import Reading, Watch
from demo.telling import Teller
from demo.world import Lived, World
from mlops_assets.asset_names import Kind as AssetKind
from mlops_assets.asset_names import read_asset_name
from mlops_assets.assets.measuring import MEASURED
from mlops_assets.errors import MlopsError
from mlops_assets.monitoring.findings import WindowPerformance

POLL_S = 1.0
SHOWN_INSTEAD = 8
LONGEST = 200
SAID: Mapping[Kind, str] = {
    "window measured": "answers of {} measured",
    "window judged": "labels judge {}",
    "drift seen": "drift in {}",
    "episode opened": "{} opens",
    "episode noted": "{} goes on",
    "episode closed": "{} closes",
    "retrain granted": "the governor grants retrain {}",
    "model stale": "{} is STALE",
    "model fresh": "{} is FRESH",
    "run launched": "run {} launched",
    "run failed": "run {} failed",
    "training set made": "training set made",
    "candidates compared": "candidates compared, {} wins",
    "model made": "{} made",
    "verdict": "the gate on {}",
    "approved": "{} approved",
    "rollout": "rollout of {}",
    "promoted": "{} promoted",
    "aborted": "{} rolled back",
    "traffic": "traffic moves",
    "tripped": "{} tripped by the guard",
    "served stale": "what answers, {}, is stale",
    "served fresh": "what answers, {}, is fresh",
}
ONE_DAY = timedelta(days=1)
TUESDAY = 1
"""By then the outcomes of the week before have arrived, its last day's too."""
DRIFT_SENSOR = "drift_flights"
GOOD = ("promoted", "episode closed", "model fresh", "served fresh", "approved")
BAD = ("run failed",)

REPAIR: tuple[Kind, ...] = (
    "window measured", "window judged", "episode opened", "model stale", "retrain granted", "run launched",
    "training set made", "candidates compared", "model made", "model fresh", "verdict", "approved", "rollout",
    "promoted", "episode closed",
)  # fmt: skip
"""What must have been seen at least once."""

MEASURED_S, SENSOR_S, LAUNCHED_S, TRAINED_S, JUDGED_S = 240.0, 120.0, 180.0, 480.0, 240.0
STEP_S, ROLLOUT_S, TRIPPED_S, STALE_S = 30.0, 420.0, 60.0, 240.0
"""Of a machine that has other work too; on a quiet one a tenth of it passes."""


class Unfulfilled(MlopsError):
    """A transition that did not come in time, and what was seen instead."""


@dataclass(frozen=True)
class Seen:
    """A transition with its virtual time (ISO 8601) and real time (seconds of the story)."""

    change: Change
    virtual: str
    real: float


@dataclass
class Story:
    """The platform as seen from outside, the world, and everything seen so far."""

    teller: Teller
    watch: Watch
    world: World
    alive: Callable[[], None]
    """Raises StackError when a part of the platform died."""
    enough: int
    """Requests with which every step of a rollout can be judged."""
    added_up: bool = False
    """The first episode must come of evidence that no window holds alone."""
    together: TogetherOnly | None = None
    """That evidence, once the episode is open."""
    seen: list[Seen] = field(default_factory=list)
    lived: list[Lived] = field(default_factory=list)
    last: Reading = field(default_factory=Reading)

    # -- looking ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Takes what is there as known: only what comes is told."""
        self.last = self.watch.look()

    def look(self) -> list[Change]:
        """What has happened since the last look, told line by line."""
        self.alive()
        now = self.watch.look()
        found = changes(self.last, now)
        # A question that could not be answered this time must not look like a change next time.
        self.last = Reading(
            now.events,
            now.staleness or self.last.staleness,
            now.runs,
            now.endpoint or self.last.endpoint,
            self.last.served_stale if now.served_stale is None else now.served_stale,
        )
        for change in found:
            self.seen.append(Seen(change, self.world.clock.now.isoformat(), self.teller.elapsed))
            mark = "done" if change.kind in GOOD else "bad" if change.kind in BAD else "seen"
            self.teller.line(words(change), shortened(change.text), mark=mark)
        return found

    def expect(
        self, what: str, matches: Callable[[Change], bool], *, within_s: float, since: int = 0
    ) -> Change:
        """The first matching transition after number ``since``; waits for it, and raises Unfulfilled."""
        deadline = time.monotonic() + within_s
        while (found := self.find(matches, since=since)) is None:
            late = time.monotonic() >= deadline
            # Whatever the deadline: what is there already must be seen.
            self._look_again()
            if late and self.find(matches, since=since) is None:
                raise Unfulfilled(f"{what} did not come within {within_s:.0f} s. {self.instead(since)}")
        return found

    def _look_again(self) -> None:
        """Looks, and rests when nothing had happened."""
        if not self.look():
            time.sleep(POLL_S)

    def find(self, matches: Callable[[Change], bool], *, since: int = 0) -> Change | None:
        """The first matching transition after number ``since``, if it was seen."""
        return next((one.change for one in self.seen[since:] if matches(one.change)), None)

    def instead(self, since: int) -> str:
        """What was seen in the place of what was waited for: transitions, unfinished runs, sensors."""
        told = [
            f"{one.virtual[:10]}, {one.real:.0f} s: {words(one.change)}: {one.change.text}"
            for one in self.seen[since:]
        ]
        under_way = [
            f"run {run.run_id[:8]} {run.status.lower()}: {', '.join(run.assets)}"
            for run in self.last.runs.values()
            if run.status not in ("SUCCESS", "FAILURE", "CANCELED")
        ]
        ticks = [
            f"sensor {tick.sensor} {tick.status.lower()}: {tick.told}" for tick in self.watch.ticks().values()
        ]
        lines = [*(told[-SHOWN_INSTEAD:] or ["no transition at all"]), *under_way, *ticks]
        return "Seen instead:\n" + "\n".join(f"  {line}" for line in lines)

    # -- living ----------------------------------------------------------------------------------------

    def live(self, day: date, *, without: Sequence[str] = ()) -> None:
        """One day of requests and arriving outcomes; Unfulfilled when an answer was lost."""
        lived = self.world.live(day, without)
        self.lived.append(lived)
        answered = ", ".join(f"{version} {count}" for version, count in lived.by_version().items())
        detail = f"answered by {answered}; {lived.seconds:.1f} s"
        if lived.arrived:
            detail += f"; outcomes of {days_name(*lived.arrived)} arrived"
        self.teller.line(f"{len(lived.asks):,} requests of {day:%a %d %b}", detail, mark="doing")
        if lived.lost:
            raise Unfulfilled(
                f"{lived.lost} of {len(lived.asks)} requests of {day} got no correct answer: "
                f"{'; '.join(lived.problems)}"
            )
        self.look()

    def day(self, day: date) -> None:
        """One day, and everything it sets off, followed to where time has to pass again."""
        began = time.time()
        self.live(day)
        if day.weekday() == TUESDAY and self.lived[-1].arrived:
            self.measured(labels_since=began)
        self.follow()

    def measured(self, *, labels_since: float) -> None:
        """Waits for a measurement that knows the labels since that time (Unix seconds), and until the drift
        sensor has thought about it.
        """
        since, deadline = len(self.seen), time.monotonic() + MEASURED_S
        while not self._knows_labels(labels_since):
            if time.monotonic() > deadline:
                raise Unfulfilled(
                    f"the answers until {self.world.clock.now:%d %b} were not measured within "
                    f"{MEASURED_S:.0f} s. {self.instead(since)}"
                )
            self._look_again()
        self._until_ticked()

    def follow(self) -> None:
        """Follows what has begun: an episode to its verdict, a rollout by one step."""
        aborted = self.find(_is("aborted"))
        if aborted is not None:
            raise Unfulfilled(f"the rollout of {aborted.subject} was aborted: {aborted.text}")
        started = self._last("episode opened")
        if started is not None and self.added_up and self.together is None:
            self.together = self._only_together(started)
        if started is not None and not self._any("model stale", self._since_fresh(started)):
            self._stale(self._since_fresh(started))
        granted = self._last("retrain granted")
        if granted is not None and not self._any("verdict", granted):
            self.retrain(granted)
        elif (judging := self._judging()) is not None:
            self.judged(judging)
        self.wait_for_step()

    def retrain(self, since: int) -> None:
        """From a granted retrain to the gate's verdict, in one run."""
        self.expect("a run for the granted retrain", _is("run launched"), within_s=LAUNCHED_S, since=since)
        self.expect("a new training set", _is("training set made"), within_s=TRAINED_S, since=since)
        self.expect("the candidates", _is("candidates compared"), within_s=TRAINED_S, since=since)
        self.expect("a new model", _is("model made"), within_s=JUDGED_S, since=since)
        self.judged(since)

    def judged(self, since: int) -> None:
        """The gate's verdict, and the start of a rollout where that is to promote."""
        verdict = self.expect("the gate's verdict", _is("verdict"), within_s=JUDGED_S, since=since)
        if verdict.facts.get("outcome") == "promote":
            self.expect("the approval", _is("approved"), within_s=JUDGED_S, since=since)
            self.expect("the start of the rollout", _is("rollout"), within_s=JUDGED_S, since=since)

    def _judging(self) -> int | None:
        """Number of the newest launch of a run that judges, while its verdict is not there."""
        for number in range(len(self.seen) - 1, -1, -1):
            change = self.seen[number].change
            if change.kind == "verdict":
                return None
            made = change.facts.get("assets", ()) if change.kind == "run launched" else ()
            if any(read_asset_name(asset).kind == "evaluation" for asset in made):
                return number
        return None

    def rolling_out(self) -> bool:
        """Whether a rollout was begun and has not ended."""
        return self._target() is not None

    def _target(self) -> str | None:
        """The version that is being rolled out."""
        begun = self._last("rollout")
        if begun is None or any(self._any(kind, begun) for kind in ("promoted", "aborted")):
            return None
        return self.seen[begun].change.subject

    def wait_for_step(self) -> None:
        """Gives the rollout sensor time to act, if there is a rollout that has seen enough requests."""
        target, since = self._target(), len(self.seen)
        if target is None or self.watch.samples(target) < self.enough:
            return
        deadline = time.monotonic() + STEP_S
        while time.monotonic() < deadline:
            if any(one.change.kind in ("rollout", "promoted", "aborted") for one in self.seen[since:]):
                return
            self._look_again()

    def repaired(self) -> bool:
        """Whether a successor was promoted and the episode that led to it is over."""
        opened, promoted = self._last("episode opened"), self._last("promoted")
        return opened is not None and promoted is not None and promoted > opened

    def require_repair(self) -> None:
        """The whole way from drift to a fresh model that answers; Unfulfilled names what did not come."""
        for kind in REPAIR:
            if self._last(kind) is None:
                raise Unfulfilled(f"{kind!r} was never seen. {self.instead(0)}")
        promoted = self._last("promoted")
        assert promoted is not None
        if self._any("served stale", 0):
            self.expect("what answers to be fresh", _is("served fresh"), within_s=STALE_S, since=promoted)

    def rolled_back(self, version: str, day: date, without: Sequence[str]) -> None:
        """The planted version passes the gate, gets a share of the callers, fails, and is taken back."""
        since = len(self.seen)
        verdict = self.expect(
            f"the gate's verdict on {version}",
            _is("verdict", version),
            within_s=LAUNCHED_S + JUDGED_S,
            since=since,
        )
        if verdict.facts.get("outcome") != "promote":
            raise Unfulfilled(f"the planted {version} did not pass the gate: {verdict.text}")
        self.expect("the start of its rollout", _is("rollout", version), within_s=JUDGED_S, since=since)
        deadline = time.monotonic() + ROLLOUT_S
        while self.last.endpoint is None or not self.last.endpoint.weights.get(version):
            if time.monotonic() > deadline or not self.rolling_out():
                raise Unfulfilled(f"{version} got no share of the requests. {self.instead(since)}")
            self.live(day)
            day += ONE_DAY
            self.wait_for_step()
        self.teller.line(
            "the callers' weather feed fails", f"{len(without)} features are missing from now on"
        )
        since = len(self.seen)
        self.live(day, without=without)
        self.expect(f"a trip of {version}", _is("tripped", version), within_s=TRIPPED_S, since=since)
        self.expect(f"the abort of {version}", _is("aborted", version), within_s=ROLLOUT_S, since=since)
        self.expect(
            "all traffic back on stable",
            lambda change: change.kind == "traffic" and version not in change.text.split(";")[0],
            within_s=SENSOR_S,
            since=since,
        )

    def fact(self, kind: AssetKind, name: str) -> str:
        """A fact of the newest materialisation of that kind, as text."""
        found = [
            event
            for event in self.last.events
            if read_asset_name(event.asset).kind == kind and event.kind == "materialised"
        ]
        return str(found[-1].facts.get(name, "")) if found else ""

    def _stale(self, since: int) -> None:
        """An episode makes the model stale, by cause, and what answers says so too."""
        self.expect(
            "the model STALE because of the episode",
            lambda change: change.kind == "model stale" and "_drift_signal" in change.text,
            within_s=STALE_S,
            since=since,
        )
        if self._last("retrain granted") is None:
            # Nothing holds the first one back; a later one may have to wait for its cooldown.
            self.expect("a granted retrain", _is("retrain granted"), within_s=SENSOR_S, since=since)

    def _only_together(self, opened: int) -> TogetherOnly:
        """The evidence that opened the episode, told in a sentence; Unfulfilled if one window has it all."""
        measured = [
            event
            for event in self.last.events
            if read_asset_name(event.asset).kind == "performance" and event.kind == "materialised"
        ]
        windows = [
            WindowPerformance.from_dict(one) for one in (measured[-1].facts["windows"] if measured else [])
        ]
        found = together_only(windows, self.seen[opened].change.facts.get("signals") or [])
        if isinstance(found, str):
            raise Unfulfilled(f"the episode must come of evidence that adds up, but {found}.")
        self.teller.line("only together they prove it", found.sentence)
        return found

    def _since_fresh(self, started: int) -> int:
        """Number of the first transition after the model was last fresh, before transition ``started``.

        Staleness and events are two questions: an episode that opens between them is seen stale first.
        """
        fresh = [n for n in range(started) if self.seen[n].change.kind == "model fresh"]
        return fresh[-1] + 1 if fresh else 0

    def _until_ticked(self) -> None:
        """Returns once the drift sensor has run after what was seen last."""
        after = time.time()
        deadline = time.monotonic() + SENSOR_S
        while (
            (tick := self.watch.ticks().get(DRIFT_SENSOR)) is None
            or tick.at < after
            or tick.status == "STARTED"
        ):
            if time.monotonic() > deadline:
                raise Unfulfilled(
                    f"the sensor {DRIFT_SENSOR} did not look within {SENSOR_S:.0f} s. {self.instead(0)}"
                )
            self._look_again()
        self.look()

    def _knows_labels(self, since: float) -> bool:
        """Whether drift was measured on labels that arrived after that time (Unix seconds)."""
        measured = [
            json.loads(str(event.facts.get(MEASURED) or "{}"))
            for event in self.last.events
            if read_asset_name(event.asset).kind == "drift" and event.kind == "materialised"
        ]
        return any(float(one.get("labels", 0.0)) >= since for one in measured)

    def _last(self, kind: Kind) -> int | None:
        """Number of the newest transition of that kind."""
        return next((n for n in range(len(self.seen) - 1, -1, -1) if self.seen[n].change.kind == kind), None)

    def _any(self, kind: Kind, since: int) -> bool:
        return any(one.change.kind == kind for one in self.seen[since:])


def days_name(first: date, last: date) -> str:
    """Days in words: ``24 Jun``, or ``24 Jun to 30 Jun``."""
    return f"{first:%d %b}" if first == last else f"{first:%d %b} to {last:%d %b}"


def _is(kind: Kind, subject: str | None = None) -> Callable[[Change], bool]:
    return lambda change: change.kind == kind and subject in (None, change.subject)


def words(change: Change) -> str:
    """A transition as a clause."""
    return SAID[change.kind].format(change.subject)


def shortened(text: str) -> str:
    """What fits a line of the story; the whole text stands on the asset's page."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
