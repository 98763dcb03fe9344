"""How long IPv6 addresses are preferred and valid: a request to rtnetlink, and what comes back."""

from __future__ import annotations

import struct

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.answers import read_address
from cni_v6.kernel.netlink.message import HEADER, Message, address, as_int, attribute, by_kind, u32
from cni_v6.kernel.netlink.requests import IFADDRMSG
from cni_v6.kernel.netlink.uapi import (
    AF_INET6,
    IFA_ADDRESS,
    IFA_CACHEINFO,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_TEMPORARY,
    IFA_FLAGS,
    IFA_LOCAL,
    NLM_F_REPLACE,
    RTM_GETADDR,
    RTM_NEWADDR,
)
from cni_v6.kernel.questions import FOREVER, Lifetime

CACHEINFO = struct.Struct("=IIII")  # preferred, valid, created, updated; the last two are the kernel's


def get_addresses(index: int) -> Message:
    """A dump of the IPv6 addresses of the interface with this index."""
    return Message(RTM_GETADDR, 0, IFADDRMSG.pack(AF_INET6, 0, 0, 0, index))


def set_preferred(op: ops.SetPreferred, index: int) -> Message:
    ip, _, length = op.address.partition("/")
    body = IFADDRMSG.pack(AF_INET6, int(length), 0, 0, index) + address(IFA_LOCAL, ip) + address(IFA_ADDRESS, ip)
    lifetimes = CACHEINFO.pack(FOREVER if op.preferred else 0, FOREVER, 0, 0)
    return Message(RTM_NEWADDR, NLM_F_REPLACE, body + u32(IFA_FLAGS, IFA_F_NODAD) + attribute(IFA_CACHEINFO, lifetimes))


def read_lifetime(data: bytes) -> tuple[int, Lifetime]:
    """(interface index, lifetime) of an RTM_NEWADDR message of IPv6."""
    index, text = read_address(data)
    given = by_kind(data, HEADER.size + IFADDRMSG.size)
    preferred, valid, _, _ = CACHEINFO.unpack_from(given[IFA_CACHEINFO])
    flags = as_int(given.get(IFA_FLAGS))
    return index, Lifetime(text, 0 if flags & IFA_F_DEPRECATED else preferred, valid, bool(flags & IFA_F_TEMPORARY))
