"""Why nobody has an address, and what would give it: by the configurations of the networks and by the leases. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import RANDOM, STABLE
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config.ipam import IpamConf
from cni_v6.leases.store import Past
from cni_v6.net.addresses import BITS, from_text, overlap, to_text

GATEWAY, RESERVED, EXCLUDED, WAITING, SPENT, FREE, OUTSIDE_RANGE, OUTSIDE = (
    "gateway", "reserved", "excluded", "waiting", "spent", "free", "outside the range", "outside every range"
)
REQUEST = 'a request for it (capability "ips", args.cni.ips or CNI_ARGS IP)'
Moment = Callable[[float], str]  # seconds since the epoch as text


@dataclass(frozen=True, slots=True)
class Reason:
    """Why nobody has an address as far as one network goes: one of the words above; ``why``; what would give it."""

    network: str
    kind: str
    why: str
    gives: str


def reason(conf: IpamConf, address: str, past: Past, now: float, moment: Moment) -> Reason:
    """Why nobody has an address.

    :param past: what the network's leases say of the address.
    :param now: seconds since the epoch.
    :param moment: a time as text.
    """
    family, value = from_text(address)
    of_family = [range_set for range_set in conf.sets if range_set.family == family]
    if any(value in ranges.gateways(range_set) for range_set in of_family):
        return Reason(conf.network, GATEWAY, "it is the gateway, which no container gets",
                      "another gateway in the range")
    if address in conf.reserved:
        who = conf.reserved[address]
        return Reason(conf.network, RESERVED, f"ipam.reserve keeps it for {who}", f"an ADD of {who}")
    for range_set in of_family:
        part = ranges.origin(range_set, family, value)
        if part and not ranges.contains(range_set, family, value):
            return Reason(conf.network, EXCLUDED, "ipam.exclude, or the node's own address there, leaves it out",
                          "taking it out of ipam.exclude")
        if part:
            return _of_set(conf, range_set, past, now, moment)
    for range_set in of_family:
        for part in range_set.written:
            if value >> BITS[family] - part.prefixlen == part.network >> BITS[family] - part.prefixlen:
                return Reason(conf.network, OUTSIDE_RANGE, _beside(part, value), "rangeStart and rangeEnd that have it")
    return Reason(conf.network, OUTSIDE, f"no range has it: {ranges.describe_all(conf.sets)}", "a range that has it")


def _beside(part: Range, value: int) -> str:
    subnet = ranges.subnet(part)
    if value == part.network:
        return f"it is the first address of {subnet}, which stands for the subnet itself"
    if part.family == 4 and value == part.network | (1 << 32 - part.prefixlen) - 1:
        return f"it is the broadcast address of {subnet}"
    first, last = (to_text(part.family, end) for end in (part.first, part.last))
    return f"it is in {subnet}, but outside its range from {first} to {last}"


def _of_set(conf: IpamConf, range_set: RangeSet, past: Past, now: float, moment: Moment) -> Reason:
    policy = conf.policy
    if policy.never_reuses(range_set):
        if past.used:
            why = "a container had it, and this set gives no address twice"
            return Reason(conf.network, SPENT, why, f"{REQUEST}, or \"reuse\": \"after\" in ipam")
    elif past.released is not None:
        until = past.released + policy.wait
        if until > now:
            why = f"it was released at {moment(past.released)}, and waits until {moment(until)} (ipam.reuseAfter)"
            return Reason(conf.network, WAITING, why, f"{REQUEST}; after that, an ADD whose turn it is")
        why = f"it is free since {moment(past.released)}"
        return Reason(conf.network, FREE, why, f"an ADD whose turn it is, or {REQUEST}")
    order = {RANDOM: "by lot", STABLE: "derived from the workload"}.get(policy.order, "in sequence")
    gives = f"an ADD, when its turn comes ({order}), or {REQUEST}"
    return Reason(conf.network, FREE, "it is free, and was not given yet", gives)


def of_prefix(conf: IpamConf, prefix: str) -> Reason:
    """Why nobody has an address of a prefix."""
    subnets = [ranges.subnet(part) for range_set in conf.sets for part in range_set.written]
    if any(overlap(subnet, prefix) for subnet in subnets):
        return Reason(conf.network, FREE, "no container has an address of it now", "an ADD, or a request (ipam.prefix)")
    where = ranges.describe_all(conf.sets)
    return Reason(conf.network, OUTSIDE, f"no range overlaps with it: {where}", "a range that does")
