"""The bridge plugin: ADD, DEL, CHECK, GC and STATUS of ``cni-v6``, told with the parts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from cni_v6 import audit, delegated, earlier, families, ipam, ops, plan, resolved, succession, uplink, whereabouts
from cni_v6.config import BridgeConf, ForeignIpam, IpamConf, RemovalConf, parse_removal
from cni_v6.errors import (
    ALREADY_ATTACHED,
    CHECK_FAILED,
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IO_FAILURE,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    CniError,
    Errors,
)
from cni_v6.firewall import attach as firewall
from cni_v6.kernel import GetAddresses, GetLink, GetPorts, Link, Snapshot
from cni_v6.leases import Attachment, Leases, Proxied, Transaction
from cni_v6.names import Owner, host_interface, owner_of_alias
from cni_v6.node import Node
from cni_v6.ops import HOST
from cni_v6.plan import Allocation, Site
from cni_v6.protocol import Invocation, valid_attachments
from cni_v6.result import Result, from_json

# What a plugin older than GC and STATUS answers to them: skel says code 4, "unknown CNI_COMMAND", after it has missed
# the container id that neither has (code 3); or the version is too new.
NO_SUCH_COMMAND = (INCOMPATIBLE_VERSION, UNKNOWN_CONTAINER, INVALID_ENVIRONMENT)


def add(call: Invocation, node: Node) -> Result:
    """ADD: attach the container. On failure everything that belongs to it is undone."""
    conf = resolved.bridge(call, node)
    site = Site(call.owner, call.netns, node.id)
    inside, home = whereabouts.namespaces(call, node)
    seen = earlier.seen(site, conf, node.kernel.observe(plan.questions(site, conf)), node)
    plan.check_free(site, conf, seen)
    lost = _lost_families(site, conf, seen)
    node.data_dirs.remember(conf.data_dir)
    firewall.prepare(call, conf, node, seen)
    with ExitStack() as undo:
        draft = Attachment(call.owner, (), site.host, inside, node.now(), node.boot, home=home)
        allocation = _allocate(call, conf, draft, node, undo, lost, seen)
        if conf.is_gateway and 6 in allocation.families():
            seen = seen.with_answers(node.kernel.observe(uplink.more_questions(conf, seen)))
            _record_proxied(conf, site, uplink.proxied(conf, allocation.ips, seen), node)
        for remark in (*uplink.remarks(conf, allocation.ips, seen), *delegated.remarks(conf, allocation.delegated)):
            call.log.warning(remark)
        steps = plan.plan_add(site, conf, allocation, seen)
        node.kernel.apply(steps.ops)
        undo.pop_all()
    return steps.result


def delete(call: Invocation, node: Node) -> None:
    """DEL: take the container's interface away, then free its addresses: nobody gets one that still answers.

    Needs neither the namespace nor prevResult nor the configuration of the ADD; what is gone already is fine.
    """
    conf = parse_removal(call)
    errors, freed = Errors(), [False]
    refused = whereabouts.refused(call, node) if call.netns else None
    errors.run(lambda: freed.append(_remove_interface(call, conf, node, foreign=not refused)))
    if not errors.caught and not (refused and conf.network not in node.data_dirs.recorded(conf.data_dir)):
        errors.run(lambda: freed.append(firewall.retire(call.owner, conf.data_dir, node)))
    if conf.foreign_ipam:
        errors.run(lambda: node.delegate(call, conf.foreign_ipam, "DEL"))
    if refused and any(freed):
        call.log.warning(f"{refused.msg}: it was left alone, what the container had is freed")
    elif refused:
        errors.caught.append(refused)
    errors.check()


def check(call: Invocation, node: Node) -> None:
    """CHECK: compare the kernel and the leases with prevResult, and name every difference."""
    conf = resolved.bridge(call, node)
    assert call.prev_result is not None  # protocol.parse saw to it
    site = Site(call.owner, call.netns, node.id)
    whereabouts.namespaces(call, node)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    promised = succession.promised(delegated.without(call.prev_result, record), conf, record)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_leases(conf.ipam, call.owner, promised.ips, record)
    elif conf.ipam:
        node.delegate(call, conf.ipam.type, "CHECK")
    asked = *audit.questions(site, conf, promised), *firewall.questions(record), *uplink.audit_questions(record)
    seen = node.kernel.observe((*asked, *delegated.audit_questions(conf, record)))
    differences = [*audit.compare(site, conf, promised, seen), *firewall.differences(record, seen)]
    differences += [*uplink.differences(record, seen), *delegated.differences(conf, record, seen)]
    if differences:
        remedy = "run DEL and ADD for the container again"
        raise CniError(CHECK_FAILED, f"{call.owner} differs from its result: {'; '.join(differences)}", remedy)


def collect(call: Invocation, node: Node) -> None:
    """GC: remove what belongs to no valid attachment and is older than this call, or provably over; interfaces
    included."""
    conf, started = parse_removal(call), node.now()
    orphans = _listed_ports(conf, node)  # before the records: an ADD makes its record before its interface
    store = node.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        owners = set(leases.owners())
        gone = ipam.stale(call, leases, started, node)
    errors = Errors()
    hosts = [record.host or host_interface(record.owner) for record in gone]
    hosts += [link.name for link, owner in orphans if owner not in owners and _is_stale(call, owner)]
    errors.run(lambda: node.kernel.remove([ops.DeleteLink(HOST, host) for host in hosts]))
    if not errors.caught:
        with store.transaction() as leases:
            for record in gone:
                if leases.get(record.owner) == record:  # not one that was made again meanwhile
                    errors.run(lambda: _forget(call, record, leases, node))
    if conf.foreign_ipam:
        errors.run(lambda: _delegate_if_known(call, conf.foreign_ipam, node))
    errors.check()


def status(call: Invocation, node: Node) -> None:
    """STATUS: whether an ADD would succeed now (50 if not), and whether containers work (51 if not)."""
    conf = resolved.bridge(call, node)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_capacity(conf.ipam, _leases(conf.ipam, node))
    elif conf.ipam:
        _require(call, conf.ipam.type, node)
        _delegate_if_known(call, conf.ipam.type, node)
    audit.check_status(conf, node.kernel.observe(audit.status_questions(conf)))


# Addresses


def _lost_families(site: Site, conf: BridgeConf, seen: Snapshot) -> Mapping[int, CniError]:
    """What our own allocation need not look for, and why; known before an address is spent."""
    if not isinstance(conf.ipam, IpamConf):
        return {}
    off = families.ipv6_off(site.netns, seen, gateway=conf.is_gateway)
    return families.lost(conf.ipam.sets, conf.ipam.optional, off)


def _leases(conf: IpamConf, node: Node) -> Leases:
    return node.leases(conf.network, conf.data_dir)


def _allocate(
    call: Invocation, conf: BridgeConf, draft: Attachment, node: Node, undo: ExitStack, lost: Mapping[int, CniError],
    seen: Snapshot,
) -> Allocation:
    """Addresses from our store or another plugin; recorded before the kernel is touched, so that DEL and GC find it.

    :param draft: the record without them.
    """
    data_dir = conf.data_dir
    if isinstance(conf.ipam, IpamConf):
        admit = partial(firewall.admit, conf, node=node, seen=seen)
        allocation = ipam.allocate(conf.ipam, draft, node, call.log, admit, lost)
        undo.callback(_attempt, call, lambda: firewall.retire(call.owner, data_dir, node))
        return allocation

    def record() -> None:
        with node.leases(conf.network, data_dir).transaction() as leases:
            firewall.admit(conf, draft, leases, node, seen=seen) if conf.ipam is None else leases.put(draft)

    try:
        record()
    except CniError as error:
        if error.code != ALREADY_ATTACHED or not earlier.release_at(data_dir, draft.owner, node, call.log):
            raise
        if conf.ipam:
            node.delegate(call, conf.ipam.type, "DEL")
        record()
    undo.callback(_attempt, call, lambda: firewall.retire(call.owner, data_dir, node))
    if conf.ipam is None:
        return Allocation()
    allocation = _delegated(call, conf.ipam, node, undo)
    with node.leases(conf.network, data_dir).transaction() as leases:
        firewall.admit_known(conf, draft, allocation.ips, leases, node, seen=seen)
    return allocation


def _delegated(call: Invocation, foreign: ForeignIpam, node: Node, undo: ExitStack) -> Allocation:
    # Also when its ADD fails half-way: SPEC.md, section 4.
    undo.callback(_attempt, call, lambda: node.delegate(call, foreign.type, "DEL"))
    result = from_json(node.delegate(call, foreign.type, "ADD"), call.version)
    if not result.ips:
        raise CniError(IO_FAILURE, f"ipam.type: plugin {foreign.type} gave no address", "see its configuration")
    return Allocation(tuple(replace(ip, interface=None) for ip in result.ips), result.routes, result.dns)


def _record_proxied(conf: BridgeConf, site: Site, proxied: tuple[Proxied, ...], node: Node) -> None:
    """Addresses that the node is about to answer for: DEL and GC know them from the record alone."""
    if not proxied:
        return
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner) or Attachment(site.owner, (), site.host, boot=node.boot)
        leases.amend(replace(record, proxied=proxied))


def _attempt(call: Invocation, step: Callable[[], object]) -> None:
    """Undo one step of a failed ADD; that this fails too must not hide why the ADD did."""
    try:
        step()
    except CniError as error:
        call.log.warning(f"undoing the failed ADD: {error}")


# Interfaces


def _remove_interface(call: Invocation, conf: RemovalConf, node: Node, *, foreign: bool) -> bool:
    """Whether there was one of ours.

    :param foreign: whether one that the reference plugin made may be taken out of CNI_NETNS.
    """
    host = Site(call.owner, call.netns, node.id).host
    if node.kernel.observe([GetLink(HOST, host)]).link(HOST, host):
        node.kernel.remove([ops.DeleteLink(HOST, host)])
        return True
    if call.netns and foreign:
        _remove_foreign(call, conf, node)
    return False


def _remove_foreign(call: Invocation, conf: RemovalConf, node: Node) -> None:
    """An interface that the reference plugin made, before the network moved over: its host end has a random name.

    Known by the addresses that the store says are this container's; anything else in the container is left alone.
    """
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    if record is None or not record.addresses:
        return
    try:
        seen = node.kernel.observe([GetLink(call.netns, call.ifname), GetAddresses(call.netns, call.ifname)])
    except CniError as error:
        if error.code in (UNKNOWN_CONTAINER, INVALID_NETNS):  # or what is left of it: umount without rm leaves a file
            return
        raise
    if _holds(seen, call, record):
        node.kernel.remove([ops.DeleteLink(call.netns, call.ifname)])


def _holds(seen: Snapshot, call: Invocation, record: Attachment) -> bool:
    link = seen.link(call.netns, call.ifname)
    present = {address.partition("/")[0] for address in seen.addresses(call.netns, call.ifname)}
    return link is not None and link.kind == "veth" and present.issuperset(record.addresses)


# GC


def _listed_ports(conf: RemovalConf, node: Node) -> list[tuple[Link, Owner]]:
    """The bridge's ports whose alias says that they are this network's."""
    ports = node.kernel.observe([GetPorts(conf.bridge)]).ports(conf.bridge)
    named = ((link, owner_of_alias(link.alias)) for link in ports)
    return [(link, owner) for link, owner in named if owner and owner.network == conf.network]


def _forget(call: Invocation, record: Attachment, leases: Transaction, node: Node) -> None:
    firewall.drop(record, leases, node)
    call.log.info(f"removed {record.owner} {' '.join((*record.addresses, *record.prefixes))}")


def _is_stale(call: Invocation, owner: Owner) -> bool:
    valid = valid_attachments(call.config)
    return valid is not None and (owner.container_id, owner.ifname) not in valid


def _require(call: Invocation, name: str, node: Node) -> None:
    """STATUS: the delegated IPAM is there and runs."""
    try:
        node.delegate(call, name, "VERSION")
    except CniError as error:
        raise CniError(NOT_AVAILABLE, error.msg, error.details) from error


def _delegate_if_known(call: Invocation, name: str, node: Node) -> None:
    """GC and STATUS of a delegated IPAM; one too old to know the command is as good as one with nothing to say."""
    try:
        node.delegate(call, name, call.command)
    except CniError as error:
        if error.code not in NO_SUCH_COMMAND:
            raise
        call.log.info(f"{name} knows no {call.command}: {error.msg}")
