"""The node's interfaces on a segment: their VLANs, their silence, and the gateway's own port in a VLAN.

Pure, like ``plan``, whose part this is.
"""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.bridge import BridgeConf
from cni_v6.firewall.policy import CLOSED_SEGMENT, SHARED_SEGMENT
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, Question, Snapshot
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Interface

DEFAULT_VLAN = 1  # net/bridge/br_vlan.c, br_vlan_init: the PVID of every port of a new bridge


def has_ipv6(seen: Snapshot) -> bool:
    """Whether the node's kernel has IPv6 at all; its sysctls are left alone where it has not."""
    return seen.sysctl(HOST, "ipv6/conf/all/disable_ipv6") is not None


def disable_autoconf(interface: str, *, created: bool, families: frozenset[int]) -> Iterable[Op]:
    """An interface of ours takes no address from a container's RA, and has its own at once.

    Only one of ours, a bridge known by its MAC: what an administrator made may be the node's own way to its router.
    """
    for key in ("accept_ra", "autoconf", "accept_dad"):
        needless = 6 not in families or key != "accept_ra"  # the others say nothing of what a container's RA can do
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/{key}", "0", precaution=needless)
    if 6 in families:
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6", "0")
    elif 4 in families and created:
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6", "1", precaution=True)


def drop_repeated_sysctls(steps: Iterable[Op]) -> Iterable[Op]:
    """Without a sysctl that an earlier step has set.

    An interface of ours that was cut off before it was quiet still listens to RAs; ``forwarding``, which looks at the
    node as it was, would have it go on.
    """
    keys: set[str] = set()
    for step in steps:
        if isinstance(step, ops.SetSysctl):
            if step.key in keys:
                continue
            keys.add(step.key)
        yield step


def disable_ipv6(port: str, seen: Snapshot) -> Iterable[Op]:
    """A bridge port needs no address: it would only ask the segment whether it is free."""
    if has_ipv6(seen):
        yield ops.SetSysctl(HOST, f"ipv6/conf/{port}/disable_ipv6", "1", precaution=True)


def port_flags(conf: BridgeConf) -> tuple[bool, bool]:
    """Hairpin and isolation of a port.

    A published port may lead back to the container that asked, through its own bridge port where br_netfilter has
    bridged frames translated too. A container that is closed to its neighbours is so on the segment first.
    """
    return conf.hairpin or bool(conf.firewall.ports), conf.is_isolated


def loopback_ports(conf: BridgeConf) -> Iterable[Op]:
    """A port published at any address answers at 127.0.0.1 too, and from there the kernel routes to no other interface
    unless it is told to (ip_route_output_key_hash_rcu, net/ipv4/route.c). The firewall drops what wires say of it."""
    if any(not port.host_ip or port.host_ip == "0.0.0.0" or port.host_ip.startswith("127.")
           for port in conf.firewall.ports):
        yield ops.SetSysctl(HOST, f"ipv4/conf/{conf.gateway_interface}/route_localnet", "1")


def vlans(port: str, conf: BridgeConf, seen: Snapshot) -> Iterable[Op]:
    """The VLANs of a port. Without ``preserveDefaultVlan`` the bridge's default one, 1 or not, is taken off."""
    if not conf.vlan and not conf.vlan_trunk:
        return
    bridge = seen.link(HOST, conf.bridge)
    default = bridge.default_vlan if bridge else DEFAULT_VLAN
    if not conf.preserve_default_vlan and default not in (0, conf.vlan):
        yield ops.RemovePortVlan(port, default)
    yield ops.AddPortVlans(port, conf.vlan, conf.vlan_trunk)


# The gateway's own port: as the reference plugin does it, a veth pair with both ends on the node


def is_ours(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """Whether the gateway's interface is one we made, or are about to make.

    :param node: what tells this node from others, such as ``/etc/machine-id``.
    :param seen: answers to ``plan.questions``.
    """
    found = seen.link(HOST, conf.gateway_interface)
    if found is None:
        return True
    mac = names.container_mac(gateway_owner(conf, node)) if conf.vlan else names.bridge_mac(conf.bridge, node)
    return found.mac == mac


def is_own_bridge(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """The same of the bridge itself, which differs where the gateway has its own port in a VLAN."""
    found = seen.link(HOST, conf.bridge)
    return found is None or found.mac == names.bridge_mac(conf.bridge, node)


def group(conf: BridgeConf, node: str, seen: Snapshot) -> int | None:
    """The link group that the gateway's interface is to get, None to leave it: whether only containers whose addresses
    are known are on its segment. Only one of ours, and in no group of an administrator's.

    Where networks share a segment, the one of which less is known decides.
    """
    if not conf.is_gateway or conf.ipam is None:  # who else is on it is not known
        found = None if conf.vlan or not is_own_bridge(conf, node, seen) else seen.link(HOST, conf.bridge)
        return SHARED_SEGMENT if found and found.group == CLOSED_SEGMENT else None
    if not is_ours(conf, node, seen):
        return None
    found = seen.link(HOST, conf.gateway_interface)
    there = found.group if found else 0
    known = conf.firewall.guard and not conf.vlan_trunk
    if there == 0:
        return CLOSED_SEGMENT if known else SHARED_SEGMENT
    return SHARED_SEGMENT if there == CLOSED_SEGMENT and not known else None


def gateway_owner(conf: BridgeConf, node: str) -> Owner:
    """From which the name of the pair's end on the bridge, and both MACs, are derived."""
    return Owner(conf.bridge, node, conf.gateway_interface)


def questions(conf: BridgeConf, node: str) -> tuple[Question, ...]:
    """What has to be known of the gateway's own port; nothing where there is none."""
    if not conf.is_gateway or not conf.vlan:
        return ()
    port = names.host_interface(gateway_owner(conf, node))
    return GetLink(HOST, conf.gateway_interface), GetLink(HOST, port)


def gateway(conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot, *, mtu: int) -> Iterable[Op]:
    """Make it, and complete it: it comes up last, so one that is down was cut off half-way.

    An interface of that name that is not ours is used as it is.
    """
    interface, owner = conf.gateway_interface, gateway_owner(conf, node)
    port, found = names.host_interface(owner), seen.link(HOST, interface)
    if found and not seen.link(HOST, port):
        return
    if found is None:
        macs = names.host_mac(owner), names.container_mac(owner)
        yield ops.CreateVeth(port, macs[0], conf.bridge, HOST, interface, macs[1], mtu, shared=True)
    if has_ipv6(seen):
        yield from disable_autoconf(interface, created=found is None, families=families)
    marked = group(conf, node, seen)
    if found is None or not found.up:
        yield from vlans(port, conf, seen)
        yield from disable_ipv6(port, seen)
        yield ops.SetLink(HOST, interface, up=True, group=marked)
        yield ops.AwaitPort(port)
    elif marked is not None:
        yield ops.SetLink(HOST, interface, up=True, group=marked)


def gateway_result(
    conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot, *, mtu: int
) -> Iterable[Interface]:
    """How the result names it: last, as the reference plugin's does. Nothing where there is none."""
    if conf.is_gateway and conf.vlan and families:
        name = conf.gateway_interface
        found = seen.link(HOST, name)
        mac = found.mac if found else names.container_mac(gateway_owner(conf, node))
        yield Interface(name, mac, mtu=found.mtu if found else mtu)
