"""The real kernel of the agent: its routes, the interface to the other nodes, the tunnel.

Our routes are known by their protocol number. Their metrics are our own too, so that a route which an operator adds by
hand is never the same route, and wins.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cni_v6.cluster.facts import (
    SRV6,
    SRV6_IN,
    TUNNEL,
    Add,
    Endpoint,
    Entry,
    Facts,
    Forward,
    Neighbour,
    Op,
    Pair,
    Remove,
    RemoveDevice,
    Route,
    Rule,
    SegmentRoute,
    SetGate,
    SetNodes,
    SetTable,
    Tunnel,
    Underlay,
    Vacate,
)
from cni_v6.cluster.linux_asked import GONE, Asked, refusal
from cni_v6.cluster.linux_devices import Devices
from cni_v6.cluster.linux_wireguard import WireGuard
from cni_v6.cluster.news import News
from cni_v6.cluster.places import interface_of
from cni_v6.cluster.protocol import LAST_METRIC, METRIC, PROTOCOL, TABLE
from cni_v6.cluster.srv6 import DECAPSULATED4
from cni_v6.cluster.tables import Tables
from cni_v6.cluster.wireguard_values import WIREGUARD, Address, Encrypted, Peer
from cni_v6.errors import CniError
from cni_v6.kernel import ops, sysctl
from cni_v6.kernel.netlink import answers, lookups, pyroute2_messages, pyroute2_tunnels, requests, segments, uapi
from cni_v6.kernel.netlink.message import HEADER, Message
from cni_v6.kernel.netlink.socket import Answer
from cni_v6.net.addresses import host_prefix, overlap

UNFIT = uapi.IFA_F_TEMPORARY | uapi.IFA_F_DEPRECATED | uapi.IFA_F_DADFAILED | uapi.IFA_F_TENTATIVE
FORCED = "ipv6/conf/{}/force_forwarding"  # Linux 6.17 and later; before, an ADD turns on all interfaces
OURS = (TUNNEL, SRV6, SRV6_IN, WIREGUARD)
FAMILIES = {6: uapi.AF_INET6, 4: uapi.AF_INET}


class LinuxNode:
    """The kernel of the network namespace that this is made in.

    :param underlay: the interface to the other nodes; "" for that of the default route, IPv6 first.
    :param private_key: for the carrier ``wireguard``; b"" for another one.
    """

    def __init__(self, underlay: str, private_key: bytes = b"") -> None:
        self._wanted = underlay
        self._asked = Asked()
        self._sysctls = sysctl.Folders(at_once=True)
        self._tables = Tables()
        self._wireguard = WireGuard(self._asked, private_key)
        self._devices = Devices(self._asked, self._sysctls, self._tables, self._wireguard)
        self.news = News(self._asked.port)
        self.table_news = self._tables.news
        self.underlay_name = underlay  # as it was seen at last
        self._names: Mapping[int, str] = {}
        self._read: dict[bytes, Entry | None] = {}  # the routes of the last dump

    def close(self) -> None:
        self._asked.socket.close()
        self._sysctls.close()
        self._wireguard.close()
        self._tables.close()
        self.news.close()

    def observe(self) -> Facts:
        below = self._asked.link(self._underlay_request())
        index = answers.index_of(below) if below else 0
        underlay = self._underlay(below) if below else None
        self.underlay_name = underlay.ifname if underlay else ""
        self._wireguard.forget()
        devices, interfaces, ends = self._devices.look(underlay, index)
        tunnel, encrypted = (next((number for number, name in ends.items() if name == wanted), 0)
                             for wanted in (TUNNEL, WIREGUARD))
        self.news.of_tunnel(tunnel)
        names = {**ends, **({index: underlay.ifname} if underlay else {})}
        self.news.of_interfaces(names if underlay else (), {self._wanted, *OURS})
        entries = [*self._routes(names), *self._rules(), *(self._of_tunnel(tunnel) if devices.get(TUNNEL) else ()),
                   *self._wireguard.peers(), *self._addresses(encrypted)]
        drops = underlay is not None and self._drops(underlay)
        return Facts(underlay, devices, frozenset(entries), frozenset(self._closed(names.values())), drops,
                     self._tables.gate(), self._tables.nodes(), interfaces, self._wireguard.public_key)

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

    def _underlay_request(self) -> Message | None:
        if self._wanted:
            return requests.get_link(self._wanted)
        for found in self._asked.socket.request([requests.get_uplink(6), requests.get_uplink(4)]):
            for index in answers.read_uplinks(found.messages[0]) if found.messages else ():
                return requests.get_link_by_index(index)
        return None

    def _underlay(self, data: bytes) -> Underlay:
        link, _ = answers.read_link(data)
        addresses = self._asked.addresses(answers.index_of(data), UNFIT)
        return Underlay(link.name, link.mtu, link.up, tuple(sorted(addresses)))

    def _of_tunnel(self, index: int) -> Iterator[Entry]:
        for data in self._asked.dump(pyroute2_messages.get_neighbours(index)):
            for_good, address, mac = lookups.read_entry(data)
            if for_good and answers.family_of(data) == uapi.AF_INET6:
                yield Neighbour(address, mac)
        for data in self._asked.dump(pyroute2_tunnels.get_endpoints(index)):
            _, node, mac = lookups.read_entry(data)
            yield Endpoint(mac, node)

    def _addresses(self, index: int) -> Iterator[Address]:
        """Those of the interface with this index; none for 0."""
        for data in self._asked.dump(requests.get_addresses(index)) if index else ():
            of, prefix = answers.read_address(data)
            if of == index:
                yield Address(prefix)

    def _routes(self, names: Mapping[int, str]) -> Iterator[Entry]:
        """A message that was in the last dump is not read again: there are thousands, and few differ."""
        before = self._read if names == self._names else {}
        self._names, self._read = names, {}
        for family in FAMILIES.values():
            for data in self._asked.dump(pyroute2_tunnels.get_protocol_routes(family, PROTOCOL)):
                content = data[HEADER.size:]  # the header has a number that is another one each time
                entry = before[content] if content in before else _read_route(data, family, names)
                self._read[content] = entry
                if entry is not None:
                    yield entry

    def _rules(self) -> Iterator[Rule]:
        for family, number in FAMILIES.items():
            for data in self._asked.dump(segments.get_rules(number)):
                protocol, ifname, dst = segments.read_rule(data)
                if protocol == PROTOCOL:
                    yield Rule(family, ifname, dst)

    def _closed(self, names: Iterable[str]) -> Iterator[str]:
        if sysctl.read(self._sysctls, "ipv6/conf/all/forwarding") == "0":
            yield from (name for name in names if sysctl.read(self._sysctls, FORCED.format(name)) == "0")

    def _drops(self, underlay: Underlay) -> bool:
        """The higher one of two settings counts; 2 is as 1 where there is no address (__fib_validate_source)."""
        every, own = (sysctl.read(self._sysctls, f"ipv4/conf/{name}/rp_filter") or "0"
                      for name in ("all", underlay.ifname))
        has_address = any(":" not in address for address in underlay.addresses)
        return every != "0" or own == "1" or own == "2" and not has_address

    # What is done

    def _apply(self, operation: Op, indices: dict[str, int]) -> None:
        """
        :param indices: of interfaces, as far as they are known; looked up once for a thousand routes.
        """
        if isinstance(operation, Forward):
            sysctl.write(self._sysctls, FORCED.format(operation.ifname), "1")
        elif isinstance(operation, SetGate):
            self._tables.set_gate(operation)
        elif isinstance(operation, SetNodes):
            self._tables.set_nodes(operation)
        elif isinstance(operation, SetTable):
            self._tables.set_table(operation)
        elif isinstance(operation, Vacate):
            self._vacate(operation)
        elif isinstance(operation, RemoveDevice):
            indices.clear()
            self._devices.remove(operation)
        elif isinstance(operation.what, Tunnel | Pair | Encrypted):
            indices.clear()
            self._devices.add(operation, operation.what)
        else:
            self._apply_entry(operation, operation.what, indices)

    def _vacate(self, operation: Vacate) -> None:
        uplink = self._asked.index(self.underlay_name)
        for data in self._asked.dump(requests.get_addresses(0)):
            index, address = answers.read_address(data)
            if index != uplink and overlap(host_prefix(address), operation.prefix):
                message = requests.remove_address(ops.RemoveAddress(ops.HOST, "", address), index)
                self._asked.do(operation, message, (errno.EADDRNOTAVAIL, *GONE))

    def _apply_entry(self, operation: Add | Remove, entry: Entry, indices: dict[str, int]) -> None:
        name = interface_of(entry)
        if name and name not in indices:
            indices[name] = self._asked.index(name)
        index = indices.get(name)
        if index == 0 and isinstance(operation, Add):
            raise refusal(operation, Answer(errno.ENODEV))
        if index == 0 and isinstance(entry, Neighbour | Endpoint | Peer | Address):
            return  # it went with the interface
        if isinstance(entry, Peer):
            self._wireguard.set_peer(operation, entry)
            return
        message = _REQUESTS[type(operation), type(entry)](entry, index)
        self._asked.do(operation, message, GONE if isinstance(operation, Remove) else ())


def _read_route(data: bytes, family: int, names: Mapping[int, str]) -> Entry | None:
    """None for one that is none of ours."""
    if answers.family_of(data) != family:
        return None
    index, entry = answers.read_any_route(data)
    ifname = names.get(index, f"interface {index}")
    if entry.table == TABLE:
        segment, behaviour = segments.read_segment(data, TABLE, DECAPSULATED4)
        return SegmentRoute(entry.dst, ifname, segment, behaviour, entry.gateway)
    if entry.table != uapi.RT_TABLE_MAIN:
        return None
    lost = answers.route_type(data) == uapi.RTN_UNREACHABLE
    return Route(entry.dst) if lost else Route(entry.dst, ifname, entry.gateway)


def _add_route(route: Route, index: int | None) -> Message:
    priority = METRIC if route.ifname else LAST_METRIC
    return pyroute2_tunnels.add_protocol_route(
        route.dst, protocol=PROTOCOL, priority=priority, index=index, gateway=route.gateway,
    )


def _remove_route(route: Route, _: int | None) -> Message:
    priority = METRIC if route.ifname else LAST_METRIC
    return pyroute2_tunnels.remove_protocol_route(route.dst, protocol=PROTOCOL, priority=priority)


def _add_segment_route(route: SegmentRoute, index: int) -> Message:
    what = segments.via(route.gateway) if route.gateway is not None else b""
    if route.segment is not None:
        what += segments.encapsulate(route.segment)
    if route.behaviour is not None:
        what += segments.act(route.behaviour, TABLE, DECAPSULATED4)
    return segments.add_route(route.dst, table=TABLE, protocol=PROTOCOL, index=index, what=what)


_REQUESTS: Mapping[tuple[type[Any], type[Any]], Callable[[Any, Any], Message]] = {
    (Add, Route): _add_route,
    (Remove, Route): _remove_route,
    (Add, Neighbour): lambda neighbour, index: requests.set_neighbour(
        ops.SetNeighbour(ops.HOST, TUNNEL, neighbour.address, neighbour.mac), index),
    (Remove, Neighbour): lambda neighbour, index: pyroute2_tunnels.remove_neighbour(neighbour.address, index),
    (Add, Endpoint): lambda endpoint, index: pyroute2_tunnels.add_endpoint(endpoint.mac, endpoint.node, index),
    (Remove, Endpoint): lambda endpoint, index: pyroute2_tunnels.remove_endpoint(endpoint.mac, endpoint.node, index),
    (Add, SegmentRoute): _add_segment_route,
    (Remove, SegmentRoute): lambda route, _: segments.remove_route(route.dst, table=TABLE, protocol=PROTOCOL),
    (Add, Address): lambda address, index: requests.add_address(
        ops.AddAddress(ops.HOST, WIREGUARD, address.prefix), index),
    (Remove, Address): lambda address, index: requests.remove_address(
        ops.RemoveAddress(ops.HOST, WIREGUARD, address.prefix), index),
    (Add, Rule): lambda rule, _: segments.add_rule(
        rule.family, rule.ifname, rule.dst, table=TABLE, protocol=PROTOCOL),
    (Remove, Rule): lambda rule, _: segments.remove_rule(
        rule.family, rule.ifname, rule.dst, table=TABLE, protocol=PROTOCOL),
}
