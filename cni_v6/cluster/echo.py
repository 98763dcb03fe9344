"""Echo requests to a few addresses at once (ping(8)), of both families, and who has answered.

A socket for them needs no rights where net.ipv4.ping_group_range lets the group have it (icmp(7)), else CAP_NET_RAW.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress

from cni_v6.net.addresses import from_text, is_link_local, to_text, version

SECONDS, TRIES = 1.0, 3  # of each try; who has answered one is not asked again
ICMP6_FILTER, ICMP_FILTER = 1, 1  # linux/icmpv6.h, linux/icmp.h: socket options of SOL_ICMPV6 and SOL_RAW
SOL_ICMPV6, SOL_RAW = 58, 255
FAMILIES = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
HEADER = struct.Struct("!BBHHH")


def answered(addresses: Iterable[str], ifname: str, seconds: float = SECONDS) -> dict[str, bool]:
    """Which of the addresses answer. Those of a family that has no socket are missing.

    :param ifname: by which link-local addresses are reached.
    """
    left = {family: {to_text(*from_text(address)) for address in addresses if version(address) == family}
            for family in FAMILIES}
    with ExitStack() as open_sockets:
        sockets = {family: open_sockets.enter_context(made) for family, wanted in left.items()
                   if wanted and (made := _open(family))}
        found = {address: False for family in sockets for address in left[family]}
        token = os.urandom(8)
        for number in range(TRIES):
            for family, opened in sockets.items():
                for address in left[family]:
                    _send(opened, family, address, ifname, number, token)
            _receive(sockets, left, token, time.monotonic() + seconds)
        for family in sockets:
            found.update((address, True) for address in found if version(address) == family
                         and address not in left[family])
    return found


def _open(family: int) -> socket.socket | None:
    domain, protocol = FAMILIES[family]
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with suppress(OSError):
            made = socket.socket(domain, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            if kind == socket.SOCK_RAW:  # else it would hear of all that the node does
                made.setsockopt(*_only_replies(family))
            return made
    return None


def _only_replies(family: int) -> tuple[int, int, bytes]:
    """A socket option: a bit for each type that is not heard, in words of 32 bits."""
    count = 8 if family == 6 else 1
    blocked = (1 << 32 * count) - 1 ^ 1 << REPLY[family]
    words = struct.pack(f"={count}I", *(blocked >> 32 * at & 0xFFFF_FFFF for at in range(count)))
    return (SOL_ICMPV6, ICMP6_FILTER, words) if family == 6 else (SOL_RAW, ICMP_FILTER, words)


def _send(opened: socket.socket, family: int, address: str, ifname: str, number: int, token: bytes) -> None:
    body = HEADER.pack(REQUEST[family], 0, 0, os.getpid() & 0xFFFF, number) + token
    if family == 4:
        body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    with suppress(OSError):  # no route, a full queue: no answer
        scope = socket.if_nametoindex(ifname) if ifname and is_link_local(address) else 0
        opened.sendto(body, (address, 0, 0, scope) if family == 6 else (address, 0))


def _receive(sockets: dict[int, socket.socket], left: dict[int, set[str]], token: bytes, end: float) -> None:
    """Take answers until all are there, or until a time."""
    families = {opened.fileno(): family for family, opened in sockets.items()}
    while any(left[family] for family in sockets) and (rest := end - time.monotonic()) > 0:
        for ready in select.select(list(families), [], [], rest)[0]:
            family = families[ready]
            with suppress(OSError):  # also an error that a router told of
                data, sender = sockets[family].recvfrom(2048)
                if data.endswith(token):  # a raw socket has the header of IPv4 before it
                    left[family].discard(to_text(*from_text(sender[0].partition("%")[0])))


def _checksum(data: bytes) -> int:
    """RFC 1071. Of ICMPv6 the kernel makes it."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
