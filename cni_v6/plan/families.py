"""Whether the node and the container have IPv6."""

from __future__ import annotations

from cni_v6.errors import IPV6_DISABLED, CniError
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot

_CONTAINERS, _NODES = "ipv6/conf/lo/disable_ipv6", "ipv6/conf/all/disable_ipv6"


def questions(netns: str) -> tuple[Question, ...]:
    """The question about the container that ``ipv6_off`` needs answered."""
    return (GetSysctl(netns, _CONTAINERS),)


def host_questions() -> tuple[Question, ...]:
    """The question about the node that ``ipv6_off`` needs answered if the node is the gateway."""
    return (GetSysctl(HOST, _NODES),)


def node_ipv6_off(seen: Snapshot) -> bool:
    """Whether IPv6 is off on the whole node. Needs ``host_questions`` answered."""
    return seen.sysctl(HOST, _NODES) != "0"


def ipv6_off(netns: str, seen: Snapshot, *, gateway: bool) -> CniError | None:
    """The error that says why a container cannot have IPv6; None if it can."""
    if seen.sysctl(netns, _CONTAINERS) is None:
        return CniError(IPV6_DISABLED, "the kernel has no IPv6", "boot without ipv6.disable=1, or use IPv4 ranges only")
    if gateway and node_ipv6_off(seen):
        words = "IPv6 is off on this node (net.ipv6.conf.all.disable_ipv6=1) and the network has IPv6 ranges"
        return CniError(IPV6_DISABLED, words, "run sysctl -w net.ipv6.conf.all.disable_ipv6=0, or use IPv4 ranges only")
    return None
