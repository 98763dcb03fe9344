"""``ipam.exclude``: what is left of the ranges, who is told what, and what an excluded address still counts for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from cni_v6 import errors
from cni_v6.allocation import used
from cni_v6.allocation.policy import DEFAULT
from cni_v6.allocation.ranges import Range, RangeSet, contains, describe, origin, size
from cni_v6.allocation.used import UsedAddresses
from cni_v6.attachments import allocate
from cni_v6.config.bridge import parse_bridge
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import parse_ipam
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.memory import MemoryLeases
from cni_v6.net.addresses import from_text, to_text
from cni_v6.net.intervals import meeting
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address
from tests.unit.config_tables import V4, V6, call, config, ipam as ipam_of, with_ipam

FIRST4, FIRST6 = from_text("10.0.0.0")[1], from_text("fd42::")[1]
SMALL: list[dict[str, str]] = [{"subnet": "10.0.0.0/27"}, {"subnet": "10.0.0.64/28", "gateway": "10.0.0.70"}]
HUGE: list[dict[str, str]] = [{"subnet": "fd42::/64"}]


def conf_of(*sets: list[dict[str, str]], **keys: Any) -> IpamConf:
    conf = parse_bridge(call(config(ipam=ipam_of(*sets, **keys)))).ipam
    assert isinstance(conf, IpamConf)
    return conf


def set_of(one: list[dict[str, str]], *entries: str) -> RangeSet:
    return conf_of(one, exclude=list(entries)).sets[0]


def prefix(base: int, length: int, bits: int) -> str:
    """The prefix of a length that an address lies in; the address where it is as long as that."""
    first = base >> bits - length << bits - length
    family = 4 if bits == 32 else 6
    return f"{to_text(family, first)}/{length}" if length < bits else to_text(family, first)


def members(text: str) -> set[int]:
    address, _, length = text.partition("/")
    family, first = from_text(address)
    bits = 32 if family == 4 else 128
    return set(range(first, first + (1 << bits - int(length or bits))))


ENTRIES4 = st.builds(prefix, st.integers(FIRST4, FIRST4 + 90), st.integers(27, 32), st.just(32))
OTHERS = st.sampled_from(["fd42::/16", "192.0.2.0/24", "::", "10.0.0.96/27"])


@given(st.lists(ENTRIES4 | OTHERS, max_size=8))
@example(["10.0.0.0/27"])  # all of a range
@example(["10.0.0.1", "10.0.0.70", "10.0.0.72/29"])  # gateways, and the end of a range
@example(["10.0.0.4/30", "10.0.0.8/29", "10.0.0.5"])  # adjacent ones, and one within another
def test_a_small_set_hands_out_all_of_it_but_what_is_excluded(entries: list[str]) -> None:
    whole = set_of(SMALL)
    everything = set(used.ring(whole, None, ()))
    left = everything - {value for entry in entries if "." in entry for value in members(entry)}
    if not left:
        with pytest.raises(CniError, match=r"ipam\.exclude leaves no address"):
            set_of(SMALL, *entries)
        return
    one = set_of(SMALL, *entries)
    assert list(used.ring(one, None, ())) == sorted(left) and size(one) == len(left)
    store, given_out = MemoryLeases("pods"), []
    with store.transaction() as leases:
        for number in range(len(left)):
            address = leases.choose(0, one)
            leases.put(Attachment(Owner("pods", f"c{number}", "eth0"), (address,)))
            given_out.append(from_text(address)[1])
        with pytest.raises(CniError, match=f"{len(left)} in all, {len(left)} taken"):
            leases.choose(0, one)
    assert given_out == sorted(left)


@given(st.lists(ENTRIES4, max_size=5), st.integers(FIRST4, FIRST4 + 90))
def test_the_order_goes_on_behind_an_address_that_was_excluded_since(entries: list[str], after: int) -> None:
    try:
        one = set_of(SMALL, *entries)
    except CniError:
        return
    left = [value for value in used.ring(set_of(SMALL), after, ()) if contains(one, 4, value)]
    assert list(used.ring(one, after, ())) == left


@given(
    st.lists(st.builds(prefix, st.integers(FIRST6, FIRST6 + 3000), st.integers(116, 128), st.just(128)), max_size=6),
    st.lists(st.integers(0, 40), max_size=30),
)
def test_a_large_set_hands_nothing_out_twice_nor_what_is_excluded(entries: list[str], passed: list[int]) -> None:
    """With other exclusions from one address to the next, and taken addresses passed over on the way."""
    spent, seen = UsedAddresses(), []
    for number, step in enumerate(passed):
        one = set_of(HUGE, *entries[: number % (len(entries) + 1)])
        order = used.ahead(one, spent)
        value = [next(order) for _ in range(step + 1)][-1]
        assert DEFAULT.never_reuses(one) and contains(one, 6, value)
        spent = used.advance(spent, one, value)
        seen.append(value)
    assert len(set(seen)) == len(seen)


def test_what_was_excluded_and_is_not_any_more_is_handed_out() -> None:
    excluded = set_of(HUGE, "fd42::/65", "fd42::8000:0:0:0")
    value = next(used.ahead(excluded, UsedAddresses()))
    assert to_text(6, value) == "fd42::8000:0:0:1"
    spent = used.advance(UsedAddresses(), excluded, value)
    assert to_text(6, next(used.ahead(set_of(HUGE), spent))) == "fd42::2"


def test_a_cursor_of_the_reference_plugin_that_is_excluded_since_is_adopted() -> None:
    """It knows no ``ipam.exclude``: all that precedes its cursor may have been handed out."""
    one = set_of([*HUGE, {"subnet": "fd43::/64"}], "fd43::10/124", "fd42::2")
    spent = used.adopt(UsedAddresses(), one, from_text("fd43::15")[1])
    assert to_text(6, next(used.ahead(one, spent))) == "fd43::20"


def test_a_set_that_is_cut_below_the_size_of_a_large_one_goes_round() -> None:
    wide = [{"subnet": "fd42::/95"}]
    assert DEFAULT.never_reuses(set_of(wide)) and not DEFAULT.never_reuses(set_of(wide, "fd42::1:0:0/96"))


def test_ranges_keep_their_subnet_and_gateway() -> None:
    one = set_of([V4], "10.1.0.0/28", "10.1.0.32")
    base = from_text("10.1.0.0")[1]
    whole = Range(4, base, 16, base + 1, base + 2**16 - 2, "10.1.0.1")
    assert one == RangeSet((
        Range(4, base, 16, base + 16, base + 31, "10.1.0.1"), Range(4, base, 16, base + 33, whole.last, "10.1.0.1"),
    ), (whole,))
    assert describe(one) == "10.1.0.0/16 (10.1.0.1 to 10.1.255.254), less what is excluded or reserved"
    assert describe(set_of([V4], "10.2.0.0/16")) == "10.1.0.0/16 (10.1.0.1 to 10.1.255.254)"


def test_without_exclusions_a_set_is_what_was_written() -> None:
    assert all(one.ranges is one.written for one in conf_of([V6], [V4]).sets)


def test_a_range_that_is_excluded_as_a_whole_keeps_its_gateway() -> None:
    """No other range hands it out; ``test_plan`` has it on the bridge."""
    parts = [V4 | {"rangeEnd": "10.1.0.99", "gateway": "10.1.0.200"}, V4 | {"rangeStart": "10.1.0.100"}]
    one = set_of(parts, "10.1.0.0/26", "10.1.0.64/27", "10.1.0.96/30")
    assert [to_text(4, each.first) for each in one.ranges] == ["10.1.0.100"]
    assert from_text("10.1.0.200")[1] not in set(used.ring(one, None, ()))


def test_exclusions_are_for_the_older_range_and_the_runtimes_too() -> None:
    raw = config(
        ipam={"type": "host-local", "subnet": "10.2.0.0/16", "exclude": ["10.2.0.1/32", "10.2.0.2", "10.3.0.0/30"]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.3.0.0/16"}]]},
    )
    conf = parse_bridge(call(raw)).ipam
    assert isinstance(conf, IpamConf)
    assert [to_text(4, next(used.ring(one, None, ()))) for one in conf.sets] == ["10.3.0.4", "10.2.0.3"]


@pytest.mark.parametrize(("entry", "idle"), [
    ("10.1.0.5", False), ("0.0.0.0/0", False), ("10.1.255.254", False), ("10.1.0.0", True), ("10.1.255.255", True),
    ("10.2.0.0/16", True), ("fd42:1:2::/64", True), ("fd42:1:2:3::/64", False), ("fd42:1:2:3::1", False),
])
def test_an_entry_that_excludes_nothing_is_remarked_on(entry: str, idle: bool) -> None:
    invocation = call(with_ipam(exclude=["10.1.0.9", entry]))
    try:
        parse_bridge(invocation)
    except CniError as error:
        assert "leaves no address" in str(error) and not idle
    said = f"warning: ipam.exclude[1] ({entry}) excludes nothing: no range has an address of it"
    assert (said in invocation.log.text()) is idle
    assert "exclude[0]" not in invocation.log.text()


def test_an_entry_of_a_family_without_ranges_is_remarked_on() -> None:
    invocation = call(config(ipam=ipam_of([V4], exclude=["fd42::/16"])))
    parse_bridge(invocation)
    assert "ipam.exclude[0] (fd42::/16) excludes nothing" in invocation.log.text()


def test_a_container_keeps_an_address_that_is_excluded_since() -> None:
    """CHECK finds no fault with it, STATUS does not count it."""
    owner, store = Owner("pods", "c1", "eth0"), MemoryLeases("pods")
    with store.transaction() as leases:
        leases.put(Attachment(owner, ("10.0.0.9",)))
    conf = conf_of([{"subnet": "10.0.0.8/29"}], exclude=["10.0.0.8/30"])
    with store.transaction() as leases:
        record = leases.get(owner)
    allocate.check_leases(conf, owner, (Address("10.0.0.9/29", "10.0.0.9"),), record)
    with pytest.raises(CniError, match=r"10\.0\.0\.10 is not leased"):
        allocate.check_leases(conf, owner, (Address("10.0.0.10/29", "10.0.0.9"),), record)
    with store.transaction() as leases:
        for number in (12, 13):
            leases.put(Attachment(Owner("pods", f"c{number}", "eth0"), (f"10.0.0.{number}",)))
    allocate.check_capacity(conf, store)
    with store.transaction() as leases:
        leases.put(Attachment(Owner("pods", "c14", "eth0"), ("10.0.0.14",)))
    with pytest.raises(CniError, match="3 in all, 3 taken") as caught:
        allocate.check_capacity(conf, store)
    assert caught.value.code == errors.NOT_AVAILABLE


@pytest.mark.parametrize("parse", [parse_bridge, parse_ipam])
def test_check_comes_with_the_request_of_the_add(parse: Callable[[Invocation], object]) -> None:
    """Whose address is excluded since; an ADD with the very same bytes is refused."""
    raw = with_ipam(exclude=["10.1.0.0/28"]) | {"runtimeConfig": {"ips": ["10.1.0.5"]}}
    adding = replace(call(raw), stdin=json.dumps(raw).encode())
    parse(replace(adding, command="CHECK"))
    with pytest.raises(CniError, match=r'"10\.1\.0\.5" is excluded by ipam\.exclude\[0\]'):
        parse(adding)


def test_the_range_an_address_is_of() -> None:
    one = set_of(SMALL, "10.0.0.0/27")
    assert origin(one, *from_text("10.0.0.5")) == one.written[0] and not contains(one, *from_text("10.0.0.5"))
    assert origin(one, *from_text("10.0.0.65")) == one.written[1] and contains(one, *from_text("10.0.0.65"))
    assert origin(one, *from_text("10.0.0.32")) is None and origin(one, 6, from_text("10.0.0.65")[1]) is None


def test_which_spans_have_an_address_in_common() -> None:
    spans = [(2, 4), (7, 7), (9, 12)]
    for first in range(14):
        for last in range(first, 14):
            assert meeting(spans, first, last) == [
                (low, high) for low, high in spans if set(range(low, high + 1)) & set(range(first, last + 1))
            ]
