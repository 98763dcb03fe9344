"""A routed network that was one of a bridge, while it still has containers there: both reach each other.

For a container on the bridge the whole prefix is on the link, so it asks there for the MAC of a routed one. The node
answers, and forwards: NDP proxy entries for IPv6, proxy ARP for IPv4, which answers for what the node has a route to
through another interface. The other way the node routes to the bridge.

Pure. Imported only while there is such a bridge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import GatewayAddress, Setting
from cni_v6.net.addresses import host_prefix, overlap, version
from cni_v6.plan import forwarding


def interfaces(draining: Iterable[GatewayAddress], addresses: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The node's interfaces where containers take these addresses for on-link, each with those.

    :param draining: gateways that the network had, which containers still use (``old_gateways.Memo``).
    """
    found: dict[str, dict[str, None]] = {}
    own = tuple(addresses)
    for anchor in draining:
        for address in own:
            if anchor.home != forwarding.LOOPBACK and overlap(host_prefix(address), anchor.prefix):
                found.setdefault(anchor.home, {})[address] = None
    return {home: tuple(there) for home, there in found.items()}


def questions(homes: Iterable[str]) -> tuple[Question, ...]:
    """The questions that ``steps`` needs answered."""
    return tuple(question for home in homes for question in forwarding.answering_questions(home))


def steps(homes: Mapping[str, tuple[str, ...]], seen: Snapshot) -> Iterator[Op]:
    """Answer there for a container, without the delay that is for several nodes that could (RFC 4861, section 7.2.8).

    :param homes: as of ``interfaces``.
    """
    for home, addresses in homes.items():
        for family in sorted({version(address) for address in addresses}):
            yield ops.SetSysctl(HOST, f"ipv{family}/neigh/{home}/proxy_delay", "0", precaution=True)
            yield from forwarding.answer(seen, home) if family == 6 else (
                ops.SetSysctl(HOST, f"ipv4/conf/{home}/proxy_arp", "1"),)
        yield from (ops.AddProxy(home, address) for address in addresses if version(address) == 6)


def settings(homes: Mapping[str, tuple[str, ...]]) -> Iterator[Setting]:
    """What ``steps`` changes there, to be given back once the last container that would ask is gone.

    NDP proxy entries go with their containers. Forwarding stays, as everywhere: others may count on it.
    """
    for home, addresses in homes.items():
        for family in sorted({version(address) for address in addresses}):
            yield Setting(home, f"proxy_delay{family}")
            yield from (Setting(home, "proxy_arp"),) if family == 4 else ()
