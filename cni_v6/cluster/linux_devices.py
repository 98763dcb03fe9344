"""The interfaces of the carriers on the real kernel: what they must be like, and what makes them so."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from cni_v6.cluster.facts import (
    SRV6,
    SRV6_IN,
    TUNNEL,
    Device,
    Entry,
    Op,
    Pair,
    RemoveDevice,
    Route,
    SegmentRoute,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.protocol import PORT, VNI
from cni_v6.cluster.tables import Tables, messages, source
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops, sysctl
from cni_v6.kernel.netlink import answers, devconf, pyroute2_tunnels, requests, segments
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, RouteSocket, explain, open_route

NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV)
OFF_LINK = (errno.EHOSTUNREACH, errno.EINVAL, errno.ENETUNREACH)  # what a next hop is refused with
PAIR_MAC = "02:00:00:00:00:a6"  # both ends have it, so that each takes what the other sends
# Of SRV6_IN. It has no address, so even a loose filter would drop IPv4, and what comes in there may be from the node
# itself: by IPv4 the kernel drops a source of its own (fib_validate_source, net/ipv4/fib_frontend.c).
INNER = {f"ipv4/conf/{SRV6_IN}/rp_filter": "0", f"ipv4/conf/{SRV6_IN}/accept_local": "1"}


class Asked:
    """Requests to rtnetlink, one at a time. ``port``: that they come from (netlink(7))."""

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


class Devices:
    """The interfaces TUNNEL and SRV6 of the network namespace."""

    def __init__(self, asked: Asked, sysctls: sysctl.Folders, tables: Tables) -> None:
        self._asked = asked
        self._sysctls = sysctls
        self._tables = tables

    def look(
        self, underlay: Underlay | None, index: int
    ) -> tuple[dict[str, Device | None], frozenset[Device], dict[int, str]]:
        """(as ``Facts.devices``, as ``Facts.interfaces``, the names of their ends by index).

        :param index: of the underlay.
        """
        found: dict[str, Device | None] = {}
        interfaces: set[Device] = set()
        names: dict[int, str] = {}
        for name in (TUNNEL, SRV6, SRV6_IN):
            data = self._asked.link(requests.get_link(name))
            if data:
                names[answers.index_of(data)] = name
                if name == SRV6_IN:
                    continue
                device = self._tunnel(data, underlay, index) if name == TUNNEL else self._pair(data)
                interfaces |= {device.interface} if device else set()
                found[name] = device if device and self._has_table(device) else None
        for name, table in ((TUNNEL, self._tables.tunnel), (SRV6, self._tables.srv6)):
            if table.look():
                found.setdefault(name, None)
        return found, frozenset(interfaces), names

    def _has_table(self, device: Device) -> bool:
        if isinstance(device, Tunnel):
            return self._tables.tunnel.has(device) or self._tables.tunnel.without
        return self._tables.srv6.has(device)

    def _tunnel(self, data: bytes, underlay: Underlay | None, index: int) -> Tunnel | None:
        """The tunnel; None if its interface is not whole, as when an agent ended before it was, or somebody changed it.
        """
        link, _ = answers.read_link(data)
        given = pyroute2_tunnels.read_vxlan(data)
        addresses = [*self._asked.addresses(answers.index_of(data))]
        wanted = {"vni": VNI, "port": PORT, "link": index, "learning": 0}
        as_wanted = all(given.get(key) == value for key, value in wanted.items())
        if not underlay or not link.up or not as_wanted or len(addresses) != 1:
            return None
        return Tunnel(underlay.ifname, str(given["local"]), link.mac, addresses[0], link.mtu)

    def _pair(self, data: bytes) -> Pair | None:
        """The pair; None if its interfaces are not whole."""
        other = self._asked.link(requests.get_link(SRV6_IN))
        if other is None or answers.peer_of(data) != answers.index_of(other):
            return None
        mtu = answers.read_link(data)[0].mtu
        for end in (data, other):
            link, master = answers.read_link(end)
            as_made = (link.kind, link.mac, link.mtu, master) == ("veth", PAIR_MAC, mtu, 0)
            if not as_made or not segments.is_up_without_arp(end) or [*self._asked.addresses(answers.index_of(end))]:
                return None
        return None if self._wrong_inside() else Pair(mtu, source(self._tables.srv6.look()))

    def _wrong_inside(self) -> dict[str, str]:
        """Of INNER what is not so. A kernel without IPv4 has none of it."""
        return {key: value for key, value in INNER.items() if sysctl.read(self._sysctls, key) not in (value, None)}

    def remove(self, operation: RemoveDevice) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        self._asked.do(operation, requests.delete_link(ops.DeleteLink(ops.HOST, operation.ifname)), GONE)
        {TUNNEL: self._tables.tunnel, SRV6: self._tables.srv6}[operation.ifname].remove(operation)

    def add(self, operation: Op, device: Device) -> None:
        """
        :raises CniError: KERNEL_REFUSED, IO_FAILURE.
        """
        if isinstance(device, Pair):
            self._add_pair(operation, device)
        else:
            self._add_tunnel(operation, device)

    def _add_tunnel(self, operation: Op, tunnel: Tunnel) -> None:
        """The table first: the tunnel must at no time take what is not from a node.

        The interface in four requests: one takes no way to make link-local addresses (rtnl_newlink).
        """
        if not self._tables.tunnel.without:
            self._tables.tunnel.load(operation, messages(tunnel))
        self._asked.do(operation, pyroute2_tunnels.create_vxlan(
            TUNNEL, vni=VNI, port=PORT, local=tunnel.local, link=self._asked.index(tunnel.underlay), mac=tunnel.mac,
            mtu=tunnel.mtu,
        ))
        index = self._without_own_address(operation, TUNNEL)
        address = ops.AddAddress(ops.HOST, TUNNEL, f"{tunnel.address}/64")
        self._asked.do(operation, requests.set_link(ops.SetLink(ops.HOST, TUNNEL, up=True)))
        self._asked.do(operation, requests.add_address(address, index))

    def _add_pair(self, operation: Op, pair: Pair) -> None:
        self._tables.srv6.load(operation, messages(pair))
        self._asked.do(operation, segments.create_pair(SRV6, SRV6_IN, address=PAIR_MAC, mtu=pair.mtu))
        for name in (SRV6, SRV6_IN):
            self._without_own_address(operation, name)
        for key, value in self._wrong_inside().items():
            message = devconf.setting(key, value, self._asked.index(SRV6_IN))
            assert message
            self._asked.do(operation, message)
        for name in (SRV6, SRV6_IN):
            self._asked.do(operation, segments.set_up_without_arp(name))

    def _without_own_address(self, operation: Op, ifname: str) -> int:
        """Let the kernel make no link-local address for an interface; its index."""
        index = self._asked.index(ifname)
        message = devconf.setting(f"ipv6/conf/{ifname}/addr_gen_mode", "1", index)
        assert message
        self._asked.do(operation, message)
        return index


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
    if isinstance(what, Pair) and answer.error == errno.EEXIST:
        remedy += f"; another program has an interface {SRV6_IN}"
    return CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)
