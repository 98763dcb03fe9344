"""The kernel's notifications of whatever the agent's look at the node depends on."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress

from cni_v6.cluster.protocol import PROTOCOL
from cni_v6.kernel.netlink import uapi
from cni_v6.kernel.netlink.socket import RECEIVE_BYTES, Test, is_about, is_of_protocol, subscribe

GROUPS: Mapping[int, tuple[Test, ...]] = {
    uapi.RTNLGRP_IPV4_ROUTE: is_of_protocol(PROTOCOL), uapi.RTNLGRP_IPV6_ROUTE: is_of_protocol(PROTOCOL),
    uapi.RTNLGRP_IPV4_RULE: (), uapi.RTNLGRP_IPV6_RULE: (),
    uapi.RTNLGRP_LINK: (), uapi.RTNLGRP_IPV4_IFADDR: (), uapi.RTNLGRP_IPV6_IFADDR: (),
}


class News:
    """Those of the network namespace that this is made in. ``fileno`` can be read when there are some."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self._poll = undo.enter_context(closing(select.epoll()))
            self._sockets = [undo.enter_context(closing(subscribe(group, tests))) for group, tests in GROUPS.items()]
            self._neighbours: socket.socket | None = None
            self._tunnel = 0
            for opened in self._sockets:
                self._listen(opened)
            undo.pop_all()

    def of_tunnel(self, index: int) -> None:
        """Listen for neighbours of the interface with this index, 0 for none; containers' are none of our business."""
        if index == self._tunnel:
            return
        if self._neighbours:
            self._sockets.remove(self._neighbours)
            self._neighbours.close()  # epoll forgets it
        self._tunnel = index
        self._neighbours = subscribe(uapi.RTNLGRP_NEIGH, is_about(index)) if index else None
        if self._neighbours:
            self._sockets.append(self._neighbours)
            self._listen(self._neighbours)

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

    def _listen(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        self._poll.register(opened, select.EPOLLIN)


def _receive(opened: socket.socket) -> None:
    try:
        opened.recv(RECEIVE_BYTES)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
