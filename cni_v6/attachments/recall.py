"""Rebuilds the records of a network from what the node has, if the store has vanished under running containers.

Somebody has removed the network's folder, or has mounted another one in its place. Without this the next ADD would give
the first container's address and MAC again. The node remembers: an alias names the owner of each port, the firewall's
elements have its addresses and what it may do, and the kernel lists the addresses of the port's other end.

A network remembers with its leases (``old_gateways.Memo``) that it was compared since the node was started. So an ADD
with a store asks the kernel nothing, and the first one after a boot only for the interfaces. STATUS compares each time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from cni_v6.allocation import ranges
from cni_v6.allocation.policy import SEQUENTIAL
from cni_v6.attachments import old_gateways
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.firewall.policy import Policy
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAllElements, GetLinks, GetPeerAddresses, Question
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.log import Log, counted
from cni_v6.net.addresses import from_text, to_text
from cni_v6.plan import features, gateways
from cni_v6.protocol.names import Owner, host_interface, owned


def check(conf: MainConf, leases: Transaction, context: Context, log: Log, but: Owner | None = None) -> None:
    """Record the attachments that the node has and the store does not, before an address is chosen.

    :param but: the owner whom the ADD is for.
    :raises CniError: KERNEL_REFUSED, STORE_FAILED.
    """
    memo = old_gateways.decode(leases.memo(), context.boot)
    if memo.recalled:
        return
    again(conf, leases, context, log, but)
    leases.keep_memo(old_gateways.encode(replace(memo, recalled=True), context.boot))


def again(conf: MainConf, leases: Transaction, context: Context, log: Log, but: Owner | None = None) -> tuple[str, ...]:
    """As ``check``, whether the store was compared since the boot or not: for STATUS.

    :returns: what was found, also logged; () if every attachment has its record.
    """
    links = context.kernel.observe([GetLinks()]).links()  # under the lock: an ADD writes its record before the link
    named = owned(links, conf.network)
    lost = {owner: link for owner, link in named if owner != but and leases.get(owner) is None}
    if not lost or _has_another_store(conf, context):
        return ()
    words = tuple(_rebuild(conf, lost, leases, context))
    for line in words:
        log.warning(line)
    return words


def lost(context: Context, known: Collection[Owner] = (), unread: Collection[str] = ()) -> list[Owner]:
    """The attachments that the node has and no data folder has a record of, sorted.

    No lock is taken. An ADD writes its record before it makes the interface, and a DEL deletes it after, so an
    interface that is there before and after the records were read, and is of none, has lost its record.

    :param known: owners whose records the caller has read.
    :param unread: networks whose records cannot be read; "" for all of them.
    :raises CniError: STORE_FAILED.
    """
    candidates = {owner for owner in _owners(context).difference(known) if not {owner.network, ""} & {*unread}}
    if not candidates:
        return []
    dirs, networks = context.data_dirs, {owner.network for owner in candidates}
    recorded = {
        record.owner for data_dir in dirs.known() for network in networks.intersection(dirs.recorded(data_dir))
        for record in context.leases(network, data_dir).peek()
    }
    return sorted((candidates - recorded) & _owners(context)) if candidates - recorded else []


def _owners(context: Context) -> frozenset[Owner]:
    return frozenset(owner for owner, _ in owned(context.kernel.observe([GetLinks()]).links()))


def _has_another_store(conf: MainConf, context: Context) -> bool:
    """Whether another data folder has a network of this name: then the attachments may be recorded there."""
    dirs = context.data_dirs
    return any(conf.network in dirs.recorded(known) for known in dirs.known() if known != conf.data_dir)


def forget(owner: Owner, leases: Transaction, context: Context, *, was_there: bool) -> None:
    """Remove the firewall elements of an owner whose record is lost: it had its interface, or all of the store is gone.

    The usual DEL without a record is a repeated one, which finds neither, and asks for no elements.

    :raises CniError: KERNEL_REFUSED.
    """
    if not was_there and old_gateways.decode(leases.memo(), context.boot).recalled:
        return
    from cni_v6.firewall.recovered import Present, policy_of  # few stores vanish

    present = context.kernel.observe([GetAllElements()]).all_elements()
    policy = policy_of(owner, host_interface(owner), "", (), Present(present))
    if policy:
        context.kernel.remove(features.removal(Attachment(owner, (), policy=policy), frozenset(), frozenset()))


def _rebuild(conf: MainConf, lost: Mapping[Owner, Link], leases: Transaction, context: Context) -> Iterator[str]:
    from cni_v6.firewall.recovered import Present, policy_of
    from cni_v6.plan import routed_repair

    questions: list[Question] = [GetPeerAddresses(link.name) for link in lost.values()]
    if not conf.is_shared:
        questions += [question for link in lost.values() for question in routed_repair.recall_questions(link.name)]
    seen = context.kernel.observe([GetAllElements(), *questions])
    node, present = context.kernel.netns_id(HOST), Present(seen.all_elements())
    found = []
    for owner, link in lost.items():
        held = [address.partition("/")[0] for address in seen.peer_addresses(link.name)]
        policy = policy_of(owner, link.name, link.master, held, present)
        addresses = _addresses(conf, held, policy)
        taken = {address: holder for address in addresses if (holder := leases.holder(address)) is not None}
        for address, holder in taken.items():
            yield f"{address} of {owner} is not in its record: {holder} holds it"
        record = Attachment(
            owner, tuple(address for address in addresses if address not in taken), link.name, created=context.now(),
            boot=context.boot, home=node, policy=policy,
            prefixes=tuple(prefix for prefix, _ in policy.prefixes) if policy else (),
        )
        ips = gateways.of_ranges(conf, record.addresses)
        record = replace(
            record, anchors=gateways.anchors(conf.at(link.name), ips), reuse=_reuse(conf, record.addresses),
            port=None if conf.is_shared else routed_repair.recalled(link.name, owner, seen)[0],
        )
        try:
            leases.put(record)
        except CniError as error:
            if error.code == STORE_FAILED:  # another try may succeed; its addresses must not be given meanwhile
                raise
            yield f"the record of {owner} cannot be rebuilt: {error}"
        else:
            found.append(record)
    _continue(conf, found, leases)
    yield (f"the store had no record of {counted(len(lost), 'container')} that this network has on the node: "
           f"somebody has removed it; rebuilt from the node: {'; '.join(map(_words, found)) or 'none'}")


def _words(record: Attachment) -> str:
    return f"{record.owner} {' '.join(record.addresses) or 'without an address'}"


def _continue(conf: MainConf, found: Iterable[Attachment], leases: Transaction) -> None:
    """Have sets that give no address twice go on behind what is held: what was released before is no longer known.

    In sequence only: of a random order there is nothing to go on from.
    """
    if not isinstance(conf.ipam, IpamConf) or conf.ipam.policy.order != SEQUENTIAL:
        return
    values = [from_text(address) for record in found for address in record.addresses]
    for index, range_set in enumerate(conf.ipam.sets):
        held = [value for family, value in values if ranges.origin(range_set, family, value)]
        if held and conf.ipam.policy.never_reuses(range_set):
            # The next one, which nobody has: a cursor at a used address says nothing new (``used.adopt``).
            leases.continue_from(index, to_text(range_set.family, max(held) + 1))


def _addresses(conf: MainConf, held: Iterable[str], policy: Policy | None) -> tuple[str, ...]:
    """The addresses of a container, in the order of the network's sets. Only those that are leased: of a range.

    A container may give itself more of them, those of others too: what the firewall's elements say counts for more.
    """
    if not isinstance(conf.ipam, IpamConf):
        return ()
    candidates = dict.fromkeys(policy.addresses if policy and policy.addresses else held)
    values = {address: from_text(address) for address in candidates}
    return tuple(
        address for range_set in conf.ipam.sets for address, value in values.items() if ranges.origin(range_set, *value)
    )


def _reuse(conf: MainConf, addresses: Collection[str]) -> tuple[str, ...]:
    if not isinstance(conf.ipam, IpamConf):
        return ()
    sets = [range_set for address in addresses for range_set in conf.ipam.sets
            if ranges.origin(range_set, *from_text(address))]
    return tuple(conf.ipam.policy.reuse_mode(range_set) for range_set in sets)
