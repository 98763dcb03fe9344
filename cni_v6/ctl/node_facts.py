"""What ``explain`` and ``init`` ask the kernel beside the questions of the plugins: neighbours, the node's ways,
counters, routes that discard."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from cni_v6.firewall.sets import BRIDGE, INET, Element
from cni_v6.kernel.netfilter import counters
from cni_v6.kernel.netfilter.socket import open_netfilter
from cni_v6.net.addresses import version
from cni_v6.plan.situation import Way

OUTSIDE = {4: "1.0.0.0", 6: "2000::"}  # the first global unicast addresses, as of kernel.netlink.requests.get_uplink
STATES = {1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed", 64: "noarp",
          128: "permanent"}  # linux/neighbour.h, NUD_*
DISCARD = (6, 7, 8)  # linux/rtnetlink.h: RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
MAIN_TABLE = 254
# No route, or no such family in the kernel.
NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the node's neighbour table."""

    address: str
    mac: str
    state: str
    interface: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """``ways``: the node's to addresses, ``uplinks``: to the outside by family; missing where there is no route.

    ``rules``: packets by chain, ``packets``: by element, both of our tables.
    """

    neighbours: tuple[Neighbour, ...] = ()
    ways: Mapping[str, Way] = field(default_factory=dict)
    uplinks: Mapping[int, Way] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    packets: Mapping[Element, int] = field(default_factory=dict)


def read(addresses: Iterable[str]) -> NodeFacts:
    """What the node has of some addresses; of a prefix, its first address stands for it."""
    from pyroute2 import IPRoute  # imported here: the other commands do not need it

    wanted = tuple(dict.fromkeys(addresses))
    with IPRoute() as route:
        names = {link["index"]: str(link.get("ifname")) for link in route.get_links()}
        ways = {address: way for address in wanted if (way := _way(route, names, address))}
        uplinks = {family: way for family, address in OUTSIDE.items() if (way := _way(route, names, address))}
        neighbours = tuple(
            Neighbour(str(entry.get("dst")), entry.get("lladdr") or "", STATES.get(entry["state"], ""),
                      names.get(entry["ifindex"], ""))
            for family in (socket.AF_INET, socket.AF_INET6) for entry in route.get_neighbours(family=family)
            if entry.get("dst") in wanted
        )
    return NodeFacts(neighbours, ways, uplinks, *_counted())


def _way(route: Any, names: Mapping[int, str], address: str) -> Way | None:
    from pyroute2.netlink.exceptions import NetlinkError

    family = socket.AF_INET if version(address) == 4 else socket.AF_INET6
    try:
        [found] = route.route("get", family=family, dst=address.partition("/")[0])
    except NetlinkError as error:
        if error.code in NO_WAY:
            return None
        raise
    interface = names.get(found.get("oif"), "")
    return Way(interface, found.get("prefsrc") or "") if interface else None


def discarded() -> tuple[str, ...]:
    """The IPv6 prefixes for which the main table has a route that discards."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        found = route.get_routes(family=socket.AF_INET6, table=MAIN_TABLE)
    return tuple(f"{entry.get('dst')}/{entry['dst_len']}" for entry in found
                 if entry["type"] in DISCARD and entry.get("dst"))


def _counted() -> tuple[Mapping[str, int], Mapping[Element, int]]:
    with closing(open_netfilter()) as netfilter:
        rules: dict[str, int] = {}
        for family in (INET, BRIDGE):
            rules |= counters.of_rules(netfilter.dump(counters.dump_rules(family)).messages)
        dumps = [netfilter.dump(request).messages for request in counters.dumps_of_elements()]
    counted = (counted_element for dump in dumps for data in dump for counted_element in counters.of_elements(data))
    return rules, dict(counted)
