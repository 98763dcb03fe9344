"""Ranges: how many, in which order, and addresses as text."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network

import pytest
from hypothesis import given, strategies as st

from cni_v6.allocation.ranges import (
    LARGE,
    Range,
    RangeSet,
    candidates,
    contains,
    describe,
    gateways,
    size,
    subnet as subnet_of,
)
from cni_v6.net import addresses, intervals
from cni_v6.net.addresses import from_text, host_prefix, overlap, to_text
from cni_v6.net.intervals import locate


def made(subnet: str, first: str = "", last: str = "", gateway: str = "") -> Range:
    """A range as the configuration makes it."""
    address, length = subnet.split("/")
    family, network = from_text(address)
    end = network + (1 << (32 if family == 4 else 128) - int(length)) - 1 - (family == 4)
    return Range(
        family, network, int(length), from_text(first)[1] if first else network + 1,
        from_text(last)[1] if last else end, gateway or to_text(family, network + 1),
    )


def texts(ranges: RangeSet, after: str = "", wrap: bool = True, most: int = 20) -> list[str]:
    start = from_text(after)[1] if after else None
    return [to_text(ranges.family, value) for value in itertools.islice(candidates(ranges, start, wrap), most)]


SMALL = RangeSet((made("10.0.0.0/29"),))
SPILLING = RangeSet((made("10.0.0.0/30", gateway="10.0.0.2"), made("10.9.0.0/29", "10.9.0.4", "10.9.0.5")))


@pytest.mark.parametrize(("ranges", "expected"), [
    (SMALL, 5), (SPILLING, 3), (RangeSet((made("fd42::/122"),)), 62), (RangeSet((made("fd42::/64"),)), 2**64 - 2),
    (RangeSet((made("fd42::/48", gateway="fe80::1"),)), 2**80 - 1),
    (RangeSet((made("10.0.0.0/24", "10.0.0.10", "10.0.0.19"),)), 10),
    (RangeSet((made("10.0.0.0/24", "10.0.0.10", "10.0.0.19", "10.0.0.15"),)), 9),
])
def test_size_counts_what_can_be_handed_out(ranges: RangeSet, expected: int) -> None:
    assert size(ranges) == expected


def test_size_is_the_number_of_candidates() -> None:
    for ranges in (SMALL, SPILLING):
        assert size(ranges) == len(list(candidates(ranges, None, True)))


def test_where_large_begins() -> None:
    assert size(RangeSet((made("fd42::/96", gateway="fe80::1"),))) == LARGE - 1
    assert size(RangeSet((made("fd42::/95"),))) > LARGE
    assert size(RangeSet((made("10.0.0.0/8"),))) < LARGE


@pytest.mark.parametrize(("ranges", "after", "wrap", "expected"), [
    (SMALL, "", True, [2, 3, 4, 5, 6]),
    (SMALL, "10.0.0.3", True, [4, 5, 6, 2, 3]),
    (SMALL, "10.0.0.3", False, [4, 5, 6]),
    (SMALL, "10.0.0.6", True, [2, 3, 4, 5, 6]),
    (SMALL, "10.0.0.6", False, []),
    (SMALL, "10.0.0.1", True, [2, 3, 4, 5, 6]),
    (SMALL, "10.7.7.7", True, [2, 3, 4, 5, 6]),
])
def test_order(ranges: RangeSet, after: str, wrap: bool, expected: list[int]) -> None:
    assert texts(ranges, after, wrap) == [f"10.0.0.{host}" for host in expected]


def test_ranges_spill_over_in_order() -> None:
    assert texts(SPILLING) == ["10.0.0.1", "10.9.0.4", "10.9.0.5"]
    assert texts(SPILLING, "10.9.0.4") == ["10.9.0.5", "10.0.0.1", "10.9.0.4"]
    assert texts(SPILLING, "10.9.0.4", wrap=False) == ["10.9.0.5"]


def test_a_gateway_of_one_range_is_not_handed_out_by_another() -> None:
    ranges = RangeSet((made("10.0.0.0/24", "10.0.0.8", "10.0.0.9"), made("10.0.0.0/24", "10.0.0.1", "10.0.0.2")))
    assert texts(ranges) == ["10.0.0.8", "10.0.0.9", "10.0.0.2"]


def test_a_huge_set_is_opened_as_fast_as_a_small_one() -> None:
    huge = RangeSet((made("fd42::/16"), made("fd43::/16")))
    assert texts(huge, "fd42::1:0:0", most=2) == ["fd42::1:0:1", "fd42::1:0:2"]
    assert texts(huge, "fd42:ffff:ffff:ffff:ffff:ffff:ffff:fffe", most=2) == [
        "fd42:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd43::2",
    ]


def test_contains_counts_the_gateway_but_no_other_family() -> None:
    family, value = from_text("10.0.0.1")
    assert contains(SMALL, family, value) and not contains(SMALL, 6, value)
    assert not contains(SMALL, *from_text("10.0.0.0")) and not contains(SMALL, *from_text("10.0.0.7"))
    assert contains(SPILLING, *from_text("10.9.0.5")) and not contains(SPILLING, *from_text("10.9.0.6"))


def test_locate() -> None:
    spans = [(2, 4), (7, 7), (9, 12)]
    assert [locate(spans, value) for value in range(1, 14)] == [
        None, 0, 0, 0, None, None, 1, None, 2, 2, 2, 2, None,
    ]
    assert locate([], 5) is None


def test_gateways_of_the_sets_own_family() -> None:
    assert gateways(RangeSet((made("fd42::/64", gateway="fe80::1"),))) == {from_text("fe80::1")[1]}
    assert gateways(SPILLING) == {from_text("10.0.0.2")[1], from_text("10.9.0.1")[1]}


def test_description_is_short_however_many_ranges_there_are() -> None:
    assert describe(SMALL) == "10.0.0.0/29 (10.0.0.1 to 10.0.0.6)"
    many = RangeSet(tuple(made(f"10.0.{number}.0/24") for number in range(9)))
    assert describe(many).endswith("10.0.3.0/24 (10.0.3.1 to 10.0.3.254), 5 more")
    assert subnet_of(made("fd42::/64")) == "fd42::/64"


# What net.ParseIP(text).String() of Go 1.23 gives, "" where it gives nil.
GO = {
    "::ffff:1.2.3.4": "1.2.3.4", "::1.2.3.4": "::102:304", "::1": "::1", "::": "::", "::ffff": "::ffff",
    "2001:DB8::1:0:0:1": "2001:db8::1:0:0:1", "1:0:2:3:4:5:6:7": "1:0:2:3:4:5:6:7",
    "::ffff:0:102:304": "::ffff:0:102:304", "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
    "64:ff9b::1.2.3.4": "64:ff9b::102:304",
    "010.1.1.1": "", "10.1": "", "fe80::1%eth0": "", "::1 ": "", "1.2.3.04": "", "fd00::00001": "", "": "", "\0": "",
    "1.2.3.256": "", "0x7f.1.1.1": "", "1::2::3": "", "\ud800::": "", ":": "",
}


@pytest.mark.parametrize(("text", "go"), GO.items())
def test_text_is_as_go_reads_and_writes_it(text: str, go: str) -> None:
    if go:
        assert to_text(*from_text(text)) == go
    else:
        with pytest.raises(ValueError, match="not an IP address"):
            from_text(text)


def test_a_mapped_address_is_written_as_go_writes_it() -> None:
    assert to_text(6, 0xFFFF_0A00_0001) == "10.0.0.1"


@given(st.integers(0, 2**32 - 1))
def test_ipv4_there_and_back(value: int) -> None:
    assert from_text(to_text(4, value)) == (4, value)


@given(st.integers(0, 2**128 - 1) | st.integers(0, 2**48) | st.integers(0xFFFF << 32, 0x1_0000 << 32))
def test_ipv6_there_and_back(value: int) -> None:
    text = to_text(6, value)
    if value >> 32 == 0xFFFF:
        assert from_text(text) == (4, value & 0xFFFFFFFF)
    else:
        assert from_text(text) == (6, value)
        assert text == str(ip_address(value.to_bytes(16, "big")))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), min_size=1, max_size=4),
    st.integers(0, 90),
    st.booleans(),
)
def test_candidates_are_all_there_once(spans: list[tuple[int, int]], after: int, wrap: bool) -> None:
    base = from_text("10.0.0.0")[1]
    apart = [(base + 100 * at + low, base + 100 * at + low + length) for at, (low, length) in enumerate(spans)]
    ranges = RangeSet(tuple(Range(4, base, 16, first, last, "10.0.0.3") for first, last in apart))
    everything = list(candidates(ranges, None, False))
    assert everything == [value for low, high in apart for value in range(low, high + 1) if value != base + 3]
    rest = list(candidates(ranges, base + after, wrap))
    assert len(set(rest)) == len(rest)
    if wrap or not contains(ranges, 4, base + after):
        assert sorted(rest) == everything
    else:
        assert rest == [value for value in everything if value > base + after]


PREFIXES6 = st.tuples(
    st.integers(0, 15).map(lambda high: high << 124) | st.integers(0, 2**128 - 1), st.integers(0, 128)
)
PREFIXES4 = st.tuples(
    st.integers(0, 15).map(lambda high: high << 28) | st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@given(PREFIXES6.map(IPv6Interface), PREFIXES6.map(IPv6Interface))
def test_overlapping_ipv6_prefixes(one: IPv6Interface, other: IPv6Interface) -> None:
    assert overlap(str(one), str(other)) == one.network.overlaps(other.network)


@given(PREFIXES4.map(IPv4Interface), PREFIXES4.map(IPv4Interface))
def test_overlapping_ipv4_prefixes(one: IPv4Interface, other: IPv4Interface) -> None:
    assert overlap(str(one), str(other)) == one.network.overlaps(other.network)


@given(PREFIXES6.map(IPv6Interface).map(str), PREFIXES4.map(IPv4Interface).map(str))
def test_prefixes_of_two_families_have_nothing_in_common(six: str, four: str) -> None:
    assert not overlap(six, four) and not overlap(four, six)


@pytest.mark.parametrize("address", ["fd42::7", "fd42::7/64", "10.1.2.3", "10.1.2.3/24"])
def test_the_prefix_of_an_address_alone(address: str) -> None:
    assert host_prefix(address) == str(ip_network(address.partition("/")[0]))


def test_a_mapped_prefix_is_an_ipv6_one() -> None:
    assert overlap("::ffff:10.0.0.1/128", "::/64")
    assert not overlap("::ffff:10.0.0.1/128", "2001:db8::/64")


def test_the_address_at_a_place_of_some_spans() -> None:
    spans = ((10, 12), (20, 20), (30, 31))
    assert [intervals.nth(spans, place) for place in range(intervals.total(spans))] == [10, 11, 12, 20, 30, 31]
    with pytest.raises(IndexError):
        intervals.nth(spans, 6)


@pytest.mark.parametrize(("address", "expected"), [
    ("fe80::1", True), ("FE80::1", True), ("febf:ffff::1/64", True), ("fea0::", True), ("fe8::1", False),
    ("fe7f::1", False), ("fec0::1", False), ("2001:db8:fe80::1", False), ("10.0.0.1", False), ("", False)])
def test_what_is_link_local(address: str, expected: bool) -> None:
    assert addresses.is_link_local(address) == expected


def test_the_place_of_an_address_is_where_it_is_found() -> None:
    spans = ((10, 12), (20, 20), (30, 31))
    assert [intervals.place(spans, intervals.nth(spans, number)) for number in range(6)] == [*range(6)]
    assert [intervals.place(spans, value) for value in (9, 13, 32)] == [None] * 3
