"""Finds stale attachments, whose container has ended without a DEL, and frees their addresses.

It runs when a set has no free address, and on request. An attachment counts as alive unless the kernel proves that it
has ended. No proof uses time, because clocks jump.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from cni_v6.attachments import register, remove_interface
from cni_v6.attachments.context import Context
from cni_v6.attachments.namespaces import UNKNOWN
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAlive, GetLinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Leases, Transaction
from cni_v6.log import Log
from cni_v6.protocol.names import Owner, host_interface, owned
from cni_v6.values import dataclass

EARLIER_BOOT = "it is of an earlier boot"
ENDED = "its network namespace has ended"
UNLISTED = "it is not in the list of valid attachments"

StaleAttachment = tuple[Attachment, str]  # a stale attachment, and why it is stale


@dataclass(frozen=True, slots=True)
class Valid:
    """A list of valid attachments, ``containerID:ifname``.

    ``before``: when the list was made, in seconds since the epoch. Later attachments need not be in it.
    """

    listed: frozenset[str]
    before: float

    def lacks(self, record: Attachment) -> bool:
        """Whether an attachment is older than the list and not in it."""
        return record.created < self.before and not is_listed(record.owner, self.listed)


def is_listed(owner: Owner, listed: Collection[str]) -> bool:
    """Whether an owner is in a list of valid attachments.

    A lease of an old ``host-local`` names no interface: its container id alone decides.
    """
    return records.attachment_name(owner) in (listed if owner.ifname else without_interface(listed))


def without_interface(listed: Iterable[str]) -> frozenset[str]:
    """What a list says of leases that name no interface, in the words of ``records.attachment_name``."""
    return frozenset(f"{listed_id.rpartition(':')[0]}:" for listed_id in listed)


# Questions to the kernel, and their evaluation


@dataclass(frozen=True, slots=True)
class Here:
    """This node: ``boot`` as in records; ``home`` is the id of the node's own network namespace."""

    boot: str
    home: tuple[int, int]


def is_of_earlier_boot(record: Attachment, boot: str) -> bool:
    """Whether an attachment is of an earlier boot, which no container survives. False if either boot id is unknown."""
    return "" not in (record.boot, boot) and record.boot != boot


def candidates(records: Iterable[Attachment], here: Here) -> list[Attachment]:
    """Attachments of this boot whose end the kernel can prove.

    Not those made in another network namespace: a missing interface here proves nothing about them.
    """
    return [
        record for record in records
        if record.boot == here.boot != "" and record.netns != UNKNOWN
        and (not record.host or record.home == here.home != UNKNOWN)
    ]


def first_questions(records: Collection[Attachment]) -> tuple[Question, ...]:
    """The first question about candidates: the interfaces of the node."""
    return (GetLinks(),) if any(record.host for record in records) else ()


def suspects(records: Collection[Attachment], seen: Snapshot) -> list[Attachment]:
    """Candidates whose host interface is not on the node, neither under its name nor, renamed, by its alias.

    They may still be alive: some runtimes move the host interface into a namespace of their own.
    """
    links = seen.links() if any(record.host for record in records) else ()
    names = {link.name for link in links}
    owners = {owner for owner, _ in owned(links)}
    return [record for record in records if record.host not in names and record.owner not in owners]


def last_questions(records: Collection[Attachment]) -> tuple[Question, ...]:
    """The question that decides about suspects: which namespaces are alive."""
    return (GetAlive(_namespaces(records)),) if records else ()


def ended(records: Collection[Attachment], seen: Snapshot) -> list[Attachment]:
    """Suspects whose namespace has ended, and with it their interface and its addresses."""
    alive = seen.alive(_namespaces(records)) if records else frozenset()
    return [record for record in records if record.netns not in alive]


def _namespaces(records: Iterable[Attachment]) -> frozenset[tuple[int, int]]:
    return frozenset(record.netns for record in records)


# Find and free them


def dead(records: Iterable[Attachment], context: Context) -> list[StaleAttachment]:
    """The stale ones among some attachments, and why.

    Lists the node's interfaces once, and checks the namespaces of attachments that have none there.

    :raises CniError: if the kernel refuses a question.
    """
    attachments = list(records)
    earlier = [(record, EARLIER_BOOT) for record in attachments if is_of_earlier_boot(record, context.boot)]
    candidates_here = candidates(attachments, Here(context.boot, context.kernel.netns_id(HOST)))
    unplugged = suspects(candidates_here, context.kernel.observe(first_questions(candidates_here)))
    over = ended(unplugged, context.kernel.observe(last_questions(unplugged)))
    return [*earlier, *((record, ENDED) for record in over)]


def reclaim(leases: Transaction, context: Context, log: Log) -> bool:
    """Free a network's stale attachments, under the lock that the caller holds. Logs each.

    :returns: whether any was freed. A failure is only logged: the caller has an error of its own to raise.
    """
    freed = False
    try:
        for record, why in dead(leases.attachments(), context):
            register.release(record, leases, context)
            log.info(f"freed {' '.join(record.addresses) or 'no address'} of {record.owner}: {why}")
            log.reclaimed += 1
            freed = True
    except CniError as error:
        log.warning(f"freeing what containers without DEL have left: {error}")
    return freed


def sweep(store: Leases, context: Context, valid: Valid | None, *, dry: bool) -> Iterator[StaleAttachment]:
    """Free a network's stale attachments, and yield each once it is freed.

    :param valid: an operator's list of valid attachments, which counts as proof; None for none.
    :param dry: change nothing, yield what would be freed. It does not wait for the lock.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED; attachments yielded before are freed.
    """
    before = store.peek()  # a store may free those of earlier boots by itself, in its first transaction
    if dry:
        attachments, stale = list(before), dead(before, context)
        yield from stale
    else:
        with store.transaction() as leases:
            attachments = list(leases.attachments())
            there = {record.owner for record in attachments}
            yield from ((record, EARLIER_BOOT) for record in before
                        if is_of_earlier_boot(record, context.boot) and record.owner not in there)
            stale = dead(attachments, context)
            for record, why in stale:
                register.release(record, leases, context)
                yield record, why
    stale_owners = {record.owner for record, _ in stale}
    unlisted = [record for record in attachments if valid and record.owner not in stale_owners and valid.lacks(record)]
    yield from _remove([record for record in unlisted if _is_here(record, context)], store, context, dry=dry)


def _is_here(record: Attachment, context: Context) -> bool:
    """Whether it was made in this namespace, or that is unknown. In another one we cannot delete its interface."""
    return record.home in (UNKNOWN, context.kernel.netns_id(HOST))


def _remove(records: list[Attachment], store: Leases, context: Context, *, dry: bool) -> Iterator[StaleAttachment]:
    """Delete the interfaces first, without the lock: no container gets an address that still answers."""
    if dry or not records:
        yield from ((record, UNLISTED) for record in records)
        return
    hosts = [ops.DeleteLink(HOST, record.host or host_interface(record.owner)) for record in records]
    context.kernel.remove([*hosts, *remove_interface.of_records(records, context)])
    with store.transaction() as leases:
        for record in records:
            if leases.get(record.owner) == record:  # not one that was added again meanwhile
                register.release(record, leases, context)
                yield record, UNLISTED
