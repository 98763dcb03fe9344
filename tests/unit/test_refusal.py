"""What the kernel's refusal of an operation means."""

from __future__ import annotations

import errno

import pytest

from cni_v6 import errors
from cni_v6.kernel import ops
from cni_v6.kernel.netlink.socket import Answer
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.refusal import refusal

MAC = "0a:00:00:00:00:01"
REMEDY = "CONFIG_BRIDGE_VLAN_FILTERING"


@pytest.mark.parametrize(("operation", "answer", "has_remedy"), [
    (ops.EnsureBridge("br0", MAC, 0, True, True), Answer(errno.EOPNOTSUPP), True),
    (ops.SetBridge("br0", vlan_filtering=True), Answer(errno.EOPNOTSUPP), True),
    (ops.SetBridge("br0", vlan_filtering=True), Answer(errno.EPERM), False),
    (ops.SetBridge("br0", netfilter=frozenset((4, 6))), Answer(errno.EOPNOTSUPP), False),
    (ops.EnsureBridge("br0", MAC, 0, True, True), Answer(errno.EOPNOTSUPP, "Unknown device type"), False),
    (ops.EnsureBridge("br0", MAC, 0, True, False), Answer(errno.EOPNOTSUPP), False),
])
def test_a_kernel_without_vlan_filtering_is_told(operation: ops.Op, answer: Answer, has_remedy: bool) -> None:
    error = refusal(Spaces(), operation, answer)
    assert error.code == errors.KERNEL_REFUSED and "br0" in error.msg
    assert (REMEDY in error.details) is has_remedy
