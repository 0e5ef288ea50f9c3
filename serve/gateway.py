"""The gateway replica: the endpoint, wired to Ray Serve.

Belongs here: what Serve calls on a replica (constructor, reconfigure, health check) and the wiring.
Does not belong here: paths (``serve/endpoint.py``), traffic decisions (``serve/traffic.py``).

The gateway's ``user_config`` is a ``serve.schema.Routing``. Taking a new one restarts nothing, waits
for nothing, and never raises once there was a good one: Serve would stop the replica.
"""

import asyncio
import gc
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import serve

from serve import shortcut
from serve.aggregator import AggregatorLink
from serve.clock import wall_clock
from serve.coalescing import Coalescing
from serve.embedding import embedded
from serve.endpoint import Endpoint, Limits
from serve.evidence import Collector
from serve.inference_log import PredictionLog
from serve.metrics import GatewayMetrics
from serve.online.lookup import Lookups
from serve.ray_aggregator import ray_aggregator
from serve.ray_versions import RayVersions
from serve.replica_port import keep_to_node
from serve.schema import GatewayArgs
from serve.security import Protection
from serve.traffic import Traffic


@serve.ingress(None)
class Gateway:
    """Replica of one gateway. Raises KeysFileError or ClockFileError when the API keys or the time
    cannot be read at the start.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        keep_to_node()
        declared = GatewayArgs.model_validate(args)
        self._name = declared.name
        replica = serve.get_replica_context().replica_id.unique_id
        metrics = GatewayMetrics(deployment=declared.name, replica=replica)
        now = wall_clock(declared.clock_file)
        self._traffic = Traffic(
            RayVersions(),
            metrics,
            Collector(),
            wrap=Coalescing,
            embed=embedded if declared.stable_in_gateway else None,
            looked_up=Lookups(declared.online_uri, now).of,
            max_shadows=declared.max_shadows_in_flight,
        )
        self._log: PredictionLog | None = None
        if declared.prediction_log is not None:
            self._log = PredictionLog(
                declared.prediction_log,
                deployment=declared.name,
                replica=replica,
                on_logged=partial(metrics.count_logged, "logged"),
                on_dropped=partial(metrics.count_logged, "dropped"),
            )
        self._link = AggregatorLink(
            name=declared.name,
            replica=replica,
            collector=self._traffic.collector,
            metrics=metrics,
            connect=ray_aggregator,
            on_trip=self._traffic.apply_trip,
        )
        self._watches: tuple[asyncio.Task[None], ...] = ()
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
            self._link,
            log=self._log,
            replica=replica,
            adds_request_id=False,
            wall_clock=now,
        )

    def __serve_build_asgi_app__(self) -> Endpoint:
        return self._endpoint

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        routing = self._traffic.declare(user_config)
        if routing is not None:
            self._link.declare(routing)
        if not self._watches:
            # What stands now stands until the end: a full collection would walk through all of it, and
            # every caller would wait a tenth of a second for that.
            gc.collect()
            gc.freeze()
            shortcut.lead_to(self._endpoint, prefix=f"/{self._name}")
            self._watches = (
                asyncio.ensure_future(self._traffic.run()),
                asyncio.ensure_future(self._link.run()),
                asyncio.ensure_future(self._endpoint.watch()),
            )

    async def check_health(self) -> None:
        for watch in self._watches:
            if watch.done():
                raise RuntimeError("a watch of this gateway has ended") from watch.exception()

    def __del__(self) -> None:
        # Serve calls this when it stops a replica gracefully; what is still queued goes to the log.
        log = getattr(self, "_log", None)
        if log is not None:
            log.close(timeout_s=5.0)
