"""Containers without IPv4 reach servers that have nothing else, by the commands and files of docs/nat64.md."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Thread

import pytest

from tests.netns import networks, traffic, wire
from tests.netns.networks import GATEWAY6, NODE_OUTSIDE, OUTSIDE, SUBNET6, Pod
from tests.pages import blocks
from tests.sandbox import ROOT, Node, need

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nat64")]

TYPES = ("cni-v6", "cni-v6-routed")
PROGRAMS = ("tayga", "unbound")
SERVER = "9.9.9.9"  # TAYGA takes none of the prefixes for documentation as an address of the Internet
TRANSLATED = "64:ff9b::909:909"
PORT = 7001
SET_UP, TAYGA, UNBOUND = (block.text for block in blocks(ROOT / "docs/nat64.md"))
# RFC 1035, section 4.1; RFC 3596
HEADER, TYPE_A, TYPE_AAAA, CLASS_IN, RECURSIVE, ANSWERED = struct.Struct("!6H"), 1, 28, 1, 0x0100, 0x8580
NAME = b"\x08ipv4only\x07example\x00"


@dataclass(frozen=True)
class Place:
    """A container with IPv6 alone, and the namespace of a host beyond its node, which has SERVER."""

    pod: Pod
    beyond: str


@contextmanager
def running(node: Node, command: str, until: str = "") -> Iterator[None]:
    """A program of the page, in the foreground.

    :param until: what it says when it is ready; "" if nothing waits for that.
    """
    process = node.spawn("sh", "-c", f"cd {ROOT} && exec {command}", env=node.environment)
    assert process.stderr
    try:
        while until and until.encode() not in (line := process.stderr.readline()):
            assert line, "it has ended"
        yield
    finally:
        process.terminate()
        process.communicate(timeout=wire.PATIENCE)


@pytest.fixture(scope="module", params=TYPES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The page's commands have run on the node."""
    need(all(map(shutil.which, PROGRAMS)), f"needs {' and '.join(PROGRAMS)} (Debian: packages of these names)")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this machine has no TUN")
    with closing(Node(engine=True)) as node:
        beyond = networks.outside(node)
        node.run("ip", "address", "add", f"{SERVER}/32", "dev", "eth0", netns=beyond)
        for family in (4, 6):
            node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family])
        node.run("sh", "-euc", f"cd {ROOT}\n{SET_UP}")
        with running(node, TAYGA):
            wire.await_state(node.path, lambda: "LOWER_UP" in networks.link(node, "nat64")["flags"], "TAYGA runs")
            # Not masqueraded and open: nothing but the page's rules keeps others out.
            pod = Pod(node, networks.gateway(SUBNET6, type=request.param, ingress="open"), "pod")
            pod.add()
            yield Place(pod, beyond)
            pod.delete()


def test_a_container_without_ipv4_reaches_a_server_without_ipv6(place: Place) -> None:
    assert place.pod.ping(TRANSLATED)
    with traffic.udp(place.pod.netns, 6) as client, traffic.udp(place.beyond, 4, SERVER, PORT) as server:
        assert traffic.asked(client, (TRANSLATED, PORT), server).address == NODE_OUTSIDE[4]
    with traffic.listening(place.beyond, 4, PORT) as listener:
        seen, _ = traffic.called(place.pod.netns, (TRANSLATED, PORT), listener)
        assert seen.address == NODE_OUTSIDE[4]
        traffic.bulk(place.pod.netns, (TRANSLATED, PORT), listener)


def test_a_link_on_the_way_is_narrow(place: Place) -> None:
    """The error of IPv4 that says so comes to the container as one of IPv6."""
    node = place.pod.node
    node.run("ip", "route", "replace", f"{SERVER}/32", "via", OUTSIDE[4], "mtu", "lock", "1300")
    try:
        assert traffic.path_mtu(place.pod.netns, place.pod.address(6), TRANSLATED) == 1320
        with traffic.listening(place.beyond, 4, PORT) as listener:
            traffic.bulk(place.pod.netns, (TRANSLATED, PORT), listener)
    finally:
        node.run("ip", "route", "delete", f"{SERVER}/32")


def test_nobody_else_has_a_part_in_it(place: Place) -> None:
    """A host beyond the node that sends to the addresses of the NAT64's pool reaches no container, and the NAT64
    translates nothing of it."""
    place.pod.node.run("ip", "route", "add", "192.168.255.0/24", "via", NODE_OUTSIDE[4], netns=place.beyond)
    place.pod.node.run("ip", "route", "add", "64:ff9b::/96", "via", NODE_OUTSIDE[6], netns=place.beyond)
    with (
        traffic.udp(place.pod.netns, 6, port=PORT) as server, traffic.udp(place.pod.netns, 6) as client,
        traffic.udp(place.beyond, 4, SERVER, PORT) as asked, traffic.udp(place.beyond, 4, SERVER) as stranger,
        traffic.udp(place.beyond, 6) as relayed, wire.in_order(),
    ):
        inside = traffic.asked(client, (TRANSLATED, PORT), asked)
        for number in range(2, 255):
            stranger.sendto(b"of a stranger", (f"192.168.255.{number}", PORT))
        relayed.sendto(b"to be relayed", (TRANSLATED, PORT))
        asked.sendto(b"an answer", inside)  # it takes the same way, after those
        assert client.recv(100) == b"an answer"
        traffic.asked(client, (TRANSLATED, PORT), asked)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)


def answer(server: socket.socket) -> bool:
    """Answer a question of DNS as a server that knows SERVER by its IPv4 address alone; False for an empty one."""
    question, sender = server.recvfrom(2048)
    if not question:
        return False
    number, *_ = HEADER.unpack_from(question)
    name = question[HEADER.size:HEADER.size + len(NAME)]
    kind, _ = struct.unpack_from("!HH", question, HEADER.size + len(NAME))
    record = struct.pack("!3HIH", 0xC00C, TYPE_A, CLASS_IN, 60, 4) + socket.inet_aton(SERVER)
    found = record if (name, kind) == (NAME, TYPE_A) else b""
    asked = name + struct.pack("!HH", kind, CLASS_IN)
    server.sendto(HEADER.pack(number, ANSWERED, 1, bool(found), 0, 0) + asked + found, sender)
    return True


@contextmanager
def resolver(netns: str, address: str) -> Iterator[None]:
    def serve() -> None:
        while answer(server):
            pass

    with traffic.udp(netns, 6, address, 53) as server, traffic.udp(netns, 6) as last:
        server.settimeout(None)
        thread = Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            last.sendto(b"", (address, 53))
            thread.join()


@pytest.mark.parametrize("place", TYPES[:1], indirect=True)
def test_a_name_without_an_ipv6_address(place: Place) -> None:
    """The resolver at the containers' gateway makes one of the NAT64's prefix."""
    question = NAME + struct.pack("!HH", TYPE_AAAA, CLASS_IN)
    with (
        resolver(place.beyond, OUTSIDE[6]), running(place.pod.node, UNBOUND, "start of service"),
        traffic.udp(place.pod.netns, 6) as client,
    ):
        client.sendto(HEADER.pack(1, RECURSIVE, 1, 0, 0, 0) + question, (GATEWAY6, 53))
        assert client.recv(2048)[-16:] == socket.inet_pton(socket.AF_INET6, TRANSLATED)
