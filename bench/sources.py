"""What reading a source costs: a database, thousands of small files, a JSON API, into a checked dataset.

Belongs here: PostgreSQL, SQLite, a folder, an object store and an API with the same rows, each measurement in
a process of its own. Does not belong here: streams (``streams.py``), the CSV files of the flights
(``graph.py``).
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
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.graph import ROOT

ROWS, DAYS = 600_000, 30
FILES_A_DAY, PAGES, PAGE_ROWS = 100, 100, 1_000
VARIABLE, SOURCE = "BENCH_DATABASE_URL", "BENCH_SOURCE"
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


FILE_WORK = {"read": ("load", DAYS), "into a checked dataset": ("dataset", DAYS)}


def measured(work: str, days: int) -> dict[str, float]:
    """In this process: wall and CPU seconds, rows, peak memory in MB; imports are counted."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
        rows = {"read": _read, "load": _load, "states": _states, "dataset": _dataset}[work](days, folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "rows": rows,
        "peak_mb": used.ru_maxrss / 1024,
    }


def _keys(days: int) -> list[str]:
    return [f"2024-01-{day:02}" for day in range(1, days + 1)]


def _document() -> dict[str, Any]:
    """The dataset, of the source that this process was given."""
    return {**DOCUMENT, "source": json.loads(os.environ.get(SOURCE, "null")) or DOCUMENT["source"]}


def _lake(folder: str) -> Any:
    from mlops_assets.resources.lake import Lake, S3Config

    keys = {name: os.environ.get(name.upper()) for name in ("aws_access_key_id", "aws_secret_access_key")}
    return Lake(uri=folder, s3=S3Config(endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3"), **keys))


def _read(days: int, folder: str) -> int:
    from mlops_assets.data.sources import Asked
    from mlops_assets.documents.dataset import DatasetDeclaration

    declared = DatasetDeclaration.model_validate(_document())
    asked = Asked(declared.columns, False, "day", _keys(days))
    return declared.source.reader(Path(folder)).read(asked, _lake(folder)).num_rows


def _load(days: int, folder: str) -> int:
    """Every day read by itself, and its rows in the declared types."""
    from mlops_assets.data.loading import Source, load
    from mlops_assets.documents.dataset import DatasetDeclaration

    declared = DatasetDeclaration.model_validate(_document())
    partitions = declared.partitions
    assert partitions is not None
    source = Source(declared.source.reader(Path(folder)))
    found = load(
        source,
        declared.columns,
        partition_column=partitions.column,
        partitions=_keys(days),
        lake=_lake(folder),
        is_key=partitions.is_key,
    )
    assert not found.findings, found.findings[0]
    return len(found.frame)


def _states(days: int, folder: str) -> int:
    from mlops_assets.data.sources import Asked
    from mlops_assets.documents.dataset import DatasetDeclaration

    declared = DatasetDeclaration.model_validate(_document())
    asked = Asked(declared.columns, False, "day")
    return len(declared.source.reader(Path(folder)).states(asked, _lake(folder)))


def _dataset(days: int, folder: str) -> int:
    import dagster as dg

    from mlops_assets.assets.dataset import dataset_asset, quarantine_asset
    from mlops_assets.data.loading import Source
    from mlops_assets.documents.dataset import DatasetDeclaration

    declared = DatasetDeclaration.model_validate(_document())
    # Also what a probe compares later, where the source can be probed.
    source = Source(declared.source.reader(Path(folder)), probed=DOCUMENT["source"] == _document()["source"])
    lake = _lake(f"{folder}/lake")
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


def in_a_process(work: str, days: int, **environment: str) -> dict[str, float]:
    """The same in a new process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.sources", "--work", work, "--days", str(days)],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rows_of_day(day: str, first: int, count: int) -> Any:
    """Rows of one day as a table, with the columns that the dataset declares."""
    import pandas as pd

    numbers = pd.Series(range(first, first + count))
    at = pd.Timestamp(day, tz="UTC") + pd.to_timedelta(numbers % 86_400, unit="s")
    return pd.DataFrame(
        {
            "id": numbers,
            "day": day,
            "at": at,
            "customer": "customer " + (numbers % 5_000).astype(str),
            "amount": numbers % 100_000 / 100,
            "price": numbers / 7,
            "quantity": (numbers % 50).where(numbers % 10 > 0).astype("Int64"),
            "paid": numbers % 3 == 0,
            "reference": (numbers * 7919).map("{:032x}".format),
            "changed": at,
        }
    )


def files(days: int, rows: int) -> Iterator[tuple[str, bytes]]:
    """``FILES_A_DAY`` Parquet files a day with so many rows each, with their paths."""
    first = 0
    for day in _keys(days):
        for number in range(FILES_A_DAY):
            yield f"{day}/part-{number:03}.parquet", rows_of_day(day, first, rows).to_parquet(index=False)
            first += rows


@contextmanager
def api() -> Iterator[str]:
    """The address of an API with ``PAGES`` pages of ``PAGE_ROWS`` rows; the page is the last of its path."""
    pages = []
    for number in range(PAGES):
        day = _keys(DAYS)[number * DAYS // PAGES]
        rows = rows_of_day(day, number * PAGE_ROWS, PAGE_ROWS).to_json(orient="records", date_format="iso")
        pages.append(f'{{"items": {rows}, "total": {PAGES * PAGE_ROWS}}}'.encode())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = pages[int(self.path.rpartition("page=")[2]) - 1]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/sales"
    server.shutdown()
    server.server_close()


Row = tuple[str, str, dict[str, float]]


def databases() -> Iterator[Row]:
    """PostgreSQL and SQLite with ``ROWS`` rows."""
    from mlops_assets.testing.postgres_server import running_postgres

    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        server.run(CREATE.format(rows=ROWS), "CREATE INDEX ON sales (sold)", "ANALYZE sales")
        file = f"{folder}/sales.db"
        with sqlite3.connect(file) as connection:
            connection.execute(SQLITE.format(rows=ROWS))
            connection.execute("CREATE INDEX by_day ON sales (sold)")
        connection.close()
        for database, url in (("PostgreSQL", server.url()), ("SQLite", f"sqlite:///{file}")):
            for name, (work, days) in WORK.items():
                expected = DAYS if work == "states" else ROWS * days // DAYS
                yield database, name, _checked(work, days, expected, **{VARIABLE: url})


def small_files() -> Iterator[Row]:
    """The same number of rows in ``FILES_A_DAY`` files a day, in a folder and in an object store."""
    from mlops_assets.testing.s3_server import ACCESS_KEY, SECRET_KEY, running_s3_server

    rows = ROWS // (DAYS * FILES_A_DAY)
    with tempfile.TemporaryDirectory() as folder, running_s3_server(Path(folder)) as store:
        made, client = Path(folder) / "sales", store.client()
        for name, content in files(DAYS, rows):
            file = made / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            client.put_object(Bucket=store.bucket, Key=name, Body=content)
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        places = {
            "folder": (f"{made}/{{partition}}/*.parquet", {}),
            "SeaweedFS": (
                f"s3://{store.bucket}/{{partition}}/*.parquet",
                {**keys, "AWS_ENDPOINT_URL_S3": store.endpoint_url},
            ),
        }
        for place, (path, environment) in places.items():
            source = json.dumps({"format": "parquet", "path": path})
            for name, (work, days) in FILE_WORK.items():
                what = f"{DAYS * FILES_A_DAY:,} files, {name}"
                yield place, what, _checked(work, days, ROWS, **environment, **{SOURCE: source})


def pages() -> Iterator[Row]:
    """A JSON API on this machine."""
    with api() as url:
        source = {
            "format": "http",
            "url": url,
            "query": {"from": "{first}", "to": "{after}"},
            "rows": "items",
            "total": "total",
            "pages": {"by": "page_number", "parameter": "page"},
        }
        for name, (work, days) in FILE_WORK.items():
            what = f"{PAGES * PAGE_ROWS:,} rows in {PAGES} pages, {name}"
            yield "JSON API", what, _checked(work, days, PAGES * PAGE_ROWS, **{SOURCE: json.dumps(source)})


def _checked(work: str, days: int, expected: int, **environment: str) -> dict[str, float]:
    cost = in_a_process(work, days, **environment)
    assert cost["rows"] == expected, f"{work}: {cost['rows']} rows instead of {expected}"
    return cost


PARTS = {"sql": databases, "files": small_files, "http": pages}


def main(arguments: list[str] | None = None) -> None:
    """Fills every source, measures and prints; about five minutes on two cores."""
    parser = argparse.ArgumentParser(prog="python -m bench.sources", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="left out: all")
    parser.add_argument("--work", choices=["read", "load", "states", "dataset"], help=argparse.SUPPRESS)
    parser.add_argument("--days", type=int, default=DAYS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        print(json.dumps(measured(given.work, given.days)))
        return
    table = Table(title=f"{ROWS:,} rows, 10 columns, {DAYS} days", title_justify="left")
    for column in ("source", "what", "wall s", "CPU s", "peak MB"):
        table.add_column(column, justify="right" if column[-1] in "sB" else "left")
    for part in given.part or PARTS:
        for source, what, cost in PARTS[part]():
            numbers = f"{cost['wall_s']:.1f}", f"{cost['cpu_s']:.1f}", f"{cost['peak_mb']:.0f}"
            table.add_row(source, what, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
