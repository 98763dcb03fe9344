"""Which address of the present prefix follows which of an earlier one; see ``renumber``.

Decided under the lock of the leases, by what they hold and what the node's interfaces have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import STABLE
from cni_v6.allocation.ranges import RangeSet
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.interface_prefix import InterfaceRange
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.kernel.questions import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import from_text, to_text
from cni_v6.plan import interface_prefix as plan_prefix
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.result import Result


@dataclass(frozen=True, slots=True)
class Network:
    """A network whose ranges follow a prefix, as it is now. ``seen``: of the interfaces that they follow."""

    call: Invocation
    conf: BridgeConf
    ipam: IpamConf
    seen: Snapshot

    def follows(self, addresses: RangeSet) -> tuple[InterfaceRange, ...]:
        """The followed ranges of a set."""
        subnets = [ranges.subnet(part) for part in addresses.written]
        return tuple(each for each in self.ipam.follows if each.subnet in subnets)


@dataclass(frozen=True, slots=True)
class Renumbering:
    """A container's addresses in one set: its present one, "" for none yet, and those of earlier prefixes."""

    index: int
    present: str
    earlier: tuple[str, ...]


def promised(result: Result, conf: MainConf, record: Attachment | None) -> Result:
    """What is left of an ADD's result: without addresses that another one has followed since."""
    if record is None or not isinstance(conf.ipam, IpamConf) or not conf.ipam.follows:
        return result
    sets = conf.ipam.sets
    return replace(result, ips=tuple(
        ip for ip in result.ips
        if ip.family == 4 or ip.ip in record.addresses or any(_holds(each, ip.ip) for each in sets)
    ))


def words(turns: list[Renumbering], given: dict[int, str], over: tuple[str, ...]) -> str:
    """What happens to a container, for people.

    :param given: of each set's index, its present address.
    :param over: addresses that go.
    """
    said = []
    for turn in turns:
        left = ", ".join(each for each in turn.earlier if each not in over)
        if not turn.present:
            said.append(f"{left} -> {given[turn.index]}")
        elif left:
            said.append(f"{turn.present} beside {left}")
    return "; ".join([*said, *([f"dropped {', '.join(over)}"] if over else [])])


def renumberings(network: Network, record: Attachment) -> Iterator[Renumbering]:
    """Of each set that follows a prefix."""
    own = [each for each in record.addresses if ":" in each]
    astray = [each for each in own if not any(_holds(one, each) for one in network.ipam.sets)]
    for index, one in enumerate(network.ipam.sets):
        follows = network.follows(one)
        if follows:
            present = next((each for each in own if _holds(one, each)), "")
            earlier = tuple(each for each in astray if any(_is_of(network, each, follow) for follow in follows))
            astray = [each for each in astray if each not in earlier]
            yield Renumbering(index, present, earlier)


def _holds(one: RangeSet, address: str) -> bool:
    return ranges.origin(one, *from_text(address)) is not None


def _is_of(network: Network, address: str, follow: InterfaceRange) -> bool:
    """Whether an address is of an earlier prefix's subnet of the same number.

    Where the network has one IPv6 set it is of no other; the earlier prefix's length is not known any more.
    """
    if sum(one.family == 6 for one in network.ipam.sets) == 1:
        return True
    bits = max(4, follow.subnet_id.bit_length())
    return from_text(address)[1] >> 128 - follow.length & (1 << bits) - 1 == follow.subnet_id


def is_over(network: Network, turn: Renumbering, address: str) -> bool:
    """Whether no interface that the set follows has anything of an address's prefix left."""
    follows = network.follows(network.ipam.sets[turn.index])
    return not any(plan_prefix.still_there(address, each.interface, network.seen) for each in follows)


def choose(network: Network, turn: Renumbering, record: Attachment, leases: Transaction, *, dry: bool) -> str:
    """An address of the present prefix: with the host's part of the earlier one, where nobody has or had that."""
    one, policy = network.ipam.sets[turn.index], replace(network.ipam.policy, identity=record.identity)
    follow = network.follows(one)[0]
    subnet, _, _ = follow.subnet.partition("/")
    host = from_text(turn.earlier[0])[1] & (1 << 128 - follow.length) - 1
    value = from_text(subnet)[1] | host
    text = to_text(6, value)
    is_free = ranges.contains(one, 6, value) and leases.holder(text) is None and leases.delegated(text) is None
    if is_free and policy.order != STABLE and not (policy.never_reuses(one) and leases.was_used(text)):
        return text
    return f"an address of {follow.subnet}" if dry else leases.choose(turn.index, one, policy)
