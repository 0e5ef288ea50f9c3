"""Where a replica listens to other replicas: on its node's own address, and to nobody else.

Belongs here: that one port of Ray Serve. Does not belong here: the ports of the proxy (``serve/haproxy.py``),
which addresses nodes have (whoever starts Ray).

Every replica opens a gRPC server for calls from other replicas, whether they are made that way or not, and
unpickles what arrives: who reaches the port runs code. Serve binds it to all interfaces and has no setting
for that. It does so after the constructor of the deployment, so the constructor says where to bind; to be
removed once Serve binds this port to the node's address itself.
"""

import ipaddress
import os
from typing import Any


class OpenReplicaPort(RuntimeError):
    """The port between replicas would be open to people who need not say who they are."""


def keep_to_node() -> None:
    """Makes Serve open this replica's port on the node's own address; outside a replica it does nothing.

    Call it first in the constructor of a deployment. Raises OpenReplicaPort where the port would be open to
    strangers even so.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        serve.get_replica_context()
    except RayServeException:
        return
    import ray
    from ray._common import tls_utils
    from ray._common.network_utils import build_address
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray.serve._private import replica

    node = ray.util.get_node_ip_address()
    require_closed(
        node,
        token=is_token_auth_enabled(),
        tls=os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"),
    )
    if getattr(replica, "add_port_to_grpc_server", None) is None:
        raise OpenReplicaPort(
            f"Ray {ray.__version__} opens the port between replicas in another way than this was written for "
            "(ray.serve._private.replica.add_port_to_grpc_server is gone): see serve/replica_port.py"
        )

    def on_node(server: Any, wanted: str) -> int:
        port = wanted.rsplit(":", 1)[1]
        return int(tls_utils.add_port_to_grpc_server(server, build_address(node, port)))

    replica.add_port_to_grpc_server = on_node


def require_closed(node: str, *, token: bool, tls: bool) -> None:
    """Raises OpenReplicaPort unless only this machine reaches the address, or Ray asks who is there."""
    if not (ipaddress.ip_address(node).is_loopback or token or tls):
        raise OpenReplicaPort(
            f"This node's address is {node}, and whoever reaches it could run code in this replica. Set "
            "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH, and RAY_USE_TLS=1 with its certificates, for each "
            "process of the cluster (docs/operations.md, “A cluster of several hosts”)."
        )
