"""How long drift scores take, how often a window without drift alarms, and how much drift is found how soon.

Belongs here: worlds whose windows are drawn afresh, judged by the same functions as in production. Does not
belong here: the formulas (``mlops_assets/monitoring``), the replay of real months (``bench/backtest.py``),
worlds that change while a model answers, and the rules of others on them (``bench/drift_worlds.py``).

``python -m bench.drift`` prints tables, ``--json`` the same numbers; ``--part`` takes one. Without it there
are speed, false alarms and power, about ten minutes on two cores. ``--part worlds`` takes twenty: ``--world
M2`` takes one, ``--rules`` one side's rules, and ``--kept FOLDER`` keeps alarms there and measures nothing
twice, so that it can be done in pieces. ``--part tuning`` gives the settings of others' rules, ``--part
flights_year`` is a real year.

Three worlds have no drift: Gaussian columns; flights with their rows shuffled in time; and flights whose days
are shuffled as wholes, so that a window has whole days in it as a real one has. A false episode is a window
at which the default policy opens one that it did not want to open at the window before.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mlops_assets.evaluation.metrics.roc_auc import roc_auc
from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window
from mlops_assets.monitoring.findings import Role, WindowDrift, WindowPerformance
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.lasting_loss import LastingLossTest, with_lasting_loss
from mlops_assets.monitoring.performance import PerformanceTest, window_performance
from mlops_assets.monitoring.policy import DriftPolicy, drift_verdict
from mlops_assets.monitoring.reference import DriftReference, HeldOut, TrainingRows, make_reference
from mlops_assets.monitoring.windows import Window
from serve.schema import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

SEED = 5
SIZES = (100, 500, 5_000)
WEEK = 7
COLUMNS = 20
SPEED_ROWS, PEER_ROWS = 1_000_000, 100_000
POLICY = DriftPolicy()
WINDOW = timedelta(weeks=1)
TEST = DriftTest(POLICY.levels(WINDOW), min_rows=100)
START = datetime(2013, 1, 7, tzinfo=UTC)
CLASSES = ("no", "yes")
ROLES: tuple[Role, ...] = ("feature", "prediction", "label")
AUC, LOWER_AUC = 0.74, 0.71
RULES_COMPARED = ("worlds", "tuning", "flights_year")
"""Parts that compare our rules with those of others."""
BASE = -1.3
"""Log-odds of the Gaussian world's label where its signal is zero: about a quarter are positive."""


# -- worlds ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Answers with what came true, and the days they are of."""

    features: "pd.DataFrame"
    scores: Floats
    target: Floats
    days: NDArray[np.int64]

    def take(self, places: NDArray[np.intp]) -> "Rows":
        return Rows(
            self.features.iloc[places].reset_index(drop=True),
            self.scores[places],
            self.target[places],
            self.days[places],
        )


@dataclass(frozen=True)
class World:
    """A reference and fresh windows like it: ``window(n)`` gives n answers of seven days."""

    specs: Sequence[FeatureSpec]
    trained: Rows
    judged: Rows
    window: Callable[[int], Rows]

    def reference(self, seed: int) -> DriftReference:
        return make_reference(
            TrainingRows(self.trained.features, self.specs, self.trained.days),
            held_out=HeldOut(self.judged.scores, self.judged.target, self.judged.days),
            task="binary",
            classes=CLASSES,
            window_days=WEEK,
            seed=seed,
        )


def gaussian_world(
    random: np.random.Generator, *, columns: int = COLUMNS, shift: float = 0.0, signal: float | None = None
) -> World:
    """Independent Gaussian columns, and a score that is right.

    Windows may be ``shift`` standard deviations of the score's log-odds away (and the outcome with them), or
    have outcomes that follow the score with ``signal`` only.
    """
    import pandas as pd

    names = [f"x{number}" for number in range(columns)]
    strength = slope_of(AUC)

    def rows(count: int, days: int, moved: float, followed: float) -> Rows:
        hidden = random.normal(size=count) + moved
        chance = 1 / (1 + np.exp(-(BASE + followed * hidden)))
        return Rows(
            pd.DataFrame(random.normal(size=(count, columns)), columns=names),
            1 / (1 + np.exp(-(BASE + strength * hidden))),
            (random.random(count) < chance).astype(np.float64),
            np.arange(count) % days,
        )

    return World(
        [FeatureSpec(name=name, type="number") for name in names],
        rows(78_000, 84, 0.0, strength),
        rows(26_000, 28, 0.0, strength),
        lambda count: rows(count, WEEK, shift, strength if signal is None else signal),
    )


def slope_of(auc: float) -> float:
    """How strongly log-odds must follow a standard normal signal for that area under the ROC curve."""
    random = np.random.default_rng(0)
    signal, luck = random.normal(size=200_000), random.random(200_000)
    low, high = 0.0, 3.0
    for _ in range(30):
        middle = (low + high) / 2
        target = (luck < 1 / (1 + np.exp(-(BASE + middle * signal)))).astype(np.float64)
        low, high = (middle, high) if (roc_auc(target, signal) or 0.0) < auc else (low, middle)
    return (low + high) / 2


class Flights:
    """All labelled flights with their declared features."""

    def __init__(self) -> None:
        import pandas as pd

        from bench.walk_forward import declarations, labelled_features
        from mlops_assets.documents.feature_view import FeatureViewDeclaration

        view = FeatureViewDeclaration(**declarations("FeatureViewComponent")[0])
        (model,) = declarations("ModelComponent")
        self.params = next(
            one.get("params", {}) for one in model["candidates"] if one["trainer"] == "lightgbm"
        )
        self.specs = view.features
        self.frame = labelled_features(view)
        dates = pd.to_datetime(self.frame["flight_date"])
        # Day 0 is a Monday, as in the numbers that production gives days.
        self.day = ((dates - pd.Timestamp("2012-12-31")).dt.days).to_numpy(dtype=np.int64)
        self.target = self.frame["label"].to_numpy(dtype=np.float64)

    def world(self, random: np.random.Generator, *, whole_days: bool) -> World:
        """Twelve weeks to train on, four to judge on, windows of the rest; rows or whole days shuffled."""
        from bench.walk_forward import _fit

        day = self._shuffled_days(random) if whole_days else random.permutation(self.day)
        parts = [day < 84, (day >= 84) & (day < 112), day >= 112]
        score = _fit(self.frame[parts[0]], self.specs, "lightgbm", self.params)
        scores = score(self.frame)
        names = [spec.name for spec in self.specs]
        everything = Rows(self.frame[names], scores, self.target, day)
        trained, judged, rest = (everything.take(np.flatnonzero(part)) for part in parts)
        by_day = {number: np.flatnonzero(rest.days == number) for number in np.unique(rest.days)}
        weekdays = [[number for number in by_day if number % WEEK == one] for one in range(WEEK)]

        def window(count: int) -> Rows:
            if whole_days:
                drawn = np.concatenate([by_day[random.choice(one)] for one in weekdays])
                places = drawn if count >= len(drawn) else random.choice(drawn, size=count, replace=False)
                found = rest.take(places)
                return replace(found, days=found.days % WEEK)
            places = random.choice(len(rest.target), size=count, replace=False)
            return replace(rest.take(places), days=np.arange(count) % WEEK)

        return World(self.specs, trained, judged, window)

    def _shuffled_days(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Other numbers for the days, Mondays for Mondays."""
        mapped = np.zeros(int(self.day.max()) + 1, dtype=np.int64)
        for weekday in range(WEEK):
            own = np.arange(weekday, len(mapped), WEEK)
            mapped[own] = random.permutation(own)
        return mapped[self.day]


# -- one stream of windows ---------------------------------------------------------------------------------


def window_of_week(number: int) -> Window:
    """The window of that number."""
    start = START + timedelta(weeks=number)
    return Window(start, start + timedelta(weeks=1))


def drift_of(reference: DriftReference, rows: Rows, number: int) -> WindowDrift:
    """How the columns of the window of that number differ from the reference."""
    answers = Answers(rows.features, rows.scores, rows.target)
    return assess_window(reference, window_of_week(number), answers, version="v1", test=TEST)


def test_of(reference: DriftReference, level: float) -> PerformanceTest:
    """How performance is held against that reference."""
    return PerformanceTest(
        "binary",
        CLASSES,
        Watermark(within=timedelta(days=3), min_rows=100),
        level,
        reference.performance,
        baseline=reference.baseline,
    )


def performance_of(test: PerformanceTest, rows: Rows, number: int) -> WindowPerformance:
    """The labelled performance of the window of that number."""
    import pandas as pd

    window = window_of_week(number)
    joined = pd.DataFrame(
        {
            "at": pd.Timestamp(window.start) + pd.to_timedelta(rows.days % WEEK, unit="D"),
            "score": rows.scores,
            "label": np.array(CLASSES, dtype=object)[rows.target.astype(int)],
            "has_keys": True,
        }
    )
    return window_performance(
        joined, window, version="v1", variant="champion", now=window.end + timedelta(weeks=1), test=test
    )


@dataclass
class Seen:
    """What a stream of windows gave."""

    windows: int = 0
    episodes: int = 0
    by_signal: dict[str, int] | None = None

    def follow(self, reference: DriftReference, windows: Iterator[Rows]) -> None:
        """Decides after every window on all of them, as the sensor does."""
        counts = self.by_signal if self.by_signal is not None else {}
        self.by_signal = counts
        drift: list[WindowDrift] = []
        performance: list[WindowPerformance] = []
        was_open = False
        for number, rows in enumerate(windows):
            drift.append(drift_of(reference, rows, number))
            performance.append(performance_of(test_of(reference, POLICY.level(WINDOW)), rows, number))
        test = LastingLossTest("binary", reference.performance, WINDOW, POLICY.false_alarms_per_year)
        performance = with_lasting_loss(performance, test)
        for place, one in enumerate(performance, 1):
            self.windows += 1
            for role in ROLES:
                counts[role] = counts.get(role, 0) + bool(drift[place - 1].drifted(role))
            lost = one.loss_low is not None and one.loss_low > 0
            counts["performance"] = counts.get("performance", 0) + lost
            opens = drift_verdict(POLICY, drift[:place], performance[:place]).action == "open"
            self.episodes += opens and not was_open
            was_open = opens

    def shares(self) -> dict[str, float]:
        """Per window: episodes, and how often each signal showed in a single window."""
        counts = self.by_signal or {}
        return {
            "episodes": self.episodes / self.windows,
            **{name: count / self.windows for name, count in counts.items()},
        }


def false_alarms(windows: int, references: int) -> list[dict[str, Any]]:
    """Per world without drift and size: shares of false episodes and of windows in which a signal shows."""
    flights = Flights()
    worlds: dict[str, Callable[[np.random.Generator], World]] = {
        "Gaussian, 20 columns": gaussian_world,
        "flights, rows shuffled": lambda random: flights.world(random, whole_days=False),
        "flights, days shuffled": lambda random: flights.world(random, whole_days=True),
    }
    found = []
    for name, make in worlds.items():
        random = np.random.default_rng(SEED)
        seen = {size: Seen() for size in SIZES}
        for number in range(references):
            world = make(random)
            reference = world.reference(number)
            for size in SIZES:
                each = windows // references
                seen[size].follow(reference, (world.window(size) for _ in range(each)))
        found += [
            {"world": name, "rows": size, "windows": one.windows, **one.shares()}
            for size, one in seen.items()
        ]
    return found


def power(runs: int) -> list[dict[str, Any]]:
    """Per drift and size: how often one window shows it, and how often an episode opens within three."""
    drifts: list[tuple[str, str, dict[str, float]]] = [
        (f"prediction moves by {shift:.1f} sd", "prediction", {"shift": shift})
        for shift in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    drifts.append((f"AUC {AUC} falls to {LOWER_AUC}", "performance", {"signal": slope_of(LOWER_AUC)}))
    found = []
    for name, signal, changes in drifts:
        random = np.random.default_rng(SEED)
        counts = {size: {"one": 0, "windows": 0, "opened": 0, "runs": 0} for size in SIZES}
        references = 10
        for number in range(references):
            world = gaussian_world(random, columns=1, **changes)
            reference = world.reference(number)
            for size in SIZES:
                for _ in range(runs // references):
                    seen = Seen()
                    seen.follow(reference, (world.window(size) for _ in range(3)))
                    own = counts[size]
                    own["one"] += (seen.by_signal or {})[signal]
                    own["windows"] += 3
                    own["opened"] += seen.episodes > 0
                    own["runs"] += 1
        found += [
            {
                "drift": name,
                "rows": size,
                "one_window": own["one"] / own["windows"],
                "within_three": own["opened"] / own["runs"],
            }
            for size, own in counts.items()
        ]
    return found


# -- speed -------------------------------------------------------------------------------------------------


def speed() -> list[dict[str, Any]]:
    """Seconds and memory of the scores and of Evidently's default preset, each in a process of its own."""
    return [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "bench.drift", "--child", who],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for who in ("ours", "ours_peer_rows", "evidently")
    ]


def _child(who: str) -> dict[str, Any]:
    import pandas as pd

    rows = SPEED_ROWS if who == "ours" else PEER_ROWS
    random = np.random.default_rng(SEED)
    names = [f"x{number}" for number in range(COLUMNS)]
    current = pd.DataFrame(random.normal(size=(rows, COLUMNS)), columns=names)
    if who == "evidently":
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=names)
        other = pd.DataFrame(random.normal(size=(rows, COLUMNS)), columns=names)
        started, used = time.perf_counter(), time.process_time()
        Report([DataDriftPreset()]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(other, data_definition=definition),
        ).dict()
        label = "Evidently, default preset"
    else:
        reference = make_reference(
            TrainingRows(
                pd.DataFrame(random.normal(size=(PEER_ROWS, COLUMNS)), columns=names),
                [FeatureSpec(name=name, type="number") for name in names],
                np.arange(PEER_ROWS) % 84,
            ),
            held_out=None,
            task="binary",
            classes=CLASSES,
            window_days=WEEK,
        )
        started, used = time.perf_counter(), time.process_time()
        found = assess_window(
            reference,
            Window(START, START + timedelta(weeks=1)),
            Answers(current),
            version="v1",
            test=TEST,
        )
        assert len(found.columns) == COLUMNS
        label = "PSI, KS and KL with thresholds"
    return {
        "what": label,
        "rows": rows,
        "columns": COLUMNS,
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - used,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


# -- telling -----------------------------------------------------------------------------------------------


def tables(found: dict[str, list[dict[str, Any]]]) -> Iterator[Table]:
    """Each part for people."""
    titles = {
        "speed": "Drift scores of one window (peak memory is the whole process)",
        "false_alarms": "Windows without drift: share with an episode, and with a signal in a single window",
        "power": "Drift that is there: share found in one window, and episodes within three",
    }
    for part, rows in found.items():
        table = Table(title=titles[part], title_justify="left")
        for name in rows[0]:
            table.add_column(
                name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right"
            )
        for row in rows:
            table.add_row(*(_told(name, value) for name, value in row.items()))
        yield table


def _told(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name in ("wall_s", "cpu_s"):
        return f"{value:.2f}"
    return f"{value:.1%}" if isinstance(value, float) and name != "peak_mb" else f"{value:,.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    chosen = _parser().parse_args(arguments)
    if chosen.child:
        print(json.dumps(_child(chosen.child)))
        return
    if chosen.part in RULES_COMPARED:
        _compare_rules(chosen)
        return
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "speed": speed,
        "false_alarms": lambda: false_alarms(chosen.windows, references=10),
        "power": lambda: power(chosen.runs),
    }
    found = {name: part() for name, part in parts.items() if chosen.part in (None, name)}
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    console = Console()
    for table in tables(found):
        console.print(table)


def _compare_rules(chosen: argparse.Namespace) -> None:
    from bench import drift_worlds

    titles = {"tuning": "False alarms a year on M6, by setting", "flights_year": "Flights, April to December"}
    if chosen.part == "worlds":
        sides = (chosen.rules,) if chosen.rules else ("ours", "peers")
        names = chosen.world or tuple(drift_worlds.WORLDS)
        rows = drift_worlds.worlds(names, chosen.runs, sides, chosen.kept)
    elif chosen.part == "tuning":
        rows = drift_worlds.tuning(chosen.runs)
    else:
        rows = drift_worlds.flights_year()
    if chosen.json:
        print(json.dumps(rows, indent=1, default=asdict))
        return
    console = Console()
    for table in drift_worlds.tables(titles.get(chosen.part, ""), rows):
        console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--part",
        choices=("speed", "false_alarms", "power", *RULES_COMPARED),
        help="one part (default: the first three)",
    )
    parser.add_argument("--windows", type=int, default=1_000, help="clean windows per world and size")
    parser.add_argument(
        "--runs", type=int, default=200, help="runs per drift and size, or per world; years of tuning"
    )
    parser.add_argument("--world", action="append", help="worlds: only these of M1 to M7")
    parser.add_argument("--rules", choices=("ours", "peers"), help="worlds: one side's alone")
    parser.add_argument("--kept", type=Path, help="worlds: folder of alarms, which are not measured again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
