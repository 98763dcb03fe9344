"""What the kernel's refusal of an operation means, as the error that a call returns."""

from __future__ import annotations

import errno

from cni_v6.errors import ALREADY_ATTACHED, KERNEL_REFUSED, PORTS_EXHAUSTED, CniError
from cni_v6.kernel import child_link, mac_claims, ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import BRIDGE_PORTS_MAX
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.socket import Answer, explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST, Op

NO_FILTERING = (
    "vlan and vlanTrunk need a kernel with CONFIG_BRIDGE_VLAN_FILTERING; use another kernel, or a bridge for each VLAN"
)


def refusal(spaces: Spaces, operation: Op, answer: Answer) -> CniError:
    """The error for an operation that the kernel refused: what is in the way, where that can be told."""
    if isinstance(operation, ops.ClaimMac) and answer.error == errno.EEXIST:
        for found in spaces.get(HOST).route.request([requests.get_claimant(operation)]):
            for data in found.messages:
                return mac_claims.taken(operation.mac, answers.read_link(data)[0])
    if isinstance(operation, ops.CreateVeth):
        if answer.error == errno.EXFULL:
            words = f"bridge {operation.bridge} has no port left: a Linux bridge takes {BRIDGE_PORTS_MAX}"
            return CniError(PORTS_EXHAUSTED, words, "remove containers, or add a second network with its own bridge")
        if answer.error == errno.EEXIST:
            return _exists(spaces, operation)
    if isinstance(operation, ops.SetLink) and answer.error == errno.EADDRINUSE:
        return child_link.mac_in_use(operation)
    if isinstance(operation, ops.AddAddress) and answer.error == errno.EADDRINUSE:
        return child_link.address_in_use(operation)
    remedy = ""
    if isinstance(operation, (ops.EnsureBridge, ops.SetBridge)) and operation.vlan_filtering and _is_unable(answer):
        remedy = f": {NO_FILTERING}"
    return CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer) + remedy)


def _is_unable(answer: Answer) -> bool:
    """Whether the kernel has no such feature. Without bridges it says so ("Unknown device type")."""
    return answer.error == errno.EOPNOTSUPP and not answer.text


def _exists(spaces: Spaces, operation: ops.CreateVeth) -> CniError:
    if spaces.index(HOST, operation.host) is not None:
        words = f"interface {operation.host} is on the node already: this container was added before"
        return CniError(ALREADY_ATTACHED, words, "run DEL for the container first")
    words = f"interface {operation.ifname} is in the container already ({operation.netns})"
    return CniError(ALREADY_ATTACHED, words, "choose another CNI_IFNAME, or run DEL for the attachment that made it")
