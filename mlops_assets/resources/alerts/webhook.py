"""A Slack-compatible webhook. How a receiver checks the signature: docs/alerts.md."""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import ClassVar

from mlops_assets import environment
from mlops_assets.resources import trusted
from mlops_assets.resources.alerts._base import Alert, Channel, DeliveryOutcome

TIMEOUT_S = 5.0
TIMESTAMP_HEADER = "X-Mlops-Timestamp"
SIGNATURE_HEADER = "X-Mlops-Signature"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``v1=`` and the HMAC-SHA256, in hexadecimal, of ``<timestamp>.<body>`` under the secret.

    The time is part of what is signed, so a receiver that refuses old ones cannot be sent a recording.
    """
    return f"v1={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


class WebhookChannel(Channel):
    """The address in ``MLOPS_ALERT_WEBHOOK``; signed when ``MLOPS_ALERT_SECRET`` is set."""

    name: ClassVar[str] = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def from_environment(cls) -> "WebhookChannel | None":
        url = environment.ALERT_WEBHOOK.read()
        return cls(url) if url else None

    def deliver(
        self,
        identity: str,
        alert: Alert,
        tries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> DeliveryOutcome:
        import httpx

        message = {"text": alert.text(), "id": identity, "alert": asdict(alert)}
        body = json.dumps(message, default=str).encode()
        secret = environment.ALERT_SECRET.read()
        problem = "an earlier alert was not taken"
        for attempt in range(tries):
            if attempt:
                sleep(2.0**attempt)
            headers = {"Content-Type": "application/json"}
            if secret:
                timestamp = str(int(clock()))
                headers |= {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature(secret, timestamp, body)}
            try:
                # The body is left unread: a receiver that took it and says so badly took it all the same.
                with httpx.stream(
                    "POST",
                    self._url,
                    content=body,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    trust_env=False,
                    verify=trusted.certificates(),
                ) as answer:
                    status, taken = answer.status_code, answer.is_success
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                # Its text may quote the address, which is a secret.
                problem = type(error).__name__
                continue
            if taken:
                return DeliveryOutcome("delivered")
            problem = f"HTTP {status}"
            if status < 500 and status != 429:
                return DeliveryOutcome("refused", problem)
        return DeliveryOutcome("failed", problem)
