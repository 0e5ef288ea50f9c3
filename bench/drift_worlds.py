"""Which rules find what changed, how soon, and how often they find what did not: M1 to M7, real flights.

Belongs here: our rules and those of others on the same answers, the counting of their alarms, the tables.
Does not belong here: the worlds (``mlops_assets/testing/drift_worlds.py``), the others' detectors
(``bench/peers/detectors.py``), our rules (``mlops_assets/monitoring``), the command (``bench/drift.py``).

Nothing is trained: a model that lost skill is never replaced, so how many retrains an episode leads to is not
told here (``bench/backtest.py``).

What counts, for every rule alike. Ours looks when a week is over and alarms when an episode begins: it would
open one, and would not have a week before. A detector of others looks at every row (CUSUM at every day) and
starts anew after each alarm; alarms within a week of one that counts are the same. *Found* is the first alarm
after the change, whether there was a false one before or not, so a rule that alarms every week finds
everything: read both columns. Delays are days from the change, of the runs in which it was found.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bench.drift import CLASSES, WEEK, WINDOW, Flights, Rows, drift_of, performance_of, test_of
from bench.peers.detectors import (
    CUSUM_GRID,
    GRIDS,
    TUNED,
    Stream,
    cusum_alarms,
    peer_alarms,
    river_alarms,
)
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.evaluation.metrics.log_loss import log_losses
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.lasting_loss import LastingLossTest, with_lasting_loss
from mlops_assets.monitoring.policy import DriftPolicy, DriftVerdict, WindowsRule, drift_verdict
from mlops_assets.monitoring.reference import DriftReference, HeldOut, TrainingRows, make_reference
from mlops_assets.testing.drift_worlds import CHANGE_WEEK, WORLDS
from serve.schema import FeatureSpec

Floats = NDArray[np.float64]
Alarms = dict[str, list[float]]
"""By rule, when it alarmed: days since the first day that was not evaluated on."""
WhoseRules = Literal["ours", "peers"]

SEED, TUNING_SEED = 20_261, 20_262
"""First of two numbers that a world is drawn from; the second is the run's."""
TRAINED_DAYS, EVALUATED_DAYS = 84, 14
QUIET_WEEKS, CHANGED_WEEKS = 52, CHANGE_WEEK + 18
KEPT: int = DriftMonitorDeclaration.model_fields["windows_kept"].default
RATES = (0.5, 0.2, 1.0)
"""Declared false alarms a year; the default first."""
ALL_SIGNALS = "ours, all signals"
TWO_OF_THREE = "one window's loss, 2 of 3"
WORKERS, AT_ONCE = 2, 10
RESAMPLES = 2_000
FLIGHTS_FITTED, FLIGHTS_FROM = 62, 91
"""Days of 2013: the model learned until March 3, is evaluated on four weeks, and answers from April 1."""


@dataclass(frozen=True)
class Answered:
    """A model's answers: those it was evaluated on, and those of each week since, with its reference."""

    reference: DriftReference
    evaluated: Rows
    weeks: Sequence[Rows]
    held_out: timedelta

    def stream(self) -> Stream:
        """Every answer in order of time, as detectors of streams read them."""
        rows = [self.evaluated, *self.weeks]
        target, scores = (
            np.concatenate([getattr(one, name) for one in rows]) for name in ("target", "scores")
        )
        days = np.concatenate([one.days for one in rows])
        _, starts, counts = np.unique(days, return_index=True, return_counts=True)
        place = np.arange(len(days)) - np.repeat(starts, counts)
        return Stream(
            log_losses(target, scores),
            ((scores > 0.5) != (target > 0.5)).astype(np.float64),
            days + (place + 1) / np.repeat(counts, counts),
        )


def answered(name: str, run: int, *, seed: int = SEED, weeks: int | None = None) -> Answered:
    """One run of a world."""
    world = WORLDS[name]
    random = np.random.default_rng([seed, list(WORLDS).index(name), run])
    last = 7 * (weeks_of(name) if weeks is None else weeks)
    frame = world.days(random, -TRAINED_DAYS - EVALUATED_DAYS, last)
    rows = Rows(
        frame[[one.name for one in world.specs]],
        frame["score"].to_numpy(),
        (frame["label"] == "yes").to_numpy(dtype=np.float64),
        frame["day"].to_numpy(),
    )
    return _answered(rows, world.specs, timedelta(days=EVALUATED_DAYS))


def _answered(rows: Rows, specs: Sequence[FeatureSpec], held_out: timedelta) -> Answered:
    """Day 0 is the first that the model was not evaluated on; weeks that are not whole are left out."""
    before, evaluated_from = rows.days < 0, -(held_out // timedelta(days=1))
    fitted = rows.days < evaluated_from
    evaluated = rows.take(np.flatnonzero(before & ~fitted))
    reference = make_reference(
        TrainingRows(rows.features[before], specs, rows.days[before], fitted[before]),
        held_out=HeldOut(
            evaluated.scores, evaluated.target, evaluated.days, (float(rows.target[fitted].mean()),)
        ),
        task="binary",
        classes=CLASSES,
        window_days=WEEK,
    )
    whole = range((int(rows.days.max()) + 1) // WEEK)
    weeks = [rows.take(np.flatnonzero(rows.days // WEEK == number)) for number in whole]
    return Answered(reference, evaluated, weeks, held_out)


def weeks_of(name: str) -> int:
    """A year of a world in which nothing is lost; else until 18 weeks after the change."""
    return QUIET_WEEKS if WORLDS[name].changed_week is None else CHANGED_WEEKS


# -- alarms ------------------------------------------------------------------------------------------------


def our_alarms(given: Answered) -> Alarms:
    """Of our rules at several declared rates, and of the rule that stood before."""
    drift = [drift_of(given.reference, rows, number) for number, rows in enumerate(given.weeks)]
    test = test_of(given.reference, DriftPolicy().level(WINDOW))
    windows = [performance_of(test, rows, number) for number, rows in enumerate(given.weeks)]
    found: Alarms = {}
    for rate in RATES:
        policy = DriftPolicy(false_alarms_per_year=rate)
        lasting = LastingLossTest("binary", given.reference.performance, WINDOW, rate)
        performance = with_lasting_loss(_at_level(given, windows, policy.level(WINDOW)), lasting)
        if policy == DriftPolicy():
            verdicts = _verdicts(policy, drift, performance, given.held_out)
            found[ALL_SIGNALS] = beginnings([one.action == "open" for one in verdicts])
        verdicts = _verdicts(policy, (), performance, given.held_out)
        found[f"ours, performance alone, rate {rate:g}"] = beginnings(
            [one.action == "open" for one in verdicts]
        )
    return {**found, TWO_OF_THREE: _two_of_three(given)}


def _at_level(given: Answered, windows: Sequence[WindowPerformance], level: float) -> list[WindowPerformance]:
    """The windows as they are measured at that level, which only what one window proves depends on."""
    test = test_of(given.reference, level)
    below = [test.below_baseline(rows.target, rows.scores, rows.days) for rows in given.weeks]
    return [
        replace(window, below_baseline=one.low if one else None)
        for window, one in zip(windows, below, strict=True)
    ]


def _two_of_three(given: Answered) -> list[float]:
    """The rule that stood before: two of three windows prove a loss, at the level of the default rate."""
    rule = WindowsRule(windows=2, of=3)
    test = test_of(given.reference, rule.level(RATES[0], WINDOW))
    shown = [
        any(one.low is not None and one.low > 0 for one in test.losses(rows.target, rows.scores, rows.days))
        for rows in given.weeks
    ]
    agree = [sum(shown[max(0, end - rule.of) : end]) >= rule.windows for end in range(1, len(shown) + 1)]
    return beginnings(agree)


def _verdicts(
    policy: DriftPolicy,
    drift: Sequence[WindowDrift],
    performance: Sequence[WindowPerformance],
    held_out: timedelta,
) -> list[DriftVerdict]:
    """The verdict after every week, on the windows that production measures anew."""
    return [
        drift_verdict(
            policy,
            drift[max(0, end - KEPT) : end],
            performance[max(0, end - KEPT) : end],
            held_out=held_out,
        )
        for end in range(1, len(performance) + 1)
    ]


def beginnings(opens: Sequence[bool]) -> list[float]:
    """The days on which weeks are over that would open an episode where the week before would not."""
    before = [False, *opens[:-1]]
    return [7.0 * (week + 1) for week, (was, now) in enumerate(zip(before, opens, strict=True)) if now > was]


def alarms_of(name: str, runs: Sequence[int], whose: WhoseRules) -> list[Alarms]:
    """Of every run, the alarms of one side's rules."""
    worlds = (answered(name, run) for run in runs)
    if whose == "ours":
        return [our_alarms(one) for one in worlds]
    return peer_alarms([one.stream() for one in worlds])


def measured(name: str, runs: int, whose: WhoseRules, kept: Path | None) -> list[Alarms]:
    """The same on every core; from the folder what was measured before."""
    parts = _parts(runs)
    with ProcessPoolExecutor(WORKERS) as pool:
        found = pool.map(_measured, [name] * len(parts), parts, [whose] * len(parts), [kept] * len(parts))
        return [one for part in found for one in part]


def _parts(runs: int) -> list[range]:
    return [range(first, min(first + AT_ONCE, runs)) for first in range(0, runs, AT_ONCE)]


def _measured(name: str, runs: range, whose: WhoseRules, kept: Path | None) -> list[Alarms]:
    if kept is None:
        return alarms_of(name, runs, whose)
    file = kept / f"{name}_{whose}_{runs.start}_to_{runs.stop}.json"
    if not file.exists():
        found = alarms_of(name, runs, whose)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a run in pieces may end in the middle of one.
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(found))
        unfinished.rename(file)
    return json.loads(file.read_text())


# -- counting ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; ``value`` None: nothing to take it from."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def told(self, form: str) -> str:
        if self.value is None:
            return "–"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def share(found: int, of: int) -> Interval:
    """Wilson's interval (1927)."""
    from scipy.stats import binomtest

    bounds = binomtest(found, of).proportion_ci(method="wilson")
    return Interval(found / of, float(bounds.low), float(bounds.high))


def bootstrapped(values: Sequence[float], statistic: Callable[..., Any] = np.mean) -> Interval:
    """Over runs, percentiles of the bootstrap; of values that are all alike there is no interval but them."""
    from scipy.stats import bootstrap

    if not values:
        return Interval(None)
    value = float(statistic(values))
    if len(set(values)) == 1:
        return Interval(value, value, value)
    bounds = bootstrap(
        (np.asarray(values),), statistic, n_resamples=RESAMPLES, method="percentile", rng=SEED
    ).confidence_interval
    return Interval(value, float(bounds.low), float(bounds.high))


def per_year(counts: Sequence[int], years_each: float) -> Interval:
    """Alarms a year; where there is none at all, the exact Poisson limit instead of a bootstrap of zeros."""
    if not any(counts):
        return Interval(0.0, 0.0, float(-np.log(0.025)) / (len(counts) * years_each))
    return bootstrapped([count / years_each for count in counts])


def counted(times: Iterable[float]) -> list[float]:
    """Without the alarms within a week of one that counts."""
    found: list[float] = []
    for time in sorted(times):
        if not found or time >= found[-1] + WEEK:
            found.append(time)
    return found


def summary(name: str, rule: str, runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """One rule on all runs of one world."""
    changed = WORLDS[name].changed_week
    until = 7.0 * (weeks_of(name) if changed is None else changed)
    false = [len(counted(time for time in times if time <= until)) for times in runs]
    row = {
        "world": name,
        "rule": rule,
        "runs": len(runs),
        "false_per_year": per_year(false, until / 365),
        "runs_with_a_false_one": share(sum(map(bool, false)), len(runs)),
    }
    if changed is None:
        return row
    delays = [min((time - until for time in times if time > until), default=None) for times in runs]
    there = [one for one in delays if one is not None]
    return row | {
        "in_first_window": share(sum(one <= WEEK for one in there), len(runs)),
        "within_four": share(sum(one <= 4 * WEEK for one in there), len(runs)),
        "never": len(runs) - len(there),
        "mean_delay": bootstrapped(there),
        "median_delay": bootstrapped(there, np.median),
    }


def worlds(
    names: Sequence[str], runs: int, whose: Sequence[WhoseRules], kept: Path | None = None
) -> list[dict[str, Any]]:
    """Every rule on every world."""
    rows = []
    for name in names:
        for side in whose:
            found = measured(name, runs, side, kept)
            rows += [summary(name, rule, [one[rule] for one in found]) for rule in found[0]]
    return rows


# -- settings of others, and real flights ------------------------------------------------------------------


def tuning(runs: int) -> list[dict[str, Any]]:
    """False alarms a year of each setting in the grids, on years of M6 that nothing else uses."""
    with ProcessPoolExecutor(WORKERS) as pool:
        found = [one for part in pool.map(_tuning, _parts(runs)) for one in part]
    return [
        {
            "rule": rule,
            "setting": setting,
            "false_per_year": per_year([one[rule, setting] for one in found], 364 / 365),
        }
        for rule, setting in found[0]
    ]


def _tuning(runs: Sequence[int]) -> list[dict[tuple[str, float], int]]:
    streams = [answered("M6", run, seed=TUNING_SEED).stream() for run in runs]
    rules = {
        (rule, value): TUNED[rule].at(setting, value)
        for rule, (setting, values) in GRIDS.items()
        for value in values
    }
    river = river_alarms(streams, {f"{rule} {value}": one for (rule, value), one in rules.items()})
    return [
        {
            **{("CUSUM, tuned", h): len(counted(cusum_alarms(stream, h=h))) for h in CUSUM_GRID},
            **{(rule, value): len(counted(river[f"{rule} {value}"][place])) for rule, value in rules},
        }
        for place, stream in enumerate(streams)
    ]


def flights_year() -> list[dict[str, Any]]:
    """When each rule alarms on a model of January to March that answers until December."""
    from bench.walk_forward import _fit

    flights = Flights()
    score = _fit(flights.frame[flights.day <= FLIGHTS_FITTED], flights.specs, "lightgbm", flights.params)
    rows = Rows(
        flights.frame[[one.name for one in flights.specs]],
        score(flights.frame),
        flights.target,
        flights.day - FLIGHTS_FROM,
    ).take(np.argsort(flights.day, kind="stable"))
    given = _answered(rows, flights.specs, timedelta(days=FLIGHTS_FROM - 1 - FLIGHTS_FITTED))
    found = our_alarms(given) | peer_alarms([given.stream()])[0]
    first = np.datetime64("2013-01-01") + (FLIGHTS_FROM - 1)
    return [
        {
            "rule": rule,
            "alarms": len(counted(times)),
            "when": ", ".join(f"{(first + int(np.ceil(time) - 1)).item():%b %-d}" for time in counted(times)),
        }
        for rule, times in found.items()
    ]


# -- telling -----------------------------------------------------------------------------------------------

FORMS: Mapping[str, str] = {
    "false_per_year": ".2f",
    "runs_with_a_false_one": ".0%",
    "in_first_window": ".0%",
    "within_four": ".0%",
    "mean_delay": ".1f",
    "median_delay": ".1f",
}


def tables(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One table per world, or one of all."""
    for world in dict.fromkeys(row.get("world") for row in rows):
        own = [row for row in rows if row.get("world") == world]
        told = title if world is None else f"{world}: {WORLDS[world].told}, {own[0]['runs']} runs"
        names = [name for name in own[0] if name not in ("world", "runs")]
        table = Table(title=told, title_justify="left")
        for name in names:
            table.add_column(name.replace("_", " "))
        for row in own:
            table.add_row(*(_told(name, row[name]) for name in names))
        yield table


def _told(name: str, value: Any) -> str:
    return value.told(FORMS[name]) if isinstance(value, Interval) else str(value)
