"""IPv6 forwarding that never costs the node its own IPv6.

``net.ipv6.conf.all.forwarding=1`` makes the kernel drop routes learnt from router advertisements, and ignore further
ones on every interface whose ``accept_ra`` is 1 (net/ipv6/addrconf.c, ipv6_accept_ra). A node that lives on RAs is cut
off.

So: where the kernel has ``force_forwarding`` (6.17), it is set on the bridge and on the node's interfaces that use
IPv6, and ``all.forwarding`` stays as it is: RAs are accepted as before. Elsewhere ``accept_ra`` becomes 2 first, on
every interface that listens and for those to come, and then forwarding is turned on.
"""

from __future__ import annotations

from cni_v6.kernel import GetIpv6Interfaces, GetSysctl, GetUplink, Question, Snapshot
from cni_v6.ops import HOST, Op, SetSysctl

ALL_FORWARDING = "ipv6/conf/all/forwarding"
SUPPORTED = "ipv6/conf/default/force_forwarding"
FUTURE_ACCEPT_RA = "ipv6/conf/default/accept_ra"  # of interfaces to come


def questions(interface: str) -> tuple[Question, ...]:
    """What tells whether IPv6 is forwarded between ``interface`` and the uplink."""
    return (
        GetSysctl(HOST, ALL_FORWARDING),
        GetSysctl(HOST, SUPPORTED),
        GetSysctl(HOST, _force(interface)),
        GetUplink(),
    )


def is_on(seen: Snapshot, interface: str) -> bool:
    """Whether packets from ``interface`` are forwarded."""
    return seen.sysctl(HOST, ALL_FORWARDING) == "1" or seen.sysctl(HOST, _force(interface)) == "1"


def more_questions(seen: Snapshot, interface: str) -> tuple[Question, ...]:
    """What has to be known beside ``questions`` to turn forwarding on; nothing when it is on already."""
    return () if is_on(seen, interface) else (GetIpv6Interfaces(), GetSysctl(HOST, FUTURE_ACCEPT_RA))


def turn_on(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """The operations that forward IPv6 between ``interface`` and the world.

    :param seen: answers to ``questions`` and ``more_questions``.
    """
    if seen.sysctl(HOST, ALL_FORWARDING) == "1":
        return ()
    if seen.sysctl(HOST, SUPPORTED) is None:
        return _careful(seen)
    uplink = seen.uplink()
    names = [interface, *([uplink] if uplink else [])]
    if not is_on(seen, interface):
        names += [each.name for each in seen.ipv6_interfaces() if not each.disabled]
    return tuple(SetSysctl(HOST, _force(name), "1") for name in dict.fromkeys(names))


def _careful(seen: Snapshot) -> tuple[Op, ...]:
    """Without ``force_forwarding``: listeners keep listening, then all interfaces forward."""
    listening = [each.name for each in seen.ipv6_interfaces() if each.accept_ra == "1" and not each.disabled]
    if seen.sysctl(HOST, FUTURE_ACCEPT_RA) == "1":
        listening.append("default")
    keep = tuple(SetSysctl(HOST, f"ipv6/conf/{name}/accept_ra", "2") for name in listening)
    return (*keep, SetSysctl(HOST, ALL_FORWARDING, "1"))


def _force(interface: str) -> str:
    return f"ipv6/conf/{interface}/force_forwarding"
