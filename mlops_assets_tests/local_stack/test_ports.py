"""A taken port is found and named before anything starts."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.errors import StackError
from mlops_assets.local_stack.ports import UNUSED, Port, holder, is_free, require_free, unused


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_error_names_port_variable_and_holder(taken):
    with pytest.raises(StackError) as told:
        require_free([Port(taken, "MLOPS_SERVE_PORT", "the HTTP endpoint")])

    sentence = str(told.value)
    assert f"Port {taken} (the HTTP endpoint) is taken by pid {os.getpid()}" in sentence
    assert "set MLOPS_SERVE_PORT to a free port" in sentence


def test_every_taken_port_is_named_at_once(taken):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        second = other.getsockname()[1]

        with pytest.raises(StackError, match=rf"{taken}.*{second}"):
            require_free([Port(taken, "A", "one"), Port(second, "B", "two")])


def test_one_port_for_two_purposes_is_an_error():
    (free,) = unused(1)

    with pytest.raises(StackError, match=r"asked for more than once: A \(one\), B \(two\)"):
        require_free([Port(free, "A", "one"), Port(free, "B", "two")])


def test_a_listener_on_all_interfaces_counts_too():
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])


def test_free_ports_pass(taken):
    ports = unused(3)

    assert len(set(ports)) == 3
    require_free(Port(port, "X", "test") for port in ports)


def test_unused_ports_are_none_that_the_kernel_may_give_away_meanwhile():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert max(UNUSED) < lowest
    assert all(port in UNUSED for port in unused(5))


def test_nobody_holds_a_free_port(taken):
    assert holder(unused(1)[0]) is None
    assert holder(taken) is not None
