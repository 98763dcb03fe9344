"""What routed networks have of their own: a link for each container, and nobody on it who can be deceived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.plan.firewall import link_local
from tests.netns import frames, networks, nft, traffic, wire
from tests.netns.frames import ALL_NODES, ARP, BROADCAST, ICMPV6, IPV4, IPV6, UDP
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, OUTSIDE, ROUTED, SUBNET4, SUBNET6, Pod
from tests.netns.port_probe import probe_and_watch
from tests.netns.test_guard import dropped
from tests.sandbox import Node

END = b"that was all"
LINK_GATEWAY, IPV4_GATEWAY = "fe80::1", "169.254.1.1"
UNUSED = {4: "10.66.0.99", 6: "fd00:6::99"}


@pytest.fixture(autouse=True)
def routed(request: pytest.FixtureRequest) -> Any:
    """All networks here are routed."""
    token = networks.main.set(ROUTED)
    yield
    networks.main.reset(token)


def neighbours(node: Node, ifname: str, netns: str = "") -> dict[str, str]:
    """address -> MAC of what was set for good."""
    found = node.ip_json("neighbour", "show", "dev", ifname, netns=netns)
    return {entry["dst"]: entry["lladdr"] for entry in found if entry["state"] == ["PERMANENT"]}


@pytest.mark.core
def test_nothing_is_asked_for_on_a_link(node: Node) -> None:
    """Neither ARP nor neighbour discovery, whoever begins: both ends know each other."""
    outside = networks.outside(node)
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    host_mac = networks.link(node, pod.host)["address"]
    assert neighbours(node, "eth0", pod.netns) == {LINK_GATEWAY: host_mac}
    assert neighbours(node, pod.host) == {pod.address(4): pod.mac, pod.address(6): pod.mac}
    with wire.packets(node.path, pod.host) as tap, wire.in_order():
        for family in (4, 6):
            assert pod.ping(OUTSIDE[family]) and networks.ping(node, pod.address(family), outside)
            assert networks.ping(node, pod.address(family))
        with traffic.udp(pod.netns, 6) as last:
            last.sendto(END, (OUTSIDE[6], 9))
        seen = wire.frames_before(tap, END)
    assert not [frame for frame in seen if frame[12:14] == b"\x08\x06"]
    ndp = [frame for frame in seen if frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] in (135, 136)]
    assert not ndp


@pytest.mark.parametrize(("subnets", "keys", "hop"), [
    pytest.param(DUAL, {}, LINK_GATEWAY, id="dual-stack"),
    pytest.param((SUBNET4,), {}, GATEWAY4, id="IPv4-only"),
    pytest.param(DUAL, {"ipv4Gateway": IPV4_GATEWAY}, IPV4_GATEWAY, id="ipv4Gateway"),
    pytest.param((SUBNET4,), {"ipv4Gateway": IPV4_GATEWAY}, IPV4_GATEWAY, id="ipv4Gateway, IPv4-only"),
])
def test_the_next_hop_of_ipv4(node: Node, subnets: tuple[str, ...], keys: Mapping[str, Any], hop: str) -> None:
    networks.outside(node)
    with node.unchanged(ignore=r"\blo\b|10\.66\.0\.0/24|fd00:6::/64|ip_forward|forwarding|accept_redirects|"
                               rf"{networks.TABLES}|attachments/\.(seen|memo)"):
        [pod] = networks.pods(node, networks.gateway(*subnets, **keys), "a")
        [default] = node.ip_json("-4", "route", "show", "default", netns=pod.netns)
        assert (default["via"]["host"] if "via" in default else default["gateway"]) == hop
        told = next(ip.get("gateway") for ip in pod.result["ips"] if ":" not in ip["address"])
        assert told == (None if ":" in hop else hop)
        assert pod.ping(OUTSIDE[4]) and pod.ping(GATEWAY4) and networks.ping(node, pod.address(4))
        if ":" not in hop:
            assert pod.ping(hop)
        [way] = node.ip_json("route", "get", pod.address(4))
        assert way["prefsrc"] != IPV4_GATEWAY
        pod.check().ok()
        pod.delete()
        node.remove_container("a")


def test_an_address_that_nobody_has_is_unreachable_and_does_not_go_to_and_fro(node: Node) -> None:
    outside = networks.outside(node)
    for family in (4, 6):
        node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    for family in (4, 6):
        with wire.packets(outside, "eth0") as tap, wire.in_order():
            for netns in (outside, pod.netns):
                done = node.run("ping", "-c1", "-W5", "-n", UNUSED[family], netns=netns, check=False)
                assert "nreachable" in done.stdout, done.stdout
            with traffic.udp(pod.netns, family) as last:
                last.sendto(END, (OUTSIDE[family], 9))
            target = slice(38, 54) if family == 6 else slice(30, 34)
            seen = [frame for frame in wire.frames_before(tap, END) if frame[target] == frames.packed(UNUSED[family])]
        assert seen == [], "what came from outside went back there, or what a container sent went outside"


def stolen(pod: Pod, victim: Pod, mac: str) -> list[bytes]:
    """Frames from addresses that the container does not have: a neighbour's, a free one, the node's, the world's."""
    def frame(source: str, target: str) -> bytes:
        kind = IPV6 if ":" in source else IPV4
        datagram = frames.udp(source, target, (7, 53), b"stolen")
        return frames.ethernet(pod.mac, mac, kind, frames.ip(source, target, UDP, datagram))

    sources = (victim.address(4), victim.address(6), *UNUSED.values(), GATEWAY4, GATEWAY6, "192.0.2.77",
               "2001:db8:ffff::77", LINK_GATEWAY)
    return [frame(source, OUTSIDE[6 if ":" in source else 4]) for source in sources]


@pytest.mark.core
def test_a_container_speaks_from_its_own_addresses_alone(node: Node) -> None:
    """What is stolen goes nowhere, and is counted; what is its own passes, from its link-local address too."""
    outside = networks.outside(node)
    pod, victim = networks.pods(node, networks.gateway(*DUAL, ingress="open"), "a", "b")
    mac = networks.link(node, pod.host)["address"]
    lies = stolen(pod, victim, mac)
    before = dropped(node)
    with wire.packets(outside, "eth0") as tap, wire.packets(pod.netns, "eth0", 0) as sender, wire.in_order():
        for lie in lies:
            sender.send(lie)
        with traffic.udp(pod.netns, 6) as last:
            last.sendto(END, (OUTSIDE[6], 9))
        assert not [frame for frame in wire.frames_before(tap, END) if b"stolen" in frame]
    assert dropped(node) - before == len(lies)
    assert pod.ping(f"{LINK_GATEWAY}%eth0") and pod.ping(victim.address(6)) and pod.ping(victim.address(4))
    [free] = networks.pods(node, networks.gateway(*DUAL, ingress="open", guard=False, name="free", overlap="allow",
                                                  ipam={"ranges": [[{"subnet": "fd00:8::/64"}]]}), "free")
    assert free.ping(victim.address(6))


def test_a_container_can_neither_lead_the_node_nor_fill_its_tables(node: Node) -> None:
    """Router advertisements, redirects, ARP and neighbour solicitations from a hundred addresses."""
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    own = frames.Host(pod.mac, pod.address(4), pod.address(6), link_local(pod.mac))
    routes = node.run("ip", "-6", "route", "show").stdout
    sent = [frames.ethernet(own.mac, frames.ALL_NODES_MAC, IPV6, frames.ip(own.link_local, ALL_NODES, ICMPV6, (
        frames.router_advertisement(own.link_local, own.mac, "2001:db8:bad::"))))]
    for number in range(1, 100):
        claimed = f"10.66.0.{number}"
        sent.append(frames.ethernet(own.mac, BROADCAST, ARP, frames.arp(frames.REQUEST, own.mac, claimed, GATEWAY4)))
        source = f"fe80::bad:{number:x}"
        group, group_mac = frames.solicited_node(LINK_GATEWAY)
        sent.append(frames.ethernet(own.mac, group_mac, IPV6, frames.ip(
            source, group, ICMPV6, frames.solicitation(source, group, LINK_GATEWAY, own.mac))))
    known = {own.ip4, own.ip6, own.link_local}
    with wire.packets(node.path, pod.host) as tap, wire.packets(pod.netns, "eth0", 0) as sender, wire.in_order():
        for frame in sent:
            sender.send(frame)
        with traffic.udp(pod.netns, 6) as last:
            last.sendto(END, (GATEWAY6, 9))
        wire.frames_before(tap, END)
    assert {entry["dst"] for entry in node.ip_json("neighbour", "show", "dev", pod.host)} <= known
    assert node.run("ip", "-6", "route", "show").stdout == routes
    assert list(networks.addresses(node, pod.host)) == [f"{LINK_GATEWAY}/64"]
    assert pod.ping(GATEWAY4) and pod.ping(GATEWAY6)


def test_an_egress_list_holds_between_neighbours_too(node: Node) -> None:
    allowed = [{"to": "fd00:6::3/128", "ports": ["tcp/80", "udp/9"]}]
    [pod] = networks.pods(node, networks.gateway(*DUAL, egress=allowed), "a")
    [neighbour] = networks.pods(node, networks.gateway(*DUAL), "b")
    assert neighbour.address(6) == "fd00:6::3"
    with traffic.serving(neighbour.netns, 80):
        assert traffic.answering(pod.netns, neighbour.address(6), [80]) == {80}
    with wire.packets(neighbour.netns, "eth0") as tap, wire.in_order():
        with traffic.udp(pod.netns, 6) as six, traffic.udp(pod.netns, 4) as four:
            six.sendto(b"not allowed", (neighbour.address(6), 81))
            four.sendto(b"not allowed", (neighbour.address(4), 9))
            six.sendto(END, (neighbour.address(6), 9))
        assert not [frame for frame in wire.frames_before(tap, END) if b"not allowed" in frame]
    assert neighbour.ping(pod.address(4)) and neighbour.ping(pod.address(6))


def test_networks_of_both_types_side_by_side(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    token = networks.main.set(networks.BRIDGE)
    [other] = networks.pods(node, networks.gateway("fd00:7::/64", "10.67.0.0/24", name="other"), "b")
    networks.main.reset(token)
    with traffic.serving(pod.netns, 80), traffic.serving(other.netns, 80):
        for family in (4, 6):
            assert pod.ping(other.address(family)) and other.ping(pod.address(family))  # essential ICMP
            for here, there in ((pod, other), (other, pod)):
                place = there.netns, "eth0"
                seen = probe_and_watch((here.netns, "eth0"), there.address(family), [80], place)
                assert seen.arrived == set(), "closed to each other"


DAMAGES = [
    pytest.param("ip link set {host} down", ["host interface {host} is down"], id="down"),
    pytest.param("ip link set {host} down; ip link set {host} up",
                 ["route {six}/128 through {host}", f"{LINK_GATEWAY}/64 is missing on {{host}}"], id="down and up"),
    pytest.param("ip route delete {four}/32 dev {host}", ["route {four}/32 through {host} is missing"], id="route"),
    pytest.param("ip address delete 10.66.0.1/32 dev lo", ["10.66.0.1/32 is missing on lo"], id="gateway"),
    pytest.param("sysctl -w net.ipv4.ip_forward=0", ["forwarding is off"], id="IPv4 forwarding"),
    pytest.param("sysctl -w net.ipv6.conf.{host}.force_forwarding=0", ["force_forwarding"], id="IPv6 forwarding"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_what_cuts_a_container_off_is_named_and_mended(node: Node, damage: str, words: list[str]) -> None:
    """By CHECK, by STATUS with commands that mend it, and by the operator's command, which does so itself."""
    networks.outside(node)
    config = networks.gateway(*DUAL)
    pod, other = networks.pods(node, config, "a", "b")
    values = {"host": pod.host, "four": pod.address(4), "six": pod.address(6)}

    def broken() -> None:
        node.run("sh", "-ec", damage.format(**values))
        said = pod.check().error(errors.CHECK_FAILED)
        assert pod.host in said or "lo" in said or "forward" in said

    broken()
    said = node.plugin(ROUTED, "STATUS", config).error(errors.LIMITED)
    assert [each for each in words if each.format(**values) not in said] == []
    commands = said.partition("run: ")[2]
    node.run("sh", "-ec", commands)
    pod.check().ok()
    node.plugin(ROUTED, "STATUS", config).ok()
    broken()
    assert nft.ctl(node, "check", check=False).returncode == 1
    assert nft.ctl(node, "check", "--repair").stdout.splitlines()[-1].startswith("nothing differs") or (
        nft.ctl(node, "check").stdout == "nothing differs on 1 network\n")
    for each in (pod, other):
        each.check().ok()
        assert each.ping(OUTSIDE[6]) and each.ping(OUTSIDE[4])


def test_status_says_so_and_rebuilds_what_the_store_has_lost(node: Node) -> None:
    config = networks.gateway(*DUAL, ipv4Gateway=IPV4_GATEWAY)
    pods = networks.pods(node, config, "a", "b")
    node.run("rm", "-rf", f"{networks.STORE}/pods")
    assert "the store had no record of 2 containers" in node.plugin(ROUTED, "STATUS", config).error(errors.LIMITED)
    assert nft.ctl(node, "check").stdout == "nothing differs on 1 network\n"
    node.run("ip", "link", "set", pods[0].host, "down")
    assert nft.ctl(node, "check", "--repair").returncode == 0
    for pod in pods:
        pod.check().ok()
        assert pod.ping(IPV4_GATEWAY)
        pod.delete()
    assert networks.veths(node) == set() and nft.held(node) == {}


def test_a_damaged_record_is_made_anew_and_without_the_tables_blocked(node: Node) -> None:
    config = networks.gateway(*DUAL, ingress="open")
    pod, other = networks.pods(node, config, "a", "b")
    path = node.file(networks.STORE) / "pods" / "attachments" / "a:eth0"
    path.write_text("{")
    assert "made anew from the firewall" in node.plugin(ROUTED, "STATUS", config).error(errors.LIMITED)
    pod.check().ok()
    assert nft.ctl(node, "check").stdout == "nothing differs on 1 network\n"
    path.write_text("{")
    node.run("nft", "delete", "table", "inet", "cni_v6")
    node.run("nft", "delete", "table", "bridge", "cni_v6")
    assert "is blocked" in node.plugin(ROUTED, "STATUS", config).error(errors.LIMITED)
    assert not pod.ping(GATEWAY6, 1) and not pod.ping(other.address(4), 1) and other.ping(GATEWAY6)
    pod.delete()
    pod.add()
    assert pod.ping(GATEWAY6) and pod.ping(other.address(4))


def test_a_container_that_names_no_addresses_is_refused(node: Node) -> None:
    pod = Pod(node, networks.network(), "a")
    assert "ipam is missing" in pod.call("ADD").error(errors.INVALID_CONFIG)


def test_the_reference_ptps_configuration(node: Node) -> None:
    """As it stands in the documentation of ``ptp``, but for its type."""
    networks.outside(node)
    config = {
        "cniVersion": "1.0.0", "name": "mynet", "type": ROUTED, "ipMasq": True, "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": SUBNET4, "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": {"nameservers": ["10.1.1.1", "8.8.8.8"]},
    }
    [pod] = networks.pods(node, config, "a")
    assert pod.result["dns"] == {"nameservers": ["10.1.1.1", "8.8.8.8"]} and pod.link()["mtu"] == 1400
    assert pod.ping(OUTSIDE[4]) and pod.gateway(4) == GATEWAY4
    pod.check().ok()


@pytest.mark.slow
def test_hundreds_of_containers(quiet_node: Node) -> None:
    """Each is reached, and so is the node by each; one bridge has 1,023 ports, a kernel 1,024 neighbours."""
    node = quiet_node
    node.environment = {"CNI_V6_RUN_DIR": f"/run/engine-{node.name}"}
    config = networks.gateway(SUBNET6, "10.66.0.0/16")
    pods = networks.pods(node, config, *(f"c{number}" for number in range(300)))
    targets = "\n".join(pod.address(family) for pod in pods for family in (4, 6))
    script = "while read -r a; do ping -c1 -W5 -n -q $a >/dev/null || echo lost $a; done"
    assert node.run("sh", "-c", script, stdin=targets).stdout == ""
    assert pods[0].ping(pods[-1].address(6)) and pods[-1].ping(pods[0].address(4))
    valid = [{"containerID": pod.name, "ifname": "eth0"} for pod in pods[:150]]
    node.plugin(ROUTED, "GC", {**config, "cni.dev/valid-attachments": valid}).ok()
    assert len(networks.veths(node)) == 150
    node.plugin(ROUTED, "STATUS", config).ok()
    pods[0].check().ok()
