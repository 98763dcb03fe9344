"""Prefixes that are containers': reached, guarded, closed and taken away as their addresses are, by packets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import frames, networks, nft, port_probe, traffic, wire
from tests.netns.networks import GATEWAY6, NODE_OUTSIDE, OUTSIDE, SUBNET6, UPLINK, Pod
from tests.netns.nft import ctl
from tests.netns.port_probe import END, all_ports
from tests.netns.stepped_kernel import CUT, FAIL, SteppedPlugin
from tests.netns.test_guard import dropped
from tests.sandbox import Node

pytestmark = pytest.mark.slow

OPEN = {"ingress": "open", "guard": False}
PORTS = (22, 53)
LEDGER = r"\.seen|/cursors/"  # what a store keeps of prefixes that were given: none is given again


@dataclass(frozen=True)
class Inner:
    """A host of its own behind a container, on a wire of theirs, with an address of the container's prefix."""

    pod: Pod
    netns: str
    address: str
    unused: str  # an address of the prefix that nobody has

    def ping(self, address: str) -> bool:
        return networks.ping(self.pod.node, address, self.netns)


def network(**keys: Any) -> dict[str, Any]:
    ipam = {"delegate": 80, **keys.pop("ipam", {})}
    return networks.gateway(SUBNET6, **{"ipam": ipam, **keys})


def prefix(pod: Pod) -> str:
    """What the pod was given, by its result."""
    given = [ip for ip in pod.result["ips"] if "interface" not in ip]
    assert given == pod.result["ips"][-1:] and set(given[0]) == {"address"}
    return str(given[0]["address"])


def inner(pod: Pod) -> Inner:
    """A router of the container, which gives a part of its prefix away and nothing else."""
    node, given = pod.node, ip_network(prefix(pod))
    netns = node.container(f"in-{pod.name}")
    node.run("ip", "link", "add", "in0", "type", "veth", "peer", "eth0", "netns", Path(netns).name, netns=pod.netns)
    for place, name, address in ((pod.netns, "in0", given[1]), (netns, "eth0", given[2])):
        networks.set_sysctl(node, f"ipv6/conf/{name}/accept_dad", "0", place)
        node.run("ip", "link", "set", name, "up", netns=place)
        node.run("ip", "address", "add", f"{address}/112", "dev", name, netns=place)
    for place, name in ((pod.netns, "in0"), (netns, "eth0")):
        networks.link_local(node, name, place)  # with the carrier: until then what is sent there is lost
    node.run("ip", "route", "add", "default", "via", str(given[1]), netns=netns)
    networks.set_sysctl(node, "ipv6/conf/all/forwarding", "1", pod.netns)
    return Inner(pod, netns, str(given[2]), str(given[-2]))


def routes(node: Node) -> set[tuple[str, str, str]]:
    """(interface, prefix, next hop) of each route of the node by a container."""
    found = node.ip_json("-6", "route", "show", "proto", "static")
    return {(route["dev"], route["dst"], route["gateway"]) for route in found if "gateway" in route}


def elements(node: Node) -> str:
    return nft.text(node)


@pytest.mark.parametrize("keys", [
    pytest.param({"ingress": "open"}, id="open"),
    pytest.param({}, id="published"),
    pytest.param(OPEN, id="without-nft"),
    pytest.param({"ipam": {"ranges": [[{"subnet": SUBNET6, "gateway": "link-local"}]]}, "ingress": "open"}, id="fe80"),
])
@pytest.mark.usefixtures("main_plugin")
def test_hosts_behind_containers_reach_outside_and_each_other(node: Node, keys: dict[str, Any]) -> None:
    outside = networks.outside(node)
    pods = networks.pods(node, network(**keys), "a", "b")
    a, b = map(inner, pods)
    assert routes(node) == {(pod.home, prefix(pod), pod.address(6)) for pod in pods}
    assert len({prefix(pod) for pod in pods}) == 2
    assert a.ping(OUTSIDE[6]) and a.ping(NODE_OUTSIDE[6])
    for target in (b.address, b.pod.address(6)):
        assert a.ping(target) and a.pod.ping(target)
    with traffic.listening(b.netns, 6, 80) as server:
        assert traffic.called(a.netns, (b.address, 80), server)[0].address == a.address
        traffic.called(a.pod.netns, (b.address, 80), server)
    with traffic.listening(b.pod.netns, 6, 80) as server:
        traffic.called(a.netns, (b.pod.address(6), 80), server)
    assert networks.ping(node, a.address)
    assert networks.ping(node, a.address, outside)  # essential ICMPv6, where it is closed
    for pod in pods:
        pod.check().ok()


@pytest.mark.usefixtures("main_plugin")
def test_what_nobody_has_does_not_go_to_and_fro(node: Node) -> None:
    outside = networks.outside(node)
    [pod] = networks.pods(node, network(**OPEN), "a")  # a guard would stop the second round: it is from outside
    there = inner(pod)
    assert crossings(outside, there) == 1
    said = node.run("ping", "-c1", f"-W{networks.PATIENCE}", "-n", there.unused, netns=outside, check=False)
    assert "Destination unreachable" in said.stdout
    node.run("ip", "-6", "route", "delete", "unreachable", prefix(pod), netns=pod.netns)
    assert crossings(outside, there) > 20


def crossings(outside: str, there: Inner) -> int:
    """How often a packet to an address that nobody has comes in through the container's interface."""
    with wire.packets(there.pod.netns, "eth0") as tap, traffic.udp(outside, 6) as sender, wire.in_order():
        sender.sendto(b"lost", (there.unused, 53))
        port_probe.echo(outside, there.address)
        return sum(b"lost" in frame[54:66] for frame in wire.frames_before(tap, END))


@pytest.mark.usefixtures("main_plugin")
def test_a_container_speaks_from_its_own_prefix_alone(node: Node) -> None:
    outside = networks.outside(node)
    a, b = networks.pods(node, network(ingress="open"), "a", "b")
    mac = networks.link(node, a.home)["address"]
    lies = [str(ip_network(prefix(b))[5]), b.address(6), str(ip_network(prefix(a)).broadcast_address + 1)]
    truth = str(ip_network(prefix(a)).broadcast_address)

    def frame(source: str, payload: bytes) -> bytes:
        packet = frames.ip(source, OUTSIDE[6], frames.UDP, frames.udp(source, OUTSIDE[6], (7, 53), payload))
        return frames.ethernet(a.mac, mac, frames.IPV6, packet)

    before = dropped(node)
    with wire.packets(outside, "eth0") as tap, wire.packets(a.netns, "eth0", 0) as sender, wire.in_order():
        for source in lies:
            sender.send(frame(source, b"a lie"))
        sender.send(frame(truth, END))
        assert not any(b"a lie" in each for each in wire.frames_before(tap, END))
    assert dropped(node) - before == len(lies)
    if networks.main.get() == networks.ROUTED:
        return  # nobody on its link could be told more
    # Nor does it answer for an address there: nobody looks for one.
    advertised = frames.advertisement(a.address(6), frames.ALL_NODES, truth, a.mac)
    packet = frames.ip(a.address(6), frames.ALL_NODES, frames.ICMPV6, advertised)
    with wire.packets(b.netns, "eth0") as tap, wire.packets(a.netns, "eth0", 0) as sender, wire.in_order():
        sender.send(frames.ethernet(a.mac, frames.ALL_NODES_MAC, frames.IPV6, packet))
        sender.send(frames.ethernet(a.mac, b.mac, frames.IPV6, frames.ip(
            truth, b.address(6), frames.UDP, frames.udp(truth, b.address(6), (7, 53), END),
        )))
        assert not any(frames.packed(truth) in each for each in wire.frames_before(tap, END))


@pytest.mark.parametrize(("ingress", "from_outside", "from_neighbour"), [
    ("open", True, True), ("published", False, True), ("isolated", False, False),
])
@pytest.mark.usefixtures("main_plugin")
def test_ingress_is_that_of_the_addresses(
    node: Node, ingress: str, from_outside: bool, from_neighbour: bool
) -> None:
    outside = networks.outside(node)
    a, b = map(inner, networks.pods(node, network(ingress=ingress), "a", "b"))
    place = b.netns, "eth0"
    seen = port_probe.probe_and_watch((outside, "eth0"), b.address, PORTS, place)
    assert seen.arrived == (all_ports(PORTS) if from_outside else set())
    if ingress == "isolated" and networks.main.get() == networks.BRIDGE:
        # The network's own prefix is on-link then; whoever wants goes by the gateway.
        for one, other in ((a, b), (b, a)):
            node.run("ip", "route", "add", prefix(other.pod), "via", GATEWAY6, netns=one.pod.netns)
    seen = port_probe.probe_and_watch((a.netns, "eth0"), b.address, PORTS, place)
    assert seen.arrived == (all_ports(PORTS) if from_neighbour else set())


@pytest.mark.usefixtures("main_plugin")
def test_an_egress_list_binds_the_prefix(node: Node) -> None:
    outside = networks.outside(node)
    allowed = [{"to": f"{address}/128", "ports": ["udp/9"]} for address in (OUTSIDE[6], NODE_OUTSIDE[6])]
    [pod] = networks.pods(node, network(egress=allowed), "a")
    there = inner(pod)
    with wire.packets(outside, "eth0") as tap, wire.in_order():
        port_probe.probe(there.netns, OUTSIDE[6], (9, *PORTS))
        with traffic.udp(there.netns, 6) as sender:
            sender.sendto(END, (OUTSIDE[6], 9))
        arrived = set(filter(None, map(frames.opening, wire.frames_before(tap, END))))
    assert arrived == {("udp", 9)}
    with traffic.udp(node.path, 6, port=53) as closed, traffic.udp(node.path, 6, port=9) as server, wire.in_order():
        with traffic.udp(there.netns, 6) as sender:
            for port in (53, 9):
                sender.sendto(END, (NODE_OUTSIDE[6], port))
        assert server.recv(100) == END
        closed.setblocking(False)
        with pytest.raises(BlockingIOError):
            closed.recv(100)


@pytest.mark.parametrize(("subnet", "keys", "seen_as"), [
    (SUBNET6, {"masquerade": {"ipv6": "auto"}}, NODE_OUTSIDE[6]),
    (SUBNET6, {"masquerade": {"ipv6": "on"}, "snat": {"ipv6": "2001:db8:ffff::77"}}, "2001:db8:ffff::77"),
    (SUBNET6, {"masquerade": {"ipv6": "on"}, "nonMasquerade": [f"{OUTSIDE[6]}/128"]}, ""),
    ("2001:db8:6::/64", {"masquerade": {"ipv6": "auto"}}, ""),
])
@pytest.mark.usefixtures("main_plugin")
def test_whom_the_world_sees(node: Node, subnet: str, keys: dict[str, Any], seen_as: str) -> None:
    outside = networks.outside(node)
    node.run("ip", "address", "add", "2001:db8:ffff::77/128", "dev", UPLINK, "preferred_lft", "0")
    if subnet != SUBNET6:
        node.run("ip", "route", "add", subnet, "via", NODE_OUTSIDE[6], netns=outside)
    config = network(ipam={"ranges": [[{"subnet": subnet}]]}, **keys)
    a, b = map(inner, networks.pods(node, config, "a", "b"))
    with traffic.udp(outside, 6, OUTSIDE[6], 53) as server, traffic.udp(a.netns, 6) as client:
        assert traffic.asked(client, (OUTSIDE[6], 53), server).address == (seen_as or a.address)
    with traffic.udp(b.netns, 6, b.address, 53) as server, traffic.udp(a.netns, 6) as client:
        assert traffic.asked(client, (b.address, 53), server).address == a.address


@pytest.mark.usefixtures("main_plugin")
def test_a_published_port_leads_back_from_behind_the_container(node: Node) -> None:
    networks.outside(node)
    config = network(capabilities={"portMappings": True})
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    [pod] = networks.pods(node, {**config, "runtimeConfig": {"portMappings": [mapping]}}, "a")
    there = inner(pod)
    with traffic.listening(pod.netns, 6, 80) as server:
        traffic.called(there.netns, (NODE_OUTSIDE[6], 8080), server)


# From ADD to DEL


def test_del_takes_away_what_add_has_made(node: Node) -> None:
    config = network()
    networks.set_up(node, config)
    with node.unchanged(LEDGER):
        a, b = networks.pods(node, config, "a", "b")
        given, other = prefix(a), prefix(b)
        assert elements(node).count(given) == 4
        a.delete({**config, "ipam": {"type": "cni-v6-ipam"}})
        assert {dst for _, dst, _ in routes(node)} == {other}
        assert given not in elements(node)
        a.add()
        assert prefix(a) not in (given, other), "given a second time"
        for pod in (a, b):
            pod.delete()
            node.remove_container(pod.name)


def test_gc_takes_away_what_a_crash_left(node: Node, main_plugin: str) -> None:
    """On a bridge the route stays; that of a link of its own goes with the namespace, by and by."""
    config = network(**OPEN)
    networks.set_up(node, config)
    with node.unchanged(LEDGER):
        networks.pods(node, config, "a")
        node.remove_container("a")
        assert main_plugin == networks.ROUTED or len(routes(node)) == 1
        node.plugin("cni-v6", "GC", {**config, "cni.dev/valid-attachments": []}).ok()
        assert routes(node) == set()


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("what", [CUT, FAIL])
def test_cut_off_anywhere_nothing_is_left(node: Node, stepped: SteppedPlugin, what: str) -> None:
    pod = Pod(node, network(ingress="open"), "a")
    for _ in range(2):  # the first has what belongs to the network to do
        steps = stepped.call(pod, "ADD").steps
        assert stepped.call(pod, "DEL").code == 0
    with node.unchanged(rf"{LEDGER}|container a route.*unreachable"):
        for position in range(steps + 1):
            assert stepped.call(pod, "ADD", what, position).code != 0
            if what == CUT:
                assert stepped.call(pod, "DEL").code == 0
            assert routes(node) == set(), f"cut off before operation {position}"


@pytest.mark.usefixtures("main_plugin")
def test_check_names_what_is_missing(node: Node) -> None:
    [pod] = networks.pods(node, network(), "a")
    given = prefix(pod)
    node.run("ip", "-6", "route", "delete", given, "dev", pod.home)
    node.run("nft", "delete", "element", "inet", "cni_v6", "published_prefixes6", "{", f"{given} . {pod.home}", "}")
    said = pod.check().error(errors.CHECK_FAILED)
    assert f"route {given} through {pod.home} is missing" in said
    assert f"{given} . {pod.home} is missing in inet published_prefixes6" in said


@pytest.mark.parametrize("ask", [
    {"args": {"cni": {"delegate": 96}}}, {"runtimeConfig": {"delegate": 96}},
    {"runtimeConfig": {"delegate": 96}, "args": {"cni": {"delegate": 88}}},
])
def test_a_container_may_ask_for_one(node: Node, ask: dict[str, Any]) -> None:
    config = networks.gateway(SUBNET6, capabilities={"delegate": True}, ingress="open")
    networks.outside(node)
    plain = Pod(node, config, "plain")
    assert len(plain.add()["ips"]) == 1
    pod = Pod(node, {**config, **ask}, "a")
    pod.add()
    assert prefix(pod).endswith("/96") and [route["dst"] for route in pod.routes()] == ["default"]
    assert inner(pod).ping(OUTSIDE[6])


@pytest.mark.usefixtures("main_plugin")
def test_those_who_asked_find_each_other_where_the_routes_say_how(node: Node) -> None:
    ranges = [[{"subnet": SUBNET6, "gateway": "link-local"}]]
    config = networks.gateway(SUBNET6, ipam={"ranges": ranges, "routes": [{"dst": SUBNET6, "priority": 128}]})
    [plain] = networks.pods(node, config, "plain")
    a, b = map(inner, networks.pods(node, {**config, "args": {"cni": {"delegate": 96}}}, "a", "b"))
    assert a.ping(b.address) and plain.ping(a.address) and a.ping(plain.address(6))


@pytest.mark.usefixtures("main_plugin")
def test_nobody_is_given_an_address_of_anothers_prefix(node: Node) -> None:
    config = network(capabilities={"ips": True})
    [pod] = networks.pods(node, config, "a")
    wanted = str(ip_network(prefix(pod))[9])
    thief = Pod(node, {**config, "runtimeConfig": {"ips": [wanted]}}, "b")
    assert "prefix that was given to a eth0" in thief.call("ADD").error(errors.ADDRESS_UNAVAILABLE)
    pod.delete()
    thief.add()
    assert thief.address(6) == wanted


def test_reload_and_list_know_of_it(node: Node) -> None:
    [pod] = networks.pods(node, network(), "a")
    given, before = prefix(pod), elements(node)
    node.run("nft", "flush", "ruleset")
    ctl(node, "reload")
    assert elements(node) == before
    assert given in ctl(node, "list").stdout
    [listed] = map(json.loads, ctl(node, "list", "--json").stdout.splitlines())
    assert listed["prefixes"] == [given]
