"""The macvlan plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations

from cni_v6.config.firewall import FirewallConf
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf
from cni_v6.config.keys.ipam import SLAAC_IPAM
from cni_v6.config.keys.macvlan import MACVLAN, OTHER_TYPES, REFUSAL
from cni_v6.config.keys.slaac import SLAAC
from cni_v6.config.main import (
    AUTO,
    IPV6_MIN_MTU,
    MainConf,
    Remembered,
    for_call,
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
from cni_v6.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_v6.firewall.policy import OPEN
from cni_v6.protocol import names
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass

PASSTHRU, BRIDGE_MODE = "passthru", "bridge"


@dataclass(frozen=True, slots=True)
class MacvlanConf(MainConf):
    """Configuration of the macvlan plugin. ``master`` AUTO: the interface of the node's default route.

    ``link_in_container``: the master is an interface of the container. ``accept_ra``: it listens to routers.
    ``host_access``: the node has a macvlan of its own there. ``slaac_timeout``: seconds in which a router on the link
    is to give addresses, in place of an ``ipam``; 0: none is asked.
    """

    master: str
    mode: str
    link_in_container: bool
    accept_ra: bool
    host_access: bool
    slaac_timeout: int

    @property
    def node_interface(self) -> str:
        """The node's own macvlan; "" for none."""
        return names.node_interface(self.network, self.master) if self.host_access else ""

    @property
    def has_host_end(self) -> bool:
        """No: nothing on the node is the container's."""
        return False


_kept: dict[Remembered, MacvlanConf] = {}


def parse_macvlan(call: Invocation, prefixes: InterfacePrefixes | None = None) -> MacvlanConf:
    """Configuration of ``cni-v6-macvlan`` for ADD, CHECK and STATUS; parameters and errors as ``parse_bridge``."""
    return for_call(remembered(call, _kept, _read) if prefixes is None else _read(call, prefixes), call)


def _read(call: Invocation, prefixes: InterfacePrefixes | None = None) -> MacvlanConf:
    top = reader(call).read(MACVLAN, call.config, "")
    slaac_timeout = _slaac_timeout(call, top)
    ipam = None if slaac_timeout else read_ipam(call, top, prefixes)
    conf = MacvlanConf(
        network=call.network,
        is_gateway=False,
        mtu=top.number("mtu") or 0,
        ndp_proxy="",
        mac=read_mac(call, top) or top.text("mac"),
        dns=read_dns(top),
        ipam=ipam,
        firewall=FirewallConf(ingress=OPEN, guard=False),
        allow_overlap=True,  # the subnet is the master's
        bandwidth=None,
        tuning=read_tuning(top),
        source_routing=read_source_routing(top),
        master=top.text("master"),
        mode=top.text("mode"),
        link_in_container=top.flag("linkInContainer"),
        accept_ra=top.flag("acceptRa"),
        host_access=top.flag("hostAccess"),
        slaac_timeout=slaac_timeout,
    )
    _refuse_egress(top, top.section("args").section("cni"))
    _refuse_delegation(conf)
    _refuse_contradictions(conf)
    refuse_small_mtu(conf.mtu, ipam, "the master's own")
    return conf


def _slaac_timeout(call: Invocation, top: Section) -> int:
    """The seconds that ``ipam`` with ``type`` ``cni-v6-slaac`` allows a router; 0 for another ``ipam``, or none."""
    raw = top.raw("ipam")
    if raw.get("type") != SLAAC_IPAM:
        return 0
    return reader(call).read(SLAAC, raw, "ipam").number("slaacTimeout") or 0


def _refuse_egress(*sections: Section) -> None:
    """An empty list would allow nothing, so it asks for something too."""
    for section in sections:
        if "egress" in section.given:
            raise CniError(UNSUPPORTED_FIELD, f"{section.at('egress')} {REFUSAL.reason}", REFUSAL.remedy)


def _refuse_delegation(conf: MacvlanConf) -> None:
    wanted = conf.ipam.delegation if isinstance(conf.ipam, IpamConf) else None
    if wanted:
        reason = "needs the node as router: it does not route for a macvlan"
        raise wrong(wanted.path, wanted.length, reason, OTHER_TYPES)


def _refuse_contradictions(conf: MacvlanConf) -> None:
    if conf.master == AUTO and conf.link_in_container:
        raise CniError(INVALID_CONFIG, "master is missing: linkInContainer looks for it in the container",
                       "write the name that it has there")
    if conf.mode == PASSTHRU and conf.master == AUTO:
        words = "takes the whole master from the node, and master is that of its default route"
        raise wrong("mode", conf.mode, words, "write another interface as master")
    if conf.mode == PASSTHRU and conf.mac:
        raise wrong("mac", conf.mac, f"and mode {PASSTHRU} exclude each other: the container has the master's MAC",
                    "remove the MAC, or take another mode")
    if conf.host_access and conf.mode != BRIDGE_MODE:
        words = f"needs mode {BRIDGE_MODE}: with {conf.mode} the node's macvlan reaches no other one"
        raise wrong("hostAccess", True, words, f'write "mode": "{BRIDGE_MODE}", or remove hostAccess')
    if conf.host_access and conf.link_in_container:
        raise wrong("hostAccess", True, "and linkInContainer exclude each other: the node does not have that master",
                    "remove one of them")
    if conf.host_access and conf.ipam is None:
        raise wrong("hostAccess", True, "needs an ipam with ranges: the node has a route to each address",
                    "write one, or remove hostAccess")
    if conf.source_routing and conf.ipam is None:
        words = "needs an ipam with ranges: what a router on the link gives changes"
        raise wrong("sourceBasedRouting", True, words, "write one, or remove it")
    if conf.slaac_timeout and 0 < conf.mtu < IPV6_MIN_MTU:
        raise wrong("mtu", conf.mtu, f"is below {IPV6_MIN_MTU}, the least IPv6 needs", "raise it, or write 0")
    if conf.slaac_timeout and conf.accept_ra:
        raise wrong("acceptRa", True, f"has no effect beside ipam.type {SLAAC_IPAM}, which listens to routers anyway",
                    "remove it")
