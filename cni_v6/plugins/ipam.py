"""The IPAM plugin, ``cni-v6-ipam``: ADD, DEL, CHECK, GC and STATUS of addresses alone, for any main plugin."""

from __future__ import annotations

from collections.abc import Mapping

from cni_v6.attachments import allocate, load_config
from cni_v6.attachments.context import Context
from cni_v6.config.families import lost as lost_families
from cni_v6.config.main import is_stripped
from cni_v6.errors import CniError
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import families
from cni_v6.plugins.status import not_available, of_stripped
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.result import Result


def add(call: Invocation, context: Context) -> Result:
    """ADD: lease an address of each set to the container. The main plugin configures them."""
    conf = load_config.ipam(call, context)
    attachment = Attachment(
        call.owner, (), netns=context.kernel.netns_id(call.netns), created=context.now(), boot=context.boot,
        home=context.kernel.netns_id(HOST),
    )
    context.data_dirs.remember(conf.data_dir)
    lost: Mapping[int, CniError] = {}
    if 6 in conf.optional:  # otherwise the main plugin checks, as with any other IPAM plugin
        off = families.ipv6_off(call.netns, context.kernel.observe(families.questions(call.netns)), gateway=False)
        lost = lost_families(conf.sets, conf.optional, off)
    allocation = allocate.allocate(conf, attachment, context, call.log, lost=lost)
    return Result(ips=allocation.ips, routes=allocation.routes, dns=allocation.dns)


def delete(call: Invocation, context: Context) -> None:
    """DEL: free the container's addresses; no error if it has none."""
    conf = load_config.removal(call, context)
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.drop(call.owner)
    call.log.released = record.addresses if record else ()


def check(call: Invocation, context: Context) -> None:
    """CHECK: the container has an address of each set, and those that prevResult names."""
    conf = load_config.ipam(call, context)
    prev = call.prev_result.ips if call.prev_result else ()
    with context.leases(conf.network, conf.data_dir).transaction() as leases:
        record = leases.get(call.owner)
    allocate.check_leases(conf, call.owner, prev, record)


def collect(call: Invocation, context: Context) -> None:
    """GC: free attachments that are not listed as valid and are older than this call, or provably stale."""
    from cni_v6.attachments import unlisted  # for GC alone

    conf, started = load_config.removal(call, context), context.now()
    store = context.leases(conf.network, conf.data_dir)
    with store.transaction() as leases:
        for record in unlisted.records_of(call, leases, started, context).stale:
            leases.drop(record.owner)
            call.log.info(f"freed {', '.join(record.addresses)} of {record.owner.container_id}/{record.owner.ifname}")
            call.log.reclaimed += 1


def status(call: Invocation, context: Context) -> None:
    """STATUS: every set has a free address, and what an ADD reads and writes can be read and written."""
    if is_stripped(call):
        return of_stripped(call, context)
    with not_available():
        allocate.check_ready(load_config.ipam(call, context), context)
