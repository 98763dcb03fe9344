"""Waits for the kernel's notifications: subscribe, read the state, then read it again at each notification. No polling.

The subscription comes before the first read, so a change after that read is in the socket.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.deadline import without_token
from cni_v6.kernel.describe import describe
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests, uapi
from cni_v6.kernel.netlink.socket import RECEIVE_BYTES
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST, Op
from cni_v6.net.addresses import is_link_local

# Carrier takes a millisecond, duplicate address detection one second a probe (RFC 4862, section 5.1;
# net.ipv6.conf.*.dad_transmits). After this time the state will not come.
PATIENCE_SECONDS = 10.0
GONE = "it is gone: the container's namespace may have ended"
LATE = "are its peer and its bridge up?"
NO_END = "no carrier, perhaps: is the interface up to which it is connected?"
ANSWER_SECONDS = 3.0  # RFC 4861, section 10: three solicitations, a second each
STAYS = "it is there still"
NO_ADDRESS = "has somebody removed an address, or has the interface no carrier?"


def await_port(spaces: Spaces, operation: awaits.AwaitPort) -> None:
    """Wait until a bridge port is no longer BR_STATE_DISABLED."""

    def enabled(data: bytes) -> bool:
        master, is_enabled = answers.port_state(data)
        if not master:
            raise _failure(operation, "it is on no bridge any more: the bridge may have been deleted")
        return is_enabled

    _await_link(spaces, operation, enabled)


def await_carrier(spaces: Spaces, operation: awaits.AwaitCarrier) -> None:
    """Wait until an interface is running."""
    _await_link(spaces, operation, lambda data: answers.read_link(data)[0].running)


def _await_link(
    spaces: Spaces, operation: awaits.AwaitPort | awaits.AwaitCarrier, reached: Callable[[bytes], bool]
) -> None:
    """
    :param reached: whether an RTM_NEWLINK message says that it is as awaited.
    """
    index = _index(spaces, HOST, operation)
    route = spaces.get(HOST).route

    def settled() -> bool:
        [answer] = route.request([requests.get_link_by_index(index)])
        if not answer.messages:
            raise _failure(operation, GONE)
        return reached(answer.messages[0])

    if settled():  # nearly always; opening a socket for notifications would double the cost
        return
    with spaces.get(HOST).event_socket(uapi.RTNLGRP_LINK, index) as events:
        _wait(events, operation, settled)


def await_reception(spaces: Spaces, operation: awaits.AwaitReception) -> None:
    """Wait until there is a route of the namespace's own to each address."""
    _index(spaces, operation.netns, operation)
    route = spaces.get(operation.netns).route
    lookups = [requests.get_route_to(address) for address in operation.addresses]

    def settled() -> bool:
        return all(any(map(answers.is_local, answer.messages)) for answer in route.request(lookups))

    if settled():  # nearly always
        return
    with spaces.get(operation.netns).event_socket(uapi.RTNLGRP_IPV6_ROUTE) as events:
        _wait(events, operation, settled, NO_ADDRESS)


def await_addresses(spaces: Spaces, operation: awaits.AwaitAddresses) -> None:
    """Wait until no address of an interface is tentative; a duplicate address is an error.

    The interface's link-local address is waited for before that error, because who has the address is asked from there.
    """
    index = _index(spaces, operation.netns, operation)
    route = spaces.get(operation.netns).route

    def settled() -> bool:
        messages = route.dump(requests.get_addresses(index)).messages
        states = [answers.read_address_state(data) for data in messages if answers.index_of(data) == index]
        waiting = any(tentative for _, tentative, _ in states)
        failed = [address for address, _, is_duplicate in states if is_duplicate]
        own = [address for address in failed if is_link_local(address)]
        if own or (failed and not waiting):
            address = (own or failed)[0]
            from cni_v6.kernel.mac_claims import duplicate  # rarely needed

            raise duplicate(address, operation.ifname, "" if own else _holder(spaces, operation, index, address))
        return not waiting

    with spaces.get(operation.netns).event_socket(uapi.RTNLGRP_IPV6_IFADDR, index) as events:
        _wait(events, operation, settled, NO_END)


def _holder(spaces: Spaces, operation: awaits.AwaitAddresses, index: int, address: str) -> str:
    """The MAC of the node that has an address; "" if it does not answer.

    The kernel tells it to nobody (ndisc_recv_na, net/ipv6/ndisc.c), so it is asked to resolve the address, which the
    interface must not have itself.
    """
    ip, space = address.partition("/")[0], spaces.get(operation.netns)
    found: list[str] = []

    def answered() -> bool:
        messages = space.route.dump(pyroute2_messages.get_neighbours(index)).messages
        told = (mac for at, whose, mac in map(pyroute2_messages.read_answer, messages) if (at, whose) == (index, ip))
        found.extend(mac for mac in told if mac is not None)
        return bool(found)

    remove = requests.remove_address(ops.RemoveAddress(operation.netns, operation.ifname, address), index)
    with space.event_socket(uapi.RTNLGRP_NEIGH, index) as events, suppress(CniError):
        space.route.request([remove, pyroute2_messages.ask_neighbour(ip, index)])
        _wait(events, operation, answered, patience=ANSWER_SECONDS)
    return next(iter(found), "")


def await_router(spaces: Spaces, operation: awaits.AwaitRouter) -> None:
    """Wait for an address and a default route; the notifications of both come on one socket."""
    from cni_v6.kernel import autoconf  # of one kind of network

    index, space = _index(spaces, operation.netns, operation), spaces.get(operation.netns)
    missing: list[str] = []

    def settled() -> bool:
        held = [answers.read_address_state(data) for data in space.route.dump(requests.get_addresses(index)).messages
                if answers.index_of(data) == index and answers.family_of(data) == uapi.AF_INET6]
        usable = [address for address, tentative, failed in held
                  if not (tentative or failed or is_link_local(address))]
        routes = map(answers.read_route, space.route.dump(requests.get_routes(6, index)).messages)
        defaults = [found for found in routes if found and found[0] == index and found[1].dst == "::/0"]
        missing[:] = [what for what, there in ((autoconf.ADDRESS, usable), (autoconf.ROUTE, defaults)) if not there]
        return not missing

    with space.event_socket(uapi.RTNLGRP_IPV6_IFADDR) as events:
        events.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, uapi.RTNLGRP_IPV6_ROUTE)
        try:
            _wait(events, operation, settled, patience=operation.seconds)
        except CniError as error:
            raise (autoconf.no_router(operation.ifname, operation.seconds, missing) if missing else error) from error


def await_end(spaces: Spaces, operation: awaits.AwaitEnd) -> None:
    """Wait until the interface with this name, and its present index, is gone."""
    index = spaces.index(HOST, operation.ifname)
    if index is None:
        return
    route = spaces.get(HOST).route

    def gone() -> bool:
        return not route.request([requests.get_link_by_index(index)])[0].messages

    with spaces.get(HOST).event_socket(uapi.RTNLGRP_LINK, index) as events:
        _wait(events, operation, gone, STAYS, operation.seconds)
    spaces.forget_indices()


def _index(spaces: Spaces, netns: str, operation: awaits.Await) -> int:
    index = spaces.index(netns, operation.ifname)
    if index is None:
        raise _failure(operation, GONE)
    return index


def _wait(
    events: socket.socket, operation: Op, settled: Callable[[], bool], otherwise: str = LATE,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Read the state again at each notification about the interface.

    The time is over for a container too that gives reason for notifications without end.

    :param otherwise: the hint in the error if the state does not come.
    :param patience: seconds.
    """
    deadline = time.monotonic() + patience
    late = f"nothing within {patience:g} seconds; {otherwise}"
    while not settled():
        _await_news(events, deadline, operation, late)


def _await_news(events: socket.socket, deadline: float, operation: Op, late: str) -> None:
    poll = select.poll()  # select(2) takes no descriptor above 1023
    poll.register(events, select.POLLIN)
    with without_token():
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    if not ready or time.monotonic() > deadline:
        raise _failure(operation, late)
    try:
        events.recv(RECEIVE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # notifications were lost; the state is read again anyway
            raise _failure(operation, str(error)) from error


def _failure(operation: Op, words: str) -> CniError:
    return CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", words)


WAITS: dict[type[Any], Callable[[Spaces, Any], None]] = {
    awaits.AwaitPort: await_port,
    awaits.AwaitCarrier: await_carrier,
    awaits.AwaitReception: await_reception,
    awaits.AwaitAddresses: await_addresses,
    awaits.AwaitRouter: await_router,
    awaits.AwaitEnd: await_end,
}
