"""``python -m bench.gpu``: does nvForest score as the CPU does, and how fast, on this machine.

Belongs here: parity, rows per second and memory of the two backends, for one package. Needs the extra
``gpu`` (docs/gpu.md). ``--device cpu`` runs nvForest on the CPU, for a machine without a GPU.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from serve.devices import check_parity, sight
from serve.formats._nvforest import NvForestScorer
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import Matrix, read_package, scorer_from_bytes

BATCHES = (1, 1_000, 100_000)
FEATURES, TREES, LEAVES = 30, 500, 127
"""Of the model that is trained when no package is given: about the size of the flights model."""
LEAST_S = 1.0


def trained() -> tuple[ModelManifest, bytes]:
    """A LightGBM package on generated rows: a tenth of its columns are categories."""
    import lightgbm

    random = np.random.default_rng(0)
    categories = tuple(str(code) for code in range(50))
    specs = tuple(
        FeatureSpec(name=f"f{column}", type="category", categories=categories)
        if column % 10 == 0
        else FeatureSpec(name=f"f{column}", type="number", minimum=-3, maximum=3)
        for column in range(FEATURES)
    )
    matrix = random.normal(size=(50_000, FEATURES))
    matrix[:, ::10] = random.integers(0, 50, (50_000, 3))
    target = matrix[:, 1] * matrix[:, 2] + matrix[:, 10] / 50 + random.normal(size=50_000) > 0.5
    params = {"objective": "binary", "num_leaves": LEAVES, "verbose": -1}
    data = lightgbm.Dataset(matrix, target.astype(float), categorical_feature=[0, 10, 20])
    payload = lightgbm.train(params, data, TREES).model_to_string().encode()
    manifest = ModelManifest(
        name="generated", task="binary", trainer="lightgbm", model_format="lightgbm-text",
        model_file="model.txt", target="y", features=specs, classes=("no", "yes"),
    )  # fmt: skip
    return manifest, payload


def seconds(score: Callable[[Matrix], Matrix], matrix: Matrix) -> list[float]:
    """Seconds per call, in order, for at least LEAST_S and five calls; the first call is left out."""
    score(matrix)
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < LEAST_S:
        start = time.perf_counter()
        score(matrix)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> None:
    """Prints parity, then a table; ends with 1 and a sentence without a GPU, and when scores disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("package", nargs="?", help="folder of a model package; none: one is trained")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="where nvForest scores")
    arguments = parser.parse_args()
    console = Console()
    seen = sight()
    if arguments.device == "gpu" and seen.gpu is None:
        raise SystemExit(seen.missing)
    manifest, payload = read_package(arguments.package) if arguments.package else trained()
    native = scorer_from_bytes(manifest, payload)
    start = time.perf_counter()
    forest = NvForestScorer(manifest, payload, device=arguments.device)
    loaded = time.perf_counter() - start
    parity = check_parity(forest, native, version=manifest.name)
    where = seen.gpu if arguments.device == "gpu" else "CPU"
    console.print(
        f"{manifest.name}: {manifest.model_format}, {len(payload) / 1e6:.1f} MB; nvForest on {where}, "
        f"loaded in {loaded:.2f} s\n"
        f"parity: {parity.rows} rows, largest difference {parity.largest_difference:.2g}, allowed "
        f"{parity.tolerance:g}"
    )
    table = Table(title=f"native library on the CPU, nvForest on {where}", title_justify="left")
    for column in ("rows", "CPU ms (p50)", "nvForest ms (p50)", "CPU rows/s", "nvForest rows/s", "ratio"):
        table.add_column(column, justify="right")
    random = np.random.default_rng(1)
    for rows in BATCHES:
        matrix = random.normal(size=(rows, len(manifest.features)))
        for column, feature in enumerate(manifest.features):
            if feature.type == "category":
                matrix[:, column] = random.integers(0, max(1, len(feature.categories or ())), rows)
        here, there = (float(np.median(seconds(each.score, matrix))) for each in (native, forest))
        table.add_row(
            f"{rows:,}", f"{here * 1e3:.3f}", f"{there * 1e3:.3f}", f"{rows / here:,.0f}",
            f"{rows / there:,.0f}", f"{here / there:.1f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB"
    )
    if arguments.device == "gpu":
        import cupy

        free, total = cupy.cuda.runtime.memGetInfo()
        console.print(f"GPU memory: {(total - free) / 1e6:.0f} of {total / 1e6:.0f} MB in use, all processes")


if __name__ == "__main__":
    main()
