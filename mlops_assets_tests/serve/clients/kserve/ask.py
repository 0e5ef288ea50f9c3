"""KServe's own client (InferenceRESTClient) against an endpoint: JSON in on stdin, what it was told out."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

NUMPY = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


def inputs(columns: dict[str, Any], *, binary: bool | None) -> list[InferInput]:
    """One tensor per column; ``binary`` None: plain lists, as the examples of KServe's documentation have."""
    made = []
    for name, (datatype, values) in columns.items():
        if binary is None:
            made.append(InferInput(name, [len(values)], datatype, data=values))
        else:
            tensor = InferInput(name, [len(values)], datatype)
            tensor.set_data_from_numpy(np.array(values, dtype=NUMPY[datatype]), binary_data=binary)
            made.append(tensor)
    return made


def told(response: Any) -> dict[str, Any]:
    return {
        "id": response.id,
        "model_name": response.model_name,
        "parameters": response.parameters,
        "outputs": {output.name: output.as_numpy().tolist() for output in response.outputs},
    }


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Every way in that the client has for this protocol."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    url, model, headers, columns = asked["url"], asked["model"], asked["headers"], asked["columns"]

    async def infer(request: Any, **more: Any) -> dict[str, Any]:
        return told(await client.infer(url, request, model_name=model, headers=dict(headers), **more))

    async def refusal(request: Any, sent: dict[str, str]) -> str:
        try:
            await client.infer(url, request, model_name=model, headers=dict(sent))
        except Exception as error:  # noqa: BLE001 - what a caller would see
            return str(error)
        return "nothing was refused"

    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, model),
        "other model ready": await client.is_model_ready(url, "other", headers=headers),
        "lists": await infer(InferRequest(model, inputs(columns, binary=None), request_id="mine")),
        "numpy as JSON": await infer(InferRequest(model, inputs(columns, binary=False))),
        "numpy as bytes": await infer(InferRequest(model, inputs(columns, binary=True))),
        "all as bytes": await infer(
            InferRequest(model, inputs(columns, binary=True), parameters={"binary_data_output": True})
        ),
        "one output": await infer(
            InferRequest(
                model,
                inputs(columns, binary=None),
                request_outputs=[RequestedOutput("probability", parameters={"binary_data": True})],
            )
        ),
        "a bad value": await refusal(InferRequest(model, inputs(asked["bad"], binary=None)), headers),
        "no key": await refusal(InferRequest(model, inputs(columns, binary=None)), {}),
    }
    await client.close()
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(main(json.load(sys.stdin))), sys.stdout)
