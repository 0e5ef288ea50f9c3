"""What MLServer gives its callers: the codecs that make requests of data frames, and ``mlserver infer``."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
from mlserver.codecs import PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


def post(asked: dict[str, Any], request: InferenceRequest) -> dict[str, Any]:
    """As MLServer's documentation sends it: the model as JSON, nulls and all."""
    sent = urllib.request.Request(
        f"{asked['url']}/v2/models/{asked['model']}/infer",
        data=request.model_dump_json().encode(),
        headers={"content-type": "application/json", **asked["headers"]},
    )
    try:
        with urllib.request.urlopen(sent) as answer:
            response = InferenceResponse.model_validate_json(answer.read())
    except urllib.error.HTTPError as error:
        return json.load(error)
    return {"id": response.id, "outputs": {each.name: list(each.data) for each in response.outputs}}


def batch(asked: dict[str, Any], *options: str) -> list[Any]:
    """``mlserver infer``, which sends a file of requests through Triton's client."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(json.dumps(request) + "\n" for request in asked["requests"]))
        keys = [part for name, value in asked["headers"].items() for part in ("-H", f"{name}:{value}")]
        mlserver = str(Path(sys.executable).with_name("mlserver"))
        where = ["-u", asked["host"], "-m", asked["model"], "-i", str(source), "-o", str(target), "-r", "1"]
        done = subprocess.run(
            [mlserver, "infer", *where, *keys, *options], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return [done.stderr]
        return sorted(
            (json.loads(line) for line in target.read_text().splitlines()),
            key=lambda one: one["parameters"]["batch_index"],
        )


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Every way in."""
    frame = pd.DataFrame({name: values for name, (_, values) in asked["columns"].items()})
    bad = pd.DataFrame({name: values for name, (_, values) in asked["bad"].items()})
    return {
        "data frame": post(asked, PandasCodec.encode_request(frame)),
        "data frame as str": post(asked, PandasCodec.encode_request(frame, use_bytes=False)),
        "a bad value": post(asked, PandasCodec.encode_request(bad)),
        "batch as bytes": batch(asked, "-b"),
        "grouped": batch(asked, "-s", "2"),
    }


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
