"""What an attachment needs of the firewall, as values, which are recorded with its lease.

So DEL, ``cni-v6ctl reload`` and CHECK need neither the configuration nor the runtime's parameters of the ADD.
"""

from __future__ import annotations

from cni_v6.values import dataclass


OPEN, PUBLISHED, ISOLATED = "open", "published", "isolated"  # ``ingress``

# What the guard checks of a bridge port's frames. Each level includes the one before.
GUARD_OFF = ""
GUARD_MAC = "mac"  # its MAC
GUARD_LINK = "link"  # that it sends nothing as a router or DHCP server
GUARD_FULL = "full"  # its addresses
GUARD_BLOCKED = "blocked"  # it says nothing at all: what it may say is not known any more

MASQUERADED = "masquerade"  # the source of a prefix's packets becomes the outgoing interface's address

# Link groups of the node's interface on a segment (``firewall.absent``). Administrators use small numbers; the
# groups of a deletion have bit 30 set (``kernel.netlink.socket.new_group``).
CLOSED_SEGMENT = 0xC60600  # only containers whose addresses are known
SHARED_SEGMENT = CLOSED_SEGMENT | 1  # also containers that may choose addresses themselves


@dataclass(frozen=True, slots=True)
class Port:
    """A published port.

    :param protocol: ``tcp``, ``udp`` or ``sctp``.
    :param host_ip: canonical address of the node; an unspecified address for any of that family, "" for any of both.
    """

    protocol: str
    host_port: int
    container_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A destination that a container with an egress list may reach.

    :param to: a prefix.
    :param protocol: ``tcp``, ``udp``, ``sctp``, or "" for any.
    :param ports: first and last, inclusive; (0, 65535) for any.
    """

    to: str
    protocol: str = ""
    ports: tuple[int, int] = (0, 65535)


@dataclass(frozen=True, slots=True)
class Policy:
    """The firewall's policy for an attachment. Addresses are canonical, without prefix length.

    :param home: the node's interface through which the container is reached: the bridge, its VLAN interface, or the
        host end of the container's veth pair.
    :param port: the host end of the container's veth pair, which may be a bridge port.
    :param mac: the container's.
    :param addresses: of the container, both families.
    :param link_local: the container's IPv6 link-local address, "" without IPv6.
    :param guard: one of GUARD_*.
    :param masquerade: those of ``addresses`` that are masqueraded.
    :param snat: (address, source address after translation); prefix translation uses this and ``inbound``.
    :param keep: destination prefixes to which the source is not translated.
    :param inbound: (outside address, address) of prefix translation.
    :param stale: those of ``addresses`` whose UDP flows are deleted with the container: translated ones, and ones that
        another container may get.
    :param egress: None: everything may be reached.
    :param prefixes: (IPv6 prefix that is routed to the container, source after translation: "" for none, MASQUERADED,
        or an address). The rest of the policy for addresses applies to prefixes too.
    """

    home: str
    port: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    link_local: str = ""
    guard: str = GUARD_OFF
    ingress: str = OPEN
    masquerade: tuple[str, ...] = ()
    snat: tuple[tuple[str, str], ...] = ()
    keep: tuple[str, ...] = ()
    inbound: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    stale: tuple[str, ...] = ()
    egress: tuple[Allowed, ...] | None = None
    prefixes: tuple[tuple[str, str], ...] = ()

    @property
    def is_routed(self) -> bool:
        """Whether the container has a link of its own: nobody else is behind the interface ``home``."""
        return self.home == self.port
