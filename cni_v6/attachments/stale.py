"""Attachments that are over and still hold addresses: found, and freed when their set runs dry or somebody asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from cni_v6.attachments import mortality, register
from cni_v6.attachments.context import Context
from cni_v6.attachments.mortality import EARLIER_BOOT, ENDED, UNKNOWN, Here, is_of_earlier_boot
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Leases, Transaction
from cni_v6.log import Log
from cni_v6.protocol.names import Owner, host_interface

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


def dead(records: Iterable[Attachment], context: Context) -> list[StaleAttachment]:
    """Those that are provably over, and why.

    Costs one listing of the node's interfaces, and a look at the namespaces of those that have none there.

    :raises CniError: the kernel refused an answer.
    """
    known = list(records)
    earlier = [(record, EARLIER_BOOT) for record in known if is_of_earlier_boot(record, context.boot)]
    candidates = mortality.candidates(known, Here(context.boot, context.kernel.netns_id(HOST)))
    suspects = mortality.suspects(candidates, context.kernel.observe(mortality.first_questions(candidates)))
    ended = mortality.ended(suspects, context.kernel.observe(mortality.last_questions(suspects)))
    return [*earlier, *((record, ENDED) for record in ended)]


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
