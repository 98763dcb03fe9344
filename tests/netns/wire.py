"""What happens on a wire and in a kernel, seen and done from the test's own process: sockets in other namespaces.

Waiting is for the kernel's own notifications; ``PATIENCE`` only ends a wait for something that will never come.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest

from tests.netns import frames

T = TypeVar("T")

PATIENCE = 30.0  # seconds
CLONE_NEWNET = 0x40000000  # linux/sched.h
ETH_P_ALL = 0x0003
ICMPV6, ROUTER_ADVERTISEMENT, NEIGHBOR_ADVERTISEMENT = 58, 134, 136
ROGUE, ROGUE_MAC = "fe80::bad", "02:00:00:00:0b:ad"
PACKET_OUTGOING = 4  # linux/if_packet.h
# linux/rtnetlink.h, RTNLGRP_*: link, neighbour, IPv4 address and route, IPv6 address and route.
GROUPS = sum(1 << (group - 1) for group in (1, 3, 5, 7, 9, 11))
MORE_GROUPS = sum(1 << (group - 1) for group in (4, 8, 19, 24, 25))  # queues, both families' rules and settings
NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7  # linux/netlink.h, linux/netfilter/nfnetlink.h
# All that the kernel tells of its state.
STATE = ((socket.NETLINK_ROUTE, GROUPS | MORE_GROUPS), (NETLINK_NETFILTER, 1 << (NFNLGRP_NFTABLES - 1)))


def inside(netns: str, work: Callable[[], T]) -> T:
    """Do something in a network namespace, in a thread that ends there."""
    outcome: list[T] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(netns, "rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), netns)
        outcome.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert outcome, f"failed in {netns}"
    return outcome[0]


@contextmanager
def packets(netns: str, ifname: str, protocol: int = ETH_P_ALL) -> Iterator[socket.socket]:
    """A packet socket on an interface."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        made.bind((ifname, protocol))
        return made

    with inside(netns, make) as made:
        yield made


@contextmanager
def events(netns: str, source: tuple[int, int] = (socket.NETLINK_ROUTE, GROUPS)) -> Iterator[socket.socket]:
    """The notifications of a namespace's kernel about links, neighbours, addresses and routes.

    :param source: another protocol, and its groups.
    """

    def make() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, source[0])
        made.bind((0, source[1]))
        return made

    with inside(netns, make) as made:
        yield made


def await_state(netns: str, look: Callable[[], T], what: str) -> T:
    """Look, and look again at each of the kernel's notifications, until there is something to see; return it."""
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        sockets = [stack.enter_context(events(netns, source)) for source in STATE if _is_spoken(source[0])]
        while not (seen := look()):
            ready, _, _ = select.select(sockets, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                pytest.fail(f"never seen: {what}")
            for heard in ready:
                try:
                    heard.recv(1 << 20)
                except OSError as error:  # more news than there is room for are news too
                    assert error.errno == errno.ENOBUFS, error
    return seen


def _is_spoken(protocol: int) -> bool:
    """Whether the kernel has a netlink protocol: without it there is no news of what it is for.

    A user-mode kernel loads nftables for the first test that needs it.
    """
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
    except OSError as error:
        assert error.errno == errno.EPROTONOSUPPORT, error
        return False
    return True


def await_frames(tap: socket.socket, wanted: Callable[[bytes], bool], count: int = 1) -> None:
    """Read frames until ``count`` of the wanted ones have come. All but the last have been through the whole stack:
    the kernel hands a frame to packet sockets first, and takes one frame after the other."""
    deadline = time.monotonic() + PATIENCE
    while count:
        ready, _, _ = select.select([tap], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            pytest.fail("the frame never came")
        count -= wanted(tap.recv(1 << 16))


def pending(heard: socket.socket) -> Iterator[bytes]:
    """The netlink messages that have come by now."""
    heard.setblocking(False)
    while True:
        try:
            yield heard.recv(1 << 16)
        except BlockingIOError:
            return


def frames_before(tap: socket.socket, last: bytes) -> list[bytes]:
    """The frames that came in before the one that contains ``last``."""
    deadline = time.monotonic() + PATIENCE
    found: list[bytes] = []
    while True:
        ready, _, _ = select.select([tap], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            pytest.fail(f"never came: {last!r}")
        frame, sender = tap.recvfrom(1 << 16)
        if sender[2] == PACKET_OUTGOING:
            continue
        if last in frame:
            return found
        found.append(frame)


@contextmanager
def in_order() -> Iterator[None]:
    """What this thread sends in here arrives in that order: packets between namespaces wait in a queue of the CPU that
    they are sent on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def is_router_advertisement(frame: bytes) -> bool:
    """Ethernet, IPv6 without extension headers, ICMPv6 type 134."""
    return frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] == ROUTER_ADVERTISEMENT


def announces(frame: bytes, address: str, mac: str) -> bool:
    """Whether a frame tells everybody that an address is at a MAC: gratuitous ARP (RFC 5227, 3), or an unsolicited
    neighbour advertisement with the override flag (RFC 4861, 4.4 and 7.2.6)."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    if ":" not in address:
        ip = socket.inet_aton(address)
        return frame[12:14] == b"\x08\x06" and frame[22:28] == hardware and frame[28:32] == frame[38:42] == ip
    ip = socket.inet_pton(socket.AF_INET6, address)
    is_advertisement = frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] == NEIGHBOR_ADVERTISEMENT
    return is_advertisement and frame[58] & 0x60 == 0x20 and frame[62:78] == ip and frame[80:86] == hardware


@contextmanager
def advertising(netns: str, ifname: str, prefix: str) -> Iterator[None]:
    """A router on the interface's segment that advertises itself over and over, much faster than RFC 4861 allows."""
    ended = threading.Event()
    frame = frames.ethernet(ROGUE_MAC, frames.ALL_NODES_MAC, frames.IPV6, frames.ip(
        ROGUE, frames.ALL_NODES, ICMPV6, frames.router_advertisement(ROGUE, ROGUE_MAC, prefix)
    ))

    def advertise(sender: socket.socket) -> None:
        sender.send(frame)
        while not ended.wait(0.005):
            sender.send(frame)

    with packets(netns, ifname, 0) as sender:
        thread = threading.Thread(target=advertise, args=(sender,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
