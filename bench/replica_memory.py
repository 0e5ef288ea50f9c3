"""``python -m bench.replica_memory``: what loading a package costs a replica, per byte of its model file.

Belongs here: the measurement behind the constants of ``mlops_assets/rollout/capacity.py``. Each package
is loaded by the replica's own class in a fresh process, with the libraries loaded before.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import write_package

ROWS, COLUMNS, LEAVES = 150_000, 20, 511
TREES = {"lightgbm-text": (20, 175, 700), "xgboost-ubj": (15, 125, 500)}

CHILD = """
import sys
import lightgbm, pyarrow.fs, ray, xgboost
from ray import serve
from serve.model import Model
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
before = kilobytes("VmRSS")
model = Model({"version": "v1", "package_uri": sys.argv[1]})
print(before, kilobytes("VmRSS"), kilobytes("VmHWM"))
"""


def packages(folder: Path) -> list[tuple[str, Path, int]]:
    """(format, package folder, size of the model file) of each model."""
    import lightgbm
    import xgboost

    random = np.random.default_rng(0)
    matrix = random.normal(size=(ROWS, COLUMNS))
    target = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + random.normal(size=ROWS) > 0).astype(float)
    specs = tuple(FeatureSpec(name=f"f{column}", type="number") for column in range(COLUMNS))
    light = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_leaves": LEAVES, "min_data_in_leaf": 5},
        lightgbm.Dataset(matrix, target),
        max(TREES["lightgbm-text"]),
    )
    extreme = xgboost.train(
        {"objective": "binary:logistic", "tree_method": "hist", "max_leaves": LEAVES, "max_depth": 0,
         "grow_policy": "lossguide", "min_child_weight": 0.1},
        xgboost.DMatrix(matrix, target, feature_names=[spec.name for spec in specs]),
        max(TREES["xgboost-ubj"]),
    )  # fmt: skip
    payloads = [
        ("lightgbm-text", light.model_to_string(num_iteration=trees).encode())
        for trees in TREES["lightgbm-text"]
    ] + [("xgboost-ubj", bytes(extreme[:trees].save_raw("ubj"))) for trees in TREES["xgboost-ubj"]]
    written = []
    for number, (model_format, payload) in enumerate(payloads):
        manifest = ModelManifest.model_validate(
            {"name": "m", "task": "binary", "trainer": "generated", "model_format": model_format,
             "model_file": "model", "target": "y", "features": specs, "classes": ("no", "yes")}
        )  # fmt: skip
        write_package(str(folder / str(number)), manifest, payload)
        written.append((model_format, folder / str(number), len(payload)))
    return written


def main() -> None:
    """Trains, loads and prints; two minutes on two cores."""
    table = Table(title="Memory of a replica (MB)", title_justify="left")
    for column in ("format", "model file", "before", "after", "peak", "after / file", "peak / file"):
        table.add_column(column, justify="left" if column == "format" else "right", no_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        for model_format, package, size in packages(Path(folder)):
            child = [sys.executable, "-c", CHILD, str(package)]
            said = subprocess.run(child, check=True, capture_output=True, text=True).stdout
            before, after, peak = (int(word) / 1e3 for word in said.split())
            file = size / 1e6
            table.add_row(
                model_format, f"{file:.1f}", f"{before:.0f}", f"{after:.0f}", f"{peak:.0f}",
                f"{(after - before) / file:.1f}", f"{(peak - before) / file:.1f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
