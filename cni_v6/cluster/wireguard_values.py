"""What the carrier ``wireguard`` has in the kernel, as values: the interface, the other nodes, its addresses."""

from __future__ import annotations

from dataclasses import dataclass

from cni_v6.log import counted
from cni_v6.protocol import names

WIREGUARD = names.WIREGUARD


@dataclass(frozen=True, slots=True)
class Encrypted:
    """The WireGuard interface, WIREGUARD: up, with the node's private key. The key itself is in no value.

    With it goes a table of nftables: a packet from a prefix of ``pools`` must come in by this interface, but for those
    of ``blocks``, which are the node's own and must not come in by ``underlay``, the interface to the other nodes.
    """

    mtu: int
    underlay: str = ""
    pools: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    @property
    def ifname(self) -> str:
        return WIREGUARD

    @property
    def interface(self) -> Encrypted:
        """All of it but what its table alone has."""
        return Encrypted(self.mtu)

    def __str__(self) -> str:
        return f"interface {WIREGUARD} (mtu {self.mtu})"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, by its public key (base64). ``blocks``: the sources that it may have, and what is sent to it."""

    key: str
    endpoint: str
    blocks: tuple[str, ...]

    def __str__(self) -> str:
        return f"peer {self.key} at {self.endpoint} with {counted(len(self.blocks), 'block')} of {WIREGUARD}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the interface, with its prefix length: the source of what the node itself sends to containers."""

    prefix: str

    def __str__(self) -> str:
        return f"address {self.prefix} on {WIREGUARD}"
