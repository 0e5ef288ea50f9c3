"""What measuring one large window takes: seconds and memory, of 1,000,000 logged answers with their labels.

Belongs here: a log of many answers, and the steps of a drift monitor on it, each in a process of its own.
Does not belong here: what is measured (``mlops_assets/monitoring``), the scores alone (``bench/drift.py``).

``python -m bench.measuring`` prints a table, ``--json`` the same numbers; ``--rows`` takes another number of
answers. The answers are of one week, evenly over its hours, of a binary model with 32 features; every one
carries its join key and has a label. "Above idle" is the peak of the process's resident memory less what it
held when everything was imported and nothing read. Pictures and Evidently's page are not part of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from serve.schema import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.resources.lake import Lake
    from mlops_assets.resources.scratch import Scratch

ROWS, TRAINED, SEED = 1_000_000, 50_000, 5
HOURS = 7 * 24
START = datetime(2013, 4, 1, tzinfo=UTC)
END = START + timedelta(hours=HOURS)
NOW = END + timedelta(days=4)
DAYS = [f"{START + timedelta(days=number):%Y-%m-%d}" for number in range(7)]
TABLE, KEYS = "prediction_logs/flights", ["flight_id"]
CLASSES = ("no", "yes")
CATEGORIES = {"origin": 3, "carrier": 16, "dest": 105, "plane": 127}
SPECS = [
    *(FeatureSpec(name=f"number_{number}", type="number") for number in range(20)),
    *(FeatureSpec(name=f"integer_{number}", type="integer") for number in range(6)),
    *(FeatureSpec(name=name, type="boolean") for name in ("weekend", "holiday")),
    *(FeatureSpec(name=name, type="category") for name in CATEGORIES),
]
STEPS = {
    "log": "prediction_logs: seven days of the raw log into the compacted one",
    "performance": "performance: labels, metrics, intervals, two slices, losses",
    "drift": "drift: labels, and PSI, KS and KL of 34 columns",
}


def features(random: np.random.Generator, rows: int) -> "pd.DataFrame":
    """Inputs as varied as those of flights."""
    import pandas as pd

    made: dict[str, object] = {}
    for spec in SPECS:
        if spec.type == "number":
            made[spec.name] = random.normal(size=rows).round(4)
        elif spec.type == "integer":
            made[spec.name] = random.integers(0, 2_000, rows)
        elif spec.type == "boolean":
            made[spec.name] = random.random(rows) < 0.3
        else:
            made[spec.name] = [f"{spec.name}{one}" for one in random.integers(0, CATEGORIES[spec.name], rows)]
    return pd.DataFrame(made)


def make(folder: Path, rows: int) -> None:
    """The raw log, the labels and the reference of the version that answered."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mlops_assets.monitoring.reference import HeldOut, TrainingRows, make_reference
    from serve.inference_log import SCHEMA

    random = np.random.default_rng(SEED)
    labels = []
    for hour, places in enumerate(np.array_split(np.arange(rows), HOURS)):
        count, begins = len(places), START + timedelta(hours=hour)
        inputs = features(random, count)
        with duckdb.connect(":memory:") as connection:
            connection.register("inputs", inputs)
            texts = connection.sql("SELECT to_json(inputs)::VARCHAR AS text FROM inputs").to_arrow_table()
        score = random.random(count) * 0.6
        ids = [bytes(one).hex() for one in random.integers(0, 256, (count, 16), dtype=np.uint8)]
        at = np.sort(random.integers(0, 3_600_000_000, count)) + int(begins.timestamp()) * 1_000_000
        flights = [f"UA{place}-EWR" for place in places]
        columns = {
            "answer_id": ids,
            "request_id": ids,
            "row": [0] * count,
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "entity": [f'{{"flight_id":"{flight}"}}' for flight in flights],
            "variant": ["stable"] * count,
            "version": ["v1"] * count,
            "revision": [1] * count,
            "weight": [10_000] * count,
            "endpoint": ["/predict"] * count,
            "latency_ms": random.random(count),
            "features": texts["text"],
            "score": score,
        }
        absent = {name: [None] * count for name in SCHEMA.names if name not in columns}
        target = folder / "predictions" / "flights" / f"{begins:dt=%Y-%m-%d}" / f"{begins:hr=%H}"
        target.mkdir(parents=True)
        pq.write_table(
            pa.table({**columns, **absent}).select(SCHEMA.names).cast(SCHEMA), target / "0.parquet"
        )
        late = (random.random(count) < score).astype(np.float64)
        labels.append(pa.table({"flight_id": flights, "label": late}))
    pq.write_table(pa.concat_tables(labels), folder / "labels.parquet")
    scores, days = random.random(TRAINED) * 0.6, np.arange(TRAINED) % 84
    target_codes = (random.random(TRAINED) < scores).astype(np.float64)
    reference = make_reference(
        TrainingRows(features(random, TRAINED), SPECS, days),
        held_out=HeldOut(scores, target_codes, days),
        task="binary",
        classes=CLASSES,
        window_days=7,
    )
    (folder / "reference.json").write_text(reference.dumps())


def memory(field: str) -> int:
    """Megabytes that this process holds (``VmRSS``), or held at most (``VmHWM``)."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(field)]
    return int(line.split()[1]) // 1024


def measure(step: str, folder: Path) -> dict[str, float]:
    """One step in this process."""
    import duckdb  # noqa: F401 - the imports are no part of the step
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401

    from mlops_assets.assets import joined_answers, logged_days  # noqa: F401
    from mlops_assets.monitoring import drift, performance  # noqa: F401
    from mlops_assets.resources import inference_log  # noqa: F401
    from mlops_assets.resources.lake import Lake
    from mlops_assets.resources.scratch import Scratch

    lake, scratch = Lake(uri=str(folder / "lake")), Scratch(folder=str(folder / "scratch"))
    run = read_log if step == "log" else read_window
    idle, began, used = memory("VmRSS"), time.perf_counter(), time.process_time()
    run(step, folder, lake, scratch)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "idle_mb": idle,
        "peak_mb": memory("VmHWM"),
        "above_idle_mb": memory("VmHWM") - idle,
    }


def read_log(step: str, folder: Path, lake: "Lake", scratch: "Scratch") -> None:
    """Copies the raw log into the lake, as the asset of the prediction log does."""
    from mlops_assets.assets.logged_days import DAY_COLUMN, logged_days
    from mlops_assets.resources.inference_log import InferenceLog

    log = InferenceLog(uri=str(folder / "predictions"))
    with logged_days(scratch, log, "flights", DAYS) as days:
        lake.write(TABLE, days.rows, partition_column=DAY_COLUMN, partitions=DAYS, commit={})
        days.contents.versions()


def read_window(step: str, folder: Path, lake: "Lake", scratch: "Scratch") -> None:
    """Measures drift or performance of the window, as the asset of that name does."""
    import pandas as pd

    from mlops_assets.assets.joined_answers import Compacted, JoinedAnswers, window_drift
    from mlops_assets.monitoring.drift import DriftTest
    from mlops_assets.monitoring.labels import Watermark, known_labels
    from mlops_assets.monitoring.performance import PerformanceTest, window_performance
    from mlops_assets.monitoring.reference import DriftReference
    from mlops_assets.monitoring.windows import Window

    class Manifest:
        task, classes, features = "binary", CLASSES, SPECS

    window = Window(START, END)
    reference = DriftReference.loads((folder / "reference.json").read_text())
    compacted = Compacted(lake, TABLE, lake.version(TABLE), START, NOW)
    slices = ["origin", "carrier"] if step == "performance" else []
    labels = known_labels(pd.read_parquet(folder / "labels.parquet"), KEYS)
    with scratch.database() as connection:
        answers = JoinedAnswers(connection, compacted, labels, KEYS, slices)
        if step == "performance":
            watermark = Watermark(timedelta(days=3))
            found = window_performance(
                answers.part("v1", window),
                window,
                version="v1",
                variant="champion",
                now=NOW,
                test=PerformanceTest(
                    "binary", CLASSES, watermark, 0.01, reference.performance, slices=slices
                ),
            )
            assert found.status == "judged", found.reason
            answers.losses("binary", CLASSES)
        else:
            test = DriftTest.at_level(0.01, min_rows=200)
            current = window_drift(answers, window, reference, version="v1", manifest=Manifest, test=test)
            assert current.assessed.judged, current.assessed.reason


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the log in a temporary folder and prints what every step took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--json", action="store_true", help="Numbers instead of a table.")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        print(json.dumps(measure(asked.step, asked.folder)))
        return
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), asked.rows)
        for step in STEPS:
            command = [sys.executable, "-m", "bench.measuring", "--step", step, "--folder", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[step] = json.loads(done.stdout.splitlines()[-1])
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    table = Table(title=f"{asked.rows:,} answers in one window", title_justify="left")
    for column in ("step", "s", "CPU s", "idle MB", "peak MB", "above idle MB"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step, numbers in found.items():
        table.add_row(STEPS[step], *map(str, numbers.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
