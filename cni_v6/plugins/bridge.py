"""The bridge plugin: ADD, DEL, CHECK, GC and STATUS of ``cni-v6``, told with the parts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from cni_v6.attachments import load_config, register, renumber_plan
from cni_v6.attachments.context import Node
from cni_v6.config import families
from cni_v6.config.bridge import BridgeConf, ForeignIpam, IpamConf, RemovalConf, parse_removal
from cni_v6.errors import (
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
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, GetPorts, Link, Snapshot
from cni_v6.leases.attachment import Attachment, Proxied
from cni_v6.leases.store import Leases, Transaction
from cni_v6.plan import bridge, check as plan_check, prefix_routes, uplink
from cni_v6.plan.bridge import Allocation, Site
from cni_v6.plugins import ipam
from cni_v6.protocol.invocation import Invocation, valid_attachments
from cni_v6.protocol.names import Owner, host_interface, owner_of_alias
from cni_v6.protocol.result import Result, from_json

# What a plugin older than GC and STATUS answers to them: skel says code 4, "unknown CNI_COMMAND", after it has missed
# the container id that neither has (code 3); or the version is too new.
NO_SUCH_COMMAND = (INCOMPATIBLE_VERSION, UNKNOWN_CONTAINER, INVALID_ENVIRONMENT)


def add(call: Invocation, node: Node) -> Result:
    """ADD: attach the container. On failure everything that belongs to it is undone."""
    conf = load_config.bridge(call, node)
    site = Site(call.owner, call.netns, node.id)
    inside, home = _namespaces(call, node)
    seen = node.kernel.observe(bridge.questions(site, conf))
    bridge.check_free(site, conf, seen)
    lost = _lost_families(site, conf, seen)
    node.data_dirs.remember(conf.data_dir)
    register.prepare(call, conf, node, seen)
    with ExitStack() as undo:
        draft = Attachment(call.owner, (), site.host, inside, node.now(), node.boot, home=home)
        allocation = _allocate(call, conf, draft, node, undo, lost, seen)
        if conf.is_gateway and 6 in allocation.families():
            seen = seen.with_answers(node.kernel.observe(uplink.more_questions(conf, seen)))
            _record_proxied(conf, site, uplink.proxied(conf, allocation.ips, seen), node)
        for remark in (*uplink.remarks(conf, allocation.ips, seen), *prefix_routes.remarks(conf, allocation.delegated)):
            call.log.warning(remark)
        steps = bridge.plan_add(site, conf, allocation, seen)
        node.kernel.apply(steps.ops)
        undo.pop_all()
    return steps.result


def delete(call: Invocation, node: Node) -> None:
    """DEL: take the container's interface away, then free its addresses: nobody gets one that still answers.

    Needs neither the namespace nor prevResult nor the configuration of the ADD; what is gone already is fine.
    """
    conf = parse_removal(call)
    if call.netns:
        _refuse_own_netns(call, node)
    errors = Errors()
    errors.run(lambda: _remove_interface(call, conf, node))
    if not errors.caught:
        errors.run(lambda: register.retire(call.owner, conf.data_dir, node))
    if conf.foreign_ipam:
        errors.run(lambda: node.delegate(call, conf.foreign_ipam, "DEL"))
    errors.check()


def check(call: Invocation, node: Node) -> None:
    """CHECK: compare the kernel and the leases with prevResult, and name every difference."""
    conf = load_config.bridge(call, node)
    assert call.prev_result is not None  # protocol.parse saw to it
    site = Site(call.owner, call.netns, node.id)
    _namespaces(call, node)
    with node.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    promised = renumber_plan.promised(prefix_routes.without(call.prev_result, record), conf, record)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_leases(conf.ipam, call.owner, promised.ips, record)
    elif conf.ipam:
        node.delegate(call, conf.ipam.type, "CHECK")
    asked = *plan_check.questions(site, conf, promised), *register.questions(record), *uplink.audit_questions(record)
    seen = node.kernel.observe((*asked, *prefix_routes.audit_questions(conf, record)))
    differences = [*plan_check.compare(site, conf, promised, seen), *register.differences(record, seen)]
    differences += [*uplink.differences(record, seen), *prefix_routes.differences(conf, record, seen)]
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
    conf = load_config.bridge(call, node)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_capacity(conf.ipam, _leases(conf.ipam, node))
    elif conf.ipam:
        _require(call, conf.ipam.type, node)
        _delegate_if_known(call, conf.ipam.type, node)
    plan_check.check_status(conf, node.kernel.observe(plan_check.status_questions(conf)))


def _refuse_own_netns(call: Invocation, node: Node) -> None:
    """For DEL, to which a namespace that is gone is fine."""
    try:
        _namespaces(call, node)
    except CniError as error:
        if error.code != UNKNOWN_CONTAINER:
            raise


def _namespaces(call: Invocation, node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    """What tells the container's namespace and the node's from others.

    As skel: the container's must not be the plugin's own, unless CNI_NETNS_OVERRIDE says so.
    """
    inside, home = node.kernel.netns_id(call.netns), node.kernel.netns_id(HOST)
    if inside == home and call.env.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "t", "true"):
        words = f"CNI_NETNS {call.netns} is the plugin's own network namespace"
        raise CniError(INVALID_NETNS, words, "pass the container's namespace; a container on the node's needs no CNI")
    return inside, home


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
        admit = partial(register.admit, conf, node=node, seen=seen)
        allocation = ipam.allocate(conf.ipam, draft, node, call.log, admit, lost)
        undo.callback(_attempt, call, lambda: register.retire(call.owner, data_dir, node))
        return allocation
    with node.leases(conf.network, data_dir).transaction() as leases:
        register.admit(conf, draft, leases, node, seen=seen) if conf.ipam is None else leases.put(draft)
    undo.callback(_attempt, call, lambda: register.retire(call.owner, data_dir, node))
    if conf.ipam is None:
        return Allocation()
    allocation = _delegated(call, conf.ipam, node, undo)
    with node.leases(conf.network, data_dir).transaction() as leases:
        register.admit_known(conf, draft, allocation.ips, leases, node, seen=seen)
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


def _remove_interface(call: Invocation, conf: RemovalConf, node: Node) -> None:
    host = Site(call.owner, call.netns, node.id).host
    if node.kernel.observe([GetLink(HOST, host)]).link(HOST, host):
        node.kernel.remove([ops.DeleteLink(HOST, host)])
    elif call.netns:
        _remove_foreign(call, conf, node)


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
    register.drop(record, leases, node)
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
