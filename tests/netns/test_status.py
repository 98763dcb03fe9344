"""STATUS tells the truth: what is broken is named, and its remedy, done as it is written, is enough.

``test_check_gc_status`` has what no command mends: a full bridge, an exhausted set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.netns import networks, nft
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, OUTSIDE, STORE, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node, need

LIMITED, NOT_AVAILABLE = 51, 50
IPTABLES = ("iptables-nft -P FORWARD DROP", "ip6tables-nft -P FORWARD DROP")
DOCKERS = "iptables-nft -A FORWARD -i docker0 -j ACCEPT"
REJECTING = "table inet site { chain forwarding { type filter hook forward priority 0; counter reject; }; }"


def status(node: Node, config: Mapping[str, Any]) -> Any:
    return node.plugin("cni-v6", "STATUS", config)


def do(node: Node, message: str) -> None:
    """Do what a message says: all behind "run"."""
    found = re.search(r"\brun:? (.*)$", message.strip())
    assert found, message
    node.run("sh", "-ec", found[1])


def reaches_everything(pod: Pod) -> bool:
    return all(pod.ping(address) for address in (GATEWAY6, GATEWAY4, OUTSIDE[6], OUTSIDE[4]))


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        ("ip link set cni0 down", ["bridge cni0 is down", f"gateway address {GATEWAY6}/64 is missing"]),
        (f"ip address del {GATEWAY6}/64 dev cni0", [f"gateway address {GATEWAY6}/64 is missing on cni0"]),
        (f"ip address del {GATEWAY4}/24 dev cni0", [f"gateway address {GATEWAY4}/24 is missing on cni0"]),
        ("sysctl -w net.ipv4.ip_forward=0", ["IPv4 forwarding is off"]),
        ("sysctl -w net.ipv6.conf.all.forwarding=0", ["IPv6 forwarding is off on cni0"]),
        ("sysctl -w net.ipv6.conf.uplink0.force_forwarding=0", ["IPv6 forwarding is off on uplink0"]),
        ("sysctl -w net.ipv6.conf.cni0.disable_ipv6=1", ["IPv6 is off on cni0", f"{GATEWAY6}/64 is missing"]),
        ("; ".join(IPTABLES), ["chain FORWARD of table ip filter", "chain FORWARD of table ip6 filter"]),
        (f"nft '{REJECTING}'", ["chain forwarding of table inet site"]),
    ],
)
def test_what_cuts_containers_off_is_named_with_what_mends_it(node: Node, breaking: str, words: list[str]) -> None:
    need("iptables" not in breaking or node.run("iptables-nft", "-V", check=False).returncode == 0, "needs iptables")
    networks.outside(node)
    node.run("ip", "-6", "route", "add", "default", "via", OUTSIDE[6])
    config = networks.gateway(*DUAL, ingress="open")
    [pod] = networks.pods(node, config, "a")
    assert status(node, config).ok() is None and reaches_everything(pod)
    node.run("sh", "-ec", breaking)
    assert not reaches_everything_now(pod)
    message = status(node, config).error(LIMITED)
    assert all(word in message for word in words), message
    do(node, message)
    assert status(node, config).ok() is None and reaches_everything(pod)


def reaches_everything_now(pod: Pod) -> bool:
    return all(pod.ping(address, 1) for address in (GATEWAY6, GATEWAY4, OUTSIDE[6], OUTSIDE[4]))


def test_a_bridge_whose_mtu_takes_ipv6_away(node: Node) -> None:
    """The kernel deletes all of the bridge's IPv6: addresses, forwarding, and that it is deaf to advertisements."""
    networks.outside(node)
    config = networks.gateway(*DUAL, ingress="open")
    [pod] = networks.pods(node, config, "a")
    node.run("ip", "link", "set", "cni0", "mtu", "1200")
    message = status(node, config).error(NOT_AVAILABLE)
    assert "MTU of 1200" in message and f"gateway address {GATEWAY6}/64" in message
    other = Pod(node, config, "b")
    with node.unchanged(ignore=r"\.seen|sysctl"):
        assert "MTU of 1200" in other.call("ADD").error(105)
    assert status(node, networks.gateway(SUBNET4, ingress="open")).ok() is None, "IPv4 does not mind"
    do(node, message)
    assert status(node, config).ok() is None and reaches_everything(pod)
    assert networks.sysctl(node, "ipv6/conf/cni0/accept_ra") == "0"
    other.add()
    assert other.ping(pod.address(6))


def test_a_bridge_with_a_small_mtu_before_the_first_container(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "mtu", "1200", "type", "bridge")
    for config in (networks.gateway(*DUAL), networks.network(*DUAL)):
        message = status(node, config).error(NOT_AVAILABLE)
        assert "MTU of 1200" in message
    do(node, message)
    assert status(node, networks.gateway(*DUAL)).ok() is None
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    assert pod.ping(GATEWAY6)


def test_routes_that_went_with_the_bridge(node: Node) -> None:
    """Of a link-local gateway, of an NDP proxy, of a delegated prefix: all IPv6 routes go when an interface is down."""
    networks.outside(node)
    ranges = [[{"subnet": SUBNET6, "gateway": "link-local"}]]
    config = networks.gateway(ingress="open", ndpProxy=networks.UPLINK)
    config["ipam"] = {"type": "cni-v6-ipam", "ranges": ranges, "delegate": 80}
    [pod] = networks.pods(node, config, "a")
    before = node.run("ip", "-6", "route", "show", "dev", "cni0").stdout
    assert status(node, config).ok() is None and pod.ping(OUTSIDE[6])
    node.run("sh", "-ec", f"ip link set cni0 down; ip neighbour del proxy {pod.address(6)} dev {networks.UPLINK}")
    message = status(node, config).error(LIMITED)
    lost = "address fe80::1/64 is missing", f"route {SUBNET6} through cni0", "does not answer for", "/80 through cni0"
    assert all(words in message for words in lost), message
    do(node, message)
    assert status(node, config).ok() is None and pod.ping(OUTSIDE[6])
    after = node.run("ip", "-6", "route", "show", "dev", "cni0").stdout
    assert {line.split()[0] for line in before.splitlines()} <= {line.split()[0] for line in after.splitlines()}


def test_a_network_without_containers_has_nobody_cut_off(node: Node) -> None:
    """Another network's containers are on the same bridge."""
    networks.pods(node, networks.gateway("fd00:7::/64", name="other"), "a")
    assert status(node, networks.gateway(*DUAL)).ok() is None


def test_a_forward_chain_with_rules_may_let_containers_pass(node: Node) -> None:
    """As Docker leaves it: nobody can say what its rules accept, so it is a warning until one names the bridge."""
    need(node.run("iptables-nft", "-V", check=False).returncode == 0, "needs iptables")
    config = networks.gateway(*DUAL)
    networks.pods(node, config, "a")
    node.run("sh", "-ec", f"{IPTABLES[0]}; {DOCKERS}")
    reply = status(node, config)
    assert reply.ok() is None and "warning: chain FORWARD of table ip filter" in reply.stderr
    do(node, reply.stderr.strip())
    reply = status(node, config)
    assert reply.ok() is None and reply.stderr == ""


def test_a_full_disk(node: Node) -> None:
    node.run("sh", "-ec", f"mkdir -p {STORE}; mount -t tmpfs -o size=64k none {STORE}")
    config = networks.gateway(*DUAL)
    networks.pods(node, config, "a")
    node.run("sh", "-c", f"head -c 1M /dev/zero >{STORE}/filler", check=False)
    message = status(node, config).error(NOT_AVAILABLE)
    assert "No space left on device" in message and f"{STORE}/pods" in message
    Pod(node, config, "b").call("ADD").error(103)
    node.run("rm", f"{STORE}/filler")
    assert status(node, config).ok() is None
    assert not (node.file(STORE) / "pods/attachments/.new").exists()


def test_addresses_alone_on_a_full_disk(node: Node) -> None:
    node.run("sh", "-ec", f"mkdir -p {STORE}/pods; mount -t tmpfs -o size=4k none {STORE}/pods", check=False)
    config = {**networks.network(*DUAL), "type": "other-plugin"}
    assert "No space" in node.plugin("cni-v6-ipam", "STATUS", config).error(NOT_AVAILABLE)


@pytest.mark.parametrize("key", ["resolvConf", "secretFile"])
def test_a_file_of_the_configuration_that_is_missing(node: Node, key: str) -> None:
    more = {"allocation": "stable"} if key == "secretFile" else {}
    config = networks.gateway(*DUAL)
    config["ipam"] |= {key: "/var/lib/cni/absent", **more}
    message = status(node, config).error(NOT_AVAILABLE)
    assert f"ipam.{key} /var/lib/cni/absent" in message
    node.run("sh", "-c", "echo nameserver 2001:db8::53 with more than sixteen bytes >/var/lib/cni/absent")
    assert status(node, config).ok() is None


def hide_nft(node: Node) -> None:
    """As if the package was removed."""
    node.run("sh", "-ec", "mount --bind /dev/null /usr/sbin/nft")


def test_nft_is_gone(node: Node) -> None:
    config = networks.gateway(*DUAL)
    hide_nft(node)
    message = status(node, config).error(NOT_AVAILABLE)
    assert "cannot run nft" in message and "install nftables" in message
    Pod(node, config, "a").call("ADD").error(111)
    assert status(node, networks.gateway(*DUAL, guard=False, ingress="open")).ok() is None, "needs no nft"
    node.run("umount", "--lazy", "/usr/sbin/nft")
    assert status(node, config).ok() is None and Pod(node, config, "b").add()


def test_nft_is_gone_while_the_tables_are_there(node: Node) -> None:
    """Containers and ADD need it no more, until the tables are gone."""
    config = networks.gateway(*DUAL)
    networks.pods(node, config, "a")
    node.run("cp", "/usr/sbin/nft", "/var/lib/cni/nft")
    hide_nft(node)
    reply = status(node, config)
    assert reply.ok() is None and "no program nft" in reply.stderr
    assert Pod(node, config, "b").add()
    node.run("/var/lib/cni/nft", "flush", "ruleset")
    assert "cannot be loaded" in status(node, config).error(LIMITED)


def test_a_kernel_that_refuses_the_rules(node: Node) -> None:
    """Somebody's chain has a name that ours wants: the rehearsal says what the ADD would."""
    node.run("sh", "-ec", "nft add table inet cni_v6; nft add set inet cni_v6 home6 '{ type ipv4_addr; }'")
    config = networks.gateway(*DUAL)
    with node.unchanged(ignore=r"\.seen"):
        first = status(node, config)
    second = Pod(node, config, "a").call("ADD")
    assert (first.code == 0) == (second.code == 0), f"{first} {second}"


def test_an_administrators_bridge_with_another_address(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    node.run("ip", "address", "add", "10.66.0.9/24", "dev", "cni0")
    assert "10.66.0.9/24" in status(node, networks.gateway(*DUAL)).error(NOT_AVAILABLE)
    assert status(node, networks.gateway(*DUAL, forceAddress=True)).ok() is None


def test_an_uplink_that_is_not_there(node: Node) -> None:
    assert "no interface eth9" in status(node, networks.gateway(*DUAL, ndpProxy="eth9")).error(NOT_AVAILABLE)


def test_status_changes_nothing(node: Node) -> None:
    config = networks.gateway(*DUAL)
    networks.pods(node, config, "a")
    networks.link_local(node, "cni0")
    generation = nft.generation(node)
    with node.unchanged():
        assert status(node, config).ok() is None
    assert nft.generation(node) == generation
