"""CHECK names what is different, GC takes away what is stale and nothing else, STATUS says what ADD would meet."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cni_v6.errors import CHECK_FAILED, KERNEL_REFUSED
from tests.netns import networks, nft
from tests.netns.networks import DUAL, SUBNET4, SUBNET6, Pod
from tests.sandbox import REFERENCE_PLUGINS, Node, need

# What is done in the container ({netns} given) or on the node, and what CHECK must say of it.
BREAKS = [
    pytest.param("ip link set {host} down", "", "host interface {host}: up is False", id="host interface down"),
    pytest.param("ip link delete {host}", "", "host interface {host} is missing", id="host interface gone"),
    # One that is in no bridge is plugged in again by an engine: test_watch.
    pytest.param("ip link add br9 type bridge; ip link set {host} master br9", "",
                 "{host} is in bridge br9, not in cni0", id="in another bridge"),
    pytest.param("ip link set {host} address 02:00:00:00:00:99", "", "mac is 02:00:00:00:00:99", id="host MAC"),
    pytest.param("ip link set {host} mtu 1300", "", "mtu is 1300, not 1500", id="host MTU"),
    pytest.param("ip link set {host} type bridge_slave hairpin off", "", "{host}: hairpin is False", id="hairpin"),
    pytest.param("ip link set cni0 down", "", "bridge cni0 is down", id="bridge down"),
    pytest.param("ip link set cni0 address 02:00:00:00:00:99", "", "bridge cni0: mac is", id="bridge MAC"),
    pytest.param("ip address del fd00:6::1/64 dev cni0", "", "fd00:6::1/64 is missing on cni0", id="gateway address"),
    pytest.param("sysctl -w net.ipv4.ip_forward=0", "", "ip_forward is 0, not 1", id="IPv4 forwarding"),
    pytest.param("sysctl -w net.ipv6.conf.cni0.force_forwarding=0", "", "IPv6 forwarding is off", id="IPv6 forwarding"),
    pytest.param("ip link set eth0 down", "{netns}", "interface eth0: up is False", id="down"),
    pytest.param("ip link set eth0 address 02:00:00:00:00:99", "{netns}", "mac is 02:00:00:00:00:99", id="MAC"),
    pytest.param("ip link set eth0 mtu 1300", "{netns}", "mtu is 1300, not 1500", id="MTU"),
    pytest.param("ip link set eth0 down ; ip link set eth0 name eth9", "{netns}", "eth0 is missing", id="renamed"),
    pytest.param("ip address del {ip4}/24 dev eth0", "{netns}", "address {ip4}/24 is missing", id="IPv4 address"),
    pytest.param("ip address del {ip6}/64 dev eth0", "{netns}", "address {ip6}/64 is missing", id="IPv6 address"),
    pytest.param("ip route del default", "{netns}", "route 0.0.0.0/0 via 10.66.0.1 is missing", id="IPv4 route"),
    pytest.param("ip -6 route del default", "{netns}", "route ::/0 via fd00:6::1 is missing", id="IPv6 route"),
    pytest.param("sysctl -w net.ipv6.conf.eth0.accept_ra=1", "{netns}", "accept_ra is 1, not 0", id="accept_ra"),
    pytest.param("sysctl -w net.ipv6.conf.eth0.disable_ipv6=1", "{netns}", "disable_ipv6 is 1, not 0", id="no IPv6"),
    pytest.param("rm /var/lib/cni/networks/pods/{ip4}", "", "{ip4} is not leased", id="IPv4 lease"),
    pytest.param("rm -r /var/lib/cni/networks/pods", "", "{ip6} is not leased", id="all leases"),
]


@pytest.mark.parametrize(("command", "place", "words"), BREAKS)
def test_check_names_the_difference(node: Node, command: str, place: str, words: str) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL, hairpinMode=True), "a")
    assert pod.check().ok() is None
    names = {"host": pod.host, "ip4": pod.address(4), "ip6": pod.address(6), "netns": pod.netns}
    node.run("sh", "-ec", command.format(**names), netns=place.format(**names))
    assert words.format(**names) in pod.check().error(104)


@pytest.mark.slow
def test_a_container_that_makes_routes_without_end(quiet_node: Node) -> None:
    """CHECK reads no more than so many, and says so; the container is explained and deleted all the same."""
    node = quiet_node
    first, second = networks.pods(node, networks.gateway(*DUAL), "a", "b")
    routes = (f"route add 2001:db8:{number >> 8:x}:{number & 255:x}::/64 dev eth0" for number in range(10_001))
    node.run("ip", "-batch", "-", netns=first.netns, stdin="\n".join(routes))
    words = "cannot list routes of eth0 in the container: more than 10000"
    assert words in first.check().error(KERNEL_REFUSED)
    said = nft.ctl(node, "explain", first.address(6))
    assert words in said.stderr and f"container {first.name}" in said.stdout.lower().replace("  ", " ")
    second.check().ok()
    first.delete()
    second.check().ok()


def test_check_names_a_bridge_that_is_gone(quiet_node: Node) -> None:
    """An engine makes it again at once: tests/netns/test_watch.py."""
    [pod] = networks.pods(quiet_node, networks.gateway(*DUAL), "a")
    quiet_node.run("ip", "link", "delete", "cni0")
    assert "bridge cni0 is missing" in pod.check().error(104)


def test_check_names_all_differences_at_once(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    node.run("ip", "address", "del", pod.address(4) + "/24", "dev", "eth0", netns=pod.netns)
    node.run("ip", "-6", "route", "del", "default", netns=pod.netns)
    message = pod.check().error(104)
    assert f"address {pod.address(4)}/24" in message and "route ::/0" in message and "route 0.0.0.0/0" in message


@pytest.mark.usefixtures("any_plugin")
@pytest.mark.core
def test_check_changes_nothing(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    with node.unchanged():
        pod.check().ok()


@pytest.mark.usefixtures("any_plugin")
def test_check_of_a_container_that_is_gone(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    node.remove_container("a")
    assert pod.netns in pod.check().error(3)


def test_check_lets_a_later_plugin_of_the_chain_add_to_the_result(node: Node) -> None:
    """Chained plugins bring interfaces and addresses of their own: those are theirs to check."""
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    pod.result["interfaces"].append({"name": "tap0", "mac": "02:00:00:00:00:01", "sandbox": pod.netns})
    pod.result["ips"].append({"interface": 3, "address": "198.51.100.9/24"})
    assert pod.check().ok() is None


# GC


def collect(node: Node, config: Mapping[str, Any], valid: object, key: str = "cni.dev/valid-attachments") -> str:
    """GC with a list of attachments; its log."""
    reply = node.plugin(config["type"], "GC", {**config, key: valid})
    assert reply.ok() is None
    return reply.stderr


def listed(pods: Sequence[Pod]) -> list[dict[str, str]]:
    return [{"containerID": pod.name, "ifname": pod.ifname} for pod in pods]


def record(node: Node, pod: Pod) -> Any:
    """The path of an attachment's record on the node."""
    return node.file(networks.STORE) / "pods" / "attachments" / f"{pod.name}:{pod.ifname}"


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
@pytest.mark.usefixtures("any_plugin")
def test_gc_takes_away_exactly_what_is_stale(node: Node, key: str) -> None:
    config = networks.gateway(*DUAL)
    keeps = networks.pods(node, config, "keeps")
    neighbour = Pod(node, networks.gateway("fd00:7::/64", name="other"), "neighbour")
    neighbour.add()
    with node.unchanged():
        stale = networks.pods(node, config, "gone", "lost")
        node.remove_container("gone")
        collect(node, config, listed(keeps), key)
        node.remove_container("lost")
    assert keeps[0].check().ok() is neighbour.check().ok() is None
    assert not any(record(node, pod).exists() for pod in stale)


@pytest.mark.usefixtures("any_plugin")
def test_gc_of_a_list_of_none_takes_everything(node: Node) -> None:
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    with node.unchanged():
        networks.pods(node, config, "a", "b")
        collect(node, config, None)
        for name in "ab":
            node.remove_container(name)


def test_gc_tells_the_interfaces_of_one_container_apart(node: Node) -> None:
    config = networks.gateway(*DUAL)
    one, two = Pod(node, config, "a"), Pod(node, {**config, "isDefaultGateway": False}, "a", ifname="net1")
    one.add()
    two.add()
    collect(node, config, listed([one]))
    assert networks.veths(node, one.netns) == {"eth0"} and one.check().ok() is None
    assert networks.leases(node) == {one.address(4), one.address(6)}


@pytest.mark.usefixtures("main_plugin")
def test_gc_keeps_what_is_younger_than_the_call(node: Node) -> None:
    """The list was written before the container; here it was attached an hour from now."""
    config = networks.gateway(*DUAL)
    young, old = networks.pods(node, config, "young", "old")
    path = record(node, young)
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "created": written["created"] + 3600}))
    collect(node, config, [])
    assert young.check().ok() is None
    assert networks.leases(node) == {young.address(4), young.address(6)} and networks.veths(node) == {young.host}
    assert networks.veths(node, old.netns) == set()


def test_gc_takes_interfaces_whose_leases_are_lost(node: Node) -> None:
    config = networks.gateway(*DUAL)
    orphan, keeps = networks.pods(node, config, "orphan", "keeps")
    shutil.rmtree(node.file(networks.STORE) / "pods")
    collect(node, config, listed([keeps]))
    assert networks.veths(node) == {keeps.host} and networks.veths(node, orphan.netns) == set()


@pytest.mark.usefixtures("any_plugin")
def test_gc_without_a_list_frees_nothing_and_says_so(node: Node) -> None:
    config = networks.gateway(*DUAL)
    [pod] = networks.pods(node, config, "a")
    with node.unchanged():
        reply = node.plugin(config["type"], "GC", config)
        assert reply.ok() is None and "valid-attachments" in reply.stderr
    assert pod.check().ok() is None


def test_gc_of_addresses_alone(node: Node) -> None:
    config = {**networks.network(*DUAL), "type": "other-plugin"}
    netns = node.container("a")
    for name in ("keeps", "stale"):
        node.plugin("cni-v6-ipam", "ADD", config, container_id=name, ifname="eth0", netns=netns).ok()
    valid = [{"containerID": "keeps", "ifname": "eth0"}]
    node.plugin("cni-v6-ipam", "GC", {**config, "cni.dev/valid-attachments": valid}).ok()
    assert networks.leases(node) == {"fd00:6::2", "10.66.0.2"}


# STATUS


def status(node: Node, config: Mapping[str, Any], **variables: Any) -> Any:
    return node.plugin("cni-v6", "STATUS", config, **variables)


def test_status_of_a_healthy_node(node: Node) -> None:
    config = networks.gateway(*DUAL)
    with node.unchanged(ignore=r"\.seen"):
        assert status(node, config).ok() is None
    networks.pods(node, config, "a")
    networks.link_local(node, "cni0")
    with node.unchanged():
        assert status(node, config).ok() is None


def test_status_of_an_exhausted_set(node: Node) -> None:
    config = networks.gateway(SUBNET6, "10.67.0.0/30")
    pod = Pod(node, config, "a")
    assert status(node, config).ok() is None
    pod.add()
    message = status(node, config).error(50)
    assert "exhausted" in message and "1 in all, 1 taken" in message
    pod.delete()
    assert status(node, config).ok() is None


def test_status_where_the_ipam_plugin_is_missing(node: Node) -> None:
    config = {**networks.network(isGateway=True), "ipam": {"type": "no-such-ipam"}}
    assert "no-such-ipam" in status(node, config).error(50)


def test_an_older_ipam_plugin_knows_neither_status_nor_gc(node: Node, tmp_path: Any) -> None:
    (tmp_path / "old-ipam").symlink_to("/usr/lib/cni/host-local")
    config = {**networks.network(isGateway=True), "ipam": {"type": "old-ipam", "ranges": [[{"subnet": SUBNET6}]]}}
    assert status(node, config, path=(str(tmp_path),)).ok() is None
    nothing = {**config, "cni.dev/valid-attachments": []}
    assert node.plugin("cni-v6", "GC", nothing, path=(str(tmp_path),)).ok() is None


def test_status_where_ipv6_is_off(node: Node) -> None:
    networks.set_sysctl(node, "ipv6/conf/all/disable_ipv6", "1")
    assert "disable_ipv6" in status(node, networks.gateway(*DUAL)).error(50)
    assert status(node, networks.gateway(SUBNET4)).ok() is None


def test_status_where_the_bridges_name_is_taken(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "x0")
    assert "is no bridge" in status(node, networks.gateway(*DUAL)).error(50)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ip link set cni0 down", "bridge cni0 is down"),
        ("sysctl -w net.ipv4.ip_forward=0", "IPv4 forwarding"),
        ("sysctl -w net.ipv6.conf.cni0.force_forwarding=0", "IPv6 forwarding"),
    ],
)
def test_status_where_running_containers_are_cut_off(node: Node, command: str, words: str) -> None:
    config = networks.gateway(*DUAL)
    [pod] = networks.pods(node, config, "a")
    node.run("sh", "-ec", command)
    assert words in status(node, config).error(51)
    pod.delete()
    assert status(node, config).ok() is None, "the next ADD puts it right"
    pod.add()
    assert status(node, config).ok() is None and pod.ping(networks.GATEWAY6) and pod.ping(networks.GATEWAY4)


def test_a_full_bridge(node: Node) -> None:
    """net/bridge/br_private.h: 1,024 port numbers, of which 0 is none."""
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    others = [f"link add p{number} master cni0 type veth peer name q{number}\n" for number in range(1023)]
    node.run("ip", "-batch", "-", stdin="".join(others))
    assert "1023 ports" in status(node, config).error(50)
    before = networks.veths(node), networks.leases(node)
    pod = Pod(node, config, "a")
    assert "no port left" in pod.call("ADD").error(108)
    assert (networks.veths(node), networks.leases(node)) == before and networks.veths(node, pod.netns) == set()


@pytest.mark.parametrize("guard", [True, False])
def test_check_names_a_mac_that_a_chained_plugin_changed(node: Node, guard: bool) -> None:
    """``tuning`` changes it in the result too, so that this agrees with the container; but the guard knows another."""
    need(os.access(f"{REFERENCE_PLUGINS}/tuning", os.X_OK), "needs containernetworking-plugins")
    mac = "02:00:5e:10:00:09"
    [pod] = networks.pods(node, networks.gateway(*DUAL, guard=guard, cniVersion="1.0.0"), "a")
    tuning = {"cniVersion": "1.0.0", "name": "pods", "type": "tuning", "mac": mac, "prevResult": pod.result}
    variables = {"container_id": "a", "ifname": "eth0", "netns": pod.netns}
    given, pod.result = pod.mac, node.plugin("tuning", "ADD", tuning, **variables).ok()
    assert pod.mac == mac and pod.ping(networks.GATEWAY4, 1 if guard else networks.PATIENCE) != guard
    if guard:
        message = pod.check().error(CHECK_FAILED)
        assert f"mac is {mac}, and the guard lets only {given} pass" in message and "capability mac" in message
    else:
        assert pod.check().ok() is None
