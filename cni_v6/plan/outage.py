"""What running containers have lost of the node, and the commands that give it back; for STATUS.

Pure. It asks what ADD and CHECK ask. The commands are made of the operations that an ADD would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import MainConf
from cni_v6.kernel import ops
from cni_v6.kernel.facts import DROPS_ALL, ForwardChain
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetForwardChains, GetLink, GetRoutes, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.net.addresses import version
from cni_v6.plan import bridge_port, forwarding, gateways, mtu, ndp_proxy, prefix_routes

FAMILY_NAMES = {"ip": frozenset((4,)), "ip6": frozenset((6,)), "inet": frozenset((4, 6))}  # of nftables


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and the commands that put it right."""

    what: str
    commands: tuple[str, ...] = ()


def command(op: Op) -> str:
    """An operation on the node as a command. It may be done already."""
    match op:
        case ops.SetBridge():
            return f"ip link set {op.name} type bridge nf_call_iptables 1 nf_call_ip6tables 1"
        case ops.SetLink():
            return f"ip link set {op.ifname} {'up' if op.up else 'down'}"
        case ops.AddAddress():
            more = " nodad" if ":" in op.address else " scope host" if op.scope else ""
            return f"ip address replace {op.address} dev {op.ifname}{more}"
        case ops.AddRoute():
            via = f" via {op.gateway}" if op.gateway else ""
            return f"ip route replace {op.dst}{via} dev {op.ifname}"
        case ops.SetNeighbour():
            return f"ip neighbour replace {op.address} lladdr {op.mac} nud permanent dev {op.ifname}"
        case ops.AddProxy():
            return f"ip neighbour replace proxy {op.address} dev {op.ifname}"
        case ops.SetSysctl():
            return f"sysctl -w net/{op.key}={op.value}"
    raise ValueError(op)


def questions(
    conf: BridgeConf, node: str, records: Sequence[Attachment], others: Iterable[GatewayAddress] = ()
) -> tuple[Question, ...]:
    """The questions about what the attachments of a network need of the node.

    :param node: the node's machine id (``Site.node``).
    :param others: as of ``faults``.
    """
    if not conf.is_gateway:
        return ()
    interface = conf.gateway_interface
    anchors = *others, *(anchor for record in records for anchor in record.anchors)
    homes = dict.fromkeys((interface, *(anchor.home for anchor in anchors)))
    needed: list[Question] = [GetLink(HOST, interface), *bridge_port.questions(conf, node), GetForwardChains()]
    needed += [GetAddresses(HOST, home) for home in homes] + [GetRoutes(HOST, home) for home in homes]
    needed += [GetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6")]
    for record in records:
        needed += [*ndp_proxy.check_questions(conf, record), *prefix_routes.check_questions(conf, record)]
    return tuple(dict.fromkeys(needed))


def more_questions(conf: BridgeConf, seen: Snapshot) -> tuple[Question, ...]:
    """The further questions about IPv6 forwarding."""
    if not conf.is_gateway:
        return ()
    return (*forwarding.more_questions(seen, conf.gateway_interface), *forwarding.uplink_questions(seen))


def faults(
    conf: BridgeConf, node: str, records: Sequence[Attachment], families: frozenset[int], seen: Snapshot,
    others: Iterable[GatewayAddress] = (),
) -> Iterator[Fault]:
    """What containers lack, in the order in which it is to be put right.

    :param families: those of the network that the node has.
    :param others: what further attachments count on, as of ``wanted``.
    """
    yield from _mtu(conf, node, families, seen)
    yield from _down(conf, seen)
    yield from _netfilter(conf, seen)
    if not conf.is_gateway:
        return
    interface = conf.gateway_interface
    if 6 in families and seen.sysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6") == "1":
        turn_on = ops.SetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6", "0")
        yield Fault(f"IPv6 is off on {interface}", (command(turn_on),))
    needed = {anchor: None for anchor in (*others, *wanted(conf, records)) if version(anchor.prefix) in families}
    for what, add in gateways.missing(sorted(needed, key=_is_route), seen):
        yield Fault(what, (command(add),))
    yield from _routes(conf, records, families, seen)
    yield from forwarding_faults(interface, interface, families, seen)
    yield from dropping_faults(interface, families, seen)


def forwarding_faults(interface: str, shown: str, families: frozenset[int], seen: Snapshot) -> Iterator[Fault]:
    """Whether the node forwards; parameters as of ``forwarding.missing``."""
    for what, steps in forwarding.missing(families, interface, shown, seen):
        yield Fault(what, tuple(map(command, steps)))


def dropping_faults(interface: str, families: frozenset[int], seen: Snapshot) -> Iterator[Fault]:
    """Chains of others that let nothing pass. ``interface``: the containers' gateway interface, or a pattern."""
    for chain in _dropping(interface, families, seen):
        if chain.drops == DROPS_ALL:
            yield Fault(_what_drops(chain, interface), _accept(chain, interface))


def warnings(conf: MainConf, families: frozenset[int], seen: Snapshot) -> Iterator[str]:
    """What may cut containers off, as far as the node can tell."""
    if conf.is_gateway:
        yield from chain_warnings(conf.gateway_interface, families, seen)


def chain_warnings(interface: str, families: frozenset[int], seen: Snapshot) -> Iterator[str]:
    """Chains of others that may drop; parameters as of ``dropping_faults``."""
    for chain in _dropping(interface, families, seen):
        remedy = f"if containers are not to be cut off, run: {'; '.join(_accept(chain, interface))}"
        yield f"{_what_drops(chain, interface)}; {remedy}"


def _mtu(conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot) -> Iterator[Fault]:
    small = mtu.too_small(conf, seen) if 6 in families else None
    if small:
        commands = [small.details.removeprefix("run ")]
        if bridge_port.is_own_bridge(conf, node, seen):  # its IPv6 settings are the defaults again
            commands += map(command, bridge_port.disable_autoconf(conf.bridge, created=False, families=families))
        yield Fault(small.msg, tuple(commands))


def _down(conf: BridgeConf, seen: Snapshot) -> Iterator[Fault]:
    for name in dict.fromkeys((conf.bridge, conf.gateway_interface) if conf.is_gateway else (conf.bridge,)):
        link = seen.link(HOST, name)
        what = "bridge" if name == conf.bridge else "gateway interface"
        if link is None and name != conf.bridge:
            yield Fault(f"{what} {name} is missing: the next ADD makes it")
        elif link and not link.up:
            yield Fault(f"{what} {name} is down", (command(ops.SetLink(HOST, name, up=True)),))


def _netfilter(conf: BridgeConf, seen: Snapshot) -> Iterator[Fault]:
    if not bridge_port.passes_rules(conf, seen.link(HOST, conf.bridge)):
        turn_on = ops.SetBridge(conf.bridge, netfilter=bridge_port.ALL_FRAMES)
        yield Fault(f"the frames of bridge {conf.bridge} do not pass the node's rules (netfilter)", (command(turn_on),))


def wanted(conf: BridgeConf, records: Iterable[Attachment]) -> dict[GatewayAddress, None]:
    """Gateway addresses and on-link routes that containers count on: by their records, the reference plugin's by their
    addresses."""
    found: dict[GatewayAddress, None] = {}
    for record in records:
        derived = () if record.anchors else gateways.anchors(conf, gateways.of_ranges(conf, record.addresses))
        found |= dict.fromkeys((*record.anchors, *(anchor for anchor in derived if not anchor.on_link)))
        if any(anchor.on_link for anchor in record.anchors or derived):  # a link-local gateway is no anchor
            own = gateways.addresses(conf, gateways.of_ranges(conf, record.addresses))
            found |= dict.fromkeys(GatewayAddress(conf.gateway_interface, address) for address in own)
    return found


def _is_route(anchor: GatewayAddress) -> bool:
    """Routes come after the addresses. The kernel drops those of an interface that goes down."""
    return anchor.on_link


def _routes(
    conf: BridgeConf, records: Sequence[Attachment], families: frozenset[int], seen: Snapshot
) -> Iterator[Fault]:
    """Routes to single containers, and proxy entries."""
    for record in records if 6 in families else ():
        found = [*ndp_proxy.differences(conf, record, seen), *prefix_routes.differences(conf, record, seen)]
        if found:
            again = (*ndp_proxy.mending(conf, record, seen), *prefix_routes.mending(conf, record, seen))
            yield Fault("; ".join(found), tuple(map(command, again)))


# The forward chains of others. An accept of ours does not override them: a packet passes only if every chain of the
# hook lets it (nft(8), VERDICT STATEMENTS).


def _dropping(interface: str, families: frozenset[int], seen: Snapshot) -> Iterator[ForwardChain]:
    for chain in seen.forward_chains():
        if FAMILY_NAMES[chain.family] & families and not chain.mentions(interface):
            yield chain


def _what_drops(chain: ForwardChain, interface: str) -> str:
    named = f"chain {chain.name} of table {chain.family} {chain.table}, which is not of cni-v6, drops"
    if chain.drops == DROPS_ALL:
        return f"{named} all that the node forwards"
    return f"{named} what its rules do not accept, and none of them names {interface}"


def _accept(chain: ForwardChain, interface: str) -> tuple[str, ...]:
    """Let pass what comes from containers or goes to them. Our own table still says what of it may."""
    rule = f"insert rule {chain.family} {chain.table} {chain.name}"
    return tuple(f"nft '{rule} {which} \"{interface}\" accept'" for which in ("iifname", "oifname"))
