"""What reading a database costs: 600,000 rows of ten columns into a checked dataset, a tenth by predicate.

Belongs here: PostgreSQL and SQLite filled with the same rows, each measurement in a process of its own.
Does not belong here: files (``graph.py`` reads those of the flights).
"""

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.graph import ROOT

ROWS, DAYS = 600_000, 30
VARIABLE = "BENCH_DATABASE_URL"
CREATE = """
CREATE TABLE sales AS SELECT i AS id, date '2024-01-01' + (i % 30)::int AS sold,
  timestamptz '2024-01-01 00:00+00' + (i % 30) * interval '1 day' + (i % 86400) * interval '1 second' AS at,
  'customer ' || i % 5000 AS customer, (i % 100000) / 100.0::numeric(12, 2) AS amount,
  i / 7.0::float8 AS price,
  CASE WHEN i % 10 > 0 THEN i % 50 END AS quantity, i % 3 = 0 AS paid, md5(i::text)::uuid AS reference,
  timestamptz '2024-06-01 00:00+00' + i * interval '1 second' AS changed
FROM generate_series(1, {rows}) i
"""
SQLITE = """
CREATE TABLE sales AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
SELECT i AS id, date('2024-01-01', '+' || (i % 30) || ' days') AS sold,
  datetime('2024-01-01', '+' || (i % 30) || ' days', '+' || (i % 86400) || ' seconds') AS at,
  'customer ' || (i % 5000) AS customer, (i % 100000) / 100.0 AS amount, i / 7.0 AS price,
  CASE WHEN i % 10 > 0 THEN i % 50 END AS quantity, i % 3 = 0 AS paid, hex(i * 7919) AS reference,
  datetime('2024-06-01', '+' || i || ' seconds') AS changed
FROM n
"""
DOCUMENT: dict[str, Any] = {
    "name": "sales",
    "source": {
        "format": "sql",
        "connection_variable": VARIABLE,
        "table": "sales",
        "day_column": "sold",
        "changed_at": "changed",
    },
    "partitions": {"start": "2024-01-01", "end": "2024-02-01", "column": "day"},
    "columns": {
        "id": "integer",
        "day": "string",
        "at": "timestamp",
        "customer": "string",
        "amount": "number",
        "price": "number",
        "quantity": "integer",
        "paid": "boolean",
        "reference": "string",
        "changed": "timestamp",
    },
    "primary_key": ["id"],
    "row_rules": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "amount", "min_value": 0}}
    ],
    "suite": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "customer"}}],
}
WORK = {
    "600,000 rows, read": ("read", DAYS),
    "60,000 of them, by predicate": ("read", DAYS // 10),
    "600,000 rows into a checked dataset": ("dataset", DAYS),
    "60,000 of them into it": ("dataset", DAYS // 10),
    "a look at the states of all days": ("states", DAYS),
}


def measured(work: str, days: int) -> dict[str, float]:
    """In this process: wall and CPU seconds, rows, peak memory in MB; imports are counted."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
        rows = {"read": _read, "states": _states, "dataset": _dataset}[work](days, folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "rows": rows,
        "peak_mb": used.ru_maxrss / 1024,
    }


def _keys(days: int) -> list[str]:
    return [f"2024-01-{day:02}" for day in range(1, days + 1)]


def _read(days: int, folder: str) -> int:
    from mlops_assets.data.sources import Asked
    from mlops_assets.documents.dataset import DatasetDeclaration
    from mlops_assets.resources.lake import Lake

    declared = DatasetDeclaration.model_validate(DOCUMENT)
    asked = Asked(declared.columns, False, "day", _keys(days))
    return declared.source.reader(Path(folder)).read(asked, Lake(uri=folder)).num_rows


def _states(days: int, folder: str) -> int:
    from mlops_assets.data.sources import Asked
    from mlops_assets.documents.dataset import DatasetDeclaration
    from mlops_assets.resources.lake import Lake

    declared = DatasetDeclaration.model_validate(DOCUMENT)
    asked = Asked(declared.columns, False, "day")
    return len(declared.source.reader(Path(folder)).states(asked, Lake(uri=folder)))


def _dataset(days: int, folder: str) -> int:
    import dagster as dg

    from mlops_assets.assets.dataset import dataset_asset, quarantine_asset
    from mlops_assets.data.loading import Source
    from mlops_assets.documents.dataset import DatasetDeclaration
    from mlops_assets.resources.lake import Lake

    declared = DatasetDeclaration.model_validate(DOCUMENT)
    source = Source(declared.source.reader(Path(folder)), probed=True)
    lake = Lake(uri=f"{folder}/lake")
    defs = dg.Definitions(
        assets=[dataset_asset("bench", declared, source), quarantine_asset("bench", declared)],
        resources={"lake": lake},
    )
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey("sales")})
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    with dg.DagsterInstance.ephemeral() as instance:
        tags = dict(zip(names, (_keys(days)[0], _keys(days)[-1]), strict=True))
        job.execute_in_process(instance=instance, tags=tags)
    from deltalake import DeltaTable

    return DeltaTable(lake.table_uri("datasets/sales")).count()


def in_a_process(work: str, days: int, url: str) -> dict[str, float]:
    """The same in a new process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.sources", "--work", work, "--days", str(days)],
        env={**os.environ, VARIABLE: url},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: list[str] | None = None) -> None:
    """Fills both databases, measures and prints; about two minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m bench.sources", description=__doc__)
    parser.add_argument("--work", choices=["read", "states", "dataset"], help=argparse.SUPPRESS)
    parser.add_argument("--days", type=int, default=DAYS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        print(json.dumps(measured(given.work, given.days)))
        return
    from mlops_assets.testing.postgres_server import running_postgres

    table = Table(title=f"SQL: {ROWS:,} rows, 10 columns, {DAYS} days", title_justify="left")
    for column in ("database", "what", "wall s", "CPU s", "peak MB"):
        table.add_column(column, justify="right" if column[-1] in "sB" else "left")
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        server.run(CREATE.format(rows=ROWS), "CREATE INDEX ON sales (sold)", "ANALYZE sales")
        file = f"{folder}/sales.db"
        with sqlite3.connect(file) as connection:
            connection.execute(SQLITE.format(rows=ROWS))
            connection.execute("CREATE INDEX by_day ON sales (sold)")
        connection.close()
        for database, url in (("PostgreSQL", server.url()), ("SQLite", f"sqlite:///{file}")):
            for name, (work, days) in WORK.items():
                cost = in_a_process(work, days, url)
                expected = DAYS if work == "states" else ROWS * days // DAYS
                assert cost["rows"] == expected, f"{name}: {cost['rows']} rows instead of {expected}"
                table.add_row(
                    database, name, f"{cost['wall_s']:.1f}", f"{cost['cpu_s']:.1f}", f"{cost['peak_mb']:.0f}"
                )
    Console().print(table)


if __name__ == "__main__":
    main()
