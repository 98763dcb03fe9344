"""Node and containers of a network reach each other (``hostAccess``), although the kernel keeps a master apart.

The node has a child of its own on the master, a macvlan or an ipvlan, for the whole network. It has no address: the
node is reached by those that it has on the master. Each container has them as neighbours with the MAC of that child,
for good, and the node a route to each container. So nothing is asked for on the link, where other hosts would see two
MACs for one address.

An ipvlan has the master's MAC. What a container sends there goes to the ipvlan that has the address, and if none has it
to the master (ipvlan_xmit_mode_l2, drivers/net/ipvlan/ipvlan_core.c). So it arrives on the master, and what the node
sends leaves by its ipvlan. That resolves no neighbours: without ARP their MAC is the interface's own (arp_constructor,
ndisc_constructor).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cni_v6.config.child import ChildConf
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetSysctl, HasRoute, Question, RefusesReturn
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.net.addresses import host_prefix, is_link_local, overlap, version
from cni_v6.plan import gateways
from cni_v6.plan.site import Site
from cni_v6.protocol import names
from cni_v6.protocol.result import Address, Interface

IPVLAN = "ipvlan"
# No address of a router's making, no detour; for other hosts of the link it does not answer, in neither family.
_SETTINGS = {
    6: (("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("accept_redirects", "0")),
    4: (("arp_ignore", "8"),),
}


def questions(conf: ChildConf) -> tuple[Question, ...]:
    """The questions that an ADD asks: about the node's child, and about its addresses on the master."""
    if not conf.node_interface:
        return ()
    more = *_filter_questions(conf.kind, conf.master), *_return_questions(conf.kind, conf.mode, conf.master)
    return GetLink(HOST, conf.node_interface), GetAddresses(HOST, conf.master), *more


def own_questions(record: Attachment, link: ChildLink) -> tuple[Question, ...]:
    """The questions about what the node has for a container."""
    ways = (HasRoute(HOST, link.node, prefix) for prefix in _prefixes(record, link.node))
    more = *_filter_questions(link.kind, link.master), *_return_questions(link.kind, link.mode, link.master)
    return GetLink(HOST, link.node), GetAddresses(HOST, link.master), *more, *ways


def _filter_questions(kind: str, master: str) -> tuple[Question, ...]:
    return tuple(GetSysctl(HOST, f"ipv4/conf/{name}/rp_filter") for name in ("all", master) if kind == IPVLAN)


def _return_questions(kind: str, mode: str, master: str) -> tuple[Question, ...]:
    return (RefusesReturn(master, names.node_group(master)),) if _returns(kind, mode) else ()


def _is_filtered(link: ChildLink, seen: Snapshot) -> bool:
    """Whether the node drops what containers send it over IPv4: on another interface than its route to them names.

    The higher of both settings counts (IN_DEV_RPFILTER, linux/inetdevice.h); 1 is strict, 2 asks for any route.
    """
    if link.kind != IPVLAN or link.mode != "l2":
        return False
    return max(seen.sysctl(HOST, f"ipv4/conf/{name}/rp_filter") or "0" for name in ("all", link.master)) == "1"


def _prefixes(record: Attachment, name: str) -> list[str]:
    return [anchor.prefix for anchor in record.anchors if anchor.home == name]


def own_addresses(master: str, seen: Snapshot) -> tuple[str, ...]:
    """The node's addresses on the master, without prefix length; link-local ones are each interface's own."""
    found = (address.partition("/")[0] for address in seen.addresses(HOST, master))
    return tuple(address for address in found if not is_link_local(address))


def interface(conf: ChildConf, node: str, master: Link | None) -> Iterator[Interface]:
    """The node's child in a result.

    :param master: the master.
    """
    if conf.node_interface and master:
        yield Interface(conf.node_interface, _mac(conf, node, master), mtu=master.mtu)


def _mac(conf: ChildConf, node: str, master: Link) -> str:
    return names.node_mac(conf.network, conf.master, node) if conf.can_change_mac else master.mac


def make(network: str, link: ChildLink, node: str, seen: Snapshot) -> Iterator[Op]:
    """Make the node's child, and bring it up.

    :param link: of a container of the network.
    :param node: the node's machine id (``Site.node``).
    """
    name, master = link.node, link.master
    alias = f"{names.ALIAS_PREFIX} {network}: the node on {master}"
    mode, mac = (link.mode, "") if link.kind == IPVLAN else ("bridge", names.node_mac(network, master, node))
    yield ops.CreateChildLink(HOST, master, HOST, name, name, link.kind, mode, mac, 0, alias, shared=True)
    for family in sorted({version(address) for address in own_addresses(master, seen)}):
        for key, value in _SETTINGS[family]:
            yield ops.SetSysctl(HOST, f"ipv{family}/conf/{name}/{key}", value)
    yield ops.SetLink(HOST, name, up=True, group=names.node_group(master) if _returns(link.kind, link.mode) else None)
    if link.kind == IPVLAN:  # ipvlan_open sets it by the mode, whenever it comes up
        yield ops.TuneLink(HOST, name, arp=False)


def _returns(kind: str, mode: str) -> bool:
    """Whether what the node sends to an address that no container has comes back to the master.

    A node that forwards there would send it again, until its hop limit ends. What an ipvlan has does not get that far:
    the kernel hands it over before (ipvlan_handle_mode_l2).
    """
    return kind == IPVLAN and mode == "l2"


def refusal(link: ChildLink) -> Iterator[ops.RefuseReturn]:
    """Have the node refuse what comes back."""
    if _returns(link.kind, link.mode):
        yield ops.RefuseReturn(link.master, names.node_group(link.master))


def _is_refused(link: ChildLink, seen: Snapshot) -> bool:
    return all(seen.refuses_return(step.ifname, step.group) for step in refusal(link))


def _refused_again(link: ChildLink, seen: Snapshot) -> Iterator[Op]:
    """Have it refuse what comes back, whatever is there of the rules.

    The kernel puts a new one behind those of its number: behind the one that refuses it would have no effect.
    """
    for step in refusal(link):
        if not seen.refuses_return(step.ifname, step.group):
            yield ops.AllowReturn(step.ifname, step.group)
        yield step


def _lacks(link: ChildLink, own: Link | None) -> str:
    """What is wrong with the node's child; "" if nothing is."""
    if own is None:
        return "is missing"
    if not own.up:
        return "is down"
    return "resolves neighbours" if own.arp and link.kind == IPVLAN else ""


def routes(master: str, name: str, prefixes: Iterable[str], seen: Snapshot) -> Iterator[ops.AddRoute]:
    """The node's route to each container, as ``ip/prefixlen``, in the families that the node has on the master.

    The kernel chooses an IPv6 source of the master's prefix by itself, and an IPv4 one from any interface.
    """
    own = own_addresses(master, seen)
    for prefix in prefixes:
        same = [address for address in own if version(address) == version(prefix)]
        if same:
            source = same[0] if version(prefix) == 4 else None
            yield ops.AddRoute(HOST, name, prefix, source=source)


def node_steps(
    site: Site, conf: ChildConf, link: ChildLink, ips: Sequence[Address], seen: Snapshot
) -> Iterator[Op]:
    """The operations on the node.

    :param link: of the container.
    """
    if link.node:
        if _lacks(link, seen.link(HOST, link.node)):
            yield from make(conf.network, link, site.node, seen)
        yield from _refused_again(link, seen)  # a DEL may be about to remove the rules
        yield from routes(link.master, link.node, map(gateways.host_prefix, ips), seen)


def container_steps(site: Site, conf: ChildConf, ips: Sequence[Address], seen: Snapshot) -> Iterator[Op]:
    """The operations in the container: the node as neighbour, on-link."""
    master = seen.link(HOST, conf.master) if conf.node_interface else None
    if master is None:
        return
    mac = _mac(conf, site.node, master)
    for address in own_addresses(conf.master, seen):
        same = [ip for ip in ips if ip.family == version(address)]
        if same:
            yield ops.SetNeighbour(site.netns, site.owner.ifname, address, mac)
            alone = host_prefix(address)
            if not any(overlap(alone, ip.address) for ip in same):
                yield ops.AddRoute(site.netns, site.owner.ifname, alone)


def warnings(link: ChildLink, ips: Sequence[Address], seen: Snapshot) -> Iterator[str]:
    """The warnings that an ADD logs: families of the container over which node and container do not reach each other.
    """
    if not link.node:
        return
    own, present = {version(address) for address in own_addresses(link.master, seen)}, {ip.family for ip in ips}
    for family in sorted(present - own):
        yield (f"hostAccess: the node has no IPv{family} address on {link.master}, so node and container do not reach "
               f"each other over IPv{family}")
    if 4 in present & own and _is_filtered(link, seen):
        yield f"hostAccess: {_filtered(link)}"


def _filtered(link: ChildLink) -> str:
    setting = f"net/ipv4/conf/{link.master}/rp_filter"
    return f"the node drops what containers send it over IPv4 (rp_filter 1): run sysctl -w {setting}=2"


def differences(
    record: Attachment, link: ChildLink, node: str, seen: Snapshot
) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """What the node lacks for a container: in words, and the operations that mend it.

    :param seen: answers to ``own_questions``.
    """
    name = link.node
    wanted = list(routes(link.master, name, _prefixes(record, name), seen))
    if _is_filtered(link, seen) and any(":" not in step.dst for step in wanted):
        yield _filtered(link), ()
    wrong = _lacks(link, seen.link(HOST, name))
    if wrong:
        again = *make(record.owner.network, link, node, seen), *_refused_again(link, seen), *wanted
        yield f"the node's {link.kind} {name} {wrong}", again
        return
    if not _is_refused(link, seen):
        words = f"the node's rules that refuse what comes back by {link.master} are missing, or not as they were made"
        yield words, tuple(_refused_again(link, seen))
    for step in wanted:
        if not seen.has_route(HOST, name, step.dst):
            yield f"route {step.dst} through {name} is missing", (step,)
