"""The aggregator as a Ray actor beside the replicas of a gateway.

Belongs here: how Serve starts it and how a replica calls it. Does not belong here: what it does
(``serve/aggregator.py``).
"""

import asyncio

import ray
from ray import serve
from ray.actor import ActorHandle
from ray.serve.config import DeploymentActorConfig

from serve.aggregator import AggregatorProxy, Gathered, Reply, Report
from serve.schema import MonitoringReport

AGGREGATOR = "aggregator"


class AggregatorActor:
    """What runs in the actor's process.

    Serve sends this class by value, by way of its controller. The import waits for the actor's own
    process, and the annotations are text, so that the controller needs nothing of this package and the
    messages are of the same classes in the actor and on the replicas.
    """

    def __init__(self) -> None:
        from serve.aggregator import Aggregator

        self._aggregator = Aggregator()

    def push(self, report: "Report") -> "Reply":
        return self._aggregator.push(report)

    def gathered(self) -> "Gathered":
        return self._aggregator.gathered()

    def monitor(self, report: "MonitoringReport") -> None:
        self._aggregator.monitor(report)


def aggregator_actor() -> DeploymentActorConfig:
    """For ``deployment_actors``: Serve starts it before the replicas, and anew when it has died."""
    return DeploymentActorConfig(
        name=AGGREGATOR, actor_class=ray.remote(AggregatorActor), actor_options={"num_cpus": 0}
    )


class RayAggregator(AggregatorProxy):
    """The aggregator of the deployment that the calling replica belongs to, until that actor dies."""

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    async def push(self, report: Report) -> Reply:
        return await self._handle.push.remote(report)

    async def gathered(self) -> Gathered:
        return await self._handle.gathered.remote()

    async def monitor(self, report: MonitoringReport) -> None:
        await self._handle.monitor.remote(report)


async def ray_aggregator() -> AggregatorProxy:
    """Connects; works inside a replica only.

    Raises ValueError while there is no such actor: Serve takes some 8 s to replace one that died. Calls
    of one that has died raise ActorDiedError; connecting anew reaches its successor.
    """
    # Asks the cluster and blocks meanwhile.
    return RayAggregator(await asyncio.to_thread(serve.get_deployment_actor, AGGREGATOR))
