"""The real kernel keeps what ``tests/contract`` says about VLANs; the fake does it there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from tests.contract.kernels import KernelTestbed, linux_testbed
from tests.contract.test_vlan import (  # noqa: F401 (tests of this module too, with its testbed)
    test_a_bridge_changes_its_mind,
    test_a_bridge_filters_vlans_or_not,
    test_a_new_port_is_in_the_default_vlan,
    test_a_port_without_its_untagged_vlan,
    test_a_shared_pair_that_is_there_is_fine_and_stays,
    test_a_whole_trunk,
    test_adding_twice_and_removing_twice,
    test_an_untagged_vlan_takes_over,
    test_the_untagged_vlan_becomes_a_tagged_one,
    test_trunk,
)

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]


@pytest.fixture(scope="module")
def shared() -> Iterator[KernelTestbed]:
    with linux_testbed() as made:
        yield made


@pytest.fixture
def testbed(shared: KernelTestbed) -> Iterator[KernelTestbed]:
    """One node for all, since each takes away what it made: the bridge, and the pair on it."""
    yield shared
    shared.kernel.remove([ops.DeleteLink(HOST, name) for name in ("veth0", "br0")])
