"""Nobody on a wire speaks from a container's address: the answer would go to that container, past ``ingress``; or from
one that nobody has, for which whoever answers would look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from tests.netns import frames, networks, traffic, wire
from tests.netns.frames import IPV4, IPV6, UDP
from tests.netns.networks import NODE_OUTSIDE, UPLINK, Pod
from tests.netns.test_absent import absent, beyond, neighbours
from tests.netns.test_delegate import prefix
from tests.netns.traffic import FAMILIES
from tests.sandbox import Node

PORT, PUBLISHED = 53, 5353
MAPPINGS = [{"hostPort": PUBLISHED, "containerPort": PORT, "protocol": "udp"}]
END = b"that was all"


class Wire:
    """A host beyond the node that may send whatever it likes."""

    def __init__(self, node: Node) -> None:
        self.node, self.netns = node, beyond(node)
        self._macs = networks.link(node, "eth0", self.netns)["address"], networks.link(node, UPLINK)["address"]

    def frame(self, source: str, target: str, ports: tuple[int, int], payload: bytes = b"borrowed") -> bytes:
        packet = frames.ip(source, target, UDP, frames.udp(source, target, ports, payload))
        return frames.ethernet(*self._macs, IPV6 if ":" in source else IPV4, packet)

    @contextmanager
    def sending(self, *sent: bytes) -> Iterator[None]:
        with wire.packets(self.netns, "eth0", 0) as sender, wire.in_order():
            for frame in sent:
                sender.send(frame)
            yield

    def arrives(self, pod: Pod, port: int, *sent: bytes) -> bool:
        """Whether any of these comes to a socket of the container or of the node, of which an honest one does."""
        family = 6 if sent[0][12:14] == b"\x86\xdd" else 4
        with traffic.udp(pod.netns, family, port=port) as server:
            with self.sending(*sent), traffic.udp(self.netns, family) as honest:
                target, there = (NODE_OUTSIDE[family], PUBLISHED) if port == PORT else (pod.address(family), port)
                honest.sendto(END, (target, there))
                return server.recv(100) != END


def two_networks(**keys: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """One that publishes a port, and another one."""
    publishing = networks.gateway("10.66.0.0/16", "fd00:6::/64", capabilities={"portMappings": True},
                                  runtimeConfig={"portMappings": MAPPINGS}, **keys)
    return publishing, networks.gateway("10.67.0.0/16", "fd00:7::/64", name="other", bridge="other0")


@pytest.mark.parametrize("keys", [{}, {"ipMasq": True}, {"guard": False}])
def test_by_a_published_port(node: Node, keys: dict[str, Any]) -> None:
    there = Wire(node)
    publishing, other = two_networks(**keys)
    [web], [neighbour], [foreign] = (
        networks.pods(node, publishing, "web"), networks.pods(node, {**publishing, "runtimeConfig": {}}, "neighbour"),
        networks.pods(node, other, "foreign"),
    )
    for family in FAMILIES:
        for source in (web.address(family), neighbour.address(family), foreign.address(family)):
            assert not there.arrives(web, PORT, there.frame(source, NODE_OUTSIDE[family], (7, PUBLISHED)))
        scan = [there.frame(source, NODE_OUTSIDE[family], (7, PUBLISHED)) for source in absent(family)]
        assert not there.arrives(web, PORT, *scan)
    assert neighbours(node, web, neighbour, foreign) == set()
    looked_for = {entry["dst"] for entry in node.ip_json("neighbour", "show", "nud", "all", netns=web.netns)}
    assert looked_for.isdisjoint([*absent(4), *absent(6)])


def test_routed(node: Node) -> None:
    """To a network that is open, and to the node."""
    there = Wire(node)
    _, other = two_networks()
    [pod] = networks.pods(node, networks.gateway("10.66.0.0/16", "fd00:6::/64", ingress="open"), "open")
    [foreign] = networks.pods(node, other, "foreign")
    for family in FAMILIES:
        for source in (pod.address(family), foreign.address(family)):
            assert not there.arrives(pod, 7000, there.frame(source, pod.address(family), (7, 7000)))
            with traffic.udp(node.path, family, port=7000) as server, traffic.udp(there.netns, family) as honest:
                with there.sending(there.frame(source, NODE_OUTSIDE[family], (7, 7000))):
                    honest.sendto(END, (NODE_OUTSIDE[family], 7000))
                    assert server.recv(100) == END


def test_as_an_answer(node: Node) -> None:
    """A container of one network asks one of another: an answer from a wire would belong to that flow."""
    there = Wire(node)
    [asks] = networks.pods(node, networks.gateway("10.66.0.0/16", "fd00:6::/64"), "asks")
    _, other = two_networks()
    [answers] = networks.pods(node, {**other, "ingress": "open"}, "answers")
    for family in FAMILIES:
        with traffic.udp(answers.netns, family, port=PORT) as server, traffic.udp(asks.netns, family) as client:
            client.sendto(b"question", (answers.address(family), PORT))
            _, caller = server.recvfrom(100)
            false = there.frame(answers.address(family), caller[0], (PORT, caller[1]))
            with there.sending(false):
                assert networks.ping(node, NODE_OUTSIDE[family], there.netns)  # the false one has been seen to
            server.sendto(b"answer", caller)
            assert client.recv(100) == b"answer"


def test_from_a_prefix_that_is_a_containers(node: Node) -> None:
    there = Wire(node)
    config = networks.gateway("fd00:6::/64", ipam={"delegate": 80}, ingress="open")
    [pod, owner] = networks.pods(node, config, "pod", "owner")
    source = str(ip_network(prefix(owner))[7])
    assert not there.arrives(pod, 7000, there.frame(source, pod.address(6), (7, 7000)))
    with traffic.udp(node.path, 6, port=7000) as server, traffic.udp(there.netns, 6) as honest:
        with there.sending(there.frame(source, NODE_OUTSIDE[6], (7, 7000))):
            honest.sendto(END, (NODE_OUTSIDE[6], 7000))
            assert server.recv(100) == END
