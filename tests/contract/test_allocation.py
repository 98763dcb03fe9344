"""Order and reuse of addresses: the same assertions on disk and in memory, with a clock that the test winds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.allocation.policy import AFTER, AUTO, DEFAULT, NEVER, RANDOM, SEQUENTIAL, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet, contains
from cni_v6.allocation.used import CHUNK
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.memory import MemoryLeases
from cni_v6.leases.store import Leases
from cni_v6.net.addresses import from_text
from tests.stores import BOOT, LARGE, NETWORK, SMALL, delete, held, owner, pool, span

HOUR = 3600
ONE_BY_ONE = AllocationPolicy(reuse=AFTER, wait=HOUR)
BY_LOT = AllocationPolicy(RANDOM, AFTER, HOUR)
PAIR = pool("10.5.0.0/30")  # one address besides the gateway
TINY = pool("fd05::/125")


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["disk", "memory"])
def leases(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Leases:
    if request.param == "memory":
        return MemoryLeases(NETWORK, now=clock)
    return DiskLeases(NETWORK, str(tmp_path / "data"), boot=BOOT, now=clock)


@pytest.fixture
def remarks() -> list[str]:
    return []


@pytest.fixture
def give(leases: Leases, remarks: list[str]) -> Callable[..., str]:
    """An ADD: an address of a set to a container."""

    def add(container_id: str, addresses: RangeSet, policy: AllocationPolicy = DEFAULT) -> str:
        with leases.transaction() as work:
            text = work.choose(0, addresses, policy)
            work.put(Attachment(owner(container_id), (text,), boot=BOOT, reuse=(policy.reuse_mode(addresses),),
                                identity=policy.identity))
            remarks[:] = work.remarks
            work.remarks.clear()
        return text

    return add


def stable(name: str, **more: object) -> AllocationPolicy:
    policy = AllocationPolicy(STABLE, AUTO, HOUR, name, b"sixteen bytes or more")
    return replace(policy, **more)  # type: ignore[arg-type]


# Reuse

def test_auto_is_never_for_large_sets_and_after_for_others() -> None:
    assert [
        DEFAULT.never_reuses(one) for one in (SMALL, LARGE, pool("10.0.0.0/8"), pool("fd00::/97"), pool("fd00::/95"))
    ] == [False, True, False, False, True]
    assert [
        AllocationPolicy(reuse=NEVER).never_reuses(SMALL),
        ONE_BY_ONE.never_reuses(LARGE),
        stable("a").never_reuses(LARGE),
    ] == [True, False, False]
    assert [
        DEFAULT.reuse_mode(LARGE),
        DEFAULT.reuse_mode(SMALL),
        BY_LOT.reuse_mode(SMALL),
        stable("a").reuse_mode(LARGE),
    ] == [NEVER, AFTER, "probed", "probed"]


def test_the_oldest_released_comes_first(leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    for number in range(5):
        give(f"c{number}", SMALL)
    for number in (3, 0, 4):
        clock.time += HOUR
        delete(leases, f"c{number}")
    clock.time += HOUR
    assert [give(f"d{number}", SMALL) for number in range(3)] == ["10.1.0.5", "10.1.0.2", "10.1.0.6"]


def test_a_released_address_waits_while_there_is_another(
        leases: Leases, give: Callable[..., str], clock: Clock, remarks: list[str]) -> None:
    for number in range(4):
        give(f"c{number}", SMALL)
    delete(leases, "c0")
    assert give("e", SMALL) == "10.1.0.6"  # never given yet
    clock.time += HOUR
    delete(leases, "c1")
    assert (give("f", SMALL), remarks) == ("10.1.0.2", [])  # its hour is over, that of c1's is not


def test_the_wait_gives_way_when_the_set_would_run_dry_and_says_so(
        leases: Leases, give: Callable[..., str], clock: Clock, remarks: list[str]) -> None:
    give("a", PAIR)
    delete(leases, "a")
    clock.time += 100
    assert give("b", PAIR) == "10.5.0.2"
    assert remarks == [
        "10.5.0.2 was released 100 s ago, less than ipam.reuseAfter (3600 s), and there is no other free address in "
        "10.5.0.0/30 (10.5.0.1 to 10.5.0.2): add a range"]


@pytest.mark.parametrize("back", [10, 10**9])
def test_a_clock_that_was_set_back_makes_nobody_wait_less(
        leases: Leases, give: Callable[..., str], clock: Clock, remarks: list[str], back: float) -> None:
    give("a", PAIR)
    delete(leases, "a")
    clock.time -= back
    assert give("b", PAIR) == "10.5.0.2"
    assert "was released 0 s ago" in remarks[0]


def test_an_address_that_was_asked_for_waits_no_more_and_later_again(
        leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    for number in range(5):
        give(f"c{number}", SMALL)
        delete(leases, f"c{number}")
    with leases.transaction() as work:
        work.put(Attachment(owner("asked"), ("10.1.0.2",)))
    clock.time += HOUR
    assert give("d", SMALL) == "10.1.0.3"
    delete(leases, "asked")
    assert [give(f"e{number}", SMALL) for number in range(4)] == ["10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"]


def test_an_address_that_was_chosen_and_not_taken_is_not_lost(leases: Leases, give: Callable[..., str]) -> None:
    for _ in range(20):
        with leases.transaction() as work:
            work.choose(0, SMALL)
    assert len({give(f"c{number}", SMALL) for number in range(5)}) == 5


def test_never_on_request_for_a_small_set(leases: Leases, give: Callable[..., str]) -> None:
    never = AllocationPolicy(reuse=NEVER)
    for number in range(5):
        give(f"c{number}", SMALL, never)
        delete(leases, f"c{number}")
    with pytest.raises(CniError, match="no unused address in 10.1.0.0/29 .* 5 in all, 0 taken, rest spent") as caught:
        give("late", SMALL, never)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED


def test_an_address_asked_for_in_a_set_that_gives_none_twice_is_spent(
        leases: Leases, give: Callable[..., str]) -> None:
    with leases.transaction() as work:
        work.put(Attachment(owner("asked"), ("2001:db8::3",), reuse=(NEVER,)))
    delete(leases, "asked")
    assert [give(f"c{number}", LARGE) for number in range(2)] == ["2001:db8::2", "2001:db8::4"]


def test_a_large_set_is_given_again_on_request(leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    assert give("a", LARGE, ONE_BY_ONE) == "2001:db8::2"
    delete(leases, "a")
    clock.time += HOUR
    assert give("b", LARGE, ONE_BY_ONE) == "2001:db8::3"


def test_a_set_that_gives_none_twice_from_now_on_counts_what_it_gave_before(
        leases: Leases, give: Callable[..., str]) -> None:
    for number in range(3):
        give(f"c{number}", SMALL)
        delete(leases, f"c{number}")
    never = AllocationPolicy(reuse=NEVER)
    assert [give(f"d{number}", SMALL, never) for number in range(2)] == ["10.1.0.5", "10.1.0.6"]
    for number in range(2):
        delete(leases, f"d{number}")
    assert [give(f"e{number}", SMALL) for number in range(3)] == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
    with pytest.raises(CniError, match="no free address"):
        give("late", SMALL)


def test_addresses_of_ranges_that_went_are_forgotten_once_they_have_waited(
        leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    both = RangeSet((*SMALL.ranges, *PAIR.ranges))
    for number in range(6):
        give(f"c{number}", both)
    for number in range(6):
        delete(leases, f"c{number}")
    clock.time += HOUR
    assert give("d", PAIR) == "10.5.0.2"
    delete(leases, "d")
    clock.time += HOUR
    assert give("e", PAIR) == "10.5.0.2"
    assert len({give(f"f{number}", SMALL) for number in range(5)}) == 5


@pytest.mark.parametrize(
    "policy", [ONE_BY_ONE, BY_LOT, AllocationPolicy(reuse=NEVER), AllocationPolicy(RANDOM, NEVER)]
)
def test_a_shortage_is_told_and_changes_nothing(
    leases: Leases, give: Callable[..., str], policy: AllocationPolicy
) -> None:
    with leases.transaction() as work:
        for _ in range(20):
            assert work.shortage(0, SMALL, policy) is None
    assert len({give(f"c{number}", SMALL, policy) for number in range(5)}) == 5
    with leases.transaction() as work:
        told = work.shortage(0, SMALL, policy)
        assert told and (told.code, "5 in all, 5 taken" in told.msg) == (errors.ADDRESSES_EXHAUSTED, True)
    delete(leases, "c0")
    with leases.transaction() as work:
        assert (work.shortage(0, SMALL, policy) is None) == (policy.reuse == AFTER)
        assert work.shortage(0, LARGE) is None
        assert work.spent(LARGE) == 0


# Random

@pytest.mark.parametrize("addresses", [LARGE, RangeSet((span("2001:db8::/120", 5, 250), span("2001:db8:1::/64")))])
def test_a_large_set_in_random_order_gives_none_twice(
        leases: Leases, give: Callable[..., str], addresses: RangeSet) -> None:
    by_lot = AllocationPolicy(RANDOM)
    seen = []
    for number in range(100):
        seen.append(give(f"c{number}", addresses, by_lot))
        delete(leases, f"c{number}")
    assert len(set(seen)) == 100
    values = [from_text(text)[1] for text in seen]
    assert values != sorted(values)
    assert all(contains(addresses, 6, value) for value in values)
    with leases.transaction() as work:
        assert work.spent(addresses) == 100


def test_a_small_set_in_random_order_gives_all_and_none_twice(leases: Leases, give: Callable[..., str]) -> None:
    by_lot = AllocationPolicy(RANDOM, NEVER)
    many = pool("10.6.0.0/26")
    assert len({give(f"c{number}", many, by_lot) for number in range(61)}) == 61
    with pytest.raises(CniError, match="no unused address"):
        give("late", many, by_lot)


def test_what_was_given_in_one_order_is_not_given_in_the_other(leases: Leases, give: Callable[..., str]) -> None:
    """All but one of a small set, so that each would be met."""
    never, by_lot = AllocationPolicy(reuse=NEVER), AllocationPolicy(RANDOM, NEVER)
    many = pool("10.6.0.0/26")
    with leases.transaction() as work:
        work.put(Attachment(owner("asked"), ("10.6.0.40",), reuse=(NEVER,)))
    seen = ["10.6.0.40", *(give(f"c{number}", many, by_lot) for number in range(20))]
    seen += [give(f"d{number}", many, never) for number in range(20)]
    seen += [give(f"e{number}", many, by_lot) for number in range(20)]
    assert len(set(seen)) == 61


def test_a_small_set_at_random_keeps_the_wait(
        leases: Leases, give: Callable[..., str], clock: Clock, remarks: list[str]) -> None:
    for _ in range(10):
        first = give("a", SMALL, BY_LOT)
        delete(leases, "a")
        others = {give(f"b{number}", SMALL, BY_LOT) for number in range(4)}
        assert (first not in others, len(others), remarks) == (True, 4, [])
        assert give("c", SMALL, BY_LOT) == first
        assert "less than ipam.reuseAfter" in remarks[0]
        with pytest.raises(CniError, match="no free address"):
            give("d", SMALL, BY_LOT)
        for name in ("c", *(f"b{number}" for number in range(4))):
            delete(leases, name)
        clock.time += HOUR


def test_a_set_at_random_is_random(leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    many = pool("10.7.0.0/16")
    values = [from_text(give(f"c{number}", many, BY_LOT))[1] for number in range(50)]
    assert values != sorted(values) and len(set(values)) == 50


# Stable

def test_an_identity_gets_its_address_again_at_once(leases: Leases, give: Callable[..., str]) -> None:
    first, other = give("a", LARGE, stable("web")), give("b", LARGE, stable("db"))
    assert first != other
    delete(leases, "a")
    assert held(leases, "a") is None
    assert give("c", LARGE, stable("web")) == first


def test_the_address_follows_from_identity_secret_and_subnet_alone(tmp_path: Path, clock: Clock) -> None:
    def one(place: str, addresses: RangeSet = LARGE, **more: object) -> str:
        with DiskLeases(NETWORK, str(tmp_path / place), boot=BOOT, now=clock).transaction() as work:
            return work.choose(0, addresses, stable("web", **more))

    here = one("one node")
    assert one("another node") == here
    assert one("more", identity="db") != here
    assert one("more", secret=b"another secret....") != here
    assert one("more", addresses=pool("2001:db9::/64"))[9:] != here[9:]
    assert one("more", secret=b"") == one("more", secret=b"")  # the store's own
    assert one("more", secret=b"") != one("one node", secret=b"") != here


def test_a_collision_is_stepped_over_and_does_not_take_what_was_just_released(
        leases: Leases, give: Callable[..., str], clock: Clock, remarks: list[str]) -> None:
    given = {name: give(name, TINY, stable(name)) for name in "abc"}
    assert len(set(given.values())) == 3
    for name in "abc":
        delete(leases, name)
    fresh = {give(name, TINY, stable(name)) for name in "xyz"}
    assert (fresh & set(given.values()), remarks) == (set(), [])
    with pytest.raises(CniError, match="no free address"):
        for name in "uvwts":
            give(name, TINY, stable(name))
            assert "less than ipam.reuseAfter" in remarks[0]


def test_the_wait_of_another_identitys_address_ends(leases: Leases, give: Callable[..., str], clock: Clock) -> None:
    names = [f"n{number}" for number in range(40)]
    wanted = {}
    for name in names:
        wanted[name] = give(name, TINY, stable(name))
        delete(leases, name)
        clock.time += 2 * HOUR
    one, other = next((a, b) for a in names for b in names if a < b and wanted[a] == wanted[b])
    give(one, TINY, stable(one))
    delete(leases, one)
    assert give(other, TINY, stable(other)) != wanted[other]
    delete(leases, other)
    clock.time += HOUR
    assert give(other, TINY, stable(other)) == wanted[other]


def test_stable_keeps_away_from_what_was_given_for_good(leases: Leases, give: Callable[..., str]) -> None:
    once = {give("a", LARGE), give("b", LARGE, AllocationPolicy(RANDOM))}
    delete(leases, "a")
    delete(leases, "b")
    never = pool("fd06::/124")
    gone = {give(f"c{number}", never, AllocationPolicy(reuse=NEVER)) for number in range(6)}
    gone |= {give(f"d{number}", never, AllocationPolicy(RANDOM, NEVER)) for number in range(6)}
    for number in range(6):
        delete(leases, f"c{number}")
        delete(leases, f"d{number}")
    assert {give(f"e{number}", never, stable(f"e{number}")) for number in range(2)}.isdisjoint(gone | once)


# Prefixes

def test_prefixes_are_given_to_one_and_never_again(leases: Leases, give: Callable[..., str]) -> None:
    assert give("a", LARGE) == "2001:db8::2"
    seen = []
    for number in range(3):
        with leases.transaction() as work:
            prefix = work.choose_prefix(0, LARGE, 80)
            address = work.choose(0, LARGE)
            work.put(Attachment(owner(f"c{number}"), (address,), reuse=(NEVER,), prefixes=(prefix,)))
            seen.append((prefix, address))
    assert seen == [("2001:db8:0:0:1::/80", "2001:db8::3"), ("2001:db8:0:0:2::/80", "2001:db8::4"),
                    ("2001:db8:0:0:3::/80", "2001:db8::5")]
    with leases.transaction() as work:
        assert work.delegated("2001:db8::1:2:3:4") == "c0 eth0"
        assert work.delegated("2001:db8::4:0:0:1") is None
        assert work.delegated("10.1.0.2") is None
        found = work.get(owner("c1"))
        assert found and found.prefixes == ("2001:db8:0:0:2::/80",)
    delete(leases, "c1")
    with leases.transaction() as work:
        assert work.delegated("2001:db8::2:0:0:1") is None
        assert work.choose_prefix(0, LARGE, 80) == "2001:db8:0:0:4::/80"


def test_a_prefix_avoids_gateways_and_what_was_asked_for(leases: Leases) -> None:
    few = pool("2001:db8::/120")
    with leases.transaction() as work:
        work.put(Attachment(owner("asked"), ("2001:db8::48",), reuse=(NEVER,)))
        assert [work.choose_prefix(0, few, 124) for _ in range(4)] == [
            "2001:db8::10/124", "2001:db8::20/124", "2001:db8::30/124", "2001:db8::50/124"]
        for _ in range(10):
            work.choose_prefix(0, few, 124)
        with pytest.raises(CniError, match="no unused /124 in 2001:db8::/120") as caught:
            work.choose_prefix(0, few, 124)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED


def test_a_prefix_has_no_gateway_in_it(leases: Leases) -> None:
    [part] = pool("2001:db8::/120").ranges
    with leases.transaction() as work:
        assert work.choose_prefix(0, RangeSet((replace(part, gateway="2001:db8::13"),)), 124) == "2001:db8::20/124"


def test_no_prefix_of_a_set_that_was_given_at_random(leases: Leases, give: Callable[..., str]) -> None:
    give("a", LARGE, AllocationPolicy(RANDOM))
    with leases.transaction() as work, pytest.raises(CniError, match="no unused /80"):
        work.choose_prefix(0, LARGE, 80)


def test_what_is_spent_is_counted(leases: Leases, give: Callable[..., str]) -> None:
    with leases.transaction() as work:
        assert (work.spent(LARGE), work.spent(SMALL)) == (0, 0)
    give("a", LARGE)
    give("b", LARGE)
    with leases.transaction() as work:
        work.choose_prefix(0, LARGE, 112)
        assert work.spent(LARGE) == 2 + 2**16
        assert work.choose(0, LARGE, AllocationPolicy(SEQUENTIAL)) == "2001:db8::4"


def test_chunks_are_no_large_part_of_a_set() -> None:
    from cni_v6.allocation import used
    sizes = (SMALL, pool("10.0.0.0/8"), pool("fd00::/96"), LARGE)
    assert [used.chunk(one) for one in sizes] == [1, 15, CHUNK - 1, CHUNK]
