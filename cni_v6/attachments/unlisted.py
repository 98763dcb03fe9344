"""GC: what the runtime's list of valid attachments lacks of the records and the node's interfaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from cni_v6.attachments.context import Context
from cni_v6.attachments.stale import dead, without_interface
from cni_v6.config.main import RemovalConf
from cni_v6.kernel.questions import GetAliases
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner, alias_start, host_interface, host_interfaces, ifb, owner_of_alias
from cni_v6.values import dataclass

NOBODY = frozenset[str]()
Port = tuple[str, Owner]  # the name of an interface of the node, and whose it is by its alias


class Ports(Protocol):
    """See ``MainPlugin.ports``."""

    def __call__(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[Port]: ...


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The ``owners`` of all records that the list lacks, those of the records that are stale, and the node's interfaces
    that go: the name of each, and whose it is."""

    owners: frozenset[Owner] = frozenset()
    stale: tuple[Attachment, ...] = ()
    hosts: tuple[Port, ...] = ()

    @property
    def links(self) -> list[str]:
        """Those interfaces, each with the device that shapes what its container sends."""
        return [name for host, owner in self.hosts for name in (host, ifb(owner))]


def find(call: Invocation, conf: RemovalConf, started: float, context: Context, ports: Ports) -> Unlisted:
    """What a main plugin's GC finds.

    Where an engine knows which containers are there, and which have changed, it looks at those, and at what the list
    lacks.

    :param started: when the call began, in seconds since the epoch.
    """
    store = context.leases(conf.network, conf.data_dir)
    if call.valid is not None and context.in_order:
        with store.transaction() as leases:
            look = context.in_order.unlisted(conf.network, conf.data_dir, call.valid)
            if look.owners is not None:  # under the lock nobody adds a record, so that it may be read first
                missing = [owner for owner in look.owners if lacks(call, owner)]
                unlisted = _of(call, leases, missing, started, context)
                alone = (host_interface(owner) for owner in missing if owner not in unlisted.owners)
                names = look.interfaces.union(alone)
                return _with_hosts(call, unlisted, ports(conf, context, NOBODY, names) if names else [])
    # Before the records: an ADD writes its record first. Without a list nothing is stale.
    found = ports(conf, context, _of_valid(call)) if call.valid is not None else []
    with store.transaction() as leases:
        return _with_hosts(call, records_of(call, leases, started, context), found)


def _with_hosts(call: Invocation, unlisted: Unlisted, ports: Iterable[Port]) -> Unlisted:
    """With the interfaces of stale records, and those without a record.

    :param ports: interfaces of the network.
    """
    gone = [(record.host or host_interface(record.owner), record.owner) for record in unlisted.stale]
    gone += [(name, owner) for name, owner in ports if lacks(call, owner) and owner not in unlisted.owners]
    return Unlisted(unlisted.owners, unlisted.stale, tuple(gone))


def interfaces(
    conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None, bridge: str = ""
) -> list[Port]:
    """The node's interfaces, or the ports of a bridge, whose alias names an owner of this network.

    :param known: names of valid attachments' interfaces, which are left out.
    :param among: the names that are looked at; None for all.
    """
    asked = GetAliases(alias_start(conf.network), bridge, known, among)
    named = context.kernel.observe([asked]).aliases(asked)
    return [(name, owner) for name, alias in named if (owner := owner_of_alias(alias))]


def _of_valid(call: Invocation) -> frozenset[str]:
    """The names of the host interfaces of the attachments that the runtime lists as valid."""
    parts = (name.rpartition(":") for name in call.valid or ())
    return host_interfaces(call.network, ((container_id, ifname) for container_id, _, ifname in parts))


def lacks(call: Invocation, owner: Owner) -> bool:
    """Whether there is a list of valid attachments, and an owner is not in it."""
    return call.valid is not None and records.attachment_name(owner) not in call.valid


def records_of(call: Invocation, leases: Transaction, started: float, context: Context) -> Unlisted:
    """Attachments that the runtime does not list as valid; those that are older than the call are stale.

    :param started: as of ``find``.
    """
    if call.valid is None:
        call.log.warning("nothing freed: the configuration names no cni.dev/valid-attachments")
        return Unlisted()
    return _of(call, leases, leases.owners(call.valid), started, context)


def _of(
    call: Invocation, leases: Transaction, missing: Iterable[Owner], started: float, context: Context
) -> Unlisted:
    """
    An attachment made during the call may be missing in the list, and is kept. So is one whose time lies in the future
    because the clock was set back, unless it is provably stale.

    :param missing: owners that the list lacks, perhaps without a record.
    """
    valid = call.valid or NOBODY
    found = {owner: record for owner in missing if (record := leases.get(owner))}
    alone = NOBODY if all(owner.ifname for owner in found) else without_interface(valid)
    others = [found[owner] for owner in sorted(found) if records.attachment_name(owner) not in alone]
    young = [record for record in others if record.created >= started]
    proved = {record.owner for record, _ in dead(young, context)} if young else set()
    stale = (record for record in others if record.created < started or record.owner in proved)
    return Unlisted(frozenset(found), tuple(stale))
