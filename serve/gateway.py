"""The gateway replica: the endpoint, wired to Ray Serve.

Belongs here: what Serve calls on a replica (constructor, reconfigure, health check) and the wiring.
Does not belong here: paths (``serve/endpoint.py``), traffic decisions (``serve/traffic.py``).

The gateway's ``user_config`` is a ``serve.schema.Routing``. Taking a new one restarts nothing, waits
for nothing, and never raises once there was a good one: Serve would stop the replica.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray import serve

from serve.coalescing import Coalescing
from serve.endpoint import Endpoint, Limits
from serve.metrics import GatewayMetrics
from serve.ray_versions import RayVersions
from serve.schema import GatewayArgs
from serve.security import Protection
from serve.traffic import Traffic


@serve.ingress(None)
class Gateway:
    """Replica of one gateway. Raises KeysFileError when the API keys cannot be read at the start."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        declared = GatewayArgs.model_validate(args)
        replica = serve.get_replica_context().replica_id.unique_id
        metrics = GatewayMetrics(deployment=declared.name, replica=replica)
        self._traffic = Traffic(RayVersions(), metrics, wrap=Coalescing)
        self._watch: asyncio.Task[None] | None = None
        self._endpoint = Endpoint(
            declared.name,
            self._traffic,
            Protection(
                declared.api_keys_file,
                max_body_bytes=declared.max_body_bytes,
                replicas=declared.num_replicas,
            ),
            metrics,
            Limits(max_batch_rows=declared.max_batch_rows),
            replica=replica,
            adds_request_id=False,
        )

    def __serve_build_asgi_app__(self) -> Endpoint:
        return self._endpoint

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        self._traffic.declare(user_config)
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._traffic.run())

    async def check_health(self) -> None:
        if self._watch is not None and self._watch.done():
            raise RuntimeError("the watch over the model versions has ended") from self._watch.exception()
