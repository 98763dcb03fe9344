"""A netfilter socket: requests as on any netlink socket, and transactions, done by the kernel whole or not at all."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netfilter import messages as nft
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import (
    NLMSG_ERROR,
    SOL_NETLINK,
    Answer,
    Growing,
    NetlinkSocket,
    encode,
    enlarge,
    open_netlink,
    read_error,
)

NETLINK_NETFILTER, NETLINK_CAP_ACK = 12, 10  # linux/netlink.h
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python has no name for it
# What the kernel says that has no netfilter, or not the part asked for (nfnetlink_rcv_msg, nfnetlink_rcv_batch).
NO_NETFILTER = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


def _open() -> Growing:
    opened = open_netlink(NETLINK_NETFILTER)
    opened.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an error without the request, which may be large
    return opened


class NetfilterSocket(NetlinkSocket):
    """NETLINK_NETFILTER in the namespace of the thread that makes it. Not for two threads at once.

    ``destroys``: this kernel takes out elements that are not there without a failure, as far as is known.

    :param opened: what to talk through instead.
    :raises OSError: EPROTONOSUPPORT where the kernel has none.
    """

    def __init__(self, opened: Growing | None = None) -> None:
        self.destroys = True
        self._growing = opened or _open()
        super().__init__(self._growing)

    def transact(self, messages: Sequence[Message]) -> list[Answer]:
        """Do all of them, or none; return the failures, [] when it is done.

        One datagram, since the kernel's transaction is one (nfnetlink_rcv_batch). It works through all messages even
        after a failure, and answers at the end: first for the whole, then in order. So the last one's acknowledgement
        is enough, or an error for the whole without one.
        """
        if not messages:
            return []
        framed = [nft.begin(), *messages, nft.end()]
        first, last = self._sequence + 1, self._sequence + len(messages) + 1
        self._sequence += len(framed)
        numbered = enumerate(framed, first)
        self._send_whole(b"".join(encode(message, number, number == last) for number, message in numbered))
        failures: list[Answer] = []
        while True:
            for kind, _, sequence, data in self._receive():
                if kind != NLMSG_ERROR or not first <= sequence <= last + 1:
                    continue  # left over from a transaction that failed as a whole
                error, words = read_error(data)
                if error:
                    failures.append(Answer(error, words))
                if sequence == last or (sequence == first and error):
                    return failures

    def _send_whole(self, data: bytes) -> None:
        """Send it however large it is: the buffer's usual bound is raised, where we may.

        :raises CniError: KERNEL_REFUSED where it is larger than that.
        """
        try:
            self._socket.send(data)
            return
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
        enlarge(self._growing, len(data), SO_SNDBUFFORCE, socket.SO_SNDBUF)  # the kernel takes it twice
        try:
            self._socket.send(data)
        except OSError as error:
            words = f"the firewall's changes are too large for the kernel: {len(data)} bytes in one transaction"
            remedy = f"{error.strerror}; on the node: sysctl -w net.core.wmem_max={len(data)}; or publish fewer ports"
            raise CniError(KERNEL_REFUSED, words, remedy) from error


class NoNetfilter(NetfilterSocket):
    """A kernel's that was built without netfilter: everything is refused, as by one that lacks a part of it."""

    def __init__(self) -> None:
        self.destroys = False

    def close(self) -> None:
        """Nothing is open."""

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        return [Answer(errno.EPROTONOSUPPORT) for _ in messages]

    def dump(self, message: Message) -> Answer:
        return Answer(errno.EPROTONOSUPPORT)

    def transact(self, messages: Sequence[Message]) -> list[Answer]:
        return self.request(messages[:1])


def open_netfilter() -> NetfilterSocket:
    """The socket of the namespace that this thread is in."""
    try:
        return NetfilterSocket()
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return NoNetfilter()
