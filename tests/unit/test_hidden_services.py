"""Which sockets of the node a published port hides."""

from __future__ import annotations

import pytest

from cni_v6.kernel.facts import Listener
from tests.unit.fake_context import CONFIG, FakeContext


@pytest.mark.parametrize(
    ("listener", "host_ip", "hidden"),
    [
        (Listener("tcp", 22, "0.0.0.0", "sshd (process 7)"), "", "sshd (process 7)"),
        (Listener("tcp", 22, "::"), "10.0.0.1", "a process of the node"),
        (Listener("tcp", 22, "2001:db8::9"), "0.0.0.0", ""),
        (Listener("tcp", 22, "2001:db8::9"), "::", "a process of the node"),
        (Listener("tcp", 22, "192.0.2.9"), "192.0.2.9", "a process of the node"),
        (Listener("tcp", 22, "192.0.2.9"), "192.0.2.8", ""),
        (Listener("tcp", 22, "::1"), "", "a process of the node"),
        (Listener("tcp", 22, "::1"), "127.0.0.1", ""),
        (Listener("udp", 22, "192.0.2.9"), "", ""),
    ],
)
def test_a_service_is_named(listener: Listener, host_ip: str, hidden: str) -> None:
    fake = FakeContext()
    fake.kernel.listeners.append(listener)
    mapping = {"hostPort": 22, "containerPort": 80, "protocol": "tcp", **({"hostIP": host_ip} if host_ip else {})}
    second = {"hostPort": 22, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.77"}
    fake.container("c1")
    reply = fake.call("ADD", "c1", CONFIG | {"runtimeConfig": {"portMappings": [mapping, second]}})
    reply.ok()
    said = f"warning: portMappings: {hidden} listens on tcp/22 of the node"
    assert (said in reply.stderr) if hidden else ("portMappings" not in reply.stderr), reply.stderr
