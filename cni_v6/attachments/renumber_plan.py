"""Chooses which address of the present prefix replaces which of an earlier prefix; see ``renumber``.

Runs under the lock of the leases, from the records and from the prefixes that the node's interfaces have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import STABLE
from cni_v6.allocation.ranges import RangeSet
from cni_v6.attachments import register
from cni_v6.attachments.context import Context
from cni_v6.config.interface_prefix import InterfaceRange
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import from_text, to_text
from cni_v6.plan import interface_prefix as plan_prefix
from cni_v6.plan.site import Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.result import Result
from cni_v6.values import dataclass


class MainPlugin(Protocol):
    """What differs between main plugins here; see ``plugins.main.MainPlugin``."""

    def load(self, call: Invocation, context: Context) -> Any: ...

    def questions(self, site: Site, conf: Any) -> Iterable[Question]: ...

    def network(self, site: Site, conf: Any, seen: Snapshot) -> register.Network: ...


@dataclass(frozen=True, slots=True)
class Network:
    """A network whose ranges follow a prefix. ``plugin``: the main plugin of its type.

    ``seen``: the snapshot of the interfaces that they follow."""

    call: Invocation
    plugin: MainPlugin
    conf: MainConf
    ipam: IpamConf
    seen: Snapshot

    def follows(self, range_set: RangeSet) -> tuple[InterfaceRange, ...]:
        """The followed ranges of a set."""
        subnets = [ranges.subnet(part) for part in range_set.written]
        return tuple(follow for follow in self.ipam.follows if follow.subnet in subnets)


@dataclass(frozen=True, slots=True)
class Renumbering:
    """A container's addresses of one set: of the present prefix ("" for none yet), and of earlier prefixes."""

    index: int
    present: str
    earlier: tuple[str, ...]


def promised(result: Result, conf: MainConf, record: Attachment | None) -> Result:
    """The result of an ADD without the addresses that renumbering has replaced since."""
    if record is None or not isinstance(conf.ipam, IpamConf) or not conf.ipam.follows:
        return result
    sets = conf.ipam.sets
    return replace(result, ips=tuple(
        ip for ip in result.ips
        if ip.family == 4 or ip.ip in record.addresses or any(_holds(range_set, ip.ip) for range_set in sets)
    ))


def words(renumberings: list[Renumbering], chosen: dict[int, str], expired: tuple[str, ...]) -> str:
    """What happens to a container, in words.

    :param chosen: the present address for each set's index.
    :param expired: addresses that are removed.
    """
    phrases = []
    for renumbering in renumberings:
        remaining = ", ".join(address for address in renumbering.earlier if address not in expired)
        if not renumbering.present:
            phrases.append(f"{remaining} -> {chosen[renumbering.index]}")
        elif remaining:
            phrases.append(f"{renumbering.present} beside {remaining}")
    return "; ".join([*phrases, *([f"dropped {', '.join(expired)}"] if expired else [])])


def renumberings(network: Network, record: Attachment) -> Iterator[Renumbering]:
    """The present and the earlier addresses of a container, for each set that follows a prefix."""
    ipv6_addresses = [address for address in record.addresses if ":" in address]
    outside = [
        address for address in ipv6_addresses if not any(_holds(range_set, address) for range_set in network.ipam.sets)
    ]
    for index, range_set in enumerate(network.ipam.sets):
        follows = network.follows(range_set)
        if follows:
            present = next((address for address in ipv6_addresses if _holds(range_set, address)), "")
            earlier = tuple(
                address for address in outside if any(_is_of(network, address, follow) for follow in follows)
            )
            outside = [address for address in outside if address not in earlier]
            yield Renumbering(index, present, earlier)


def _holds(range_set: RangeSet, address: str) -> bool:
    return ranges.origin(range_set, *from_text(address)) is not None


def _is_of(network: Network, address: str, follow: InterfaceRange) -> bool:
    """Whether an address belongs to the subnet with the same number in an earlier prefix.

    If the network has one IPv6 set, the address can only be of that one. With several sets the subnet id decides, by
    its lowest bits: the length of the earlier prefix is no longer known.
    """
    if sum(range_set.family == 6 for range_set in network.ipam.sets) == 1:
        return True
    bits = max(4, follow.subnet_id.bit_length())
    return from_text(address)[1] >> 128 - follow.length & (1 << bits) - 1 == follow.subnet_id


def is_over(network: Network, renumbering: Renumbering, address: str) -> bool:
    """Whether no followed interface has the prefix of an address any more."""
    follows = network.follows(network.ipam.sets[renumbering.index])
    return not any(plan_prefix.still_there(address, follow.interface, network.seen) for follow in follows)


def choose(network: Network, renumbering: Renumbering, record: Attachment, leases: Transaction, *, dry: bool) -> str:
    """Choose an address of the present prefix: with the host part of the earlier one, if that address is free."""
    range_set, policy = network.ipam.sets[renumbering.index], replace(network.ipam.policy, identity=record.identity)
    follow = network.follows(range_set)[0]
    subnet, _, _ = follow.subnet.partition("/")
    host_part = from_text(renumbering.earlier[0])[1] & (1 << 128 - follow.length) - 1
    value = from_text(subnet)[1] | host_part
    address = to_text(6, value)
    is_unused = leases.holder(address) is None and leases.delegated(address) is None
    is_free = is_unused and ranges.contains(range_set, 6, value)
    if is_free and policy.order != STABLE and not (policy.never_reuses(range_set) and leases.was_used(address)):
        return address
    return f"an address of {follow.subnet}" if dry else leases.choose(renumbering.index, range_set, policy)
