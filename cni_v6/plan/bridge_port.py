"""Plans the node's interfaces on a segment: sysctls, bridge port flags, VLANs, and the gateway interface in a VLAN.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import MainConf, once
from cni_v6.errors import LIMITED, CniError
from cni_v6.firewall.policy import CLOSED_SEGMENT, SHARED_SEGMENT, Port
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, BridgePort, Setting
from cni_v6.net.addresses import version
from cni_v6.plan.site import Allocation
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Interface

NO_MAC = "00:00:00:00:00:00"
AUTOCONF = ("accept_ra", "autoconf", "accept_dad")
# br_netfilter has a value for each family; without the module, which has them for all bridges, there are none.
FRAMES = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}
ALL_FRAMES = frozenset(FRAMES)
DEFAULT_VLAN = 1  # net/bridge/br_vlan.c, br_vlan_init: the PVID of every port of a new bridge


def has_ipv6(seen: Snapshot) -> bool:
    """Whether the node's kernel has IPv6. Without IPv6 its sysctls do not exist."""
    return seen.sysctl(HOST, "ipv6/conf/all/disable_ipv6") is not None


def setting_questions(interface: str) -> tuple[Question, ...]:
    """The questions about what ``disable_autoconf`` sets; asked with ``GetLink`` of the interface they cost nothing."""
    return tuple(GetSysctl(HOST, f"ipv6/conf/{interface}/{key}") for key in (*AUTOCONF, "disable_ipv6"))


def disable_autoconf(interface: str, *, created: bool, families: frozenset[int]) -> Iterable[Op]:
    """Make an interface of ours ignore router advertisements of containers and skip duplicate address detection.

    Only for an interface of ours (its MAC tells): the node may reach its own router through an administrator's bridge.
    """
    for key in AUTOCONF:
        needless = 6 not in families or key != "accept_ra"  # only accept_ra protects the node from RAs
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/{key}", "0", precaution=needless)
    if 6 in families:
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6", "0")
    elif 4 in families and created:
        yield ops.SetSysctl(HOST, f"ipv6/conf/{interface}/disable_ipv6", "1", precaution=True)


def drop_repeated_sysctls(steps: Iterable[Op]) -> Iterable[Op]:
    """Drop a sysctl that an earlier step has already set.

    An ADD that was killed may leave an interface of ours that still accepts RAs. ``forwarding`` plans from the snapshot
    and would keep it listening (``accept_ra`` 2), against ``disable_autoconf``, which comes first.
    """
    keys: set[str] = set()
    for step in steps:
        if isinstance(step, ops.SetSysctl):
            if step.key in keys:
                continue
            keys.add(step.key)
        yield step


def not_yet_set(steps: Iterable[Op], seen: Snapshot) -> Iterable[Op]:
    """Leave out sysctls that were seen to have their value. One that nobody asked about is set."""
    for step in steps:
        if not isinstance(step, ops.SetSysctl) or step.value != seen.answers.get(GetSysctl(step.netns, step.key)):
            yield step


def disable_ipv6(port: str, seen: Snapshot) -> Iterable[Op]:
    """Turn IPv6 off on a bridge port: it needs no address, and would send DAD probes to the segment for one."""
    if has_ipv6(seen):
        yield ops.SetSysctl(HOST, f"ipv6/conf/{port}/disable_ipv6", "1", precaution=True)


def port_flags(conf: BridgeConf) -> tuple[bool, bool]:
    """Hairpin and isolation of a port.

    With published ports the port needs hairpin: br_netfilter has bridged frames translated, and a connection may lead
    back to the container that opened it. A container that is closed to its neighbours has an isolated port.
    """
    return conf.hairpin or bool(conf.firewall.ports), conf.is_isolated


@once
def to_record(conf: BridgeConf) -> BridgePort:
    """What is recorded of a port, without the gateway."""
    hairpin, isolated = port_flags(conf)
    return BridgePort(
        conf.bridge, hairpin, isolated, conf.vlan, conf.vlan_trunk, conf.preserve_default_vlan, conf.promisc,
        conf.multicast_snooping, netfilter=conf.netfilter,
    )


def loopback_ports(conf: MainConf) -> Iterator[ops.SetSysctl]:
    """Set ``route_localnet`` on the gateway interface if a published port answers at 127.0.0.1.

    Without it the kernel routes nothing from 127.0.0.1 to another interface (ip_route_output_key_hash_rcu,
    net/ipv4/route.c). The firewall drops packets of 127.0.0.0/8 that arrive from outside.
    """
    if any(map(_is_at_loopback, conf.firewall.ports)):
        yield ops.SetSysctl(HOST, f"ipv4/conf/{conf.gateway_interface}/route_localnet", "1")


def _is_at_loopback(port: Port) -> bool:
    return not port.host_ip or port.host_ip == "0.0.0.0" or port.host_ip.startswith("127.")


def needed_settings(record: Attachment) -> Iterator[Setting]:
    """The settings of the bridge and of the gateway interface that an attachment needs, and the node may not have."""
    port, policy = record.port, record.policy
    if not isinstance(port, BridgePort):
        return
    keys = ("promisc", port.promisc), ("vlan_filtering", bool(port.vlan or port.trunk)), ("netfilter", port.netfilter)
    yield from (Setting(port.bridge, key) for key, is_needed in keys if is_needed)
    if policy and 4 in map(version, policy.addresses) and any(map(_is_at_loopback, policy.ports)):
        yield Setting(policy.home, "route_localnet")


def vlans(port: str, conf: BridgeConf, seen: Snapshot) -> Iterable[Op]:
    """The VLANs of a port. Without ``preserveDefaultVlan`` the bridge's default one, 1 or not, is taken off."""
    if not conf.vlan and not conf.vlan_trunk:
        return
    bridge = seen.link(HOST, conf.bridge)
    default = bridge.default_vlan if bridge else DEFAULT_VLAN
    if not conf.preserve_default_vlan and default not in (0, conf.vlan):
        yield ops.RemovePortVlan(port, default)
    yield ops.AddPortVlans(port, conf.vlan, conf.vlan_trunk)


def warnings(conf: MainConf, _: Allocation, seen: Snapshot) -> Iterable[str]:
    """The warning that an ADD logs for a bridge of others: one LLDP frame has it send a neighbour's traffic elsewhere.

    A bridge that does not forward LLDP learns the frame's MAC before the guard sees it (br_handle_frame,
    net/bridge/br_input.c).
    """
    found = seen.link(HOST, conf.bridge) if isinstance(conf, BridgeConf) and conf.firewall.guard else None
    if found and not found.group_fwd_mask & ops.LLDP:
        command = f"ip link set {found.name} type bridge group_fwd_mask {found.group_fwd_mask | ops.LLDP:#x}"
        yield f"guard: a container can take a neighbour's MAC on bridge {found.name} by an LLDP frame; run {command}"


# netfilter: whether the bridge's frames pass the node's rules for packets


def netfilter_questions(conf: MainConf) -> tuple[Question, ...]:
    """The question whether the kernel has br_netfilter; none for a network that does not need it."""
    return (GetSysctl(HOST, FRAMES[4]),) if isinstance(conf, BridgeConf) and conf.netfilter else ()


def passes_rules(conf: BridgeConf, bridge: Link | None) -> bool:
    """Whether a bridge has been told what ``netfilter`` of the configuration asks for."""
    return not conf.netfilter or (bridge is not None and bridge.netfilter == ALL_FRAMES)


def lacks_netfilter(conf: MainConf, seen: Snapshot) -> CniError | None:
    """The error for a network with ``netfilter`` on a kernel without the module. An ADD warns of it.

    :param seen: answers to ``netfilter_questions``.
    """
    if not netfilter_questions(conf) or seen.sysctl(HOST, FRAMES[4]) is not None:
        return None
    words = ("netfilter: br_netfilter is not loaded, so between containers of this node services do not answer and "
             "network policies do not hold")
    remedy = "run modprobe br_netfilter, and write br_netfilter to a file in /etc/modules-load.d for the next boot"
    return CniError(LIMITED, words, remedy)


def netfilter_warnings(conf: MainConf, _: Allocation, seen: Snapshot) -> Iterable[str]:
    """The warning that an ADD logs where the kernel has no br_netfilter."""
    lacking = lacks_netfilter(conf, seen)
    if lacking:
        yield f"{lacking.msg}; {lacking.details}"


# The gateway interface in a VLAN: a veth pair with both ends on the node, as the reference plugin makes it


def is_ours(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """Whether we made the gateway interface, or are about to make it.

    :param node: the node's machine id (``Site.node``).
    :param seen: answers to ``bridge.questions``.
    """
    found = seen.link(HOST, conf.gateway_interface)
    if found is None:
        return True
    mac = names.container_mac(gateway_owner(conf, node)) if conf.vlan else names.bridge_mac(conf.bridge, node)
    return found.mac == mac


def is_own_bridge(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """Whether we made the bridge, or are about to. In a VLAN the gateway interface is another one than the bridge."""
    found = seen.link(HOST, conf.bridge)
    return found is None or found.mac == names.bridge_mac(conf.bridge, node)


def bridge_mac(conf: BridgeConf, node: str, seen: Snapshot) -> str:
    """The MAC that the bridge has or gets. One of others without ports may have none."""
    found = seen.link(HOST, conf.bridge)
    if found is None:
        return names.bridge_mac(conf.bridge, node)
    return names.pinned_mac(conf.bridge, node) if found.mac == NO_MAC else found.mac


def group(conf: BridgeConf, node: str, seen: Snapshot) -> int | None:
    """The link group to set on the gateway interface; None to leave it as it is.

    The group says whether the segment has only containers whose addresses are known. It is set only on an interface of
    ours that is in no group of an administrator's. Where networks share a segment, one network without known addresses
    makes it ``SHARED_SEGMENT``.
    """
    if not conf.is_gateway or conf.ipam is None:  # the addresses on the segment are not known
        found = None if conf.vlan or not is_own_bridge(conf, node, seen) else seen.link(HOST, conf.bridge)
        return SHARED_SEGMENT if found and found.group == CLOSED_SEGMENT else None
    if not is_ours(conf, node, seen):
        return None
    found = seen.link(HOST, conf.gateway_interface)
    present = found.group if found else 0
    known = conf.firewall.guard and not conf.vlan_trunk
    if present == 0:
        return CLOSED_SEGMENT if known else SHARED_SEGMENT
    return SHARED_SEGMENT if present == CLOSED_SEGMENT and not known else None


def gateway_owner(conf: BridgeConf, node: str) -> Owner:
    """The owner that the pair's names and MACs are derived from."""
    return Owner(conf.bridge, node, conf.gateway_interface)


def questions(conf: BridgeConf, node: str) -> tuple[Question, ...]:
    """The questions about the gateway interface in a VLAN; none without a VLAN."""
    if not conf.is_gateway or not conf.vlan:
        return ()
    port = names.host_interface(gateway_owner(conf, node))
    interface = conf.gateway_interface
    return GetLink(HOST, interface), GetLink(HOST, port), *setting_questions(interface)


def gateway(conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot, *, mtu: int) -> Iterable[Op]:
    """Create the gateway interface in a VLAN, or complete it.

    It comes up last, so an interface that is down was left by an ADD that was killed. An interface of that name that is
    not ours is used as it is.
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
    new_group = group(conf, node, seen)
    if found is None or not found.up:
        yield from vlans(port, conf, seen)
        yield from disable_ipv6(port, seen)
        yield ops.SetLink(HOST, interface, up=True, group=new_group)
        yield awaits.AwaitPort(port)
    elif new_group is not None:
        yield ops.SetLink(HOST, interface, up=True, group=new_group)


def gateway_result(
    conf: BridgeConf, node: str, families: frozenset[int], seen: Snapshot, *, mtu: int
) -> Iterable[Interface]:
    """The gateway interface's entry in the result: the last one, as in the reference plugin's. None without a VLAN."""
    if conf.is_gateway and conf.vlan and families:
        name = conf.gateway_interface
        found = seen.link(HOST, name)
        mac = found.mac if found else names.container_mac(gateway_owner(conf, node))
        yield Interface(name, mac, mtu=found.mtu if found else mtu)
