"""The MTU of a network: the configured one, or with ``auto`` the smallest MTU of the node's uplinks."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.config.keys.bridge import AUTO_MTU
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import IPV6_MIN_MTU, MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetUplinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan.site import Allocation

DEFAULT_MTU = 1500  # linux/if_ether.h, ETH_DATA_LEN: what a bridge and a veth start with


def questions(conf: MainConf) -> tuple[Question, ...]:
    """The questions that an ADD asks."""
    return (GetUplinks(),) if conf.mtu == AUTO_MTU else ()


def mtu(conf: MainConf, families: frozenset[int], seen: Snapshot) -> int:
    """The MTU as a number; 0 to leave the interface's default.

    An uplink with less than IPv6's minimum of 1280 carries IPv4 only. Only a container with IPv4 alone gets its MTU:
    below 1280 the kernel takes IPv6 off an interface (net/ipv6/addrconf.c, NETDEV_CHANGEMTU). A container with IPv6
    gets 1280, and its IPv4 uses path MTU discovery.
    """
    if conf.mtu != AUTO_MTU:
        return conf.mtu
    least = _least(seen)
    return IPV6_MIN_MTU if 0 < least < IPV6_MIN_MTU and families != {4} else least


def too_small(conf: BridgeConf, seen: Snapshot) -> CniError | None:
    """Why containers cannot have IPv6 by the bridge that is there; None if they can."""
    bridge = seen.link(HOST, conf.bridge)
    if bridge is None or not 0 < bridge.mtu < IPV6_MIN_MTU or (conf.mtu and not conf.is_gateway):
        return None
    wanted = conf.mtu if conf.mtu >= IPV6_MIN_MTU else DEFAULT_MTU
    words = f"bridge {conf.bridge} has an MTU of {bridge.mtu}, and IPv6 needs {IPV6_MIN_MTU} (RFC 8200, section 5)"
    return CniError(NODE_CONFLICT, words, f"run ip link set {conf.bridge} mtu {wanted}")


def _least(seen: Snapshot) -> int:
    return min((uplink.mtu for uplink in seen.uplinks()), default=0)


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[str]:
    """The warnings that an ADD logs."""
    least = _least(seen) if conf.mtu == AUTO_MTU else 0
    if 0 < least < IPV6_MIN_MTU:
        used = mtu(conf, allocation.families(), seen)
        yield f"mtu: auto: an uplink has {least}, below the {IPV6_MIN_MTU} that IPv6 needs; containers get {used}"
