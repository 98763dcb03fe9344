"""Routing rules by which what came in by an interface does not leave by one of a link group."""

from __future__ import annotations

import errno

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.describe import describe
from cni_v6.kernel.netlink import pyroute2_rules
from cni_v6.kernel.netlink.socket import explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import RefusesReturn

NO_RULES = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)  # no such family, or no rules at all, in this kernel
FINE = (0, errno.EEXIST, errno.ENOENT, *NO_RULES)  # there already; gone already


def change(spaces: Spaces, operation: ops.RefuseReturn | ops.AllowReturn) -> None:
    """
    :raises CniError: KERNEL_REFUSED.
    """
    for answer in spaces.get(HOST).route.request([*pyroute2_rules.returning(operation)]):
        if answer.error not in FINE:
            raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))


def are_there(spaces: Spaces, question: RefusesReturn) -> bool:
    """
    :raises CniError: KERNEL_REFUSED.
    """
    for family in (4, 6):
        answer = spaces.get(HOST).route.dump(pyroute2_rules.dump(family))
        if answer.error in NO_RULES:
            continue
        if answer.error:
            raise CniError(KERNEL_REFUSED, "cannot list the routing rules", explain(answer))
        if not pyroute2_rules.refuse(answer.messages, family, question.ifname, question.group):
            return False
    return True
