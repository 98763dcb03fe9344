"""A published port hides a service of the node: ADD says whose."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.netns import networks, wire
from tests.netns.networks import DUAL, SUBNET4, Pod
from tests.sandbox import Node

ME = f"(process {os.getpid()})"


def publishing(*mappings: Mapping[str, Any], subnets: Sequence[str] = DUAL) -> dict[str, Any]:
    return networks.gateway(*subnets, capabilities={"portMappings": True}, runtimeConfig={"portMappings": mappings})


def mapping(protocol: str = "tcp", **keys: Any) -> dict[str, Any]:
    return {"hostPort": 22, "containerPort": 80, "protocol": protocol, **keys}


@contextmanager
def listening(node: Node, *places: tuple[str, str]) -> Iterator[None]:
    """This process serves the node's port 22: (protocol, address) each."""
    with ExitStack() as stack:
        for protocol, address in places:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            served = stack.enter_context(wire.inside(node.path, lambda: socket.socket(family, kind)))
            served.bind((address, 22))
            if protocol == "tcp":
                served.listen()
        yield


@pytest.mark.parametrize(
    ("places", "config", "warned"),
    [
        ([("tcp", "0.0.0.0")], publishing(mapping()), 1),
        ([("tcp", "::")], publishing(mapping()), 1),
        ([("tcp", "::")], publishing(mapping(), subnets=(SUBNET4,)), 1),
        ([("udp", "::")], publishing(mapping("udp")), 1),
        ([("tcp", "127.0.0.1")], publishing(mapping()), 1),
        ([("tcp", "0.0.0.0")], publishing(mapping(hostIP="127.0.0.1")), 1),
        ([("tcp", "::1")], publishing(mapping()), 1),
        ([("udp", "0.0.0.0")], publishing(mapping()), 0),
        ([("tcp", "127.0.0.1")], publishing(mapping(hostIP="192.0.2.1")), 0),
        ([("tcp", "0.0.0.0")], publishing(mapping(hostPort=23)), 0),
        ([("tcp", "0.0.0.0")], networks.gateway(*DUAL), 0),
    ],
)
def test_a_service_of_the_node_is_named(
    node: Node, places: list[tuple[str, str]], config: dict[str, Any], warned: int
) -> None:
    pod = Pod(node, config, "a")
    with listening(node, *places):
        reply = pod.call("ADD")
    reply.ok()
    lines = [line for line in reply.stderr.splitlines() if "warning: portMappings" in line]
    assert len(lines) == warned, reply.stderr
    for line in lines:
        assert ME in line and f"{places[0][0]}/22 of the node" in line
