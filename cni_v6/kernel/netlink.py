"""rtnetlink messages: operations and questions become requests, answers become Links, addresses and routes.

The only module that imports pyroute2, and only its message classes: ``import pyroute2`` runs a package front door that
loads every protocol it has (220 ms), the message modules cost 35. So the package is entered by its side door: a bare
module object with the package's path, under which the submodules import as usual.
"""

from __future__ import annotations

import importlib.machinery
import socket
import struct
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from cni_v6 import ops
from cni_v6.kernel import Link, RouteEntry
from cni_v6.kernel.rtnl import HEADER, Message


def _enter_by_side_door(package: str) -> None:
    """Make ``package.submodule`` importable without running the package's ``__init__``; no-op if it ran already."""
    if package in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{package} is not installed", name=package)
    bare = types.ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules[package] = bare


_enter_by_side_door("pyroute2")

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTPROT_STATIC, RTN_UNICAST, RT_TABLE_MAIN, RT_TABLE_LOCAL = 4, 1, 254, 255
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTM_F_FIB_MATCH = 0, 253, 0x2000
RTEXT_FILTER_BRVLAN, RTEXT_FILTER_SKIP_STATS = 1 << 1, 1 << 3
RTNLGRP_LINK, RTNLGRP_IPV6_IFADDR = 1, 9
# linux/netlink.h
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
# linux/if.h, if_addr.h, if_bridge.h
IFF_UP, IFF_PROMISC = 0x1, 0x100
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x02, 0x08, 0x40
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 1 << 1, 1 << 2
BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END = 1 << 3, 1 << 4
BRIDGE_FLAGS_SELF = 2  # IFLA_BRIDGE_FLAGS: BRIDGE_FLAGS_MASTER is 1
AF_BRIDGE = 7
AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)

Attrs = list[tuple[str, Any]]


def _message(kind: int, flags: int, body: Any, header: Mapping[str, int], attrs: Attrs) -> Message:
    for key, value in header.items():
        body[key] = value
    body["attrs"] = attrs
    body.encode()
    return Message(kind, flags, bytes(body.data[HEADER.size :]))


def _link(kind: int, nlm_flags: int, attrs: Attrs, **header: int) -> Message:
    return _message(kind, nlm_flags, ifinfmsg(), header, attrs)


# Links


def get_link(ifname: str) -> Message:
    mask = ("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)
    return _link(RTM_GETLINK, 0, [("IFLA_IFNAME", ifname), mask])


def get_link_by_index(index: int) -> Message:
    return _link(RTM_GETLINK, 0, [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)], index=index)


def get_ports(bridge: int) -> Message:
    """A dump of the ports of the bridge with this index."""
    return _link(RTM_GETLINK, 0, [("IFLA_MASTER", bridge), ("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)])


def get_port_vlans() -> Message:
    """A dump of all bridge ports with their VLANs; the kernel filters it by no index."""
    return _link(RTM_GETLINK, 0, [("IFLA_EXT_MASK", RTEXT_FILTER_BRVLAN)], family=AF_BRIDGE)


def create_bridge(op: ops.EnsureBridge) -> Message:
    data: Attrs = [("IFLA_BR_MCAST_SNOOPING", int(op.multicast_snooping))]
    if op.vlan_filtering:  # a kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses the attribute even when it is 0
        data.append(("IFLA_BR_VLAN_FILTERING", 1))
    attrs: Attrs = [("IFLA_IFNAME", op.name), ("IFLA_ADDRESS", op.mac)]
    if op.mtu:
        attrs.append(("IFLA_MTU", op.mtu))
    attrs.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]}))
    return _link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, attrs)


def set_bridge(op: ops.SetBridge) -> Message:
    data = {"attrs": [("IFLA_BR_VLAN_FILTERING", int(op.vlan_filtering))]}
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}
    return _link(RTM_NEWLINK, 0, [("IFLA_IFNAME", op.name), ("IFLA_LINKINFO", info)])


def create_veth(op: ops.CreateVeth, bridge: int, netns: int) -> Message:
    """Both ends in one request; ``bridge`` is an interface index, ``netns`` a descriptor of the peer's namespace."""
    peer: Attrs = [("IFLA_IFNAME", op.ifname), ("IFLA_ADDRESS", op.mac)]
    host: Attrs = [("IFLA_IFNAME", op.host), ("IFLA_ADDRESS", op.host_mac), ("IFLA_MASTER", bridge)]
    if op.mtu:
        peer.append(("IFLA_MTU", op.mtu))
        host.append(("IFLA_MTU", op.mtu))
    peer.append(("IFLA_NET_NS_FD", netns))
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    host.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}))
    return _link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, host, flags=IFF_UP, change=IFF_UP)


def set_link(op: ops.SetLink) -> Message:
    flags, change = IFF_UP if op.up else 0, IFF_UP
    if op.promisc is not None:
        flags |= IFF_PROMISC if op.promisc else 0
        change |= IFF_PROMISC
    return _link(RTM_SETLINK, 0, [("IFLA_IFNAME", op.ifname)], flags=flags, change=change)


def set_alias(op: ops.SetAlias) -> Message:
    return _link(RTM_SETLINK, 0, [("IFLA_IFNAME", op.ifname), ("IFLA_IFALIAS", op.alias)])


def set_port(op: ops.SetPort) -> Message:
    """RTM_NEWLINK without CREATE: slave data is changed by that request only (rtnl_newlink, net/core/rtnetlink.c)."""
    data = {"attrs": [("IFLA_BRPORT_MODE", int(op.hairpin)), ("IFLA_BRPORT_ISOLATED", int(op.isolated))]}
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
    return _link(RTM_NEWLINK, 0, [("IFLA_IFNAME", op.ifname), ("IFLA_LINKINFO", info)])


def delete_link(op: ops.DeleteLink) -> Message:
    return _link(RTM_DELLINK, 0, [("IFLA_IFNAME", op.ifname)])


def add_port_vlans(op: ops.AddPortVlans, index: int) -> Message:
    entries = [(op.pvid, BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED)] if op.pvid else []
    for first, last in op.trunk:
        if first == last:
            entries.append((first, 0))
        else:
            entries += [(first, BRIDGE_VLAN_INFO_RANGE_BEGIN), (last, BRIDGE_VLAN_INFO_RANGE_END)]
    return _port_vlans(RTM_SETLINK, index, entries)


def remove_port_vlan(op: ops.RemovePortVlan, index: int) -> Message:
    return _port_vlans(RTM_DELLINK, index, [(op.vlan, 0)])


def _port_vlans(kind: int, index: int, entries: Sequence[tuple[int, int]]) -> Message:
    attrs = [("IFLA_BRIDGE_VLAN_INFO", {"vid": vlan, "flags": flags}) for vlan, flags in entries]
    return _link(kind, 0, [("IFLA_AF_SPEC", {"attrs": attrs})], family=AF_BRIDGE, index=index)


# Addresses and routes


def get_addresses(index: int) -> Message:
    return _message(RTM_GETADDR, 0, ifaddrmsg(), {"index": index}, [])


def add_address(op: ops.AddAddress, index: int) -> Message:
    attrs = _address(op.address)
    if not op.dad and ":" in op.address:
        attrs.append(("IFA_FLAGS", IFA_F_NODAD))
    return _message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifaddrmsg(), _address_header(op.address, index), attrs)


def remove_address(op: ops.RemoveAddress, index: int) -> Message:
    attrs = _address(op.address)[:2]
    return _message(RTM_DELADDR, 0, ifaddrmsg(), _address_header(op.address, index), attrs)


def _address_header(address: str, index: int) -> dict[str, int]:
    return {"family": _family(address), "prefixlen": int(address.partition("/")[2]), "index": index}


def _address(address: str) -> Attrs:
    ip, _, length = address.partition("/")
    attrs: Attrs = [("IFA_LOCAL", ip), ("IFA_ADDRESS", ip)]
    if ":" not in ip and int(length) < 31:  # RFC 3021: a /31 has no broadcast address
        attrs.append(("IFA_BROADCAST", _broadcast(ip, int(length))))
    return attrs


def _broadcast(ip: str, length: int) -> str:
    value = int.from_bytes(socket.inet_aton(ip), "big") | ((1 << (32 - length)) - 1)
    return socket.inet_ntoa(value.to_bytes(4, "big"))


def add_route(op: ops.AddRoute, index: int) -> Message:
    network, _, length = op.dst.partition("/")
    scope = op.scope if op.scope is not None else (RT_SCOPE_UNIVERSE if op.gateway else RT_SCOPE_LINK)
    table = op.table if op.table is not None else RT_TABLE_MAIN
    attrs: Attrs = [("RTA_OIF", index), ("RTA_TABLE", table)]
    if int(length):
        attrs.append(("RTA_DST", network))
    if op.gateway:
        attrs.append(("RTA_GATEWAY", op.gateway))
    if op.priority is not None:
        attrs.append(("RTA_PRIORITY", op.priority))
    metrics = [(name, value) for name, value in (("RTAX_MTU", op.mtu), ("RTAX_ADVMSS", op.advmss)) if value]
    if metrics:
        attrs.append(("RTA_METRICS", {"attrs": metrics}))
    header = {
        "family": _family(op.dst),
        "dst_len": int(length),
        "table": table if table < 256 else 0,  # rtm_table is a byte; RTA_TABLE holds the rest
        "proto": RTPROT_STATIC,
        "type": RTN_UNICAST,
        "scope": scope if _family(op.dst) == AF_INET else RT_SCOPE_UNIVERSE,  # IPv6 ignores it
    }
    return _message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, rtmsg(), header, attrs)


def get_routes(family: int, index: int) -> Message:
    """A dump of one family's routes through the interface with this index."""
    return _message(RTM_GETROUTE, 0, rtmsg(), {"family": AF_INET6 if family == 6 else AF_INET}, [("RTA_OIF", index)])


def get_uplink() -> Message:
    """The route that 2000:: takes, the first global unicast address (RFC 4291, 2.4): the default where there is one."""
    header = {"family": AF_INET6, "dst_len": 128, "flags": RTM_F_FIB_MATCH}
    return _message(RTM_GETROUTE, 0, rtmsg(), header, [("RTA_DST", "2000::")])


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


# Answers


def index_of(data: bytes) -> int:
    """``ifi_index`` of an RTM_NEWLINK message, without decoding the rest (struct ifinfomsg, linux/rtnetlink.h)."""
    return int(struct.unpack_from("=i", data, HEADER.size + 4)[0])


def name_of(data: bytes) -> str:
    return str(_decode(ifinfmsg, data).get_attr("IFLA_IFNAME"))


def read_link(data: bytes) -> tuple[Link, int]:
    """A Link from an RTM_NEWLINK message, and its master's index (0 for none): a name is the caller's to find."""
    link = _decode(ifinfmsg, data)
    info = link.get_attr("IFLA_LINKINFO")
    own = (info and info.get_attr("IFLA_INFO_DATA")) or _Nothing()
    port = (info and info.get_attr("IFLA_INFO_SLAVE_DATA")) or _Nothing()
    kind = str((info and info.get_attr("IFLA_INFO_KIND")) or "")
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        mac=link.get_attr("IFLA_ADDRESS") or "",
        mtu=link.get_attr("IFLA_MTU") or 0,
        kind=kind,
        up=bool(link["flags"] & IFF_UP),
        promisc=bool(link["flags"] & IFF_PROMISC),
        alias=link.get_attr("IFLA_IFALIAS") or "",
        hairpin=bool(port.get_attr("IFLA_BRPORT_MODE")),
        isolated=bool(port.get_attr("IFLA_BRPORT_ISOLATED")),
        vlan_filtering=kind == "bridge" and bool(own.get_attr("IFLA_BR_VLAN_FILTERING")),
        port_enabled=bool(port.get_attr("IFLA_BRPORT_STATE")),
    ), link.get_attr("IFLA_MASTER") or 0


class _Nothing:
    """Stands for an absent nest: it has no attribute."""

    def get_attr(self, _: str) -> None:
        return None


def read_port_vlans(data: bytes) -> tuple[tuple[int, bool], ...]:
    """(VLAN, is the untagged PVID) of one message of the VLAN dump, ranges spelt out."""
    found: list[tuple[int, bool]] = []
    spec = _decode(ifinfmsg, data).get_attr("IFLA_AF_SPEC")
    begin = 0
    for entry in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else ():
        vlan, flags = int(entry["vid"]), int(entry["flags"])
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN:
            begin = vlan
            continue
        first = begin if flags & BRIDGE_VLAN_INFO_RANGE_END else vlan
        found += [(each, bool(flags & BRIDGE_VLAN_INFO_PVID)) for each in range(first, vlan + 1)]
    return tuple(found)


def read_address(data: bytes) -> tuple[int, str]:
    """(interface index, ``ip/prefixlen``) of an RTM_NEWADDR message."""
    address = _decode(ifaddrmsg, data)
    ip = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
    return int(address["index"]), f"{ip}/{address['prefixlen']}"


def read_address_state(data: bytes) -> tuple[str, bool, bool]:
    """(``ip/prefixlen``, is tentative, was found to be a duplicate) of an RTM_NEWADDR message."""
    flags = int(_decode(ifaddrmsg, data).get_attr("IFA_FLAGS") or 0)
    failed = bool(flags & IFA_F_DADFAILED)
    return read_address(data)[1], bool(flags & IFA_F_TENTATIVE) and not failed, failed


def read_uplink(data: bytes) -> int:
    """The interface index of the route in an RTM_NEWROUTE message, its first hop's where it has several; 0: none."""
    route = _decode(rtmsg, data)
    hops = route.get_attr("RTA_MULTIPATH")
    return int(hops[0]["oif"] if hops else route.get_attr("RTA_OIF") or 0)


def read_route(data: bytes) -> tuple[int, RouteEntry] | None:
    """(interface index, route) of an RTM_NEWROUTE message; None for what is not unicast, or in the local table."""
    route = _decode(rtmsg, data)
    table = route.get_attr("RTA_TABLE") or route["table"]
    if route["type"] != RTN_UNICAST or table == RT_TABLE_LOCAL:
        return None
    any_network = "::" if route["family"] == AF_INET6 else "0.0.0.0"
    metrics = route.get_attr("RTA_METRICS") or _Nothing()
    entry = RouteEntry(
        dst=f"{route.get_attr('RTA_DST') or any_network}/{route['dst_len']}",
        gateway=route.get_attr("RTA_GATEWAY"),
        mtu=metrics.get_attr("RTAX_MTU"),
        advmss=metrics.get_attr("RTAX_ADVMSS"),
        priority=route.get_attr("RTA_PRIORITY"),
        table=table,
        scope=route["scope"],
    )
    return route.get_attr("RTA_OIF") or 0, entry


def _decode(message_class: Any, data: bytes) -> Any:
    message = message_class(data)
    message.decode()
    return message
