"""Addresses for an attachment: chosen, leased and recorded, all or none; what CHECK and STATUS ask of leases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.attachments import earlier, register, stale
from cni_v6.attachments.context import Context
from cni_v6.config import allocation as config_allocation
from cni_v6.config.ipam import IpamConf
from cni_v6.config.resolv_conf import parse as parse_resolv_conf
from cni_v6.errors import (
    ADDRESS_UNAVAILABLE,
    ADDRESSES_EXHAUSTED,
    ALREADY_ATTACHED,
    CHECK_FAILED,
    IO_FAILURE,
    NOT_AVAILABLE,
    CniError,
)
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Leases, Transaction
from cni_v6.log import Log
from cni_v6.net.addresses import from_text, overlap, version
from cni_v6.plan.site import Allocation, RoutedPrefix
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns


def _record(record: Attachment, leases: Transaction) -> None:
    leases.put(record)


def allocate(
    conf: IpamConf, draft: Attachment, context: Context, log: Log,
    admit: Callable[[Attachment, Transaction], None] = _record, lost: Mapping[int, CniError] = MappingProxyType({}),
) -> Allocation:
    """Lease an address of each set, all or none, and record the attachment.

    :param draft: the attachment without its addresses.
    :param admit: records it in the lease's place, and does what has to be done under the same lock.
    :param lost: families that the container goes without, and why; all of ``conf.optional``.
    """
    dns = _dns(conf, context)
    conf = with_secret(conf, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        _refuse_second(draft.owner, leases, context, log)
        chosen = _choose(conf, leases, context, log, lost)
        given = _delegate(conf, chosen, leases)
        prefixes = tuple(each.prefix for each in given)
        addresses, ways = tuple(text for _, text in chosen), tuple(conf.policy.reuse_mode(each) for each, _ in chosen)
        record = replace(draft, addresses=addresses, prefixes=prefixes, reuse=ways, identity=conf.policy.identity)
        admit(record, leases)
    ips = tuple(_address(each, text) for each, text in chosen)
    present = {ip.family for ip in ips}
    return Allocation(ips, tuple(route for route in conf.routes if route.family in present), dns, given)


def _choose(
    conf: IpamConf, leases: Transaction, context: Context, log: Log, lost: Mapping[int, CniError]
) -> list[tuple[RangeSet, str]]:
    """An address of each set, but for the families that the container goes without: the lost ones, and those of a set
    without a free address where they are not required."""
    lost = dict(lost)
    chosen = []
    for index, each in enumerate(conf.sets):
        if each.family in lost:
            continue
        try:
            chosen.append((each, _pick(conf, index, each, leases, context, log)))
        except CniError as error:
            if error.code != ADDRESSES_EXHAUSTED or each.family not in conf.optional:
                raise
            lost[each.family] = error
    for remark in leases.remarks:
        log.warning(remark)
    leases.remarks.clear()
    for family, why in lost.items():
        what = "its addresses, routes and published ports"
        log.warning(f"attached without IPv{family} ({what}), which ipam.required does not name: {why}")
    return [(each, text) for each, text in chosen if each.family not in lost]


def _delegate(conf: IpamConf, chosen: list[tuple[RangeSet, str]], leases: Transaction) -> tuple[RoutedPrefix, ...]:
    """The prefix that the container is to have; none where it goes without the family.

    What the container itself has asked for is not the store's knowledge yet; a prefix that is passed over is spent.
    """
    wanted = conf.delegation
    found = [(each, text) for each, text in chosen if wanted and each is conf.sets[wanted.index]]
    if wanted is None or not found:
        return ()
    [(source, via)] = found
    while True:
        prefix = leases.choose_prefix(wanted.index, source, wanted.length)
        if not any(overlap(f"{text}/128", prefix) for text in conf.requested if ":" in text):
            return (RoutedPrefix(prefix, _address(source, via)),)


def check_leases(conf: IpamConf, owner: Owner, expected: tuple[Address, ...], record: Attachment | None) -> None:
    """Compare what the owner holds with the sets and with the addresses of a result.

    :param record: what the owner holds. An address that was excluded since, or reserved for another, is its own until
        its DEL, and counts as one of its set. Of a family that is not required it may hold nothing, and of ranges that
        the network has no more what it was given of them.
    :raises CniError: CHECK_FAILED naming each difference.
    """
    held = record.addresses if record else ()
    found = [any(_range_of(each, text) for text in held) for each in conf.sets]
    without = conf.optional - {each.family for each, is_found in zip(conf.sets, found) if is_found}
    earlier = {version(text) for text in held if not any(_range_of(each, text) for each in conf.sets)}
    differences = [f"no address leased from set {number}" for number, each in enumerate(conf.sets)
                   if not found[number] and each.family not in without | earlier]
    for ip in expected:
        if ip.ip not in held and any(_range_of(each, ip.ip) for each in conf.sets):
            differences.append(f"{ip.ip} is not leased to {owner.container_id}/{owner.ifname}")
    if differences:
        remedy = "run DEL and ADD for the container again"
        raise CniError(CHECK_FAILED, f"leases of {conf.network}: {'; '.join(differences)}", remedy)


def check_capacity(conf: IpamConf, store: Leases) -> None:
    """Every set of a required family has an address to give.

    :raises CniError: NOT_AVAILABLE naming the set and the numbers.
    """
    with store.transaction() as leases:
        for index, each in enumerate(conf.sets):
            why = leases.shortage(index, each, conf.policy) if each.family not in conf.optional else None
            if why:
                raise CniError(NOT_AVAILABLE, f"ipam.ranges[{index}] of {conf.network} is exhausted: {why.msg}",
                               why.details)


def _refuse_second(owner: Owner, leases: Transaction, context: Context, log: Log) -> None:
    """Before the cursor moves: an owner that holds addresses already would only waste one.

    What one of its name has left that has ended is freed (``earlier``). A record that holds none is what the reference
    plugin's DEL has left of it: it frees leases, and knows no records.
    """
    record = leases.get(owner)
    if record and record.addresses and not earlier.release(owner, leases, context, log):
        words = f"container {owner.container_id} has {', '.join(record.addresses)} already"
        raise CniError(ALREADY_ATTACHED, f"{words} on network {owner.network} ({owner.ifname})", "run DEL for it first")
    if record and not record.addresses:
        register.release(record, leases, context)


def _pick(conf: IpamConf, index: int, each: RangeSet, leases: Transaction, context: Context, log: Log) -> str:
    """An address of a set. What containers have left that ended without a DEL is looked for where there is no other
    way: nothing of it costs an ADD that finds an address."""
    for text in conf.requested:
        if _range_of(each, text):
            _refuse_delegated(text, leases)
            if leases.holder(text) is not None:
                stale.reclaim(leases, context, log)
            return text
    try:
        return leases.choose(index, each, conf.policy)
    except CniError as error:
        dry = error.code == ADDRESSES_EXHAUSTED and not conf.policy.never_reuses(each)
        if not dry or not stale.reclaim(leases, context, log):
            raise
    return leases.choose(index, each, conf.policy)


def _refuse_delegated(text: str, leases: Transaction) -> None:
    holder = leases.delegated(text)
    if holder is not None:
        words = f"address {text} lies in a prefix that was given to {holder}"
        raise CniError(ADDRESS_UNAVAILABLE, words, "ask for another address, or run DEL for that container")


def _range_of(each: RangeSet, text: str) -> Range | None:
    return ranges.origin(each, *from_text(text))


def _address(each: RangeSet, text: str) -> Address:
    part = _range_of(each, text) or each.written[0]
    return Address(f"{text}/{part.prefixlen}", part.gateway)


def _dns(conf: IpamConf, context: Context) -> Dns:
    return parse_resolv_conf(_read("resolvConf", conf.resolv_conf, context)) if conf.resolv_conf else Dns()


def with_secret(conf: IpamConf, context: Context) -> IpamConf:
    """The configuration with the secret that stable addresses are derived with."""
    if not conf.secret_file:
        return conf
    found = config_allocation.secret(conf.secret_file, _read("secretFile", conf.secret_file, context))
    return replace(conf, policy=replace(conf.policy, secret=found))


def _read(key: str, path: str, context: Context) -> str:
    try:
        return context.read_file(path)
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", str(error)) from error
    except UnicodeDecodeError:  # which says what is in it
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", "it is not UTF-8: write it as text") from None
