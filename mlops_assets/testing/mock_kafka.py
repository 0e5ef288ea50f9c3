"""The mock broker inside librdkafka, for faults that no real broker has on demand.

Belongs here: one that removes old records, one that ends. Does not belong here: a real broker
(``kafka_broker.py``). A topic of it has four partitions, made when somebody first writes to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mlops_assets.testing.kafka_broker import KafkaBroker

KEPT_BYTES = 5 * 2**20
"""It removes a partition's oldest records beyond this."""


@contextmanager
def mock_kafka() -> Iterator[KafkaBroker]:
    """The broker, until the block ends: then it is gone."""
    from confluent_kafka import Producer

    # It lives as long as this object, and says where it is.
    host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "nowhere", "log_level": 0})
    (broker,) = host.list_topics(timeout=10).brokers.values()
    yield KafkaBroker(f"{broker.host}:{broker.port}")
    del host
