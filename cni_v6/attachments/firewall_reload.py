"""The firewall's tables: loaded where a network needs them, made anew from all attachments, taken away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import ruleset
from cni_v6.firewall.elements import elements
from cni_v6.kernel import ops
from cni_v6.kernel.questions import GetRuleset, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.invocation import Invocation

GONE = "the firewall's tables are gone"


def prepare(call: Invocation, conf: MainConf, context: Context, seen: Snapshot) -> None:
    """Our tables, where the network needs them and nobody loaded them yet, somebody flushed them, or another version
    of ours wrote them."""
    if call.args.kubernetes.get("K8S_POD_NAME") and "ingress" not in call.config:
        call.log.warning('ingress is "published" by default, which closes pods to other nodes: write "ingress": "open"')
    if not conf.firewall.wanted:
        return
    if seen.ruleset() != ruleset.mark():
        count = reload(context)
        call.log.info(f"loaded the firewall's tables, with {count} attachments")


def reload(context: Context) -> int:
    """Make both tables anew, in one transaction, with the elements of every attachment of this boot.

    :returns: the number of attachments.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED.
    """
    with _all(context) as records:
        held = [each for record in records if record.policy for each in elements(record.owner, record.policy)]
        context.kernel.apply([ops.LoadRuleset(tuple(held))])
    return len(records)


def missing(network: str, data_dir: str, context: Context) -> bool:
    """Whether our tables are gone or another version's, and a network has attachments that count on them.

    The tables are asked for first: that costs the same with one record as with a thousand.
    """
    if context.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark():
        return False
    with context.leases(network, data_dir).transaction() as leases:
        return any(record.policy and record.boot == context.boot for record in leases.attachments())


def restore(call: Invocation, network: str, data_dir: str, context: Context) -> str:
    """What any call but ADD does beside its work: tables that are gone are loaded, where a network needs them.

    A failure is not the call's own: the next one tries again.

    :returns: what was found and became of it; "" where nothing is missing.
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
    """Take both tables away.

    :param force: though there are attachments that count on them.
    :returns: the number of those.
    :raises CniError: NODE_CONFLICT where there are some.
    """
    with _all(context) as records:
        if records and not force:
            words = f"{len(records)} attachments count on the firewall's tables, such as {records[0].owner}"
            raise CniError(NODE_CONFLICT, words, "run DEL for them first, or use --force: they lose what they have")
        context.kernel.apply([ops.UnloadRuleset()])
    return len(records)


@contextmanager
def _all(context: Context) -> Iterator[list[Attachment]]:
    """Every attachment of this boot that has a policy, while the lock of every network is held, so that no ADD or DEL
    comes in between. Containers of an earlier boot are gone, though nobody may have called DEL for them.

    The locks are taken in one order; nobody else holds one while waiting for another.
    """
    dirs = context.data_dirs
    places = [(folder, network) for folder in dirs.known() for network in dirs.recorded(folder)]
    with ExitStack() as stack:
        stores = [stack.enter_context(context.leases(network, folder).transaction()) for folder, network in places]
        records = [record for leases in stores for record in leases.attachments()]
        yield [record for record in records if record.policy and record.boot == context.boot]
