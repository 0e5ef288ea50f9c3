"""Clients that nobody here wrote, unchanged, against the real endpoint on a real socket.

Each runs in an environment of its own (``clients/``), made once into ``.venv``: some seconds, with the
package index at hand.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from mlops_assets.testing.own_environment import environment
from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import ROW
from mlops_assets_tests.serve.listening import listening
from serve.inference_log import PredictionLog
from serve.schema import PredictionLogArgs

KEYED = {(0, '{"flight_id":4711}'), (1, '{"flight_id":4712}')}
CLIENTS = Path(__file__).parent / "clients"
ROWS = [
    {**ROW, "delay": 12.5},
    {
        **ROW,
        "distance": 10.0,
        "delay": -3.25,
        "hour": 3,
        "weekend": True,
        "carrier": "Zürich",
        "origin": "EWR",
    },
]
KINDS = {"distance": "FP64", "delay": "FP64", "hour": "INT64", "weekend": "BOOL", "carrier": "BYTES",
         "origin": "BYTES"}  # fmt: skip


def columns(*rows: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """By tensor: datatype and values."""
    return {name: (kind, [row[name] for row in rows]) for name, kind in KINDS.items()} | keys


class Asking:
    """An endpoint with keys on, and what a client is told there."""

    def __init__(self, site: Site, where: str, log: PredictionLog, folder: Path) -> None:
        self.site, self.where, self.log, self.folder = site, where, log, folder
        scores = site.v1.scorer.score_rows(ROWS).tolist()
        self.outputs = {
            "prediction": ["late" if score >= 0.5 else "on time" for score in scores],
            "probability": scores,
        }
        assert len(set(scores)) == 2

    def by(self, client: str, **more: Any) -> dict[str, Any]:
        """What the client's script was told."""
        source = CLIENTS / client
        python = environment(source / "requirements.txt", f"clients/{client}") / "python"
        keyed = columns(*ROWS, flight_id=("INT64", [4711, 4712]))
        asked = {
            "url": f"http://{self.where}", "host": self.where, "model": "flights",
            "headers": {"x-api-key": "shop"}, "columns": keyed, "bad": columns({**ROWS[0], "hour": 24}),
            **more,
        }  # fmt: skip
        done = subprocess.run(
            [str(python), "-I", str(source / "ask.py")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "DO_NOT_TRACK": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def logged(self) -> set[tuple[int, str | None]]:
        """Position and join keys of every row that was answered, so that outcomes can be joined."""
        self.log.flush()
        files = [str(file) for file in (self.folder / "log").rglob("*.parquet")]
        return {(row["row"], row["entity"]) for row in ds.dataset(files).to_table().to_pylist()}


@pytest.fixture
def asking(tmp_path: Path, keys_file: str) -> Iterator[Asking]:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="r1")
    site = Site(keys_file=keys_file, log=log)
    site.v1.manifest = site.v1.manifest.model_copy(update={"entity": ("flight_id",)})
    with listening(site) as where:
        yield Asking(site, where, log, tmp_path)
    log.close()


def test_kserves_own_client(asking: Asking) -> None:
    found = asking.by("kserve")
    assert [found[name] for name in ("live", "ready", "model ready", "other model ready")] == [True] * 3 + [
        False
    ]
    for way in ("lists", "numpy as JSON", "numpy as bytes", "all as bytes"):
        assert found[way]["outputs"] == asking.outputs, way
    assert found["one output"]["outputs"] == {"probability": asking.outputs["probability"]}
    assert found["lists"]["id"] == "mine" and found["lists"]["model_name"] == "flights"
    assert found["a bad value"].startswith("row 0.hour must be >= 0 and <= 23., '400 Bad Request'")
    assert found["no key"].startswith("This endpoint needs an API key.")
    assert asking.logged() == KEYED


def test_tritons_client_with_its_defaults(asking: Asking) -> None:
    found = asking.by("triton")
    for name in ("live", "ready", "model ready", "version ready"):
        assert found[name] is True, name
    assert found["other model ready"] is False
    assert found["server"]["extensions"] == ["binary_tensor_data"]
    assert {tensor["name"]: tensor["datatype"] for tensor in found["metadata"]["inputs"]} == KINDS
    assert found["version metadata"]["versions"] == ["v1"]
    for way in ("defaults", "gzip", "deflate", "a version", "hints", "async", "aio"):
        assert found[way]["outputs"] == asking.outputs, way
        assert found[way]["bytes"] == [True, True] and found[way]["version"] == "v1"
    assert found["JSON"]["outputs"] == {"probability": asking.outputs["probability"]}
    assert found["JSON"]["bytes"] == [False]
    assert found["one output"]["outputs"] == {"probability": asking.outputs["probability"]}
    assert found["one output"]["id"] == "mine"
    assert found["a bad value"] == [
        "[400] row 0.hour must be >= 0 and <= 23.", "400", "row 0.hour must be >= 0 and <= 23.",
    ]  # fmt: skip
    assert found["no key"][0].startswith("[401] This endpoint needs an API key.")
    assert found["no such version"][0] == "[404] No version '7' has traffic. There is: v1."
    assert "answers do not depend on earlier ones" in found["a sequence"][0]
    for name in ("statistics", "repository"):
        assert found[name][0].startswith("[404] Nothing answers at '/v2/"), name
    assert asking.logged() == KEYED


def test_mlservers_codecs_and_batch_client(asking: Asking) -> None:
    def request(number: int) -> dict[str, Any]:
        return {
            "id": f"row-{number}",
            "inputs": [
                {"name": name, "shape": [1], "datatype": kind, "data": values[number : number + 1]}
                for name, (kind, values) in columns(*ROWS).items()
            ],
        }

    found = asking.by("mlserver", requests=[request(0), request(1)])
    assert found["data frame as str"]["outputs"] == asking.outputs
    assert found["data frame"]["outputs"] == asking.outputs
    assert found["a bad value"]["error"] == "row 0.hour must be >= 0 and <= 23."
    assert asking.logged() >= KEYED
    for way in ("batch as bytes", "grouped"):
        told = [{each["name"]: each["data"] for each in one["outputs"]} for one in found[way]]
        assert told == [
            {name: values[number : number + 1] for name, values in asking.outputs.items()}
            for number in (0, 1)
        ], way
