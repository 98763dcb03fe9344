"""Plans the container's side of an attachment, whatever its host end is connected to: settings, addresses, routes.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.main import MainConf
from cni_v6.errors import ALREADY_ATTACHED, CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, GetUplinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan import families
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol.result import Address, Route

DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


def questions(site: Site, conf: MainConf) -> tuple[Question, ...]:
    """The questions that ``check_free``, ``steps`` and the features' ``container_steps`` need answered."""
    others = (GetUplinks(site.netns),) if conf.may_route_by_source else ()
    return GetLink(HOST, site.host), GetLink(site.netns, site.owner.ifname), *families.questions(site.netns), *others


def check_free(site: Site, seen: Snapshot) -> None:
    """Refuse an attachment whose interfaces exist already.

    :raises CniError: ALREADY_ATTACHED.
    """
    if seen.link(HOST, site.host):
        words = f"container {site.owner.container_id} is attached to {site.owner.network} already ({site.host})"
        raise CniError(ALREADY_ATTACHED, words, f"run DEL for {site.owner.ifname} of that container first")
    if seen.link(site.netns, site.owner.ifname):
        words = f"interface {site.owner.ifname} exists in the container already ({site.netns})"
        raise CniError(ALREADY_ATTACHED, words, "choose another CNI_IFNAME, or run DEL for the attachment that made it")


def steps(
    site: Site, allocation: Allocation, seen: Snapshot, *, announced: frozenset[int] = frozenset(), dad: bool = False,
    up: bool = True, accept_ra: str = "0", later: frozenset[int] = frozenset(),
) -> Iterable[Op]:
    """Configure the interface before it comes up: no frame from the segment reaches it half-configured.

    :param announced: the families whose addresses are announced to neighbours.
    :param later: the families whose addresses the caller adds by ``addresses``.
    :param accept_ra: as the sysctl: "2" takes router advertisements even from a container that forwards.
    """
    netns, ifname = site.netns, site.owner.ifname
    for name, value, needed in _settings(site, allocation, seen, announced, dad, accept_ra):
        yield ops.SetSysctl(netns, name.format(ifname=ifname), value, precaution=not needed)
    loopback = seen.sysctl(netns, "ipv6/conf/lo/disable_ipv6")
    if 6 in allocation.families() and loopback == "1":
        yield ops.SetSysctl(netns, "ipv6/conf/lo/disable_ipv6", "0", was=loopback, precaution=True)
    yield from addresses(site, (ip for ip in allocation.ips if ip.family not in later), dad=dad)
    if up:
        yield ops.SetLink(netns, ifname, up=True)


def addresses(site: Site, ips: Iterable[Address], *, dad: bool) -> Iterable[Op]:
    """Give the interface these addresses."""
    for ip in ips:
        yield ops.AddAddress(site.netns, site.owner.ifname, ip.address, dad=dad)


def reception(site: Site, allocation: Allocation) -> Iterable[Op]:
    """Wait until the container is reached at its IPv6 addresses; IPv4 ones are ready at once."""
    own = tuple(ip.ip for ip in allocation.ips if ip.family == 6)
    if own:
        yield awaits.AwaitReception(site.netns, site.owner.ifname, own)


def _settings(
    site: Site, allocation: Allocation, seen: Snapshot, announced: frozenset[int], dad: bool, accept_ra: str
) -> Iterable[tuple[str, str, bool]]:
    """Sysctls of the container's interface: key, value, and whether the network needs it. None on a layer 2 network.

    IPv6 needs three things: it is on, it ignores router advertisements unless they are wanted, and its link-local
    address is the one that the guard knows. The other sysctls save a delay, or save neighbours a solicitation.
    """
    families_present = allocation.families()
    if 4 in announced:
        yield "ipv4/conf/{ifname}/arp_notify", "1", False
    if 6 in families_present:
        yield "ipv6/conf/{ifname}/disable_ipv6", "0", True
        yield "ipv6/conf/{ifname}/accept_ra", accept_ra, True
        yield "ipv6/conf/{ifname}/autoconf", "0", False
        yield "ipv6/conf/{ifname}/accept_dad", "1" if dad else "0", dad
        if dad:  # else the kernel waits for up to a second before the first solicitation (addrconf_dad_kick)
            yield "ipv6/conf/{ifname}/router_solicitation_delay", "0", False
        if 6 in announced:
            yield "ipv6/conf/{ifname}/ndisc_notify", "1", False
        yield "ipv6/conf/{ifname}/keep_addr_on_down", "1", False  # as IPv4 addresses are kept
        yield "ipv6/conf/{ifname}/addr_gen_mode", "0", True  # derive the link-local address from the MAC
    elif families_present and seen.sysctl(site.netns, "ipv6/conf/lo/disable_ipv6") is not None:
        yield "ipv6/conf/{ifname}/disable_ipv6", "1", False


def next_hop(route: Route, ips: Iterable[Address]) -> str | None:
    """The gateway of a route: its own, else the gateway of the first address of its family; None for an on-link route.

    A route whose scope is narrower than global (link, 253; host, 254) takes no gateway (net/ipv4/fib_semantics.c).
    """
    if route.gw or (route.scope or 0) >= 253:
        return route.gw
    return next((ip.gateway for ip in ips if ip.family == route.family and ip.gateway), None)


def route(site: Site, wanted: Route, ips: Iterable[Address]) -> Op:
    """The operation that adds a route of the result.

    :param ips: the container's addresses, with the gateway that each has.
    """
    return ops.AddRoute(
        site.netns,
        site.owner.ifname,
        wanted.dst,
        next_hop(wanted, ips),
        mtu=wanted.mtu,
        advmss=wanted.advmss,
        priority=wanted.priority,
        table=wanted.table,
        scope=wanted.scope,
    )
