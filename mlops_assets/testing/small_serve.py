"""A Serve cluster in one thread: Ray's REST API and real gateways over real models, without Ray.

Belongs here: just enough of the cluster for the control plane: declared applications with a status, and
each gateway's real endpoint on a real port. Does not belong here: what Ray alone can show (tests marked
``ray``). Gateway replicas share a real aggregator; requests go to them in turn.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from mlops_assets.resources import trusted
from mlops_assets.testing.site import InProcessAggregator
from mlops_assets.testing.small_models import LocalVersion
from serve.aggregator import Aggregator, AggregatorLink, AggregatorProxy
from serve.clock import wall_clock
from serve.coalescing import Coalescing
from serve.embedding import embedded
from serve.endpoint import Endpoint, Limits
from serve.metrics import GatewayMetrics
from serve.online.lookup import Lookups
from serve.schema import GatewayArgs, ModelManifest
from serve.security import Protection
from serve.traffic import Traffic
from serve.versions import Version, VersionGone, Versions

Document = dict[str, Any]


@dataclass
class Replica:
    """One gateway replica: its endpoint, and what keeps it going."""

    traffic: Traffic
    link: AggregatorLink
    endpoint: Endpoint
    watches: list["asyncio.Task[None]"] = field(default_factory=list)

    def declare(self, user_config: Document) -> None:
        taken = self.traffic.declare(user_config)
        if taken is not None:
            self.link.declare(taken)
        if not self.watches:
            self.watches = [asyncio.ensure_future(self.traffic.run()), asyncio.ensure_future(self.link.run())]

    def stop(self) -> None:
        for watch in self.watches:
            watch.cancel()


class Hosted(LocalVersion):
    """A version loaded from its package, as ``serve.model.Model`` would be."""

    def __init__(self, args: Document) -> None:
        folder = Path(args["package_uri"])
        manifest = ModelManifest.model_validate_json((folder / "model.json").read_text())
        super().__init__(args["version"], manifest, (folder / manifest.model_file).read_bytes())
        self.args = args

    async def info(self, *, timeout_s: float) -> Document:
        info = await super().info(timeout_s=timeout_s)
        return {**info, "package_uri": self.args["package_uri"], "storage_options": {}}


class SmallCluster(Versions):
    """What the control plane talks to. ``url`` serves the dashboard's API and every gateway."""

    def __init__(self) -> None:
        self.url = ""
        self.declared: dict[str, Document] = {}
        self.status: dict[str, tuple[str, str]] = {}
        self.versions: dict[str, Hosted] = {}
        self.gateways: dict[str, list[Replica]] = {}
        self.refuses_to_start: dict[str, str] = {}
        self.puts: list[Document] = []
        self.put_fails: list[int] = []
        self.gpus, self.memory = 0.0, 64 * 2**30
        self._turn = count()

    # -- the cluster's side --------------------------------------------------------------------------

    async def connect(self, application: str) -> Version:
        if application not in self.versions:
            raise VersionGone("there is no such application")
        return self.versions[application]

    def forget_everything(self) -> None:
        """As if Ray's head had been lost."""
        for name in list(self.gateways):
            self._stop_gateway(name)
        self.declared, self.status, self.versions = {}, {}, {}

    def _apply(self, document: Document) -> None:
        self.puts.append(document)
        wanted = {application["name"]: application for application in document["applications"]}
        for name in set(self.declared) - set(wanted):
            self.versions.pop(name, None)
            self._stop_gateway(name)
            self.status.pop(name, None)
        for name, application in wanted.items():
            before = self.declared.get(name)
            if application["import_path"].endswith(":build_model"):
                if before is None or self.status[name][0] != "RUNNING":
                    self._start_version(name, application)
            else:
                self._start_gateway(name, application, before)
        self.declared = wanted

    def _start_version(self, name: str, application: Document) -> None:
        if name in self.refuses_to_start:
            self.status[name] = ("DEPLOY_FAILED", self.refuses_to_start[name])
            return
        self.versions[name] = Hosted(application["args"])
        self.status[name] = ("RUNNING", "")

    def _start_gateway(self, name: str, application: Document, before: Document | None) -> None:
        args = GatewayArgs.model_validate(application["args"])
        if before is None or before["args"] != application["args"]:
            self._stop_gateway(name)
            aggregator = Aggregator()
            self.gateways[name] = [self._replica(args, aggregator, n) for n in range(args.num_replicas)]
        for replica in self.gateways[name]:
            replica.declare(application["deployments"][0]["user_config"])
        self.status[name] = ("RUNNING", "")

    def _replica(self, args: GatewayArgs, aggregator: Aggregator, number: int) -> Replica:
        replica = f"r{number}"
        metrics = GatewayMetrics(deployment=args.name, replica=replica)
        traffic = Traffic(
            self,
            metrics,
            wrap=Coalescing,
            embed=embedded if args.stable_in_gateway else None,
            looked_up=Lookups(args.online_uri, wall_clock(args.clock_file)).of,
        )

        async def connect() -> AggregatorProxy:
            return InProcessAggregator(aggregator)

        link = AggregatorLink(
            name=args.name,
            replica=replica,
            collector=traffic.collector,
            metrics=metrics,
            connect=connect,
            on_trip=traffic.apply_trip,
            interval_s=0.02,
        )
        protection = Protection(args.api_keys_file, max_body_bytes=args.max_body_bytes)
        limits = Limits(max_batch_rows=args.max_batch_rows)
        return Replica(
            traffic,
            link,
            Endpoint(
                args.name,
                traffic,
                protection,
                metrics,
                limits,
                link,
                replica=replica,
                wall_clock=wall_clock(args.clock_file),
            ),
        )

    def _stop_gateway(self, name: str) -> None:
        for replica in self.gateways.pop(name, []):
            replica.stop()

    # -- HTTP ----------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        path = scope["path"]
        if path.startswith("/api/") or path == "/nodes":
            await self._dashboard(scope["method"], path, receive, send)
            return
        name = path.split("/")[1]
        replicas = self.gateways.get(name)
        if not replicas:
            await _answer(send, 404, {"detail": "no such route"})
            return
        replica = replicas[next(self._turn) % len(replicas)]
        await replica.endpoint({**scope, "root_path": f"/{name}"}, receive, send)

    async def _dashboard(self, method: str, path: str, receive: Any, send: Any) -> None:
        if path.startswith("/api/serve/applications"):
            if method == "PUT":
                body = b""
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if not message.get("more_body"):
                        break
                if self.put_fails and self.put_fails.pop(0):
                    await _answer(send, 503, {"detail": "told to fail"})
                    return
                document = json.loads(body)
                names = [application["name"] for application in document["applications"]]
                if twice := sorted({name for name in names if names.count(name) > 1}):
                    # As Ray does.
                    await _answer(send, 400, {"detail": f"Found multiple configs for {', '.join(twice)}"})
                    return
                self._apply(document)
                await _answer(send, 200, {})
                return
            known = {
                name: {
                    "status": self.status[name][0],
                    "message": self.status[name][1],
                    "deployed_app_config": application,
                    "deployments": {},
                }
                for name, application in self.declared.items()
            }
            await _answer(send, 200, {"applications": known})
            return
        node = {
            "node_id": "n1",
            "node_name": "small",
            "state": "ALIVE",
            "resources_total": {"CPU": 8.0, "GPU": self.gpus},
        }
        if path == "/nodes":
            reading = {"raylet": {"nodeId": "n1"}, "mem": [self.memory, self.memory], "now": 0.0}
            await _answer(send, 200, {"data": {"summary": [reading]}})
            return
        found = [node] if path.startswith("/api/v0/nodes") else []
        await _answer(send, 200, {"data": {"result": {"result": found}}})


async def _answer(send: Any, status: int, document: Document) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


@contextlib.contextmanager
def small_cluster() -> Iterator[SmallCluster]:
    """A cluster on an unused loopback port; nothing of it is left when the block ends."""
    cluster = SmallCluster()
    config = uvicorn.Config(
        cluster, host="127.0.0.1", port=0, log_level="warning", lifespan="off", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        cluster.url = f"http://127.0.0.1:{port}"
        httpx.get(f"{cluster.url}/api/serve/applications/", trust_env=False, verify=trusted.certificates())
        yield cluster
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
