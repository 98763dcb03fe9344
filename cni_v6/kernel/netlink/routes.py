"""Requests to rtnetlink about routes of which the destination is all there is to know."""

from __future__ import annotations

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import Message, address, u32
from cni_v6.kernel.netlink.requests import NEW, RTMSG
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_OIF,
    RTA_PRIORITY,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_UNREACHABLE,
    RTPROT_STATIC,
)

LAST_RESORT = 2**32 - 1  # the metric that all others go before


def remove_route(op: ops.RemoveRoute, index: int) -> Message:
    """Neither a next hop nor a metric is named: they may be any."""
    return Message(RTM_DELROUTE, 0, _route(op.dst, 0) + u32(RTA_OIF, index))


def add_unreachable(op: ops.AddUnreachable) -> Message:
    """The kernel puts it on the loopback interface, which need not be up (fib6_nh_init, net/ipv6/route.c)."""
    return Message(RTM_NEWROUTE, NEW, _route(op.dst, RTN_UNREACHABLE) + u32(RTA_PRIORITY, LAST_RESORT))


def _route(dst: str, kind: int) -> bytes:
    """The header of a message about a static route of the main table, and its destination."""
    network, _, length = dst.partition("/")
    family, scope = (AF_INET6, RT_SCOPE_UNIVERSE) if ":" in network else (AF_INET, RT_SCOPE_LINK)
    header = RTMSG.pack(family, int(length), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, kind, 0)
    return header + address(RTA_DST, network)
