"""What the kernel tells of changes of the node's links, addresses, routes and settings, read when somebody asks.

Nobody is woken up by it: the notifications wait in the socket. If there are more than it has room for, that is told.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import NamedTuple

from cni_v6.kernel.netlink import answers
from cni_v6.kernel.netlink.message import HEADER, as_int, picked
from cni_v6.kernel.netlink.requests import IFADDRMSG
from cni_v6.kernel.netlink.socket import RECEIVE_BYTES, split, subscribe
from cni_v6.kernel.netlink.uapi import (
    NETCONFA_IFINDEX,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNETCONF,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNETCONF,
    RTM_NEWROUTE,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
)

GROUPS = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE,
          RTNLGRP_IPV6_NETCONF)
RECEIVE_BUFFER = 2 << 20  # bytes; the notifications of some hundred containers
NETCONF_BYTES = 4  # struct netconfmsg, aligned


class News(NamedTuple):
    """``name``: of an interface, or the prefix of a route. ``alias``: of an interface, "" where it is not told.
    ``is_gone``: the interface has left the node, or its bridge."""

    name: str
    alias: str = ""
    is_gone: bool = False


class NodeNews:
    """The news since the last ``read``, in the network namespace of the thread that makes it.

    :raises OSError: the kernel does not let us.
    """

    def __init__(self) -> None:
        self._events = subscribe(GROUPS, receive_buffer=RECEIVE_BUFFER)
        self._events.setblocking(False)

    def read(self) -> list[News] | None:
        """None: some were lost."""
        found: list[News] = []
        lost = False
        while True:
            try:
                data = self._events.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return None if lost else found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
            else:
                found += [news for kind, _, _, message in split(data) for news in _news(kind, message)]

    def close(self) -> None:
        self._events.close()


def _news(kind: int, message: bytes) -> Iterator[News]:
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        name, alias, _ = answers.alias_of(message)
        yield News(name, alias, kind == RTM_DELLINK)
    elif kind in (RTM_NEWROUTE, RTM_DELROUTE):
        yield News(answers.read_any_route(message)[1].dst)
    elif kind in (RTM_NEWADDR, RTM_DELADDR):
        yield from _named(IFADDRMSG.unpack_from(message, HEADER.size)[-1])
    elif kind in (RTM_NEWNETCONF, RTM_DELNETCONF):
        given = picked(message, (NETCONFA_IFINDEX,), HEADER.size + NETCONF_BYTES)
        yield from _named(as_int(given.get(NETCONFA_IFINDEX)))


def _named(index: int) -> Iterator[News]:
    """By its name. One that is gone, or stands for all (NETCONFA_IFINDEX_ALL), has none: other news tell of it."""
    try:
        yield News(socket.if_indextoname(index))
    except (OSError, OverflowError):
        return
