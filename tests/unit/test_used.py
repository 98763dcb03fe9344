"""The order of a set's addresses, and what a large set has spent."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from cni_v6.allocation import used
from cni_v6.allocation.ranges import RangeSet, among
from cni_v6.allocation.used import CHUNK, UsedAddresses
from cni_v6.net.addresses import from_text
from tests.stores import LARGE, pool, span

BASE = from_text("2001:db8::")[1]
interval = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair)))
intervals = st.lists(interval, max_size=6)


def members(parts: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> set[int]:
    return {value for first, last in parts for value in range(first, last + 1)}


@given(intervals, st.integers(0, 60), st.integers(0, 12))
def test_what_is_free_and_what_is_spent_make_up_the_whole(parts: list[tuple[int, int]], first: int, count: int) -> None:
    spent = UsedAddresses()
    for part in parts:
        spent = spent.add(*part)
    last = first + count
    assert members(spent.intervals) == members(parts)
    assert members(spent.free(first, last)) == members([(first, last)]) - members(parts)
    assert spent.covers(first, last) == (members([(first, last)]) <= members(parts))
    assert spent.touches(first, last) == bool(members([(first, last)]) & members(parts))
    assert all(high + 1 < low for (_, high), (low, _) in zip(spent.intervals, spent.intervals[1:]))


@given(intervals, st.integers(1, 5))
def test_advancing_never_offers_an_address_again(parts: list[tuple[int, int]], restarts: int) -> None:
    spent = UsedAddresses()
    for part in parts:
        spent = spent.add(*part)
    seen: list[int] = []
    while left := spent.free(0, 70):
        seen.append(left[0][0])
        spent = spent.advance(0, left[0][0], 70)
        if len(seen) % restarts == 0:
            spent = UsedAddresses(spent.intervals)  # the power went
    assert seen == sorted(set(seen))
    assert not set(seen) & members(parts)
    assert members(spent.intervals) >= set(range(71))


def test_a_chunk_is_reserved_ahead_and_then_used_up_without_another() -> None:
    spent = UsedAddresses().advance(10, 10, 10**9)
    assert spent == UsedAddresses(((10, 9 + CHUNK),), ((11, 9 + CHUNK),))
    for address in range(11, 10 + CHUNK):
        after = spent.advance(10, address, 10**9)
        assert after.intervals == spent.intervals
        spent = after
    assert spent.open == ()
    assert spent.advance(10, 10 + CHUNK, 10**9).intervals == ((10, 9 + 2 * CHUNK),)


def test_a_chunk_ends_with_the_range_and_before_what_is_spent() -> None:
    assert UsedAddresses().advance(10, 10, 12) == UsedAddresses(((10, 12),), ((11, 12),))
    assert UsedAddresses().advance(10, 10, 10) == UsedAddresses(((10, 10),), ())
    assert UsedAddresses(((15, 20),)).advance(10, 11, 99) == UsedAddresses(((10, 20),), ((12, 14),))


def test_the_gateway_of_a_range_with_nothing_left_is_not_offered_by_another() -> None:
    low, high = span("2001:db8::/65", 0x10, 0x20), span("2001:db8::/64", 0)
    spent = UsedAddresses().add(low.first, low.last).add(BASE, BASE)
    assert next(used.ahead(RangeSet((low, high)), spent)) == BASE + 2


def test_the_reference_plugins_cursor_is_taken_over() -> None:
    spent = used.adopt(UsedAddresses(), LARGE, BASE + 0x500)
    assert next(used.ahead(LARGE, spent)) == BASE + 0x501


def test_ranges_before_a_cursor_that_is_taken_over_are_spent_too() -> None:
    both = pool("fd01::/120", "2001:db8::/64")
    assert next(used.ahead(both, used.adopt(UsedAddresses(), both, BASE + 7))) == BASE + 8


def test_a_range_added_before_one_in_use_is_used() -> None:
    spent = used.advance(UsedAddresses(), LARGE, BASE + 7)
    both = pool("fd01::/120", "2001:db8::/64")
    assert next(used.ahead(both, used.adopt(spent, both, BASE + 7))) == from_text("fd01::2")[1]


@pytest.mark.parametrize("last", [None, BASE + 7, BASE + 2, from_text("fd00::5")[1]])
def test_a_cursor_that_stands_where_we_were_says_nothing(last: int | None) -> None:
    spent = used.advance(UsedAddresses(), LARGE, BASE + 7)
    assert used.adopt(spent, LARGE, last) == spent


def test_a_cursor_ahead_of_us_is_followed() -> None:
    spent = used.advance(UsedAddresses(), LARGE, BASE + 7)
    for last in (BASE + 9, BASE + 2 * CHUNK):
        assert next(used.ahead(LARGE, used.adopt(spent, LARGE, last))) == last + 1


def test_a_large_set_at_its_end_offers_nothing_and_says_why() -> None:
    spent = used.adopt(UsedAddresses(), LARGE, LARGE.ranges[0].last)
    assert list(used.ahead(LARGE, spent)) == []
    leased = ["2001:db8::5", "10.1.0.2", "lock", "2001:db8::6", "2001:db9::1"]
    error = used.exhausted(LARGE, among(LARGE, leased), once=True)
    assert str(error).startswith(
        "no unused address in 2001:db8::/64 (2001:db8::1 to 2001:db8::ffff:ffff:ffff:ffff): "
        "18446744073709551614 in all, 2 taken, rest spent: this set hands no address out twice")


def test_going_on_behind_an_old_copy_ends_with_the_range() -> None:
    here = LARGE.ranges[0]
    whole = UsedAddresses(((here.first, here.first + 9), (here.last - 5, here.last)), gap=1)
    settled = used.settle(whole, LARGE)
    assert settled.intervals == ((here.first, here.first + 9 + used.RATE), (here.last - 5, here.last))
    assert used.settle(settled, LARGE) == settled
