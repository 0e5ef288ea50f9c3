"""Nobody reaches the port between replicas who should not."""

import pytest

from serve.replica_port import OpenReplicaPort, keep_to_node, require_closed


@pytest.mark.parametrize(
    ("node", "token", "tls"),
    [
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("10.0.0.7", True, False),
        ("10.0.0.7", False, True),
        ("10.0.0.7", True, True),
    ],
)
def test_loopback_or_an_address_where_ray_asks_who_is_there(node, token, tls):
    require_closed(node, token=token, tls=tls)


@pytest.mark.parametrize("node", ["10.0.0.7", "192.168.1.4", "fd00::7", "203.0.113.5"])
def test_an_address_that_others_reach_is_refused_and_says_what_to_set(node):
    with pytest.raises(OpenReplicaPort, match=r"RAY_AUTH_MODE=token .* RAY_USE_TLS=1") as told:
        require_closed(node, token=False, tls=False)

    assert node in str(told.value)


def test_outside_a_replica_nothing_is_opened_and_nothing_changes():
    from ray.serve._private import replica

    before = replica.add_port_to_grpc_server
    keep_to_node()

    assert replica.add_port_to_grpc_server is before
