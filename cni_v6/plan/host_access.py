"""Node and containers of a macvlan network reach each other (``hostAccess``), although the kernel keeps them apart.

The node has a macvlan of its own on the master, for the whole network. It has no address: the node is reached by those
that it has on the master. Each container has them as neighbours with the MAC of that macvlan, for good, and the node a
route to each container. So nothing is asked for on the link, where other hosts would see two MACs for one address.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cni_v6.config.child import ChildConf
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, HasRoute, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import BITS, is_link_local, overlap, version
from cni_v6.plan import gateways
from cni_v6.plan.site import Site
from cni_v6.protocol import names
from cni_v6.protocol.result import Address, Interface

# No address of a router's making, no detour; for other hosts of the link it does not answer, in neither family.
_SETTINGS = {
    6: (("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("accept_redirects", "0")),
    4: (("arp_ignore", "8"),),
}


def questions(conf: ChildConf) -> tuple[Question, ...]:
    """The questions that an ADD asks: about the node's macvlan, and about its addresses on the master."""
    name = conf.node_interface
    return (GetLink(HOST, name), GetAddresses(HOST, conf.master)) if name else ()


def own_questions(record: Attachment, master: str, name: str) -> tuple[Question, ...]:
    """The questions about what the node has for a container; ``name``: of the node's macvlan."""
    ways = (HasRoute(HOST, name, prefix) for prefix in _prefixes(record, name))
    return GetLink(HOST, name), GetAddresses(HOST, master), *ways


def _prefixes(record: Attachment, name: str) -> list[str]:
    return [anchor.prefix for anchor in record.anchors if anchor.home == name]


def own_addresses(master: str, seen: Snapshot) -> tuple[str, ...]:
    """The node's addresses on the master, without prefix length; link-local ones are each interface's own."""
    found = (address.partition("/")[0] for address in seen.addresses(HOST, master))
    return tuple(address for address in found if not is_link_local(address))


def interface(conf: ChildConf, node: str, mtu: int) -> Iterator[Interface]:
    """The node's macvlan in a result."""
    if conf.node_interface:
        yield Interface(conf.node_interface, names.node_mac(conf.network, conf.master, node), mtu=mtu)


def make(network: str, master: str, node: str, seen: Snapshot) -> Iterator[Op]:
    """Make the node's macvlan, and bring it up.

    :param node: the node's machine id (``Site.node``).
    """
    name = names.node_interface(network, master)
    alias = f"{names.ALIAS_PREFIX} {network}: the node on {master}"
    mac = names.node_mac(network, master, node)
    yield ops.CreateChildLink(HOST, master, HOST, name, name, "macvlan", "bridge", mac, 0, alias, shared=True)
    for family in sorted({version(address) for address in own_addresses(master, seen)}):
        for key, value in _SETTINGS[family]:
            yield ops.SetSysctl(HOST, f"ipv{family}/conf/{name}/{key}", value)
    yield ops.SetLink(HOST, name, up=True)


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


def node_steps(site: Site, conf: ChildConf, ips: Sequence[Address], seen: Snapshot) -> Iterator[Op]:
    """The operations on the node."""
    name = conf.node_interface
    if name:
        link = seen.link(HOST, name)
        if link is None or not link.up:
            yield from make(conf.network, conf.master, site.node, seen)
        yield from routes(conf.master, name, map(gateways.host_prefix, ips), seen)


def container_steps(site: Site, conf: ChildConf, ips: Sequence[Address], seen: Snapshot) -> Iterator[Op]:
    """The operations in the container: the node as neighbour, on-link."""
    if not conf.node_interface:
        return
    mac = names.node_mac(conf.network, conf.master, site.node)
    for address in own_addresses(conf.master, seen):
        same = [ip for ip in ips if ip.family == version(address)]
        if same:
            yield ops.SetNeighbour(site.netns, site.owner.ifname, address, mac)
            alone = f"{address}/{BITS[version(address)]}"
            if not any(overlap(alone, ip.address) for ip in same):
                yield ops.AddRoute(site.netns, site.owner.ifname, alone)


def warnings(conf: ChildConf, ips: Sequence[Address], seen: Snapshot) -> Iterator[str]:
    """The warnings that an ADD logs: families of the container that the node has no address of."""
    own = {version(address) for address in own_addresses(conf.master, seen)} if conf.node_interface else set()
    for family in sorted({ip.family for ip in ips} - own) if conf.node_interface else ():
        yield (f"hostAccess: the node has no IPv{family} address on {conf.master}, so node and container do not reach "
               f"each other over IPv{family}")


def differences(
    record: Attachment, master: str, name: str, node: str, seen: Snapshot
) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """What the node lacks for a container: in words, and the operations that mend it.

    :param seen: answers to ``own_questions``.
    """
    wanted = list(routes(master, name, _prefixes(record, name), seen))
    link = seen.link(HOST, name)
    if link is None or not link.up:
        again = *make(record.owner.network, master, node, seen), *wanted
        yield f"the node's macvlan {name} is {'down' if link else 'missing'}", again
        return
    for step in wanted:
        if not seen.has_route(HOST, name, step.dst):
            yield f"route {step.dst} through {name} is missing", (step,)
