"""The long-lived consumer: it commits, tells Dagster, ends cleanly, and goes on after being killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mlops_assets.assets.ingest import DeclaredStream
from mlops_assets.commands import streaming
from mlops_assets.commands.stopping import stopped_by_signals
from mlops_assets.commands.streaming import consume, stream_of
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import AnotherWasFirst, DeclarationError, UnknownName
from mlops_assets.event_log.records import latest
from mlops_assets.resources.kafka import TopicReader
from mlops_assets_tests.components.test_stream import ORDERS, YAML, records, rows, topic

__all__ = ["topic"]

DEADLINE_S = 60


@pytest.fixture
def attributes(topic):
    return {
        "name": "orders",
        "topic": topic,
        "bootstrap_servers": "ORDERS_BROKER",
        "value": {"format": "json"},
        "columns": {"id": "integer"},
        "read_by": "consumer",
        "every": "1s",
    }


@pytest.fixture
def source(attributes, tmp_path):
    return DeclaredStream(StreamDeclaration.model_validate(attributes), tmp_path)


class Told(list):
    """What the consumer tells; ``until`` waits for it, so no test depends on how fast it is."""

    def until(self, text):
        deadline = time.monotonic() + DEADLINE_S
        while not any(text in line for line in self):
            assert time.monotonic() < deadline, f"{text!r} was not told, but {list(self)}"
            time.sleep(0.02)


@pytest.fixture
def consumer(source, lake, instance):
    """A consumer in a thread: its event that ends it, what it tells, and ``ended`` that waits."""
    stop, told, raised = threading.Event(), Told(), []

    def run():
        try:
            consume(source, lake, instance, stop, told.append)
        except BaseException as error:  # noqa: BLE001 (told by ``ended``)
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def ended():
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        return raised

    yield stop, told, ended
    stop.set()
    thread.join(DEADLINE_S)


def test_it_commits_as_records_come_and_tells_dagster_when_it_ends(
    consumer, topic, kafka_broker, lake, instance
):
    stop, told, ended = consumer
    told.until("Reading topic")
    kafka_broker.produce(topic, records(range(10)))
    told.until("records, Delta version")
    kafka_broker.produce(topic, [*records(range(10, 15)), {"value": b"{"}])
    stop.set()
    assert ended() == []
    assert told[-1] == "Ended; all that was read is committed."
    told_records = sum(int(line.split()[0]) for line in told if "Delta version" in line)
    assert len(rows(lake)) == told_records
    record = latest(instance, ORDERS)
    assert record.metadata["records"] == told_records and record.run_id == ""


@pytest.fixture
def one_partition(monkeypatch):
    """The topic seems to have its first partition alone, until the list is given another."""
    seen = [0]
    monkeypatch.setattr(TopicReader, "partitions", lambda _: list(seen))
    monkeypatch.setattr(streaming, "REPORT_S", 0.5)
    return seen


def test_dagster_is_told_at_intervals_and_new_partitions_are_read(
    one_partition, consumer, topic, kafka_broker, lake, instance
):
    _, told, _ = consumer
    told.until("Reading topic")
    kafka_broker.produce(topic, records(range(4)))
    told.until("2 records, Delta version 1")
    one_partition.append(1)
    told.until("2 records, Delta version 2")
    deadline = time.monotonic() + DEADLINE_S
    while (record := latest(instance, ORDERS)) is None or record.metadata["delta_version"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(rows(lake)["id"]) == [0, 1, 2, 3]


def test_another_writer_ends_it_and_nothing_is_there_twice(
    consumer, source, topic, kafka_broker, lake, instance
):
    stop, told, ended = consumer
    told.until("Reading topic")
    second_stop = threading.Event()
    second = Told()
    raised = []

    def run():
        try:
            consume(source, lake, instance, second_stop, second.append)
        except AnotherWasFirst as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    second.until("Reading topic")
    kafka_broker.produce(topic, records(range(20)))
    deadline = time.monotonic() + DEADLINE_S
    while not raised and not any("Delta version" in line for line in second):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    second_stop.set()
    thread.join(DEADLINE_S)
    failed = [*raised, *ended()]
    assert len(failed) == 1 and isinstance(failed[0], AnotherWasFirst)
    assert sorted(rows(lake)["id"]) == list(range(20))


CHILD = """
import json, sys
from mlops_assets.commands.stopping import stopped_by_signals
from mlops_assets.commands.streaming import consume
from mlops_assets.assets.ingest import DeclaredStream
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.resources.lake import Lake
from pathlib import Path
import dagster as dg

with stopped_by_signals() as stop, dg.DagsterInstance.ephemeral() as instance:
    source = DeclaredStream(StreamDeclaration.model_validate(json.loads(sys.argv[1])), Path("."))
    consume(source, Lake(uri=sys.argv[2]), instance, stop, lambda line: print(line, flush=True))
"""


def test_sigterm_ends_it_cleanly(attributes, topic, kafka_broker, lake):
    kafka_broker.produce(topic, records(range(10)))
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(attributes), lake.uri],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in child.stdout:
        if "Delta version" in line:
            break
    child.send_signal(signal.SIGTERM)
    rest = child.stdout.read()
    assert child.wait(DEADLINE_S) == 0
    assert rest.endswith("Ended; all that was read is committed.\n")
    assert sorted(rows(lake)["id"]) == list(range(10))


def test_signals_are_only_taken_inside():
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stream_is_found_by_name_beside_documents_that_cannot_be_read(request, use_case):
    (use_case / "defs.yaml").write_text(YAML + "  read_by: consumer\n---\ntype: nothing\n")
    with request.node.sandbox.build_component_tree() as tree:
        found = stream_of(tree, "orders")
        assert found.declared.name == "orders" and found.folder == use_case
        with pytest.raises(UnknownName, match=r"'nothing'\. Allowed: orders\. Declare a StreamComponent"):
            stream_of(tree, "nothing")


def test_a_stream_that_runs_read_is_refused(request, use_case):
    (use_case / "defs.yaml").write_text(YAML)
    with (
        request.node.sandbox.build_component_tree() as tree,
        pytest.raises(DeclarationError, match="say read_by: consumer"),
    ):
        stream_of(tree, "orders")
