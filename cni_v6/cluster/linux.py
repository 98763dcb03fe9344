"""The real kernel of the agent: its own routes, the interface to the other nodes, and news of both.

Our routes are known by their protocol number. Their metrics are our own too, so that a route which an operator adds by
hand is never the same route, and wins.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress

from cni_v6.cluster.facts import AddRoute, Facts, Op, Route, Underlay
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests, uapi
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import (
    RECEIVE_BYTES,
    Answer,
    RouteSocket,
    Test,
    explain,
    is_of_protocol,
    subscribe,
)

PROTOCOL = 166  # no other program's: /etc/iproute2/rt_protos, linux/rtnetlink.h
METRIC = 2048  # IPv6 routes that are added without one have 1024 (IP6_RT_PRIO_USER), and IPv4 ones 0
LAST_METRIC = 0xFFFF_FFFE  # of unreachable ones; the routed plugin's have the number after it
UNFIT = uapi.IFA_F_TEMPORARY | uapi.IFA_F_DEPRECATED | uapi.IFA_F_DADFAILED | uapi.IFA_F_TENTATIVE
GONE = (errno.ESRCH, errno.ENOENT)
OFF_LINK = (errno.EHOSTUNREACH, errno.EINVAL, errno.ENETUNREACH)  # what a next hop is refused with
NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
GROUPS: Mapping[int, tuple[Test, ...]] = {
    uapi.RTNLGRP_IPV4_ROUTE: is_of_protocol(PROTOCOL), uapi.RTNLGRP_IPV6_ROUTE: is_of_protocol(PROTOCOL),
    uapi.RTNLGRP_LINK: (), uapi.RTNLGRP_IPV4_IFADDR: (), uapi.RTNLGRP_IPV6_IFADDR: (),
}


class LinuxNode:
    """The kernel of the network namespace that this is made in.

    :param underlay: the interface to the other nodes; "" for that of the default route, IPv6 first.
    """

    def __init__(self, underlay: str) -> None:
        self._wanted = underlay
        self._socket = RouteSocket()
        self._index = 0

    def close(self) -> None:
        self._socket.close()

    def observe(self) -> Facts:
        underlay = self._underlay()
        return Facts(underlay, frozenset(self._routes(underlay)))

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        listed, indices = list(operations), dict[str, int | None]()
        for name in {operation.route.ifname for operation in listed if operation.route.ifname}:
            [answer] = self._socket.request([requests.get_link(name)])
            indices[name] = answers.index_of(answer.messages[0]) if answer.messages else None
        gone = {name for name, index in indices.items() if index is None}
        lost = [change for change in listed if isinstance(change, AddRoute) and change.route.ifname in gone]
        sent = [change for change in listed if change not in lost]
        answered = self._socket.request([_message(change, indices.get(change.route.ifname)) for change in sent])
        refused = [_refusal(change, answer) for change, answer in zip(sent, answered) if not _is_done(change, answer)]
        return refused + [_refusal(change, Answer(errno.ENODEV)) for change in lost]

    def _underlay(self) -> Underlay | None:
        request = self._link_request()
        [answer] = self._socket.request([request]) if request else [Answer()]
        if not answer.messages:
            self._index = 0
            return None
        [data] = answer.messages
        self._index = answers.index_of(data)
        link, _ = answers.read_link(data)
        return Underlay(link.name, link.mtu, link.up, tuple(sorted(self._addresses())))

    def _link_request(self) -> Message | None:
        if self._wanted:
            return requests.get_link(self._wanted)
        for found in self._socket.request([requests.get_uplink(6), requests.get_uplink(4)]):
            for index in (answers.read_uplinks(found.messages[0]) if found.messages else ()):
                return requests.get_link_by_index(index)
        return None

    def _addresses(self) -> Iterator[str]:
        for data in self._dump(requests.get_addresses(self._index)):
            address, flags = answers.read_address_flags(data)
            if not flags & UNFIT and answers.index_of(data) == self._index:
                yield address

    def _routes(self, underlay: Underlay | None) -> Iterator[Route]:
        for family in (uapi.AF_INET6, uapi.AF_INET):
            for data in self._dump(pyroute2_messages.get_protocol_routes(family, PROTOCOL)):
                index, entry = answers.read_any_route(data)
                if entry.table != uapi.RT_TABLE_MAIN or answers.family_of(data) != family:
                    continue
                if answers.route_type(data) == uapi.RTN_UNREACHABLE:
                    yield Route(entry.dst)
                else:
                    ifname = underlay.ifname if underlay and index == self._index else f"interface {index}"
                    yield Route(entry.dst, ifname, entry.gateway)

    def _dump(self, message: Message) -> Sequence[bytes]:
        """
        :raises CniError: KERNEL_REFUSED: half a list must not be taken for the whole.
        """
        answer = self._socket.dump(message)
        if answer.error and answer.error not in NO_FAMILY:
            raise CniError(KERNEL_REFUSED, "cannot list the node's addresses and routes", explain(answer))
        return answer.messages


class News:
    """The kernel's notifications of what an observation depends on. ``fileno`` can be read when there are some."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self._poll = undo.enter_context(closing(select.epoll()))
            self._sockets = [undo.enter_context(closing(subscribe(group, tests))) for group, tests in GROUPS.items()]
            for opened in self._sockets:
                opened.setblocking(False)
                self._poll.register(opened, select.EPOLLIN)
            undo.pop_all()

    def fileno(self) -> int:
        return self._poll.fileno()

    def drain(self) -> bool:
        """Take all of them; True, as each may matter. Lost ones (ENOBUFS) count too."""
        for opened in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    _receive(opened)
        return True

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._poll.close()


def _receive(opened: socket.socket) -> None:
    try:
        opened.recv(RECEIVE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


def _message(operation: Op, index: int | None) -> Message:
    route = operation.route
    priority = METRIC if route.ifname else LAST_METRIC
    if isinstance(operation, AddRoute):
        return pyroute2_messages.add_protocol_route(
            route.dst, protocol=PROTOCOL, priority=priority, index=index, gateway=route.gateway,
        )
    return pyroute2_messages.remove_protocol_route(route.dst, protocol=PROTOCOL, priority=priority)


def _is_done(operation: Op, answer: Answer) -> bool:
    return not answer.error or (not isinstance(operation, AddRoute) and answer.error in GONE)


def _refusal(operation: Op, answer: Answer) -> CniError:
    remedy, route = explain(answer), operation.route
    if isinstance(operation, AddRoute) and route.gateway and answer.error in OFF_LINK:
        remedy += f"; is {route.ifname} up, and {route.gateway} on its link? carrier direct needs that"
    if answer.error == errno.EEXIST:
        remedy += "; another program has such a route: remove it, and its owner"
    return CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)
