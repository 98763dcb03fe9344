"""The MACs on a bridge: who has which, behind its ports too; and the bridge's own, kept as it is."""

from __future__ import annotations

import os
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import Link
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.message import HEADER, Message, as_int, by_kind, u32
from cni_v6.kernel.netlink.uapi import IFLA_LINK, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID
from cni_v6.kernel.netlink.socket import explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetMacHolder

SYSFS = "/sys/class/net"
NET_ADDR_SET = "3"  # linux/netdevice.h: somebody has set the address


def holder(spaces: Spaces, question: GetMacHolder) -> Link | None:
    """See ``GetMacHolder``.

    The message of a veth's end tells the index of the other end, and the number that its namespace has in ours
    (rtnl_fill_link_netnsid, net/core/rtnetlink.c). With both, the kernel answers about the other end.

    A bridge may have a thousand ports, so only a message that has the bytes of the MAC somewhere is read.
    """
    index = spaces.index(HOST, question.bridge)
    if index is None:
        return None
    route, mac = spaces.get(HOST).route, bytes.fromhex(question.mac.replace(":", ""))
    ports = route.dump(requests.get_ports(index)).messages
    [about_bridge] = route.request([requests.get_link_by_index(index)])
    for data in (*about_bridge.messages, *ports):
        if mac in data and (link := answers.read_link(data)[0]).mac == question.mac:
            return link
    asked = {port: request for port in ports if (request := _get_other_end(port))}
    for port, answer in zip(asked, route.request(list(asked.values()))):
        for other_end in answer.messages:
            if mac in other_end and answers.read_link(other_end)[0].mac == question.mac:
                return answers.read_link(port)[0]
    return None


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
        index, route = spaces.index(HOST, operation.bridge), spaces.get(HOST).route
        if index is None:
            return False
        [about_bridge] = route.request([requests.get_link_by_index(index)])
        present = {answers.read_link(data)[0].mac for data in about_bridge.messages}
        if address not in present:
            ports = [answers.read_link(data)[0].mac for data in route.dump(requests.get_ports(index)).messages]
            return bool(ports) and min(ports) not in present
    return _attribute(operation.bridge, "addr_assign_type") == NET_ADDR_SET


def _attribute(bridge: str, name: str) -> str:
    """An attribute of a bridge in sysfs; "" where it cannot be read."""
    try:
        with open(os.path.join(SYSFS, bridge, name), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _get_other_end(data: bytes) -> Message | None:
    """The request for the other end of a veth; None for another port."""
    given = by_kind(data, HEADER.size + requests.IFINFOMSG.size)
    peer = as_int(given.get(IFLA_LINK))
    if not peer:
        return None
    here = requests.get_link_by_index(peer)
    if IFLA_LINK_NETNSID not in given:  # both ends are on the node
        return here
    namespace = u32(IFLA_TARGET_NETNSID, as_int(given[IFLA_LINK_NETNSID]))
    return Message(here.type, here.flags, here.body + namespace)
