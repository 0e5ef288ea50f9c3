"""Jobs that tell how they were started, for the tests of warm runs."""

import os
import sys
import time

import dagster as dg

STARTED = "started"


@dg.op
def tell(context: dg.OpExecutionContext) -> None:
    context.log.info(f"parent {os.getppid()}, Evidently imported {'evidently' in sys.modules}")


@dg.op
def compute() -> None:
    """Work for the threads of OpenBLAS, Arrow, DuckDB and OpenMP."""
    import duckdb
    import lightgbm
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = np.random.default_rng(1).normal(size=(20_000, 40))
    gram = rows.T @ rows
    assert np.allclose(np.linalg.inv(gram) @ gram, np.eye(40))
    rows_of = pa.table({"x": rows[:, 0]})
    assert pc.sort_indices(rows_of["x"])[0].as_py() == int(rows[:, 0].argmin())
    assert duckdb.sql("SELECT count(*) FROM rows_of").fetchall() == [(20_000,)]
    data = lightgbm.Dataset(rows, rows[:, 0] > 0)
    lightgbm.train({"objective": "binary", "num_threads": 2, "verbosity": -1}, data, num_boost_round=5)


@dg.op
def wait(context: dg.OpExecutionContext) -> None:
    context.log.info(STARTED)
    while True:
        time.sleep(0.05)


@dg.op
def die() -> None:
    os._exit(7)


@dg.job(executor_def=dg.in_process_executor)
def telling() -> None:
    tell()


@dg.job(executor_def=dg.in_process_executor)
def computing() -> None:
    compute()


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    wait()


@dg.job(executor_def=dg.in_process_executor)
def dying() -> None:
    die()
