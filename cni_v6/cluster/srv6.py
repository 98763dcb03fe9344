"""The carrier ``srv6``: segment routing over IPv6 (RFC 8986), with one segment a packet.

A node has two SIDs: End.DT6 for IPv6, and End.DX4 for IPv4, as End.DT4 needs a VRF. They follow from its id, so all
nodes know them.

The tunnel is a veth of which both ends are on the node. What is for another node's block goes out by SRV6 and comes in
by SRV6_IN. There a table of ours encapsulates it. What comes in for a SID of the node is decapsulated, goes out by
SRV6_IN and comes in by SRV6. So all that netfilter and the routing of the node see is an interface SRV6 to the other
nodes. Routes of the main table that encapsulate would not do:

- The kernel encapsulates before the forward hook, so no firewall sees the packet, and before it compares the packet
  with the MTU, so that it tells itself that it is too big (seg6_input, net/ipv6/seg6_iptunnel.c).
- What it decapsulates does not pass the prerouting hook (net/ipv6/seg6_local.c), so the answers of translated
  connections, such as those to services of Kubernetes, stay translated.

SIDs are in our table alone. It is asked for what comes in by SRV6_IN, and for what comes in for a SID by the interface
to the other nodes. So nothing that a container or a host beyond the node sends for a SID is decapsulated here or goes
to another node. No packet has a routing header, and the node processes none (seg6_enabled stays 0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from cni_v6.cluster.facts import SRV6, SRV6_IN, Entry, Facts, Pair, Route, Rule, SegmentRoute, Underlay
from cni_v6.cluster.records import NodeRecord
from cni_v6.config.main import IPV6_MIN_MTU
from cni_v6.kernel.netlink.segments import END_DT6, END_DX4
from cni_v6.net.addresses import to_text

OVERHEAD = 40  # the outer header of IPv6; with one segment there is no routing header (RFC 8986, 5.2)
BEHAVIOURS = {6: END_DT6, 4: END_DX4}
SIDS = "5f00:0:0:a6::/64"  # 5f00::/16 is for SIDs (RFC 9602)
# The next hop of End.DX4, which leads to SRV6_IN. It is in no packet (192.0.0.8, RFC 7600, is for none either).
DECAPSULATED4 = "192.0.0.8"
_FIRST = 0x5F00_0000_0000_00A6 << 64


class NoPair(Exception):
    """Why a node has no part in SRv6, or cannot be reached by it."""


def pair(node: NodeRecord, underlay: Underlay) -> Pair:
    """A node's own pair.

    :raises NoPair: also if IPv6 would not fit.
    """
    mtu = mtu_of(underlay)
    if mtu < IPV6_MIN_MTU:
        least = IPV6_MIN_MTU + OVERHEAD
        raise NoPair(f"{underlay.ifname} has an MTU of {underlay.mtu}, and IPv6 needs {least} to be encapsulated")
    return Pair(mtu, _address(node))


def mtu_of(underlay: Underlay) -> int:
    """What fits an outer header."""
    return underlay.mtu - OVERHEAD


def own(node_id: str, blocks: Iterable[str], underlay: Underlay) -> Iterator[Entry]:
    """What a node needs whoever the others are. It decapsulates IPv6 for its own blocks alone."""
    for family, behaviour in BEHAVIOURS.items():
        yield SegmentRoute(f"{_sid(node_id, family)}/128", underlay.ifname, behaviour=behaviour)
        yield Rule(family, SRV6_IN)
    for dst in (f"{DECAPSULATED4}/32", *(block for block in blocks if ":" in block)):
        yield SegmentRoute(dst, SRV6_IN)
    yield Rule(4, underlay.ifname, f"{DECAPSULATED4}/32")
    yield Rule(6, underlay.ifname, SIDS)
    yield Route(SIDS)


def peer(node: NodeRecord, prefix: str, underlay: Underlay) -> Iterator[Entry]:
    """What a node needs to reach a block of another one.

    :raises NoPair: it has no address for that.
    """
    hop = _address(node)
    family = 6 if ":" in prefix else 4
    yield SegmentRoute(f"{_sid(node.id, 6)}/127", underlay.ifname, gateway=hop)
    yield SegmentRoute(prefix, underlay.ifname, segment=_sid(node.id, family))
    yield Route(prefix, SRV6)


def _address(node: NodeRecord) -> str:
    address = node.address(6)
    if address is None:
        raise NoPair(f"node {node.name} has no IPv6 address on the interface to the others")
    return address


def complaint(facts: Facts) -> str:
    """What of the node hinders it; "" for nothing."""
    if not facts.underlay or not facts.drops:
        return ""
    keys = " and ".join(f"net.ipv4.conf.{name}.rp_filter" for name in ("all", facts.underlay.ifname))
    return (f"the reverse path filter drops IPv4 packets of containers, as they come in by {facts.underlay.ifname} and "
            f"answers go out by {SRV6}: set {keys} to 0")


def _sid(node_id: str, family: int) -> str:
    """63 bits of a hash, and one for the behaviour."""
    digest = int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:8], "big")
    return to_text(6, _FIRST | digest & ~1 | (family == 4))
