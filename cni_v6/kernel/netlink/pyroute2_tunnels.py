"""Requests and answers, with pyroute2's message classes, of the node agent: routes of a protocol, VXLAN interfaces.

Not in ``pyroute2_messages``, which a call without an engine imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.pyroute2_messages import Attributes, _message, _read
from cni_v6.kernel.netlink.uapi import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NTF_SELF,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RT_SCOPE_NOWHERE,
    RT_TABLE_MAIN,
)

# Routes of a protocol (RTPROT_*), by which a program knows its own


def get_protocol_routes(family: int, protocol: int) -> Message:
    """A dump of the routes of an address family with a protocol number; the kernel filters them."""
    return _message("rtmsg", RTM_GETROUTE, 0, {"family": family, "proto": protocol})


def add_protocol_route(
    dst: str, *, protocol: int, priority: int, index: int | None, gateway: str | None
) -> Message:
    """A route in the main table, which must not be there; an unreachable one for None as the interface's index."""
    kind = RTN_UNREACHABLE if index is None else RTN_UNICAST
    attributes: list[tuple[str, Any]] = [] if index is None else [("RTA_OIF", index)]
    if gateway and (":" in gateway) == (":" in dst):
        attributes.append(("RTA_GATEWAY", gateway))
    elif gateway:
        attributes.append(("RTA_VIA", {"family": AF_INET6 if ":" in gateway else AF_INET, "addr": gateway}))
    header = {"proto": protocol, "type": kind}
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, dst, header, [("RTA_PRIORITY", priority), *attributes])


def remove_protocol_route(dst: str, *, protocol: int, priority: int) -> Message:
    """Of any type and next hop. RT_SCOPE_NOWHERE stands for any scope (fib_table_delete, net/ipv4/fib_trie.c)."""
    header = {"proto": protocol, "scope": RT_SCOPE_NOWHERE}
    return _route(RTM_DELROUTE, 0, dst, header, [("RTA_PRIORITY", priority)])


def _route(kind: int, flags: int, dst: str, header: Mapping[str, int], attributes: Attributes) -> Message:
    network, _, length = dst.partition("/")
    family = AF_INET6 if ":" in network else AF_INET
    whole = {"family": family, "dst_len": int(length), "table": RT_TABLE_MAIN, **header}
    return _message("rtmsg", kind, flags, whole, [("RTA_DST", network), *attributes])


def remove_neighbour(address: str, index: int) -> Message:
    return _message("ndmsg", RTM_DELNEIGH, 0, {"family": AF_INET6, "ifindex": index}, [("NDA_DST", address)])


# VXLAN interfaces, and their forwarding database


def create_vxlan(ifname: str, *, vni: int, port: int, local: str, link: int, mac: str, mtu: int) -> Message:
    """An interface over IPv6, down, that learns nothing. The name must be free."""
    data = {"attrs": [
        ("IFLA_VXLAN_ID", vni), ("IFLA_VXLAN_LINK", link), ("IFLA_VXLAN_LOCAL6", local), ("IFLA_VXLAN_PORT", port),
        ("IFLA_VXLAN_LEARNING", 0),
    ]}
    kind = {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data)]}
    attributes = [("IFLA_IFNAME", ifname), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", kind)]
    return _message("ifinfomsg", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, {}, attributes)


def read_vxlan(data: bytes) -> Mapping[str, Any]:
    """``vni``, ``port``, ``local``, ``link``, ``learning`` of an RTM_NEWLINK message; {} for another kind."""
    info = _read("ifinfomsg", data).get_attr("IFLA_LINKINFO")
    if not info or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return {}
    given = info.get_attr("IFLA_INFO_DATA")
    names = {"vni": "ID", "port": "PORT", "local": "LOCAL6", "link": "LINK", "learning": "LEARNING"}
    return {name: given.get_attr(f"IFLA_VXLAN_{kernels}") for name, kernels in names.items()}


def add_endpoint(mac: str, node: str, index: int) -> Message:
    """An entry of a VXLAN interface's forwarding database."""
    return _endpoint(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, mac, node, index)


def remove_endpoint(mac: str, node: str, index: int) -> Message:
    return _endpoint(RTM_DELNEIGH, 0, mac, node, index)


def _endpoint(kind: int, flags: int, mac: str, node: str, index: int) -> Message:
    header = {"family": AF_BRIDGE, "ifindex": index, "state": NUD_PERMANENT, "flags": NTF_SELF}
    return _message("ndmsg", kind, flags, header, [("NDA_LLADDR", mac), ("NDA_DST", node)])


def get_endpoints(index: int) -> Message:
    """A dump of the forwarding database of the interface with this index."""
    return _message("ndmsg", RTM_GETNEIGH, 0, {"family": AF_BRIDGE, "ifindex": index})
