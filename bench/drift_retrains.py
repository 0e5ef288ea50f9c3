"""What retraining on drift is worth on worlds of which it is known what happened, with real trainings.

Belongs here: a year of M1 to M7 replayed by the product's own backtest under the default policy, monthly,
never, and a calendar with as many retrains as drift made in that very run; the counting and the table of
docs/backtest.md. Does not belong here: the worlds (``mlops_assets/testing/drift_worlds.py``), when detectors
alarm on them without any training (``bench/drift_worlds.py``), a real year (``bench/backtest.py``).

``python -m bench.drift_retrains`` prints tables, ``--json`` the same numbers. ``--world M2`` takes one world,
``--kept FOLDER`` keeps what was replayed there, so that it can be done in pieces (the files of drift go when
the rules change), ``--retrains`` lists every retrain of drift with the gate's reason. Rules were chosen on
runs below 100; ``--first 100`` takes others.

Everything is as a document has it that declares nothing but a name and features: logistic regression whose
training windows compete, the default gate, 14 days of evaluation, the default drift monitor. A world gives 48
answers a day, every other row of it, and the labels of a day are known when it is over. The calendar with as
many retrains is evenly spaced, and where it begins within its first interval is drawn for each run: a
calendar does not know when the world will change.

Log loss is the plain mean over weeks. How good a version is for the world after the change is told by a year
of other rows drawn from it, as a share of the gap between the first version (1) and a model that was trained
on a further year of them (0). A version is near the truth when that share is a tenth or less.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.drift_worlds import Interval, bootstrapped, share
from mlops_assets.assets.backtest import monitoring_of
from mlops_assets.backtest.replay import (
    Monitoring,
    Regime,
    RegimeReplay,
    ReplayedUseCase,
    regimes,
    replay,
)
from mlops_assets.backtest.trainings import History, Recipe, ReplayedModel, RowKeys, Trainings, make_history
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.evaluation.gate import GatePolicy
from mlops_assets.evaluation.metrics.log_loss import log_losses
from mlops_assets.testing.drift_worlds import CLASSES, START, WORLDS, DriftWorld
from mlops_assets.training.candidates import Candidate
from mlops_assets.training.window import DEFAULT_WINDOWS

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SEED = 20_263
"""First of the numbers that a run is drawn from; the others are the world's place and the run's."""
WEEKS = 52
TRUTH_DAYS = 364
NEAR = 0.1
DAY = timedelta(days=1)
AS_MANY = "as many"
YARDSTICKS = ("never", "monthly")
WORKERS = 2


@dataclass(frozen=True)
class Attempt:
    """One retrain. Days since the start, of its training and its last verdict; ``outcome``: the gate's.

    ``rest``: how much of the gap to a model of the new truth its model leaves; None where nothing changed.
    """

    day: float
    judged: float
    outcome: str
    looks: int
    rest: float | None
    reason: str


@dataclass(frozen=True)
class Year:
    """A regime in one run.

    ``loss``: mean log loss of the year; ``loss_since``: since the change, where one is. ``near_after``: days
    from the change to the first version near the truth; None: none came.
    """

    regime: str
    loss: float
    loss_since: float | None
    episodes: int
    attempts: tuple[Attempt, ...]
    near_after: float | None

    @property
    def passed(self) -> int:
        return sum(one.outcome == "promoted" for one in self.attempts)


# -- one run -----------------------------------------------------------------------------------------------


def default_recipe(world: DriftWorld, windows: Sequence[int | None] = DEFAULT_WINDOWS) -> Recipe:
    """How a model is made whose document declares nothing but its name and features."""
    return Recipe(
        name=world.name,
        features=tuple(world.specs),
        candidates=tuple(Candidate("logistic_regression", window_days=days) for days in windows),
        gate=GatePolicy(),
        selecting_metric="log_loss",
    )


def default_monitoring() -> Monitoring:
    """What a drift monitor does that declares nothing but its model and since when there are logs."""
    return monitoring_of(DriftMonitorDeclaration(model="m", logs_since=START.date()))


def rows_of(world: DriftWorld, random: np.random.Generator, first: int, last: int) -> "pd.DataFrame":
    """Every other row of the days; the last of a day among them, which M4 drops at times."""
    frame = world.days(random, first, last)
    return frame[frame["row"] % 2 == 1].reset_index(drop=True)


def history_of(world: DriftWorld, frame: "pd.DataFrame") -> History:
    """These rows of a world, with their labels."""
    return make_history(
        frame[["row", "at", *(one.name for one in world.specs)]],
        frame[["row", "label"]],
        RowKeys(["row"], "at"),
        task="binary",
        classes=CLASSES,
        labels_after=timedelta(0),
    )


def evenly(count: int, start: datetime, end: datetime, first: float) -> tuple[datetime, ...]:
    """So many midnights at equal distances; ``first``: which share of the first distance has gone by then."""
    return tuple(
        start + round((number + first) * ((end - start) / DAY) / count) * DAY for number in range(count)
    )


class Truth:
    """The world after its change: how far a model is from what can be known of it."""

    def __init__(self, world: DriftWorld) -> None:
        assert world.changed_week is not None
        self._first = 7 * world.changed_week
        random = np.random.default_rng([SEED, list(WORLDS).index(world.name)])
        taught = rows_of(world, random, self._first, self._first + TRUTH_DAYS)
        self._rows = rows_of(world, random, self._first, self._first + TRUTH_DAYS)
        self._target: Floats = np.where(self._rows["label"] == "yes", 1.0, 0.0)
        trainings = Trainings(history_of(world, taught), default_recipe(world, (None,)), window_days=7)
        self._best = self.loss(trainings.at(START + (self._first + TRUTH_DAYS) * DAY))

    def loss(self, model: ReplayedModel) -> float:
        """Mean log loss on the rows of that year."""
        scorer = model.scorer
        columns = {name: self._rows[name] for name in scorer.manifest.feature_names}
        scores = scorer.score(scorer.encoder.columns(columns))
        return float(log_losses(self._target, scores).mean())

    def rest(self, model: ReplayedModel, first: ReplayedModel) -> float:
        """How much of the gap is left: 1 is what the first version loses, 0 is the best that is known."""
        return (self.loss(model) - self._best) / (self.loss(first) - self._best)


@cache
def truth_of(name: str) -> Truth:
    """The truth of that world, made once in a process."""
    return Truth(WORLDS[name])


class Run:
    """One run of a world: its rows, and the models that were made of them."""

    def __init__(self, name: str, run: int, *, seed: int = SEED, weeks: int = WEEKS) -> None:
        self.world, self._end = WORLDS[name], START + weeks * 7 * DAY
        numbers = [seed, list(WORLDS).index(name), run]
        random = np.random.default_rng(numbers)
        self._phase = float(np.random.default_rng([*numbers, 1]).random())
        history = history_of(
            self.world, rows_of(self.world, random, -7 * self.world.history_weeks, 7 * weeks)
        )
        self._use_case = ReplayedUseCase(history, default_recipe(self.world), default_monitoring())
        self._trainings = Trainings(history, self._use_case.recipe, window_days=7)

    def yardsticks(self) -> list[Year]:
        """Never and monthly, which no policy changes."""
        return self._years(regimes(YARDSTICKS))

    def compared(self) -> list[Year]:
        """Drift, and the calendar with as many retrains."""
        drift = self._years(regimes(["drift"]))
        count = len(drift[0].attempts)
        moments = evenly(count, START, self._end, self._phase) if count else ()
        return drift + self._years([Regime(AS_MANY, "moments", moments=moments)])

    def _years(self, chosen: Sequence[Regime]) -> list[Year]:
        found = replay(self._use_case, chosen, start=START, end=self._end, trainings=self._trainings)
        return [_year(self.world, one, self._trainings) for one in found.replays]


def _year(world: DriftWorld, found: RegimeReplay, trainings: Trainings) -> Year:
    first, changed = trainings.at(START), world.changed_week
    truth = truth_of(world.name) if changed is not None else None
    attempts = tuple(
        Attempt(
            _day(one.at),
            _day(one.judged_at),
            one.outcome,
            one.looks,
            truth.rest(trainings.made(one.digest), first) if truth else None,
            one.reason,
        )
        for one in found.retrains
    )
    return Year(
        found.regime,
        _mean_loss(found, 0),
        None if changed is None else _mean_loss(found, changed),
        # A retrain that was asked for, by the age of the data too, is an episode of its own and has no delay.
        sum(one.delay_days is not None for one in found.episodes),
        attempts,
        None if changed is None else near_after(attempts, 7.0 * changed),
    )


def near_after(attempts: Sequence[Attempt], changed: float) -> float | None:
    """Days from the change to the first version near the truth that answers; None: none came."""
    answers = [one.judged for one in attempts if one.outcome == "promoted" and (one.rest or 0.0) <= NEAR]
    return min((day - changed for day in answers if day > changed), default=None)


def _day(at: str) -> float:
    return (datetime.fromisoformat(at) - START) / DAY


def _mean_loss(found: RegimeReplay, first_week: int) -> float:
    losses = [loss for one in found.windows[first_week:] if (loss := one.metrics["log_loss"]) is not None]
    return float(np.mean(losses))


# -- all runs ----------------------------------------------------------------------------------------------


def measured(name: str, runs: range, kept: Path | None) -> list[list[Year]]:
    """These runs of a world on every core; from the folder where one was replayed before."""
    with ProcessPoolExecutor(WORKERS) as pool:
        return list(pool.map(_kept_years, [name] * len(runs), runs, [kept] * len(runs)))


def _kept_years(name: str, run: int, kept: Path | None) -> list[Year]:
    made = Run(name, run)
    parts = {"yardsticks": made.yardsticks, "drift": made.compared}
    found: list[Year] = []
    for part, measure in parts.items():
        file = None if kept is None else kept / f"{name}_{run}_{part}.json"
        if file is not None and file.exists():
            found += [_from_dict(one) for one in json.loads(file.read_text())]
            continue
        years = measure()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps([asdict(one) for one in years]))
        found += years
    return found


def _from_dict(values: Mapping[str, Any]) -> Year:
    return Year(**{**values, "attempts": tuple(Attempt(**one) for one in values["attempts"])})


def summary(name: str, runs: Sequence[Sequence[Year]]) -> list[dict[str, Any]]:
    """One row per regime. What it loses more than drift is paired, run by run."""
    by_regime: dict[str, list[Year]] = {one.regime: [] for one in runs[0]}
    for run in runs:
        for one in run:
            by_regime[one.regime].append(one)
    drift = [_judged_loss(one) for one in by_regime["drift"]]
    rows = []
    for regime, own in by_regime.items():
        losses = [_judged_loss(one) for one in own]
        more = [loss - ours for loss, ours in zip(losses, drift, strict=True)]
        row: dict[str, Any] = {
            "world": name,
            "runs": len(runs),
            "regime": regime,
            "retrains": bootstrapped([len(one.attempts) for one in own]),
            "passed": bootstrapped([one.passed for one in own]),
            "episodes": bootstrapped([one.episodes for one in own]) if regime == "drift" else None,
            "log_loss": bootstrapped(losses),
            "more_than_drift": None if regime == "drift" else bootstrapped(more),
            "drift_is_better": None if regime == "drift" else share(sum(one > 0 for one in more), len(more)),
            "drift_is_worse": None if regime == "drift" else share(sum(one < 0 for one in more), len(more)),
        }
        if WORLDS[name].changed_week is not None:
            near = [one.near_after for one in own if one.near_after is not None]
            row |= {
                "near_the_truth": share(len(near), len(own)),
                "median_days": bootstrapped(near, np.median),
            }
        rows.append(row)
    return rows


def _judged_loss(year: Year) -> float:
    """Since the change where there is one, else of the year."""
    return year.loss if year.loss_since is None else year.loss_since


# -- telling -----------------------------------------------------------------------------------------------

FORMS: Mapping[str, str] = {
    "retrains": ".1f",
    "passed": ".1f",
    "episodes": ".2f",
    "log_loss": ".4f",
    "more_than_drift": "+.4f",
    "drift_is_better": ".0%",
    "drift_is_worse": ".0%",
    "near_the_truth": ".0%",
    "median_days": ".0f",
}


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One table per world."""
    for world in dict.fromkeys(row["world"] for row in rows):
        own = [row for row in rows if row["world"] == world]
        since = "of the year" if WORLDS[world].changed_week is None else "since the change"
        title = f"{world}: {WORLDS[world].told}, {own[0]['runs']} runs, log loss {since}"
        names = [name for name in own[0] if name not in ("world", "runs")]
        table = Table(title=title, title_justify="left")
        for name in names:
            table.add_column(name.replace("_", " "))
        for row in own:
            table.add_row(*(_told(name, row[name]) for name in names))
        yield table


def _told(name: str, value: Interval | str | None) -> str:
    if isinstance(value, Interval):
        return value.told(FORMS[name])
    return "" if value is None else value


def retrain_lines(runs: Sequence[Sequence[Year]], first: int) -> Iterator[str]:
    """Every retrain of drift, run by run, counted from ``first``."""
    for number, run in enumerate(runs, first):
        for year in run:
            for one in year.attempts if year.regime == "drift" else ():
                rest = "" if one.rest is None else f", {one.rest:.0%} of the gap left"
                looks = f" at look {one.looks} on day {one.judged:g}" if one.looks > 1 else ""
                yield f"run {number} day {one.day:g}: {one.outcome}{looks}{rest}: {one.reason}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.drift_retrains", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--world", action="append", choices=tuple(WORLDS), help="only these of M1 to M7")
    parser.add_argument("--runs", type=int, default=20, help="runs per world")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--kept", type=Path, help="folder of years, which are not replayed again")
    parser.add_argument("--retrains", action="store_true", help="list every retrain of drift")
    chosen = parser.parse_args(arguments)
    numbers = range(chosen.first, chosen.first + chosen.runs)
    found = {name: measured(name, numbers, chosen.kept) for name in chosen.world or WORLDS}
    rows = [row for name, runs in found.items() for row in summary(name, runs)]
    if chosen.json:
        print(json.dumps(rows, indent=1, default=asdict))
        return
    console = Console()
    for table in tables(rows):
        console.print(table)
    for name, runs in found.items() if chosen.retrains else ():
        console.print(name)
        for line in retrain_lines(runs, chosen.first):
            console.print(line, markup=False, highlight=False)


if __name__ == "__main__":
    main()
