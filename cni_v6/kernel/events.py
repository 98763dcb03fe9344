"""Waiting for the kernel's own word: subscribe, look, then read events and look again. No polling.

Subscribing comes first, so whatever happens after the look is in the socket.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable

from cni_v6 import ops
from cni_v6.errors import ADDRESS_UNAVAILABLE, KERNEL_REFUSED, CniError
from cni_v6.kernel import GetLink, answers, netlink, uapi
from cni_v6.kernel.observe import observe
from cni_v6.kernel.spaces import Spaces
from cni_v6.ops import HOST, Op

# A carrier takes a millisecond, duplicate address detection one second a probe (RFC 4862, 5.1; net.ipv6.conf.*.
# dad_transmits): this long means that it will not come.
PATIENCE_SECONDS = 10.0
EVENT_BYTES = 1 << 20


def await_port(spaces: Spaces, operation: ops.AwaitPort) -> None:
    """Until the bridge port is no longer BR_STATE_DISABLED."""
    question = GetLink(HOST, operation.ifname)

    def settled() -> bool:
        link = observe(spaces, [question]).link(HOST, operation.ifname)
        if link is None:
            raise _failure(operation, "it is gone: the container's namespace may have ended")
        if not link.master:
            raise _failure(operation, "it is on no bridge any more: the bridge may have been deleted")
        return link.port_enabled

    _wait(spaces, operation, uapi.RTNLGRP_LINK, settled)


def await_addresses(spaces: Spaces, operation: ops.AwaitAddresses) -> None:
    """Until no address of the interface is tentative; one found to be a duplicate is an error."""
    index = spaces.index(operation.netns, operation.ifname)
    if index is None:
        raise _failure(operation, "it is gone: the container's namespace may have ended")
    route = spaces.get(operation.netns).route

    def settled() -> bool:
        messages = route.dump(netlink.get_addresses(index)).messages
        states = [answers.read_address_state(data) for data in messages if answers.index_of(data) == index]
        for address, _, failed in states:
            if failed:
                words = f"address {address} of {operation.ifname} is in use by another node on the segment"
                raise CniError(ADDRESS_UNAVAILABLE, words, "find the node that answers for it, or exclude the address")
        return not any(tentative for _, tentative, _ in states)

    _wait(spaces, operation, uapi.RTNLGRP_IPV6_IFADDR, settled)


Awaited = ops.AwaitPort | ops.AwaitAddresses


def _wait(spaces: Spaces, operation: Awaited, group: int, settled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    netns = operation.netns if isinstance(operation, ops.AwaitAddresses) else HOST
    with spaces.get(netns).event_socket(group) as events:
        while not settled():
            _next_event(events, deadline, operation)


def _next_event(events: socket.socket, deadline: float, operation: Op) -> None:
    ready, _, _ = select.select([events], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        words = f"nothing within {PATIENCE_SECONDS:.0f} seconds; is the bridge up, and its port's peer?"
        raise _failure(operation, words)
    try:
        while True:
            events.recv(EVENT_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # events were lost: the next look tells what they said
            raise _failure(operation, str(error)) from error


def _failure(operation: Op, words: str) -> CniError:
    return CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", words)
