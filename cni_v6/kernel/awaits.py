"""The operations that change nothing, but wait until the kernel has done something, as values (``ops``).

Each wait is for an event and has a time limit (``wait``): the kernel's notification, or a state that was there already.
"""

from __future__ import annotations

from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class AwaitPort:
    """Wait until the kernel has enabled a bridge port, which it does some time after the peer has carrier."""

    ifname: str


@dataclass(frozen=True, slots=True)
class AwaitCarrier:
    """Wait until the kernel sends through an interface of the node, which it does some time after the peer is up.

    Until then it drops all that goes out there (dev_activate, net/sched/sch_generic.c), and at the peer, which comes
    first (linkwatch_run_queue, net/core/link_watch.c). A bridge has carrier once a port of it forwards.
    """

    ifname: str


@dataclass(frozen=True, slots=True)
class AwaitReception:
    """Wait until the kernel takes packets for IPv6 addresses of an interface, which it does some time after it was up.

    Without duplicate address detection too it is a work queue that adds the route to an address, and the group of its
    solicitations (addrconf_dad_work, net/ipv6/addrconf.c). A solicitation that comes before that has no answer, and the
    next one is sent a second later.
    """

    netns: str
    ifname: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AwaitAddresses:
    """Wait until duplicate address detection on an interface has ended; a duplicate address is an error."""

    netns: str
    ifname: str


@dataclass(frozen=True, slots=True)
class AwaitRouter:
    """Wait until an interface has a global IPv6 address that it may use, and a default route, from a router.

    CniError(TRY_AGAIN) names what is missing after so many seconds.
    """

    netns: str
    ifname: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitEnd:
    """Wait until an interface of the node is gone, after the namespace of its peer has ended; at most so long."""

    ifname: str
    seconds: float = 10.0


Await = AwaitPort | AwaitCarrier | AwaitReception | AwaitAddresses | AwaitRouter | AwaitEnd
