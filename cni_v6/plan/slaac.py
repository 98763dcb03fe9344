"""Plans addresses that a container takes from a router on its link (``ipam.type`` ``cni-v6-slaac``, RFC 4862).

The kernel solicits a router as soon as it has a link-local address. It has one at once, because duplicate address
detection is off: the interface identifier is that of the MAC, which nobody else on the link has: it is derived from the
container, or the master's. In the identifiers of a master's ipvlans the kernel counts (dev_id, addrconf_ifid_eui48).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cni_v6.kernel import autoconf, ops
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import GetLifetimes, GetRoutes, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.net.addresses import is_link_local
from cni_v6.plan.container import DEFAULT_ROUTE
from cni_v6.plan.site import Site
from cni_v6.protocol.result import Address, Result, Route

LISTENS = "2"  # accept_ra; 1 would be ignored once the container forwards

_SETTINGS = (  # key, value, whether it works without
    ("disable_ipv6", "0", False),
    ("accept_ra", LISTENS, False),
    ("autoconf", "1", False),
    ("addr_gen_mode", "0", False),
    ("accept_dad", "0", False),
    ("use_tempaddr", "0", True),
    ("ndisc_notify", "1", True),
    ("router_solicitation_interval", "1", True),  # of 4 seconds by default: an answer may be lost
)
CHECKED = (("accept_ra", LISTENS), ("autoconf", "1"))


def steps(site: Site, seen: Snapshot) -> Iterator[Op]:
    """Configure the interface before it comes up.

    :param seen: answers to ``container.questions``.
    """
    netns, ifname = site.netns, site.owner.ifname
    for name, value, is_precaution in _SETTINGS:
        yield ops.SetSysctl(netns, f"ipv6/conf/{ifname}/{name}", value, precaution=is_precaution)
    loopback = "ipv6/conf/lo/disable_ipv6"
    if seen.sysctl(netns, loopback) == "1":
        yield ops.SetSysctl(netns, loopback, "0", was="1", precaution=True)


def questions(site: Site) -> tuple[Question, ...]:
    """The questions what the container has now."""
    return GetLifetimes(site.netns, site.owner.ifname), GetRoutes(site.netns, site.owner.ifname)


def with_addresses(site: Site, result: Result, seen: Snapshot) -> Result:
    """The result with what the container has from routers: addresses, the first router as gateway, default routes.

    :param seen: answers to ``questions``.
    """
    routers = [route.gateway for route in _defaults(site, seen) if route.gateway]
    gateway = routers[0] if routers else None
    ips = tuple(Address(address, gateway, interface=0) for address in _addresses(site, seen))
    return replace(result, ips=ips, routes=tuple(Route(DEFAULT_ROUTE[6], router) for router in dict.fromkeys(routers)))


def missing(site: Site, seen: Snapshot) -> Iterator[str]:
    """What the container lacks now; a router may have changed its prefix since the ADD.

    :param seen: answers to ``questions``.
    """
    if not _addresses(site, seen):
        yield autoconf.ADDRESS
    if not _defaults(site, seen):
        yield autoconf.ROUTE


def _addresses(site: Site, seen: Snapshot) -> list[str]:
    """The preferred addresses; all, if none is preferred."""
    found = [lifetime for lifetime in seen.lifetimes(site.netns, site.owner.ifname)
             if not lifetime.temporary and not is_link_local(lifetime.address)]
    return [held.address for held in found if held.preferred] or [held.address for held in found]


def _defaults(site: Site, seen: Snapshot) -> list[RouteEntry]:
    return [route for route in seen.routes(site.netns, site.owner.ifname) if route.dst == DEFAULT_ROUTE[6]]
