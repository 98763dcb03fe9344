"""The kernel's notifications of whatever the agent's look at the node depends on."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing, suppress

from cni_v6.cluster.protocol import PROTOCOL
from cni_v6.kernel.netlink import answers, uapi
from cni_v6.kernel.netlink.message import HEADER
from cni_v6.kernel.netlink.socket import BYTE, RECEIVE_BYTES, Test, is_about, is_of_protocol, split, subscribe

ROUTES = (uapi.RTNLGRP_IPV4_ROUTE, uapi.RTNLGRP_IPV6_ROUTE)
GROUPS: Mapping[int, tuple[Test, ...]] = {
    **dict.fromkeys(ROUTES, is_of_protocol(PROTOCOL)),
    uapi.RTNLGRP_IPV4_RULE: (), uapi.RTNLGRP_IPV6_RULE: (),
    uapi.RTNLGRP_LINK: (), uapi.RTNLGRP_IPV4_IFADDR: (), uapi.RTNLGRP_IPV6_IFADDR: (),
}
# Of what may be the default route (``requests.get_uplink``): tunnels have 2000::/3, and VPNs 0.0.0.0/1, in its place.
LENGTHS = range(4)
LINKS = (uapi.RTM_NEWLINK, uapi.RTM_DELLINK)
ADDRESSES = (uapi.RTM_NEWADDR, uapi.RTM_DELADDR)


class News:
    """Those of the network namespace that this is made in. ``fileno`` can be read when there are some.

    :param own: the port (netlink(7)) that the agent's own requests come from: what they change is no news.
    """

    def __init__(self, own: int) -> None:
        self._own = own
        self._interest: tuple[Collection[int], Collection[str]] | None = None
        with ExitStack() as undo:
            self._poll = undo.enter_context(closing(select.epoll()))
            wanted = (*GROUPS.items(), *((group, _of_length(length)) for group in ROUTES for length in LENGTHS))
            self._sockets = [undo.enter_context(closing(subscribe((group,), tests))) for group, tests in wanted]
            self._neighbours: socket.socket | None = None
            self._tunnel = 0
            for opened in self._sockets:
                self._listen(opened)
            undo.pop_all()

    def of_interfaces(self, indices: Collection[int], names: Collection[str]) -> None:
        """Take only these interfaces for news, and others that get one of these names. Without indices all are."""
        self._interest = (indices, names) if indices else None

    def of_tunnel(self, index: int) -> None:
        """Listen for neighbours of the interface with this index, 0 for none; containers' are none of our business."""
        if index == self._tunnel:
            return
        if self._neighbours:
            self._sockets.remove(self._neighbours)
            self._neighbours.close()  # epoll forgets it
        self._tunnel = index
        self._neighbours = subscribe((uapi.RTNLGRP_NEIGH,), is_about(index)) if index else None
        if self._neighbours:
            self._sockets.append(self._neighbours)
            self._listen(self._neighbours)

    def fileno(self) -> int:
        return self._poll.fileno()

    def drain(self) -> bool:
        """Take all of them; whether one matters. Lost ones (ENOBUFS) do: nobody knows what they were."""
        matter = False
        for opened in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    data = _receive(opened)
                    matter = matter or data is None or any(self._matters(kind, message)
                                                           for kind, _, _, message in split(data))
        return matter

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._poll.close()

    def _matters(self, kind: int, message: bytes) -> bool:
        if kind not in (*LINKS, *ADDRESSES):
            return bool(HEADER.unpack_from(message)[4] != self._own)
        if self._interest is None:
            return True
        indices, names = self._interest
        return answers.index_of(message) in indices or kind in LINKS and answers.name_of(message) in names

    def _listen(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        self._poll.register(opened, select.EPOLLIN)


def _of_length(length: int) -> tuple[Test, ...]:
    """Matches notifications about routes to prefixes of a length: rtm_dst_len, the second byte of struct rtmsg."""
    return ((BYTE, HEADER.size + 1, length),)


def _receive(opened: socket.socket) -> bytes | None:
    """None for one that was lost."""
    try:
        return opened.recv(RECEIVE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return None
