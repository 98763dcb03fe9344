"""The rtnetlink requests of a bridge network's ADD and DEL, as hand-written messages. ``answers`` reads the answers.

They are hand-written because they must be fast: each costs a fraction of the time of pyroute2's classes
(``tools/codec``), and the import of pyroute2 would double the time of a call without an engine (``tools/imports``). All
other requests belong in ``pyroute2_messages``. The tests compare the messages
here with pyroute2.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import Message, address, attribute, mac, nest, packed, text, u8, u32
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_F_NODAD,
    IFA_FLAGS,
    IFA_TARGET_NETNSID,
    IFA_LOCAL,
    IFF_PROMISC,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_ALT_IFNAME,
    IFLA_BR_GROUP_FWD_MASK,
    IFLA_BR_MCAST_SNOOPING,
    IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_EXT_MASK,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_PROP_LIST,
    NDA_DST,
    NDA_LLADDR,
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NUD_PERMANENT,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTAX_ADVMSS,
    RTAX_MTU,
    RTEXT_FILTER_SKIP_STATS,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_F_FIB_MATCH,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWLINKPROP,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_SETLINK,
    RTN_UNICAST,
    RTN_LOCAL,
    RTN_UNREACHABLE,
    RTPROT_STATIC,
    VETH_INFO_PEER,
)

IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
NEW = NLM_F_CREATE | NLM_F_EXCL
LAST_RESORT = 2**32 - 1  # the highest metric: every other route is preferred


def _link(kind: int, *attributes: bytes, nlm: int = 0, index: int = 0, flags: int = 0, change: int = 0) -> Message:
    return Message(kind, nlm, IFINFOMSG.pack(AF_UNSPEC, 0, index, flags, change) + b"".join(attributes))


# Links

_NO_STATISTICS = u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def get_link(ifname: str) -> Message:
    return _link(RTM_GETLINK, text(IFLA_IFNAME, ifname), _NO_STATISTICS)


def get_link_by_index(index: int) -> Message:
    return _link(RTM_GETLINK, _NO_STATISTICS, index=index)


def get_ports(bridge: int) -> Message:
    """A dump of the ports of the bridge with this index; of all interfaces for 0."""
    return _link(RTM_GETLINK, u32(IFLA_MASTER, bridge), _NO_STATISTICS)


def _mtu(value: int) -> bytes:
    return u32(IFLA_MTU, value) if value else b""


def _info(kind: str, *data: bytes) -> bytes:
    return nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nest(IFLA_INFO_DATA, *data))


def create_bridge(op: ops.EnsureBridge) -> Message:
    # A kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses the attribute even when it is 0.
    filtering = u8(IFLA_BR_VLAN_FILTERING, 1) if op.vlan_filtering else b""
    # Forward LLDP: otherwise it passes no hook, but the bridge learns its MAC (br_handle_frame, net/bridge/br_input.c).
    lldp = attribute(IFLA_BR_GROUP_FWD_MASK, struct.pack("=H", ops.LLDP))
    info = _info("bridge", u8(IFLA_BR_MCAST_SNOOPING, op.multicast_snooping), filtering, lldp)
    return _link(RTM_NEWLINK, text(IFLA_IFNAME, op.name), mac(IFLA_ADDRESS, op.mac), _mtu(op.mtu), info, nlm=NEW)


def create_veth(op: ops.CreateVeth, bridge: int, netns: int) -> Message:
    """Both ends in one request.

    :param bridge: its interface index; 0 for none.
    :param netns: a descriptor of the peer's namespace.
    """
    inside = text(IFLA_IFNAME, op.ifname) + mac(IFLA_ADDRESS, op.mac) + _mtu(op.mtu) + u32(IFLA_NET_NS_FD, netns)
    peer = attribute(VETH_INFO_PEER, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + inside)
    return _link(
        RTM_NEWLINK,
        text(IFLA_IFNAME, op.host),
        mac(IFLA_ADDRESS, op.host_mac),
        u32(IFLA_MASTER, bridge) if bridge else b"",
        u32(IFLA_GROUP, op.group) if op.group else b"",
        _mtu(op.mtu),
        _info("veth", peer),
        nlm=NEW,
        flags=IFF_UP,
        change=IFF_UP,
    )


def set_link(op: ops.SetLink) -> Message:
    flags, change = IFF_UP if op.up else 0, IFF_UP
    if op.promisc is not None:
        flags |= IFF_PROMISC if op.promisc else 0
        change |= IFF_PROMISC
    group = b"" if op.group is None else u32(IFLA_GROUP, op.group)
    return _link(RTM_SETLINK, text(IFLA_IFNAME, op.ifname), group, flags=flags, change=change)


def set_alias(op: ops.SetAlias) -> Message:
    """Without a terminating zero: the kernel would count it as one of the 255 bytes (NLA_BINARY)."""
    return _link(RTM_SETLINK, text(IFLA_IFNAME, op.ifname), attribute(IFLA_IFALIAS, op.alias.encode()))


def claim_mac(op: ops.ClaimMac) -> Message:
    """An alternative name. NLA_F_NESTED is needed: RTM_NEWLINKPROP is parsed strictly (rtnl_linkprop,
    net/core/rtnetlink.c)."""
    names = nest(IFLA_PROP_LIST | NLA_F_NESTED, text(IFLA_ALT_IFNAME, op.name))
    return _link(RTM_NEWLINKPROP, text(IFLA_IFNAME, op.ifname), names, nlm=NEW)


def get_claimant(op: ops.ClaimMac) -> Message:
    """Asks for the port that has claimed a MAC."""
    return _link(RTM_GETLINK, text(IFLA_ALT_IFNAME, op.name), _NO_STATISTICS)


def set_mac(ifname: str, address: str) -> Message:
    return _link(RTM_SETLINK, text(IFLA_IFNAME, ifname), mac(IFLA_ADDRESS, address))


def set_port(op: ops.SetPort) -> Message:
    """RTM_NEWLINK without CREATE: only that request changes slave data (rtnl_newlink, net/core/rtnetlink.c)."""
    data = nest(IFLA_INFO_SLAVE_DATA, u8(IFLA_BRPORT_MODE, op.hairpin), u8(IFLA_BRPORT_ISOLATED, op.isolated))
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return _link(RTM_NEWLINK, text(IFLA_IFNAME, op.ifname), info)


def delete_link(op: ops.DeleteLink) -> Message:
    return _link(RTM_DELLINK, text(IFLA_IFNAME, op.ifname))


def deletion(indices: Sequence[int], number: int) -> list[Message]:
    """The requests that delete interfaces of the node.

    Several interfaces are deleted as a link group: the kernel's RCU wait is the same for one or sixty
    (rtnl_group_dellink, net/core/rtnetlink.c).

    :param indices: of the interfaces.
    :param number: a link group that nobody uses.
    """
    if len(indices) == 1:
        return [_link(RTM_DELLINK, index=indices[0])]
    group = u32(IFLA_GROUP, number)
    return [*(_link(RTM_SETLINK, group, index=index) for index in indices), _link(RTM_DELLINK, group)]


# Addresses and routes


def get_addresses(index: int, namespace: int | None = None) -> Message:
    """A dump of an interface's addresses; 0: of all.

    :param namespace: the id that the interface's namespace has in the socket's; None for the socket's own.
    """
    body = u32(IFA_TARGET_NETNSID, namespace) if namespace is not None else b""
    return Message(RTM_GETADDR, 0, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index) + body)


def add_address(op: ops.AddAddress, index: int) -> Message:
    ip, length = _split(op.address)
    body = _address(op.address, index, op.scope)
    if _family(ip) == AF_INET and length < 31:  # RFC 3021: a /31 has no broadcast address
        body += attribute(IFA_BROADCAST, _broadcast(ip, length))
    if _family(ip) == AF_INET6 and not op.dad:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    return Message(RTM_NEWADDR, NEW, body)


def remove_address(op: ops.RemoveAddress, index: int) -> Message:
    return Message(RTM_DELADDR, 0, _address(op.address, index))


def _address(text: str, index: int, scope: int = 0) -> bytes:
    ip, length = _split(text)
    return IFADDRMSG.pack(_family(ip), length, 0, scope, index) + address(IFA_LOCAL, ip) + address(IFA_ADDRESS, ip)


def _broadcast(ip: str, length: int) -> bytes:
    value = int.from_bytes(socket.inet_aton(ip), "big") | ((1 << (32 - length)) - 1)
    return value.to_bytes(4, "big")


def add_route(op: ops.AddRoute, index: int) -> Message:
    network, length = _split(op.dst)
    family = _family(network)
    table = op.table if op.table is not None else RT_TABLE_MAIN
    scope = op.scope if op.scope is not None else (RT_SCOPE_UNIVERSE if op.gateway else RT_SCOPE_LINK)
    header = RTMSG.pack(
        family,
        length,
        0,
        0,
        table if table < 256 else 0,  # rtm_table is a byte; RTA_TABLE holds the rest
        RTPROT_STATIC,
        scope if family == AF_INET else RT_SCOPE_UNIVERSE,  # IPv6 ignores it
        RTN_UNICAST,
        0,
    )
    body = header + u32(RTA_OIF, index) + u32(RTA_TABLE, table)
    if length:
        body += address(RTA_DST, network)
    if op.gateway and _family(op.gateway) == family:
        body += address(RTA_GATEWAY, op.gateway)
    elif op.gateway:  # struct rtvia, linux/rtnetlink.h
        body += attribute(RTA_VIA, struct.pack("=H", _family(op.gateway)) + packed(op.gateway))
    if op.priority is not None:
        body += u32(RTA_PRIORITY, op.priority)
    if op.source:
        body += address(RTA_PREFSRC, op.source)
    return Message(RTM_NEWROUTE, NEW, body + _metrics(op))


def _metrics(op: ops.AddRoute) -> bytes:
    metrics = [u32(kind, value) for kind, value in ((RTAX_MTU, op.mtu), (RTAX_ADVMSS, op.advmss)) if value]
    return nest(RTA_METRICS, *metrics) if metrics else b""


def unreachable(op: ops.AddUnreachable | ops.RemoveUnreachable) -> Message:
    """The kernel adds it to the loopback interface, which may be down (fib6_nh_init, net/ipv6/route.c). It is removed
    by its metric, which no other route of the prefix has: of IPv6 the type is not compared (ip6_route_del)."""
    network, length = _split(op.dst)
    kind, flags = (RTM_NEWROUTE, NEW) if isinstance(op, ops.AddUnreachable) else (RTM_DELROUTE, 0)
    family, scope = (AF_INET6, RT_SCOPE_UNIVERSE) if ":" in network else (AF_INET, RT_SCOPE_LINK)
    header = RTMSG.pack(family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNREACHABLE, 0)
    return Message(kind, flags, header + address(RTA_DST, network) + u32(RTA_PRIORITY, LAST_RESORT))


def to_itself(place: str, index: int, *, remove: bool = False) -> Message:
    """A route of type ``local``: the namespace takes packets for these addresses, and has none of them as its own."""
    network, length = _split(place)
    header = RTMSG.pack(AF_INET6, length, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_LOCAL, 0)
    kind, flags = (RTM_DELROUTE, 0) if remove else (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
    return Message(kind, flags, header + address(RTA_DST, network) + u32(RTA_OIF, index))


def set_neighbour(op: ops.SetNeighbour, index: int) -> Message:
    header = NDMSG.pack(_family(op.address), index, NUD_PERMANENT, 0, 0)
    body = address(NDA_DST, op.address) + mac(NDA_LLADDR, op.mac)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, header + body)


def remove_route(op: ops.RemoveRoute, index: int) -> Message:
    """Without next hop and metric, so that it matches any. RT_SCOPE_NOWHERE stands for any scope (fib_table_delete,
    net/ipv4/fib_trie.c); IPv6 has none."""
    network, length = _split(op.dst)
    family, scope = (AF_INET6, RT_SCOPE_UNIVERSE) if ":" in network else (AF_INET, RT_SCOPE_NOWHERE)
    header = RTMSG.pack(family, length, 0, 0, RT_TABLE_MAIN if op.table is None else 0, RTPROT_STATIC, scope, 0, 0)
    table = b"" if op.table is None else u32(RTA_TABLE, op.table)
    return Message(RTM_DELROUTE, 0, header + address(RTA_DST, network) + u32(RTA_OIF, index) + table)


def get_routes(family: int, index: int, table: int = 0) -> Message:
    """A dump of one family's routes through the interface with this index; 0: through any; of a table, 0: of all."""
    header = RTMSG.pack(AF_INET6 if family == 6 else AF_INET, 0, 0, 0, table, 0, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, header + (u32(RTA_OIF, index) if index else b""))


def get_uplink(family: int) -> Message:
    """Look up the route to the first global unicast address: the default route, if any (RFC 4291, 2.4; RFC 6890)."""
    return get_route_to("2000::" if family == 6 else "1.0.0.0", RTM_F_FIB_MATCH)


def get_route_to(ip: str, flags: int = 0, index: int = 0) -> Message:
    """Look up the route to an address; through the interface with this index, 0: through any."""
    header = RTMSG.pack(*((AF_INET6, 128) if ":" in ip else (AF_INET, 32)), 0, 0, 0, 0, 0, 0, flags)
    return Message(RTM_GETROUTE, 0, header + address(RTA_DST, ip) + (u32(RTA_OIF, index) if index else b""))


def _split(prefix: str) -> tuple[str, int]:
    ip, _, length = prefix.partition("/")
    return ip, int(length)


def _family(ip: str) -> int:
    return AF_INET6 if ":" in ip else AF_INET
