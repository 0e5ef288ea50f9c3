"""What Ray Serve imports to build an application: pure wiring, and every limit in one place.

Belongs here: deployments with their replicas, queues, health checks and shutdown. Does not belong
here: behaviour. Do not add ``from __future__ import annotations``: Serve reads the annotation of the
one argument to validate it, and would silently pass a plain dict.
"""

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from serve.gateway import Gateway
from serve.model import Model
from serve.ray_aggregator import aggregator_actor
from serve.schema import GatewayArgs, ModelArgs

CPUS_PER_REPLICA = 0.25
"""Accounting only, so that several versions and a gateway fit on a small machine."""

MODEL_ONGOING, MODEL_QUEUED = 64, 256
"""Calls that one version replica works on, and that one gateway replica may have waiting for it."""

GATEWAY_ONGOING = 1_024
"""Above the endpoint's own limit, whose refusal is the contract's JSON; Serve's would be bare text."""

LOGGING = LoggingConfig(enable_access_log=False, log_level="WARNING")
"""A line per request and replica costs more than scoring a row; ``/metrics`` counts every request. Below
WARNING Serve makes a record for each request even when it writes none.
"""


def build_model(args: ModelArgs) -> Application:
    """The application of one model version."""
    deployment = serve.deployment(
        Model,
        name="Model",
        num_replicas=args.num_replicas,
        ray_actor_options={"num_cpus": CPUS_PER_REPLICA, "num_gpus": args.num_gpus},
        max_ongoing_requests=MODEL_ONGOING,
        max_queued_requests=MODEL_QUEUED,
        health_check_period_s=2,
        health_check_timeout_s=5,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=20,
        logging_config=LOGGING,
    )
    return deployment.bind(args.model_dump(mode="json"))


def build_gateway(args: GatewayArgs) -> Application:
    """The application that callers reach."""
    deployment = serve.deployment(
        Gateway,
        name="Gateway",
        num_replicas=args.num_replicas,
        ray_actor_options={"num_cpus": CPUS_PER_REPLICA},
        max_ongoing_requests=GATEWAY_ONGOING,
        max_queued_requests=GATEWAY_ONGOING,
        health_check_period_s=2,
        health_check_timeout_s=5,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=20,
        logging_config=LOGGING,
        # One actor beside the replicas that sums what they counted and passes trips on.
        deployment_actors=[aggregator_actor()],
        # Half of the replicas take new weights while the others answer.
        rolling_update_percentage=0.5,
    )
    return deployment.bind(args.model_dump(mode="json"))
