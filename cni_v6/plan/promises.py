"""What a network's configuration promises its containers, and what is found of each promise. Pure.

``cni-v6ctl connectivity`` tries each from inside two throwaway containers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cni_v6.config.main import MainConf
from cni_v6.firewall.policy import GUARD_FULL, GUARD_OFF, OPEN, Allowed, Policy
from cni_v6.net.addresses import host_prefix, overlap, version
from cni_v6.plan import firewall
from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding
from cni_v6.plan.reach import DEFAULTS
from cni_v6.protocol.result import Address, Result

NEIGHBOUR, GATEWAY, NODE, OUTSIDE, BEYOND, INGRESS = (
    "neighbour", "gateway", "node", "outside", "beyond the node", "from outside"
)
PORT_NODE, PORT_OUTSIDE, HAIRPIN = "port from the node", "port from outside", "port from itself"
DNS, MTU, SOURCE, MAC, ADVERTISEMENT = "DNS", "MTU", "spoofed source", "spoofed MAC", "router advertisement"
SERVICE = 7  # the port that the throwaway containers listen on (RFC 862, echo)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the containers are tried against, by family; missing where there is none.

    ``node``: an address of the node that is not on the network. ``outside``: a host beyond the node that exists.
    ``beyond``: a throwaway host beyond the node; ``uplink``: the node's address on the link to it. ``port``: the
    published port of the first container, 0 for none.
    """

    node: Mapping[int, str] = field(default_factory=dict)
    outside: Mapping[int, str] = field(default_factory=dict)
    beyond: Mapping[int, str] = field(default_factory=dict)
    uplink: Mapping[int, str] = field(default_factory=dict)
    port: int = 0


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that passes, or, if ``wanted`` is false, does not. ``family`` 0: of no family.

    ``target``: whom it goes to, "" where nobody could be found. ``seen_as``: the source that the target must see.
    """

    kind: str
    family: int
    target: str
    wanted: bool = True
    seen_as: str = ""

    @property
    def check(self) -> str:
        """The name of the line."""
        return f"IPv{self.family} {self.kind}" if self.family else self.kind


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened. ``passes`` None: it could not be tried. ``words``: what was seen, or why it could not."""

    passes: bool | None
    words: str


def promises(conf: MainConf, first: Result, second: Result, around: Surroundings) -> Iterator[Promise]:
    """What is promised to the first container; the second one is its neighbour.

    :param first: the results of their ADDs.
    """
    own = policy(conf, first)
    for ip in first.ips:
        other = next((known.ip for known in second.ips if known.family == ip.family), "")
        yield _to_neighbour(conf, ip, other)
        if conf.is_gateway:
            yield from _through_the_node(conf, ip, first, own, around)
            yield from _ports(conf, ip, around)
        yield from _discipline(conf, ip, other, own, around)
    if not first.ips and own.guard != GUARD_OFF and conf.segment:
        yield Promise(MAC, 0, second.interfaces[-1].mac, wanted=False)
    yield from (Promise(DNS, version(server), server, egress(conf, server, "udp", 53))
                for server in first.dns.nameservers)


def policy(conf: MainConf, result: Result) -> Policy:
    """The firewall's policy for a container, as its ADD makes it."""
    addresses = tuple(dict.fromkeys(ip.ip for ip in result.ips))
    home = conf.gateway_interface or "-"
    inner = next((interface.mac for interface in result.interfaces if interface.sandbox), "02:00:00:00:00:00")
    return firewall.policy(conf.firewall, home=home, port="-", mac=inner, addresses=addresses,
                           address_known=conf.ipam is not None, trunk=conf.is_trunk)


def egress(conf: MainConf, target: str, protocol: str = "", port: int = 0) -> bool:
    """Whether the egress list allows it. ``protocol`` "": one without ports, such as ICMP."""
    allowed = conf.firewall.egress
    return allowed is None or any(_covers(entry, target, protocol, port) for entry in allowed)


def _covers(entry: Allowed, target: str, protocol: str, port: int) -> bool:
    if not overlap(entry.to, host_prefix(target)):
        return False
    first, last = entry.ports
    return not entry.protocol or (entry.protocol == protocol and first <= port <= last)


def _to_neighbour(conf: MainConf, ip: Address, other: str) -> Promise:
    """Frames on a bridge are not for the egress list; the node forwards those of a routed network."""
    passes = not conf.is_isolated and (bool(conf.segment) or egress(conf, other))
    return Promise(NEIGHBOUR, ip.family, other, passes)


def _through_the_node(
    conf: MainConf, ip: Address, first: Result, own: Policy, around: Surroundings
) -> Iterator[Promise]:
    family = ip.family
    if ip.gateway:
        yield Promise(GATEWAY, family, ip.gateway, egress(conf, ip.gateway))
    node, outside, beyond = (found.get(family, "") for found in (around.node, around.outside, around.beyond))
    leads_out = any(route.dst == DEFAULTS[family] for route in first.routes)
    if leads_out:
        yield Promise(NODE, family, node, not node or egress(conf, node))
        yield Promise(OUTSIDE, family, outside, not outside or egress(conf, outside))
        passes = not beyond or egress(conf, beyond, "tcp", SERVICE)
        yield Promise(BEYOND, family, beyond, passes, _seen_as(own, ip.ip, around.uplink.get(family, ""), beyond))
    if leads_out or conf.firewall.ingress != OPEN:
        yield Promise(INGRESS, family, ip.ip if beyond else "", conf.firewall.ingress == OPEN)


def _seen_as(own: Policy, address: str, uplink: str, beyond: str) -> str:
    if any(overlap(kept, host_prefix(beyond)) for kept in own.keep if beyond):
        return address
    translated = dict(own.snat).get(address)
    return translated or (uplink if address in own.masquerade else address)


def _ports(conf: MainConf, ip: Address, around: Surroundings) -> Iterator[Promise]:
    """A container on an isolated port is not promised to reach itself by the node: with br_netfilter, its frames would
    have to leave through a port that is isolated from itself.
    """
    if not around.port:
        return
    node = around.node.get(ip.family) or around.uplink.get(ip.family, "")
    yield Promise(PORT_NODE, ip.family, node)
    yield Promise(PORT_OUTSIDE, ip.family, around.uplink.get(ip.family, ""))
    if not (conf.segment and conf.is_isolated):
        yield Promise(HAIRPIN, ip.family, node)


def _discipline(
    conf: MainConf, ip: Address, other: str, own: Policy, around: Surroundings
) -> Iterator[Promise]:
    """What a container must not do, and the size of packets that it may send."""
    watched = _watched(conf, ip, other, around)
    if conf.is_gateway and ip.gateway and egress(conf, ip.gateway):
        yield Promise(MTU, ip.family, ip.gateway)
    elif watched == other:
        yield Promise(MTU, ip.family, other)
    if own.guard == GUARD_FULL and watched:
        yield Promise(SOURCE, ip.family, watched, wanted=False)
    if own.guard != GUARD_OFF and conf.segment and watched:
        yield Promise(MAC, ip.family, watched, wanted=False)
    if ip.family == 6 and (watched or not conf.segment):
        yield Promise(ADVERTISEMENT, 6, watched or ip.ip, wanted=False)


def _watched(conf: MainConf, ip: Address, other: str, around: Surroundings) -> str:
    """Where it is seen whether something forged gets through: behind the filter, in front of what else may drop it."""
    if not conf.is_isolated and (conf.segment or egress(conf, other, "udp", SERVICE)):
        return other
    if conf.segment:
        return ip.gateway if conf.is_gateway and ip.gateway else ""
    beyond = around.beyond.get(ip.family, "")
    return beyond if beyond and egress(conf, beyond, "udp", SERVICE) else ""


# What is found


WHY = {
    NEIGHBOUR: ("containers of the network cannot talk to each other", "containers are to be isolated, and are not"),
    GATEWAY: ("without its gateway a container reaches nothing beyond the network", "the egress list is not in force"),
    NODE: ("services of the node are out of reach", "the egress list is not in force"),
    OUTSIDE: ("containers have no connection to the outside", "the egress list is not in force"),
    BEYOND: ("the node does not forward and translate for containers as configured", "the egress list is not in force"),
    INGRESS: ("clients outside cannot reach containers", "anybody outside reaches every port of every container"),
    PORT_NODE: ("the node itself does not reach published ports", ""),
    PORT_OUTSIDE: ("clients outside do not reach published ports", ""),
    HAIRPIN: ("a container cannot use its own service by the node's address", ""),
    DNS: ("no name is resolved in containers", "the egress list is not in force"),
    MTU: ("large packets are lost: connections stand, and then hang", ""),
    SOURCE: ("", "a container can speak in the name of others"),
    MAC: ("", "a container can take over the traffic of another one"),
    ADVERTISEMENT: ("", "a container can make itself the router of others"),
}
REMEDY = {
    NEIGHBOUR: "cni-v6ctl check; cni-v6ctl trace CONTAINER --to ADDRESS with two containers of the network",
    GATEWAY: "cni-v6ctl check --repair, then cni-v6ctl trace CONTAINER --to the gateway",
    NODE: "cni-v6ctl trace CONTAINER --to that address; a filter of the node may drop it",
    OUTSIDE: "cni-v6ctl doctor, then cni-v6ctl trace CONTAINER --to that address; the router may lack a route back",
    BEYOND: "cni-v6ctl doctor, then cni-v6ctl trace CONTAINER --to an address outside",
    INGRESS: "cni-v6ctl check, cni-v6ctl reload; cni-v6ctl explain CONTAINER says what closes or opens it",
    PORT_NODE: "nft list table inet cni_v6; cni-v6ctl explain CONTAINER names ports that lead nowhere",
    PORT_OUTSIDE: "cni-v6ctl doctor: a chain of another program may drop what the node forwards",
    HAIRPIN: "nft list table inet cni_v6; cni-v6ctl explain CONTAINER names ports that lead nowhere",
    DNS: "correct dns.nameservers of the configuration, or allow the servers in egress",
    MTU: "cni-v6ctl doctor: compare the MTU of the bridge, its ports and the uplink; see the key mtu",
    SOURCE: "cni-v6ctl reload, and cni-v6ctl check",
    MAC: "cni-v6ctl reload, and cni-v6ctl check",
    ADVERTISEMENT: "cni-v6ctl reload, and cni-v6ctl check",
}
UNTRIED = "nothing is known of this promise"
NO_HOST = "there is no throwaway host beyond the node: the node uses its addresses itself"
FIND = {
    NODE: "the node has no address of this family beside the network's",
    OUTSIDE: "the node has no default route of this family, and --outside names nobody",
    BEYOND: NO_HOST, INGRESS: NO_HOST, PORT_OUTSIDE: NO_HOST,
}
NOBODY = "there is nobody to try it with"
TRY = {OUTSIDE: "name a host that answers with --outside ADDRESS", NODE: "none is needed if nobody uses one"}
BY_HAND = "try it by hand, with a container and a host outside"


def untried(promise: Promise) -> Seen | None:
    """Why a promise cannot be tried at all; None if it can."""
    return None if promise.target else Seen(None, FIND.get(promise.kind, NOBODY))


def judge(promise: Promise, seen: Seen) -> Finding:
    """What is found of a promise."""
    if seen.passes is None:
        return Finding(AMBER, promise.check, f"not tried: {seen.words}", UNTRIED, TRY.get(promise.kind, BY_HAND))
    if seen.passes == promise.wanted:
        return Finding(GREEN, promise.check, seen.words if promise.wanted else f"refused: {seen.words}")
    why = WHY[promise.kind][not promise.wanted]
    message = seen.words if promise.wanted else f"not refused: {seen.words}"
    return Finding(RED, promise.check, message, why, REMEDY[promise.kind])
