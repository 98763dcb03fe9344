"""Attachments that are over and still hold addresses: proven over, and freed when a set runs dry or somebody asks.

Whatever cannot be proven counts as alive. No time is part of a proof: clocks jump.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from cni_v6.attachments import register
from cni_v6.attachments.context import Context
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAlive, GetLinks, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Leases, Transaction
from cni_v6.log import Log
from cni_v6.protocol.invocation import Invocation, valid_attachments
from cni_v6.protocol.names import Owner, host_interface, owner_of_alias

UNKNOWN = (0, 0)  # of a namespace, in records that another plugin wrote, or an older version
EARLIER_BOOT = "it is of an earlier boot"
ENDED = "its network namespace has ended"
UNLISTED = "it is not in the list of valid attachments"

StaleAttachment = tuple[Attachment, str]  # an attachment that can go, and why


@dataclass(frozen=True, slots=True)
class Valid:
    """What a list of valid attachments says: (container id, interface) each.

    ``before``: seconds since the epoch; attachments that were made later need not be in it.
    """

    listed: frozenset[tuple[str, str]]
    before: float

    def lacks(self, record: Attachment) -> bool:
        """Whether it says that an attachment is over."""
        return record.created < self.before and not is_listed(record.owner, self.listed)


def is_listed(owner: Owner, listed: Collection[tuple[str, str]]) -> bool:
    """Whether a list of (container id, interface) has an owner.

    A lease that an old ``host-local`` wrote names no interface: its container decides.
    """
    if owner.ifname:
        return (owner.container_id, owner.ifname) in listed
    return any(container_id == owner.container_id for container_id, _ in listed)


# What the kernel is asked, and what follows from its answers


@dataclass(frozen=True, slots=True)
class Here:
    """Where and when we are: ``boot`` as in records; ``home`` the node's own network namespace."""

    boot: str
    home: tuple[int, int]


def is_of_earlier_boot(record: Attachment, boot: str) -> bool:
    """No container outlives its boot. A record, or a node, that does not know its boot says nothing."""
    return "" not in (record.boot, boot) and record.boot != boot


def candidates(records: Iterable[Attachment], here: Here) -> list[Attachment]:
    """Those of this boot of which the kernel could say that they are over.

    An interface that is missing here says nothing of an attachment that was made in another namespace.
    """
    return [
        record for record in records
        if record.boot == here.boot != "" and record.netns != UNKNOWN
        and (not record.host or record.home == here.home != UNKNOWN)
    ]


def first_questions(records: Collection[Attachment]) -> tuple[Question, ...]:
    """What has to be known of candidates before anything else."""
    return (GetLinks(),) if any(record.host for record in records) else ()


def suspects(records: Collection[Attachment], seen: Snapshot) -> list[Attachment]:
    """Candidates without an interface on the node, under its own name or, renamed, by its alias.

    One whose interface is missing may be alive all the same: some runtimes take it into a namespace of their own.
    """
    links = seen.links() if any(record.host for record in records) else ()
    names = {link.name for link in links}
    owners: set[Owner | None] = {owner_of_alias(link.alias) for link in links}
    return [record for record in records if record.host not in names and record.owner not in owners]


def last_questions(records: Collection[Attachment]) -> tuple[Question, ...]:
    """What decides on suspects."""
    return (GetAlive(_namespaces(records)),) if records else ()


def ended(records: Collection[Attachment], seen: Snapshot) -> list[Attachment]:
    """Suspects whose namespace has ended: the interface in it, and its addresses, went with it."""
    alive = seen.alive(_namespaces(records)) if records else frozenset()
    return [record for record in records if record.netns not in alive]


def _namespaces(records: Iterable[Attachment]) -> frozenset[tuple[int, int]]:
    return frozenset(record.netns for record in records)


# Found, and freed


def dead(records: Iterable[Attachment], context: Context) -> list[StaleAttachment]:
    """Those that are provably over, and why.

    Costs one listing of the node's interfaces, and a look at the namespaces of those that have none there.

    :raises CniError: the kernel refused an answer.
    """
    known = list(records)
    earlier = [(record, EARLIER_BOOT) for record in known if is_of_earlier_boot(record, context.boot)]
    possible = candidates(known, Here(context.boot, context.kernel.netns_id(HOST)))
    unplugged = suspects(possible, context.kernel.observe(first_questions(possible)))
    over = ended(unplugged, context.kernel.observe(last_questions(unplugged)))
    return [*earlier, *((record, ENDED) for record in over)]


def reclaim(leases: Transaction, context: Context, log: Log) -> bool:
    """Free what is provably over of a network, under the lock that is held; a line of the log for each.

    :returns: whether anything was freed. What fails is told in the log: whoever calls has an error already.
    """
    freed = False
    try:
        for record, why in dead(leases.attachments(), context):
            register.release(record, leases, context)
            log.info(f"freed {' '.join(record.addresses) or 'no address'} of {record.owner}: {why}")
            freed = True
    except CniError as error:
        log.warning(f"freeing what containers without DEL have left: {error}")
    return freed


def sweep(store: Leases, context: Context, valid: Valid | None, *, dry: bool) -> Iterator[StaleAttachment]:
    """Free what is over of a network, and tell each when it is done.

    :param valid: a list that somebody vouches for, whose word counts as proof; None for none.
    :param dry: change nothing, and tell what would go.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED; what was told before is done.
    """
    with store.transaction() as leases:
        known = list(leases.attachments())
        gone = dead(known, context)
        for record, why in gone:
            if not dry:
                register.release(record, leases, context)
            yield record, why
    over = {record.owner for record, _ in gone}
    unlisted = [record for record in known if valid and record.owner not in over and valid.lacks(record)]
    yield from _remove([record for record in unlisted if _is_here(record, context)], store, context, dry=dry)


def _is_here(record: Attachment, context: Context) -> bool:
    """Whether it was made in this namespace, as far as is known: of others we cannot take the interface away."""
    return record.home in (UNKNOWN, context.kernel.netns_id(HOST))


def _remove(records: list[Attachment], store: Leases, context: Context, *, dry: bool) -> Iterator[StaleAttachment]:
    """Interfaces first, and without the lock: nobody is given an address that still answers."""
    if dry or not records:
        yield from ((record, UNLISTED) for record in records)
        return
    context.kernel.remove([ops.DeleteLink(HOST, record.host or host_interface(record.owner)) for record in records])
    with store.transaction() as leases:
        for record in records:
            if leases.get(record.owner) == record:  # not one that was made again meanwhile
                register.release(record, leases, context)
                yield record, UNLISTED


# GC, by the runtime's list


def unlisted(call: Invocation, leases: Transaction, started: float, context: Context) -> list[Attachment]:
    """Attachments that the runtime does not list as valid and that are older than the call.

    One made meanwhile is missing in a list that was written before it, and is kept. So is one that seems to be made
    later because the clock was set back; but not if it is provably over.
    """
    valid = valid_attachments(call.config)
    if valid is None:
        call.log.warning("nothing freed: the configuration names no cni.dev/valid-attachments")
        return []
    owners = [owner for owner in leases.owners() if not is_listed(owner, valid)]
    found = [record for owner in owners if (record := leases.get(owner))]
    young = [record for record in found if record.created >= started]
    over = {record.owner for record, _ in dead(young, context)} if young else set()
    return [record for record in found if record.created < started or record.owner in over]
