"""Everything derived: host interface, MAC addresses, owner; most of it from (network, container id, ifname).

DEL, CHECK, GC and retries need no memory of an ADD: the same three words give the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Protocol, TypeVar

from cni_v6.values import dataclass

IFNAMSIZ = 15  # linux/if.h: 16 with the terminating zero
IFALIASZ = 255  # linux/if.h: 256 with the terminating zero
ALIAS_PREFIX = "cni-v6"
WIREGUARD = "cni-v6-wg"  # the node agent's: it has the first address of the node's block (cluster.wireguard)
SRV6_IN = "cni-v6-srv6-in"  # the node agent's: what containers send to other nodes comes in by it again (cluster.srv6)
# Link groups of routed networks. Administrators use small numbers, a deletion those with bit 30 (``new_group`` in
# ``kernel.netlink.socket``).
ROUTED_NETWORK, ROUTED_NETWORKS = 1 << 29, 0xF << 28  # the upper four bits, and their mask


class Named(Protocol):
    """What has an ``ifalias``: the kernel's links (``kernel.facts.Link``)."""

    @property
    def alias(self) -> str: ...


Interface = TypeVar("Interface", bound=Named)


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Who holds an address or an interface: one attachment of one container to one network (SPEC.md, section 1)."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container_id}/{self.ifname}"


def _digest(*words: str) -> bytes:
    return hashlib.blake2s("\0".join(words).encode()).digest()


@lru_cache(maxsize=64)  # a call asks for it several times
def host_interface(owner: Owner) -> str:
    """Name of the veth end on the node: ``veth`` (which NetworkManager and udev leave alone) and 44 bits."""
    return "veth" + _digest("host", *_words(owner)).hex()[: IFNAMSIZ - 4]


def host_interfaces(network: str, attachments: Iterable[tuple[str, str]]) -> frozenset[str]:
    """As ``host_interface``, of thousands at once; each is the container id and the interface's name in there."""
    common, found = hashlib.blake2s("\0".join(("host", network, "")).encode()), list[str]()
    for container_id, ifname in attachments:
        digest = common.copy()
        digest.update(f"{container_id}\0{ifname}".encode())
        found.append("veth" + digest.hexdigest()[: IFNAMSIZ - 4])
    return frozenset(found)


def ifb(owner: Owner) -> str:
    """Name of the device through whose queue passes what the container sends, where that is shaped."""
    return f"ifb{host_interface(owner).removeprefix('veth')}"


def unnamed_interface(owner: Owner) -> str:
    """Name of the interface in the container until it gets the one that the runtime asks for."""
    return "new" + _digest("unnamed", *_words(owner)).hex()[: IFNAMSIZ - 3]


def node_interface(network: str, master: str) -> str:
    """Name of the node's own child on a master, by which it reaches the containers of a network there."""
    return "node" + _digest("node", network, master).hex()[: IFNAMSIZ - 4]


def node_mac(network: str, master: str, node: str) -> str:
    """MAC of ``node_interface``.

    :param node: as of ``bridge_mac``.
    """
    return _mac(_digest("node mac", network, master, node))


def container_mac(owner: Owner) -> str:
    """MAC of the interface in the container: locally administered, unicast, 46 bits of the owner's digest."""
    return _mac(_digest("container mac", *_words(owner)))


def address_mac(network: str, node: str, address: str) -> str:
    """MAC of the interface in the container: the same for every holder of an address, one after the other.

    :param node: as of ``bridge_mac``.
    """
    return _mac(_digest("address mac", network, node, address))


def host_mac(owner: Owner) -> str:
    """MAC of the veth end on the node."""
    return _mac(_digest("host mac", *_words(owner)))


@lru_cache(maxsize=64)
def bridge_mac(bridge: str, node: str) -> str:
    """MAC of a bridge.

    :param node: what tells this node from others on the same layer 2, such as ``/etc/machine-id``.
    """
    return _mac(_digest("bridge mac", bridge, node))


def pinned_mac(bridge: str, node: str) -> str:
    """MAC for a bridge of others that has none: not ``bridge_mac``, which says that the bridge is ours."""
    return _mac(_digest("pinned mac", bridge, node))


def alias(owner: Owner) -> str:
    """The ``ifalias`` of the host interface: how a person, and GC, see whose it is."""
    return f"{ALIAS_PREFIX} {owner}"


def alias_start(network: str) -> str:
    """How the aliases of a network's host interfaces begin."""
    return f"{ALIAS_PREFIX} {network}/"


@lru_cache(maxsize=64)
def link_group(network: str) -> int:
    """Link group of the host interfaces of a routed network: ``ROUTED_NETWORK`` and 28 bits of the name's digest."""
    return ROUTED_NETWORK | int.from_bytes(_digest("link group", network)[:4], "big") >> 4


def node_group(master: str) -> int:
    """Link group of the node's own ipvlans on a master: bit 28, and 28 bits of a digest of the name."""
    return 1 << 28 | int.from_bytes(_digest("node group", master)[:4], "big") >> 4


def source_table(owner: Owner) -> int:
    """Number of the routing table for what a container sends from its addresses of a network: 2^30 and more, where no
    number is chosen by hand."""
    return 1 << 30 | int.from_bytes(_digest("source table", *_words(owner))[:4], "big") >> 2


def ifb_alias(owner: Owner) -> str:
    """The ``ifalias`` of that device: for a person. It is no interface of the owner's."""
    return f"{ALIAS_PREFIX}-ifb {owner}"


def owner_of_alias(text: str) -> Owner | None:
    """The owner an alias names, or None where the interface is not ours. The three words cannot hold a slash."""
    prefix, _, words = text.partition(" ")
    parts = words.split("/")
    if prefix != ALIAS_PREFIX or len(parts) != 3:
        return None
    return Owner(*parts)


def owned(interfaces: Iterable[Interface], network: str = "") -> Iterator[tuple[Owner, Interface]]:
    """The interfaces that are ours, each with the owner that its alias names.

    :param network: whose alone; "" for all.
    """
    for interface in interfaces:
        owner = owner_of_alias(interface.alias)
        if owner and network in ("", owner.network):
            yield owner, interface


def _words(owner: Owner) -> tuple[str, str, str]:
    return owner.network, owner.container_id, owner.ifname


def _mac(digest: bytes) -> str:
    first = (digest[0] & 0xFC) | 0x02  # IEEE 802: bit 0 group, bit 1 locally administered
    return bytes((first, *digest[1:6])).hex(":")
