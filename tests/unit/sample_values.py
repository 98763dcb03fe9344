"""What the tests of the plugins' pure parts are made of: a site, configurations, allocations, what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netaddr import IPNetwork

from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.firewall import FirewallConf
from cni_v6.config.ipam import IpamConf
from cni_v6.firewall.policy import OPEN
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan import bridge, features
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Route

NODE = "0e8f6a50"
NETNS = "/run/netns/c1"
OWNER = Owner("pods", "c1", "eth0")
SITE = Site(OWNER, NETNS, NODE)
PORT = names.host_interface(OWNER)
PORT_MAC, MAC = names.host_mac(OWNER), names.container_mac(OWNER)
ADDRESS_MAC = names.address_mac("pods", NODE, "10.1.0.2")  # of who has IPV4 below
BRIDGE_MAC = names.bridge_mac("cni0", NODE)

CONF = BridgeConf(
    network="pods",
    bridge="cni0",
    is_gateway=False,
    is_default_gateway=False,
    force_address=False,
    allow_overlap=False,
    bandwidth=None,
    tuning=None,
    source_routing=None,
    mtu=0,
    ndp_proxy="",
    hairpin=False,
    promisc=False,
    vlan=0,
    vlan_trunk=(),
    preserve_default_vlan=False,
    enable_dad=False,
    disable_container_interface=False,
    port_isolation=False,
    multicast_snooping=False,
    netfilter=False,
    mac="",
    dns=None,
    ipam=None,
    firewall=FirewallConf(ingress=OPEN, guard=False),
)

IPV6 = Address("2001:db8:1::2/64", "2001:db8:1::1")
IPV4 = Address("10.1.0.2/16", "10.1.0.1")
BEHIND_LINK_LOCAL = Address("2001:db8:1::2/64", "fe80::1")


def conf(**changes: Any) -> BridgeConf:
    """A layer 2 network ``pods`` on the bridge ``cni0``, changed."""
    return replace(CONF, **changes)


def allocation(*ips: Address, routes: tuple[Route, ...] = ()) -> Allocation:
    return Allocation(ips, routes)


def range_set(*subnets: str, gateway: str = "") -> RangeSet:
    """All of these subnets but their first address, which is the gateway, and, of IPv4, the last."""
    return RangeSet(tuple(_range(IPNetwork(subnet), gateway) for subnet in subnets))


def _range(subnet: IPNetwork, gateway: str) -> Range:
    last = subnet.last - (1 if subnet.version == 4 else 0)
    first = subnet.first + 1
    return Range(subnet.version, subnet.first, subnet.prefixlen, first, last, gateway or str(subnet[1]))


def ipam_conf(*sets: RangeSet, requested: tuple[str, ...] = ()) -> IpamConf:
    return IpamConf("pods", "/var/lib/cni/networks", sets, (), requested, "")


def kernel() -> FakeKernel:
    """A node without a bridge, as it booted, with one container on it; it knows no ``force_forwarding``."""
    made = FakeKernel()
    made.add_netns(NETNS)
    for netns in made.spaces.values():
        for key in [key for key in netns.sysctls if key.endswith("/force_forwarding")]:
            del netns.sysctls[key]
    return made


def look(fake: FakeKernel, wanted: BridgeConf) -> Snapshot:
    """All that ADD asks before it plans."""
    seen = fake.observe(bridge.questions(SITE, wanted))
    if wanted.is_gateway:
        seen = seen.with_answers(fake.observe(features.more_questions(wanted, seen)))
    return seen
