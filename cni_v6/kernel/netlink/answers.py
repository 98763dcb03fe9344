"""Reads the kernel's answers to ``requests``: links, addresses, routes. Each function takes a whole message with its
netlink header."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.netlink.message import HEADER, as_address, as_int, as_mac, as_text, by_kind, picked
from cni_v6.kernel.netlink.requests import IFADDRMSG, IFINFOMSG, RTMSG
from cni_v6.kernel.netlink.uapi import (
    AF_INET6,
    IFA_ADDRESS,
    IFA_F_DADFAILED,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_ALLMULTI,
    IFF_LOWER_UP,
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    IF_OPER_UNKNOWN,
    IF_OPER_UP,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_BR_GROUP_FWD_MASK,
    IFLA_BR_NF_CALL_IP6TABLES,
    IFLA_BR_NF_CALL_IPTABLES,
    IFLA_BR_STP_STATE,
    IFLA_BR_VLAN_DEFAULT_PVID,
    IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_BRPORT_STATE,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_CONF,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_OPERSTATE,
    IFLA_TXQLEN,
    RT_TABLE_LOCAL,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTAX_ADVMSS,
    RTAX_MTU,
    RTN_LOCAL,
    RTN_UNICAST,
)

RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index; the next hop's attributes follow

Attributes = Mapping[int, bytes]

_LINK = frozenset((
    IFLA_IFNAME, IFLA_ADDRESS, IFLA_MTU, IFLA_OPERSTATE, IFLA_IFALIAS, IFLA_GROUP, IFLA_MASTER, IFLA_LINKINFO,
    IFLA_AF_SPEC, IFLA_TXQLEN,
))
_ALIAS = frozenset((IFLA_IFNAME, IFLA_IFALIAS, IFLA_MASTER))
_NETFILTER = {4: IFLA_BR_NF_CALL_IPTABLES, 6: IFLA_BR_NF_CALL_IP6TABLES}
_BRIDGE = frozenset((
    IFLA_BR_STP_STATE, IFLA_BR_VLAN_FILTERING, IFLA_BR_VLAN_DEFAULT_PVID, IFLA_BR_GROUP_FWD_MASK, *_NETFILTER.values(),
))
_NONE: frozenset[int] = frozenset()
_PORT = frozenset((IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_STATE))
# The sysctls ``net/ipv6/conf/<interface>/`` that a message about a link has too: linux/ipv6.h, DEVCONF_*.
IPV6_SETTINGS = {"accept_ra": 3, "autoconf": 5, "disable_ipv6": 26, "accept_dad": 27, "force_forwarding": 59}


def index_of(data: bytes) -> int:
    """The interface index, which is at the same offset in struct ifinfomsg and struct ifaddrmsg."""
    return int(struct.unpack_from("=i", data, HEADER.size + 4)[0])


def family_of(data: bytes) -> int:
    """The address family, the first field of struct ifinfomsg and struct ifaddrmsg."""
    return data[HEADER.size]


def peer_of(data: bytes) -> int:
    """The index of a veth's peer, in the peer's namespace; 0 if the message does not contain it."""
    return as_int(_some(data, IFLA_LINK).get(IFLA_LINK))


def peer_place(data: bytes) -> tuple[int, int | None]:
    """As ``peer_of``, and the id that the other end's namespace has in this one, None if it is unknown here."""
    namespace = _some(data, IFLA_LINK_NETNSID).get(IFLA_LINK_NETNSID)
    return peer_of(data), int.from_bytes(namespace, "little", signed=True) if namespace else None


def name_of(data: bytes) -> str:
    return as_text(_some(data, IFLA_IFNAME).get(IFLA_IFNAME))


def port_state(data: bytes) -> tuple[int, bool]:
    """(index of its master or 0, ``Link.port_enabled``) of an RTM_NEWLINK message."""
    given = _some(data, IFLA_MASTER, IFLA_LINKINFO)
    info = by_kind(given.get(IFLA_LINKINFO, b""))
    port = picked(info.get(IFLA_INFO_SLAVE_DATA, b""), (IFLA_BRPORT_STATE,))
    return as_int(given.get(IFLA_MASTER)), bool(as_int(port.get(IFLA_BRPORT_STATE)))


def read_link(data: bytes, settings: dict[str, str | None] | None = None) -> tuple[Link, int]:
    """(link without ``master``, index of its master or 0) of an RTM_NEWLINK message.

    :param settings: those of the interface's ``IPV6_SETTINGS`` that are its keys get their values; none if the kernel
        has no such setting, or no IPv6 on the interface.
    """
    flags = IFINFOMSG.unpack_from(data, HEADER.size)[3]
    given = picked(data, _LINK, HEADER.size + IFINFOMSG.size)
    info = by_kind(given.get(IFLA_LINKINFO, b""))
    kind = as_text(info.get(IFLA_INFO_KIND))
    bridge = picked(info.get(IFLA_INFO_DATA, b""), _BRIDGE) if kind == "bridge" else {}
    port = picked(info.get(IFLA_INFO_SLAVE_DATA, b""), _PORT)
    if settings:
        _read_settings(given.get(IFLA_AF_SPEC, b""), settings)
    link = Link(
        name=as_text(given.get(IFLA_IFNAME)),
        mac=as_mac(given.get(IFLA_ADDRESS)),
        mtu=as_int(given.get(IFLA_MTU)),
        kind=kind,
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_UP) and _sends(as_int(given.get(IFLA_OPERSTATE)), flags, kind),
        promisc=bool(flags & IFF_PROMISC),
        allmulti=bool(flags & IFF_ALLMULTI),
        arp=not flags & IFF_NOARP,
        tx_queue=as_int(given[IFLA_TXQLEN]) if IFLA_TXQLEN in given else 1000,
        alias=as_text(given.get(IFLA_IFALIAS)),
        hairpin=bool(as_int(port.get(IFLA_BRPORT_MODE))),
        isolated=bool(as_int(port.get(IFLA_BRPORT_ISOLATED))),
        stp=bool(as_int(bridge.get(IFLA_BR_STP_STATE))),
        vlan_filtering=bool(as_int(bridge.get(IFLA_BR_VLAN_FILTERING))),
        default_vlan=as_int(bridge[IFLA_BR_VLAN_DEFAULT_PVID]) if IFLA_BR_VLAN_DEFAULT_PVID in bridge else 1,
        group=as_int(given.get(IFLA_GROUP)),
        group_fwd_mask=as_int(bridge.get(IFLA_BR_GROUP_FWD_MASK)),
        netfilter=_filtered(bridge) if bridge else _NONE,
        port_enabled=bool(as_int(port.get(IFLA_BRPORT_STATE))),
    )
    return link, as_int(given.get(IFLA_MASTER))


def _sends(state: int, flags: int, kind: str) -> bool:
    """Whether the kernel sends through an interface that is up. A bridge that had carrier all the time, since its ports
    were up before it, keeps the unknown state that it began with."""
    return state == IF_OPER_UP or (kind == "bridge" and state == IF_OPER_UNKNOWN and bool(flags & IFF_LOWER_UP))


def _filtered(bridge: Attributes) -> frozenset[int]:
    return frozenset(family for family, kind in _NETFILTER.items() if as_int(bridge.get(kind)))


def _read_settings(specific: bytes, settings: dict[str, str | None]) -> None:
    of_ipv6 = by_kind(by_kind(specific).get(AF_INET6, b""))
    values = of_ipv6.get(IFLA_INET6_CONF, b"")
    for name in settings:
        place = IPV6_SETTINGS[name] * 4
        if place < len(values):
            settings[name] = str(struct.unpack_from("=i", values, place)[0])


def settings_of(data: bytes, names: Iterable[str]) -> dict[str, str | None]:
    """Those of the interface's ``IPV6_SETTINGS``, as of ``read_link``."""
    settings: dict[str, str | None] = dict.fromkeys(names)
    _read_settings(_some(data, IFLA_AF_SPEC).get(IFLA_AF_SPEC, b""), settings)
    return settings


def alias_of(data: bytes) -> tuple[str, str, int]:
    """(name, alias or "", index of its master or 0) of an RTM_NEWLINK message, of which nothing else is read."""
    given = picked(data, _ALIAS, HEADER.size + IFINFOMSG.size)
    return as_text(given.get(IFLA_IFNAME)), as_text(given.get(IFLA_IFALIAS)), as_int(given.get(IFLA_MASTER))


def read_address(data: bytes) -> tuple[int, str]:
    """(interface index, ``ip/prefixlen``) of an RTM_NEWADDR message."""
    _, length, _, _, index = IFADDRMSG.unpack_from(data, HEADER.size)
    given = _attributes(data, IFADDRMSG)
    return index, f"{as_address(given.get(IFA_LOCAL) or given[IFA_ADDRESS])}/{length}"


def read_address_flags(data: bytes) -> tuple[str, int]:
    """(address without prefix length, IFA_F_*) of an RTM_NEWADDR message."""
    return read_address(data)[1].partition("/")[0], as_int(_attributes(data, IFADDRMSG).get(IFA_FLAGS))


def read_address_state(data: bytes) -> tuple[str, bool, bool]:
    """(``ip/prefixlen``, whether it is tentative, whether it is a duplicate) of an RTM_NEWADDR message."""
    flags = as_int(_attributes(data, IFADDRMSG).get(IFA_FLAGS))
    failed = bool(flags & IFA_F_DADFAILED)
    return read_address(data)[1], bool(flags & IFA_F_TENTATIVE) and not failed, failed


def is_local(data: bytes) -> bool:
    """Whether the route in an RTM_NEWROUTE message is to an address of the namespace's own."""
    return bool(RTMSG.unpack_from(data, HEADER.size)[7] == RTN_LOCAL)


def read_uplinks(data: bytes) -> tuple[int, ...]:
    """The interface index of each next hop of the route in an RTM_NEWROUTE message; () if it is not unicast."""
    given = _attributes(data, RTMSG)
    if RTA_OIF in given and RTMSG.unpack_from(data, HEADER.size)[7] == RTN_UNICAST:
        return (as_int(given[RTA_OIF]),)
    return tuple(index for index, _ in _hops(given))


def _hops(given: Attributes) -> Iterator[tuple[int, Attributes]]:
    """(interface index, attributes) of each next hop of a route that has several."""
    hops = given.get(RTA_MULTIPATH, b"")
    while hops:
        length, _, _, index = RTNEXTHOP.unpack_from(hops)
        yield index, by_kind(hops[RTNEXTHOP.size:length])
        hops = hops[(length + 3) & ~3 :]


def read_routes(data: bytes) -> tuple[tuple[int, RouteEntry], ...]:
    """As ``read_route``, an entry for each next hop of the route."""
    if route_type(data) != RTN_UNICAST:
        return ()
    given = _attributes(data, RTMSG)
    index, entry = _route(data, given)
    if entry.table == RT_TABLE_LOCAL:
        return ()
    hops = tuple((hop_index, replace(entry, gateway=_gateway(hop))) for hop_index, hop in _hops(given))
    return hops or ((index, entry),)


def read_route(data: bytes) -> tuple[int, RouteEntry] | None:
    """(interface index, route) of an RTM_NEWROUTE message; None if it is not unicast, or in the local table."""
    if route_type(data) != RTN_UNICAST:
        return None
    index, entry = read_any_route(data)
    return None if entry.table == RT_TABLE_LOCAL else (index, entry)


def route_type(data: bytes) -> int:
    """RTN_* of an RTM_NEWROUTE message."""
    return int(RTMSG.unpack_from(data, HEADER.size)[7])


def read_any_route(data: bytes) -> tuple[int, RouteEntry]:
    """As ``read_route``, of a route of any type and table."""
    return _route(data, _attributes(data, RTMSG))


def _route(data: bytes, given: Attributes) -> tuple[int, RouteEntry]:
    family, length, _, _, short_table, _, scope, _, _ = RTMSG.unpack_from(data, HEADER.size)
    table = as_int(given.get(RTA_TABLE)) or short_table
    metrics = by_kind(given.get(RTA_METRICS, b""))
    any_network = bytes(16 if family == AF_INET6 else 4)
    entry = RouteEntry(
        dst=f"{as_address(given.get(RTA_DST, any_network))}/{length}",
        gateway=_gateway(given),
        mtu=_number(metrics, RTAX_MTU),
        advmss=_number(metrics, RTAX_ADVMSS),
        priority=_number(given, RTA_PRIORITY),
        table=table,
        scope=scope,
    )
    return as_int(given.get(RTA_OIF)), entry


def _gateway(given: Attributes) -> str | None:
    """The next hop. One of another family than the route's has its family before it (struct rtvia)."""
    if RTA_VIA in given:
        return as_address(given[RTA_VIA][2:])
    return as_address(given[RTA_GATEWAY]) if RTA_GATEWAY in given else None


def _number(given: Attributes, kind: int) -> int | None:
    return as_int(given[kind]) if kind in given else None


def _some(data: bytes, *kinds: int) -> Attributes:
    """Attributes of an RTM_NEWLINK message."""
    return picked(data, kinds, HEADER.size + IFINFOMSG.size)


def _attributes(data: bytes, header: struct.Struct) -> Attributes:
    return by_kind(data, HEADER.size + header.size)
