"""The bridge plugin: ADD, DEL, CHECK, GC and STATUS of ``cni-v6``, told with the parts beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from cni_v6 import errors as codes
from cni_v6.attachments import load_config, register, renumber_plan
from cni_v6.attachments.context import Context
from cni_v6.config import families
from cni_v6.config.bridge import BridgeConf, ForeignIpam, IpamConf, RemovalConf, parse_removal
from cni_v6.errors import CniError, Errors
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, GetPorts, Link, Snapshot
from cni_v6.leases.attachment import Attachment, ProxyEntry
from cni_v6.leases.store import Leases, Transaction
from cni_v6.plan import bridge, check as plan_check, prefix_routes, uplink
from cni_v6.plan.bridge import Allocation, Site
from cni_v6.plugins import ipam
from cni_v6.protocol.invocation import Invocation, valid_attachments
from cni_v6.protocol.names import Owner, host_interface, owner_of_alias
from cni_v6.protocol.result import Result, from_json

# What a plugin older than GC and STATUS answers to them: skel says code 4, "unknown CNI_COMMAND", after it has missed
# the container id that neither has (code 3); or the version is too new.
NO_SUCH_COMMAND = (codes.INCOMPATIBLE_VERSION, codes.UNKNOWN_CONTAINER, codes.INVALID_ENVIRONMENT)


def add(call: Invocation, context: Context) -> Result:
    """ADD: attach the container. On failure everything that belongs to it is undone."""
    conf = load_config.bridge(call, context)
    site = Site(call.owner, call.netns, context.id)
    inside, home = _namespaces(call, context)
    seen = context.kernel.observe(bridge.questions(site, conf))
    bridge.check_free(site, conf, seen)
    lost = _lost_families(site, conf, seen)
    context.data_dirs.remember(conf.data_dir)
    register.prepare(call, conf, context, seen)
    with ExitStack() as undo:
        draft = Attachment(call.owner, (), site.host, inside, context.now(), context.boot, home=home)
        allocation = _allocate(call, conf, draft, context, undo, lost, seen)
        if conf.is_gateway and 6 in allocation.families():
            seen = seen.with_answers(context.kernel.observe(uplink.more_questions(conf, seen)))
            _record_proxied(conf, site, uplink.proxied(conf, allocation.ips, seen), context)
        for remark in (*uplink.remarks(conf, allocation.ips, seen), *prefix_routes.remarks(conf, allocation.delegated)):
            call.log.warning(remark)
        steps = bridge.plan_add(site, conf, allocation, seen)
        context.kernel.apply(steps.ops)
        undo.pop_all()
    return steps.result


def delete(call: Invocation, context: Context) -> None:
    """DEL: take the container's interface away, then free its addresses: nobody gets one that still answers.

    Needs neither the namespace nor prevResult nor the configuration of the ADD; what is gone already is fine.
    """
    conf = parse_removal(call)
    if call.netns:
        _refuse_own_netns(call, context)
    errors = Errors()
    errors.run(lambda: _remove_interface(call, conf, context))
    if not errors.caught:
        errors.run(lambda: register.unregister(call.owner, conf.data_dir, context))
    if conf.foreign_ipam:
        errors.run(lambda: context.delegate(call, conf.foreign_ipam, "DEL"))
    errors.check()


def check(call: Invocation, context: Context) -> None:
    """CHECK: compare the kernel and the leases with prevResult, and name every difference."""
    conf = load_config.bridge(call, context)
    assert call.prev_result is not None  # protocol.parse saw to it
    site = Site(call.owner, call.netns, context.id)
    _namespaces(call, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    promised = renumber_plan.promised(prefix_routes.without(call.prev_result, record), conf, record)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_leases(conf.ipam, call.owner, promised.ips, record)
    elif conf.ipam:
        context.delegate(call, conf.ipam.type, "CHECK")
    asked = *plan_check.questions(site, conf, promised), *register.questions(record), *uplink.audit_questions(record)
    seen = context.kernel.observe((*asked, *prefix_routes.audit_questions(conf, record)))
    differences = [*plan_check.compare(site, conf, promised, seen), *register.differences(record, seen)]
    differences += [*uplink.differences(record, seen), *prefix_routes.differences(conf, record, seen)]
    if differences:
        remedy = "run DEL and ADD for the container again"
        raise CniError(codes.CHECK_FAILED, f"{call.owner} differs from its result: {'; '.join(differences)}", remedy)


def collect(call: Invocation, context: Context) -> None:
    """GC: remove what belongs to no valid attachment and is older than this call, or provably over; interfaces
    included."""
    conf, started = parse_removal(call), context.now()
    orphans = _listed_ports(conf, context)  # before the records: an ADD makes its record before its interface
    store = context.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        owners = set(leases.owners())
        gone = ipam.stale(call, leases, started, context)
    errors = Errors()
    hosts = [record.host or host_interface(record.owner) for record in gone]
    hosts += [link.name for link, owner in orphans if owner not in owners and _is_stale(call, owner)]
    errors.run(lambda: context.kernel.remove([ops.DeleteLink(HOST, host) for host in hosts]))
    if not errors.caught:
        with store.transaction() as leases:
            for record in gone:
                if leases.get(record.owner) == record:  # not one that was made again meanwhile
                    errors.run(lambda: _forget(call, record, leases, context))
    if conf.foreign_ipam:
        errors.run(lambda: _delegate_if_known(call, conf.foreign_ipam, context))
    errors.check()


def status(call: Invocation, context: Context) -> None:
    """STATUS: whether an ADD would succeed now (50 if not), and whether containers work (51 if not)."""
    conf = load_config.bridge(call, context)
    if isinstance(conf.ipam, IpamConf):
        ipam.check_capacity(conf.ipam, _leases(conf.ipam, context))
    elif conf.ipam:
        _require(call, conf.ipam.type, context)
        _delegate_if_known(call, conf.ipam.type, context)
    plan_check.check_status(conf, context.kernel.observe(plan_check.status_questions(conf)))


def _refuse_own_netns(call: Invocation, context: Context) -> None:
    """For DEL, to which a namespace that is gone is fine."""
    try:
        _namespaces(call, context)
    except CniError as error:
        if error.code != codes.UNKNOWN_CONTAINER:
            raise


def _namespaces(call: Invocation, context: Context) -> tuple[tuple[int, int], tuple[int, int]]:
    """What tells the container's namespace and the node's from others.

    As skel: the container's must not be the plugin's own, unless CNI_NETNS_OVERRIDE says so.
    """
    inside, home = context.kernel.netns_id(call.netns), context.kernel.netns_id(HOST)
    if inside == home and call.env.get("CNI_NETNS_OVERRIDE", "").lower() not in ("1", "t", "true"):
        words = f"CNI_NETNS {call.netns} is the plugin's own network namespace"
        raise CniError(
            codes.INVALID_NETNS, words, "pass the container's namespace; a container on the node's needs no CNI"
        )
    return inside, home


# Addresses


def _lost_families(site: Site, conf: BridgeConf, seen: Snapshot) -> Mapping[int, CniError]:
    """What our own allocation need not look for, and why; known before an address is spent."""
    if not isinstance(conf.ipam, IpamConf):
        return {}
    off = families.ipv6_off(site.netns, seen, gateway=conf.is_gateway)
    return families.lost(conf.ipam.sets, conf.ipam.optional, off)


def _leases(conf: IpamConf, context: Context) -> Leases:
    return context.leases(conf.network, conf.data_dir)


def _allocate(
    call: Invocation,
    conf: BridgeConf,
    draft: Attachment,
    context: Context,
    undo: ExitStack,
    lost: Mapping[int, CniError],
    seen: Snapshot,
) -> Allocation:
    """Addresses from our store or another plugin; recorded before the kernel is touched, so that DEL and GC find it.

    :param draft: the record without them.
    """
    data_dir = conf.data_dir
    if isinstance(conf.ipam, IpamConf):
        admit = partial(register.register, conf, context=context, seen=seen)
        allocation = ipam.allocate(conf.ipam, draft, context, call.log, admit, lost)
        undo.callback(_attempt, call, lambda: register.unregister(call.owner, data_dir, context))
        return allocation
    with context.leases(conf.network, data_dir).transaction() as leases:
        register.register(conf, draft, leases, context, seen=seen) if conf.ipam is None else leases.put(draft)
    undo.callback(_attempt, call, lambda: register.unregister(call.owner, data_dir, context))
    if conf.ipam is None:
        return Allocation()
    allocation = _delegated(call, conf.ipam, context, undo)
    with context.leases(conf.network, data_dir).transaction() as leases:
        register.complete(conf, draft, allocation.ips, leases, context, seen=seen)
    return allocation


def _delegated(call: Invocation, foreign: ForeignIpam, context: Context, undo: ExitStack) -> Allocation:
    # Also when its ADD fails half-way: SPEC.md, section 4.
    undo.callback(_attempt, call, lambda: context.delegate(call, foreign.type, "DEL"))
    result = from_json(context.delegate(call, foreign.type, "ADD"), call.version)
    if not result.ips:
        raise CniError(codes.IO_FAILURE, f"ipam.type: plugin {foreign.type} gave no address", "see its configuration")
    return Allocation(tuple(replace(ip, interface=None) for ip in result.ips), result.routes, result.dns)


def _record_proxied(conf: BridgeConf, site: Site, proxied: tuple[ProxyEntry, ...], context: Context) -> None:
    """Addresses that the node is about to answer for: DEL and GC know them from the record alone."""
    if not proxied:
        return
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner) or Attachment(site.owner, (), site.host, boot=context.boot)
        leases.update(replace(record, proxied=proxied))


def _attempt(call: Invocation, step: Callable[[], object]) -> None:
    """Undo one step of a failed ADD; that this fails too must not hide why the ADD did."""
    try:
        step()
    except CniError as error:
        call.log.warning(f"undoing the failed ADD: {error}")


# Interfaces


def _remove_interface(call: Invocation, conf: RemovalConf, context: Context) -> None:
    host = Site(call.owner, call.netns, context.id).host
    if context.kernel.observe([GetLink(HOST, host)]).link(HOST, host):
        context.kernel.remove([ops.DeleteLink(HOST, host)])
    elif call.netns:
        _remove_foreign(call, conf, context)


def _remove_foreign(call: Invocation, conf: RemovalConf, context: Context) -> None:
    """An interface that the reference plugin made, before the network moved over: its host end has a random name.

    Known by the addresses that the store says are this container's; anything else in the container is left alone.
    """
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    if record is None or not record.addresses:
        return
    try:
        seen = context.kernel.observe([GetLink(call.netns, call.ifname), GetAddresses(call.netns, call.ifname)])
    except CniError as error:
        if error.code in (
            codes.UNKNOWN_CONTAINER,
            codes.INVALID_NETNS,
        ):  # or what is left of it: umount without rm leaves a file
            return
        raise
    if _holds(seen, call, record):
        context.kernel.remove([ops.DeleteLink(call.netns, call.ifname)])


def _holds(seen: Snapshot, call: Invocation, record: Attachment) -> bool:
    link = seen.link(call.netns, call.ifname)
    present = {address.partition("/")[0] for address in seen.addresses(call.netns, call.ifname)}
    return link is not None and link.kind == "veth" and present.issuperset(record.addresses)


# GC


def _listed_ports(conf: RemovalConf, context: Context) -> list[tuple[Link, Owner]]:
    """The bridge's ports whose alias says that they are this network's."""
    ports = context.kernel.observe([GetPorts(conf.bridge)]).ports(conf.bridge)
    named = ((link, owner_of_alias(link.alias)) for link in ports)
    return [(link, owner) for link, owner in named if owner and owner.network == conf.network]


def _forget(call: Invocation, record: Attachment, leases: Transaction, context: Context) -> None:
    register.release(record, leases, context)
    call.log.info(f"removed {record.owner} {' '.join((*record.addresses, *record.prefixes))}")


def _is_stale(call: Invocation, owner: Owner) -> bool:
    valid = valid_attachments(call.config)
    return valid is not None and (owner.container_id, owner.ifname) not in valid


def _require(call: Invocation, name: str, context: Context) -> None:
    """STATUS: the delegated IPAM is there and runs."""
    try:
        context.delegate(call, name, "VERSION")
    except CniError as error:
        raise CniError(codes.NOT_AVAILABLE, error.msg, error.details) from error


def _delegate_if_known(call: Invocation, name: str, context: Context) -> None:
    """GC and STATUS of a delegated IPAM; one too old to know the command is as good as one with nothing to say."""
    try:
        context.delegate(call, name, call.command)
    except CniError as error:
        if error.code not in NO_SUCH_COMMAND:
            raise
        call.log.info(f"{name} knows no {call.command}: {error.msg}")
