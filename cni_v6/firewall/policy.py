"""What an attachment asks of the firewall: facts, recorded with its lease.

So DEL, ``cni-v6ctl reload`` and CHECK need neither the configuration nor the runtime's word of the ADD.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN, PUBLISHED, ISOLATED = "open", "published", "isolated"  # ``ingress``

# How much of what a bridge port says is checked, each including the one before.
GUARD_OFF = ""
GUARD_MAC = "mac"  # its MAC
GUARD_LINK = "link"  # that it is no router and no DHCP server
GUARD_FULL = "full"  # its addresses
GUARD_BLOCKED = "blocked"  # it says nothing at all: what it may say is not known any more

MASQUERADED = "masquerade"  # what a prefix leaves as: the outgoing interface's own address

# Link groups of the node's interface on a segment (``firewall.absent``). Administrators' are small numbers, those of a
# deletion have bit 30 (``kernel.rtnl``).
CLOSED_SEGMENT = 0xC60600  # whoever is there is a container whose addresses are known
SHARED_SEGMENT = CLOSED_SEGMENT | 1  # or has addresses of its own making


@dataclass(frozen=True, slots=True)
class Port:
    """A published port.

    :param protocol: ``tcp``, ``udp`` or ``sctp``.
    :param host_ip: canonical address of the node, an unspecified one for any of that family, "" for any of both.
    """

    protocol: str
    host_port: int
    container_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where a container with an egress list may go.

    :param to: a prefix.
    :param protocol: ``tcp``, ``udp``, ``sctp``, or "" for any.
    :param ports: first and last, inclusive; (0, 65535) for any.
    """

    to: str
    protocol: str = ""
    ports: tuple[int, int] = (0, 65535)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the firewall is told of one attachment; addresses are canonical, without prefix length.

    :param home: the node's interface through which the container is reached: the bridge, or its VLAN interface.
    :param port: the container's bridge port, the host end of its veth pair.
    :param mac: the container's.
    :param addresses: the container's, of both families.
    :param link_local: the container's IPv6 link-local address, "" without IPv6.
    :param guard: one of GUARD_*.
    :param masquerade: those of ``addresses`` that leave as the node's.
    :param snat: (address, what it leaves as); prefix translation is this, and ``inbound``.
    :param keep: destination prefixes that see the real source.
    :param inbound: (outside address, address) of prefix translation.
    :param stale: those whose UDP flows are to be forgotten with the container: translated ones, and another one's next.
    :param egress: None where everything may be reached.
    :param prefixes: (IPv6 prefix that is routed to the container, what it leaves as): "" for itself, MASQUERADED, or an
        address. All else that is said of its addresses is said of these too.
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
