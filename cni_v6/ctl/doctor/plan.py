"""What ``doctor --fix`` is about to do: what is loaded, the operations of a repair, what is freed."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cni_v6.attachments import stale
from cni_v6.attachments.context import Context
from cni_v6.ctl import screen
from cni_v6.ctl.doctor import look
from cni_v6.kernel.describe import describe
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.health.finding import GC, RELOAD, REPAIR

MOST = 20  # operations of a network; the repair prints all of them


def lines(fixes: Collection[str], node: Context) -> Iterator[str]:
    """A line for each thing that the fixes do, in their order. It changes nothing."""
    held, _ = look.records_of(node)
    here = look.here_of(held, node)
    rows: list[tuple[str, str]] = []
    if RELOAD in fixes:
        known = screen.counted(sum(record.policy is not None for record in here), "attachment")
        rows.append((RELOAD, f"load the firewall's tables anew, with {known}"))
    for network in sorted({record.owner.network for record in here}) if REPAIR in fixes else ():
        rows += _repair(network, [record for record in here if record.owner.network == network], node)
    if GC in fixes:
        rows += [(GC, f"free {' '.join((str(record.owner), *record.addresses))} ({why})")
                 for record, why in stale.dead((record for _, record in held), node)]
    yield "plan:"
    yield from screen.listed(rows)


def _repair(network: str, records: list[Attachment], node: Context) -> Iterator[tuple[str, str]]:
    steps = [describe(operation) for step in look.differences(records, node).steps for operation in step]
    if steps:
        yield REPAIR, f"network {network}, {screen.counted(len(steps), 'operation')}:"
    yield from (("", words) for words in steps[:MOST])
    if len(steps) > MOST:
        yield "", f"and {screen.counted(len(steps) - MOST, 'operation')} more"
