"""Running containers follow the prefix that the node has now: ``cni-v6ctl renumber``.

In two steps, a call each. First a container is given an address of the new prefix beside the old one, which is
deprecated: what it calls from now on has the new one, and what goes on, goes on (RFC 4192, section 2). When the node
has nothing of the old prefix any more, the address of it goes. The default route leads to a link-local gateway, and
stays. A call that was cut off is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from cni_v6.attachments import allocate, firewall_reload, load_config, old_gateways, renumber_plan
from cni_v6.attachments.context import Context
from cni_v6.attachments.renumber_plan import Network, Renumbering
from cni_v6.attachments.stale import UNKNOWN
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import policy_change
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetElements, GetLifetimes, GetLink, Lifetime, Question, Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import overlap
from cni_v6.plan import (
    bridge,
    bridge_port,
    features,
    firewall_elements,
    forwarding,
    gateways,
    interface_prefix as plan_prefix,
    ndp_proxy,
)
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner, owner_of_alias
from cni_v6.protocol.result import Address

Find = Callable[[tuple[int, int]], "str | None"]  # a namespace as ``Kernel.netns_id`` tells it -> a path to it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a container, in words."""

    owner: Owner
    words: str
    failed: bool = False


def look(call: Invocation, context: Context) -> Network | None:
    """A network of ours; None where no range follows a prefix.

    :raises CniError: INVALID_CONFIG, NODE_CONFLICT, TRY_AGAIN.
    """
    conf = load_config.bridge(call, context)
    if not isinstance(conf.ipam, IpamConf) or not conf.ipam.follows:
        return None
    seen = context.kernel.observe(plan_prefix.questions(conf.ipam.follows))
    return Network(call, conf, allocate.with_secret(conf.ipam, context), seen)


def renumber(network: Network, context: Context, find: Find, *, dry: bool) -> Iterator[Outcome]:
    """What is done to each running container of a network, told when it is done.

    :param dry: nothing is done.
    """
    store, home = context.leases(network.conf.network, network.conf.data_dir), context.kernel.netns_id(HOST)
    with store.transaction() as leases:
        found = sorted((each.owner, each.netns) for each in leases.attachments() if _is_running(each, context, home))
    for owner, namespace in found:
        try:
            if not dry:
                _prepare(network, owner, context)
            with store.transaction() as leases:
                record = leases.get(owner)
                if record and record.netns == namespace:
                    yield Outcome(owner, _one(network, record, leases, context, find, dry=dry))
        except CniError as error:
            yield Outcome(owner, f"error {error.code}: {error}", failed=True)


def _is_running(record: Attachment, context: Context, home: tuple[int, int]) -> bool:
    return bool(record.host) and record.boot == context.boot and record.home in (UNKNOWN, home)


def _prepare(network: Network, owner: Owner, context: Context) -> None:
    """The firewall's tables, if they are gone: before the lock is taken, since it takes them all."""
    if network.conf.firewall.wanted:
        asked = bridge.questions(Site(owner, HOST, context.id), network.conf)
        firewall_reload.prepare(network.call, network.conf, context, context.kernel.observe(asked))


def _one(
    network: Network, record: Attachment, leases: Transaction, context: Context, find: Find, *, dry: bool
) -> str:
    turns = [turn for turn in renumber_plan.renumberings(network, record) if turn.earlier]
    if not turns:
        return "unchanged"
    given = {turn.index: turn.present or renumber_plan.choose(network, turn, record, leases, dry=dry) for turn in turns}
    doubled = [turn for turn in turns if turn.present]
    over = tuple(each for turn in doubled for each in turn.earlier if renumber_plan.is_over(network, turn, each))
    if dry:
        return renumber_plan.words(turns, given, over)
    netns = find(record.netns)
    if netns is None or not _is_its(record, netns, context):
        raise CniError(NODE_CONFLICT, "its network namespace is not to be found", "restart the container")
    wider = _extend(network, record, given, turns, leases, context)
    _apply(network, wider, given, turns, netns, context)
    if over:
        _shed(wider, over, netns, leases, context)
    return renumber_plan.words(turns, given, over)


# What is done


def _is_its(record: Attachment, netns: str, context: Context) -> bool:
    """Whether a namespace is the container's: it has an interface of the right name with an address that is leased to
    nobody else, and the other end is on the node."""
    ifname = record.owner.ifname
    asked: list[Question] = [GetLink(HOST, record.host), GetLink(netns, ifname), GetLifetimes(netns, ifname)]
    seen = context.kernel.observe(asked)
    host, inside = seen.link(HOST, record.host), seen.link(netns, ifname)
    if host is None or inside is None or inside.kind != "veth" or owner_of_alias(host.alias) != record.owner:
        return False
    return any(each.address.partition("/")[0] in record.addresses for each in seen.lifetimes(netns, ifname))


def _extend(
    network: Network,
    record: Attachment,
    given: dict[int, str],
    turns: list[Renumbering],
    leases: Transaction,
    context: Context,
) -> Attachment:
    """The attachment with its new addresses, recorded before the kernel is touched."""
    conf = network.conf
    more = {turn.earlier[0]: given[turn.index] for turn in turns if not turn.present}
    addresses = (*(more.get(each, each) for each in record.addresses), *more)
    ips = list(gateways.of_ranges(conf, given.values()))
    seen = _seen(network, record, context)
    is_ours = bridge_port.is_ours(conf, context.id, seen)
    anchors = old_gateways.settled(conf, record, ips, leases, context, is_ours=is_ours).anchors
    proxied = ndp_proxy.proxied(conf, ips, seen)
    wider = replace(
        record, addresses=addresses, reuse=_ways(network, record, more, given),
        policy=_joined(conf, record, tuple(more.values()), addresses),
        anchors=tuple(dict.fromkeys((*record.anchors, *anchors))),
        proxied=tuple(dict.fromkeys((*record.proxied, *proxied))),
    )
    if wider != record:
        leases.add_addresses(wider)
    return wider


def _seen(network: Network, record: Attachment, context: Context) -> Snapshot:
    """What an ADD knows of the node."""
    seen = context.kernel.observe(bridge.questions(Site(record.owner, HOST, context.id), network.conf))
    if not network.conf.is_gateway:
        return seen
    return seen.with_answers(context.kernel.observe(features.more_questions(network.conf, seen)))


def _ways(network: Network, record: Attachment, more: dict[str, str], given: dict[int, str]) -> tuple[str, ...]:
    """``Attachment.reuse`` of the addresses as they are then; nothing where it is not known of all."""
    if len(record.reuse) != len(record.addresses):
        return ()
    known = dict(zip(record.addresses, record.reuse))
    ways = {given[index]: network.ipam.policy.reuse_mode(network.ipam.sets[index]) for index in given}
    return (*(ways[more[each]] if each in more else known[each] for each in record.addresses),
            *(known[each] for each in more))


def _joined(conf: BridgeConf, record: Attachment, more: tuple[str, ...], addresses: tuple[str, ...]) -> Policy | None:
    if record.policy is None or not more:
        return record.policy
    alone = firewall_elements.with_policy(
        conf, replace(record, policy=None, prefixes=()), more, record.policy.mac
    ).policy
    return policy_change.joined(record.policy, alone or replace(record.policy, addresses=more), addresses)


def _apply(
    network: Network, record: Attachment, given: dict[int, str], turns: list[Renumbering], netns: str, context: Context
) -> None:
    """All that the record says, be it done already: the firewall first, the container last."""
    conf, ifname = network.conf, record.owner.ifname
    ips = list(gateways.of_ranges(conf, given.values()))
    seen = _seen(network, record, context)
    allocation = Allocation(tuple(ips))
    steps: list[Op] = []
    if conf.is_gateway:
        steps += [*forwarding.turn_on(seen, conf.gateway_interface), *ndp_proxy.node_steps(conf, allocation, seen)]
        steps += map(gateways.ensure, gateways.anchors(conf, ips))
        steps += ndp_proxy.arrival_steps(conf, allocation, seen)
    _tell_firewall(record, context)
    held = {
        each.address: each for each in context.kernel.observe([GetLifetimes(netns, ifname)]).lifetimes(netns, ifname)
    }
    steps += _in_container(ips, turns, held, netns, ifname)
    context.kernel.apply(steps)


def _in_container(
    ips: list[Address], turns: list[Renumbering], held: Mapping[str, Lifetime], netns: str, ifname: str
) -> Iterator[Op]:
    for ip in ips:
        if ip.address not in held:
            yield ops.AddAddress(netns, ifname, ip.address)
        elif not held[ip.address].preferred:
            yield ops.SetPreferred(netns, ifname, ip.address, preferred=True)
    earlier = {address for turn in turns for address in turn.earlier}
    for address, lifetime in held.items():
        if address.partition("/")[0] in earlier and lifetime.preferred:
            yield ops.SetPreferred(netns, ifname, address, preferred=False)


def _tell_firewall(record: Attachment, context: Context) -> None:
    """The elements that are missing; one under whose key something else stands takes its place."""
    if record.policy is None:
        return
    wanted = elements(record.owner, record.policy)
    seen = context.kernel.observe([GetElements(wanted)]).elements(wanted)
    there = {(each.family, each.set, each.key): each for each in seen}
    found = [(each, there.get((each.family, each.set, each.key))) for each in wanted]
    context.kernel.remove(
        [ops.RemoveElements(tuple(other for each, other in found if other and other.data != each.data))]
    )
    missing = tuple(each for each, other in found if other is None or other.data != each.data)
    context.kernel.apply([ops.AddElements(missing)] if missing else [])


def _shed(record: Attachment, over: tuple[str, ...], netns: str, leases: Transaction, context: Context) -> None:
    """Take addresses away: from the container first, and the lease last, as a DEL does."""
    ifname = record.owner.ifname
    held = context.kernel.observe([GetLifetimes(netns, ifname)]).lifetimes(netns, ifname)
    context.kernel.remove([
        ops.RemoveAddress(netns, ifname, each.address) for each in held if each.address.partition("/")[0] in over
    ])
    less = replace(
        record.holding(tuple(each for each in record.addresses if each not in over)),
        policy=record.policy and policy_change.parted(record.policy, over),
        anchors=tuple(each for each in record.anchors if not _is_left(each, record, over)),
        proxied=tuple(each for each in record.proxied if each.address not in over),
    )
    if record.policy and less.policy:
        gone, _ = policy_change.difference(record.owner, record.policy, less.policy)
        context.kernel.remove([ops.RemoveElements(gone)])
    context.kernel.remove(ndp_proxy.removal(replace(
        record, proxied=tuple(each for each in record.proxied if each.address in over))))
    left = tuple(each for each in record.anchors if each not in less.anchors)
    if left:
        old_gateways.release(replace(record, anchors=left), leases, context)
    leases.remove_addresses(less)


def _is_left(anchor: GatewayAddress, record: Attachment, over: tuple[str, ...]) -> bool:
    """Whether a route was for addresses that go alone. A gateway's address stays: a route may lead to it."""
    held = [each for each in record.addresses if ":" in each and overlap(f"{each}/128", anchor.prefix)]
    return anchor.on_link and set(over).issuperset(held)
