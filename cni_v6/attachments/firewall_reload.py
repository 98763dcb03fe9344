"""The firewall's tables: load them if a network needs them, reload them from all attachments, unload them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import ruleset, shape
from cni_v6.firewall.elements import elements
from cni_v6.firewall.sets import Element
from cni_v6.firewall.shape import Table
from cni_v6.kernel import ops
from cni_v6.kernel.questions import GetRuleset, GetTables, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.invocation import Invocation

GONE = "the firewall's tables are gone or changed"


def prepare(call: Invocation, conf: MainConf, context: Context, seen: Snapshot) -> None:
    """Load our tables if the network needs them and they are missing, changed, or written by another version."""
    if call.args.kubernetes.get("K8S_POD_NAME") and "ingress" not in call.config:
        call.log.warning('ingress is "published" by default, which closes pods to other nodes: write "ingress": "open"')
    if not conf.firewall.wanted:
        return
    if seen.ruleset() != ruleset.mark():
        count = reload(context)
        call.log.info(f"loaded the firewall's tables, with {count} attachments")


def reload(context: Context) -> int:
    """Replace both tables in one transaction, with the elements of every attachment of this boot.

    :returns: the number of attachments.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED.
    """
    with _all(context) as records:
        context.kernel.apply([ops.LoadRuleset(_elements(records))])
    return len(records)


def put_right(context: Context, before: Iterable[Table]) -> tuple[list[str], int]:
    """Load the tables again if attachments need them and they are not as they were loaded.

    :param before: as of ``shape.differences``.
    :returns: how they differed, and the number of attachments; nothing if nobody needs them.
    :raises CniError: as ``reload``.
    """
    with _all(context) as records:
        differs = shape.differences(context.kernel.observe([GetTables()]).tables(), before) if records else []
        if differs:
            context.kernel.apply([ops.LoadRuleset(_elements(records))])
    return differs, len(records)


def _elements(records: Iterable[Attachment]) -> tuple[Element, ...]:
    return tuple(
        element for record in records if record.policy for element in elements(record.owner, record.policy)
    )


def missing(network: str, data_dir: str, context: Context) -> bool:
    """Whether our tables are gone, changed or of another version, and a network has attachments that need them.

    The kernel is asked first: records are read only if the tables are gone, up to the first that needs them.
    """
    if context.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark():
        return False
    with context.leases(network, data_dir).transaction() as leases:
        return any(record.policy and record.boot == context.boot for record in leases.attachments())


def restore(call: Invocation, network: str, data_dir: str, context: Context) -> str:
    """Load tables that are gone, if a network needs them: every call but ADD does so beside its own work.

    A failure does not fail the call: the next call tries again.

    :returns: what was missing and whether it was loaded; "" if nothing was missing.
    """
    if not missing(network, data_dir, context):
        return ""
    try:
        words = f"{GONE}: loaded again, with {reload(context)} attachments"
    except CniError as error:
        words = f"{GONE}, and cannot be loaded: {error}"
    call.log.warning(words)
    return words


def unload(context: Context, *, force: bool) -> int:
    """Delete both tables.

    :param force: delete them even if attachments use them.
    :returns: the number of attachments that used them.
    :raises CniError: NODE_CONFLICT if attachments use them, unless ``force``.
    """
    with _all(context) as records:
        if records and not force:
            words = f"{len(records)} attachments count on the firewall's tables, such as {records[0].owner}"
            raise CniError(NODE_CONFLICT, words, "run DEL for them first, or use --force: they lose what they have")
        context.kernel.apply([ops.UnloadRuleset()])
    return len(records)


@contextmanager
def _all(context: Context) -> Iterator[list[Attachment]]:
    """All attachments of this boot with a policy, with the lock of every network held: no ADD or DEL runs meanwhile.

    Containers of an earlier boot are gone, even if nobody called DEL for them. The locks are always taken in the same
    order, and no other code waits for one while it holds another.
    """
    dirs = context.data_dirs
    networks = [(data_dir, network) for data_dir in dirs.known() for network in dirs.recorded(data_dir)]
    with ExitStack() as stack:
        opened = (context.leases(network, data_dir) for data_dir, network in networks)
        stores = [stack.enter_context(store.transaction()) for store in opened]
        records = [record for leases in stores for record in leases.attachments()]
        yield [record for record in records if record.policy and record.boot == context.boot]
