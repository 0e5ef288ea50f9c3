"""A transition is waited for, told once, and missed loudly; a day is lived in order."""

import io
import json
import time
from concurrent.futures import Future
from datetime import UTC, date, datetime, timedelta
from typing import get_args

import pytest
from rich.console import Console

from demo import scenes
from demo.callers import Ask
from demo.changes import Change, Kind
from demo.deliveries import Delivered
from demo.readings import Endpoint, Event, Reading, Run, Tick
from demo.story import Story, Unfulfilled, shortened, words
from demo.telling import Teller
from demo.traffic import Answer, Sent
from demo.virtual_time import ClockFile, midnight
from demo.world import World
from mlops_assets.errors import StackError
from mlops_assets.monitoring.findings import WindowPerformance

MONDAY = date(2013, 6, 24)
ONE_DAY = timedelta(days=1)
ALONE = Endpoint("v1", {"v1": 100.0}, {}, {})


def event(asset, at, **facts):
    return Event(asset, "materialised", f"run-{at}", at, None, str(facts.get("version", "")), "", facts)


class Looks:
    """A watch whose looks are given: the last one goes on for ever."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def look(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def ticks(self):
        return {"drift_flights": Tick("drift_flights", "SKIPPED", 1.0, "too few windows were judged")}


class Outcomes:
    """Takes down which days were brought."""

    def __init__(self):
        self.brought = []

    def bring(self, first, last):
        self.brought.append((first, last))
        future = Future()
        future.set_result(Delivered("run", first, last, 0.1))
        return future


class Callers:
    """Answers everything but the bodies that hold ``lost``, and takes down when it was asked."""

    def __init__(self, clock, lost=b"?"):
        self.clock, self.lost, self.asked = clock, lost, []

    def send(self, bodies):
        self.asked.append((self.clock.now, len(bodies)))
        answers = tuple(None if self.lost in body else Answer("late", 0.5, "v1", "stable") for body in bodies)
        return Sent(answers, ("HTTP 503: try again",) if None in answers else (), 0.0)


def asks_of(day):
    return [
        Ask(datetime(day.year, day.month, day.day, hour, 15, tzinfo=UTC), f"{day}-{hour}", {"temp": 20.0}, 0)
        for hour in (9, 9, 12)
    ]


@pytest.fixture
def told(tmp_path):
    """Makes a story from the looks of its watch; ``lines`` is what it printed."""

    class Told:
        def __init__(self):
            self.console = Console(file=io.StringIO(), width=200)
            self.clock = ClockFile(tmp_path / "clock", midnight(MONDAY - 7 * ONE_DAY))
            self.outcomes = Outcomes()

        def story(self, *readings, lost=b"?", arrivals=range(7), alive=lambda: None):
            self.callers = Callers(self.clock, lost)
            asks = {MONDAY + n * ONE_DAY: asks_of(MONDAY + n * ONE_DAY) for n in range(8)}
            world = World(
                self.clock,
                self.callers,
                self.outcomes,
                asks,
                delivered_until=MONDAY - 10 * ONE_DAY,
                arrivals=arrivals,
            )
            teller = Teller(self.console, lambda: self.clock.now)
            return Story(teller, Looks(*(readings or (Reading(),))), world, alive, enough=300)

        @property
        def lines(self):
            return self.console.file.getvalue().splitlines()

    return Told()


def test_a_transition_that_does_not_come_names_what_came_instead(told):
    waiting = {"0123456789": Run("0123456789", "QUEUED", ("flights_model",), "automation", 1.0, None, None)}
    story = told.story(Reading(), Reading(events=(event("flights_training_set", 1.0),), runs=waiting))
    story.begin()
    with pytest.raises(Unfulfilled) as missed:
        story.expect("a new model", lambda change: change.kind == "model made", within_s=0.0)
    said = str(missed.value)
    assert said.startswith("a new model did not come within 0 s. Seen instead:")
    assert "training set made" in said
    assert "run 01234567 queued: flights_model" in said
    assert "sensor drift_flights skipped: too few windows were judged" in said


def test_only_a_transition_after_the_given_one_counts(told):
    first, second = (event("flights_model", at, model_version=int(at)) for at in (1.0, 2.0))
    story = told.story(Reading(), Reading(events=(first,)), Reading(events=(first, second)))
    story.begin()

    def is_made(change):
        return change.kind == "model made"

    assert story.expect("a model", is_made, within_s=5.0).subject == "v1"
    assert story.expect("the same model", is_made, within_s=5.0).subject == "v1"
    assert story.expect("another model", is_made, within_s=5.0, since=len(story.seen)).subject == "v2"
    assert sum("v1 made" in line for line in told.lines) == 1


def test_an_endpoint_that_is_slow_for_a_moment_has_not_changed(told):
    story = told.story(Reading(endpoint=ALONE), Reading(endpoint=None), Reading(endpoint=ALONE))
    story.begin()
    assert [story.look(), story.look(), story.look()] == [[], [], []]


def test_a_part_of_the_platform_that_died_ends_the_wait(told):
    def died():
        raise StackError("ray ended with exit code 1")

    story = told.story(alive=died)
    story.begin()
    with pytest.raises(StackError, match="ray ended"):
        story.expect("anything", lambda change: True, within_s=60.0)


def test_a_day_is_lived_hour_by_hour_and_its_outcomes_come_days_later(told):
    story = told.story()
    story.live(MONDAY)

    assert told.callers.asked == [
        (midnight(MONDAY).replace(hour=9, minute=15), 2),
        (midnight(MONDAY).replace(hour=12, minute=15), 1),
    ]
    assert told.clock.now == midnight(MONDAY + ONE_DAY)
    assert told.outcomes.brought == [(MONDAY - 9 * ONE_DAY, MONDAY - 2 * ONE_DAY)]
    (line,) = (line for line in told.lines if "requests of" in line)
    assert "3 requests of Mon 24 Jun" in line and "v1 3" in line and "15 Jun to 22 Jun" in line


def test_outcomes_arrive_on_their_weekdays_and_no_day_is_left_out_or_brought_twice(told):
    story = told.story(arrivals=(2, 4))
    for n in range(8):
        story.live(MONDAY + n * ONE_DAY)
    assert told.outcomes.brought == [
        (MONDAY - 9 * ONE_DAY, MONDAY),
        (MONDAY + ONE_DAY, MONDAY + 2 * ONE_DAY),
    ]


def test_on_the_first_day_nothing_is_due_that_is_not_there(told):
    story = told.story()
    story.world._delivered_until = MONDAY - ONE_DAY
    story.live(MONDAY)
    assert told.outcomes.brought == []
    assert story.lived[-1].arrived is None


def test_a_lost_answer_ends_the_story(told):
    story = told.story(lost=b"2013-06-24-12")
    with pytest.raises(
        Unfulfilled, match=r"1 of 3 requests of 2013-06-24 .* no correct answer: HTTP 503: try again"
    ):
        story.live(MONDAY)


def test_a_story_that_was_never_repaired_says_what_is_missing(told):
    story = told.story()
    story.begin()
    assert not story.repaired()
    with pytest.raises(Unfulfilled, match="'window measured' was never seen"):
        story.require_repair()


@pytest.mark.parametrize("plan", [scenes.SHORT, scenes.FULL])
def test_plans_have_days_for_everything(plan):
    assert plan.champion_until < plan.first_day < plan.last_day - plan.spare
    # Windows begin on Mondays: the first one is to be a whole one.
    assert plan.first_day.weekday() == 0
    assert plan.arrivals and set(plan.arrivals) <= set(range(7))


def test_every_transition_has_words_and_long_ones_are_cut_at_a_word():
    assert all(words(Change(kind, "v7", "")) for kind in get_args(Kind))
    assert words(Change("promoted", "v7", "")) == "v7 promoted"
    assert shortened("a b") == "a b"
    assert shortened("word " * 60).endswith("word …") and len(shortened("word " * 60)) <= 202


def test_only_a_measurement_that_knows_the_new_labels_counts(told):
    def measured(run_id, labels):
        facts = {"windows": [], "measured": json.dumps({"labels": labels})}
        drift = Event("flights_drift", "materialised", run_id, labels, None, "", "", facts)
        return Reading(events=(drift,))

    story = told.story(measured("before", 1.0), measured("after", 3.0))
    story.begin()
    story.watch.ticks = lambda: {"drift_flights": Tick("drift_flights", "SKIPPED", time.time() + 120, "")}

    story.measured(labels_since=2.0)

    assert story.last.events[-1].run_id == "after"


def performance(*losses, accumulated=2.0):
    """Weeks with these proven losses, of which the newest has evidence since the first."""
    weeks = [
        WindowPerformance(
            f"2013-06-{3 + 7 * n:02d}T00:00:00+00:00", f"2013-06-{10 + 7 * n:02d}T00:00:00+00:00", "v1",
            "champion", 6_000, 6_000, 1.0, "judged", "", loss_low=low, below_baseline=-0.1,
            accumulated=accumulated, accumulated_since="2013-06-10T00:00:00+00:00", accumulated_loss=0.05,
        )
        for n, low in enumerate(losses)
    ]  # fmt: skip
    return event("flights_performance", 1.0, windows=[one.to_dict() for one in weeks])


def episode(at):
    return event("flights_drift_signal", at, version="episode-1", reason="performance fell",
                 signals=[{"name": "performance", "action": "open"}])  # fmt: skip


def test_an_episode_of_added_up_evidence_is_told_in_a_sentence(told):
    story = told.story(Reading(), Reading(events=(performance(-0.02, -0.01), episode(2.0))))
    story.added_up = True
    story.begin()
    story.look()

    story.together = story._only_together(story._last("episode opened"))

    assert (story.together.windows, story.together.needed) == (2, 2)
    (line,) = (line for line in told.lines if "only together they prove it" in line)
    assert "none of the 2 windows proves a loss by itself; together they hold 2.0 times the evidence" in line


def test_a_week_that_proves_the_loss_alone_ends_the_story(told):
    story = told.story(Reading(), Reading(events=(performance(-0.02, 0.01), episode(2.0))))
    story.added_up = True
    story.begin()
    story.look()
    with pytest.raises(Unfulfilled, match="the window until 2013-06-17 proves a loss"):
        story.follow()


def test_a_candidate_that_is_judged_again_is_waited_for(told):
    again = {
        "again": Run(
            "again", "STARTED", ("flights_evaluation", "flights_approval"), "governor", 1.0, None, None
        )
    }
    verdict = event("flights_evaluation", 2.0, model_version=2, outcome="inconclusive", reason="too few days")
    story = told.story(Reading(), Reading(runs=again), Reading(runs=again, events=(verdict,)))
    story.begin()
    story.look()
    assert story._judging() == 0

    story.follow()

    assert story._judging() is None
    assert [one.change.kind for one in story.seen] == ["run launched", "verdict"]


def test_a_run_that_brings_an_approval_back_has_no_verdict(told):
    lost = {
        "lost": Run(
            "lost", "STARTED", ("flights_approval", "flights_deployment"), "reconciler", 1.0, None, None
        )
    }
    story = told.story(Reading(), Reading(runs=lost))
    story.begin()
    story.look()
    assert story._judging() is None
