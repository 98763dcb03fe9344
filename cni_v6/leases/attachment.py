"""What is recorded of an attachment: its addresses, its interfaces, and what the node was told of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cni_v6.firewall.policy import Policy
from cni_v6.protocol.names import Owner


@dataclass(frozen=True, slots=True)
class ProxyEntry:
    """An IPv6 address that the node answers for on ``uplink``, and has a route to through ``home``."""

    uplink: str
    home: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class GatewayAddress:
    """What a container counts on of the node's interface ``home``: its gateway, ``ip/prefixlen``; or ``on_link``, the
    route to a prefix there, of a gateway that is link-local."""

    home: str
    prefix: str
    on_link: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of a container to a network, as recorded before the kernel is touched.

    ``addresses``: what we leased, canonical text without prefix length, one per set in the sets' order.
    ``host``: the host interface, "" when the IPAM plugin ran alone. ``netns``: identity of the namespace.
    ``created``: seconds since the epoch. ``boot``: /proc/sys/kernel/random/boot_id; "" for a lease the reference plugin
    wrote, which records neither time nor boot. ``policy``: what the firewall was told, None for nothing.
    ``proxied``: addresses that the node answers for. ``prefixes``: what was delegated to the container, canonical.
    ``home``: the namespace that ``host`` is in, the node's; zeros where that was not recorded.
    ``anchors``: of the node's own, which stay while an attachment names them. ``reuse``: of each address
    the ``AllocationPolicy.reuse_mode`` of its set, "" or missing where that is not known. ``identity``: as in
    ``AllocationPolicy``.
    """

    owner: Owner
    addresses: tuple[str, ...]
    host: str = ""
    netns: tuple[int, int] = (0, 0)
    created: float = 0.0
    boot: str = ""
    policy: Policy | None = None
    proxied: tuple[ProxyEntry, ...] = ()
    prefixes: tuple[str, ...] = ()
    home: tuple[int, int] = (0, 0)
    anchors: tuple[GatewayAddress, ...] = ()
    reuse: tuple[str, ...] = ()
    identity: str = ""

    def reuse_mode(self, address: str) -> str:
        """How its set gives an address again (``AllocationPolicy.reuse_mode``), "" where that is not known."""
        return dict(zip(self.addresses, self.reuse)).get(address, "")

    def holding(self, addresses: tuple[str, ...]) -> Attachment:
        """The same attachment with these addresses."""
        if addresses == self.addresses:
            return self
        reuse = tuple(map(self.reuse_mode, addresses))
        return replace(self, addresses=addresses, reuse=reuse if any(reuse) else ())
