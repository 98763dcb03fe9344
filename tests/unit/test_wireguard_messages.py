"""Messages of WireGuard, against pyroute2's reading of them, and answers that pyroute2 has made."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.generic.wireguard import wgmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni_v6.kernel.netlink import wireguard
from cni_v6.kernel.netlink.message import Message, address, attribute, nest, packed, u8
from cni_v6.kernel.netlink.socket import encode
from cni_v6.kernel.netlink.wireguard import Found

KEY, OTHER, FAMILY = bytes(range(32)), bytes(range(32, 64)), 29
# struct sockaddr_in6 and sockaddr_in (ipv6(7), ip(7))
AT6 = struct.pack("=H2sI16sI", 10, b"\xca\x6c", 0, packed("fd00:11::2"), 0)
AT4 = struct.pack("=H2s4s8x", 2, b"\xca\x6c", packed("172.30.0.2"))
ALLOWED = ("fd42:0:0:2::/64", "10.244.1.0/26")


def read(message: Message) -> Any:
    found = wgmsg(encode(message, 1))
    found.decode()
    assert (message.type, found["version"]) == (FAMILY, 1)
    return found


def peers(message: Message) -> list[Any]:
    found = read(message)
    assert found.get_attr("WGDEVICE_A_IFNAME") == "wg0" and found["cmd"] == 1
    return list(found.get_attr("WGDEVICE_A_PEERS"))


def of_peer(message: Message) -> Any:
    [found] = peers(message)
    assert found.get_attr("WGPEER_A_PUBLIC_KEY") == b64encode(KEY)
    return found


def prefixes(peer: Any) -> tuple[str, ...]:
    return tuple(found["addr"] for found in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ())


def test_the_interface() -> None:
    made = ifinfmsg(encode(wireguard.create("wg0", 1420), 1))
    made.decode()
    assert (made.get_attr("IFLA_IFNAME"), made.get_attr("IFLA_MTU")) == ("wg0", 1420)
    assert made.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "wireguard"
    given = read(wireguard.set_device(FAMILY, "wg0", private_key=KEY, port=51820))
    assert given.get_attr("WGDEVICE_A_PRIVATE_KEY") == b64encode(KEY)
    assert (given["cmd"], given.get_attr("WGDEVICE_A_LISTEN_PORT")) == (1, 51820)
    asked = read(wireguard.get_device(FAMILY, "wg0"))
    assert (asked["cmd"], asked.get_attr("WGDEVICE_A_IFNAME")) == (0, "wg0")


def test_the_number_of_the_family() -> None:
    asked = wireguard.get_family()
    assert asked.type == 16 and asked.body == struct.pack("=BBH", 3, 1, 0) + attribute(2, b"wireguard\0")
    answer = Message(16, 0, struct.pack("=BBH", 1, 2, 0) + attribute(2, b"wireguard\0") + attribute(1, b"\x1d\0"))
    assert wireguard.read_family(encode(answer, 1)) == 29


def test_a_peer() -> None:
    for endpoint in ("fd00:11::2", "172.30.0.2"):
        [message] = wireguard.set_peer(FAMILY, "wg0", KEY, endpoint=endpoint, port=51820, allowed=ALLOWED)
        found = of_peer(message)
        at = found.get_attr("WGPEER_A_ENDPOINT")
        assert (at["addr"], at["port"], found.get_attr("WGPEER_A_FLAGS")) == (endpoint, 51820, 2)
        assert prefixes(found) == ALLOWED
    gone = of_peer(wireguard.remove_peer(FAMILY, "wg0", KEY))
    assert gone.get_attr("WGPEER_A_FLAGS") == 1


def test_a_peer_without_prefixes_and_one_with_many() -> None:
    [message] = wireguard.set_peer(FAMILY, "wg0", KEY, endpoint="::1", port=1, allowed=())
    assert prefixes(of_peer(message)) == () and of_peer(message).get_attr("WGPEER_A_FLAGS") == 2
    many = [f"fd42:0:0:{number:x}::/64" for number in range(1, 2502)]
    first, *later = map(of_peer, wireguard.set_peer(FAMILY, "wg0", KEY, endpoint="::1", port=1, allowed=many))
    assert [found.get_attr("WGPEER_A_FLAGS") for found in (first, *later)] == [2, 0, 0]
    assert [found.get_attr("WGPEER_A_ENDPOINT") is None for found in (first, *later)] == [False, True, True]
    assert [prefix for found in (first, *later) for prefix in prefixes(found)] == many


def answer(*attributes: bytes) -> bytes:
    return encode(Message(FAMILY, 0, struct.pack("=BBH", 0, 1, 0) + b"".join(attributes)), 1)


def told(key: bytes, allowed: Sequence[str], endpoint: bytes = b"") -> bytes:
    """A peer as the kernel tells it; without an endpoint, one that goes on."""
    prefixes = []
    for prefix in allowed:
        network, _, length = prefix.partition("/")
        family = struct.pack("=H", 10 if ":" in network else 2)
        prefixes.append(nest(0, attribute(1, family), address(2, network), u8(3, int(length))))
    at = attribute(4, endpoint) if endpoint else b""
    return nest(0, attribute(1, key), at, nest(9, *prefixes))


def test_a_dump() -> None:
    """A peer may go on in the next message, with its key and prefixes alone."""
    first = answer(attribute(6, b"\x6c\xca"), attribute(2, b"wg0\0"), attribute(3, KEY), attribute(4, OTHER),
                   nest(8, told(KEY, ALLOWED, AT6), told(OTHER, ALLOWED[:1], AT4)))
    second = answer(nest(8, told(OTHER, ALLOWED[1:]), nest(0, attribute(1, bytes(32)))))
    assert wireguard.read_device([first, second]) == (KEY, OTHER, 51820)
    assert wireguard.read_peers([first, second]) == [
        Found(KEY, "fd00:11::2", 51820, ALLOWED), Found(OTHER, "172.30.0.2", 51820, ALLOWED),
        Found(bytes(32), "", 0, ()),
    ]
    assert wireguard.read_device([]) == wireguard.read_device([answer()]) == (b"", b"", 0)
    assert wireguard.read_peers([answer()]) == []
