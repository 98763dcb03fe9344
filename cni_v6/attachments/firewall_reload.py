"""The firewall's tables: load them if a network needs them, reload them from all attachments, unload them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from cni_v6.attachments import damaged
from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf, RemovalConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import ruleset, shape
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.firewall.shape import Table
from cni_v6.kernel import ops
from cni_v6.kernel.questions import GetAllElements, GetLinks, GetRuleset, GetTables
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.log import counted
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner, owned

Network = MainConf | RemovalConf
GONE = "the firewall's tables are gone or changed"
Stores = list[tuple[Transaction, list[Attachment]]]  # all networks of the node, and their attachments


def prepare(call: Invocation, conf: MainConf, context: Context, seen: Snapshot) -> None:
    """Load our tables if the network needs them and they are missing, changed, or written by another version."""
    if call.args.kubernetes.get("K8S_POD_NAME") and "ingress" not in call.config:
        call.log.warning('ingress is "published" by default, which closes pods to other nodes: write "ingress": "open"')
    if not conf.firewall.wanted:
        return
    if seen.ruleset() != ruleset.mark():
        count = reload(context, call.log.warning)
        call.log.info(f"loaded the firewall's tables, with {counted(count, 'attachment')}")


def reload(context: Context, report: Callable[[str], object] = lambda _: None) -> int:
    """Replace both tables in one transaction, with the elements of every attachment of this boot.

    Damaged records are completed first, or their containers are blocked (``damaged``).

    :param report: is told what was damaged.
    :returns: the number of attachments.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED.
    """
    with _all(context) as stores:
        records = _load(stores, context, report)
    return len(records)


def put_right(
    context: Context, before: Iterable[Table], report: Callable[[str], object] = lambda _: None
) -> tuple[list[str], int]:
    """Load the tables again if attachments need them and they are not as they were loaded.

    :param before: as of ``shape.differences``.
    :param report: as of ``reload``.
    :returns: how they differed, and the number of attachments; nothing if nobody needs them.
    :raises CniError: as ``reload``.
    """
    with _all(context) as stores:
        needed = [
            record for _, held in stores for record in held if record.damaged or _is_guarded(record, context)
        ]
        differs = shape.differences(context.kernel.observe([GetTables()]).tables(), before) if needed else []
        return differs, len(_load(stores, context, report) if differs else needed)


def _load(stores: Stores, context: Context, report: Callable[[str], object]) -> list[Attachment]:
    """Load the tables with the elements of all attachments, which are returned; the caller holds all locks."""
    found = [record for leases, held in stores for record in _mended(leases, held, stores, context, report)]
    records = [record for record in found if _is_guarded(record, context)]
    loaded = [element for record in records if record.policy for element in elements(record.owner, record.policy)]
    places = {(element.family, element.set, element.key) for element in loaded}
    lost = (element for owner, policy in _lost(stores, context).items() for element in elements(owner, policy))
    kept = (element for element in lost if (element.family, element.set, element.key) not in places)
    context.kernel.apply([ops.LoadRuleset((*loaded, *kept))])
    return records


def _lost(stores: Stores, context: Context) -> Mapping[Owner, Policy]:
    """What the sets have of containers whose records were removed: nothing else guards them, and ``recall`` rebuilds
    their records from it."""
    known = {record.owner for _, held in stores for record in held}
    links = context.kernel.observe([GetLinks()]).links()
    lost = {owner: link for owner, link in owned(links) if owner not in known}
    if not lost:
        return {}
    from cni_v6.firewall.recovered import Present, policy_of  # few stores vanish

    present = Present(context.kernel.observe([GetAllElements()]).all_elements())
    found = {owner: policy_of(owner, link.name, link.master, (), present) for owner, link in lost.items()}
    return {owner: policy for owner, policy in found.items() if policy}


def missing(network: str, data_dir: str, context: Context) -> bool:
    """Whether our tables are gone, changed or of another version, and a network has attachments that need them.

    The kernel is asked first: records are read only if the tables are gone, up to the first that needs them.
    """
    loaded = context.kernel.observe([GetRuleset()]).ruleset()
    return loaded != ruleset.mark() and _is_needed(network, data_dir, context)


def _is_needed(network: str, data_dir: str, context: Context) -> bool:
    store = context.leases(network, data_dir)
    if not store.may_be_guarded():
        return False
    with store.transaction() as leases:
        return any(record.damaged or _is_guarded(record, context) for record in leases.attachments())


def attachments(call: Invocation, conf: Network, context: Context) -> tuple[Sequence[Attachment], tuple[str, ...]]:
    """The attachments of a network, and what was damaged of them, as of ``mend``."""
    store = context.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        held = tuple(leases.attachments())
    if not any(record.damaged for record in held):
        return held, ()
    words = mend(call, conf, context)
    with store.transaction() as leases:
        return tuple(leases.attachments()), words


def mend(call: Invocation, conf: Network, context: Context) -> tuple[str, ...]:
    """Complete a network's damaged records, or block their containers, and log it.

    :returns: what was damaged, and which containers are blocked.
    """
    store, words = context.leases(conf.network, conf.data_dir), list[str]()
    if not store.damaged():
        return ()
    with store.transaction() as leases:
        held = list(leases.attachments())
        lost = [record for record in held if record.damaged and not damaged.is_blocked(record)]
        if isinstance(conf, MainConf) and not conf.firewall.wanted:
            for record in lost:
                mended, said = damaged.completed(record, held, context, wanted=False)
                leases.update(mended)
                words += [said] if said else []
            lost.clear()
    if lost:
        try:
            reload(context, words.append)
        except CniError as error:
            words.append(f"records of {conf.network} are damaged, and the firewall cannot be loaded: {error}")
    known = [damaged.blocked_words(str(record.owner)) for record in held if damaged.is_blocked(record)]
    said_once = tuple(dict.fromkeys((*words, *known)))
    for line in said_once:
        call.log.warning(line)
    return said_once


def mended(call: Invocation, conf: MainConf, context: Context) -> tuple[Attachment | None, list[str]]:
    """The record of a call's container, and what was found damaged of it."""
    store = context.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        record = leases.get(call.owner)
    if record is None or not record.damaged or damaged.is_blocked(record):
        return record, []
    words = [line for line in mend(call, conf, context) if f"{call.owner} " in line]
    with store.transaction() as leases:
        return leases.get(call.owner), words


def restore(call: Invocation, network: str, data_dir: str, context: Context) -> str:
    """Load tables that are gone, if a network needs them: every call but ADD does so beside its own work.

    A failure does not fail the call: the next call tries again. Tables of another version have guarded the containers
    until now, so loading those of this one is no news.

    :returns: what was missing and whether it was loaded; "" if nothing was missing.
    """
    loaded = context.kernel.observe([GetRuleset()]).ruleset()
    if loaded == ruleset.mark() or not _is_needed(network, data_dir, context):
        return ""
    try:
        count = reload(context, call.log.warning)
        if loaded:
            call.log.info(f"loaded the firewall's tables of this version, with {counted(count, 'attachment')}")
            return ""
        words = f"{GONE}: loaded again, with {counted(count, 'attachment')}"
    except CniError as error:
        words = f"{GONE}, and cannot be loaded: {error}"
    call.log.warning(words)
    return words


def is_of_another_version(seen: Snapshot) -> bool:
    """Whether the tables, if that was asked, are those of another version: what they lack is no fault of theirs."""
    return seen.answers.get(GetRuleset(), "") not in ("", ruleset.mark())


def unload(context: Context, *, force: bool) -> int:
    """Delete both tables.

    :param force: delete them even if attachments use them.
    :returns: the number of attachments that used them.
    :raises CniError: NODE_CONFLICT if attachments use them, unless ``force``.
    """
    with _all(context) as stores:
        owners = [record.owner for _, held in stores for record in held if _is_guarded(record, context)]
        owners += _lost(stores, context)
        if owners and not force:
            who = counted(len(owners), "attachment counts", "attachments count")
            words = f"{who} on the firewall's tables, such as {owners[0]}"
            raise CniError(NODE_CONFLICT, words, "run DEL for them first, or use --force: they lose what they have")
        context.kernel.apply([ops.UnloadRuleset()])
    return len(owners)


def _is_guarded(record: Attachment, context: Context) -> bool:
    """Whether it has a policy and is of this boot: earlier containers are gone, even if nobody called DEL for them."""
    return record.policy is not None and record.boot == context.boot


def _mended(
    leases: Transaction, records: list[Attachment], stores: Stores, context: Context, report: Callable[[str], object]
) -> Iterator[Attachment]:
    """The attachments of a network, damaged ones completed. If that cannot be written down, it is done all the same."""
    others = [record for _, held in stores for record in held if not record.damaged]
    for record in records:
        if record.damaged and not damaged.is_blocked(record):
            record, words = damaged.completed(record, others, context)
            if words:
                report(words)
            with suppress(CniError):
                leases.update(record)
        elif record.damaged:
            report(damaged.blocked_words(str(record.owner)))
        yield record


@contextmanager
def _all(context: Context) -> Iterator[Stores]:
    """All networks, with the lock of every one held: no ADD or DEL runs meanwhile.

    The locks are always taken in the same order, and no other code waits for one while it holds another.
    """
    dirs = context.data_dirs
    networks = [(data_dir, network) for data_dir in dirs.known() for network in dirs.recorded(data_dir)]
    with ExitStack() as stack:
        opened = (context.leases(network, data_dir) for data_dir, network in networks)
        stores = [stack.enter_context(store.transaction()) for store in opened]
        yield [(leases, list(leases.attachments())) for leases in stores]
