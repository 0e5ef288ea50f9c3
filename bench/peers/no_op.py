"""A Ray Serve deployment that answers without doing anything: what Serve itself costs per request."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from serve.replica_port import keep_to_node

BODY = b'{"probability":0.5}'
HEADERS = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)))
END = {"type": "http.response.body", "body": BODY}


async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the body and answers with a constant."""
    if scope["type"] != "http":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
    await send(END)


@serve.ingress(None)
class NoOp:
    """Replica of the no-op."""

    def __init__(self) -> None:
        keep_to_node()

    def __serve_build_asgi_app__(self) -> Any:
        return answer


def build(args: dict[str, Any]) -> Application:
    """The application; ``logging`` and ``num_replicas`` may be given."""
    return serve.deployment(
        NoOp,
        name="NoOp",
        num_replicas=args.get("num_replicas", 1),
        ray_actor_options={"num_cpus": 0.25},
        max_ongoing_requests=1_024,
        logging_config=LoggingConfig(**args.get("logging", {"enable_access_log": False})),
    ).bind()
