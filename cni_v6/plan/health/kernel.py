"""The node's kernel: what it can do, its sysctls, uplinks, tables and limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cni_v6.kernel.facts import BRIDGE_PORTS_MAX, MODULES, Link, Uplink
from cni_v6.leases.attachment import CHILD_KINDS, Attachment, RoutedLink
from cni_v6.net.addresses import is_link_local, version
from cni_v6.plan.bridge_port import FRAMES
from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding, share

FULL, NEARLY = 95, 80  # percent of a limit
ENTRIES = 2  # in the neighbour table for each container of a family: the node's of it, and its own of the gateway
IPV6_MIN_MTU = 1280  # RFC 8200, section 5
THRESHOLD = {4: "ipv4/neigh/default/gc_thresh3", 6: "ipv6/neigh/default/gc_thresh3"}
CONNTRACK, CONNTRACK_MAX = "netfilter/nf_conntrack_count", "netfilter/nf_conntrack_max"
FIRST_YEAR = 1_735_689_600.0  # 2025-01-01: a clock before it was not set
AHEAD = 60.0  # seconds that a record may be ahead of the clock


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """``features``: what was tried in a namespace of its own -> why it failed, "" where it works. ``sysctls``: below
    /proc/sys/net; None where the kernel has no such key. ``learnt``: interfaces whose IPv6 default route is from router
    advertisements. ``addresses``: (interface, ``ip/length``) of the node. ``chains``: names of all chains of others.
    """

    features: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str | None] = field(default_factory=dict)
    uplinks: tuple[Uplink, ...] = ()
    learnt: frozenset[str] = frozenset()
    addresses: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    chains: frozenset[str] = frozenset()
    boot: str = ""
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Use:
    """What the networks of this node use. ``families``: with addresses. ``containers``: as of ``resolving``. ``homes``:
    interfaces of ours that containers have as their gateway. ``twice``: a container that is in several IPv4 networks,
    "" for none. ``newest``: when the newest attachment was made. ``masqueraded``: families.
    """

    families: frozenset[int] = frozenset()
    containers: Mapping[int, int] = field(default_factory=dict)
    homes: frozenset[str] = frozenset()
    twice: str = ""
    newest: float = 0.0
    masqueraded: frozenset[int] = frozenset()


def resolving(records: Iterable[Attachment]) -> dict[int, int]:
    """How many containers resolve a neighbour, by family.

    Both ends of a routed container's link know each other, by permanent entries, which the kernel does not count
    (``neigh_alloc``, net/core/neighbour.c).
    """
    counts: dict[int, int] = {}
    for record in records:
        for address in record.addresses if not isinstance(record.port, RoutedLink) else ():
            counts[version(address)] = counts.get(version(address), 0) + 1
    return counts


def findings(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    """All of them, green ones too."""
    yield from _features(facts)
    yield from _or_green("uplinks", [*_uplinks(facts, use)], _uplinks_seen(facts.uplinks))
    yield from _or_green("router advertisements", [*_advertisements(facts)], "no uplink will lose its default route")
    yield from _or_green("rp_filter", [*_rp_filter(facts, use)], "it drops nothing of these networks")
    yield from _or_green("br_netfilter", [*_br_netfilter(facts, use)], "as the programs on this node need it")
    yield from _or_green("bridge ports", [*_ports(facts.links)], f"no bridge is near its {BRIDGE_PORTS_MAX:,} ports")
    yield from _or_green("neighbour table", [*_neighbours(facts, use)], _limits(facts))
    yield from _or_green("connection tracking", [*_conntrack(facts)], _flows(facts))
    yield from _or_green("clock", [*_clock(facts, use)], "the clock and the boot id can be used")


def _or_green(check: str, found: Sequence[Finding], message: str) -> Sequence[Finding]:
    return found or [Finding(GREEN, check, message)]


def _features(facts: KernelFacts) -> Iterator[Finding]:
    for name, why in facts.features.items():
        if why:
            level, module = AMBER if name == "nf_tables" else RED, MODULES.get(name, name)
            yield Finding(level, f"kernel {name}", f"the kernel refuses it: {why}", _needed_by(name),
                          f"modprobe {module}, or a kernel that has it (zgrep {module.upper()} /proc/config.gz)")
        else:
            yield Finding(GREEN, f"kernel {name}", "works")


def _needed_by(feature: str) -> str:
    if feature in CHILD_KINDS:
        return f"every ADD of a network of cni-v6-{feature} needs it"
    return "masquerade, ingress, guard and ports need it" if feature == "nf_tables" else "every ADD needs it"


def _uplinks(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    for family in sorted(use.families):
        mine = [uplink for uplink in facts.uplinks if uplink.family == family]
        if not mine:
            yield Finding(AMBER, "uplinks", f"the node has no default route of IPv{family}",
                          f"containers reach nothing beyond the node over IPv{family}",
                          f"ip -{family} route show default; configure the uplink, or wait for its router")
        for uplink in mine:
            if family == 6 and uplink.mtu < IPV6_MIN_MTU:
                yield Finding(RED, "uplinks", f"{uplink.ifname} has MTU {uplink.mtu}, less than {IPV6_MIN_MTU}",
                              "the kernel takes IPv6 off such an interface (RFC 8200, section 5)",
                              f"ip link set {uplink.ifname} mtu {IPV6_MIN_MTU}")
            own = [text for name, text in facts.addresses if name == uplink.ifname and version(text) == family]
            if family in use.masqueraded and all(map(is_link_local, own)):
                yield Finding(AMBER, "uplinks", f"{uplink.ifname} has no global IPv{family} address",
                              "masqueraded packets need one as their source",
                              f"ip -{family} address show dev {uplink.ifname}; or give a fixed source (snat)")


def _uplinks_seen(uplinks: Iterable[Uplink]) -> str:
    seen = [f"IPv{uplink.family} through {uplink.ifname} (MTU {uplink.mtu})" for uplink in uplinks]
    return ", ".join(seen) or "none, and no network needs one"


def _advertisements(facts: KernelFacts) -> Iterator[Finding]:
    """The kernel ignores router advertisements where it forwards, unless accept_ra is 2."""
    for name in sorted(facts.learnt):
        forwards = "1" in (facts.sysctls.get("ipv6/conf/all/forwarding"),
                           facts.sysctls.get(f"ipv6/conf/{name}/forwarding"))
        if forwards and facts.sysctls.get(f"ipv6/conf/{name}/accept_ra") == "1":
            yield Finding(
                RED, "router advertisements", f"{name} has its default route from router advertisements, and ignores "
                "further ones: accept_ra is 1 and forwarding is on", "the node loses its IPv6 when the route expires",
                f"sysctl -w net.ipv6.conf.{name}.accept_ra=2, and find what turned all.forwarding on",
            )


def _rp_filter(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    """A strict filter drops what comes in by another interface than the answer would leave by (RFC 3704)."""
    common = facts.sysctls.get("ipv4/conf/all/rp_filter") or "0"
    uplinks = {uplink.ifname for uplink in facts.uplinks if uplink.family == 4}
    for name in sorted(use.homes | uplinks):
        own = facts.sysctls.get(f"ipv4/conf/{name}/rp_filter") or "0"
        why = use.twice and name in use.homes and f"container {use.twice} is in several networks, and answers by one"
        why = why or (name in uplinks and len(uplinks) > 1 and "the node has several uplinks, and answers by one")
        if max(common, own) == "1" and why:
            yield Finding(AMBER, "rp_filter", f"{name} filters strictly (rp_filter 1)",
                          f"{why}: packets that came by another are dropped",
                          f"sysctl -w net.ipv4.conf.{name}.rp_filter=2 net.ipv4.conf.all.rp_filter=2")


def _br_netfilter(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    kube = "KUBE-SERVICES" in facts.chains
    bridges = [link for link in facts.links if link.kind == "bridge" and _is_ours(link, use)]
    why = "the node's rules do not see packets between pods on one bridge: services fail, policies do not hold"
    for family, key in FRAMES.items():
        value, sysctl = facts.sysctls.get(key), f"net.{key.replace('/', '.')}"
        asked = [link.name for link in bridges if family in link.netfilter]
        left = [link.name for link in bridges if family not in link.netfilter]
        if value is None and (kube or asked):
            needed = f", and bridge {asked[0]} needs it" if asked else ""
            yield Finding(AMBER, "br_netfilter", f"{sysctl} is missing{needed}", why, "modprobe br_netfilter")
        elif kube and value != "1" and (left or not bridges):
            where = f", and bridge {left[0]} has no setting of its own" if left else ""
            yield Finding(AMBER, "br_netfilter", f"{sysctl} is {value}{where}", why,
                          f'write "netfilter": true into the configuration, or run sysctl -w {sysctl}=1')


def _is_ours(bridge: Link, use: Use) -> bool:
    """Whether containers have a gateway on a bridge: on itself, or in a VLAN."""
    return any(home.partition(".")[0] == bridge.name for home in use.homes)


def _ports(links: Sequence[Link]) -> Iterator[Finding]:
    for bridge in (link.name for link in links if link.kind == "bridge"):
        count = sum(link.master == bridge for link in links)
        if share(count, BRIDGE_PORTS_MAX) >= NEARLY:
            level = RED if count >= BRIDGE_PORTS_MAX else AMBER
            yield Finding(level, "bridge ports", f"bridge {bridge} has {count:,} of {BRIDGE_PORTS_MAX:,} ports",
                          "a Linux bridge takes no more", "a second network with its own bridge, or fewer containers")


def _neighbours(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    for family, key in THRESHOLD.items():
        limit, needed = facts.sysctls.get(key), ENTRIES * use.containers.get(family, 0)
        if limit is not None and limit.isdigit() and needed > int(limit) * NEARLY // 100:
            level = RED if needed > int(limit) else AMBER
            yield Finding(
                level, "neighbour table", f"{use.containers[family]:,} containers with IPv{family} need about "
                f"{needed:,} entries; net.{key.replace('/', '.')} is {limit}",
                "all namespaces share the table: when it is full, containers lose their gateway",
                f"sysctl -w net.{key.replace('/', '.')}={4 * needed}, and gc_thresh2 to half of it",
            )


def _limits(facts: KernelFacts) -> str:
    known = [f"IPv{family} {facts.sysctls[key]}" for family, key in THRESHOLD.items() if facts.sysctls.get(key)]
    return f"room for {', '.join(known)} entries" if known else "its limits are set in the machine's first namespace"


def _conntrack(facts: KernelFacts) -> Iterator[Finding]:
    count, most = facts.sysctls.get(CONNTRACK), facts.sysctls.get(CONNTRACK_MAX)
    if count and most and int(most) and share(int(count), int(most)) >= NEARLY:
        level = RED if share(int(count), int(most)) >= FULL else AMBER
        yield Finding(level, "connection tracking", f"{int(count):,} of {int(most):,} flows",
                      "the kernel drops new connections when the table is full",
                      f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}, or find who opens so many")


def _flows(facts: KernelFacts) -> str:
    count, most = facts.sysctls.get(CONNTRACK), facts.sysctls.get(CONNTRACK_MAX)
    return f"{int(count):,} of {int(most):,} flows" if count and most else "not in use"


def _clock(facts: KernelFacts, use: Use) -> Iterator[Finding]:
    if not facts.boot:
        yield Finding(AMBER, "clock", "/proc/sys/kernel/random/boot_id cannot be read",
                      "leases of an earlier boot are not recognized, and stay", "mount /proc in the plugins' namespace")
    if facts.now < FIRST_YEAR:
        yield Finding(AMBER, "clock", "the clock was not set: it is before 2025",
                      "ipam.reuseAfter and the ages of attachments count from it", "start time synchronization")
    elif use.newest > facts.now + AHEAD:
        yield Finding(AMBER, "clock", f"an attachment is {int(use.newest - facts.now):,} s younger than now",
                      "the clock was set back: addresses wait longer for their reuse, and GC keeps what is young",
                      "start time synchronization before the runtime")
