"""The bridge plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations


from cni_v6.config.firewall import parse as parse_firewall
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf
from cni_v6.config.keys.bridge import BRIDGE
from cni_v6.config.main import (
    MainConf,
    Remembered,
    check_delegation,
    for_call,
    read_bandwidth,
    read_dns,
    read_ipam,
    read_mac,
    read_source_routing,
    read_tuning,
    reader,
    refuse_small_mtu,
    remembered,
)
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.firewall.policy import ISOLATED
from cni_v6.net.intervals import merged
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import IFNAMSIZ
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class BridgeConf(MainConf):
    """Configuration of the bridge plugin. ``vlan`` 0: none."""

    bridge: str
    is_default_gateway: bool
    force_address: bool
    hairpin: bool
    promisc: bool
    vlan: int
    vlan_trunk: tuple[tuple[int, int], ...]
    preserve_default_vlan: bool
    enable_dad: bool
    disable_container_interface: bool
    port_isolation: bool
    multicast_snooping: bool
    netfilter: bool

    @property
    def gateway_interface(self) -> str:
        """The interface with the gateway's addresses: the bridge, or its own interface in the network's VLAN."""
        return f"{self.bridge}.{self.vlan}" if self.vlan else self.bridge

    @property
    def segment(self) -> str:
        """The bridge."""
        return self.bridge

    @property
    def is_isolated(self) -> bool:
        """Whether the ports are isolated. The firewall's ``isolated`` isolates them on the segment too."""
        return self.port_isolation or self.firewall.ingress == ISOLATED

    @property
    def is_trunk(self) -> bool:
        """Whether ``vlanTrunk`` names a VLAN."""
        return bool(self.vlan_trunk)


_kept: dict[Remembered, BridgeConf] = {}


def parse_bridge(call: Invocation, prefixes: InterfacePrefixes | None = None) -> BridgeConf:
    """Configuration of ``cni-v6`` for ADD, CHECK and STATUS.

    :param prefixes: of those that ranges follow; None where they are not known yet.
    :raises CniError: INVALID_CONFIG, UNSUPPORTED_FIELD, or INVALID_ENVIRONMENT for what came by CNI_ARGS.
    """
    conf = remembered(call, _kept, _read_bridge) if prefixes is None else _read_bridge(call, prefixes)
    return for_call(conf, call)


def _read_bridge(call: Invocation, prefixes: InterfacePrefixes | None = None) -> BridgeConf:
    top = reader(call).read(BRIDGE, call.config, "")
    ipam = read_ipam(call, top, prefixes)
    sets = ipam.sets if isinstance(ipam, IpamConf) else () if ipam else None
    conf = BridgeConf(
        network=call.network,
        bridge=top.text("bridge"),
        is_gateway=top.flag("isGateway") or top.flag("isDefaultGateway"),
        is_default_gateway=top.flag("isDefaultGateway"),
        force_address=top.flag("forceAddress"),
        mtu=top.number("mtu") or 0,
        ndp_proxy=top.text("ndpProxy"),
        hairpin=top.flag("hairpinMode"),
        promisc=top.flag("promiscMode"),
        vlan=top.number("vlan") or 0,
        vlan_trunk=_trunk(top.sections("vlanTrunk")),
        preserve_default_vlan=top.flag("preserveDefaultVlan"),
        enable_dad=top.flag("enabledad"),
        disable_container_interface=top.flag("disableContainerInterface"),
        port_isolation=top.flag("portIsolation"),
        multicast_snooping=top.flag("multicastSnooping"),
        netfilter=top.flag("netfilter"),
        mac=read_mac(call, top),
        dns=read_dns(top),
        ipam=ipam,
        firewall=parse_firewall(top, sets),
        allow_overlap=top.text("overlap") == "allow",
        bandwidth=read_bandwidth(top),
        tuning=read_tuning(top),
        source_routing=read_source_routing(top),
    )
    _refuse_contradictions(conf)
    check_delegation(top, conf)
    return conf


def _trunk(sections: tuple[Section, ...]) -> tuple[tuple[int, int], ...]:
    """The VLANs as ranges: sorted, none overlapping."""
    spans: list[tuple[int, int]] = []
    for section in sections:
        low, high, single = (section.number(name) for name in ("minID", "maxID", "id"))
        if (low is None) != (high is None):
            missing = "minID" if low is None else "maxID"
            raise CniError(INVALID_CONFIG, f"{section.at(missing)} is missing", "write minID and maxID, or id alone")
        if low is not None and high is not None:
            if low > high:
                raise wrong(section.at("minID"), low, f"is greater than maxID {high}", "swap them")
            spans.append((low, high))
        if single is not None:
            spans.append((single, single))
    return merged(spans)


def _refuse_contradictions(conf: BridgeConf) -> None:
    if conf.hairpin and conf.promisc:
        raise wrong("hairpinMode", True, "and promiscMode: true exclude each other", "set one of them to false")
    if conf.disable_container_interface and conf.ipam:
        raise wrong(
            "disableContainerInterface", True, "and an ipam exclude each other: an interface that is down has no use "
            "for addresses", "set it to false, or remove ipam",
        )
    gateway = conf.gateway_interface
    if conf.is_gateway and conf.vlan and len(gateway) > IFNAMSIZ:
        raise wrong(
            "bridge", conf.bridge, f"leaves no room for the gateway's interface in the vlan, {gateway}",
            f"shorten it: an interface's name has {IFNAMSIZ} characters at most",
        )
    if conf.source_routing and conf.ipam is None:
        raise wrong("sourceBasedRouting", True, "needs an ipam: without one the container has no address",
                    "write one, or remove it")
    if any(low <= conf.vlan <= high for low, high in conf.vlan_trunk):
        raise wrong("vlan", conf.vlan, "is in vlanTrunk too, and cannot be untagged and tagged", "take it out of one")
    if conf.ndp_proxy and not conf.is_gateway:
        raise wrong(
            "ndpProxy", conf.ndp_proxy, "needs isGateway: the node answers for addresses that it routes to",
            'set "isGateway": true',
        )
    refuse_small_mtu(conf.mtu, conf.ipam, "the bridge's own")
