"""Macvlans, ipvlans and vlans: made in the container's namespace, on an interface of the node or of the container."""

from __future__ import annotations

import errno

from cni_v6.errors import ADDRESS_UNAVAILABLE, ALREADY_ATTACHED, KERNEL_REFUSED, NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import MODULES
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests
from cni_v6.kernel.netlink.socket import Answer, explain
from cni_v6.kernel.open_namespaces import Spaces

SHARES_NOT = (errno.EBUSY, errno.EINVAL)
_ALONE = {
    "macvlan": "it must not be in a bridge, a bond or a team, nor have an ipvlan; mode passthru takes it for itself",
    "ipvlan": "it must not be in a bridge, a bond or a team, nor have a macvlan",
    "vlan": "not every interface takes VLANs",
}


def create(spaces: Spaces, operation: ops.CreateChildLink) -> None:
    """See ``ops.CreateChildLink``. Of one that cannot have its name nothing is left.

    :raises CniError: ALREADY_ATTACHED, NODE_CONFLICT, KERNEL_REFUSED.
    """
    master = spaces.index(operation.place, operation.master)
    if master is None:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", f"there is no interface {operation.master}")
    inside = spaces.get(operation.netns)
    file = inside.file if operation.place != operation.netns else None
    [made] = spaces.get(operation.place).route.request([pyroute2_messages.create_child_link(operation, master, file)])
    if operation.shared and made.error == errno.EEXIST:
        return
    if made.error:
        raise _not_made(operation, made)
    alias = requests.set_alias(ops.SetAlias(operation.netns, operation.ifname, operation.alias))
    if operation.shared:
        inside.route.request([alias])
        return
    index = spaces.index(operation.netns, operation.temporary)
    spaces.forget_indices()  # it is about to have another name
    if index is None:  # a container that runs may rename what is in it
        words = f"the new interface {operation.temporary} is not in the container any more ({operation.netns})"
        _delete_renamed(spaces, operation)
        raise CniError(KERNEL_REFUSED, words, "something in the container has renamed or deleted it: run DEL, then ADD")
    named = inside.route.request([pyroute2_messages.rename(index, operation.ifname), alias])
    failed = next((answer for answer in named if answer.error), None)
    if failed:
        inside.route.request(requests.deletion([index], 0))
        raise _name_taken(operation) if failed.error == errno.EEXIST else _refusal(operation, failed)
    spaces.made[operation.netns, operation.ifname] = index


def _delete_renamed(spaces: Spaces, operation: ops.CreateChildLink) -> None:
    """Delete the new interface, which is known by its kind and its MAC, and has no owner yet."""
    [master] = spaces.get(operation.place).route.request([requests.get_link(operation.master)])
    mac = operation.mac or (answers.read_link(master.messages[0])[0].mac if master.messages else "")
    route = spaces.get(operation.netns).route
    for data in route.dump(requests.get_ports(0)).messages:
        link = answers.read_link(data)[0]
        has_owner = link.alias.partition(" ")[0] == operation.alias.partition(" ")[0]
        if (link.kind, link.mac) == (operation.kind, mac) and not has_owner:
            route.request(requests.deletion([answers.index_of(data)], 0))


def _not_made(operation: ops.CreateChildLink, answer: Answer) -> CniError:
    master, kind, mode = operation.master, operation.kind, operation.mode
    if answer.error == errno.EEXIST and kind == "vlan":
        return CniError(NODE_CONFLICT, f"VLAN {mode} of master {master} has an interface already", "a VLAN of an "
                        "interface has one, in whatever namespace: run DEL for the container that has it, remove the "
                        "node's own, or write another vlanId")
    if answer.error == errno.EEXIST:
        return _name_taken(operation)
    if answer.error == errno.EOPNOTSUPP:  # of the kind, or of what this interface can do
        remedy = f"modprobe {MODULES.get(kind, kind)}, and a line with it in a file in /etc/modules-load.d"
        return CniError(KERNEL_REFUSED, f"the kernel makes no {kind} on {master}", f"{explain(answer)}: {remedy}")
    if answer.error in SHARES_NOT:
        words = f"master {master} takes no {kind}" + (f" in mode {mode}" if kind != "vlan" else "")
        return CniError(NODE_CONFLICT, words, f"{_ALONE[kind]} ({explain(answer)})")
    return _refusal(operation, answer)


def _name_taken(operation: ops.CreateChildLink) -> CniError:
    words = f"interface {operation.ifname} is in the container already ({operation.netns})"
    remedy = "choose another CNI_IFNAME, or run DEL for the attachment that made it"
    return CniError(ALREADY_ATTACHED, words, remedy)


def _refusal(operation: ops.CreateChildLink, answer: Answer) -> CniError:
    return CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))


def mac_in_use(operation: ops.SetLink) -> CniError:
    """The error for an interface that cannot come up because its MAC is another one's on the same master."""
    words = f"the MAC of {operation.ifname} is that of its master, or of another macvlan there"
    return CniError(ADDRESS_UNAVAILABLE, words, "ask for another MAC, or for none")


def address_in_use(operation: ops.AddAddress) -> CniError:
    """The error for an address that another ipvlan of the same master has: the kernel tells them by their addresses."""
    words = f"address {operation.address} is that of another ipvlan on the same master"
    remedy = "give each network of a master ranges of its own (cni-v6ctl list shows who has it, if it is ours)"
    return CniError(ADDRESS_UNAVAILABLE, words, remedy)
