"""What the configurations of macvlan, ipvlan and vlan share: a container has a child of one of the node's interfaces.

That interface is the *master*. Each of these plugins extends ``ChildConf`` and says what differs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from cni_v6.config.firewall import FirewallConf
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf
from cni_v6.config.keys.child import OTHER_TYPES, Words
from cni_v6.config.keys.ipam import SLAAC_IPAM
from cni_v6.config.keys.slaac import SLAAC
from cni_v6.config.main import (
    AUTO,
    IPV6_MIN_MTU,
    MainConf,
    read_dns,
    read_ipam,
    read_source_routing,
    read_tuning,
    reader,
    refuse_small_mtu,
)
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_v6.firewall.policy import OPEN
from cni_v6.protocol import names
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass

Child = TypeVar("Child", bound="ChildConf")


@dataclass(frozen=True, slots=True)
class ChildConf(MainConf):
    """Configuration of a network of child interfaces. ``master`` AUTO: the interface of the node's default route.

    ``mode``: as in ``ip link``; of a vlan its id. ``link_in_container``: the master is an interface of the container.
    ``host_access``: the node has a child of its own there. ``accept_ra``: it listens to routers. ``slaac_timeout``:
    seconds in which a router on the link is to give addresses, in place of an ``ipam``; 0: none is asked.
    """

    master: str
    mode: str
    link_in_container: bool
    host_access: bool
    accept_ra: bool
    slaac_timeout: int

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind of interface, as in ``ip link``."""

    @property
    def has_own_mac(self) -> bool:
        """Whether a child has a MAC of its own, if none is requested; else it has the master's."""
        return False

    @property
    def can_change_mac(self) -> bool:
        """Whether the kernel lets a child have another MAC than its master."""
        return True

    @property
    def has_neighbours(self) -> bool:
        """Whether a container resolves neighbours on the link, and is resolved there (ARP, RFC 4861)."""
        return True

    @property
    def is_on_masters_link(self) -> bool:
        """Whether the node's addresses on the master are in the same subnets as the containers'."""
        return True

    @property
    def has_one_mode(self) -> bool:
        """Whether all children that a master has of this kind have one mode."""
        return False

    @property
    def node_interface(self) -> str:
        """The node's own interface on the master, by which it reaches the containers; "" for none."""
        return names.node_interface(self.network, self.master) if self.host_access else ""

    @property
    def has_host_end(self) -> bool:
        """No: nothing on the node is the container's."""
        return False


def read_child(
    call: Invocation, top: Section, prefixes: InterfacePrefixes | None, make: Callable[..., Child], **own: Any
) -> Child:
    """The configuration of one of these plugins, without the contradictions that it alone knows.

    :param make: the class of the configuration.
    :param own: mode and MAC, and the fields that this class alone has.
    :raises CniError: as ``parse_bridge``.
    """
    slaac_timeout = _slaac_timeout(call, top)
    ipam = None if slaac_timeout else read_ipam(call, top, prefixes)
    return make(
        network=call.network,
        is_gateway=False,
        mtu=top.number("mtu") or 0,
        ndp_proxy="",
        dns=read_dns(top),
        ipam=ipam,
        firewall=FirewallConf(ingress=OPEN, guard=False),
        allow_overlap=True,  # the subnet is the link's
        bandwidth=None,
        tuning=read_tuning(top),
        source_routing=read_source_routing(top),
        master=top.text("master"),
        link_in_container=top.flag("linkInContainer"),
        host_access=top.flag("hostAccess"),
        accept_ra=top.flag("acceptRa"),
        slaac_timeout=slaac_timeout,
        **own,
    )


def refuse_common(top: Section, conf: ChildConf, words: Words) -> None:
    """
    :raises CniError: INVALID_CONFIG, UNSUPPORTED_FIELD for what none of these plugins can do.
    """
    _refuse_egress(words, top, top.section("args").section("cni"))
    wanted = conf.ipam.delegation if isinstance(conf.ipam, IpamConf) else None
    if wanted:
        reason = f"needs the node as router: it does not route for {words.a_child}"
        raise wrong(wanted.path, wanted.length, reason, OTHER_TYPES)
    if conf.master == AUTO and conf.link_in_container:
        raise CniError(INVALID_CONFIG, "master is missing: linkInContainer looks for it in the container",
                       "write the name that it has there")
    if conf.host_access and conf.link_in_container:
        raise wrong("hostAccess", True, "and linkInContainer exclude each other: the node does not have that master",
                    "remove one of them")
    if conf.host_access and conf.ipam is None:
        raise wrong("hostAccess", True, "needs an ipam with ranges: the node has a route to each address",
                    "write one, or remove hostAccess")
    if conf.source_routing and conf.ipam is None:
        reason = "needs an ipam with ranges: what a router on the link gives changes"
        raise wrong("sourceBasedRouting", True, reason, "write one, or remove it")
    if conf.slaac_timeout and 0 < conf.mtu < IPV6_MIN_MTU:
        raise wrong("mtu", conf.mtu, f"is below {IPV6_MIN_MTU}, the least IPv6 needs", "raise it, or write 0")
    if conf.slaac_timeout and conf.accept_ra:
        raise wrong("acceptRa", True, f"has no effect beside ipam.type {SLAAC_IPAM}, which listens to routers anyway",
                    "remove it")
    refuse_small_mtu(conf.mtu, conf.ipam, "the master's own")


def _slaac_timeout(call: Invocation, top: Section) -> int:
    """The seconds that ``ipam`` with ``type`` ``cni-v6-slaac`` allows a router; 0 for another ``ipam``, or none."""
    raw = top.raw("ipam")
    if raw.get("type") != SLAAC_IPAM:
        return 0
    return reader(call).read(SLAAC, raw, "ipam").number("slaacTimeout") or 0


def _refuse_egress(words: Words, *sections: Section) -> None:
    """An empty list would allow nothing, so it asks for something too."""
    for section in sections:
        if "egress" in section.given:
            refusal = words.no_host_interface
            raise CniError(UNSUPPORTED_FIELD, f"{section.at('egress')} {refusal.reason}", refusal.remedy)
