"""The MACs on a bridge: whose they are, its ports' other ends included; and the bridge's own, kept as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Link
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.message import HEADER, Message, as_int, by_kind, u32
from cni_v6.kernel.netlink.uapi import IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID
from cni_v6.kernel.netlink.socket import explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetMacs

SYSFS = "/sys/class/net"
NET_ADDR_SET = "3"  # linux/netdevice.h: somebody has set the address


def macs(spaces: Spaces, question: GetMacs) -> Mapping[str, Link]:
    """See ``GetMacs``.

    The message of a veth's end tells the index of the other end, and the number that its namespace has in ours
    (rtnl_fill_link_netnsid, net/core/rtnetlink.c). With both, the kernel answers about the other end.
    """
    index = spaces.index(HOST, question.bridge)
    if index is None:
        return {}
    route = spaces.get(HOST).route
    found: dict[str, Link] = {}
    veths: list[tuple[Link, Message]] = []
    for data in route.dump(requests.get_ports(index)).messages:
        port, master = answers.read_link(data)
        if master == index:
            found[port.mac] = port
            if answers.peer_of(data):
                veths.append((port, _get_other_end(data)))
    for (port, _), answer in zip(veths, route.request([message for _, message in veths])):
        found |= {answers.read_link(data)[0].mac: port for data in answer.messages}
    for answer in route.request([requests.get_link_by_index(index)]):
        bridges = (answers.read_link(data)[0] for data in answer.messages)
        found |= {bridge.mac: bridge for bridge in bridges}
    return found


def pin(spaces: Spaces, operation: ops.PinMac) -> None:
    """See ``ops.PinMac``."""
    if _is_set(spaces, operation):
        return
    for answer in spaces.get(HOST).route.request([requests.set_mac(operation.bridge, operation.mac)]):
        if answer.error:
            raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))


def _is_set(spaces: Spaces, operation: ops.PinMac) -> bool:
    """Whether somebody has set the bridge's MAC. No netlink message tells it, only sysfs does.

    /sys may be absent, or show another namespace. Then a bridge without ports counts as one without a MAC, and so does
    one that has the lowest MAC of its ports.
    """
    address = _attribute(operation.bridge, "address")
    if address != operation.mac:
        holders = macs(spaces, GetMacs(operation.bridge))
        present = {holder.mac for holder in holders.values() if holder.name == operation.bridge}
        if address not in present:
            ports = {holder.mac for holder in holders.values() if holder.name != operation.bridge}
            return bool(ports) and min(ports) not in present
    return _attribute(operation.bridge, "addr_assign_type") == NET_ADDR_SET


def _attribute(bridge: str, name: str) -> str:
    """An attribute of a bridge in sysfs; "" where it cannot be read."""
    try:
        with open(os.path.join(SYSFS, bridge, name), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _get_other_end(data: bytes) -> Message:
    here = requests.get_link_by_index(answers.peer_of(data))
    given = by_kind(data, HEADER.size + requests.IFINFOMSG.size)
    if IFLA_LINK_NETNSID not in given:  # both ends are on the node
        return here
    namespace = u32(IFLA_TARGET_NETNSID, as_int(given[IFLA_LINK_NETNSID]))
    return Message(here.type, here.flags, here.body + namespace)
