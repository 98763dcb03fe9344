"""The routed plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.firewall import parse as parse_firewall
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf
from cni_v6.config.keys.routed import ROUTED
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
from cni_v6.config.reader import wrong
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.net.addresses import version
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import host_interface
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class RoutedConf(MainConf):
    """Configuration of the routed plugin. ``host``: the host interface of the call's container, "" for none.

    ``ipv4_gateway``: the node's IPv4 address on the link; "" where the next hop of IPv4 is an IPv6 address.
    """

    host: str
    ipv4_gateway: str

    @property
    def gateway_interface(self) -> str:
        """The host interface of the container: nobody else is behind it."""
        return self.host

    @property
    def is_shared(self) -> bool:
        """No: each container has a link of its own."""
        return False

    def at(self, host: str) -> RoutedConf:
        """The configuration as of the container behind the host interface ``host``."""
        return self if host == self.host else replace(self, host=host)


_kept: dict[Remembered, RoutedConf] = {}


def parse_routed(call: Invocation, prefixes: InterfacePrefixes | None = None) -> RoutedConf:
    """Configuration of ``cni-v6-routed`` for ADD, CHECK and STATUS; parameters and errors as ``parse_bridge``."""
    conf = remembered(call, _kept, _read) if prefixes is None else _read(call, prefixes)
    return for_call(conf.at(host_interface(call.owner) if call.container_id else ""), call)


def _read(call: Invocation, prefixes: InterfacePrefixes | None = None) -> RoutedConf:
    top = reader(call).read(ROUTED, call.config, "")
    ipam = read_ipam(call, top, prefixes)
    if ipam is None:
        raise CniError(INVALID_CONFIG, "ipam.type is missing: a container without addresses cannot be routed to",
                       'write an ipam with a type, such as "cni-v6-ipam"')
    sets = ipam.sets if isinstance(ipam, IpamConf) else ()
    conf = RoutedConf(
        network=call.network,
        is_gateway=True,
        mtu=top.number("mtu") or 0,
        ndp_proxy=top.text("ndpProxy"),
        mac=read_mac(call, top),
        dns=read_dns(top),
        ipam=ipam,
        firewall=parse_firewall(top, sets),
        allow_overlap=top.text("overlap") == "allow",
        bandwidth=read_bandwidth(top),
        tuning=read_tuning(top),
        source_routing=read_source_routing(top),
        host="",
        ipv4_gateway=top.text("ipv4Gateway"),
    )
    if conf.ipv4_gateway and version(conf.ipv4_gateway) != 4:
        raise wrong("ipv4Gateway", conf.ipv4_gateway, "is no IPv4 address", "write one such as 169.254.1.1")
    refuse_small_mtu(conf.mtu, ipam, "the kernel's default")
    check_delegation(top, conf)
    return conf
