"""Read the ``ipam`` object for our own allocation: sets of ranges, routes, requested addresses.

It behaves as the reference ``host-local`` (backend/allocator: config.go, range.go, range_set.go). Three things that the
reference accepts are not accepted here: a gateway outside its subnet; a network or broadcast address at the end of a
range; the older keys (``rangeStart``, ``rangeEnd``, ``gateway``) without ``subnet``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import NamedTuple

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import DEFAULT, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config import (
    allocation,
    families,
    interface_prefix,
    prefix_delegation,
    ranges as config_ranges,
    requested,
    reservations,
    workload,
)
from cni_v6.config.interface_prefix import InterfacePrefixes, InterfaceRange
from cni_v6.config.ranges import Exclusion
from cni_v6.config.reader import Section, wrong
from cni_v6.config.requested import Source
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.log import Log
from cni_v6.net import intervals
from cni_v6.net.addresses import from_text
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.result import Route
from cni_v6.values import dataclass

_ONE_PER_FAMILY = ("0.1.0", "0.2.0")  # their result has room for one address of each family


@dataclass(frozen=True, slots=True)
class IpamConf:
    """Configuration of our own allocation (``cni-v6-ipam``, ``host-local``).

    ``requested``: addresses asked for (CNI_ARGS IP, args.cni.ips, runtimeConfig.ips), canonical, without prefix length.
    ``resolv_conf``: path of the file with the name servers, "" for none. ``secret_file``: path of the file with the
    secret of stable addresses, "" for none. ``reserved``: address -> the workload that it is reserved for.
    ``optional``: families that a container may go without. ``delegation``: the prefix that the container is to get.
    ``follows``: the ranges that follow an interface's prefix. Before that prefix is known, only ``network``,
    ``data_dir`` and ``follows`` are filled.
    """

    network: str
    data_dir: str
    sets: tuple[RangeSet, ...]
    routes: tuple[Route, ...]
    requested: tuple[str, ...]
    resolv_conf: str
    policy: AllocationPolicy = DEFAULT
    secret_file: str = ""
    reserved: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[int] = frozenset()
    delegation: prefix_delegation.PrefixRequest | None = None
    follows: tuple[InterfaceRange, ...] = ()


class _Place(NamedTuple):
    """A range, the path of its object, and the number of its set."""

    number: int
    path: str
    range: Range


def build(source: Source, network: str, version: str, log: Log) -> IpamConf:
    """Read the whole object, and check its keys against each other.

    :raises CniError: INVALID_CONFIG, or INVALID_ENVIRONMENT for an address that came by CNI_ARGS.
    """
    groups = list(_all_groups(source))
    follows = tuple(found for _, group in groups for section in group if (found := interface_prefix.read(section)))
    if follows and source.prefixes is None:
        return IpamConf(network, source.ipam.text("dataDir"), (), (), (), "", follows=follows)
    prefixes = source.prefixes or {}
    places = list(_places(groups, log, prefixes))
    if not places:
        raise CniError(
            INVALID_CONFIG, f"{source.ipam.at('ranges')}: no range to allocate from",
            'write at least one, such as "ranges": [[{"subnet": "fd42:1:2:3::/64"}]]',
        )
    _refuse_overlaps(places)
    excluded = config_ranges.read_exclusions(source.ipam)
    own = config_ranges.own_addresses(follows, prefixes)
    reserved = reservations.read(source.ipam, excluded)
    sets = tuple(_sets(places, (*excluded, *own, *(reservation.exclusion for reservation in reserved))))
    config_ranges.warn_of_idle(excluded, sets, log)
    reservations.check(reserved, sets)
    _refuse_too_many(sets, version)
    _refuse_stray_gateways(places, sets)
    policy = allocation.read(source.ipam)
    return IpamConf(
        network=network,
        data_dir=source.ipam.text("dataDir"),
        sets=sets,
        routes=tuple(_routes(source.ipam.sections("routes"), sets, log)),
        requested=requested.read(source, sets, (*excluded, *own), log),
        resolv_conf=source.ipam.text("resolvConf"),
        policy=policy,
        secret_file=source.ipam.text("secretFile"),
        reserved={reservation.text: reservation.identity for reservation in reserved},
        optional=families.optional(source.ipam, sets),
        delegation=prefix_delegation.read((source.runtime, source.args, source.ipam), sets, policy),
        follows=tuple(replace(follow, subnet=interface_prefix.subnet(follow, prefixes)) for follow in follows),
    )


def for_workload(conf: IpamConf, call: Invocation) -> IpamConf:
    """Add what depends on the workload of an ADD: its reserved addresses, and the identity of its stable address.

    It is not part of ``build``, whose result is kept for all workloads of a network.

    :raises CniError: ADDRESS_UNAVAILABLE where another workload's address is requested.
    """
    if call.command != "ADD":  # CHECK has the request of the ADD, and the reservation may have changed since
        return conf
    who = workload.of(call)
    if conf.policy.order == STABLE:
        conf = replace(conf, policy=replace(conf.policy, identity=f"{who} {call.ifname}"))
    if conf.reserved:
        conf = replace(conf, requested=reservations.reserved_for(conf.reserved, conf.sets, conf.requested, who))
    return conf


def _all_groups(source: Source) -> Iterator[tuple[str, tuple[Section, ...]]]:
    """Every set, in the reference's order: the runtime's, the older form with one range, ``ranges``."""
    yield from (*_groups(source.runtime, "ipRanges"), *_single(source.ipam), *_groups(source.ipam, "ranges"))


def _places(
    groups: Iterable[tuple[str, tuple[Section, ...]]], log: Log, prefixes: InterfacePrefixes
) -> Iterator[_Place]:
    for number, (path, group) in enumerate(groups):
        if not group:
            raise wrong(path, [], "is an empty range set", "write a range into it, or remove it")
        for section in group:
            yield _Place(number, section.path, config_ranges.read(section, log, prefixes))


def _groups(section: Section, name: str) -> Iterator[tuple[str, tuple[Section, ...]]]:
    for at, group in enumerate(section.groups(name)):
        yield f"{section.at(name)}[{at}]", group


def _single(ipam: Section) -> Iterator[tuple[str, tuple[Section, ...]]]:
    if ipam.text("subnet"):
        yield ipam.path, (ipam,)
        return
    for name in ("rangeStart", "rangeEnd", "gateway"):
        if ipam.text(name):
            raise wrong(
                ipam.at(name), ipam.text(name), "has no effect: there is no subnet beside it",
                f"write it into the range in {ipam.at('ranges')} that it is for",
            )


def _refuse_overlaps(places: Iterable[_Place]) -> None:
    """Sorted by first address, ranges overlap only where two neighbours do."""
    ordered = sorted(places, key=lambda place: (place.range.family, place.range.first))
    for lower, upper in zip(ordered, ordered[1:]):
        if lower.range.family != upper.range.family or lower.range.last < upper.range.first:
            continue
        place, other = sorted((lower, upper))
        what = f"{ranges.subnet(place.range)} and {ranges.subnet(other.range)}"
        if place.number == other.number:
            message = f"{other.path}: subnets {what} overlap in one set"
        else:
            message = f"{other.path}: range set {place.number} overlaps with {other.number} ({what})"
        raise CniError(INVALID_CONFIG, message, f"give it addresses that {place.path} does not have")


def _sets(places: Iterable[_Place], excluded: Sequence[Exclusion]) -> Iterator[RangeSet]:
    grouped: dict[int, list[_Place]] = {}
    for place in places:
        grouped.setdefault(place.number, []).append(place)
    for group in grouped.values():
        if len({place.range.family for place in group}) > 1:
            where = ", ".join(f"{place.path} {ranges.subnet(place.range)}" for place in group)
            raise CniError(
                INVALID_CONFIG, f"mixed address families in one range set: {where}", "write a set for each family",
            )
        full = RangeSet(tuple(place.range for place in group))
        if not ranges.size(full):
            raise wrong(group[0].path, {}, "has no address besides its gateway", "widen rangeStart or rangeEnd")
        yield config_ranges.subtract(full, excluded, group[0].path)


def _refuse_too_many(sets: tuple[RangeSet, ...], version: str) -> None:
    if version not in _ONE_PER_FAMILY:
        return
    for family in (4, 6):
        count = sum(range_set.family == family for range_set in sets)
        if count > 1:
            raise CniError(
                INVALID_CONFIG,
                f"ipam.ranges: {count} range sets of IPv{family}, but CNI version {version} does not support more "
                "than 1 address per family", "set cniVersion to 0.3.0 or later, or put the ranges into one set",
            )


def _refuse_stray_gateways(places: Iterable[_Place], sets: tuple[RangeSet, ...]) -> None:
    """Refuse a gateway that another set would hand out."""
    skipped = [ranges.gateways(range_set) for range_set in sets]
    for family in (4, 6):
        ordered = sorted(_of_family(places, family), key=lambda place: place.range.first)
        spans = [(place.range.first, place.range.last) for place in ordered]
        for place in ordered:
            gateway = from_text(place.range.gateway)[1]
            at = intervals.locate(spans, gateway)
            if at is None or gateway in skipped[ordered[at].number]:
                continue
            if ranges.contains(sets[ordered[at].number], family, gateway):  # it is not excluded there
                raise wrong(
                    f"{place.path}.gateway", place.range.gateway, f"would be handed out by {ordered[at].path}",
                    "write the same gateway there",
                )


def _of_family(places: Iterable[_Place], family: int) -> Iterator[_Place]:
    return (place for place in places if place.range.family == family)


def _routes(sections: Iterable[Section], sets: tuple[RangeSet, ...], log: Log) -> Iterator[Route]:
    """The routes of families that the network has. A template for both families may serve a network of one."""
    present = {range_set.family for range_set in sets}
    for section in sections:
        route = _route(section, log)
        if route.family in present:
            yield route
        else:
            log.warning(f"{section.at('dst')}: {route.dst} is left out: it is IPv{route.family}, and no range is")


def _route(section: Section, log: Log) -> Route:
    dst, gateway = section.text("dst"), section.text("gw")
    masked = canonical_prefix(dst, host_bits=False) or dst
    if masked != dst:
        log.warning(f"{section.at('dst')}: {dst} has host bits set: taken as {masked}")
    if gateway and (":" in gateway) != (":" in dst):
        raise wrong(section.at("gw"), gateway, f"is not of the family of dst {dst}", "write an address of its family")
    return Route(
        dst=masked, gw=gateway or None, table=section.number("table"), scope=section.number("scope"),
        # The reference cannot tell 0 from absent here either: its result leaves both out.
        mtu=section.number("mtu") or None, advmss=section.number("advmss") or None,
        priority=section.number("priority") or None,
    )
