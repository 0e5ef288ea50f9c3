"""How long the flights graph takes from raw files, in a fresh state folder, without a Ray cluster.

Belongs here: timing the asset runs as Dagster runs them. Does not belong here: model quality
(``walk_forward.py``), request latency.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = "kind:dataset or kind:features"
BEFORE_DEPLOYMENT = "not kind:deployment"
YEAR = "2013-01-01...2013-12-31"


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of one command."""

    wall_s: float
    cpu_s: float


def timed(command: list[str], environment: dict[str, str]) -> Cost:
    """Runs a command to its end; CalledProcessError with its output when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, check=True, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def costs() -> dict[str, Cost]:
    """Loading the code location, the 365-day backfill, and the graph up to its approved model."""
    load = "import mlops_assets.definitions"
    found = {
        "import mlops_assets.definitions": timed([sys.executable, "-c", load], {}),
        "load all definitions": timed([sys.executable, "-W", "ignore", "-c", f"{load} as d; d.defs()"], {}),
    }
    for name, selection in (
        ("365-day backfill, datasets and features", DATA),
        ("raw files to approved model", BEFORE_DEPLOYMENT),
    ):
        with tempfile.TemporaryDirectory(prefix="mlops-bench-") as state:
            home = Path(state) / "dagster"
            home.mkdir()
            (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
            command = [
                str(Path(sys.executable).parent / "dagster"), "asset", "materialize",
                "-m", "mlops_assets.definitions",
                "--select", selection, "--partition-range", YEAR,
            ]  # fmt: skip
            found[name] = timed(
                command, {"MLOPS_STATE_DIR": state, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
            )
    return found
