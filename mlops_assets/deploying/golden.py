"""The golden requests: a version must answer them over HTTP with the scores it had offline.

Belongs here: sending them and waiting for the right replica. Does not belong here: the answer that is
expected (``rollout/golden.py``), when a version has to answer them (``rollout/act.py``).
"""

import time
from collections.abc import Mapping
from typing import Any

from mlops_assets.errors import DeploymentError
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.golden import difference, expected_answer
from serve.schema import ModelManifest

GOLDEN_PATIENCE_S = 30.0


def tolerance_of(device: Mapping[str, Any] | None) -> float:
    """What a version's device allows between offline and served scores; 0 on CPU."""
    if not device or device["used"] == "cpu":
        return 0.0
    return float((device.get("parity") or {}).get("tolerance", 0.0))


def verify_golden(
    client: ServeClient, name: str, label: str, manifest: ModelManifest, tolerance: float = 0.0
) -> None:
    """Every golden request must be answered by this version with the offline scores."""
    if not manifest.golden:
        raise DeploymentError(
            f"{name} {label} carries no golden rows; nothing proves that it answers as offline"
        )
    deadline = time.monotonic() + GOLDEN_PATIENCE_S
    for row in manifest.golden:
        while True:
            status, answer = client.predict(name, row.features)
            wrong = f"HTTP {status}: {answer}" if status != 200 else None
            if wrong is None:
                wrong = difference(answer, expected_answer(manifest, row), version=label, tolerance=tolerance)
            # A replica that has not reached the new version yet lets the one before answer, or nobody.
            passing = status in (429, 503) or (status == 200 and answer.get("model_version") != label)
            if wrong is None or not passing or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if wrong:
            raise DeploymentError(
                f"{name} {label} does not answer as it did offline: {wrong}; request: {row.features}"
            )
