"""Which libraries a call in its own process imports: each is time that a container waits for (``tools/imports``)."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.test_engine import CONFIG
from tests.sandbox import ROOT, Node, make_call

# Both commands in one interpreter, as the shim runs each where no engine answers. What was imported comes last.
PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
from cni_v6.engine import inprocess

stdin = sys.stdin.buffer.read()
for command in (b"ADD", b"DEL"):
    status, answer, _ = inprocess.handle("cni-v6", {{**os.environb, b"CNI_COMMAND": command}}, stdin)
    assert status == 0, answer
print(*sys.modules)
"""
PLAIN = {
    "plain": {},
    "published": {
        "ipMasq": True,
        "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]},
    },
}


@pytest.fixture
def cold() -> Iterator[Node]:
    """A node on which no engine answers."""
    made = Node()
    try:
        yield made
    finally:
        made.close()


def imported(cold: Node, config: dict[str, Any]) -> set[str]:
    """The modules of one interpreter after the ADD and the DEL of a container."""
    program = PROGRAM.format(path=[str(ROOT), sysconfig.get_path("purelib")])
    call = make_call("cni-v6", "", config, container_id="a", ifname="eth0", netns=cold.container("a"))
    argv = (sys.executable, "-ISE", "-c", program)
    return set(cold.run(*argv, stdin=json.dumps(config), env={**cold.environment, **call.env}).stdout.split())


@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
def test_a_plain_network_needs_no_pyroute2(cold: Node, config: dict[str, Any]) -> None:
    found = imported(cold, CONFIG | config)
    assert "cni_v6.kernel.netlink.requests" in found, "the call was not handled here"
    assert found.isdisjoint({"pyroute2", "netaddr"})


def test_pyroute2_comes_with_the_first_request_that_needs_it(cold: Node) -> None:
    cold.run("ip", "link", "add", "up0", "type", "bridge")
    assert "pyroute2" in imported(cold, CONFIG | {"ndpProxy": "up0"})
