"""Requests and answers of WireGuard (linux/wireguard.h), which is spoken to by generic netlink.

By hand: a dump of 1,000 peers is read at each step of the node agent, which alone uses them, and pyroute2's class reads
each of the attributes of each peer. The tests have pyroute2 read what is here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from cni_v6.kernel.netlink.message import (
    HEADER,
    Message,
    address,
    as_address,
    as_int,
    attribute,
    by_kind,
    each,
    nest,
    packed,
    text,
    u8,
    u32,
)
from cni_v6.kernel.netlink.requests import IFINFOMSG, NEW
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    NLA_F_NESTED,
    RTM_NEWLINK,
)
from cni_v6.values import dataclass

NETLINK_GENERIC = 16  # linux/netlink.h
NAME = "wireguard"
PREFIXES = 1000  # of a message: the length of an attribute has 16 bits
# linux/genetlink.h
GENL = struct.Struct("=BBH")  # command, version
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
_VERSION, _GET_DEVICE, _SET_DEVICE = 1, 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _PEERS = 2, 3, 4, 6, 8  # WGDEVICE_A_*
_PEER_KEY, _PEER_FLAGS, _ENDPOINT, _ALLOWED = 1, 3, 4, 9  # WGPEER_A_*
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2  # WGPEER_F_*
_FAMILY, _IPADDR, _LENGTH = 1, 2, 3  # WGALLOWEDIP_A_*
_SOCKADDR, _SOCKADDR6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2s4x16sI")  # ip(7), ipv6(7); the port as sent


@dataclass(frozen=True, slots=True)
class Found:
    """A peer: its public key, its endpoint ("" and 0 for none), the prefixes of its packets."""

    key: bytes
    address: str
    port: int
    allowed: tuple[str, ...]


def get_family() -> Message:
    """Ask for the number of WireGuard's messages. The kernel looks for its module."""
    return Message(_GENL_ID_CTRL, 0, GENL.pack(_CTRL_CMD_GETFAMILY, 1, 0) + text(_CTRL_ATTR_FAMILY_NAME, NAME))


def read_family(data: bytes) -> int:
    return as_int(by_kind(data, HEADER.size + GENL.size).get(_CTRL_ATTR_FAMILY_ID))


def create(ifname: str, mtu: int) -> Message:
    """An interface, down. The name must be free."""
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, NAME))
    return Message(RTM_NEWLINK, NEW, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, ifname)
                   + u32(IFLA_MTU, mtu) + info)


def get_device(family: int, ifname: str) -> Message:
    """A dump of the interface and its peers."""
    return Message(family, 0, GENL.pack(_GET_DEVICE, _VERSION, 0) + text(_IFNAME, ifname))


def read_device(messages: Sequence[bytes]) -> tuple[bytes, bytes, int]:
    """(private key, public key, UDP port) of the messages of a dump; without keys, b"".

    They are in the first one alone.
    """
    given = by_kind(messages[0], HEADER.size + GENL.size) if messages else {}
    return given.get(_PRIVATE_KEY, b""), given.get(_PUBLIC_KEY, b""), as_int(given.get(_LISTEN_PORT))


def read_peers(messages: Iterable[bytes]) -> list[Found]:
    """Those of the messages of a dump. One that does not fit goes on in the next message, with its key again."""
    found: dict[bytes, Found] = {}
    for data in messages:
        for _, content in each(by_kind(data, HEADER.size + GENL.size).get(_PEERS, b"")):
            given = by_kind(content)
            key, allowed = given[_PEER_KEY], tuple(_read_allowed(given.get(_ALLOWED, b"")))
            if key in found:
                before = found[key]
                found[key] = Found(key, before.address, before.port, before.allowed + allowed)
            else:
                found[key] = Found(key, *_read_endpoint(given.get(_ENDPOINT, b"")), allowed)
    return [*found.values()]


def _read_allowed(content: bytes) -> Iterator[str]:
    for _, prefix in each(content):
        given = by_kind(prefix)
        yield f"{as_address(given[_IPADDR])}/{as_int(given.get(_LENGTH))}"


def _read_endpoint(content: bytes) -> tuple[str, int]:
    if len(content) == _SOCKADDR6.size:
        _, port, value, _ = _SOCKADDR6.unpack(content)
    elif len(content) == _SOCKADDR.size:
        _, port, value = _SOCKADDR.unpack(content)
    else:
        return "", 0
    return as_address(value), int.from_bytes(port, "big")


def set_device(family: int, ifname: str, *, private_key: bytes, port: int) -> Message:
    """Give the interface its key and its UDP port."""
    what = attribute(_PRIVATE_KEY, private_key) + attribute(_LISTEN_PORT, struct.pack("=H", port))
    return _set(family, ifname, what)


def set_peer(
    family: int, ifname: str, key: bytes, *, endpoint: str, port: int, allowed: Sequence[str]
) -> list[Message]:
    """Have a peer with this endpoint and these prefixes alone; it may be there, and keeps its session.

    A prefix that another peer has is taken from that. All messages but the first add prefixes.
    """
    what = u32(_PEER_FLAGS, _REPLACE_ALLOWED) + attribute(_ENDPOINT, _sent(endpoint, port))
    made = []
    for first in range(0, max(len(allowed), 1), PREFIXES):
        prefixes = [nest(NLA_F_NESTED, *_allowed(prefix)) for prefix in allowed[first:first + PREFIXES]]
        peer = attribute(_PEER_KEY, key) + (u32(_PEER_FLAGS, 0) if first else what)
        made.append(_set(family, ifname, _peers(peer + nest(_ALLOWED | NLA_F_NESTED, *prefixes))))
    return made


def remove_peer(family: int, ifname: str, key: bytes) -> Message:
    """It may be gone already."""
    return _set(family, ifname, _peers(attribute(_PEER_KEY, key) + u32(_PEER_FLAGS, _REMOVE_ME)))


def _allowed(prefix: str) -> Iterator[bytes]:
    network, _, length = prefix.partition("/")
    family = AF_INET6 if ":" in network else AF_INET
    yield attribute(_FAMILY, struct.pack("=H", family))
    yield address(_IPADDR, network)
    yield u8(_LENGTH, int(length))


def _sent(endpoint: str, port: int) -> bytes:
    value, number = packed(endpoint), port.to_bytes(2, "big")
    return _SOCKADDR6.pack(AF_INET6, number, value, 0) if len(value) == 16 else _SOCKADDR.pack(AF_INET, number, value)


def _peers(content: bytes) -> bytes:
    return nest(_PEERS | NLA_F_NESTED, nest(NLA_F_NESTED, content))


def _set(family: int, ifname: str, what: bytes) -> Message:
    return Message(family, 0, GENL.pack(_SET_DEVICE, _VERSION, 0) + text(_IFNAME, ifname) + what)
