"""The frame of every main plugin: ADD, DEL, CHECK, GC and STATUS, written with the parts that differ by plugin.

A main plugin is a configuration class, a plan, and a module that implements ``MainPlugin`` for this frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol

from cni_v6 import errors as codes
from cni_v6.attachments import (
    allocate,
    earlier,
    firewall_reload,
    first_add,
    load_config,
    namespaces,
    old_gateways,
    register,
    remove_interface,
    renumber_plan,
)
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.families import lost as lost_families
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import Conf, ForeignIpam, MainConf, RemovalConf, is_stripped
from cni_v6.errors import CniError, Errors
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.plan import families, features, ndp_proxy, prefix_routes
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.plugins import status
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result, after
from cni_v6.protocol.versions import PER_FAMILY
from cni_v6.values import dataclass


class MainPlugin(Protocol[Conf]):
    """The parts that differ between main plugins. All but ``load`` and ``ports`` are pure."""

    def load(self, call: Invocation, context: Context) -> Conf:
        """Load the configuration of ADD, CHECK and STATUS.

        :raises CniError: INVALID_CONFIG and other errors of ``config``.
        """
        ...

    def questions(self, site: Site, conf: Conf) -> Iterable[Question]:
        """The questions that an ADD asks before it allocates addresses, ``features.questions`` included."""
        ...

    def check_free(self, site: Site, conf: Conf, seen: Snapshot) -> None:
        """Refuse an attachment that cannot work, before an address is leased.

        :raises CniError: NODE_CONFLICT, ALREADY_ATTACHED.
        """
        ...

    def network(self, site: Site, conf: Conf, seen: Snapshot) -> Network:
        """What ``register`` needs of the network."""
        ...

    def plan_add(self, site: Site, conf: Conf, allocation: Allocation, seen: Snapshot) -> Plan:
        """The operations and the result of an ADD."""
        ...

    def check_questions(
        self, site: Site, conf: Conf, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        """The questions about the interfaces that CHECK asks."""
        ...

    def differences(
        self, site: Site, conf: Conf, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        """The differences between a result, or the record, and the kernel, one phrase for each."""
        ...

    def ports(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[tuple[str, Owner]]:
        """The names of the node's interfaces whose alias names an owner of this network, and that owner.

        :param known: names that are left out.
        :param among: the names that are looked at; None for all.
        """
        ...

    def status_questions(self, conf: Conf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        """The questions that STATUS asks.

        :param node: the node's machine id (``Site.node``).
        :param records: the network's attachments.
        """
        ...

    def more_status_questions(self, conf: Conf, seen: Snapshot) -> Iterable[Question]:
        """The further questions of STATUS."""
        ...

    def check_status(self, conf: Conf, node: str, records: Sequence[Attachment], seen: Snapshot) -> Iterable[str]:
        """
        :returns: warnings.
        :raises CniError: NOT_AVAILABLE, or what an ADD would end with; LIMITED when running containers are cut off.
        """
        ...


@dataclass(frozen=True, slots=True)
class Frame(Generic[Conf]):
    """The five commands of one main plugin. ``few``: None where STATUS always looks at all containers."""

    plugin: MainPlugin[Conf]
    few: status.Few[Conf] | None = None

    def add(self, call: Invocation, context: Context) -> Result:
        """ADD: attach the container. On failure, undo everything that was done for it."""
        plugin, conf = self.plugin, self.plugin.load(call, context)
        site = Site(call.owner, call.netns, context.id)
        inside, node = namespaces.namespaces(call, context)
        questions = tuple(plugin.questions(site, conf))
        seen = earlier.observe(site, conf, inside, questions, context)
        plugin.check_free(site, conf, seen)
        lost = _lost_families(site, conf, seen)
        context.data_dirs.remember(conf.data_dir)
        seen = _plug_in_again(call, conf, seen, questions, context)
        firewall_reload.prepare(call, conf, context, seen)
        with ExitStack() as undo:
            host = site.host if conf.has_host_end else ""
            attachment = Attachment(call.owner, (), host, inside, context.now(), context.boot, home=node)
            network = plugin.network(site, conf, seen)
            allocation = _allocate(call, network, attachment, context, undo, lost)
            if network.recorded:
                network.recorded(context)
            if conf.is_gateway and 6 in allocation.families():
                seen = seen.with_answers(context.kernel.observe(features.more_questions(conf, seen)))
                _record_proxied(conf, site, allocation, seen, context)
            for warning in features.warnings(conf, allocation, seen):
                call.log.warning(warning)
            plan = plugin.plan_add(site, conf, allocation, seen)
            if conf.may_route_by_source:
                register.record_rules(site, plan.ops, conf.data_dir, context)
            if network.former:
                plan = replace(plan, ops=(*plan.ops, *old_gateways.answering(network.former, context)))
            if network.claimed:
                plan = replace(plan, ops=(*plan.ops, *register.turn_on(network.claimed, plan.ops)))
            result = plan.answer(context.kernel.apply(plan.ops), call.log)
            if plan.complete:
                result = plan.complete(result, context.kernel.observe(plan.found))
            undo.pop_all()
        return result if call.version in PER_FAMILY else after(call.prev_result, result)

    def delete(self, call: Invocation, context: Context) -> None:
        """DEL: delete the container's interface, then free its addresses: no container gets one that still answers.

        Needs neither the namespace nor prevResult nor the configuration of the ADD. What no longer exists is no error.
        """
        conf = load_config.removal(call, context)
        errors = Errors()
        freed: list[Attachment | bool | None] = []
        refused = namespaces.refused(call, context) if call.netns else None
        errors.run(lambda: freed.append(remove_interface.remove(call, conf, context, foreign=not refused)))
        if not errors.caught and not (refused and conf.network not in context.data_dirs.recorded(conf.data_dir)):
            had = any(freed)
            errors.run(lambda: freed.append(register.unregister(call.owner, conf.data_dir, context, was_there=had)))
        if conf.foreign_ipam:
            errors.run(lambda: context.delegate(call, conf.foreign_ipam, "DEL"))
        if refused and any(freed):
            call.log.warning(f"{refused.msg}: it was left alone, what the container had is freed")
        elif refused:
            errors.caught.append(refused)
        if any(isinstance(record, Attachment) and record.policy for record in freed):
            errors.run(lambda: firewall_reload.restore(call, conf.network, conf.data_dir, context))
        call.log.released = tuple(
            address for record in freed if isinstance(record, Attachment) for address in record.addresses
        )
        errors.check()

    def check(self, call: Invocation, context: Context) -> None:
        """CHECK: compare the kernel and the leases with prevResult; the error names every difference."""
        plugin, conf = self.plugin, self.plugin.load(call, context)
        assert call.prev_result is not None  # invocation.parse requires it
        site = Site(call.owner, call.netns, context.id)
        namespaces.namespaces(call, context)
        record, damaged = firewall_reload.mended(call, conf, context)
        promised = renumber_plan.promised(prefix_routes.without(call.prev_result, record), conf, record)
        if isinstance(conf.ipam, IpamConf):
            allocate.check_leases(conf.ipam, call.owner, promised.ips, record)
        elif conf.ipam:
            context.delegate(call, conf.ipam.type, "CHECK")
        questions = *plugin.check_questions(site, conf, promised, record), *features.check_questions(conf, record)
        questions += features.inside_questions(site, conf, record)
        seen = firewall_reload.observed(questions, call, conf, context)
        found = [*damaged, *plugin.differences(site, conf, promised, record, seen)]
        found += [*features.inside_differences(site, conf, record, seen), *features.differences(conf, record, seen)]
        if conf.firewall.wanted:
            firewall_reload.restore(call, conf.network, conf.data_dir, context)
        if found:
            remedy = "run DEL and ADD for the container again"
            raise CniError(codes.CHECK_FAILED, f"{call.owner} differs from its result: {'; '.join(found)}", remedy)

    def collect(self, call: Invocation, context: Context) -> None:
        """GC: remove attachments that are not listed as valid and are older than this call, or provably stale.

        Their interfaces are removed too.
        """
        from cni_v6.attachments import unlisted  # for GC alone

        conf, started = load_config.removal(call, context), context.now()
        found = unlisted.find(call, conf, started, context, self.plugin.ports)
        errors = Errors()
        errors.run(lambda: context.kernel.remove([ops.DeleteLink(HOST, host) for host in found.links]))
        errors.run(lambda: context.kernel.remove(remove_interface.of_records(found.stale, context)))
        if found.stale and not errors.caught:
            with context.leases(conf.network, conf.data_dir).transaction() as leases:
                for record in found.stale:
                    if leases.get(record.owner) == record:  # not one that was added again meanwhile
                        errors.run(partial(_release, call, record, leases, context))
        if conf.foreign_ipam:
            errors.run(lambda: status.delegate_if_known(call, conf.foreign_ipam, context))
        errors.run(lambda: firewall_reload.restore(call, conf.network, conf.data_dir, context))
        errors.run(lambda: firewall_reload.mend(call, conf, context))
        errors.check()

    def status(self, call: Invocation, context: Context) -> None:
        """STATUS: whether an ADD would succeed now (50 if not), and whether containers work (51 if not)."""
        if is_stripped(call):
            return status.of_stripped(call, context)
        with status.not_available():
            plugin, conf = self.plugin, self.plugin.load(call, context)
            chosen, found = status.choose(conf, context) if self.few else status.Chosen(), None
            held, damaged = firewall_reload.attachments(call, conf, context) if chosen.records is None else ((), ())
            gone = status.restore_firewall(call, conf, context)
            status.check_addresses(call, conf, context)
            if self.few and chosen.records is not None:
                found = status.of_few(conf, plugin, self.few, chosen.look, chosen.records, context)
                held, damaged = firewall_reload.attachments(call, conf, context) if found is None else ((), ())
            found = found or status.of_all(call, conf, plugin, chosen.look, held, context)
            for warning in found.warnings:
                call.log.warning(warning)
        remedies = []
        if gone:
            remedies.append("where they are not loaded again: run cni-v6ctl reload, or make the next call of any kind")
        if damaged:
            remedies.append("look for what damages files on that disk")
        if found.lost:
            remedies.append("look for what removes files below ipam.dataDir")
        if remedies:
            raise CniError(codes.LIMITED, "; ".join(filter(None, (gone, *damaged, *found.lost))), "; ".join(remedies))
        if self.few:
            status.settle(conf, self.few, found, context)


# The bridge


def _plug_in_again(
    call: Invocation, conf: MainConf, seen: Snapshot, questions: tuple[Question, ...], context: Context
) -> Snapshot:
    """Before an ADD makes its bridge anew: plug in again what is left of the former one.

    :param seen: the answers to ``questions``.
    :returns: the answers as they are now.
    """
    link = seen.link(HOST, conf.segment) if conf.segment else None
    if not conf.segment or (link and (link.up or link.kind != "bridge")):
        return seen
    from cni_v6.attachments import repair  # once in the life of a bridge

    for words in (said := list(repair.restore(conf.segment, context))):
        call.log.warning(words)
    return context.kernel.observe(questions) if said else seen


# Addresses


def _lost_families(site: Site, conf: MainConf, seen: Snapshot) -> Mapping[int, CniError]:
    """The optional families that the container cannot have, and why: known before an address is allocated."""
    if not isinstance(conf.ipam, IpamConf):
        return {}
    off = families.ipv6_off(site.netns, seen, gateway=conf.is_gateway)
    return lost_families(conf.ipam.sets, conf.ipam.optional, off)


def _allocate(
    call: Invocation, network: Network, attachment: Attachment, context: Context, undo: ExitStack,
    lost: Mapping[int, CniError],
) -> Allocation:
    """Allocate addresses from our store or with another IPAM plugin.

    The attachment is recorded before the kernel is changed, so that DEL and GC find it.

    :param attachment: the record without addresses.
    """
    conf = network.conf
    if isinstance(conf.ipam, IpamConf):
        record_it = partial(register.register, network, context=context, log=call.log)
        first = partial(first_add.prepare, call, conf, context)
        allocation = allocate.allocate(conf.ipam, attachment, context, call.log, record_it, lost, first)
        undo.callback(_attempt, call, lambda: register.unregister(call.owner, conf.data_dir, context))
        return allocation
    _record(call, network, attachment, context)
    undo.callback(_attempt, call, lambda: register.unregister(call.owner, conf.data_dir, context))
    if conf.ipam is None:
        return Allocation()
    # DEL is also called if its ADD fails: SPEC.md, section 4.
    undo.callback(_attempt, call, partial(context.delegate, call, conf.ipam.type, "DEL"))
    allocation = allocate.of_delegate(call, conf.ipam.type, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        register.complete(network, attachment, allocation.ips, leases, context, call.log)
    return allocation


def _record(call: Invocation, network: Network, attachment: Attachment, context: Context) -> None:
    """Record an attachment without addresses of ours. Replaces the record of an earlier container that has ended."""
    conf = network.conf

    def record() -> None:
        with context.leases(conf.network, conf.data_dir).transaction() as leases:
            first_add.prepare(call, conf, context, leases)
            if conf.ipam is None:
                register.register(network, attachment, leases, context, call.log)
            else:
                leases.put(attachment)

    try:
        record()
    except CniError as error:
        if error.code != codes.ALREADY_ATTACHED:
            raise
        if not earlier.release_at(conf.data_dir, attachment.owner, context, call.log):
            raise
        if isinstance(conf.ipam, ForeignIpam):
            context.delegate(call, conf.ipam.type, "DEL")
        record()


def _record_proxied(conf: MainConf, site: Site, allocation: Allocation, seen: Snapshot, context: Context) -> None:
    """Record the NDP proxy entries before they are made: DEL and GC know them only from the record."""
    proxied = ndp_proxy.proxied(conf, allocation.ips, seen)
    if not proxied:
        return
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(site.owner) or Attachment(site.owner, (), site.host, boot=context.boot)
        leases.update(replace(record, proxied=tuple(dict.fromkeys((*record.proxied, *proxied)))))


def _attempt(call: Invocation, step: Callable[[], object]) -> None:
    """Undo one step of a failed ADD. A failure is only logged, so that the error of the ADD is returned."""
    try:
        step()
    except CniError as error:
        call.log.warning(f"undoing the failed ADD: {error}")


# GC


def _release(call: Invocation, record: Attachment, leases: Transaction, context: Context) -> None:
    register.release(record, leases, context)
    call.log.info(f"removed {record.owner} {' '.join((*record.addresses, *record.prefixes))}")
    call.log.reclaimed += 1
