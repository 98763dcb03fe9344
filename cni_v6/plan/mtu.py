"""The MTU of a network: as configured, or the least of the node's uplinks."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.keys.bridge import AUTO_MTU
from cni_v6.config.main import IPV6_MIN_MTU, MainConf
from cni_v6.kernel.questions import GetUplinks, Question, Snapshot
from cni_v6.plan.site import Allocation


def questions(conf: MainConf) -> tuple[Question, ...]:
    """What an ADD has to know."""
    return (GetUplinks(),) if conf.mtu == AUTO_MTU else ()


def mtu(conf: MainConf, families: frozenset[int], seen: Snapshot) -> int:
    """``mtu`` as a number, 0 for the interface's own.

    An uplink below IPv6's least carries IPv4 alone. Its MTU is a container's only where that has IPv4 alone too: the
    kernel would take IPv6 off the interface (net/ipv6/addrconf.c, NETDEV_CHANGEMTU), and IPv4 finds the path's own MTU.
    """
    if conf.mtu != AUTO_MTU:
        return conf.mtu
    least = _least(seen)
    return IPV6_MIN_MTU if 0 < least < IPV6_MIN_MTU and families != {4} else least


def _least(seen: Snapshot) -> int:
    return min((each.mtu for each in seen.uplinks()), default=0)


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[str]:
    """What an ADD should warn of."""
    least = _least(seen) if conf.mtu == AUTO_MTU else 0
    if 0 < least < IPV6_MIN_MTU:
        given = mtu(conf, allocation.families(), seen)
        yield f"mtu: auto: an uplink has {least}, below the {IPV6_MIN_MTU} that IPv6 needs; containers get {given}"
