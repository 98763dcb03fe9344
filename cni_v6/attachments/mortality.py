"""Which attachments are over, though nobody called DEL: what is asked of the kernel, and what follows from its answers.

Pure. Whatever cannot be proven counts as alive. No time is part of a proof: clocks jump.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cni_v6.kernel.questions import GetAlive, GetLinks, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.names import Owner, owner_of_alias

UNKNOWN = (0, 0)  # of a namespace, in records that another plugin wrote, or an older version

EARLIER_BOOT = "it is of an earlier boot"
ENDED = "its network namespace has ended"


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
