"""Allocates the addresses of an attachment, all or none; checks leases for CHECK and STATUS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

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
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Dns, from_json


_T = TypeVar("_T")


def _record(record: Attachment, leases: Transaction) -> None:
    leases.put(record)


def allocate(
    conf: IpamConf, attachment: Attachment, context: Context, log: Log,
    record_it: Callable[[Attachment, Transaction], None] = _record, lost: Mapping[int, CniError] = MappingProxyType({}),
    first: Callable[[Transaction], None] = lambda _: None,
) -> Allocation:
    """Lease an address of each set, all or none, and record the attachment.

    :param attachment: the record without addresses.
    :param record_it: records the attachment under the lock of the leases; may do more under that lock.
    :param first: called under that lock before an address is chosen; may refuse the ADD.
    :param lost: families that the container does not get, and why; all of them are in ``conf.optional``.
    """
    dns = _dns(conf, context)
    conf = with_secret(conf, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        _refuse_second(attachment.owner, leases, context, log)
        first(leases)
        chosen = _choose(conf, leases, context, log, lost)
        delegated = _delegate(conf, chosen, leases)
        record = replace(
            attachment,
            addresses=tuple(address for _, address in chosen),
            prefixes=tuple(routed.prefix for routed in delegated),
            reuse=tuple(conf.policy.reuse_mode(range_set) for range_set, _ in chosen),
            identity=conf.policy.identity,
        )
        record_it(record, leases)
    ips = tuple(_address(range_set, address) for range_set, address in chosen)
    present = {ip.family for ip in ips}
    return Allocation(ips, tuple(route for route in conf.routes if route.family in present), dns, delegated)


def of_delegate(call: Invocation, plugin: str, context: Context) -> Allocation:
    """The addresses that another IPAM plugin allocates, and those of its routes that the container can have.

    :raises CniError: IO_FAILURE if there is no address, DECODING_FAILURE, or the plugin's own.
    """
    result = from_json(context.delegate(call, plugin, "ADD"), call.version)
    if not result.ips:
        raise CniError(IO_FAILURE, f"ipam.type: plugin {plugin} gave no address", "see its configuration")
    present = {ip.family for ip in result.ips}
    for route in result.routes:
        if route.family not in present:
            lacks = f"the container has no IPv{route.family} address"
            call.log.warning(f"route {route.dst} of plugin {plugin} is left out: {lacks}")
    routes = tuple(route for route in result.routes if route.family in present)
    return Allocation(tuple(replace(ip, interface=None) for ip in result.ips), routes, result.dns)


def _choose(
    conf: IpamConf, leases: Transaction, context: Context, log: Log, lost: Mapping[int, CniError]
) -> list[tuple[RangeSet, str]]:
    """Choose an address of each set.

    Sets of lost families are left out, and so are those of an optional family if one of its sets has no free address.
    """
    lost = dict(lost)
    chosen = []
    for index, range_set in enumerate(conf.sets):
        if range_set.family in lost:
            continue
        try:
            chosen.append((range_set, _pick(conf, index, range_set, leases, context, log)))
        except CniError as error:
            if error.code != ADDRESSES_EXHAUSTED or range_set.family not in conf.optional:
                raise
            lost[range_set.family] = error
    for remark in leases.remarks:
        log.warning(remark)
    leases.remarks.clear()
    for family, why in lost.items():
        what = "its addresses, routes and published ports"
        log.warning(f"attached without IPv{family} ({what}), which ipam.required does not name: {why}")
    return [(range_set, address) for range_set, address in chosen if range_set.family not in lost]


def _delegate(conf: IpamConf, chosen: list[tuple[RangeSet, str]], leases: Transaction) -> tuple[RoutedPrefix, ...]:
    """Choose the prefix to delegate to the container; () if it does not get the family.

    The store does not know the addresses that this container requests, so a prefix that contains one of them is
    skipped. A skipped prefix counts as used.
    """
    request = conf.delegation
    found = [(range_set, address) for range_set, address in chosen if request and range_set is conf.sets[request.index]]
    if request is None or not found:
        return ()
    [(range_set, via)] = found
    while True:
        prefix = leases.choose_prefix(request.index, range_set, request.length)
        if not any(overlap(f"{address}/128", prefix) for address in conf.requested if ":" in address):
            return (RoutedPrefix(prefix, _address(range_set, via)),)


def check_leases(conf: IpamConf, owner: Owner, expected: tuple[Address, ...], record: Attachment | None) -> None:
    """Compare the owner's addresses with the sets and with the addresses of a result.

    :param record: the owner's record. An address that was excluded or reserved for another container since the ADD
        stays the owner's until its DEL, and counts as an address of its set. The owner may have no address of an
        optional family. It may have addresses of ranges that the network had earlier.
    :raises CniError: CHECK_FAILED naming each difference.
    """
    leased = record.addresses if record else ()
    found = [any(_range_of(range_set, address) for address in leased) for range_set in conf.sets]
    without = conf.optional - {range_set.family for range_set, is_found in zip(conf.sets, found) if is_found}
    earlier = {version(address) for address in leased if not any(_range_of(known, address) for known in conf.sets)}
    differences = [f"no address leased from set {number}" for number, range_set in enumerate(conf.sets)
                   if not found[number] and range_set.family not in without | earlier]
    for ip in expected:
        if ip.ip not in leased and any(_range_of(range_set, ip.ip) for range_set in conf.sets):
            differences.append(f"{ip.ip} is not leased to {owner.container_id}/{owner.ifname}")
    if differences:
        remedy = "run DEL and ADD for the container again"
        raise CniError(CHECK_FAILED, f"leases of {conf.network}: {'; '.join(differences)}", remedy)


def check_ready(conf: IpamConf, context: Context) -> None:
    """Check all that ``allocate`` needs: files of the configuration, a store that takes records, free addresses.

    :raises CniError: IO_FAILURE, STORE_FAILED, NOT_AVAILABLE.
    """
    conf = with_files(conf, context)
    store = context.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        leases.rehearse()
    check_capacity(conf, store)


def with_files(conf: IpamConf, context: Context) -> IpamConf:
    """The configuration with what its files say: ``secretFile``. ``resolvConf`` is only checked.

    :raises CniError: IO_FAILURE, NOT_AVAILABLE.
    """
    _dns(conf, context)
    return with_secret(conf, context)


def check_capacity(conf: IpamConf, store: Leases) -> None:
    """Check that every set of a required family has a free address.

    :raises CniError: NOT_AVAILABLE naming the set and the numbers.
    """
    with store.transaction() as leases:
        for index, range_set in enumerate(conf.sets):
            why = leases.shortage(index, range_set, conf.policy) if range_set.family not in conf.optional else None
            if why:
                raise CniError(NOT_AVAILABLE, f"ipam.ranges[{index}] of {conf.network} is exhausted: {why.msg}",
                               why.details)


def _refuse_second(owner: Owner, leases: Transaction, context: Context, log: Log) -> None:
    """Refuse a second ADD of an owner, before an address is chosen: none is used up for it.

    If the earlier container of that id has provably ended, its record is released (``earlier``). A record without
    addresses is left over from a DEL by the reference plugin, which frees leases and knows no records.
    """
    record = leases.get(owner)
    if record and record.addresses and not earlier.release(owner, leases, context, log):
        words = f"container {owner.container_id} has {', '.join(record.addresses)} already"
        raise CniError(ALREADY_ATTACHED, f"{words} on network {owner.network} ({owner.ifname})", "run DEL for it first")
    if record and not record.addresses:
        register.release(record, leases, context)


def _pick(conf: IpamConf, index: int, range_set: RangeSet, leases: Transaction, context: Context, log: Log) -> str:
    """Choose an address of a set: a requested one if it lies in the set, else one by the policy.

    Stale attachments are reclaimed only if the requested address is taken or the set has no free address. An ADD that
    finds an address pays nothing for it.
    """
    for address in conf.requested:
        if _range_of(range_set, address):
            _refuse_delegated(address, leases)
            if leases.holder(address) is not None:
                stale.reclaim(leases, context, log)
            return address
    try:
        return leases.choose(index, range_set, conf.policy)
    except CniError as error:
        exhausted = error.code == ADDRESSES_EXHAUSTED and not conf.policy.never_reuses(range_set)
        if not exhausted or not stale.reclaim(leases, context, log):
            raise
    return leases.choose(index, range_set, conf.policy)


def _refuse_delegated(address: str, leases: Transaction) -> None:
    holder = leases.delegated(address)
    if holder is not None:
        words = f"address {address} lies in a prefix that was given to {holder}"
        raise CniError(ADDRESS_UNAVAILABLE, words, "ask for another address, or run DEL for that container")


def _range_of(range_set: RangeSet, address: str) -> Range | None:
    return ranges.origin(range_set, *from_text(address))


def _address(range_set: RangeSet, address: str) -> Address:
    containing = _range_of(range_set, address) or range_set.written[0]
    return Address(f"{address}/{containing.prefixlen}", containing.gateway)


def _dns(conf: IpamConf, context: Context) -> Dns:
    return _read("resolvConf", conf.resolv_conf, parse_resolv_conf, context) if conf.resolv_conf else Dns()


def with_secret(conf: IpamConf, context: Context) -> IpamConf:
    """The configuration with the secret for stable addresses (``secretFile``) read into it."""
    if not conf.secret_file:
        return conf
    found = _read("secretFile", conf.secret_file, partial(config_allocation.secret, conf.secret_file), context)
    return replace(conf, policy=replace(conf.policy, secret=found))


def _read(key: str, path: str, parse: Callable[[str], _T], context: Context) -> _T:
    try:
        return parse(context.read_file(path))
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", str(error)) from error
    except UnicodeEncodeError:  # its message would quote the content of the file
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", "it is not UTF-8: write it as text") from None
