"""Is each record of a topic in its table once, whatever ends a run, and how many records a second go in.

Belongs here: killing real processes before and after their commits, doubling them, counting rows; timing.
Does not belong here: what a test asks of single faults (``mlops_assets_tests/components/test_stream.py``).

Children are forked from this process, which itself opens neither a table nor a client until they are done.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka  # noqa: F401 (imported once, for all children)
import deltalake  # noqa: F401
import pandas as pd
from rich.console import Console
from rich.table import Table

from mlops_assets.assets.ingest import DeclaredStream, Ingested, ingesting
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import AnotherWasFirst
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.stream_table import StreamTable
from mlops_assets.testing.kafka_broker import running_kafka_broker

RECORDS, PARTITIONS, ROWS_A_COMMIT = 20_000, 4, 1_000
FENCED, KILLED = 3, -signal.SIGKILL
Meeting = Callable[[], Any]


def declared(topic: str, max_rows: int) -> DeclaredStream:
    """The stream of a topic of small orders."""
    attributes = {
        "name": topic,
        "topic": topic,
        "bootstrap_servers": "BENCH_BROKER",
        "value": {"format": "json"},
        "columns": {"id": "integer", "amount": "number", "shop": "string", "at": "timestamp"},
        "event_time": "at",
        "max_rows": max_rows,
    }
    return DeclaredStream(StreamDeclaration.model_validate(attributes), Path())


def record(number: int) -> dict[str, Any]:
    """One order of about 100 bytes."""
    document = {
        "id": number,
        "amount": number / 7,
        "shop": f"shop-{number % 50}",
        "at": f"2024-01-{number % 5 + 1:02}T12:00:00Z",
    }
    return {"value": json.dumps(document).encode(), "key": b"k%d" % number, "partition": number % PARTITIONS}


def read(lake: Lake, source: DeclaredStream) -> Ingested:
    """What one run of the asset does: read to the end, or to the limit, and commit."""
    with ingesting(lake, source, "bench") as ingest:
        return ingest.commit_next(lambda _, at_end: at_end)


def child(work: Callable[[], object]) -> "multiprocessing.process.BaseProcess":
    """A process that does the work and ends with what became of it."""

    def run() -> None:
        try:
            work()
        except AnotherWasFirst:
            os._exit(FENCED)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def killed(lake: Lake, source: DeclaredStream, *, after: bool) -> None:
    """A run that gets SIGKILL right before its commit, or right after."""
    append = StreamTable.append

    def deadly(self: StreamTable, *given: Any) -> Any:
        if after:
            append(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)

    StreamTable.append = deadly  # type: ignore[method-assign]
    read(lake, source)


def doubled(lake: Lake, source: DeclaredStream, meet: Meeting) -> None:
    """A run that waits before its commit until its double has read the same."""
    append = StreamTable.append

    def together(self: StreamTable, *given: Any) -> Any:
        meet()
        return append(self, *given)

    StreamTable.append = together  # type: ignore[method-assign]
    read(lake, source)


def torture(lake: Lake, source: DeclaredStream) -> Counter[str]:
    """Every commit is first killed before, and then killed after it, or made by two runs at once."""
    ended: Counter[str] = Counter()
    context = multiprocessing.get_context("fork")
    for commit in range(RECORDS // ROWS_A_COMMIT):
        (code,) = _codes(child(lambda: killed(lake, source, after=False)))
        ended["killed before the commit"] += code == KILLED
        if commit % 2:
            (code,) = _codes(child(lambda: killed(lake, source, after=True)))
            ended["killed after the commit"] += code == KILLED
        else:
            meet = context.Barrier(2).wait
            codes = _codes(*(child(lambda meet=meet: doubled(lake, source, meet)) for _ in range(2)))
            ended["doubled: one committed, one refused"] += sorted(codes) == [0, FENCED]
            # Each read other partitions up to its limit: neither has what the other has, and both are right.
            ended["doubled: both committed, of different partitions"] += codes == [0, 0]
    return ended


def _codes(*processes: "multiprocessing.process.BaseProcess") -> list[int | None]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def right(rows: pd.DataFrame) -> bool:
    """Whether every record is there once, and each partition holds its offsets without a gap."""
    whole = sorted(rows["id"]) == list(range(RECORDS))
    ordered = (
        rows.groupby("partition")["offset"].apply(lambda one: sorted(one) == list(range(len(one))))
    ).all()
    return whole and bool(ordered)


def main() -> None:
    """Runs both and prints them; about a minute on two cores."""
    console = Console()
    with running_kafka_broker() as broker, tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
        os.environ["BENCH_BROKER"] = broker.address
        lake = Lake(uri=folder)
        # In a process of its own: a client of this one would not survive the forks.
        produce = child(lambda: [_fill(broker, topic) for topic in ("killed", "plain")])
        assert _codes(produce) == [0]
        started = time.perf_counter()
        ended = torture(lake, declared("killed", ROWS_A_COMMIT))
        tortured = time.perf_counter() - started
        plain = declared("plain", RECORDS)
        before, started = time.process_time(), time.perf_counter()
        found = read(lake, plain)
        wall, cpu = time.perf_counter() - started, time.process_time() - before
        rows = {name: lake.read(f"streams/{name}") for name in ("killed", "plain")}
    table = Table(title=f"{RECORDS:,} Kafka records into their table", title_justify="left")
    table.add_column("what")
    table.add_column("result", justify="right")
    for name, count in ended.items():
        table.add_row(name, str(count))
    table.add_row("rows, distinct records", f"{len(rows['killed']):,}, {rows['killed']['id'].nunique():,}")
    table.add_row("each once, offsets of each partition without a gap", str(right(rows["killed"])))
    table.add_row("seconds for all that", f"{tortured:.1f}")
    table.add_row("one run of all records: seconds (CPU)", f"{wall:.2f} ({cpu:.2f})")
    table.add_row("records per second", f"{found.records / wall:,.0f}")
    console.print(table)
    if not all(map(right, rows.values())):
        sys.exit("records are missing or doubled")


def _fill(broker: Any, topic: str) -> None:
    broker.create(topic, PARTITIONS)
    broker.produce(topic, map(record, range(RECORDS)))


if __name__ == "__main__":
    main()
