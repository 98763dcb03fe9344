"""The real kernel of the agent: its routes, the interface to the other nodes, the tunnel.

Our routes are known by their protocol number. Their metrics are our own too, so that a route which an operator adds by
hand is never the same route, and wins.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cni_v6.cluster.facts import (
    TUNNEL,
    Add,
    Endpoint,
    Entry,
    Facts,
    Forward,
    Neighbour,
    Op,
    Remove,
    Route,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.news import News
from cni_v6.cluster.protocol import LAST_METRIC, METRIC, PORT, PROTOCOL, VNI
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops, sysctl
from cni_v6.kernel.netlink import answers, devconf, pyroute2_messages, pyroute2_tunnels, requests, uapi
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, RouteSocket, explain

UNFIT = uapi.IFA_F_TEMPORARY | uapi.IFA_F_DEPRECATED | uapi.IFA_F_DADFAILED | uapi.IFA_F_TENTATIVE
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV)
OFF_LINK = (errno.EHOSTUNREACH, errno.EINVAL, errno.ENETUNREACH)  # what a next hop is refused with
NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
FORCED = "ipv6/conf/{}/force_forwarding"  # Linux 6.17 and later; before, an ADD turns on all interfaces


class LinuxNode:
    """The kernel of the network namespace that this is made in.

    :param underlay: the interface to the other nodes; "" for that of the default route, IPv6 first.
    """

    def __init__(self, underlay: str) -> None:
        self._wanted = underlay
        self._socket = RouteSocket()
        self._sysctls = sysctl.Folders(at_once=True)
        self.news = News()

    def close(self) -> None:
        self._socket.close()
        self._sysctls.close()
        self.news.close()

    def observe(self) -> Facts:
        below = self._link(self._underlay_request())
        index = answers.index_of(below) if below else 0
        above = self._link(requests.get_link(TUNNEL))
        tunnel = answers.index_of(above) if above else 0
        self.news.of_tunnel(tunnel)
        underlay = self._underlay(below) if below else None
        names = {index: underlay.ifname, tunnel: TUNNEL} if underlay else {tunnel: TUNNEL}
        whole = self._tunnel(above, underlay, index) if above and underlay else None
        entries = [*self._routes(names), *(self._of_tunnel(tunnel) if whole else ())]
        return Facts(underlay, whole, bool(above), frozenset(entries), frozenset(self._closed(names.values())))

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        found = []
        indices: dict[str, int] = {}
        for operation in operations:
            try:
                self._apply(operation, indices)
            except CniError as error:
                found.append(error)
        return found

    # What there is

    def _link(self, request: Message | None) -> bytes | None:
        """The RTM_NEWLINK message of an interface; None if there is none."""
        [answer] = self._socket.request([request]) if request else [Answer()]
        return answer.messages[0] if answer.messages else None

    def _underlay_request(self) -> Message | None:
        if self._wanted:
            return requests.get_link(self._wanted)
        for found in self._socket.request([requests.get_uplink(6), requests.get_uplink(4)]):
            for index in answers.read_uplinks(found.messages[0]) if found.messages else ():
                return requests.get_link_by_index(index)
        return None

    def _underlay(self, data: bytes) -> Underlay:
        link, _ = answers.read_link(data)
        return Underlay(link.name, link.mtu, link.up, tuple(sorted(self._addresses(answers.index_of(data)))))

    def _addresses(self, index: int, unfit: int = UNFIT) -> Iterator[str]:
        for data in self._dump(requests.get_addresses(index)):
            address, flags = answers.read_address_flags(data)
            if not flags & unfit and answers.index_of(data) == index:
                yield address

    def _tunnel(self, data: bytes, underlay: Underlay, index: int) -> Tunnel | None:
        """The tunnel; None if it is not whole, as when an agent ended before it was, or somebody changed it."""
        link, _ = answers.read_link(data)
        given = pyroute2_tunnels.read_vxlan(data)
        addresses = [*self._addresses(answers.index_of(data), 0)]
        wanted = {"vni": VNI, "port": PORT, "link": index, "learning": 0}
        if not link.up or any(given.get(key) != value for key, value in wanted.items()) or len(addresses) != 1:
            return None
        return Tunnel(underlay.ifname, str(given["local"]), link.mac, addresses[0], link.mtu)

    def _of_tunnel(self, index: int) -> Iterator[Entry]:
        for data in self._dump(pyroute2_messages.get_neighbours(index)):
            read = pyroute2_messages.read_neighbour(data)
            if read and answers.family_of(data) == uapi.AF_INET6:
                yield Neighbour(*read[1])
        for data in self._dump(pyroute2_tunnels.get_endpoints(index)):
            yield Endpoint(*pyroute2_tunnels.read_endpoint(data))

    def _routes(self, names: Mapping[int, str]) -> Iterator[Route]:
        for family in (uapi.AF_INET6, uapi.AF_INET):
            for data in self._dump(pyroute2_tunnels.get_protocol_routes(family, PROTOCOL)):
                index, entry = answers.read_any_route(data)
                if entry.table != uapi.RT_TABLE_MAIN or answers.family_of(data) != family:
                    continue
                if answers.route_type(data) == uapi.RTN_UNREACHABLE:
                    yield Route(entry.dst)
                else:
                    yield Route(entry.dst, names.get(index, f"interface {index}"), entry.gateway)

    def _closed(self, names: Iterable[str]) -> Iterator[str]:
        if sysctl.read(self._sysctls, "ipv6/conf/all/forwarding") == "0":
            yield from (name for name in names if sysctl.read(self._sysctls, FORCED.format(name)) == "0")

    def _dump(self, message: Message) -> Sequence[bytes]:
        """
        :raises CniError: KERNEL_REFUSED: half a list must not be taken for the whole.
        """
        answer = self._socket.dump(message)
        if answer.error and answer.error not in NO_FAMILY:
            raise CniError(KERNEL_REFUSED, "cannot list the node's addresses and routes", explain(answer))
        return answer.messages

    # What is done

    def _apply(self, operation: Op, indices: dict[str, int]) -> None:
        """
        :param indices: of interfaces, as far as they are known; looked up once for a thousand routes.
        """
        if isinstance(operation, Forward):
            sysctl.write(self._sysctls, FORCED.format(operation.ifname), "1")
        elif isinstance(operation.what, Tunnel):
            indices.clear()
            if isinstance(operation, Add):
                self._add_tunnel(operation, operation.what)
            else:
                self._request(operation, requests.delete_link(ops.DeleteLink(ops.HOST, TUNNEL)))
        else:
            name = operation.what.ifname if isinstance(operation.what, Route) else TUNNEL
            if name and name not in indices:
                indices[name] = self._index(name)
            index = indices.get(name)
            if index == 0 and isinstance(operation, Add):
                raise _refusal(operation, Answer(errno.ENODEV))
            if index == 0 and not isinstance(operation.what, Route):
                return  # it went with the tunnel
            self._request(operation, _REQUESTS[type(operation), type(operation.what)](operation.what, index))

    def _add_tunnel(self, operation: Op, tunnel: Tunnel) -> None:
        """In four requests: one for the interface takes no way to make link-local addresses (rtnl_newlink)."""
        self._request(operation, pyroute2_tunnels.create_vxlan(
            TUNNEL, vni=VNI, port=PORT, local=tunnel.local, link=self._index(tunnel.underlay), mac=tunnel.mac,
            mtu=tunnel.mtu,
        ))
        index = self._index(TUNNEL)
        none = devconf.setting(f"ipv6/conf/{TUNNEL}/addr_gen_mode", "1", index)
        assert none
        address = ops.AddAddress(ops.HOST, TUNNEL, f"{tunnel.address}/64")
        for message in (none, requests.set_link(ops.SetLink(ops.HOST, TUNNEL, up=True)),
                        requests.add_address(address, index)):
            self._request(operation, message)

    def _index(self, name: str) -> int:
        """An interface's index, 0 if there is none."""
        data = self._link(requests.get_link(name))
        return answers.index_of(data) if data else 0

    def _request(self, operation: Op, message: Message) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        [answer] = self._socket.request([message])
        if answer.error and not (not isinstance(operation, Add) and answer.error in GONE):
            raise _refusal(operation, answer)


def _add_route(route: Route, index: int | None) -> Message:
    priority = METRIC if route.ifname else LAST_METRIC
    return pyroute2_tunnels.add_protocol_route(
        route.dst, protocol=PROTOCOL, priority=priority, index=index, gateway=route.gateway,
    )


def _remove_route(route: Route, _: int | None) -> Message:
    priority = METRIC if route.ifname else LAST_METRIC
    return pyroute2_tunnels.remove_protocol_route(route.dst, protocol=PROTOCOL, priority=priority)


_REQUESTS: Mapping[tuple[type[Any], type[Any]], Callable[[Any, Any], Message]] = {
    (Add, Route): _add_route,
    (Remove, Route): _remove_route,
    (Add, Neighbour): lambda neighbour, index: requests.set_neighbour(
        ops.SetNeighbour(ops.HOST, TUNNEL, neighbour.address, neighbour.mac), index),
    (Remove, Neighbour): lambda neighbour, index: pyroute2_tunnels.remove_neighbour(neighbour.address, index),
    (Add, Endpoint): lambda endpoint, index: pyroute2_tunnels.add_endpoint(endpoint.mac, endpoint.node, index),
    (Remove, Endpoint): lambda endpoint, index: pyroute2_tunnels.remove_endpoint(endpoint.mac, endpoint.node, index),
}


def _refusal(operation: Op, answer: Answer) -> CniError:
    remedy, what = explain(answer), getattr(operation, "what", None)
    if isinstance(what, Route) and what.gateway and answer.error in OFF_LINK:
        remedy += f"; is {what.ifname} up, and {what.gateway} on its link? carrier direct needs that"
    if isinstance(what, Route) and answer.error == errno.EEXIST:
        remedy += "; another program has such a route: remove it, and its owner"
    if isinstance(what, Tunnel) and answer.error == errno.EOPNOTSUPP:
        remedy += "; the kernel has no VXLAN: modprobe vxlan"
    if isinstance(what, Tunnel) and answer.error == errno.EEXIST:
        remedy += f"; another interface has VNI {VNI} on UDP port {PORT}"
    return CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)
