"""What is kept of spent addresses, written and read back."""

from __future__ import annotations

import json

import pytest

from cni_v6.allocation import used
from cni_v6.allocation.used import CHUNK, RandomOrder, UsedAddresses
from cni_v6.leases.disk import allocation_json
from cni_v6.net.addresses import from_text
from tests.stores import LARGE

BASE = from_text("2001:db8::")[1]
KEY = bytes(range(16))
SPANS = ((BASE + 1, BASE + 999),)


def read(spent: UsedAddresses, boot: str = "b", file: int = 7) -> UsedAddresses:
    """Read back by the process that wrote, which remembers, and by another one: both find the same."""
    durable, opened = allocation_json.encode_spent(spent, 6), allocation_json.encode_open(spent, 6, "b", 7)
    remembered = allocation_json.decode(durable, opened, 6, boot, file, 9.0)
    forget()
    assert allocation_json.decode(durable, opened, 6, boot, file, 9.0) == remembered
    return remembered


def forget() -> None:
    """As a new process."""
    allocation_json._opens.clear()
    allocation_json._rounds.clear()


def test_both_files_are_read_back_and_the_open_part_keeps_its_length() -> None:
    spent = used.advance(UsedAddresses(at=5.0, settled=(BASE + 1,)), LARGE, BASE + 7)
    later = used.advance(spent, LARGE, BASE + 0x123)
    assert read(spent) == spent
    lengths = {len(allocation_json.encode_open(each, 6, "b", 7)) for each in (spent, later)}
    assert lengths == {allocation_json.WIDTH}


def test_draws_are_read_back_and_after_a_boot_go_on_behind_what_was_reserved() -> None:
    spent = UsedAddresses(((BASE + 5000, BASE + 5000),), draws=(RandomOrder(KEY, SPANS, 3, 40),), at=5.0)
    assert read(spent) == spent
    assert read(spent, boot="next").draws == (RandomOrder(KEY, SPANS, 40, 40),)


@pytest.mark.parametrize(("boot", "file"), [("next", 7), ("b", 8)])
def test_the_open_part_of_another_boot_or_beside_another_file_is_not_believed(boot: str, file: int) -> None:
    spent = used.advance(UsedAddresses(at=5.0, settled=(BASE + 1,)), LARGE, BASE + 7)
    assert read(spent, boot, file) == UsedAddresses(spent.intervals, at=5.0, gap=4)


@pytest.mark.parametrize("opened", [
    b"", b"{", b"[]", b"7", b'{"boot": "b"}', b"[" * 100_000,
    b'{"boot": "b", "file": 7, "open": [["2001:db8::1"]], "settled": []}',
    b'{"boot": "b", "file": 7, "gap": 0, "open": [], "settled": ["10.0.0.1"]}',
    b'{"boot": "b", "file": 7, "gap": 0, "open": [], "settled": [], "next": [1]}',
    b'{"boot": "b", "file": 7, "gap": "long", "open": [], "settled": []}',
    allocation_json.encode_open(UsedAddresses((), ((BASE + CHUNK, BASE + 2 * CHUNK),)), 6, "b", 7),
])
def test_of_the_open_part_only_what_can_be_true_is_believed(opened: bytes) -> None:
    spent = UsedAddresses(((BASE + 1, BASE + CHUNK),), at=8.5)
    assert allocation_json.decode(allocation_json.encode_spent(spent, 6), opened, 6, "b", 7, 9.0) == spent


def test_a_place_beyond_what_was_reserved_is_not_believed() -> None:
    spent = UsedAddresses(draws=(RandomOrder(KEY, SPANS, 41, 40),))
    assert read(spent).draws == (RandomOrder(KEY, SPANS, 40, 40),)


@pytest.mark.parametrize("content", [
    b"", b"{}", b"\xff", b"null", b"[" * 100_000, b'{"spent": [["10.0.0.1", "10.0.0.2"]]}', b'{"spent": 7}',
    b'{"spent": [["2001:db8::2", "2001:db8::1"]]}', b'{"spent": [["x", "y"]]}', b'{"spent": [[1, 2]]}',
    b'{"spent": [], "at": "noon"}', b'{"spent": [], "at": -Infinity}',
    b'{"spent": [], "drawn": 7}', b'{"spent": [], "drawn": [7]}',
    b'{"spent": [], "drawn": [{"key": "00", "of": [["::1", "::2"]], "to": 1}]}',
    b'{"spent": [], "drawn": [{"key": "%s", "of": [], "to": 1}]}' % KEY.hex().encode(),
    b'{"spent": [], "drawn": [{"key": "%s", "of": [["::5", "::6"], ["::1", "::2"]], "to": 1}]}' % KEY.hex().encode(),
    json.dumps({"spent": [["2001:db8::1", "2001:db8::2", "2001:db8::3"]]}).encode(),
])
def test_a_damaged_file_of_what_is_spent_is_never_taken_for_nothing_spent(content: bytes) -> None:
    with pytest.raises(ValueError):
        allocation_json.decode(content, b"", 6, "b", 7, 9.0)


def test_an_older_file_without_a_time_is_read() -> None:
    assert allocation_json.decode(b'{"spent": [["::1", "::5"]]}', b"", 6, "b", 7, 9.0) == UsedAddresses(
        ((1, 5),), at=9.0
    )


def test_the_round_is_read_back_and_a_damaged_one_is_nothing() -> None:
    content = allocation_json.encode_round(((10, 12), (20, 20)), 4)
    assert len(content) == allocation_json.WIDTH
    assert allocation_json.decode_round(content, 4) == ((10, 12), (20, 20))
    forget()
    assert allocation_json.decode_round(content, 4) == ((10, 12), (20, 20))
    assert [allocation_json.decode_round(each, 4) for each in (b"", b"{", b'{"round": [["::1", "::2"]]}')] == [()] * 3


def test_a_round_that_another_call_makes_room_for_meanwhile_is_read() -> None:
    """The engine's calls of several networks are threads, and what is remembered is one for all."""

    class Cleared(dict[object, object]):
        """Was cleared after somebody had looked into it."""

        def __contains__(self, _: object) -> bool:
            return True

    content = allocation_json.encode_round(((10, 12),), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation_json, "_rounds", Cleared())
        assert allocation_json.decode_round(content, 4) == ((10, 12),)
