"""What neighbours remember of an address from its last holder, and how that becomes right for the next one.

A neighbour keeps the MAC of an address for as long as it likes (RFC 826; RFC 4861, section 7.3.3): a recycled address
seems dead to it until it asks again. Two things spare that. On a bridge that is the node's alone a container's MAC is
derived from its IPv4 address, so what is remembered is right whoever has the address. What cannot be right by itself is
announced. That is a frame to a group, which a bridge carries into every container's namespace; what that costs beside
a thousand of them is in docs/design/performance.md. So it is sent only where it says something.

Pure. Not derived from an IPv6 address: a container keeps its MAC when ``renumber`` changes that, and the next holder
would have the same MAC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cni_v6.allocation.ranges import origin
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel.questions import Snapshot
from cni_v6.net.addresses import from_text, version
from cni_v6.plan import bridge_port
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner


def mac(conf: BridgeConf, owner: Owner, node: str, addresses: Iterable[str], seen: Snapshot) -> str:
    """The MAC of the container's interface: the one that was asked for, else a derived one.

    :param node: what tells this node from others, such as ``/etc/machine-id``.
    :param addresses: the container's, without prefix length.
    :param seen: answers to ``plan.questions``.
    """
    source = _source(conf, node, addresses, seen)
    return conf.mac or (names.address_mac(owner.network, node, source) if source else names.container_mac(owner))


def to_announce(conf: BridgeConf, node: str, addresses: Collection[str], seen: Snapshot) -> frozenset[int]:
    """The families of which a neighbour may remember something else; arguments as of ``mac``."""
    if not _is_private(conf, node, seen):
        return frozenset(map(version, addresses))
    requested = conf.ipam.requested if isinstance(conf.ipam, IpamConf) else ()
    right = set(given_once(conf, addresses)).difference(requested)  # what was asked for may be so again, by another
    if not conf.mac:
        right.add(_source(conf, node, addresses, seen))
    return frozenset(version(address) for address in addresses if address not in right)


def given_once(conf: MainConf, addresses: Iterable[str]) -> list[str]:
    """Those that are given to nobody else, unless somebody asks for one."""
    if not isinstance(conf.ipam, IpamConf):
        return []
    sets = [each for each in conf.ipam.sets if conf.ipam.policy.never_reuses(each)]
    return [address for address in addresses if any(origin(each, *from_text(address)) for each in sets)]


def _source(conf: BridgeConf, node: str, addresses: Iterable[str], seen: Snapshot) -> str:
    """The address that the MAC is derived from, "" for none."""
    if not _is_private(conf, node, seen):
        return ""
    return next((address for address in addresses if version(address) == 4), "")


def _is_private(conf: BridgeConf, node: str, seen: Snapshot) -> bool:
    """Whether this node alone gives out the segment's addresses. Behind the bridge of an administrator there may be
    others, and switches that learn by a frame at which port a MAC is."""
    return conf.is_gateway and bridge_port.is_own_bridge(conf, node, seen)
