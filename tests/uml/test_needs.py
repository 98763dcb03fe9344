"""What is said of a kernel that lacks a part: nf_tables to ``make install``, WireGuard to an agent."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest

from cni_v6.cluster.facts import Add
from cni_v6.cluster.linux import LinuxNode
from tests.contract.test_cluster_wireguard import DEVICE, KEYS
from tests.netns.wire import inside
from tests.sandbox import ROOT, Node

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]


def test_a_kernel_without_nf_tables_is_told(node: Node) -> None:
    lines = node.run(sys.executable, str(ROOT / "tools/needs")).stdout.splitlines()
    missing = lines[lines.index("missing on this node, for the plugins to run:") + 1:]
    assert [line.split(":")[0].strip() for line in missing] == ["nf_tables"]


def test_a_kernel_without_wireguard_is_named(node: Node) -> None:
    """The agent of a node is told what to do, and has changed nothing."""
    node.run("ip", "link", "add", "eth0", "up", "type", "dummy")
    with node.unchanged(), closing(inside(node.path, lambda: LinuxNode("eth0", KEYS[0]))) as kernel:
        [refused] = kernel.apply([Add(DEVICE)])
    assert "cannot add interface cni-v6-wg (mtu 1320): Operation not supported" in str(refused)
    assert "the kernel has no WireGuard (CONFIG_WIREGUARD): modprobe wireguard, or take carrier vxlan" in str(refused)
