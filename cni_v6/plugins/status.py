"""STATUS of main plugins: whether an ADD would succeed now (50 if not), and whether containers work (51 if not)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from cni_v6 import errors as codes
from cni_v6.attachments import allocate, firewall_reload, load_config
from cni_v6.attachments.context import Context, Look
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import CniError
from cni_v6.firewall import ruleset
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAliases, GetLinks, GetNft, GetRuleset, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import families, forwarding
from cni_v6.protocol import names
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass

Looked = TypeVar("Looked", bound=MainConf, contravariant=True)

# The errors of a plugin that does not know GC and STATUS. skel first misses the container id, which neither command has
# (code 3), then returns code 4, "unknown CNI_COMMAND"; or the version is too new for it.
NO_SUCH_COMMAND = (codes.INCOMPATIBLE_VERSION, codes.UNKNOWN_CONTAINER, codes.INVALID_ENVIRONMENT)
# What an ADD would end with; STATUS has a code of its own for it.
WOULD_FAIL = (codes.IO_FAILURE, codes.KERNEL_REFUSED, codes.STORE_FAILED, codes.NODE_CONFLICT, codes.FIREWALL_MISSING)


@contextmanager
def not_available() -> Iterator[None]:
    """Give errors that an ADD would end with STATUS's code.

    :raises CniError: NOT_AVAILABLE.
    """
    try:
        yield
    except CniError as error:
        if error.code not in WOULD_FAIL:
            raise
        raise CniError(codes.NOT_AVAILABLE, error.msg, error.details) from error


def of_stripped(call: Invocation, context: Context) -> None:
    """STATUS without the network's keys: whether the store works. An ADD has the whole configuration.

    :raises CniError: NOT_AVAILABLE; LIMITED if the firewall's tables were missing.
    """
    with not_available():
        conf = load_config.removal(call, context)
        gone = firewall_reload.restore(call, conf.network, conf.data_dir, context)
        with context.leases(conf.network, conf.data_dir).transaction() as leases:
            leases.rehearse()
    call.log.warning("the configuration has nothing of the network but its name and types, as Multus passes it: the "
                     "store is checked, and nothing else")
    if gone:
        raise CniError(codes.LIMITED, gone, "run cni-v6ctl check")


def check_addresses(call: Invocation, conf: MainConf, context: Context) -> None:
    """Check what gives the addresses, and the store.

    :raises CniError: NOT_AVAILABLE, and errors of another IPAM plugin.
    """
    if isinstance(conf.ipam, IpamConf):
        return allocate.check_ready(conf.ipam, context)
    if conf.ipam:
        require(call, conf.ipam.type, context)
        delegate_if_known(call, conf.ipam.type, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        leases.rehearse()


def recall_lost(
    call: Invocation, conf: MainConf, records: Iterable[Attachment], seen: Snapshot, context: Context
) -> tuple[str, ...]:
    """Rebuild the records of containers that the node has and the store does not.

    Interfaces that were looked at after the records may be of an ADD or DEL in between. So what seems to be lost is
    looked at again, under the lock.

    :param seen: the answer to ``GetLinks``, asked after the records were read.
    :returns: what was found, as of ``recall.again``.
    """
    known = {record.owner for record in records}
    if all(owner in known for owner, _ in names.owned(seen.links(), conf.network)):
        return ()
    from cni_v6.attachments import recall  # few stores vanish

    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        return recall.again(conf, leases, context, call.log)


class All(Protocol[Looked]):
    """What STATUS of all containers of a network needs of a main plugin: see ``MainPlugin``."""

    def status_questions(self, conf: Looked, node: str, records: Sequence[Attachment]) -> Iterable[Question]: ...

    def more_status_questions(self, conf: Looked, seen: Snapshot) -> Iterable[Question]: ...

    def check_status(
        self, conf: Looked, node: str, records: Sequence[Attachment], seen: Snapshot
    ) -> Iterable[str]: ...


class Few(Protocol[Looked]):
    """How a main plugin looks at a few of a network's containers, where an engine knows that the others are in order.
    """

    def questions(self, conf: Looked, node: str, records: Sequence[Attachment], look: Look) -> Iterable[Question]:
        """As ``MainPlugin.status_questions``, without what is about all interfaces."""
        ...

    def answers(self, records: Sequence[Attachment], seen: Snapshot) -> Snapshot:
        """What ``check`` and ``note`` need, of these containers alone.

        :param seen: the answers to ``questions``.
        """
        ...

    def check(
        self, conf: Looked, node: str, records: Sequence[Attachment], seen: Snapshot, look: Look
    ) -> Iterable[str] | None:
        """As ``MainPlugin.check_status``; None if a look at all has to tell."""
        ...

    def note(self, conf: Looked, records: Sequence[Attachment], seen: Snapshot, look: Look) -> object:
        """What ``Look.note`` is to be for the next STATUS; None if these containers are to be looked at again.

        :param seen: of all containers if the look has no ``owners``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The containers that STATUS is to look at: these, or all of the network (None)."""

    look: Look = Look()
    records: tuple[Attachment, ...] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a look has found. ``held``: the records that were looked at. ``lost``: as of ``recall_lost``."""

    look: Look
    held: tuple[Attachment, ...]
    seen: Snapshot
    warnings: tuple[str, ...]
    lost: tuple[str, ...] = ()


def choose(conf: MainConf, context: Context) -> Chosen:
    """The containers that may have changed since all of the network were found in order; of a damaged record, and of a
    container that has an interface and no record, all.

    They depend on the configuration too, on the families of the node, and on whether it forwards for all.
    """
    if context.in_order is None:
        return Chosen()
    asked = *families.host_questions(), GetSysctl(HOST, forwarding.ALL_FORWARDING)
    seen = context.kernel.observe(asked)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        mark = conf, *(seen.answers[question] for question in asked)
        look = context.in_order.begin(conf.network, conf.data_dir, mark)
        found = {owner: leases.get(owner) for owner in look.owners or ()}
    few, everything = tuple(record for record in found.values() if record), Chosen(replace(look, owners=None))
    if look.owners is None or any(record.damaged for record in few):
        return everything
    hosts = look.interfaces.union(names.host_interface(owner) for owner, record in found.items() if record is None)
    aliases = GetAliases(names.alias_start(conf.network), among=hosts)
    there = context.kernel.observe([aliases]).aliases(aliases) if hosts else ()
    recorded = {names.alias(owner) for owner, record in found.items() if record}
    return Chosen(look, few) if recorded.issuperset(alias for _, alias in there) else everything


def of_few(
    conf: Looked, plugin: All[Looked], few: Few[Looked], look: Look, held: tuple[Attachment, ...], context: Context
) -> Found | None:
    """A look at the containers that were chosen.

    :returns: None if all are to be looked at.
    :raises CniError: as ``MainPlugin.check_status``.
    """
    records, node = _of_this_boot(held, context), context.id
    seen = few.answers(records, context.kernel.observe(tuple(few.questions(conf, node, records, look))))
    seen = seen.with_answers(context.kernel.observe(plugin.more_status_questions(conf, seen)))
    said = few.check(conf, node, records, seen, look)
    return None if said is None else Found(look, held, seen, tuple(said))


def of_all(
    call: Invocation, conf: Looked, plugin: All[Looked], look: Look, held: Sequence[Attachment], context: Context
) -> Found:
    """A look at all containers of a network.

    :param held: its records.
    :raises CniError: as ``MainPlugin.check_status``.
    """
    records = _of_this_boot(held, context)
    asked = dict.fromkeys((GetLinks(), *plugin.status_questions(conf, context.id, records)))
    seen = context.kernel.observe(tuple(asked))
    lost = recall_lost(call, conf, held, seen, context)
    seen = seen.with_answers(context.kernel.observe(plugin.more_status_questions(conf, seen)))
    said = plugin.check_status(conf, context.id, records, seen)
    return Found(replace(look, owners=None), tuple(held), seen, tuple(said), lost)


def _of_this_boot(held: Iterable[Attachment], context: Context) -> list[Attachment]:
    return [record for record in held if record.boot in ("", context.boot)]


def settle(conf: Looked, few: Few[Looked], found: Found, context: Context) -> None:
    """All containers of the network are in order."""
    look, seen = found.look, found.seen
    note = few.note(conf, _of_this_boot(found.held, context), seen, look) if context.in_order else None
    if context.in_order and note is not None:
        context.in_order.settle(look, found.held, {link.name for link in seen.links()}, note)


def restore_firewall(call: Invocation, conf: MainConf, context: Context) -> str:
    """Load tables that are gone and needed; check that they could be loaded for a first container.

    :returns: what was missing, as of ``firewall_reload.restore``.
    :raises CniError: FIREWALL_MISSING.
    """
    if not conf.firewall.wanted:
        return ""
    gone = firewall_reload.restore(call, conf.network, conf.data_dir, context)
    if gone:
        return gone
    loaded = context.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark()
    why = context.kernel.observe([GetNft(rehearse=not loaded)]).nft(not loaded)
    if why and not loaded:
        raise CniError(codes.FIREWALL_MISSING, "the firewall's tables cannot be loaded", why)
    if why:
        call.log.warning(f"{why}, or the firewall's tables cannot be loaded again once they are gone")
    return ""


def require(call: Invocation, name: str, context: Context) -> None:
    """Check that the other IPAM plugin exists and runs.

    :raises CniError: NOT_AVAILABLE.
    """
    try:
        context.delegate(call, name, "VERSION")
    except CniError as error:
        raise CniError(codes.NOT_AVAILABLE, error.msg, error.details) from error


def delegate_if_known(call: Invocation, name: str, context: Context) -> None:
    """GC and STATUS of another IPAM plugin. One that is too old to know the command is no error."""
    try:
        context.delegate(call, name, call.command)
    except CniError as error:
        if error.code not in NO_SUCH_COMMAND:
            raise
        call.log.info(f"{name} knows no {call.command}: {error.msg}")
