"""Requests of the agent to rtnetlink, one at a time, and what the operator may do about one that is refused."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from cni_v6.cluster.facts import SRV6_IN, Entry, Op, Pair, Route, SegmentRoute, Tunnel
from cni_v6.cluster.protocol import PORT, VNI, WIREGUARD_PORT
from cni_v6.cluster.wireguard_values import Encrypted
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, RouteSocket, explain, open_route

NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)
OFF_LINK = (errno.EHOSTUNREACH, errno.EINVAL, errno.ENETUNREACH)  # what a next hop is refused with


class Asked:
    """Requests of the network namespace that this is made in. ``port``: that they come from (netlink(7))."""

    def __init__(self) -> None:
        opened = open_route()
        opened.bind((0, 0))  # else it has no port before its first request
        self.port = int(opened.getsockname()[0])
        self.socket = RouteSocket(opened)

    def link(self, request: Message | None) -> bytes | None:
        """The RTM_NEWLINK message of an interface; None if there is none."""
        [answer] = self.socket.request([request]) if request else [Answer()]
        return answer.messages[0] if answer.messages else None

    def index(self, name: str) -> int:
        """An interface's index, 0 if there is none."""
        data = self.link(requests.get_link(name))
        return answers.index_of(data) if data else 0

    def addresses(self, index: int, unfit: int = 0) -> Iterator[str]:
        """Those of an interface without any of the flags IFA_F_*."""
        for data in self.dump(requests.get_addresses(index)):
            address, flags = answers.read_address_flags(data)
            if not flags & unfit and answers.index_of(data) == index:
                yield address

    def dump(self, message: Message) -> Sequence[bytes]:
        """
        :raises CniError: KERNEL_REFUSED: half a list must not be taken for the whole.
        """
        answer = self.socket.dump(message)
        if answer.error and answer.error not in NO_FAMILY:
            raise CniError(KERNEL_REFUSED, "cannot list the node's addresses and routes", explain(answer))
        return answer.messages

    def do(self, operation: Op, message: Message, passed: Sequence[int] = ()) -> None:
        """
        :param passed: errors that are none.
        :raises CniError: KERNEL_REFUSED.
        """
        [answer] = self.socket.request([message])
        if answer.error and answer.error not in passed:
            raise refusal(operation, answer)


def refusal(operation: Op, answer: Answer) -> CniError:
    """What the operator may do about it."""
    remedy, what = explain(answer), getattr(operation, "what", None)
    if isinstance(what, Route | SegmentRoute) and what.gateway and answer.error in OFF_LINK:
        remedy += f"; is {what.ifname} up, and {what.gateway} on its link? carriers direct and srv6 need that"
    elif isinstance(what, SegmentRoute) and answer.error in (errno.EOPNOTSUPP, errno.EINVAL):
        remedy += "; the kernel has no SRv6 (CONFIG_IPV6_SEG6_LWTUNNEL, Linux 6.0 or newer): take carrier vxlan"
    if isinstance(what, Entry) and answer.error == errno.EEXIST:
        remedy += "; another program has such a route: remove it, and its owner"
    if isinstance(what, Tunnel) and answer.error == errno.EOPNOTSUPP:
        remedy += "; the kernel has no VXLAN: modprobe vxlan"
    if isinstance(what, Tunnel) and answer.error == errno.EEXIST:
        remedy += f"; another interface has VNI {VNI} on UDP port {PORT}"
    if isinstance(what, Encrypted) and answer.error == errno.EOPNOTSUPP:
        remedy += "; the kernel has no WireGuard (CONFIG_WIREGUARD): modprobe wireguard, or take carrier vxlan"
    if isinstance(what, Encrypted) and answer.error == errno.EADDRINUSE:
        remedy += f"; another program has UDP port {WIREGUARD_PORT}"
    if isinstance(what, Pair) and answer.error == errno.EEXIST:
        remedy += f"; another program has an interface {SRV6_IN}"
    return CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)
