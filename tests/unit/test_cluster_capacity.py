"""Whether a node needs another block, and which it can do without: by counted leases and a clock, without a node."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from cni_v6 import errors
from cni_v6.cluster import capacity, conflist, membership, records
from cni_v6.cluster.capacity import NOTHING, Idle, Withheld
from cni_v6.cluster.config import Pool
from cni_v6.cluster.records import Claim
from cni_v6.cluster.store import applied
from cni_v6.errors import CniError
from tests.unit.test_cluster import CONF, GOOD, LINK, POOL4, POOL6, UNKNOWN, A, B, own, parsed, template

SMALL = Pool("10.244.0.0/24", 28)  # 16 blocks of 13 containers
FIRST, SECOND, THIRD = "10.244.0.0/28", "10.244.0.16/28", "10.244.0.32/28"


@pytest.mark.parametrize(("pool", "room", "low"), [
    (POOL4, 61, 8), (Pool("fd42::/48", 122), 62, 8), (Pool("10.0.0.0/8", 24), 253, 32), (SMALL, 13, 2),
    (Pool("10.0.0.0/8", 29), 5, 2), (Pool("10.0.0.0/8", 30), 1, 1), (Pool("fd42::/48", 126), 2, 1),
    (replace(SMALL, spare=20), 13, 20),
])
def test_when_few_addresses_are_left(pool: Pool, room: int, low: int) -> None:
    """By default a block that is claimed for nothing can be given back: twice as many are free in one block."""
    assert (pool.room, pool.low) == (room, low) and pool.may_have_several
    assert pool.spare or room == 1 or capacity.CALM * low <= room


def test_blocks_that_never_get_full_are_not_counted() -> None:
    assert not POOL6.may_have_several and not replace(POOL4, given=True).may_have_several
    assert not capacity.is_short(POOL6, ["fd42:8e1f:6a00::/64"], {"fd42:8e1f:6a00::/64": 1 << 70})
    assert capacity.dispensable(POOL6, ["fd42:8e1f:6a00::/64", "fd42:8e1f:6a00:1::/64"], {}) == []


def test_a_pool_says_how_many() -> None:
    raw: dict[str, Any] = {**GOOD, "pools": [{"cidr": SMALL.cidr, "block": 28, "spare": 4, "maxBlocks": 3}]}
    assert parsed(raw).pools == (replace(SMALL, spare=4, most=3),)
    assert parsed(GOOD).pools[1] == POOL4 and POOL4.most == 20 and parsed(GOOD).give_back_after == 1800
    assert parsed({**GOOD, "giveBackAfter": "0s"}).give_back_after == 0
    raw["pools"][0]["spare"] = 40
    with pytest.raises(CniError, match=r"pools\[0\].spare: 40 is more than 3 blocks of /28 have.*write 39 at most"):
        parsed(raw)


def test_another_block_is_claimed_before_the_last_one_is_full() -> None:
    assert not capacity.is_short(SMALL, [FIRST], {FIRST: 11}) and capacity.is_short(SMALL, [FIRST], {FIRST: 12})
    assert not capacity.is_short(SMALL, [FIRST, SECOND], {FIRST: 13, SECOND: 11, THIRD: 13})


def test_what_a_node_can_do_without() -> None:
    """The youngest first; one always stays, and so many free addresses that it is not claimed again at once."""
    blocks = [FIRST, SECOND, THIRD]
    assert capacity.dispensable(SMALL, blocks, {}) == [THIRD, SECOND]
    assert capacity.dispensable(SMALL, blocks, {SECOND: 1}) == [THIRD, FIRST]
    assert capacity.dispensable(SMALL, blocks, {SECOND: 1, FIRST: 1}) == [THIRD]
    assert capacity.dispensable(SMALL, blocks, {SECOND: 10}, kept=[FIRST]) == [THIRD]
    assert capacity.dispensable(SMALL, [FIRST, SECOND], {FIRST: 10}) == []
    assert capacity.dispensable(SMALL, [FIRST, SECOND], {FIRST: 9}) == [SECOND]


def test_what_the_template_withholds() -> None:
    ipam = {"type": "cni-v6-ipam", "exclude": ["10.244.0.0/30", "10.244.0.4", "fd42::/64", "garbage", 7],
            "reserve": {"shop/db-0": ["10.244.0.40", "fd42::9"], "x": "10.244.0.5", "y": "nonsense"}}
    withheld = conflist.withheld(template(ipam=ipam))
    assert [withheld.count(block) for block in (FIRST, SECOND, THIRD, "fd42::/122")] == [6, 0, 1, 64]
    assert [withheld.reserves(block) for block in (FIRST, SECOND, THIRD, "fd42::/122")] == [True, False, True, True]
    assert capacity.is_short(SMALL, [FIRST], {FIRST: 6}, withheld) and not capacity.is_short(
        SMALL, [FIRST], {FIRST: 5}, withheld)
    assert capacity.dispensable(SMALL, [FIRST, SECOND, THIRD], {}, withheld) == [SECOND]
    assert conflist.withheld(template(ipam={"exclude": [], "reserve": []})) == NOTHING
    assert conflist.withheld(template(ipam={})) == NOTHING


@pytest.mark.parametrize(("ipam", "seconds"), [
    ({}, 3600.0), ({"reuseAfter": "7d"}, 604800.0), ({"reuseAfter": "0s"}, 0.0), ({"reuse": "never"}, None),
    ({"reuseAfter": "soon"}, 3600.0), ({"reuseAfter": 7}, 3600.0),
])
def test_how_soon_an_address_may_be_used_again(ipam: dict[str, Any], seconds: float | None) -> None:
    assert conflist.reuse_seconds(template(ipam=ipam)) == seconds


@pytest.mark.parametrize(("kind", "ours"), [
    ("cni-v6-ipam", True), ("host-local", True), ("dhcp", False), (None, False),
])
def test_whose_leases_can_be_counted(kind: str | None, ours: bool) -> None:
    assert conflist.is_ours(template(ipam={"type": kind})) == ours


# What is claimed


def claimed(objects: dict[str, str], used: dict[str, int], pool: Pool = SMALL, member: membership.Member = A,
            withheld: Withheld = NOTHING) -> tuple[str, ...]:
    """The blocks of a node after it has changed the store. ``objects`` has them then."""
    conf = replace(CONF, pools=(pool,))
    found = membership.changes(member, conf, objects, records.read(objects), underlay=LINK, kept=(),
                               registered=UNKNOWN, used=used, withheld=withheld)
    later = applied(objects, found)
    assert later is not None and all(change.now for change in found)
    objects.clear()
    objects.update(later)
    return membership.own_blocks(member, conf, records.read(objects))


def test_a_node_claims_as_many_as_it_needs() -> None:
    objects: dict[str, str] = {}
    [first] = claimed(objects, {})
    assert claimed(objects, {first: 11}) == (first,)
    both = claimed(objects, {first: 13})
    assert both[0] == first and len(both) == 2
    assert claimed(objects, {first: 13, both[1]: 11}) == both
    orders = [claim.order for claim in records.read(objects).claims]
    assert sorted(orders) == [0, 1]
    lots = replace(SMALL, spare=50)
    assert len(claimed(objects, {}, lots)) == 4
    assert len(claimed(objects, {first: 13}, replace(lots, most=4))) == 4
    assert len(claimed({}, {}, lots, B)) == 4


def test_the_order_is_that_of_the_claims_whatever_the_prefixes_are() -> None:
    objects = {claim.key: records.encode_claim(claim) for claim in (
        Claim(THIRD, "a", "1"), Claim(FIRST, "a", "1", 2), Claim(SECOND, "a", "1", 7))}
    assert claimed(objects, {}) == (THIRD, FIRST, SECOND)
    assert "order" not in objects[f"blocks/{THIRD}"]
    assert claimed(objects, dict.fromkeys((FIRST, SECOND, THIRD), 13))[:3] == (THIRD, FIRST, SECOND)
    assert sorted(claim.order for claim in records.read(objects).claims) == [0, 2, 7, 8]


def test_a_pool_that_is_exhausted() -> None:
    """Who has a block goes on with it, who has none cannot join."""
    objects = {claim.key: records.encode_claim(claim) for claim in (
        Claim(f"10.244.0.{number * 16}/28", "z", "9") for number in range(15))}
    [only] = claimed(objects, {})
    assert claimed(objects, {only: 13}) == (only,)
    with pytest.raises(CniError) as caught:
        claimed(objects, {}, member=B)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED


def test_a_block_in_which_the_node_has_leases_is_claimed_if_it_is_free() -> None:
    """As of a node that was removed while its containers were alive."""
    its = Claim(SECOND, "b", "2")
    objects = {its.key: records.encode_claim(its)}
    assert claimed(objects, {FIRST: 1, SECOND: 1, THIRD: 1, "10.9.0.0/28": 3}) == (FIRST, THIRD)


def test_own_blocks_of_another_conf() -> None:
    objects: dict[str, str] = {}
    claimed(objects, {})
    assert own(A, objects) == ()  # those pools have other blocks


# What becomes of a block that is not needed


def test_a_block_goes_in_two_steps() -> None:
    idle = capacity.observed({}, [SECOND], 100.0)
    assert capacity.leaving(idle, 109.9, 10.0) == frozenset() and capacity.wait(idle, 105.0, 10.0) == 5.0
    assert capacity.leaving(idle, 110.0, 10.0) == {SECOND} and capacity.due(idle, 999.0, 10.0) == []
    idle = capacity.closed(idle, {SECOND}, 111.0)
    assert capacity.closed(idle, {SECOND}, 115.0) == idle == {SECOND: Idle(100.0, 111.0)}
    assert capacity.leaving(idle, 112.0, 10.0) == {SECOND} and capacity.wait(idle, 112.0, 10.0) == 9.0
    assert capacity.due(idle, 120.9, 10.0) == [] and capacity.due(idle, 121.0, 10.0) == [SECOND]
    assert capacity.wait(idle, 121.0, 10.0) is None and capacity.wait({}, 0.0, 10.0) is None
    assert capacity.observed(idle, [THIRD], 130.0) == {THIRD: Idle(130.0)}
    assert capacity.observed(idle, [THIRD, SECOND], 130.0)[SECOND] == Idle(100.0, 111.0)


@pytest.mark.parametrize(("own_blocks", "used", "joined", "says"), [
    ([FIRST], {FIRST: 11}, True, []),
    ([FIRST], {FIRST: 12}, True, ["fewer than 2 addresses of pool 10.244.0.0/24 are left on this node, and the pool "
                                  "has no free block of /28: remove nodes"]),
    ([FIRST], {FIRST: 12}, False, ["and it can claim no other block now"]),
    ([FIRST, SECOND], {FIRST: 12, SECOND: 13}, True, ["the most blocks that it may have (maxBlocks: 2)"]),
    ([FIRST], {SECOND: 1, THIRD: 1}, True, ["addresses of block 10.244.0.16/28, which node b has: end them"]),
    ([], {}, True, []),
])
def test_what_is_said(own_blocks: list[str], used: dict[str, int], joined: bool, says: list[str]) -> None:
    found = [*capacity.complaints([replace(SMALL, most=2)], own_blocks, used, NOTHING, {SECOND: "b"}, joined=joined)]
    assert len(found) == len(says) and all(words in said for words, said in zip(says, found))


def test_what_changes_nothing_is_no_other_situation() -> None:
    def of(used: dict[str, int]) -> object:
        return capacity.situation([POOL6, SMALL], [FIRST, SECOND], used)

    assert of({FIRST: 1, SECOND: 1}) == of({FIRST: 9, SECOND: 13}) != of({FIRST: 1, SECOND: 0})
    assert of({FIRST: 12, SECOND: 13}) != of({FIRST: 11, SECOND: 13})
    assert of({FIRST: 1, SECOND: 1, THIRD: 1}) != of({FIRST: 1, SECOND: 1})


ACTS = st.lists(st.tuples(st.sampled_from(["start", "end", "late", "wait"]), st.integers(0, 200)), max_size=120)


@settings(max_examples=60)
@given(acts=ACTS)
def test_whatever_comes_and_goes(acts: list[tuple[str, int]]) -> None:
    """No block with a lease is given away, nor the last one; nobody finds the node full while the pool has blocks.

    A runtime that has read the list up to a step's time before (``late``) still starts containers in a block that has
    left it.
    """
    pool, seconds, now = replace(SMALL, most=6), 10.0, 0.0
    objects: dict[str, str] = {}
    leases: dict[str, set[int]] = {}
    idle: capacity.Idles = {}
    lists: list[tuple[float, tuple[str, ...]]] = []  # when each configuration list was written
    conf = replace(CONF, pools=(pool,))
    for act, number in [("wait", 0), *acts, *[("wait", 9)] * 6]:
        if act == "wait":
            now += 1 + number % 12
        elif act == "end":
            held = sorted((block, address) for block in leases for address in leases[block])
            for block, address in held[number % 5::5]:
                leases[block].discard(address)
        else:
            before = [blocks for written, blocks in lists if written < now - seconds + 1]  # the last one was valid then
            known = (before or [lists[0][1]])[-1] if act == "late" else lists[-1][1]
            block = known[number % len(known)]
            own_now = membership.own_blocks(A, conf, records.read(objects))
            assert block in own_now, "a container would have an address of another node"
            if len(leases.setdefault(block, set())) < pool.room:
                leases[block].add(number % pool.room)
        used = {block: len(held_here) for block, held_here in leases.items()}
        blocks = claimed(objects, used, pool)
        idle = capacity.observed(idle, capacity.dispensable(pool, blocks, used), now)
        for block in capacity.due(idle, now, seconds):
            assert not leases.get(block)
            objects.pop(f"blocks/{block}")
        blocks = membership.own_blocks(A, conf, records.read(objects))
        idle = capacity.observed(idle, capacity.dispensable(pool, blocks, used), now)
        leaving = capacity.leaving(idle, now, seconds)
        network = tuple(block for block in blocks if block not in leaving)
        assert network
        lists.append((now, network))
        idle = capacity.closed(idle, leaving, now)
        assert len(blocks) <= pool.most
        assert len(blocks) == pool.most or not capacity.is_short(pool, network, used)


def test_a_block_is_read_as_it_was_written() -> None:
    claim = Claim(FIRST, "a", "1", 3)
    assert records.read({claim.key: records.encode_claim(claim)}).claims == (claim,)
    assert json.loads(records.encode_claim(claim)) == {"node": "a", "id": "1", "order": 3}
    assert "order" in records.read({claim.key: '{"node": "a", "id": "1", "order": "x"}'}).complaints[0]
