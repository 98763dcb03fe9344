"""Gives running containers addresses of the prefix that the node has now: ``cni-v6ctl renumber``.

It takes two steps, one call each. First a container gets an address of the new prefix beside the old one, which is
deprecated: new connections use the new address, and existing ones continue (RFC 4192, section 2). When the node has
nothing of the old prefix any more, the old address is removed. The default route leads to a link-local gateway, and
stays. If a call is interrupted, the next one completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from cni_v6.attachments import allocate, firewall_reload, namespaces, old_gateways, renumber_plan
from cni_v6.attachments.context import Context
from cni_v6.attachments.renumber_plan import MainPlugin, Network, Renumbering
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import policy_change
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Lifetime
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetElements, GetLifetimes, GetLink, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress, RoutedLink
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import overlap
from cni_v6.plan import (
    features,
    firewall_elements,
    forwarding,
    gateways,
    interface_prefix as plan_prefix,
    ndp_proxy,
    source_routing,
)
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner, owner_of_alias
from cni_v6.protocol.result import Address
from cni_v6.values import dataclass

Find = Callable[[tuple[int, int]], "str | None"]  # a namespace's ``Kernel.netns_id`` -> a path to it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done to a container, in words."""

    owner: Owner
    words: str
    failed: bool = False


def look(call: Invocation, plugin: MainPlugin, context: Context) -> Network | None:
    """Load a network of ours; None if none of its ranges follows a prefix.

    :param plugin: the main plugin of its type.

    :raises CniError: INVALID_CONFIG, NODE_CONFLICT, TRY_AGAIN.
    """
    conf = plugin.load(call, context)
    if not isinstance(conf.ipam, IpamConf) or not conf.ipam.follows:
        return None
    seen = context.kernel.observe(plan_prefix.questions(conf.ipam.follows))
    return Network(call, plugin, conf, allocate.with_secret(conf.ipam, context), seen)


def renumber(network: Network, context: Context, find: Find, *, dry: bool) -> Iterator[Outcome]:
    """Renumber each running container of a network, and yield the outcome of each.

    :param dry: change nothing.
    """
    store, host = context.leases(network.conf.network, network.conf.data_dir), context.kernel.netns_id(HOST)
    with store.transaction() as leases:
        running = sorted(
            (record.owner, record.netns) for record in leases.attachments()
            if namespaces.is_here(record, context.boot, host)
        )
    for owner, namespace in running:
        try:
            if not dry:
                _prepare(network, owner, context)
            with store.transaction() as leases:
                record = leases.get(owner)
                if record and record.netns == namespace:
                    yield Outcome(owner, _renumber_container(network, record, leases, context, find, dry=dry))
        except CniError as error:
            yield Outcome(owner, f"error {error.code}: {error}", failed=True)


def _prepare(network: Network, owner: Owner, context: Context) -> None:
    """Load the firewall's tables if they are missing. Before this network's lock: loading takes the locks of all."""
    if network.conf.firewall.wanted:
        questions = network.plugin.questions(Site(owner, HOST, context.id), network.conf)
        firewall_reload.prepare(network.call, network.conf, context, context.kernel.observe(questions))


def _renumber_container(
    network: Network, record: Attachment, leases: Transaction, context: Context, find: Find, *, dry: bool
) -> str:
    steps = [step for step in renumber_plan.renumberings(network, record) if step.earlier]
    if not steps:
        return "unchanged"
    chosen = {
        step.index: step.present or renumber_plan.choose(network, step, record, leases, dry=dry) for step in steps
    }
    renumbered = [step for step in steps if step.present]
    expired = tuple(
        address for step in renumbered for address in step.earlier if renumber_plan.is_over(network, step, address)
    )
    if dry:
        return renumber_plan.words(steps, chosen, expired)
    netns = find(record.netns)
    if netns is None or not _is_namespace_of(record, netns, context):
        raise CniError(NODE_CONFLICT, "its network namespace is not to be found", "restart the container")
    extended = _record_new_addresses(network, record, chosen, steps, leases, context)
    _apply(network, extended, chosen, steps, netns, context)
    if expired:
        _remove_expired(extended, expired, netns, leases, context)
    return renumber_plan.words(steps, chosen, expired)


# The steps


def _is_namespace_of(record: Attachment, netns: str, context: Context) -> bool:
    """Whether a namespace is the container's: its interface has the right name and an address of the record, and the
    host interface on the node has the owner in its alias."""
    ifname = record.owner.ifname
    questions: list[Question] = [GetLink(HOST, record.host), GetLink(netns, ifname), GetLifetimes(netns, ifname)]
    seen = context.kernel.observe(questions)
    host, container = seen.link(HOST, record.host), seen.link(netns, ifname)
    if host is None or container is None or container.kind != "veth" or owner_of_alias(host.alias) != record.owner:
        return False
    return any(lifetime.address.partition("/")[0] in record.addresses for lifetime in seen.lifetimes(netns, ifname))


def _record_new_addresses(
    network: Network,
    record: Attachment,
    chosen: dict[int, str],
    steps: list[Renumbering],
    leases: Transaction,
    context: Context,
) -> Attachment:
    """The attachment with its new addresses, recorded before the kernel is changed."""
    conf = network.conf.at(record.host)
    added = {step.earlier[0]: chosen[step.index] for step in steps if not step.present}
    addresses = (*(added.get(address, address) for address in record.addresses), *added)
    ips = list(gateways.of_ranges(conf, chosen.values()))
    seen = _observe(network, record, context)
    part = network.plugin.network(Site(record.owner, HOST, context.id), conf, seen)
    anchors = old_gateways.settled(conf, ips, leases, context, is_ours=part.is_ours, rest=part.rest)
    proxied = ndp_proxy.proxied(conf, ips, seen)
    extended = replace(
        record, addresses=addresses, reuse=_reuse_modes(network, record, added, chosen),
        policy=_joined_policy(conf, record, tuple(added.values()), addresses),
        anchors=tuple(dict.fromkeys((*record.anchors, *anchors))),
        proxied=tuple(dict.fromkeys((*record.proxied, *proxied))),
        rules=record.rules and source_routing.extended(record.rules, _inside(record, ips)),
    )
    if extended != record:
        leases.add_addresses(extended)
    return extended


def _inside(record: Attachment, ips: Iterable[Address]) -> list[Address]:
    """Addresses as the container has them: alone in their prefixes, if each container has a link of its own."""
    routed = isinstance(record.port, RoutedLink)
    return [Address(gateways.host_prefix(ip), ip.gateway) if routed else ip for ip in ips]


def _observe(network: Network, record: Attachment, context: Context) -> Snapshot:
    """The snapshot that an ADD would have of the node."""
    conf = network.conf.at(record.host)
    seen = context.kernel.observe(network.plugin.questions(Site(record.owner, HOST, context.id), conf))
    if not conf.is_gateway:
        return seen
    return seen.with_answers(context.kernel.observe(features.more_questions(conf, seen)))


def _reuse_modes(
    network: Network, record: Attachment, added: dict[str, str], chosen: dict[int, str]
) -> tuple[str, ...]:
    """``Attachment.reuse`` for the new list of addresses; () if it is not known for all of them."""
    if len(record.reuse) != len(record.addresses):
        return ()
    known = dict(zip(record.addresses, record.reuse))
    modes = {chosen[index]: network.ipam.policy.reuse_mode(network.ipam.sets[index]) for index in chosen}
    return (*(modes[added[address]] if address in added else known[address] for address in record.addresses),
            *(known[address] for address in added))


def _joined_policy(
    conf: MainConf, record: Attachment, added: tuple[str, ...], addresses: tuple[str, ...]
) -> Policy | None:
    if record.policy is None or not added:
        return record.policy
    alone = firewall_elements.with_policy(
        conf, replace(record, policy=None, prefixes=()), added, record.policy.mac
    ).policy
    return policy_change.joined(record.policy, alone or replace(record.policy, addresses=added), addresses)


def _apply(
    network: Network, record: Attachment, chosen: dict[int, str], steps: list[Renumbering], netns: str, context: Context
) -> None:
    """Apply everything in the record, also what an earlier call has already done: firewall first, container last."""
    conf, ifname = network.conf.at(record.host), record.owner.ifname
    ips = list(gateways.of_ranges(conf, chosen.values()))
    seen = _observe(network, record, context)
    allocation = Allocation(tuple(ips))
    operations: list[Op] = []
    if conf.is_gateway:
        operations += [*forwarding.node_steps(conf, allocation, seen), *ndp_proxy.node_steps(conf, allocation, seen)]
        rest = network.plugin.network(Site(record.owner, HOST, context.id), conf, seen).rest
        operations += map(gateways.ensure, (*gateways.anchors(conf, ips), *rest))
        operations += ndp_proxy.arrival_steps(conf, allocation, seen)
    if isinstance(record.port, RoutedLink):
        operations += [ops.SetNeighbour(HOST, record.host, ip.ip, record.port.mac) for ip in ips]
    _update_elements(record, context)
    lifetimes = context.kernel.observe([GetLifetimes(netns, ifname)]).lifetimes(netns, ifname)
    present = {lifetime.address: lifetime for lifetime in lifetimes}
    own = _inside(record, ips)
    operations += _in_container(own, steps, present, netns, ifname)
    if record.rules:
        operations += source_routing.renumber_steps(record.rules, netns, ifname, own)
    context.kernel.apply(operations)


def _in_container(
    ips: list[Address], steps: list[Renumbering], present: Mapping[str, Lifetime], netns: str, ifname: str
) -> Iterator[Op]:
    for ip in ips:
        if ip.address not in present:
            yield ops.AddAddress(netns, ifname, ip.address)
        elif not present[ip.address].preferred:
            yield ops.SetPreferred(netns, ifname, ip.address, preferred=True)
    earlier = {address for step in steps for address in step.earlier}
    for address, lifetime in present.items():
        if address.partition("/")[0] in earlier and lifetime.preferred:
            yield ops.SetPreferred(netns, ifname, address, preferred=False)


def _update_elements(record: Attachment, context: Context) -> None:
    """Add the missing elements; replace a map entry that has other data under the same key."""
    if record.policy is None:
        return
    expected = elements(record.owner, record.policy)
    seen = context.kernel.observe([GetElements(expected)]).elements(expected)
    present = {(element.family, element.set, element.key): element for element in seen}
    pairs = [(element, present.get((element.family, element.set, element.key))) for element in expected]
    outdated = tuple(old for element, old in pairs if old and old.data != element.data)
    context.kernel.remove([ops.RemoveElements(outdated)])
    missing = tuple(element for element, old in pairs if old is None or old.data != element.data)
    context.kernel.apply([ops.AddElements(missing)] if missing else [])


def _remove_expired(
    record: Attachment, expired: tuple[str, ...], netns: str, leases: Transaction, context: Context
) -> None:
    """Remove expired addresses: from the container first, the lease last, as DEL does."""
    ifname = record.owner.ifname
    lifetimes = context.kernel.observe([GetLifetimes(netns, ifname)]).lifetimes(netns, ifname)
    over = [Address(lifetime.address) for lifetime in lifetimes if lifetime.address.partition("/")[0] in expired]
    rules = record.rules and source_routing.reduced(record.rules, over)
    steps: list[Op] = [ops.RemoveAddress(netns, ifname, ip.address) for ip in over]
    if record.rules and rules:
        steps += source_routing.reduction(record.rules, rules, netns, ifname)
    context.kernel.remove(steps)
    reduced = replace(
        record.holding(tuple(address for address in record.addresses if address not in expired)),
        policy=record.policy and policy_change.parted(record.policy, expired),
        anchors=tuple(anchor for anchor in record.anchors if not _is_unused(anchor, record, expired)),
        proxied=tuple(entry for entry in record.proxied if entry.address not in expired), rules=rules,
    )
    if record.policy and reduced.policy:
        removed, _ = policy_change.difference(record.owner, record.policy, reduced.policy)
        context.kernel.remove([ops.RemoveElements(removed)])
    context.kernel.remove(ndp_proxy.removal(replace(
        record, proxied=tuple(entry for entry in record.proxied if entry.address in expired))))
    released = tuple(anchor for anchor in record.anchors if anchor not in reduced.anchors)
    if released:
        own = [anchor for anchor in released if anchor.home == record.host]  # routes to the container alone
        context.kernel.remove([gateways.take_away(anchor) for anchor in own])
        old_gateways.release(replace(record, addresses=expired, anchors=released), leases, context)
    leases.remove_addresses(reduced)


def _is_unused(anchor: GatewayAddress, record: Attachment, expired: tuple[str, ...]) -> bool:
    """Whether an on-link route served only expired addresses. A gateway address stays: a route may lead to it."""
    covered = [address for address in record.addresses if ":" in address and overlap(f"{address}/128", anchor.prefix)]
    return anchor.on_link and ":" in anchor.prefix and set(expired).issuperset(covered)
