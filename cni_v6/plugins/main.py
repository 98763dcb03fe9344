"""The frame of every main plugin: ADD, DEL, CHECK, GC and STATUS, told with the parts of the plugin itself.

A main plugin is a configuration class, a plan, and a module that gives this frame what differs (``MainPlugin``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from cni_v6 import errors as codes
from cni_v6.attachments import allocate, earlier, firewall_reload, namespaces, register, renumber_plan, stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.families import lost as lost_families
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import ForeignIpam, MainConf, RemovalConf, parse_removal
from cni_v6.errors import CniError, Errors
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, Link, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.plan import families, features, ndp_proxy, prefix_routes
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation, valid_attachments
from cni_v6.protocol.names import Owner, host_interface
from cni_v6.protocol.result import Result, from_json

# What a plugin older than GC and STATUS answers to them: skel says code 4, "unknown CNI_COMMAND", after it has missed
# the container id that neither has (code 3); or the version is too new.
NO_SUCH_COMMAND = (codes.INCOMPATIBLE_VERSION, codes.UNKNOWN_CONTAINER, codes.INVALID_ENVIRONMENT)

Conf = TypeVar("Conf", bound=MainConf)


class MainPlugin(Protocol[Conf]):
    """What one main plugin does differently from another. All of it but ``load`` and ``ports`` is pure."""

    def load(self, call: Invocation, context: Context) -> Conf:
        """The configuration of ADD, CHECK and STATUS.

        :raises CniError: INVALID_CONFIG and others of ``config``.
        """
        ...

    def questions(self, site: Site, conf: Conf) -> Iterable[Question]:
        """What an ADD has to know before there are addresses; ``features.questions`` included."""
        ...

    def check_free(self, site: Site, conf: Conf, seen: Snapshot) -> None:
        """Refuse what cannot be attached, before an address is leased.

        :raises CniError: NODE_CONFLICT, ALREADY_ATTACHED.
        """
        ...

    def network(self, site: Site, conf: Conf, seen: Snapshot) -> Network:
        """What registering an attachment has to know."""
        ...

    def plan_add(self, site: Site, conf: Conf, allocation: Allocation, seen: Snapshot) -> Plan:
        """Operations and result of an ADD."""
        ...

    def check_questions(self, site: Site, conf: Conf, result: Result) -> Iterable[Question]:
        """What CHECK has to know of the interfaces."""
        ...

    def differences(self, site: Site, conf: Conf, result: Result, seen: Snapshot) -> Iterable[str]:
        """Every difference between a result and the kernel, a phrase each."""
        ...

    def ports(self, conf: RemovalConf, context: Context) -> list[tuple[Link, Owner]]:
        """The node's interfaces whose alias says that they are this network's."""
        ...

    def status_questions(self, conf: Conf) -> Iterable[Question]:
        """What STATUS has to know."""
        ...

    def check_status(self, conf: Conf, seen: Snapshot) -> None:
        """:raises CniError: NOT_AVAILABLE when an ADD would fail, LIMITED when running containers are cut off."""
        ...


@dataclass(frozen=True, slots=True)
class Frame(Generic[Conf]):
    """The five commands of one main plugin."""

    plugin: MainPlugin[Conf]

    def add(self, call: Invocation, context: Context) -> Result:
        """ADD: attach the container. On failure everything that belongs to it is undone."""
        plugin, conf = self.plugin, self.plugin.load(call, context)
        site = Site(call.owner, call.netns, context.id)
        inside, node = namespaces.namespaces(call, context)
        seen = earlier.observe(site, conf, tuple(plugin.questions(site, conf)), context)
        plugin.check_free(site, conf, seen)
        lost = _lost_families(site, conf, seen)
        context.data_dirs.remember(conf.data_dir)
        firewall_reload.prepare(call, conf, context, seen)
        with ExitStack() as undo:
            draft = Attachment(call.owner, (), site.host, inside, context.now(), context.boot, home=node)
            allocation = _allocate(call, plugin.network(site, conf, seen), draft, context, undo, lost)
            if conf.is_gateway and 6 in allocation.families():
                seen = seen.with_answers(context.kernel.observe(features.more_questions(conf, seen)))
                _record_proxied(conf, site, allocation, seen, context)
            for warning in features.warnings(conf, allocation, seen):
                call.log.warning(warning)
            plan = plugin.plan_add(site, conf, allocation, seen)
            context.kernel.apply(plan.ops)
            undo.pop_all()
        return plan.result

    def delete(self, call: Invocation, context: Context) -> None:
        """DEL: take the container's interface away, then free its addresses: nobody gets one that still answers.

        Needs neither the namespace nor prevResult nor the configuration of the ADD; what is gone already is fine.
        """
        conf = parse_removal(call)
        errors, freed = Errors(), [False]
        refused = namespaces.refused(call, context) if call.netns else None
        errors.run(lambda: freed.append(_remove_interface(call, conf, context, foreign=not refused)))
        if not errors.caught and not (refused and conf.network not in context.data_dirs.recorded(conf.data_dir)):
            errors.run(lambda: freed.append(register.unregister(call.owner, conf.data_dir, context)))
        if conf.foreign_ipam:
            errors.run(lambda: context.delegate(call, conf.foreign_ipam, "DEL"))
        if refused and any(freed):
            call.log.warning(f"{refused.msg}: it was left alone, what the container had is freed")
        elif refused:
            errors.caught.append(refused)
        errors.run(lambda: firewall_reload.restore(call, conf.network, conf.data_dir, context))
        errors.check()

    def check(self, call: Invocation, context: Context) -> None:
        """CHECK: compare the kernel and the leases with prevResult, and name every difference."""
        plugin, conf = self.plugin, self.plugin.load(call, context)
        assert call.prev_result is not None  # invocation.parse saw to it
        site = Site(call.owner, call.netns, context.id)
        namespaces.namespaces(call, context)
        with context.leases(conf.network, conf.data_dir).transaction() as leases:
            record = leases.get(call.owner)
        promised = renumber_plan.promised(prefix_routes.without(call.prev_result, record), conf, record)
        if isinstance(conf.ipam, IpamConf):
            allocate.check_leases(conf.ipam, call.owner, promised.ips, record)
        elif conf.ipam:
            context.delegate(call, conf.ipam.type, "CHECK")
        asked = *plugin.check_questions(site, conf, promised), *features.check_questions(conf, record)
        seen = context.kernel.observe(asked)
        found = [*plugin.differences(site, conf, promised, seen), *features.differences(conf, record, seen)]
        firewall_reload.restore(call, conf.network, conf.data_dir, context)
        if found:
            remedy = "run DEL and ADD for the container again"
            raise CniError(codes.CHECK_FAILED, f"{call.owner} differs from its result: {'; '.join(found)}", remedy)

    def collect(self, call: Invocation, context: Context) -> None:
        """GC: remove what belongs to no valid attachment and is older than this call, or provably over; interfaces
        included."""
        conf, started = parse_removal(call), context.now()
        ports = self.plugin.ports(conf, context)  # before the records: an ADD makes its record before its interface
        store = context.leases(conf.network, conf.data_dir)
        with store.transaction() as leases:
            owners = set(leases.owners())
            gone = stale.unlisted(call, leases, started, context)
        errors = Errors()
        hosts = [record.host or host_interface(record.owner) for record in gone]
        hosts += [link.name for link, owner in ports if owner not in owners and _is_unlisted(call, owner)]
        errors.run(lambda: context.kernel.remove([ops.DeleteLink(HOST, host) for host in hosts]))
        if not errors.caught:
            with store.transaction() as leases:
                for record in gone:
                    if leases.get(record.owner) == record:  # not one that was made again meanwhile
                        errors.run(partial(_release, call, record, leases, context))
        if conf.foreign_ipam:
            errors.run(lambda: _delegate_if_known(call, conf.foreign_ipam, context))
        errors.run(lambda: firewall_reload.restore(call, conf.network, conf.data_dir, context))
        errors.check()

    def status(self, call: Invocation, context: Context) -> None:
        """STATUS: whether an ADD would succeed now (50 if not), and whether containers work (51 if not)."""
        conf = self.plugin.load(call, context)
        if isinstance(conf.ipam, IpamConf):
            allocate.check_capacity(conf.ipam, context.leases(conf.network, conf.data_dir))
        elif conf.ipam:
            _require(call, conf.ipam.type, context)
            _delegate_if_known(call, conf.ipam.type, context)
        gone = firewall_reload.restore(call, conf.network, conf.data_dir, context)
        self.plugin.check_status(conf, context.kernel.observe(self.plugin.status_questions(conf)))
        if gone:
            remedy = "where they are not loaded again: run cni-v6ctl reload; the next call of any kind does so too"
            raise CniError(codes.LIMITED, gone, remedy)


# Addresses


def _lost_families(site: Site, conf: MainConf, seen: Snapshot) -> Mapping[int, CniError]:
    """What our own allocation need not look for, and why; known before an address is spent."""
    if not isinstance(conf.ipam, IpamConf):
        return {}
    off = families.ipv6_off(site.netns, seen, gateway=conf.is_gateway)
    return lost_families(conf.ipam.sets, conf.ipam.optional, off)


def _allocate(
    call: Invocation, network: Network, draft: Attachment, context: Context, undo: ExitStack,
    lost: Mapping[int, CniError],
) -> Allocation:
    """Addresses from our store or another plugin; recorded before the kernel is touched, so that DEL and GC find it.

    :param draft: the record without them.
    """
    conf = network.conf
    if isinstance(conf.ipam, IpamConf):
        record = partial(register.register, network, context=context)
        allocation = allocate.allocate(conf.ipam, draft, context, call.log, record, lost)
        undo.callback(_attempt, call, lambda: register.unregister(call.owner, conf.data_dir, context))
        return allocation
    _record(call, network, draft, context)
    undo.callback(_attempt, call, lambda: register.unregister(call.owner, conf.data_dir, context))
    if conf.ipam is None:
        return Allocation()
    allocation = _from_delegate(call, conf.ipam, context, undo)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        register.complete(network, draft, allocation.ips, leases, context)
    return allocation


def _record(call: Invocation, network: Network, draft: Attachment, context: Context) -> None:
    """Without addresses of ours: in the place of what an earlier container of the same id has left, if it has ended."""
    conf = network.conf

    def record() -> None:
        with context.leases(conf.network, conf.data_dir).transaction() as leases:
            register.register(network, draft, leases, context) if conf.ipam is None else leases.put(draft)

    try:
        record()
    except CniError as error:
        if error.code != codes.ALREADY_ATTACHED:
            raise
        if not earlier.release_at(conf.data_dir, draft.owner, context, call.log):
            raise
        if isinstance(conf.ipam, ForeignIpam):
            context.delegate(call, conf.ipam.type, "DEL")
        record()


def _from_delegate(call: Invocation, foreign: ForeignIpam, context: Context, undo: ExitStack) -> Allocation:
    # Also when its ADD fails half-way: SPEC.md, section 4.
    undo.callback(_attempt, call, lambda: context.delegate(call, foreign.type, "DEL"))
    result = from_json(context.delegate(call, foreign.type, "ADD"), call.version)
    if not result.ips:
        raise CniError(codes.IO_FAILURE, f"ipam.type: plugin {foreign.type} gave no address", "see its configuration")
    return Allocation(tuple(replace(ip, interface=None) for ip in result.ips), result.routes, result.dns)


def _record_proxied(conf: MainConf, site: Site, allocation: Allocation, seen: Snapshot, context: Context) -> None:
    """Addresses that the node is about to answer for: DEL and GC know them from the record alone."""
    proxied = ndp_proxy.proxied(conf, allocation.ips, seen)
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


def _remove_interface(call: Invocation, conf: RemovalConf, context: Context, *, foreign: bool) -> bool:
    """Whether there was one of ours.

    :param foreign: whether one that the reference plugin made may be taken out of CNI_NETNS.
    """
    host = host_interface(call.owner)
    if context.kernel.observe([GetLink(HOST, host)]).link(HOST, host):
        context.kernel.remove([ops.DeleteLink(HOST, host)])
        return True
    if call.netns and foreign:
        _remove_foreign(call, conf, context)
    return False


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
        # Or what is left of it: umount without rm leaves a file.
        if error.code in (codes.UNKNOWN_CONTAINER, codes.INVALID_NETNS):
            return
        raise
    if _holds(seen, call, record):
        context.kernel.remove([ops.DeleteLink(call.netns, call.ifname)])


def _holds(seen: Snapshot, call: Invocation, record: Attachment) -> bool:
    link = seen.link(call.netns, call.ifname)
    present = {address.partition("/")[0] for address in seen.addresses(call.netns, call.ifname)}
    return link is not None and link.kind == "veth" and present.issuperset(record.addresses)


# GC and STATUS


def _release(call: Invocation, record: Attachment, leases: Transaction, context: Context) -> None:
    register.release(record, leases, context)
    call.log.info(f"removed {record.owner} {' '.join((*record.addresses, *record.prefixes))}")


def _is_unlisted(call: Invocation, owner: Owner) -> bool:
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
