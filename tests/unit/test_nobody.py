"""Why nobody has an address, and what would give it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6.allocation.policy import NEVER, RANDOM, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.leases.store import Past
from cni_v6.plan import nobody
from tests.stores import span
from tests.unit.sample_values import ipam_conf

FOUR = span("10.1.0.0/24", 2, 20)
CONF = replace(
    ipam_conf(RangeSet((replace(FOUR, last=FOUR.last - 1),), (FOUR,)), RangeSet((span("2001:db8::/64"),))),
    reserved={"10.1.0.5": "team/web"},
)
TIMES = {5000.0: "T1", 8600.0: "T2"}


def reason(address: str, past: Past = Past(), now: float = 6000.0, **changes: object) -> tuple[str, str, str]:
    conf = replace(CONF, **changes)  # type: ignore[arg-type]
    found = nobody.reason(conf, address, past, now, TIMES.__getitem__)
    assert found.network == conf.network
    return found.kind, found.why, found.gives


@pytest.mark.parametrize("address, kind, words", [
    ("10.1.0.1", nobody.GATEWAY, "it is the gateway, which no container gets"),
    ("10.1.0.5", nobody.RESERVED, "ipam.reserve keeps it for team/web"),
    ("10.1.0.20", nobody.EXCLUDED, "ipam.exclude, or the node's own address there, leaves it out"),
    ("10.1.0.0", nobody.OUTSIDE_RANGE, "it is the first address of 10.1.0.0/24, which stands for the subnet itself"),
    ("10.1.0.255", nobody.OUTSIDE_RANGE, "it is the broadcast address of 10.1.0.0/24"),
    ("10.1.0.99", nobody.OUTSIDE_RANGE, "it is in 10.1.0.0/24, but outside its range from 10.1.0.2 to 10.1.0.20"),
    ("10.1.0.7", nobody.FREE, "it is free, and was not given yet"),
    ("2001:db8:0:1::1", nobody.OUTSIDE, "no range has it: 10.1.0.0/24 (10.1.0.2 to 10.1.0.20), less what is excluded "
     "or reserved; 2001:db8::/64 (2001:db8::1 to 2001:db8::ffff:ffff:ffff:ffff)"),
])
def test_by_the_configuration(address: str, kind: str, words: str) -> None:
    assert reason(address)[:2] == (kind, words)


def test_it_waits_for_its_reuse() -> None:
    kind, why, gives = reason("10.1.0.7", Past(5000.0))
    assert (kind, why) == (nobody.WAITING, "it was released at T1, and waits until T2 (ipam.reuseAfter)")
    assert gives.startswith("a request for it")
    assert reason("10.1.0.7", Past(5000.0), 9000.0)[:2] == (nobody.FREE, "it is free since T1")


def test_it_is_given_once() -> None:
    assert reason("2001:db8::7", Past(used=True))[0] == nobody.SPENT
    assert reason("2001:db8::7")[:2] == (nobody.FREE, "it is free, and was not given yet")
    assert reason("10.1.0.7", Past(used=True), policy=AllocationPolicy(reuse=NEVER))[0] == nobody.SPENT


@pytest.mark.parametrize("order, words", [(RANDOM, "by lot"), (STABLE, "derived from the workload")])
def test_the_order_in_which_it_is_given(order: str, words: str) -> None:
    assert words in reason("10.1.0.7", policy=AllocationPolicy(order))[2]


def test_a_prefix() -> None:
    assert nobody.of_prefix(CONF, "10.1.0.8/29").kind == nobody.FREE
    assert nobody.of_prefix(CONF, "10.2.0.0/16").kind == nobody.OUTSIDE
