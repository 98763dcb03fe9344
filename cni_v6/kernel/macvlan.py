"""Macvlans: made in the container's namespace, on an interface of the node or of the container."""

from __future__ import annotations

import errno

from cni_v6.errors import ADDRESS_UNAVAILABLE, ALREADY_ATTACHED, KERNEL_REFUSED, NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.netlink import pyroute2_messages, requests
from cni_v6.kernel.netlink.socket import Answer, explain
from cni_v6.kernel.open_namespaces import Spaces

SHARES_NOT = (errno.EBUSY, errno.EINVAL)


def create(spaces: Spaces, operation: ops.CreateMacvlan) -> None:
    """See ``ops.CreateMacvlan``. Of a macvlan that cannot have its name nothing is left.

    :raises CniError: ALREADY_ATTACHED, NODE_CONFLICT, KERNEL_REFUSED.
    """
    master = spaces.index(operation.place, operation.master)
    if master is None:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", f"there is no interface {operation.master}")
    inside = spaces.get(operation.netns)
    file = inside.file if operation.place != operation.netns else None
    [made] = spaces.get(operation.place).route.request([pyroute2_messages.create_macvlan(operation, master, file)])
    if operation.shared and made.error == errno.EEXIST:
        return
    if made.error:
        raise _refusal(operation, made)
    alias = requests.set_alias(ops.SetAlias(operation.netns, operation.ifname, operation.alias))
    if operation.shared:
        inside.route.request([alias])
        return
    index = spaces.index(operation.netns, operation.temporary)
    if index is None:  # a container that runs may rename what is in it
        words = f"the new interface {operation.temporary} is not in the container any more ({operation.netns})"
        raise CniError(KERNEL_REFUSED, words, "something in the container has renamed or deleted it: run DEL, then ADD")
    spaces.forget_indices()  # it is about to have another name
    named = inside.route.request([pyroute2_messages.rename(index, operation.ifname), alias])
    failed = next((answer for answer in named if answer.error), None)
    if failed:
        inside.route.request(requests.deletion([index], 0))
        raise _refusal(operation, failed)


def _refusal(operation: ops.CreateMacvlan, answer: Answer) -> CniError:
    if answer.error == errno.EEXIST:
        words = f"interface {operation.ifname} is in the container already ({operation.netns})"
        remedy = "choose another CNI_IFNAME, or run DEL for the attachment that made it"
        return CniError(ALREADY_ATTACHED, words, remedy)
    if answer.error in SHARES_NOT:
        words = f"master {operation.master} takes no macvlan in mode {operation.mode}"
        remedy = ("it must not be in a bridge, a bond or a team, nor have an ipvlan; one in mode passthru has it for "
                  "itself")
        return CniError(NODE_CONFLICT, words, f"{remedy} ({explain(answer)})")
    return CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))


def mac_in_use(operation: ops.SetLink) -> CniError:
    """The error for an interface that cannot come up because its MAC is another one's on the same master."""
    words = f"the MAC of {operation.ifname} is that of its master, or of another macvlan there"
    return CniError(ADDRESS_UNAVAILABLE, words, "ask for another MAC, or for none")
