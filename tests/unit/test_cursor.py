"""The order of a set's addresses, and what a large set has spent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_v6 import cursor
from cni_v6.cursor import CHUNK, Spent
from cni_v6.ranges import RangeSet, from_text
from tests.stores import LARGE, SMALL, pool, span

BASE = from_text("2001:db8::")[1]
interval = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair)))
intervals = st.lists(interval, max_size=6)


def members(parts: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> set[int]:
    return {value for first, last in parts for value in range(first, last + 1)}


@given(intervals, st.integers(0, 60), st.integers(0, 12))
def test_what_is_free_and_what_is_spent_make_up_the_whole(parts: list[tuple[int, int]], first: int, count: int) -> None:
    spent = Spent()
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
    spent = Spent()
    for part in parts:
        spent = spent.add(*part)
    seen: list[int] = []
    while left := spent.free(0, 70):
        seen.append(left[0][0])
        spent = spent.advance(0, left[0][0], 70)
        if len(seen) % restarts == 0:
            spent = Spent(spent.intervals)  # the power went
    assert seen == sorted(set(seen))
    assert not set(seen) & members(parts)
    assert members(spent.intervals) >= set(range(71))


def test_a_chunk_is_reserved_ahead_and_then_used_up_without_another() -> None:
    spent = Spent().advance(10, 10, 10**9)
    assert spent == Spent(((10, 9 + CHUNK),), ((11, 9 + CHUNK),))
    for address in range(11, 10 + CHUNK):
        after = spent.advance(10, address, 10**9)
        assert after.intervals == spent.intervals
        spent = after
    assert spent.open == ()
    assert spent.advance(10, 10 + CHUNK, 10**9).intervals == ((10, 9 + 2 * CHUNK),)


def test_a_chunk_ends_with_the_range_and_before_what_is_spent() -> None:
    assert Spent().advance(10, 10, 12) == Spent(((10, 12),), ((11, 12),))
    assert Spent().advance(10, 10, 10) == Spent(((10, 10),), ())
    assert Spent(((15, 20),)).advance(10, 11, 99) == Spent(((10, 20),), ((12, 14),))


def test_the_gateway_of_a_range_with_nothing_left_is_not_offered_by_another() -> None:
    low, high = span("2001:db8::/65", 0x10, 0x20), span("2001:db8::/64", 0)
    spent = Spent().add(low.first, low.last).add(BASE, BASE)
    assert next(cursor.ahead(RangeSet((low, high)), spent)) == BASE + 2


def test_the_reference_plugins_cursor_is_taken_over() -> None:
    spent = cursor.adopt(Spent(), LARGE, BASE + 0x500)
    assert next(cursor.ahead(LARGE, spent)) == BASE + 0x501


def test_ranges_before_a_cursor_that_is_taken_over_are_spent_too() -> None:
    both = pool("fd01::/120", "2001:db8::/64")
    assert next(cursor.ahead(both, cursor.adopt(Spent(), both, BASE + 7))) == BASE + 8


def test_a_range_added_before_one_in_use_is_used() -> None:
    spent = cursor.advance(Spent(), LARGE, BASE + 7)
    both = pool("fd01::/120", "2001:db8::/64")
    assert next(cursor.ahead(both, cursor.adopt(spent, both, BASE + 7))) == from_text("fd01::2")[1]


@pytest.mark.parametrize("last", [None, BASE + 7, BASE + 2, from_text("fd00::5")[1]])
def test_a_cursor_that_stands_where_we_were_says_nothing(last: int | None) -> None:
    spent = cursor.advance(Spent(), LARGE, BASE + 7)
    assert cursor.adopt(spent, LARGE, last) == spent


def test_a_cursor_ahead_of_us_is_followed() -> None:
    spent = cursor.advance(Spent(), LARGE, BASE + 7)
    for last in (BASE + 9, BASE + 2 * CHUNK):
        assert next(cursor.ahead(LARGE, cursor.adopt(spent, LARGE, last))) == last + 1


def test_a_large_set_at_its_end_offers_nothing_and_says_why() -> None:
    spent = cursor.adopt(Spent(), LARGE, LARGE.ranges[0].last)
    assert list(cursor.ahead(LARGE, spent)) == []
    error = cursor.exhausted(LARGE, ["2001:db8::5", "10.1.0.2", "lock", "2001:db8::6", "2001:db9::1"])
    assert str(error).startswith(
        "no unused address in 2001:db8::/64 (2001:db8::1 to 2001:db8::ffff:ffff:ffff:ffff): "
        "18446744073709551614 in all, 2 taken, rest spent: a set of this size hands no address out twice")


def test_what_is_large() -> None:
    assert [cursor.is_large(one) for one in (SMALL, LARGE, pool("10.0.0.0/8"), pool("fd00::/97"))] == [
        False, True, False, False]


def test_both_files_are_read_back_and_the_open_part_keeps_its_length() -> None:
    spent = cursor.advance(Spent(), LARGE, BASE + 7)
    later = cursor.advance(spent, LARGE, BASE + 0x123)
    assert cursor.decode(cursor.encode_spent(spent), cursor.encode_open(spent, "b"), "b") == spent
    assert len(cursor.encode_open(spent, "b")) == len(cursor.encode_open(later, "b")) == cursor.OPEN_WIDTH


@pytest.mark.parametrize("opened", [
    b"", b"{", b"[]", b"7", b'{"boot": "b"}', b'{"boot": "b", "open": [["2001:db8::1"]]}', b"[" * 100_000,
    cursor.encode_open(Spent((), ((BASE + 9, BASE + 10),)), "an earlier boot"),
    cursor.encode_open(Spent((), ((BASE + CHUNK, BASE + 2 * CHUNK),)), "b"),
])
def test_of_the_open_part_only_what_can_be_true_is_believed(opened: bytes) -> None:
    spent = Spent(((BASE + 1, BASE + CHUNK),))
    assert cursor.decode(cursor.encode_spent(spent), opened, "b") == spent


@pytest.mark.parametrize("content", [
    b"", b"{}", b"\xff", b"null", b"[" * 100_000, b'{"spent": [["10.0.0.1", "10.0.0.2"]]}', b'{"spent": 7}',
    b'{"spent": [["2001:db8::2", "2001:db8::1"]]}', b'{"spent": [["x", "y"]]}', b'{"spent": [[1, 2]]}',
    json.dumps({"spent": [["2001:db8::1", "2001:db8::2", "2001:db8::3"]]}).encode(),
])
def test_a_damaged_file_of_what_is_spent_is_never_taken_for_nothing_spent(content: bytes) -> None:
    with pytest.raises(ValueError):
        cursor.decode(content, b"", "b")
