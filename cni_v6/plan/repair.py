"""What differs between the records of a network's attachments and the node, and the operations that mend it.

A bridge that is deleted takes with it the gateway's addresses, routes and settings, and leaves its ports unplugged; a
port that is taken out of its bridge loses its flags and VLANs. The record of an attachment says what there was, so no
configuration is needed. The container's namespace is not looked at: CHECK does that.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.firewall import FirewallConf
from cni_v6.config.main import ForeignIpam, MainConf
from cni_v6.config.routed import RoutedConf
from cni_v6.firewall.policy import GUARD_FULL, ISOLATED, OPEN, Policy
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAddresses, GetLink, GetPortVlans, GetRoutes, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, BridgePort, ChildLink, GatewayAddress, RoutedLink
from cni_v6.net.addresses import version
from cni_v6.plan import bridge, bridge_port, child_check, families, features, forwarding, gateways, routed_repair
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner, owned


@dataclass(frozen=True, slots=True)
class View:
    """An attachment beside its host interface, which may have been renamed; None if it is not on the node.

    Of a child of a master ``link`` is that master. ``conf``: the part of the configuration that the record says of the
    port; None if it is not known, or ``routed``.
    """

    record: Attachment
    link: Link | None
    conf: BridgeConf | None
    routed: RoutedConf | None = None
    child: ChildLink | None = None

    @property
    def families(self) -> frozenset[int]:
        record = self.record
        known = (*record.addresses, *(record.policy.addresses if record.policy else ()))
        return frozenset(map(version, (*known, *(anchor.prefix for anchor in record.anchors))))


@dataclass(slots=True)
class Findings:
    """``differences``: whose, and what, in words; without an owner where it is about all containers of the network.

    ``steps``: the operations that mend what can be mended, in their order; those of one step are done all or none.
    """

    differences: list[tuple[Owner | None, str]] = field(default_factory=list)
    steps: list[tuple[Op, ...]] = field(default_factory=list)

    def add(self, owner: Owner | None, words: str, *step: Op) -> None:
        self.differences.append((owner, words))
        self.mend(*step)

    def mend(self, *step: Op) -> None:
        if step and step not in self.steps:
            self.steps.append(step)


def views(records: Iterable[Attachment], links: Iterable[Link]) -> list[View]:
    """The attachments of a network beside the interfaces of the node."""
    by_name = {link.name: link for link in links}
    by_owner = dict(owned(by_name.values()))
    found = []
    for record in records:
        link = by_name.get(record.host) or by_owner.get(record.owner)
        port = record.port or _guess(record, link, by_name)
        if isinstance(port, ChildLink):
            found.append(View(record, by_name.get(port.master), None, child=port))
        elif isinstance(port, RoutedLink):
            host = link.name if link else record.host
            found.append(View(record, link, None, routed_repair.conf_of(record, port, host)))
        else:
            found.append(View(record, link, _conf(record, port, link.mtu if link else 0) if port else None))
    return found


def _guess(record: Attachment, link: Link | None, links: dict[str, Link]) -> BridgePort | None:
    """The port of a record that names none: older versions wrote no port."""
    homes = *((record.policy.home,) if record.policy else ()), *(anchor.home for anchor in record.anchors)
    home = homes[0] if homes else ""
    bridge_name, _, vlan = home.rpartition(".")
    if not (vlan.isdecimal() and (link.master == bridge_name if link and link.master else home in links)):
        bridge_name, vlan = link.master if link and link.master else home, ""
    policy = record.policy or Policy(home, record.host)
    if not bridge_name:
        return None
    return BridgePort(bridge_name, bool(policy.ports), policy.ingress == ISOLATED, vlan=int(vlan or 0))


def _conf(record: Attachment, port: BridgePort, mtu: int) -> BridgeConf:
    """The configuration as far as the plan of a bridge and its ports reads it."""
    policy = record.policy
    firewall = FirewallConf(
        guard=policy is not None and policy.guard == GUARD_FULL, ingress=policy.ingress if policy else OPEN,
        ports=policy.ports if policy else (),
    )
    is_gateway = bool(record.anchors or port.link_local)
    return BridgeConf(
        network=record.owner.network, is_gateway=is_gateway, mtu=mtu, ndp_proxy="", mac="", dns=None,
        ipam=ForeignIpam("") if is_gateway else None, firewall=firewall, bridge=port.bridge, is_default_gateway=False,
        force_address=False, hairpin=port.hairpin, promisc=port.promisc, vlan=port.vlan, vlan_trunk=port.trunk,
        preserve_default_vlan=port.preserve_default_vlan, enable_dad=False, disable_container_interface=False,
        port_isolation=port.isolated, multicast_snooping=port.multicast_snooping, netfilter=port.netfilter,
        bandwidth=None, tuning=None, source_routing=None,
        allow_overlap=True,  # it was looked at when the network's first container came
    )


def questions(seen_views: Iterable[View], node: str) -> Iterator[Question]:
    """The questions about the bridges and ports.

    :param node: the node's machine id (``Site.node``).
    """
    yield from families.host_questions()
    for view in seen_views:
        if view.child:
            yield from child_check.node_questions(view.record, view.child)
        if view.link and view.routed:
            yield from routed_repair.questions(view.routed, view.record)
        conf = view.conf
        if conf is None or view.link is None:
            continue
        yield GetLink(HOST, conf.bridge)
        yield GetLink(HOST, conf.gateway_interface)
        yield from bridge_port.questions(conf, node)
        yield from features.check_questions(conf, view.record)
        if conf.vlan or conf.vlan_trunk:
            yield GetPortVlans(view.link.name)
        if conf.is_gateway:
            home = conf.gateway_interface
            yield from (GetAddresses(HOST, home), GetRoutes(HOST, home), GetSysctl(HOST, forwarding.IP_FORWARD))
            yield from forwarding.questions(home)
            yield from (GetSysctl(HOST, step.key) for step in bridge_port.loopback_ports(conf))


def more_questions(seen_views: Iterable[View], seen: Snapshot) -> Iterator[Question]:
    """The further questions, once those are answered."""
    for view in seen_views:
        conf = view.conf or view.routed
        if conf and view.link and conf.is_gateway and 6 in view.families:
            yield from forwarding.more_questions(seen, forwarding.marked(conf))
            yield from forwarding.uplink_questions(seen)


def findings(seen_views: Sequence[View], node: str, seen: Snapshot) -> Findings:
    """The differences, and the operations that mend them: bridges, their ports, gateways, then each attachment's."""
    found = Findings()
    for view in seen_views:
        if view.child:
            for words, step in child_check.differences(view.record, view.child, view.link, node, seen):
                found.add(view.record.owner, words, *step)
        elif view.link is None:
            remedy = "cni-v6ctl gc frees it if the container has ended; else run DEL and ADD"
            found.add(view.record.owner, f"host interface {view.record.host} is not on the node ({remedy})")
        elif view.routed:
            _routed(view, view.routed, view.link, seen, found)
        elif view.conf is None:
            found.add(view.record.owner, f"it is not known which bridge {view.link.name} belongs to")
    there = [view for view in seen_views if view.link and view.conf]
    for name in dict.fromkeys(view.conf.bridge for view in there if view.conf):
        _segment([view for view in there if view.conf and view.conf.bridge == name], node, seen, found)
    return found


def _routed(view: View, conf: RoutedConf, link: Link, seen: Snapshot, found: Findings) -> None:
    for words, step in routed_repair.differences(conf, view.record, link, seen):
        found.add(view.record.owner, words, *step)
    _features(view, conf, seen, found)


def _segment(there: list[View], node: str, seen: Snapshot, found: Findings) -> None:
    """One bridge with what is plugged into it."""
    shapes = _shapes(there)
    name = shapes[0].bridge
    link = seen.link(HOST, name)
    if link and link.kind != "bridge":
        found.add(None, f"{name} is no bridge")
        return
    everything = frozenset().union(*(view.families for view in there))
    is_up = link is not None and link.up
    if not is_up:
        made = (step for conf in shapes for step in bridge.make_bridge(conf, node, everything, seen))
        words = f"bridge {name} is {'down' if link else 'missing'}"
        found.add(None, words, *bridge_port.drop_repeated_sysctls(made))
    for view in there:
        _port(view, seen, found)
    for conf in shapes if link and is_up else ():
        _group(conf, node, seen, found)
        if not bridge_port.passes_rules(conf, link):
            words = f"the frames of bridge {name} do not pass the node's rules (netfilter)"
            found.add(None, words, ops.SetBridge(name, netfilter=bridge_port.ALL_FRAMES))
    if not is_up:  # last, so that a bridge which is up has its ports, wherever a repair was cut off
        found.mend(*(step for conf in shapes for step in bridge.bring_up(conf, node, seen)))
    for home in dict.fromkeys(conf.gateway_interface for conf in shapes if conf.is_gateway):
        _gateway([view for view in there if view.conf and view.conf.gateway_interface == home], node, seen, found)
    for view in there:
        assert view.conf
        _features(view, view.conf, seen, found)


def _group(conf: BridgeConf, node: str, seen: Snapshot, found: Findings) -> None:
    """The link group of the segment: without it a scan fills the neighbour table, and a wrong one hides addresses."""
    name = conf.gateway_interface if conf.is_gateway else conf.bridge
    link = seen.link(HOST, name)
    group = bridge_port.group(conf, node, seen)
    if link and group is not None:
        words = f"{name} is in link group {link.group}, not {group}"
        found.add(None, words, ops.SetLink(HOST, name, up=True, group=group))


def _shapes(there: Iterable[View]) -> list[BridgeConf]:
    """The different configurations of the bridge. The one of which least is known comes last: it decides the group."""
    confs = [replace(view.conf, firewall=replace(view.conf.firewall, ports=())) for view in there if view.conf]
    return sorted(dict.fromkeys(confs), key=lambda conf: not conf.firewall.guard or bool(conf.vlan_trunk))


def _port(view: View, seen: Snapshot, found: Findings) -> None:
    owner, link, conf = view.record.owner, view.link, view.conf
    assert link and conf
    if not link.up:
        found.add(owner, f"host interface {link.name} is down", ops.SetLink(HOST, link.name, up=True))
    hairpin, isolated = bridge_port.port_flags(conf)
    flags = ops.SetPort(link.name, hairpin, isolated)
    if link.master != conf.bridge:
        place = f"in bridge {link.master}" if link.master else "in no bridge"
        words = f"host interface {link.name} is {place}, not in {conf.bridge}"
        again: tuple[Op, ...] = (flags,) if hairpin or isolated else ()
        vlans = bridge_port.vlans(link.name, conf, seen)
        found.add(owner, words, ops.PlugIn(link.name, conf.bridge), *again, *vlans)
        return
    if (link.hairpin, link.isolated) != (hairpin, isolated):
        words = f"port {link.name} has hairpin {link.hairpin} and isolated {link.isolated}, not {hairpin}, {isolated}"
        found.add(owner, words, flags)
    if conf.vlan or conf.vlan_trunk:
        present = seen.port_vlans(link.name)
        trunk = {vlan for low, high in conf.vlan_trunk for vlan in range(low, high + 1)}
        if (conf.vlan and (conf.vlan, True) not in present) or not trunk.issubset(vlan for vlan, _ in present):
            found.add(owner, f"port {link.name} is not in its VLANs", *bridge_port.vlans(link.name, conf, seen))


def _gateway(there: list[View], node: str, seen: Snapshot, found: Findings) -> None:
    """The gateway interface: the bridge, or a port of it in a VLAN."""
    conf = next(view.conf for view in there if view.conf)
    home, everything = conf.gateway_interface, frozenset[int]().union(*(view.families for view in there))
    if conf.vlan:
        _gateway_port(there, conf, node, everything, seen, found)
    own = [GatewayAddress(home, address) for view in there for address in _gateway_addresses(view.record)]
    on_link = (replace(anchor, home=home) for view in there for anchor in view.record.anchors if anchor.on_link)
    for words, add in gateways.missing((*own, *on_link), seen):
        found.add(None, words, add)
    for words, steps in forwarding.missing(everything, home, home, seen):
        found.add(None, words, *steps)
    # Without IPv4 nothing answers at 127.0.0.1.
    of_ipv4 = (view.conf for view in there if view.conf and 4 in map(version, view.record.addresses))
    for step in dict.fromkeys(step for of_view in of_ipv4 for step in bridge_port.loopback_ports(of_view)):
        if seen.sysctl(HOST, step.key) != step.value:
            found.add(None, f"net/{step.key} is not {step.value}", step)


def _gateway_port(
    there: list[View], conf: BridgeConf, node: str, everything: frozenset[int], seen: Snapshot, found: Findings
) -> None:
    home, port = conf.gateway_interface, names.host_interface(bridge_port.gateway_owner(conf, node))
    interface, plugged = seen.link(HOST, home), seen.link(HOST, port)
    if interface and plugged and plugged.master != conf.bridge:
        words = f"port {port} of gateway interface {home} is not in {conf.bridge}"
        found.add(None, words, ops.PlugIn(port, conf.bridge), *bridge_port.vlans(port, conf, seen))
    elif interface is None or (plugged and not interface.up):
        mtu = max(view.link.mtu for view in there if view.link)
        words = f"gateway interface {home} is {'down' if interface else 'missing'}"
        found.add(None, words, *bridge_port.gateway(conf, node, everything, seen, mtu=mtu))


def _gateway_addresses(record: Attachment) -> Iterator[str]:
    yield from (anchor.prefix for anchor in record.anchors if not anchor.on_link)
    if isinstance(record.port, BridgePort) and record.port.link_local:
        yield record.port.link_local


def _features(view: View, conf: MainConf, seen: Snapshot, found: Findings) -> None:
    for words in features.differences(conf, view.record, seen):
        found.add(view.record.owner, words)
    for step in features.mending(conf, view.record, seen):
        found.mend(*step)
