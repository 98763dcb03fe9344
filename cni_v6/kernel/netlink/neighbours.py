"""Neighbours that the node answers for: requests to rtnetlink, and what comes back."""

from __future__ import annotations

import struct

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import HEADER, Message, address, as_address, by_kind, u32
from cni_v6.kernel.netlink.uapi import (
    AF_INET6,
    NDA_DST,
    NDA_IFINDEX,
    NLM_F_CREATE,
    NTF_PROXY,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
)

NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type


def add_proxy(op: ops.AddProxy, index: int) -> Message:
    return _proxy(RTM_NEWNEIGH, NLM_F_CREATE, op.address, index)


def remove_proxy(op: ops.RemoveProxy, index: int) -> Message:
    return _proxy(RTM_DELNEIGH, 0, op.address, index)


def _proxy(kind: int, flags: int, ip: str, index: int) -> Message:
    return Message(kind, flags, NDMSG.pack(AF_INET6, index, NUD_PERMANENT, NTF_PROXY, 0) + address(NDA_DST, ip))


def get_proxies(index: int) -> Message:
    """A dump of those on the interface with this index.

    The index in the header must be 0 for a strict kernel (neigh_valid_dump_req, net/core/neighbour.c).
    """
    return Message(RTM_GETNEIGH, 0, NDMSG.pack(AF_INET6, 0, 0, NTF_PROXY, 0) + u32(NDA_IFINDEX, index))


def read_proxy(data: bytes) -> tuple[int, str]:
    """(interface index, address) of an RTM_NEWNEIGH message."""
    _, index, _, _, _ = NDMSG.unpack_from(data, HEADER.size)
    return index, as_address(by_kind(data, HEADER.size + NDMSG.size)[NDA_DST])
