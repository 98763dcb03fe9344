"""Asks each of many addresses for an echo, one after the other, from one network namespace. Run as a program.

A request as JSON: ``netns``, the path of the namespace, and ``addresses``. An answer as JSON: which are ``silent``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

PATIENCE = 5.0  # seconds, for an answer that does not come
CLONE_NEWNET = 0x40000000  # linux/sched.h
# Types of the request and of the answer (RFC 792, RFC 4443), and what precedes ICMP in what a raw socket receives.
KINDS = {socket.AF_INET: (8, 0, 20), socket.AF_INET6: (128, 129, 0)}
ICMPV6_FILTER = 1  # linux/icmpv6.h
ALL_BUT_ANSWERS = b"".join(struct.pack("=I", 0xFFFFFFFF if word != 4 else 0xFFFFFFFD) for word in range(8))


def main() -> None:
    """See above."""
    asked = json.loads(sys.stdin.readline())
    if asked["netns"]:
        import ctypes

        with open(asked["netns"], "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                sys.exit(f"cannot enter {asked['netns']}: {os.strerror(ctypes.get_errno())}")
    print(json.dumps({"silent": list(silent(asked["addresses"]))}))


def silent(addresses: Iterable[str]) -> Iterator[str]:
    """Those that do not answer."""
    with _socket(socket.AF_INET) as four, _socket(socket.AF_INET6) as six:
        six.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, ALL_BUT_ANSWERS)
        for number, address in enumerate(addresses):
            if not answers(six if ":" in address else four, address, number & 0xFFFF):
                yield address


def answers(sender: socket.socket, address: str, number: int) -> bool:
    """Whether an echo request to an address is answered."""
    request, answer, ahead = KINDS[sender.family]
    rest = struct.pack("!HH", os.getpid() & 0xFFFF, number)
    sender.sendto(struct.pack("!BBH", request, 0, _checksum(request, rest)) + rest, (address, 0))
    try:
        while True:
            packet, source = sender.recvfrom(256)
            if source[0] == address and packet[ahead] == answer and packet[ahead + 4:] == rest:
                return True
    except TimeoutError:
        return False


def _socket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_RAW,
                         socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP)
    made.settimeout(PATIENCE)
    return made


def _checksum(kind: int, rest: bytes) -> int:
    """RFC 1071; that of ICMPv6, which covers the addresses too, is the kernel's work (RFC 3542, section 3.1)."""
    words: tuple[int, int] = struct.unpack("!HH", rest)
    total = (kind << 8) + sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    main()
