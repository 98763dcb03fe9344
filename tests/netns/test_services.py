"""Services of other programs, such as kube-proxy: their translation is left as they made it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns import networks, traffic
from tests.netns.networks import DUAL, Pod
from tests.sandbox import Node

SERVICE = {4: "10.96.0.10", 6: "fd00:96::a"}  # addresses that nobody has
OWN_PORT = {4: "10.96.0.11", 6: "fd00:96::b"}  # addresses of the node, as of kube-proxy in IPVS mode
OTHER = {"name": "other", "bridge": "other0", "capabilities": {"portMappings": True}}
OTHER_SUBNETS = ("fd00:7::/64", "10.67.0.0/24")
PORT = 80
TABLE = """
table inet services {
    chain service {
        ip daddr { %(four)s } meta l4proto { tcp, udp } th dport %(port)d dnat ip to %(four_to)s:%(port)d
        ip6 daddr { %(six)s } meta l4proto { tcp, udp } th dport %(port)d dnat ip6 to [%(six_to)s]:%(port)d
    }
    chain prerouting { type nat hook prerouting priority %(priority)s; jump service; }
    chain output { type nat hook output priority %(priority)s; jump service; }
}
"""


def translate(node: Node, server: Pod, priority: int) -> None:
    """A table of another program that leads the services to a container."""
    node.run("nft", "delete table inet services", check=False)
    node.run("nft", TABLE % {
        "four": f"{SERVICE[4]}, {OWN_PORT[4]}", "six": f"{SERVICE[6]}, {OWN_PORT[6]}", "port": PORT,
        "four_to": server.address(4), "six_to": server.address(6), "priority": priority,
    })


def published(port: int, **keys: Any) -> dict[str, Any]:
    mapping = {"hostPort": port, "containerPort": PORT, "protocol": "tcp"}
    return networks.gateway(*DUAL, capabilities={"portMappings": True}, runtimeConfig={"portMappings": [mapping]},
                            **of_bridge(), **keys)


def of_bridge() -> dict[str, Any]:
    """A routed container needs no key: the node's rules see all that it sends."""
    return {"netfilter": True} if networks.main.get() == networks.BRIDGE else {}


def as_whom(client: str, server: Pod, address: str, family: int) -> set[str]:
    """The addresses that a server sees of who calls a service, by TCP and by UDP."""
    with traffic.listening(server.netns, family, PORT) as listener:
        seen = {traffic.called(client, (address, PORT), listener)[0].address}
    with traffic.udp(server.netns, family, port=PORT) as answerer, traffic.udp(client, family) as asker:
        return seen | {traffic.asked(asker, (address, PORT), answerer).address}


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_a_service_sees_who_calls(node: Node) -> None:
    """Whichever table comes first, and though the node's own setting leaves bridged frames alone. The same port is
    published too, which hides no caller of the service."""
    for family in (4, 6):
        node.run("ip", "address", "add", OWN_PORT[family], "dev", "lo")
    [server] = networks.pods(node, published(PORT), "server")
    [client] = networks.pods(node, networks.gateway(*DUAL, **of_bridge()), "client")
    [stranger] = networks.pods(node, networks.gateway(*OTHER_SUBNETS, **OTHER), "stranger")
    with traffic.no_br_netfilter(node):
        for priority in (-101, -100, -99):
            translate(node, server, priority)
            for family in (4, 6):
                for pod in (client, stranger):
                    own = pod.address(family)
                    assert as_whom(pod.netns, server, SERVICE[family], family) == {own}, f"{pod.name} {priority}"


@pytest.mark.usefixtures("main_plugin")
def test_an_isolated_container_answers_through_the_node(node: Node) -> None:
    """Its port is isolated on the segment, so it cannot answer its neighbour. A routed one needs no help."""
    server, client = networks.pods(node, networks.gateway(*DUAL, ingress="isolated"), "server", "client")
    with traffic.no_br_netfilter(node):
        translate(node, server, -101)
        for family in (4, 6):
            gateway = networks.GATEWAY4 if family == 4 else networks.GATEWAY6
            seen = client.address(family) if networks.main.get() == networks.ROUTED else gateway
            assert as_whom(client.netns, server, SERVICE[family], family) == {seen}


@pytest.mark.usefixtures("main_plugin")
def test_a_service_at_an_address_of_the_node_sees_who_calls(node: Node) -> None:
    """Its port is not published, or the table before ours takes the connection."""
    for family in (4, 6):
        node.run("ip", "address", "add", OWN_PORT[family], "dev", "lo")
    [server] = networks.pods(node, published(8080), "server")
    [client] = networks.pods(node, networks.gateway(*DUAL, **of_bridge()), "client")
    with traffic.no_br_netfilter(node):
        for priority in (-101, -99):
            translate(node, server, priority)
            for family in (4, 6):
                assert as_whom(client.netns, server, OWN_PORT[family], family) == {client.address(family)}, priority
                with traffic.listening(server.netns, family, PORT) as listener:
                    seen, _ = traffic.called(client.netns, (OWN_PORT[family], 8080), listener)
                    assert (seen.address == client.address(family)) == (networks.main.get() == networks.ROUTED)
