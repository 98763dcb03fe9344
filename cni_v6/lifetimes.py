"""How long IPv6 addresses are good for (RFC 4862, section 5.5.4): what can be asked and done about it, as values."""

from __future__ import annotations

from dataclasses import dataclass

FOREVER = 0xFFFF_FFFF  # net/addrconf.h, INFINITY_LIFE_TIME: a lifetime in seconds that has no end


@dataclass(frozen=True, slots=True)
class Lifetime:
    """An IPv6 address, ``ip/prefixlen``; seconds that it stays preferred (0: it is deprecated) and valid, or FOREVER.

    ``temporary``: one of those that change by themselves (RFC 8981).
    """

    address: str
    preferred: int = FOREVER
    valid: int = FOREVER
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class GetLifetimes:
    """-> tuple[Lifetime, ...]: every IPv6 address of an interface; () when there is no such interface"""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class SetPreferred:
    """Whether an IPv6 address, ``ip/prefixlen``, is one to call from, or deprecated.

    The kernel adds one that is not there (inet6_rtm_newaddr, net/ipv6/addrconf.c).
    """

    netns: str
    ifname: str
    address: str
    preferred: bool
