"""The tunnel of the carrier ``vxlan``: VXLAN (RFC 7348) over IPv6, one interface a node.

MAC and address of a node's tunnel follow from its id, so all nodes know them. Nothing is learnt or asked for: the agent
sets neighbours and the forwarding database.
"""

from __future__ import annotations

import hashlib

from cni_v6.cluster.facts import Endpoint, Neighbour, Tunnel, Underlay
from cni_v6.cluster.records import NodeRecord
from cni_v6.config.main import IPV6_MIN_MTU
from cni_v6.net.addresses import is_link_local, to_text

OVERHEAD = 40 + 8 + 8 + 14  # headers of IPv6, UDP and VXLAN; the inner Ethernet header


class NoTunnel(Exception):
    """Why a node has no tunnel, or cannot be reached by one."""


def tunnel(node: NodeRecord, underlay: Underlay) -> Tunnel:
    """A node's own tunnel.

    :raises NoTunnel: also if IPv6 would not fit.
    """
    mtu = mtu_of(underlay)
    if mtu < IPV6_MIN_MTU:
        least = IPV6_MIN_MTU + OVERHEAD
        raise NoTunnel(f"{underlay.ifname} has an MTU of {underlay.mtu}, and IPv6 needs {least} to fit the tunnel")
    return Tunnel(underlay.ifname, _endpoint(node), _mac(node), _address(node), mtu)


def peer(node: NodeRecord) -> tuple[Endpoint, Neighbour]:
    """What the tunnel must know of another node.

    :raises NoTunnel: it has no address for that.
    """
    return Endpoint(_mac(node), _endpoint(node)), Neighbour(_address(node), _mac(node))


def mtu_of(underlay: Underlay) -> int:
    """What fits the tunnel."""
    return underlay.mtu - OVERHEAD


def _endpoint(node: NodeRecord) -> str:
    address = node.address(6)
    if address is None or is_link_local(address):
        raise NoTunnel(f"node {node.name} has no IPv6 address that is not link-local on the interface to the others")
    return address


def _mac(node: NodeRecord) -> str:
    """46 bits of a hash, unicast and locally administered (IEEE 802)."""
    digest = hashlib.sha256(node.id.encode()).digest()
    return bytes((digest[0] & 0xFC | 0x02, *digest[1:6])).hex(":")


def _address(node: NodeRecord) -> str:
    """Link-local, of the MAC (RFC 4291, appendix A)."""
    mac = bytes.fromhex(_mac(node).replace(":", ""))
    identifier = bytes((mac[0] ^ 0x02, *mac[1:3], 0xFF, 0xFE, *mac[3:]))
    return to_text(6, 0xFE80 << 112 | int.from_bytes(identifier, "big"))
