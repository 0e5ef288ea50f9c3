"""What tests of the data plane share."""

import hashlib
import json
from typing import Any

import pytest


@pytest.fixture
def keys_file(tmp_path: Any) -> str:
    def line(name: str, role: str, **more: Any) -> str:
        return json.dumps(
            {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "role": role, **more}
        )

    path = tmp_path / "keys.jsonl"
    path.write_text("\n".join([line("watcher", "observe"), line("shop", "predict"), line("boss", "operate"),
                               line("slow", "predict", requests_per_minute=2)]))  # fmt: skip
    return str(path)
