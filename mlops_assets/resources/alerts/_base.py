"""What an alert is, and what a channel that delivers alerts must do.

Belongs here: the alert, the ABC of channels. Does not belong here: one channel (a file beside this one),
which alert goes out when (``_delivering.py``), what is worth one (the sensors, ``rollout/``,
``monitoring/``).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

AlertKind = Literal[
    "rollout_aborted",
    "rollout_inconclusive",
    "rollout_failed",
    "rolled_back",
    "episode_opened",
    "episode_closed",
    "gate_rejected",
    "freshness_failed",
    "freshness_recovered",
    "log_drops",
    "sensor_failing",
    "document_missing",
    "orphaned_deployment",
    "retrain_failed",
    "retrain_refused",
    "approval_lost",
    "measuring_failed",
]
Delivery = Literal["sending", "delivered", "logged", "failed", "refused", "suppressed"]
"""``logged``: no channel is set. ``failed``: to be tried again. ``refused``: the channel will not take it as
it is (HTTP 4xx: a wrong address or signature).
"""


@dataclass(frozen=True)
class Alert:
    """What happened, to which version, by what evidence, and the command to act.

    ``dedupe`` tells two happenings apart that are alike in kind, subject and version: an episode's number, a
    revision, the moment of a transition. Two alerts that are alike in all four are one piece of news.
    """

    kind: AlertKind
    subject: str
    summary: str
    command: str
    version: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    dedupe: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of kind, subject, version and ``dedupe``."""
        identity = json.dumps([self.kind, self.subject, self.version, self.dedupe])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def text(self) -> str:
        """One message for people; what Slack and its kin show."""
        about = f"{self.subject} {self.version}".rstrip()
        return f"[{self.kind}] {about}: {self.summary}\nNext: {self.command}"


class DeliveryOutcome(NamedTuple):
    """What became of a delivery, and the problem in words ("" when delivered)."""

    delivery: Delivery
    problem: str = ""


class Channel(ABC):
    """One way to tell people. The environment says whether it is set; its addresses and keys are secrets: in
    no message, no log and no ``repr``.
    """

    name: ClassVar[str]
    """What the log calls it."""

    @classmethod
    @abstractmethod
    def from_environment(cls) -> "Channel | None":
        """The channel as it is set now; None when it is not."""

    @abstractmethod
    def deliver(
        self,
        identity: str,
        alert: Alert,
        tries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> DeliveryOutcome:
        """Delivers within so many tries; of none it is ``failed`` and nobody is asked.

        Whatever goes wrong outside is an outcome and never raised: ``failed`` is tried again later, under the
        same ``identity``, and ``refused`` is not.
        """
