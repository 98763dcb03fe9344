"""Requests and answers of segment routing (SRv6): a table of routes, the rules that lead to it, and a pair of ends.

By hand, as pyroute2 0.9 knows no ``encap.red`` (linux/seg6_iptunnel.h). The node agent alone uses them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from cni_v6.kernel.netlink.message import (
    HEADER,
    Message,
    address,
    as_address,
    as_int,
    as_text,
    attribute,
    by_kind,
    mac,
    nest,
    packed,
    text,
    u8,
    u32,
)
from cni_v6.kernel.netlink.requests import IFINFOMSG, NEW, RTMSG
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    FR_ACT_TO_TBL,
    FRA_DST,
    FRA_IIFNAME,
    FRA_PRIORITY,
    FRA_PROTOCOL,
    FRA_TABLE,
    IFF_NOARP,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    IPV6_SRCRT_TYPE_4,
    LWTUNNEL_ENCAP_SEG6,
    LWTUNNEL_ENCAP_SEG6_LOCAL,
    NLA_F_NESTED,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RTA_DST,
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTM_SETLINK,
    RTN_UNICAST,
    SEG6_IPTUN_MODE_ENCAP_RED,
    SEG6_IPTUNNEL_SRH,
    SEG6_LOCAL_ACTION,
    SEG6_LOCAL_ACTION_END_DT6,
    SEG6_LOCAL_ACTION_END_DX4,
    SEG6_LOCAL_NH4,
    SEG6_LOCAL_TABLE,
    VETH_INFO_PEER,
)

SRH = struct.Struct("=iBBBBBBH")  # mode; next header, length, type, segments left, last entry, flags, tag (RFC 8754)
END_DT6, END_DX4 = "End.DT6", "End.DX4"  # RFC 8986, 4.6 and 4.5


def encapsulate(segment: str) -> bytes:
    """Attributes of a route: H.Encaps.Red (RFC 8986, 5.2). With one segment no SRH is on the wire."""
    header = SRH.pack(SEG6_IPTUN_MODE_ENCAP_RED, 0, 2, IPV6_SRCRT_TYPE_4, 0, 0, 0, 0)
    return _encapsulation(LWTUNNEL_ENCAP_SEG6, attribute(SEG6_IPTUNNEL_SRH, header + packed(segment)))


def act(behaviour: str, table: int, next_hop: str) -> bytes:
    """Attributes of a SID's route: what is encapsulated in a packet for it goes on as IPv6, or IPv4.

    :param table: of End.DT6: where the destination is looked up.
    :param next_hop: of End.DX4; End.DT4 and End.DT46 need a VRF.
    """
    if behaviour == END_DT6:
        what = u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_DT6) + u32(SEG6_LOCAL_TABLE, table)
    else:
        what = u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_DX4) + address(SEG6_LOCAL_NH4, next_hop)
    return _encapsulation(LWTUNNEL_ENCAP_SEG6_LOCAL, what)


def via(gateway: str) -> bytes:
    """Attribute of a route: its next hop."""
    return address(RTA_GATEWAY, gateway)


def _encapsulation(kind: int, what: bytes) -> bytes:
    return attribute(RTA_ENCAP_TYPE, struct.pack("=H", kind)) + nest(RTA_ENCAP | NLA_F_NESTED, what)


def read_segment(data: bytes, table: int, next_hop: str) -> tuple[str | None, str | None]:
    """(segment that a route encapsulates to, what it does as a SID) of an RTM_NEWROUTE message; None: not that.

    :param table, next_hop: as of ``act``; with others it does something else, "".
    """
    given = by_kind(data, HEADER.size + RTMSG.size)
    kind, encapsulation = as_int(given.get(RTA_ENCAP_TYPE)), given.get(RTA_ENCAP, b"")
    if kind == LWTUNNEL_ENCAP_SEG6:
        content = by_kind(encapsulation).get(SEG6_IPTUNNEL_SRH, b"")
        whole = len(content) == SRH.size + 16 and SRH.unpack_from(content)[0] == SEG6_IPTUN_MODE_ENCAP_RED
        return (as_address(content[SRH.size:]) if whole else ""), None
    if kind == LWTUNNEL_ENCAP_SEG6_LOCAL:
        return None, _behaviour(by_kind(encapsulation), table, next_hop)
    return None, None


def _behaviour(what: Mapping[int, bytes], table: int, next_hop: str) -> str:
    action = as_int(what.get(SEG6_LOCAL_ACTION))
    if action == SEG6_LOCAL_ACTION_END_DT6 and as_int(what.get(SEG6_LOCAL_TABLE)) == table:
        return END_DT6
    return END_DX4 if action == SEG6_LOCAL_ACTION_END_DX4 and what.get(SEG6_LOCAL_NH4) == packed(next_hop) else ""


def add_route(dst: str, *, table: int, protocol: int, index: int, what: bytes) -> Message:
    """A route in a table of one's own, which must not be there.

    :param what: attributes, as the functions above make them.
    """
    scope = RT_SCOPE_UNIVERSE if ":" in dst else RT_SCOPE_LINK
    return Message(RTM_NEWROUTE, NEW, _route(dst, table, protocol, scope) + u32(RTA_OIF, index) + what)


def remove_route(dst: str, *, table: int, protocol: int) -> Message:
    """RT_SCOPE_NOWHERE stands for any scope (fib_table_delete, net/ipv4/fib_trie.c)."""
    return Message(RTM_DELROUTE, 0, _route(dst, table, protocol, RT_SCOPE_NOWHERE))


def _route(dst: str, table: int, protocol: int, scope: int) -> bytes:
    network, _, length = dst.partition("/")
    family = AF_INET6 if ":" in network else AF_INET
    header = RTMSG.pack(family, int(length), 0, 0, 0, protocol, scope, RTN_UNICAST, 0)
    return header + address(RTA_DST, network) + u32(RTA_TABLE, table)


# Rules


def add_rule(family: int, ifname: str, dst: str | None, *, table: int, protocol: int) -> Message:
    """What comes in by an interface, to a prefix or to anywhere, looks into a table. Its number is the priority too."""
    return Message(RTM_NEWRULE, NEW, _rule(family, ifname, dst, table, protocol))


def remove_rule(family: int, ifname: str, dst: str | None, *, table: int, protocol: int) -> Message:
    return Message(RTM_DELRULE, 0, _rule(family, ifname, dst, table, protocol))


def _rule(family: int, ifname: str, dst: str | None, table: int, protocol: int) -> bytes:
    network, _, length = (dst or "").partition("/")
    header = RTMSG.pack(AF_INET6 if family == 6 else AF_INET, int(length or 0), 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    to = address(FRA_DST, network) if network else b""
    return (header + to + text(FRA_IIFNAME, ifname) + u32(FRA_PRIORITY, table) + u32(FRA_TABLE, table)
            + u8(FRA_PROTOCOL, protocol))


def get_rules(family: int) -> Message:
    """A dump of an address family's rules."""
    return Message(RTM_GETRULE, 0, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def read_rule(data: bytes) -> tuple[int, str, str | None]:
    """(protocol, interface, destination) of an RTM_NEWRULE message; the header is as struct rtmsg."""
    length = RTMSG.unpack_from(data, HEADER.size)[1]
    given = by_kind(data, HEADER.size + RTMSG.size)
    dst = f"{as_address(given[FRA_DST])}/{length}" if FRA_DST in given else None
    return as_int(given.get(FRA_PROTOCOL)), as_text(given.get(FRA_IIFNAME)), dst


# The pair of ends


def create_pair(ifname: str, peer: str, *, address: str, mtu: int) -> Message:
    """A veth in one namespace, both ends down, with one MAC. Both names must be free."""
    ends = [text(IFLA_IFNAME, name) + mac(IFLA_ADDRESS, address) + u32(IFLA_MTU, mtu) for name in (ifname, peer)]
    other = attribute(VETH_INFO_PEER, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + ends[1])
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), nest(IFLA_INFO_DATA, other))
    return Message(RTM_NEWLINK, NEW, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + ends[0] + info)


def set_up_without_arp(ifname: str) -> Message:
    """Nobody is asked for a MAC: packets have the interface's own (ndisc_constructor, net/ipv6/ndisc.c)."""
    flags = IFF_UP | IFF_NOARP
    return Message(RTM_SETLINK, 0, IFINFOMSG.pack(AF_UNSPEC, 0, 0, flags, flags) + text(IFLA_IFNAME, ifname))


def is_up_without_arp(data: bytes) -> bool:
    """Whether that is so by an RTM_NEWLINK message."""
    flags: int = IFINFOMSG.unpack_from(data, HEADER.size)[3]
    return flags & (IFF_UP | IFF_NOARP) == IFF_UP | IFF_NOARP
