"""Before Linux 6.18 a namespace's end is only found by a search of /proc: what that takes of a container.

deploy/kubernetes/older-kernels gives it to the engine.
"""

from __future__ import annotations

import os

import pytest

from tests import kubernetes
from tests.netns import networks
from tests.netns.networks import DUAL
from tests.sandbox import ROOT, Node
from tests.uml.networks import gateway

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]

HELD = kubernetes.with_component("older-kernels")["containers"][0]["securityContext"]["capabilities"]["add"]


def gc(node: Node, capabilities: list[str]) -> str:
    """The last line of ``cni-v6ctl gc``, run with nothing but these capabilities."""
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    argv = ("setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--", str(ROOT / "bin/cni-v6ctl"), "gc")
    return node.run(*argv, env=node.environment).stdout.splitlines()[-1]


@pytest.fixture
def node(quiet_node: Node) -> Node:
    return quiet_node


def test_each_of_these_capabilities_is_needed(node: Node) -> None:
    assert tuple(map(int, os.uname().release.split(".")[:2])) < (6, 18)
    assert set(HELD) > {"NET_ADMIN", "SYS_ADMIN"}
    networks.pods(node, gateway(*DUAL), "a")
    node.remove_container("a")
    for capability in set(HELD) - {"NET_ADMIN", "DAC_READ_SEARCH"}:
        fewer = [name for name in HELD if name != capability]
        assert gc(node, fewer) == "0 attachments freed", capability
    assert gc(node, HELD) == "1 attachment freed"
