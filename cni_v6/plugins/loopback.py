"""The loopback plugin: the container's ``lo`` up, as the reference plugin ``loopback`` does it.

Runtimes call it for every container before any network. CNI_IFNAME is taken for ``lo``, whatever it says.
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
    """ADD: ``lo`` up. The result is ``lo`` with the addresses that the kernel gave it, or what came as prevResult."""
    context.kernel.apply([ops.SetLink(call.netns, LO, up=True)])
    if call.prev_result is not None:
        return call.prev_result
    seen = context.kernel.observe([GetLink(call.netns, LO), GetAddresses(call.netns, LO)])
    link = seen.link(call.netns, LO)
    mac = link.mac if link else ""
    ips = tuple(Address(address, interface=0) for address in seen.addresses(call.netns, LO))
    return Result((Interface(LO, mac, sandbox=call.netns),), ips)


def delete(call: Invocation, context: Context) -> None:
    """DEL: ``lo`` down, where the namespace is still there."""
    if not call.netns:
        return
    try:
        context.kernel.netns_id(call.netns)
        context.kernel.apply([ops.SetLink(call.netns, LO, up=False)])
    except CniError as error:
        if error.code not in (UNKNOWN_CONTAINER, INVALID_NETNS):
            raise


def check(call: Invocation, context: Context) -> None:
    """CHECK: ``lo`` is up.

    :raises CniError: CHECK_FAILED.
    """
    link = context.kernel.observe([GetLink(call.netns, LO)]).link(call.netns, LO)
    if link is None or not link.up:
        raise CniError(CHECK_FAILED, f"interface {LO} of the container is down", "run DEL and ADD for it again")


def nothing(call: Invocation, context: Context) -> None:
    """GC and STATUS: there is nothing to collect, and nothing that an ADD could lack."""
