"""Published ports: who reaches a container through one, as whom, and who does not."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.firewall import loopback
from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, SUBNET4, SUBNET6, UPLINK, Pod
from tests.netns.traffic import End
from tests.sandbox import Node

GATEWAYS = {4: GATEWAY4, 6: GATEWAY6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
SECOND = {4: "203.0.113.5", 6: "2001:db8:fffd::5"}  # another address of the node, which no link has
BRANCH = {4: ("198.51.100.1", "198.51.100.2"), 6: ("2001:db8:b::1", "2001:db8:b::2")}  # the node's, and a host's

EVERY, AT4, AT6, ANY4, ANY6, LOOP4, LOOP6 = ports = range(8080, 8087)
MAPPINGS = (
    (EVERY, ""), (AT4, NODE_OUTSIDE[4]), (AT6, NODE_OUTSIDE[6]), (ANY4, "0.0.0.0"), (ANY6, "::"),
    (LOOP4, LOOPBACK[4]), (LOOP6, LOOPBACK[6]),
)
TCP = [
    {"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": address} for port, address in MAPPINGS
]
UDP = [{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]
SCTP = [{"hostPort": 9899, "containerPort": 99, "protocol": "SCTP"}]


def publishing(*mappings: dict[str, Any], subnets: Sequence[str] = DUAL, **keys: Any) -> dict[str, Any]:
    """A network, and the ports a runtime asks to publish."""
    return networks.gateway(
        *subnets, **{"capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": mappings}, **keys}
    )


@pytest.fixture
def beyond(node: Node) -> str:
    """A host beyond the node, which has a default route and a second address there."""
    netns = networks.outside(node)
    for family in (4, 6):
        node.run("ip", "address", "add", SECOND[family], "dev", "lo")
        node.run("ip", "route", "add", SECOND[family], "via", NODE_OUTSIDE[family], netns=netns)
        node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
    return netns


@pytest.mark.usefixtures("main_plugin")
def test_a_port_answers_at_its_addresses_and_nowhere_else(node: Node, beyond: str) -> None:
    """From outside, from the node, from the container itself and from its neighbour, with br_netfilter and without."""
    [web] = networks.pods(node, publishing(*TCP), "web")
    [neighbour] = networks.pods(node, networks.gateway(*DUAL), "neighbour")
    world = {
        NODE_OUTSIDE[4]: {EVERY, AT4, ANY4}, NODE_OUTSIDE[6]: {EVERY, AT6, ANY6},
        SECOND[4]: {EVERY, ANY4}, SECOND[6]: {EVERY, ANY6},
    }
    near = {**world, GATEWAY4: {EVERY, ANY4}, GATEWAY6: {EVERY, ANY6}}
    loopback = {LOOPBACK[4]: {EVERY, ANY4, LOOP4}, LOOPBACK[6]: {EVERY, ANY6, LOOP6}}
    with traffic.serving(web.netns, 80):
        for netns, expected in (
            (beyond, world), (node.path, {**near, **loopback}), (web.netns, near), (neighbour.netns, near)
        ):
            for address, answers in expected.items():
                assert traffic.answering(netns, address, ports) == answers, f"{address} from {netns}"
        with traffic.no_br_netfilter(node):
            for netns, expected in ((node.path, loopback), (web.netns, near), (neighbour.netns, near)):
                for address, answers in expected.items():
                    assert traffic.answering(netns, address, ports) == answers, f"{address} from {netns}"
    web.delete()
    assert not any(traffic.answering(beyond, NODE_OUTSIDE[family], ports) for family in (4, 6))


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_the_container_sees_who_calls(node: Node, beyond: str) -> None:
    """But where it must answer through the node: then the caller is the node. A routed one does so in any case."""
    [web] = networks.pods(node, publishing(*TCP, *UDP), "web")
    [neighbour] = networks.pods(node, networks.gateway(*DUAL), "neighbour")
    with traffic.serving(web.netns, 80) as listeners:
        for family in (4, 6):
            target = NODE_OUTSIDE[family], EVERY
            seen, own = traffic.called(beyond, target, listeners[family])
            assert seen == own and own.address == OUTSIDE[family]
            for pod in (web, neighbour):
                assert traffic.called(pod.netns, target, listeners[family])[0].address in as_whom(pod, web, family)
    with traffic.listening(beyond, 4, 80) as elsewhere:
        caller, _ = traffic.called(web.netns, (OUTSIDE[4], 80), elsewhere)
        assert caller.address == web.address(4), "a published port masquerades nothing else"
    for family in (4, 6):
        with traffic.udp(web.netns, family, port=53) as server:
            for netns, address in ((beyond, OUTSIDE[family]), (node.path, NODE_OUTSIDE[family])):
                with traffic.udp(netns, family) as client:
                    assert traffic.asked(client, (NODE_OUTSIDE[family], 5353), server).address == address
            for pod in (web, neighbour):
                with traffic.udp(pod.netns, family) as client:
                    seen = traffic.asked(client, (NODE_OUTSIDE[family], 5353), server)
                    assert seen.address in as_whom(pod, web, family)
    for family in (4, 6):
        with traffic.udp(web.netns, family, port=53) as server, traffic.udp(node.path, family) as client:
            assert traffic.asked(client, (LOOPBACK[family], 5353), server).address in as_whom(web, web, family)


def as_whom(pod: Pod, web: Pod, family: int) -> set[str]:
    """The addresses as which a container of the network may call the published port of another, or its own."""
    if networks.main.get() == networks.BRIDGE:
        return {GATEWAYS[family]}
    return {GATEWAYS[family], SECOND[family]} if pod is web else {pod.address(family)}


@pytest.mark.usefixtures("main_plugin")
def test_sctp(node: Node, beyond: str) -> None:
    [web] = networks.pods(node, publishing(*SCTP), "web")
    for family in (4, 6):
        with traffic.opened(web.netns, family, socket.SOCK_RAW, traffic.IPPROTO_SCTP) as server:
            with traffic.opened(beyond, family, socket.SOCK_RAW, traffic.IPPROTO_SCTP) as client:
                client.sendto(traffic.sctp_init(4000, 98), (NODE_OUTSIDE[family], 0))
                client.sendto(traffic.sctp_init(4000, 9899), (NODE_OUTSIDE[family], 0))
                assert traffic.sctp_arrived(server, family) == End(OUTSIDE[family], 99)


@pytest.mark.usefixtures("main_plugin")
def test_only_what_is_sent_to_the_node_is_captured(node: Node, beyond: str) -> None:
    """CVE-2025-67499: a published port 53 took every query that passed the node, the cluster's own among them."""
    branch = node.container("branch")
    node.run("ip", "link", "add", "branch0", "type", "veth", "peer", "name", "eth0", "netns", f"{node.name}-branch")
    for family, (here, there) in BRANCH.items():
        for ifname, place, address in (("branch0", "", here), ("eth0", branch, there)):
            networks.set_sysctl(node, f"ipv6/conf/{ifname}/accept_dad", "0", place)
            node.run("ip", "address", "add", f"{address}/{networks.LENGTH[family]}", "dev", ifname, netns=place)
            node.run("ip", "link", "set", ifname, "up", netns=place)
        node.run("ip", f"-{family}", "route", "add", "default", "via", here, netns=branch)
        node.run("ip", "route", "add", f"{there}", "via", NODE_OUTSIDE[family], netns=beyond)
    for ifname, place in (("branch0", ""), ("eth0", branch)):
        networks.link_local(node, ifname, place)  # with the carrier: until then what is sent there is lost
    mappings = [{"hostPort": 53, "containerPort": 53, "protocol": protocol} for protocol in ("udp", "tcp")]
    [captor] = networks.pods(node, publishing(*mappings), "captor")
    other, server = networks.pods(node, networks.gateway(*DUAL, ingress="open"), "other", "server")
    for family in (4, 6):
        with traffic.listening(captor.netns, family, 53), traffic.udp(captor.netns, family, port=53):
            for place, address, clients in (
                (beyond, OUTSIDE[family], (branch, node.path, other.netns, captor.netns)),
                (branch, BRANCH[family][1], (beyond, node.path, other.netns, captor.netns)),
                (server.netns, server.address(family), (beyond, branch, node.path, other.netns, captor.netns)),
            ):
                with traffic.listening(place, family, 53) as listener, traffic.udp(place, family, port=53) as answerer:
                    for netns in clients:
                        traffic.called(netns, (address, 53), listener)
                        with traffic.udp(netns, family) as client:
                            traffic.asked(client, (address, 53), answerer)


def forge_loopback(node: Node, netns: str, ifname: str, *gateway: str) -> None:
    """A host that sends what is for 127.0.0.0/8 to its router."""
    node.run("ip", "address", "flush", "dev", "lo", netns=netns)
    networks.set_sysctl(node, f"ipv4/conf/{ifname}/route_localnet", "1", netns)
    node.run("ip", "route", "add", "127.0.0.0/8", "via", *gateway, "dev", ifname, netns=netns)


@pytest.mark.usefixtures("main_plugin")
def test_a_port_of_the_loopback_address_is_the_nodes_own(node: Node, beyond: str) -> None:
    """CVE-2020-8558: neither it nor what else listens there answers a packet from a wire, though the node would route
    it: other software (kube-proxy) sets route_localnet everywhere."""
    [web] = networks.pods(node, publishing(*TCP), "web")
    [attacker] = networks.pods(node, networks.gateway(*DUAL), "attacker")
    networks.set_sysctl(node, "ipv4/conf/all/route_localnet", "1")
    forge_loopback(node, beyond, "eth0", NODE_OUTSIDE[4])
    routed = networks.main.get() == networks.ROUTED
    forge_loopback(node, attacker.netns, "eth0", *(("inet6", "fe80::1") if routed else (GATEWAY4,)))
    with traffic.serving(web.netns, 80) as listeners, traffic.listening(node.path, 4, 6443, LOOPBACK[4]) as own:
        seen, _ = traffic.called(node.path, (LOOPBACK[4], LOOP4), listeners[4])
        assert seen.address in as_whom(web, web, 4)
        traffic.called(node.path, (LOOPBACK[4], 6443), own)
        for netns in (beyond, attacker.netns):
            with traffic.unanswered(netns, (LOOPBACK[4], LOOP4), (LOOPBACK[4], EVERY), (LOOPBACK[4], 6443)):
                traffic.called(netns, (NODE_OUTSIDE[4], EVERY), listeners[4])


@pytest.mark.usefixtures("main_plugin")
def test_a_family_the_container_lacks_is_refused(node: Node, beyond: str) -> None:
    node.container("a")
    with node.unchanged():
        for subnet, address in (
            (SUBNET4, NODE_OUTSIDE[6]), (SUBNET4, "::"), (SUBNET4, "::1"),
            (SUBNET6, NODE_OUTSIDE[4]), (SUBNET6, "0.0.0.0"),
        ):
            mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": address}
            message = Pod(node, publishing(mapping, subnets=[subnet]), "a").call("ADD").error(errors.INVALID_CONFIG)
            lacking = 6 if ":" in address else 4
            assert f"no IPv{lacking} address" in message and "8080" in message


@pytest.mark.usefixtures("main_plugin")
def test_a_port_is_published_once(node: Node, beyond: str) -> None:
    """The loser hears who has it, in its own network or another; what it was given is free again."""
    owner = Pod(node, publishing(*TCP, *UDP), "owner")
    elsewhere = {"name": "other", "bridge": "other0", "subnets": ("fd00:7::/64", "10.67.0.0/24")}
    networks.set_up(node, publishing(*TCP, **elsewhere))
    owner.add()
    node.container("loser")
    for network in ({}, elsewhere):
        with node.unchanged(ignore=r"\.seen"):
            for mapping in (
                {"hostPort": EVERY, "containerPort": 1, "protocol": "tcp"},
                {"hostPort": EVERY, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": EVERY, "containerPort": 1, "protocol": "tcp", "hostIP": "::"},
                {"hostPort": AT4, "containerPort": 1, "protocol": "tcp", "hostIP": NODE_OUTSIDE[4]},
                {"hostPort": LOOP6, "containerPort": 1, "protocol": "tcp", "hostIP": "::1"},
                {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
            ):
                free = {"hostPort": 9000, "containerPort": 1, "protocol": "tcp"}
                loser = Pod(node, publishing(free, mapping, **network), "loser")
                message = loser.call("ADD").error(errors.PORT_TAKEN)
                assert "pods owner/eth0" in message and str(mapping["hostPort"]) in message
    with traffic.serving(owner.netns, 80) as listeners:
        for family in (4, 6):
            traffic.called(beyond, (NODE_OUTSIDE[family], EVERY), listeners[family])
        for port in (EVERY, LOOP6):
            traffic.called(node.path, (LOOPBACK[6], port), listeners[6])
    no_clash = {"hostPort": EVERY, "containerPort": 80, "protocol": "udp"}, {"hostPort": AT4, "containerPort": 80}
    [other] = networks.pods(node, publishing(*no_clash, **elsewhere), "other")
    owner.delete()
    other.delete()
    [heir] = networks.pods(node, publishing(*TCP, *UDP, **elsewhere), "heir")
    with traffic.serving(heir.netns, 80) as listeners:
        for family in (4, 6):
            traffic.called(beyond, (NODE_OUTSIDE[family], EVERY), listeners[family])


@pytest.mark.usefixtures("main_plugin")
def test_a_family_each(node: Node, beyond: str) -> None:
    """The same port for two containers that have no family in common."""
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    [four] = networks.pods(node, publishing(mapping, subnets=[SUBNET4]), "four")
    [six] = networks.pods(node, publishing(mapping, subnets=[SUBNET6]), "six")
    with traffic.listening(four.netns, 4, 80) as listener4, traffic.listening(six.netns, 6, 80) as listener6:
        traffic.called(beyond, (NODE_OUTSIDE[4], 8080), listener4)
        traffic.called(beyond, (NODE_OUTSIDE[6], 8080), listener6)


@pytest.mark.usefixtures("main_plugin")
def test_a_scan_over_ipv6_finds_what_was_published_and_nothing_else(node: Node, beyond: str) -> None:
    everything = range(1, 10001)
    [web] = networks.pods(node, publishing(*TCP, *UDP), "web")
    alive = NODE_OUTSIDE[6], EVERY
    with traffic.serving(web.netns, 80, 22, 443, 3306, *range(8000, 8100)):
        open_ports, refused = traffic.scan(beyond, NODE_OUTSIDE[6], everything, alive)
        assert open_ports == {EVERY, AT6, ANY6} and refused == set(everything) - open_ports
        assert traffic.scan(beyond, web.address(6), everything, alive) == (set(), set())
    for family in (4, 6):
        direct = web.address(family)
        with traffic.udp(web.netns, family, port=53) as server, traffic.udp(beyond, family) as client:
            client.sendto(b"unheard", (direct, 53))
            traffic.asked(client, (NODE_OUTSIDE[family], 5353), server)
        with traffic.listening(web.netns, family, 80) as listener:
            with traffic.unanswered(beyond, (direct, 80), (direct, EVERY)):
                traffic.called(beyond, (NODE_OUTSIDE[family], EVERY), listener)


@pytest.mark.slow
@pytest.mark.usefixtures("main_plugin")
def test_a_thousand_ports_are_one_map(node: Node, beyond: str) -> None:
    networks.set_up(node, publishing(*TCP))
    before = nft.rules(node), nft.held(node)
    many = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"} for port in range(20000, 21000)]
    pod = Pod(node, publishing(*many), "a")
    pod.add()
    assert nft.rules(node) == before[0]
    assert [len(nft.elements(node, "inet", name)) for name in ("ports4", "ports6", "ports_at4")] == [1000, 1000, 0]
    assert pod.check().ok() is None
    with traffic.serving(pod.netns, 80) as listeners:
        for family in (4, 6):
            for port in (20000, 20999):
                traffic.called(beyond, (NODE_OUTSIDE[family], port), listeners[family])
    [late] = networks.pods(node, networks.gateway(*DUAL), "late")
    message = Pod(node, publishing(*many[::-1]), "loser").call("ADD").error(errors.PORT_TAKEN)
    assert "pods a/eth0" in message
    pod.delete()
    late.delete()
    assert (nft.rules(node), nft.held(node)) == before


@pytest.mark.usefixtures("main_plugin")
def test_a_flow_reaches_the_next_container(node: Node, beyond: str) -> None:
    """A client that goes on from the same port while one container goes and the next one comes, and between them."""
    with ExitStack() as stack:
        clients = {family: stack.enter_context(traffic.udp(beyond, family)) for family in (4, 6)}
        for number in range(3):
            [pod] = networks.pods(node, publishing(*UDP), f"c{number}")
            for family, client in clients.items():
                with traffic.udp(pod.netns, family, port=53) as server:
                    seen = traffic.asked(client, (NODE_OUTSIDE[family], 5353), server)
                    assert seen.port == client.getsockname()[1]
            pod.delete()
            for family, client in clients.items():  # to somebody else: the node tracks that too
                with traffic.udp(node.path, family, NODE_OUTSIDE[family], 5353) as own:
                    traffic.asked(client, (NODE_OUTSIDE[family], 5353), own)


@pytest.mark.usefixtures("main_plugin")
def test_an_address_takes_no_flow_over_from_who_had_it_before(node: Node, beyond: str) -> None:
    """The same address and port to the same host, masqueraded and not; the first container's address was drawn."""
    pod = Pod(node, networks.gateway(*DUAL, ipMasq=True), "a")
    addresses = [ip["address"].partition("/")[0] for ip in pod.add()["ips"]]
    for keys in ({}, {"ipMasq": True}, {}, None):
        for address in addresses:
            family = traffic.family_of(address)
            shown = NODE_OUTSIDE[family] if pod.config.get("ipMasq") else address
            with traffic.udp(beyond, family, OUTSIDE[family], 7777) as server:
                with traffic.udp(pod.netns, family, address, 7777) as client:
                    assert traffic.asked(client, (OUTSIDE[family], 7777), server).address == shown
        pod.delete()
        if keys is not None:
            pod = Pod(node, networks.gateway(*DUAL, args={"cni": {"ips": addresses}}, **keys), "a")
            pod.add()


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_one_port_at_many_addresses_is_many_ports(node: Node, beyond: str) -> None:
    """One container for each address of the node, also for a client that chooses its source."""
    addresses = [LOOPBACK[4], LOOPBACK[6], NODE_OUTSIDE[4], NODE_OUTSIDE[6], SECOND[4], SECOND[6]]
    made = {}
    for number, address in enumerate(addresses):
        mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": address}
        [made[address]] = networks.pods(node, publishing(mapping), f"c{number}")
    for address, pod in made.items():
        family = traffic.family_of(address)
        with traffic.listening(pod.netns, family, 80) as listener:
            traffic.called(node.path, (address, 8080), listener, source=NODE_OUTSIDE[family])
            if address not in LOOPBACK.values():
                assert traffic.called(beyond, (address, 8080), listener)[0].address == OUTSIDE[family]
            else:
                traffic.called(node.path, (address, 8080), listener, source=address)


@pytest.mark.usefixtures("main_plugin")
def test_only_a_published_port_of_loopback_is_the_containers(node: Node, beyond: str) -> None:
    """What else the node has at ::1 is its own, and the client is ::1 there. A port at which the container does not
    listen is closed at once. Bulk passes both ways, with br_netfilter and without."""
    [web] = networks.pods(node, publishing(*TCP), "web")
    with traffic.listening(node.path, 6, 6443, LOOPBACK[6]) as own:
        assert traffic.called(node.path, (LOOPBACK[6], 6443), own)[0].address == LOOPBACK[6]
    assert traffic.answering(node.path, LOOPBACK[6], [LOOP6]) == set()
    for family in (4, 6):
        with traffic.listening(web.netns, family, 80) as listener:
            traffic.bulk(node.path, (LOOPBACK[family], EVERY), listener)


@pytest.mark.usefixtures("main_plugin")
def test_the_route_of_loopback_comes_back(node: Node, beyond: str) -> None:
    """It ends with ``lo``. CHECK says so; each of these adds it."""
    [web] = networks.pods(node, publishing(*TCP), "web")
    another = {"hostPort": 9000, "containerPort": 80, "protocol": "tcp"}
    node.container("other")
    with traffic.serving(web.netns, 80) as listeners:
        for mend in (
            lambda: nft.ctl(node, "check", "--repair"),
            lambda: nft.ctl(node, "reload"),
            lambda: Pod(node, publishing(another), "other").add(),
        ):
            traffic.called(node.path, (LOOPBACK[6], LOOP6), listeners[6])
            node.run("ip", "link", "set", "lo", "down")
            node.run("ip", "link", "set", "lo", "up")
            assert loopback.STANDS_FOR in web.check().error(errors.CHECK_FAILED)
            mend()
        traffic.called(node.path, (LOOPBACK[6], LOOP6), listeners[6])


@pytest.mark.usefixtures("main_plugin")
def test_nobody_else_is_loopback(node: Node, beyond: str) -> None:
    """What stands for ::1 on the node is nobody's address from a wire."""
    [web] = networks.pods(node, publishing(*TCP), "web")
    [attacker] = networks.pods(node, networks.gateway(*DUAL), "attacker")
    node.run("ip", "-6", "route", "add", loopback.STANDS_FOR, "via", NODE_OUTSIDE[6], netns=beyond)
    with traffic.serving(web.netns, 80) as listeners, traffic.listening(node.path, 6, 6443) as own:
        traffic.called(node.path, (NODE_OUTSIDE[6], 6443), own)
        for netns in (beyond, attacker.netns):
            stand_in = [(loopback.STANDS_FOR, port) for port in (LOOP6, EVERY, 6443)]
            with traffic.unanswered(netns, *stand_in):
                traffic.called(netns, (NODE_OUTSIDE[6], EVERY), listeners[6])


@pytest.mark.usefixtures("main_plugin")
def test_addresses_that_come_later_are_the_nodes_too(node: Node, beyond: str) -> None:
    [web] = networks.pods(node, publishing(*TCP), "web")
    for family, address in ((4, "192.0.2.99"), (6, "2001:db8:ffff::99")):
        nodad = ("nodad",) if family == 6 else ()
        node.run("ip", "address", "add", f"{address}/{networks.LENGTH[family]}", "dev", UPLINK, *nodad)
        with traffic.listening(web.netns, family, 80) as listener:
            seen, _ = traffic.called(beyond, (address, EVERY), listener)
            assert seen.address == OUTSIDE[family]
