"""Where reading a topic goes on, and what of it is lost.

Belongs here: decisions about offsets. Does not belong here: asking a broker (``resources/kafka.py``), the
table whose commits hold the offsets (``resources/stream_table.py``).

An offset is always the *next* one: that of the first record that the table does not hold.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.errors import DataError, LostOffsets


@dataclass(frozen=True)
class Loss:
    """Records of a partition that nobody can read any more: from ``first`` to the one before ``before``."""

    partition: int
    first: int
    before: int

    def __str__(self) -> str:
        return f"partition {self.partition}, offsets {self.first} to {self.before - 1}"

    def covers(self, other: "Loss") -> bool:
        """Whether all of the other loss lies within this one."""
        return self.partition == other.partition and self.first <= other.first and self.before >= other.before


def begin(
    topic: str, partition: int, following: int | None, first: int, accepted: Sequence[Loss] = ()
) -> int:
    """The offset to read from, given the one that follows what the table holds (None: nothing of it yet) and
    the first that the topic still has.

    Raises LostOffsets when the topic has lost records that the table does not hold, unless the loss is
    accepted.
    """
    if following is None or following < first:
        lost = Loss(partition, following or 0, first)
        if following is None or any(one.covers(lost) for one in accepted):
            return first
        raise LostOffsets(topic, lost.partition, lost.first, lost.before)
    return following


def require_forward(held: Mapping[int, int | None], reached: Mapping[int, int]) -> None:
    """DataError when an offset would go back: Delta itself takes a lower one without a word."""
    back = [
        f"partition {partition} from {held[partition]} to {offset}"
        for partition, offset in sorted(reached.items())
        if offset < (held.get(partition) or 0)
    ]
    if back:
        raise DataError(f"Offsets do not go back, and these would: {'; '.join(back)}. Nothing was written.")


def lag(following: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
    """Records per partition that the topic has and the table has not."""
    return {partition: max(0, end - following.get(partition, 0)) for partition, end in sorted(ends.items())}


def content_version(topic: str, following: Mapping[int, int]) -> str:
    """Version of all that a stream holds up to these offsets: a topic never changes what it said."""
    text = json.dumps([topic, sorted(following.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:20]
