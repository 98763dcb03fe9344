"""The loopback plugin: sets the container's ``lo`` up, as the reference plugin ``loopback`` does.

Runtimes call it for every container before any network. It always uses ``lo``, whatever CNI_IFNAME says.
"""

from __future__ import annotations

from cni_v6.attachments.context import Context
from cni_v6.errors import CHECK_FAILED, INVALID_NETNS, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.questions import GetAddresses, GetLink
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.result import Address, Interface, Result

LO = "lo"


def add(call: Invocation, context: Context) -> Result:
    """ADD: set ``lo`` up. The result is prevResult if there is one, else ``lo`` with the addresses of the kernel."""
    context.kernel.apply([ops.SetLink(call.netns, LO, up=True)])
    if call.prev_result is not None:
        return call.prev_result
    seen = context.kernel.observe([GetLink(call.netns, LO), GetAddresses(call.netns, LO)])
    link = seen.link(call.netns, LO)
    mac = link.mac if link else ""
    ips = tuple(Address(address, interface=0) for address in seen.addresses(call.netns, LO))
    return Result((Interface(LO, mac, sandbox=call.netns),), ips)


def delete(call: Invocation, context: Context) -> None:
    """DEL: set ``lo`` down if the namespace still exists."""
    if not call.netns:
        return
    try:
        context.kernel.netns_id(call.netns)
        context.kernel.apply([ops.SetLink(call.netns, LO, up=False)])
    except CniError as error:
        if error.code not in (UNKNOWN_CONTAINER, INVALID_NETNS):
            raise


def check(call: Invocation, context: Context) -> None:
    """CHECK: ``lo`` must be up.

    :raises CniError: CHECK_FAILED.
    """
    link = context.kernel.observe([GetLink(call.netns, LO)]).link(call.netns, LO)
    if link is None or not link.up:
        raise CniError(CHECK_FAILED, f"interface {LO} of the container is down", "run DEL and ADD for it again")


def nothing(call: Invocation, context: Context) -> None:
    """GC and STATUS: nothing to collect, and nothing that could be missing for an ADD."""
