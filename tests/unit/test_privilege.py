"""Which processes count as privileged, by what the kernel says of them."""

from __future__ import annotations

import errno
import os

import pytest

from cni_v6.kernel import privilege
from tests.sandbox import need

STATUS = "Name:\tpython3\nCapInh:\t0000000000000000\nCapPrm:\t{0}\nCapEff:\t{1}\nCapBnd:\t000001ffffffffff\n"
ALL, NONE = "000001ffffffffff", "0000000000000000"


@pytest.mark.parametrize(("permitted", "effective", "privileged"), [
    (ALL, ALL, True),
    ("0000000000001000", "0000000000001000", True),  # CAP_NET_ADMIN alone
    (NONE, NONE, False),
    (ALL, NONE, False),  # dropped for now
    ("000001ffffffefff", "000001ffffffefff", False),  # all others
    ("00000000a80425fb", "00000000a80425fb", False),  # root of a Docker container
])
def test_the_effective_capability_counts(permitted: str, effective: str, privileged: bool) -> None:
    assert privilege.has_net_admin(STATUS.format(permitted, effective)) is privileged


def test_a_refused_file_needs_root_where_somebody_else_asked() -> None:
    need(os.geteuid() == 0, "needs root, to be somebody else")
    denied = [OSError(number, os.strerror(number)) for number in (errno.EACCES, errno.EPERM)]
    assert [privilege.needs_root(error) for error in denied] == ["", ""], "root itself is told what is wrong"
    os.seteuid(65534)
    try:
        assert [privilege.needs_root(error) for error in denied] == ["needs root: "] * 2
        assert privilege.needs_root(OSError(errno.ENOSPC, "full")) == ""
    finally:
        os.seteuid(0)
