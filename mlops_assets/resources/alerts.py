"""The port through which the platform tells people: a log file always, a webhook where one is set.

Belongs here: delivering an alert. Does not belong here: deciding that something is worth one (``rollout/``,
the sensors).
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_assets import environment

TRIES = 3
TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """What happened, to which version, by what evidence, and the command to act."""

    kind: Literal["rollout_aborted", "rollout_inconclusive", "rollout_failed", "rolled_back"]
    subject: str
    summary: str
    command: str
    version: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """One message for people; what Slack and its kin show."""
        return f"[{self.kind}] {self.subject} {self.version}: {self.summary}\nNext: {self.command}"


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where alerts go: the log file, and the webhook in ``MLOPS_ALERT_WEBHOOK`` when it is set.

    The webhook's address is a secret: it is no field (Dagster's UI shows those) and in no message.
    """

    log_file: str = Field(description="File that gets one JSON object per alert.")

    def send(self, alert: Alert, *, sleep: Callable[[float], None] = time.sleep) -> str:
        """Delivers and says how far it came, for the record. An alert that cannot be delivered to the
        webhook must not undo what it tells of, so that is said and logged, not raised.
        """
        path = Path(self.log_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"at": time.time(), **asdict(alert)}, default=str)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        logger.warning("%s", alert.text())
        url = environment.ALERT_WEBHOOK.read()
        return _post(url, alert, sleep) if url else "logged; no webhook is set"


def _post(url: str, alert: Alert, sleep: Callable[[float], None]) -> str:
    import httpx

    told = ""
    for attempt in range(TRIES):
        if attempt:
            sleep(2.0**attempt)
        try:
            answer = httpx.post(
                url,
                json={"text": alert.text(), "alert": asdict(alert)},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            # Its text may quote the address, which is a secret.
            told = type(error).__name__
            continue
        if answer.is_success:
            return "logged and delivered to the webhook"
        told = f"HTTP {answer.status_code}"
        if answer.status_code < 500 and answer.status_code != 429:
            break
    logger.error("The webhook did not take the alert %s: %s", alert.kind, told)
    return f"logged; the webhook did not take it ({told})"
