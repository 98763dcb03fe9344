"""A netfilter socket: requests as on any netlink socket, and transactions, which the kernel applies all or none."""

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
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python does not define it
# Errors of a kernel without netfilter, or without the requested part (nfnetlink_rcv_msg, nfnetlink_rcv_batch).
NO_NETFILTER = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


def _open() -> Growing:
    opened = open_netlink(NETLINK_NETFILTER)
    opened.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an error without the request, which may be large
    return opened


class NetfilterSocket(NetlinkSocket):
    """A NETLINK_NETFILTER socket in the namespace of the thread that makes it. Not thread-safe.

    ``destroys``: the kernel has NFT_MSG_DESTROYSETELEM, as far as is known.

    :param opened: the socket to use; None for a new one.
    :raises OSError: EPROTONOSUPPORT if the kernel has no netfilter.
    """

    def __init__(self, opened: Growing | None = None) -> None:
        self.destroys = True
        self._growing = opened or _open()
        super().__init__(self._growing)

    def transact(self, messages: Sequence[Message]) -> list[Answer]:
        """Apply all messages or none; return the failures, [] on success.

        A transaction is one datagram (nfnetlink_rcv_batch). The kernel handles all messages, even after a failure, and
        answers at the end: first for the transaction, then for each message in order. So waiting for the answer to the
        last message is enough, or for an error of the whole transaction, which has no other answer.
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
                    continue  # the answer to an earlier transaction that failed as a whole
                error, words = read_error(data)
                if error:
                    failures.append(Answer(error, words))
                if sequence == last or (sequence == first and error):
                    return failures

    def _send_whole(self, data: bytes) -> None:
        """Send a datagram of any size: enlarge the send buffer if it is too small.

        :raises CniError: KERNEL_REFUSED if the buffer cannot be made large enough.
        """
        try:
            self._socket.send(data)
            return
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
        enlarge(self._growing, len(data), SO_SNDBUFFORCE, socket.SO_SNDBUF)  # the kernel doubles the size
        try:
            self._socket.send(data)
        except OSError as error:
            words = f"the firewall's changes are too large for the kernel: {len(data)} bytes in one transaction"
            remedy = f"{error.strerror}; on the node: sysctl -w net.core.wmem_max={len(data)}; or publish fewer ports"
            raise CniError(KERNEL_REFUSED, words, remedy) from error


class NoNetfilter(NetfilterSocket):
    """The socket of a kernel without netfilter: every request fails as if that part of netfilter were missing."""

    def __init__(self) -> None:
        self.destroys = False

    def close(self) -> None:
        """Nothing is open."""

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        return [Answer(errno.EPROTONOSUPPORT) for _ in messages]

    def dump(self, message: Message, most: int = 0) -> Answer:
        return Answer(errno.EPROTONOSUPPORT)

    def transact(self, messages: Sequence[Message]) -> list[Answer]:
        return self.request(messages[:1])


def open_netfilter() -> NetfilterSocket:
    """A socket in the namespace of this thread."""
    try:
        return NetfilterSocket()
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return NoNetfilter()
