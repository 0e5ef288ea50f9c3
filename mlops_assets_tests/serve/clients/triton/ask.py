"""Triton's HTTP client against an endpoint, with its defaults: tensors as bytes, in and out."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

NUMPY = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


def inputs(columns: dict[str, Any], **options: Any) -> list[Any]:
    """One tensor per column."""
    made = []
    for name, (datatype, values) in columns.items():
        tensor = triton.InferInput(name, [len(values)], datatype)
        tensor.set_data_from_numpy(np.array(values, dtype=NUMPY[datatype]), **options)
        made.append(tensor)
    return made


def told(result: Any) -> dict[str, Any]:
    response = result.get_response()
    outputs = {}
    for output in response["outputs"]:
        values = result.as_numpy(output["name"]).tolist()
        outputs[output["name"]] = [v.decode() if isinstance(v, bytes) else v for v in values]
    return {
        "id": response["id"],
        "version": response["model_version"],
        "outputs": outputs,
        "bytes": ["data" not in output for output in response["outputs"]],
    }


async def concurrently(asked: dict[str, Any]) -> dict[str, Any]:
    async with triton_aio.InferenceServerClient(asked["host"]) as client:
        result = await client.infer(asked["model"], inputs(asked["columns"]), headers=asked["headers"])
        return told(result)


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Every way in that the client has for this protocol."""
    client = triton.InferenceServerClient(asked["host"])
    model, headers, columns = asked["model"], asked["headers"], asked["columns"]

    def infer(**more: Any) -> dict[str, Any]:
        options = {"inputs": inputs(columns), "headers": dict(headers), **more}
        return told(client.infer(model, **options))

    def refusal(call: Any) -> list[str]:
        try:
            call()
        except InferenceServerException as error:
            return [str(error), str(error.status()), str(error.message())]
        return ["nothing was refused"]

    def named(binary: bool) -> list[Any]:
        return [triton.InferRequestedOutput("probability", binary_data=binary)]

    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model),
        "version ready": client.is_model_ready(model, "v1"),
        "other model ready": client.is_model_ready("other", headers=headers),
        "server": client.get_server_metadata(headers=headers),
        "metadata": client.get_model_metadata(model, headers=headers),
        "version metadata": client.get_model_metadata(model, "v1", headers=headers),
        "defaults": infer(),
        "JSON": infer(inputs=inputs(columns, binary_data=False), outputs=named(False)),
        "one output": infer(outputs=named(True), request_id="mine"),
        "gzip": infer(request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        "deflate": infer(request_compression_algorithm="deflate", response_compression_algorithm="deflate"),
        "a version": infer(model_version="v1"),
        "hints": infer(priority=1, timeout=1_000, parameters={"unit": "u1"}),
        "async": told(client.async_infer(model, inputs(columns), headers=dict(headers)).get_result()),
        "aio": asyncio.run(concurrently(asked)),
        "a bad value": refusal(lambda: infer(inputs=inputs(asked["bad"]))),
        "no key": refusal(lambda: infer(headers={})),
        "no such version": refusal(lambda: infer(model_version="7")),
        "a sequence": refusal(lambda: infer(sequence_id=7, sequence_start=True)),
        "statistics": refusal(lambda: client.get_inference_statistics(model, headers=headers)),
        "repository": refusal(lambda: client.get_model_repository_index(headers=headers)),
    }


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
