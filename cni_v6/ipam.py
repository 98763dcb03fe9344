"""Addresses: ADD, DEL, CHECK, GC and STATUS of ``cni-v6-ipam``, and the same in-process for ``cni-v6``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from cni_v6 import earlier, families, handoutconf, healing, ranges, resolved
from cni_v6.config import IpamConf, Range, RangeSet, parse_removal
from cni_v6.delegated import Delegated
from cni_v6.errors import (
    ADDRESSES_EXHAUSTED,
    ADDRESS_UNAVAILABLE,
    ALREADY_ATTACHED,
    CHECK_FAILED,
    IO_FAILURE,
    NOT_AVAILABLE,
    CniError,
)
from cni_v6.firewall import attach
from cni_v6.leases import Attachment, Leases, Transaction
from cni_v6.log import Log
from cni_v6.names import Owner
from cni_v6.node import Node
from cni_v6.ops import HOST
from cni_v6.plan import Allocation
from cni_v6.protocol import Invocation, valid_attachments
from cni_v6.resolvconf import parse as parse_resolv_conf
from cni_v6.result import Address, Dns, Result


def add(call: Invocation, node: Node) -> Result:
    """ADD: lease an address of each set to the container; any main plugin then configures them."""
    conf = resolved.ipam(call, node)
    draft = Attachment(
        call.owner, (), netns=node.kernel.netns_id(call.netns), created=node.now(), boot=node.boot,
        home=node.kernel.netns_id(HOST),
    )
    node.data_dirs.remember(conf.data_dir)
    lost: Mapping[int, CniError] = {}
    if 6 in conf.optional:  # else it is the main plugin's to find out, as with any other IPAM
        off = families.ipv6_off(call.netns, node.kernel.observe(families.questions(call.netns)), gateway=False)
        lost = families.lost(conf.sets, conf.optional, off)
    allocation = allocate(conf, draft, node, call.log, lost=lost)
    return Result(ips=allocation.ips, routes=allocation.routes, dns=allocation.dns)


def delete(call: Invocation, node: Node) -> None:
    """DEL: free what the container holds; fine when it holds nothing."""
    conf = parse_removal(call)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        leases.drop(call.owner)


def check(call: Invocation, node: Node) -> None:
    """CHECK: the container holds an address of each set, and those that prevResult names."""
    conf = resolved.ipam(call, node)
    prev = call.prev_result.ips if call.prev_result else ()
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    check_leases(conf, call.owner, prev, record)


def collect(call: Invocation, node: Node) -> None:
    """GC: free what belongs to no valid attachment and is older than this call, or provably over."""
    conf, started = parse_removal(call), node.now()
    store = node.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        for record in stale(call, leases, started, node):
            leases.drop(record.owner)
            call.log.info(f"freed {', '.join(record.addresses)} of {record.owner.container_id}/{record.owner.ifname}")


def status(call: Invocation, node: Node) -> None:
    """STATUS: every set has a free address."""
    conf = resolved.ipam(call, node)
    check_capacity(conf, node.leases(conf.network, conf.data_dir))


# Parts that the bridge plugin uses in-process


def _record(record: Attachment, leases: Transaction) -> None:
    leases.put(record)


def allocate(
    conf: IpamConf, draft: Attachment, node: Node, log: Log,
    admit: Callable[[Attachment, Transaction], None] = _record, lost: Mapping[int, CniError] = MappingProxyType({}),
) -> Allocation:
    """Lease an address of each set, all or none, and record the attachment.

    :param draft: the attachment without its addresses.
    :param admit: records it in the lease's place, and does what has to be done under the same lock.
    :param lost: families that the container goes without, and why; all of ``conf.optional``.
    """
    dns = _dns(conf, node)
    conf = with_secret(conf, node)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        _refuse_second(draft.owner, leases, node, log)
        chosen = _choose(conf, leases, node, log, lost)
        given = _delegate(conf, chosen, leases)
        prefixes = tuple(each.prefix for each in given)
        addresses, ways = tuple(text for _, text in chosen), tuple(conf.handout.way(each) for each, _ in chosen)
        record = replace(draft, addresses=addresses, prefixes=prefixes, reuse=ways, identity=conf.handout.identity)
        admit(record, leases)
    ips = tuple(_address(each, text) for each, text in chosen)
    present = {ip.family for ip in ips}
    return Allocation(ips, tuple(route for route in conf.routes if route.family in present), dns, given)


def _choose(
    conf: IpamConf, leases: Transaction, node: Node, log: Log, lost: Mapping[int, CniError]
) -> list[tuple[RangeSet, str]]:
    """An address of each set, but for the families that the container goes without: the lost ones, and those of a set
    without a free address where they are not required."""
    lost = dict(lost)
    chosen = []
    for index, each in enumerate(conf.sets):
        if each.family in lost:
            continue
        try:
            chosen.append((each, _pick(conf, index, each, leases, node, log)))
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


def _delegate(conf: IpamConf, chosen: list[tuple[RangeSet, str]], leases: Transaction) -> tuple[Delegated, ...]:
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
        if not any(ranges.overlap(f"{text}/128", prefix) for text in conf.requested if ":" in text):
            return (Delegated(prefix, _address(source, via)),)


def stale(call: Invocation, leases: Transaction, started: float, node: Node) -> list[Attachment]:
    """Attachments that the runtime does not list as valid and that are older than the call.

    One made meanwhile is missing in a list that was written before it, and is kept. So is one that seems to be made
    later because the clock was set back; but not if it is provably over.
    """
    valid = valid_attachments(call.config)
    if valid is None:
        call.log.warning("nothing freed: the configuration names no cni.dev/valid-attachments")
        return []
    owners = [owner for owner in leases.owners() if not healing.is_listed(owner, valid)]
    unlisted = [record for owner in owners if (record := leases.get(owner))]
    young = [record for record in unlisted if record.created >= started]
    over = {record.owner for record, _ in healing.dead(young, node)} if young else set()
    return [record for record in unlisted if record.created < started or record.owner in over]


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
    earlier = {ranges.version(text) for text in held if not any(_range_of(each, text) for each in conf.sets)}
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
            why = leases.shortage(index, each, conf.handout) if each.family not in conf.optional else None
            if why:
                raise CniError(NOT_AVAILABLE, f"ipam.ranges[{index}] of {conf.network} is exhausted: {why.msg}",
                               why.details)


def _refuse_second(owner: Owner, leases: Transaction, node: Node, log: Log) -> None:
    """Before the cursor moves: an owner that holds addresses already would only waste one.

    What one of its name has left that has ended is freed (``earlier``). A record that holds none is what the reference
    plugin's DEL has left of it: it frees leases, and knows no records.
    """
    record = leases.get(owner)
    if record and record.addresses and not earlier.release(owner, leases, node, log):
        words = f"container {owner.container_id} has {', '.join(record.addresses)} already"
        raise CniError(ALREADY_ATTACHED, f"{words} on network {owner.network} ({owner.ifname})", "run DEL for it first")
    if record and not record.addresses:
        attach.drop(record, leases, node)


def _pick(conf: IpamConf, index: int, each: RangeSet, leases: Transaction, node: Node, log: Log) -> str:
    """An address of a set. What containers have left that ended without a DEL is looked for where there is no other
    way: nothing of it costs an ADD that finds an address."""
    for text in conf.requested:
        if _range_of(each, text):
            _refuse_delegated(text, leases)
            if leases.holder(text) is not None:
                healing.reclaim(leases, node, log)
            return text
    try:
        return leases.choose(index, each, conf.handout)
    except CniError as error:
        dry = error.code == ADDRESSES_EXHAUSTED and not conf.handout.once(each)
        if not dry or not healing.reclaim(leases, node, log):
            raise
    return leases.choose(index, each, conf.handout)


def _refuse_delegated(text: str, leases: Transaction) -> None:
    holder = leases.delegated(text)
    if holder is not None:
        words = f"address {text} lies in a prefix that was given to {holder}"
        raise CniError(ADDRESS_UNAVAILABLE, words, "ask for another address, or run DEL for that container")


def _range_of(each: RangeSet, text: str) -> Range | None:
    return ranges.origin(each, *ranges.from_text(text))


def _address(each: RangeSet, text: str) -> Address:
    part = _range_of(each, text) or each.written[0]
    return Address(f"{text}/{part.prefixlen}", part.gateway)


def _dns(conf: IpamConf, node: Node) -> Dns:
    return parse_resolv_conf(_read("resolvConf", conf.resolv_conf, node)) if conf.resolv_conf else Dns()


def with_secret(conf: IpamConf, node: Node) -> IpamConf:
    """The configuration with the secret that stable addresses are derived with."""
    if not conf.secret_file:
        return conf
    found = handoutconf.secret(conf.secret_file, _read("secretFile", conf.secret_file, node))
    return replace(conf, handout=replace(conf.handout, secret=found))


def _read(key: str, path: str, node: Node) -> str:
    try:
        return node.read_file(path)
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", str(error)) from error
    except UnicodeDecodeError:  # which says what is in it
        raise CniError(IO_FAILURE, f"cannot read ipam.{key} {path}", "it is not UTF-8: write it as text") from None
