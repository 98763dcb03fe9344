"""The sandbox keeps its promises: its snapshots notice each kind of change, and nothing outlives a node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.sandbox import Node, make_call, need, need_sandbox

CHANGES = [
    pytest.param("ip link add d0 type bridge", "link d0", id="link"),
    pytest.param("ip link set lo mtu 9000", "link lo.mtu = 9000", id="mtu"),
    pytest.param("ip link set lo down", "link lo.flags", id="down"),
    pytest.param("ip address add 2001:db8::1/64 dev lo nodad", "address lo 2001:db8::1/64", id="address"),
    pytest.param("ip route add 192.0.2.0/24 dev lo", "192.0.2.0/24", id="IPv4 route"),
    pytest.param("ip route add 2001:db8:1::/48 dev lo table 7", "2001:db8:1::/48", id="IPv6 route in a table"),
    pytest.param("ip -6 rule add from 2001:db8::/32 table 7", '"src": "2001:db8::"', id="rule"),
    pytest.param("sysctl -w net.ipv6.conf.all.forwarding=1", "ipv6/conf/all/forwarding = 1", id="sysctl"),
    pytest.param("nft add table inet t", "nftables table inet t", id="firewall"),
    pytest.param("mkdir -p /var/lib/cni/networks/n ; touch /var/lib/cni/networks/n/10.0.0.2", "n/10.0.0.2", id="lease"),
]


@pytest.mark.parametrize(("change", "line"), CHANGES)
def test_a_change_on_the_node_is_named(node: Node, change: str, line: str) -> None:
    before = node.snapshot()
    node.run("sh", "-c", change)
    assert any(line in found for found in before.difference(node.snapshot()))


def test_a_change_in_a_container_is_named(node: Node) -> None:
    netns = node.container("a")
    with pytest.raises(pytest.fail.Exception, match=r"\+ container a link d0"), node.unchanged():
        node.run("ip", "link", "add", "d0", "type", "veth", "peer", "d1", netns=netns)


def test_looking_changes_nothing(node: Node) -> None:
    node.container("a")
    node.run("ip", "link", "add", "d0", "type", "bridge")
    with node.unchanged():
        node.snapshot()


def test_what_may_differ_can_be_said(node: Node) -> None:
    with node.unchanged(ignore="ipv6/conf/lo/hop_limit"):
        node.run("sysctl", "-w", "net.ipv6.conf.lo.hop_limit=5")


def test_nodes_are_apart(node: Node) -> None:
    other = Node()
    try:
        with other.unchanged():
            node.run("ip", "link", "add", "d0", "type", "bridge")
            node.file("/var/lib/cni/networks").mkdir()
            assert "d0" in node.run("ls", "/sys/class/net").stdout
            assert "d0" not in other.run("ls", "/sys/class/net").stdout
    finally:
        other.close()


def test_a_plugin_runs_on_the_node_with_nothing_but_its_variables(node: Node) -> None:
    need(Path("/usr/lib/cni/bridge").exists(), "needs containernetworking-plugins")
    config = {
        "cniVersion": "1.0.0", "name": "n", "type": "bridge", "bridge": "br0", "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
    }
    netns = node.container("a")

    def call(command: str) -> Any:
        return node.plugin("bridge", command, config, container_id="a", ifname="eth0", netns=netns).ok()

    call("ADD")
    call("DEL")
    with node.unchanged():
        result = call("ADD")
        assert [ip["address"] for ip in result["ips"]] == ["10.1.0.3/24", "fd00:1::3/64"]
        (eth0,) = node.ip_json("address", "show", "eth0", netns=netns)
        assert "10.1.0.3" in [address["local"] for address in eth0["addr_info"]]
        call("DEL")


def test_an_error_is_read(node: Node) -> None:
    need(Path("/usr/lib/cni/bridge").exists(), "needs containernetworking-plugins")
    reply = node.plugin("bridge", "ADD", b"{}", path=("/usr/lib/cni",))
    assert "CNI_CONTAINERID" in reply.error(4)


def test_nothing_outlives_a_node() -> None:
    node = Node()
    paths = [node.path, node.container("a")]
    inodes = {os.stat(path).st_ino for path in paths}
    # Away from its parent, as an engine that a plugin leaves behind.
    node.run("sh", "-c", "setsid tail -f /dev/null >/dev/null 2>&1 &")
    node.run("sh", "-c", "setsid tail -f /dev/null >/dev/null 2>&1 &", netns=paths[1])
    assert len(processes.inside(inodes)) == 3, "the node's shell and two that were left"
    node.close()
    assert not processes.inside(inodes)
    assert not any(os.path.exists(path) for path in paths)


def test_a_descriptor_left_open_is_named() -> None:
    node = Node()
    with open(node.path, encoding="ascii") as leaked:
        with pytest.raises(AssertionError, match=f"descriptor {leaked.fileno()} of this process"):
            node.close()


def test_a_call_can_be_killed(node: Node) -> None:
    need(Path("/usr/lib/cni/bridge").exists(), "needs containernetworking-plugins")
    # It waits for its configuration on stdin. VERSION does not read it, and may have ended before the signal.
    process = node.start(make_call("bridge", "DEL", {"cniVersion": "1.0.0"}, container_id="a", ifname="eth0"))
    process.kill()
    process.communicate()
    assert process.returncode == -9


@pytest.mark.parametrize("entered_from", [None, "/proc/self/ns/net"], ids=["no sandbox", "back outside"])
def test_the_machines_own_network_is_refused(tmp_path: Path, entered_from: str | None) -> None:
    marker = tmp_path / "marker"
    if entered_from:
        marker.write_text(os.readlink(entered_from), encoding="ascii")
    with pytest.raises(pytest.fail.Exception, match="refused: this test changes the network"):
        need_sandbox(marker)
