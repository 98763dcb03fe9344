"""What undoes the operations of a failed ADD."""

from __future__ import annotations

from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST, Op


def inverse(op: Op) -> Op | None:
    """The operation that undoes an operation of a failed ADD; None if there is nothing to undo.

    The bridge, the gateway interface in a VLAN, their addresses and the node's forwarding belong to the network, not
    to the container. Another ADD may already use them, so they stay (as with the reference plugin). Almost everything
    else is on the veth pair and goes with it. Exceptions are sysctls of interfaces that existed before, firewall
    elements, rules for what the container sends, and the node's entries for the container's addresses: a proxy entry, a
    host route, a route through one.
    """
    if isinstance(op, ops.CreateVeth) and not op.shared:
        return ops.DeleteLink(HOST, op.host)
    if isinstance(op, ops.CreateChildLink) and not op.shared:
        return ops.DeleteLink(op.netns, op.ifname)
    if isinstance(op, ops.SetSysctl) and op.netns != HOST and op.was is not None:
        return ops.SetSysctl(op.netns, op.key, op.was)
    if isinstance(op, ops.CreateIfb):
        return ops.DeleteLink(HOST, op.ifname)
    if isinstance(op, ops.AddElements):
        return ops.RemoveElements(op.elements)
    if isinstance(op, ops.AddProxy):
        return ops.RemoveProxy(op.ifname, op.address)
    if isinstance(op, ops.AddRule):
        return ops.RemoveRule(op.netns, op.source, op.table)
    if isinstance(op, ops.AddRoute) and op.netns == HOST and (op.gateway or op.dst.endswith(("/32", "/128"))):
        return ops.RemoveRoute(HOST, op.ifname, op.dst)
    return None
