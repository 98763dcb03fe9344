"""Addresses: ADD, DEL, CHECK, GC and STATUS of ``cni-v6-ipam``, and the same in-process for ``cni-v6``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cni_v6 import ranges
from cni_v6.config import IpamConf, Range, RangeSet, parse_ipam, parse_removal
from cni_v6.errors import ALREADY_ATTACHED, CHECK_FAILED, IO_FAILURE, NOT_AVAILABLE, CniError
from cni_v6.firewall import attach
from cni_v6.leases import Attachment, Leases, Transaction
from cni_v6.names import Owner
from cni_v6.node import Node
from cni_v6.plan import Allocation
from cni_v6.protocol import Invocation, valid_attachments
from cni_v6.resolvconf import parse as parse_resolv_conf
from cni_v6.result import Address, Dns, Result


def add(call: Invocation, node: Node) -> Result:
    """ADD: lease an address of each set to the container; any main plugin then configures them."""
    conf = parse_ipam(call)
    draft = Attachment(call.owner, (), netns=node.kernel.netns_id(call.netns), created=node.now(), boot=node.boot)
    allocation = allocate(conf, draft, node)
    return Result(ips=allocation.ips, routes=allocation.routes, dns=allocation.dns)


def delete(call: Invocation, node: Node) -> None:
    """DEL: free what the container holds; fine when it holds nothing."""
    conf = parse_removal(call)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        leases.drop(call.owner)


def check(call: Invocation, node: Node) -> None:
    """CHECK: the container holds an address of each set, and those that prevResult names."""
    conf = parse_ipam(call)
    prev = call.prev_result.ips if call.prev_result else ()
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    check_leases(conf, call.owner, prev, record)


def collect(call: Invocation, node: Node) -> None:
    """GC: free what belongs to no valid attachment and is older than this call."""
    conf, started = parse_removal(call), node.now()
    store = node.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        for record in stale(call, leases, started):
            leases.drop(record.owner)
            call.log.info(f"freed {', '.join(record.addresses)} of {record.owner.container_id}/{record.owner.ifname}")


def status(call: Invocation, node: Node) -> None:
    """STATUS: every set has a free address."""
    conf = parse_ipam(call)
    check_capacity(conf, node.leases(conf.network, conf.data_dir))


# Parts that the bridge plugin uses in-process


def _record(record: Attachment, leases: Transaction) -> None:
    leases.put(record)


def allocate(
    conf: IpamConf, draft: Attachment, node: Node, admit: Callable[[Attachment, Transaction], None] = _record
) -> Allocation:
    """Lease an address of each set, all or none, and record the attachment.

    :param draft: the attachment without its addresses.
    :param admit: records it in the lease's place, and does what has to be done under the same lock.
    """
    dns = _dns(conf, node)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        _refuse_second(draft.owner, leases, node)
        chosen = [_pick(conf, index, each, leases) for index, each in enumerate(conf.sets)]
        admit(replace(draft, addresses=tuple(chosen)), leases)
    ips = tuple(_address(each, text) for each, text in zip(conf.sets, chosen))
    return Allocation(ips, conf.routes, dns)


def stale(call: Invocation, leases: Transaction, started: float) -> list[Attachment]:
    """Attachments that the runtime does not list as valid and that are older than the call.

    One made meanwhile is missing in a list that was written before it, and is kept.
    """
    valid = valid_attachments(call.config)
    if valid is None:
        call.log.warning("nothing freed: the configuration names no cni.dev/valid-attachments")
        return []
    containers = {container_id for container_id, _ in valid}
    return [
        record
        for record in leases.attachments()
        if record.created < started and not _is_valid(record.owner, valid, containers)
    ]


def _is_valid(owner: Owner, valid: frozenset[tuple[str, str]], containers: set[str]) -> bool:
    """A lease of an old ``host-local`` names no interface: its container decides."""
    return (owner.container_id, owner.ifname) in valid or (not owner.ifname and owner.container_id in containers)


def check_leases(conf: IpamConf, owner: Owner, expected: tuple[Address, ...], record: Attachment | None) -> None:
    """Compare what the owner holds with the sets and with the addresses of a result.

    :param record: what the owner holds. An address that was excluded since is its own until its DEL, and counts as one
        of its set.
    :raises CniError: CHECK_FAILED naming each difference.
    """
    held = record.addresses if record else ()
    differences = [f"no address leased from set {number}" for number, each in enumerate(conf.sets)
                   if not any(_range_of(each, text) for text in held)]
    for ip in expected:
        if ip.ip not in held and any(_range_of(each, ip.ip) for each in conf.sets):
            differences.append(f"{ip.ip} is not leased to {owner.container_id}/{owner.ifname}")
    if differences:
        remedy = "run DEL and ADD for the container again"
        raise CniError(CHECK_FAILED, f"leases of {conf.network}: {'; '.join(differences)}", remedy)


def check_capacity(conf: IpamConf, store: Leases) -> None:
    """Every set has a free address. A large one is not counted: its leases are a vanishing part of it.

    :raises CniError: NOT_AVAILABLE naming the set and the numbers.
    """
    small = [(index, each) for index, each in enumerate(conf.sets) if ranges.size(each) < ranges.LARGE]
    with store.transaction() as leases:
        held = [text for record in leases.attachments() for text in record.addresses] if small else []
    for index, each in small:
        taken = sum(ranges.contains(each, *ranges.from_text(text)) for text in held)
        if taken >= ranges.size(each):
            words = f"ipam.ranges[{index}] of {conf.network} is exhausted: {taken} of {ranges.size(each)} are leased"
            raise CniError(NOT_AVAILABLE, words, "run GC, remove containers, or add a range to the set")


def _refuse_second(owner: Owner, leases: Transaction, node: Node) -> None:
    """Before the cursor moves: an owner that holds addresses already would only waste one.

    A record that holds none is what the reference plugin's DEL has left of it: it frees leases, and knows no records.
    """
    record = leases.get(owner)
    if record and record.addresses:
        words = f"container {owner.container_id} has {', '.join(record.addresses)} already"
        raise CniError(ALREADY_ATTACHED, f"{words} on network {owner.network} ({owner.ifname})", "run DEL for it first")
    if record:
        attach.drop(record, leases, node)


def _pick(conf: IpamConf, index: int, each: RangeSet, leases: Transaction) -> str:
    for text in conf.requested:
        if _range_of(each, text):
            return text
    return leases.choose(index, each)


def _range_of(each: RangeSet, text: str) -> Range | None:
    return ranges.origin(each, *ranges.from_text(text))


def _address(each: RangeSet, text: str) -> Address:
    part = _range_of(each, text) or each.written[0]
    return Address(f"{text}/{part.prefixlen}", part.gateway)


def _dns(conf: IpamConf, node: Node) -> Dns:
    if not conf.resolv_conf:
        return Dns()
    try:
        return parse_resolv_conf(node.read_file(conf.resolv_conf))
    except (OSError, UnicodeDecodeError) as error:
        raise CniError(IO_FAILURE, f"cannot read ipam.resolvConf {conf.resolv_conf}", str(error)) from error
