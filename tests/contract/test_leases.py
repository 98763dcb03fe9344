"""The leases of a network: the same assertions on disk and in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.allocation.policy import RANDOM, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.allocation.traces import Traces
from cni_v6.allocation.used import CHUNK
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.memory import MemoryLeases
from cni_v6.leases.store import Leases, Past
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner
from tests.stores import BOOT, LARGE, NETWORK, SMALL, add, delete, held, owner, pool, span

Make = Callable[[float], Leases]


@pytest.fixture(params=["disk", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Leases with a given time to wait for the lock."""
    if request.param == "memory":
        return lambda timeout: MemoryLeases(NETWORK, timeout=timeout)
    return lambda timeout: DiskLeases(NETWORK, str(tmp_path / "data"), boot=BOOT, timeout=timeout)


@pytest.fixture
def leases(make: Make) -> Leases:
    return make(30)


def attached(leases: Leases) -> set[Attachment]:
    with leases.transaction() as work:
        return set(work.attachments())


def put(leases: Leases, container_id: str, *addresses: str) -> None:
    with leases.transaction() as work:
        work.put(Attachment(owner(container_id), addresses))


def test_what_is_put_is_found_until_it_is_dropped(leases: Leases) -> None:
    attachment = Attachment(owner("a"), ("10.1.0.2", "2001:db8::2"), "veth1", (4, 4026532001), 1700000000.5, BOOT)
    with leases.transaction() as work:
        work.put(attachment)
    with leases.transaction() as work:
        assert work.get(owner("a")) == attachment
        assert work.get(owner("a", "eth1")) is None
        assert list(work.attachments()) == [attachment]
        assert work.drop(owner("a")) == attachment
        assert work.get(owner("a")) is None
    with leases.transaction() as work:
        assert work.drop(owner("a")) is None
        assert list(work.attachments()) == []


def test_the_holder_of_an_address_is_named_in_any_spelling(leases: Leases) -> None:
    put(leases, "a", "10.1.0.2", "2001:db8::2")
    with leases.transaction() as work:
        assert work.holder("10.1.0.2") == "a eth0"
        assert work.holder("2001:DB8:0::2") == "a eth0"
        assert work.holder("2001:db8::3") is None


def test_addresses_are_kept_in_their_canonical_form(leases: Leases) -> None:
    put(leases, "a", "2001:DB8:0:0::0A")
    assert held(leases, "a") == ("2001:db8::a",)


def test_an_attachment_without_addresses_is_one_too(leases: Leases) -> None:
    put(leases, "a")
    assert held(leases, "a") == ()
    with pytest.raises(CniError, match="pods/a/eth0 is recorded already") as caught:
        put(leases, "a", "10.1.0.2")
    assert caught.value.code == errors.ALREADY_ATTACHED
    assert delete(leases, "a") == ()


def test_a_second_put_of_the_same_owner_is_refused(leases: Leases) -> None:
    put(leases, "a", "10.1.0.2")
    with pytest.raises(CniError, match="pods/a/eth0 holds 10.1.0.2 already") as caught:
        put(leases, "a", "10.1.0.3")
    assert caught.value.code == errors.ALREADY_ATTACHED
    assert "run DEL" in caught.value.details
    assert held(leases, "a") == ("10.1.0.2",)
    with leases.transaction() as work:
        assert work.holder("10.1.0.3") is None


@pytest.mark.parametrize("addresses", [("10.1.0.2",), ("10.1.0.3", "10.1.0.2"), ("10.1.0.2", "2001:db8::2")])
def test_a_taken_address_is_refused_with_its_holder_and_changes_nothing(
        leases: Leases, addresses: tuple[str, ...]) -> None:
    put(leases, "a", "10.1.0.2")
    with pytest.raises(CniError, match="address 10.1.0.2 is taken: held by a eth0") as caught:
        put(leases, "b", *addresses)
    assert caught.value.code == errors.ADDRESS_UNAVAILABLE
    with leases.transaction() as work:
        assert [work.holder(address) for address in ("10.1.0.2", "10.1.0.3", "2001:db8::2")] == ["a eth0", None, None]
        assert work.get(owner("b")) is None
        assert [attachment.owner for attachment in work.attachments()] == [owner("a")]


def test_one_address_twice_in_one_put_is_refused_as_a_whole(leases: Leases) -> None:
    with pytest.raises(CniError, match="10.1.0.2 is taken: held by a eth0"):
        put(leases, "a", "10.1.0.2", "10.1.0.2")
    with leases.transaction() as work:
        assert work.get(owner("a")) is None
        assert work.holder("10.1.0.2") is None


def test_everything_can_be_dropped_while_it_is_listed(leases: Leases) -> None:
    for number in range(5):
        add(leases, f"c{number}", SMALL)
    with leases.transaction() as work:
        for attachment in work.attachments():
            assert work.drop(attachment.owner) == attachment
    assert attached(leases) == set()
    assert len({add(leases, f"d{number}", SMALL) for number in range(5)}) == 5


def test_owners_are_known_by_name(leases: Leases) -> None:
    for number, name in enumerate(("a", "b.c-d_1", "l" * 400)):
        put(leases, name, f"10.1.0.{number}")
    with leases.transaction() as work:
        assert {each.container_id for each in work.owners()} == {"a", "b.c-d_1", "l" * 400}
        assert set(work.owners()) == {each.owner for each in work.attachments()}
        for name in ("a", "l" * 400):
            left = {each.container_id for each in work.owners({f"{name}:eth0", "b.c-d_1:eth1", "b:eth0"})}
            assert left == {"a", "b.c-d_1", "l" * 400} - {name}


def test_a_set_is_handed_out_in_order_without_the_gateway_and_spills_over(leases: Leases) -> None:
    both = RangeSet((span("10.1.0.0/29", 1, 3), span("10.2.0.0/29", 5, 6)))
    assert [add(leases, f"c{number}", both)[0] for number in range(4)] == [
        "10.1.0.2", "10.1.0.3", "10.2.0.5", "10.2.0.6"]


def test_choose_moves_the_cursor_even_when_nothing_is_put(leases: Leases) -> None:
    with leases.transaction() as work:
        assert (work.choose(0, SMALL), work.choose(0, SMALL)) == ("10.1.0.2", "10.1.0.3")
    with leases.transaction() as work:
        assert work.choose(0, SMALL) == "10.1.0.4"


def test_every_set_has_a_cursor_of_its_own(leases: Leases) -> None:
    seen = []
    for index in (0, 1, 0):
        with leases.transaction() as work:
            seen.append(work.choose(index, SMALL))
    assert seen == ["10.1.0.2", "10.1.0.2", "10.1.0.3"]


def test_nothing_is_chosen_twice_before_it_is_put(leases: Leases) -> None:
    with leases.transaction() as work:
        assert [work.choose(index, SMALL) for index in (0, 1, 0)] == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]


def test_a_cursor_of_another_family_says_nothing(leases: Leases) -> None:
    for one, address in ((SMALL, "10.1.0.2"), (pool("fd00::/120"), "fd00::2"), (SMALL, "10.1.0.2")):
        with leases.transaction() as work:
            assert work.choose(0, one) == address


def test_a_small_set_goes_round(leases: Leases) -> None:
    add(leases, "stays", SMALL)
    seen: list[str] = []
    for _ in range(6):
        seen += add(leases, "comes-and-goes", SMALL)
        delete(leases, "comes-and-goes")
    assert seen == ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.3", "10.1.0.4"]


def test_a_full_small_set_says_so_with_its_numbers(leases: Leases) -> None:
    for number in range(5):
        add(leases, f"c{number}", SMALL)
    put(leases, "other", "10.9.0.9")
    with pytest.raises(CniError, match=r"10\.1\.0\.0/29 \(10\.1\.0\.1 to 10\.1\.0\.6\): 5 in all, 5 taken") as caught:
        add(leases, "late", SMALL)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED
    delete(leases, "c3")
    assert add(leases, "late", SMALL) == ("10.1.0.5",)


def test_the_one_free_address_among_many_is_found(leases: Leases) -> None:
    many = pool("10.3.0.0/24")
    for number in range(253):
        add(leases, f"c{number}", many)
    with pytest.raises(CniError, match="253 in all, 253 taken"):
        add(leases, "late", many)
    delete(leases, "c200")
    assert add(leases, "late", many) == ("10.3.0.202",)


def test_a_large_set_hands_nothing_out_twice(leases: Leases) -> None:
    seen: list[str] = []
    for _ in range(20):
        seen += add(leases, "comes-and-goes", LARGE)
        delete(leases, "comes-and-goes")
    assert seen == [f"2001:db8::{number:x}" for number in range(2, 22)]


def test_a_large_set_goes_on_where_it_is_told_to(leases: Leases) -> None:
    with leases.transaction() as work:
        work.continue_from(0, "2001:db8::40")
    assert add(leases, "a", LARGE) == ("2001:db8::41",)
    with leases.transaction() as work:
        assert work.was_used("2001:db8::3f")


def test_a_large_set_steps_over_what_was_asked_for(leases: Leases) -> None:
    put(leases, "asked", "2001:db8::3")
    assert [add(leases, f"c{number}", LARGE) for number in range(2)] == [("2001:db8::2",), ("2001:db8::4",)]
    delete(leases, "asked")
    assert add(leases, "c2", LARGE) == ("2001:db8::5",)


def test_a_large_set_goes_on_behind_more_taken_addresses_than_a_chunk_holds(leases: Leases) -> None:
    with leases.transaction() as work:
        first = work.choose(0, LARGE)
        work.put(Attachment(owner("many"), tuple(f"2001:db8::{number:x}" for number in range(2, CHUNK + 10))))
        assert first == "2001:db8::2"
        assert (work.choose(0, LARGE), work.choose(0, LARGE)) == ("2001:db8::100a", "2001:db8::100b")


def test_a_small_range_of_a_large_set_is_not_begun_again(leases: Leases) -> None:
    mixed = RangeSet((span("fd01::/120", 2, 4), span("fd02::/64")))
    seen: list[str] = []
    for number in range(4):
        seen += add(leases, f"c{number}", mixed)
        delete(leases, f"c{number}")
    assert seen == ["fd01::2", "fd01::3", "fd01::4", "fd02::2"]


def test_a_range_passed_over_because_it_was_taken_is_spent(leases: Leases) -> None:
    mixed = RangeSet((span("fd01::/120", 2, 3), span("fd02::/64")))
    put(leases, "asked", "fd01::2", "fd01::3")
    assert add(leases, "a", mixed) == ("fd02::2",)
    delete(leases, "asked")
    assert add(leases, "b", mixed) == ("fd02::3",)


def test_a_large_set_that_was_configured_away_goes_on_where_it_stood(leases: Leases) -> None:
    assert add(leases, "a", LARGE) == ("2001:db8::2",)
    assert add(leases, "b", pool("fd00::/64")) == ("fd00::2",)
    assert add(leases, "c", LARGE) == ("2001:db8::3",)
    assert add(leases, "d", SMALL, LARGE)[1] == "2001:db8::4"
    assert add(leases, "e", pool("fd00::/64", "2001:db8::/64")) == ("fd00::3",)
    assert add(leases, "f", pool("2001:db8::/60")) == ("2001:db8::5",)


def test_a_large_set_moved_to_a_lower_start_uses_what_is_new(leases: Leases) -> None:
    high = RangeSet((span("2001:db8::/64", 0x100),))
    assert add(leases, "a", high) == ("2001:db8::100",)
    low = RangeSet((span("2001:db8::/64", 0xFE),))
    assert [add(leases, f"c{number}", low)[0] for number in range(3)] == [
        "2001:db8::fe", "2001:db8::ff", "2001:db8::101"]


@pytest.mark.parametrize(("container_id", "ifname"), [
    ("../a", "eth0"), ("", "eth0"), ("..", "eth0"), ("a/b", "eth0"), ("a\nb", "eth0"), ("a b", "eth0"),
    ("a", "../x"), ("a", "."), ("a\0", "eth0"),
])
def test_words_that_lead_out_of_the_store_are_refused(leases: Leases, container_id: str, ifname: str) -> None:
    bad = Owner(NETWORK, container_id, ifname)
    with leases.transaction() as work:
        steps: list[Callable[[], object]] = [
            lambda: work.get(bad), lambda: work.drop(bad), lambda: work.put(Attachment(bad, ("10.1.0.2",)))]
        for step in steps:
            with pytest.raises(CniError, match="cannot name a file of the lease store") as caught:
                step()
            assert caught.value.code == errors.STORE_FAILED
        assert work.holder("10.1.0.2") is None


def test_an_owner_without_an_interface_name_can_be_asked_for(leases: Leases) -> None:
    """That is how the reference plugin's oldest leases are listed."""
    assert held(leases, "a", "") is None
    with leases.transaction() as work:
        assert work.drop(owner("a", "")) is None


def test_an_attachment_needs_an_interface_name(leases: Leases) -> None:
    with leases.transaction() as work, pytest.raises(CniError, match="interface name ''"):
        work.put(Attachment(owner("a", ""), ("10.1.0.2",)))


@pytest.mark.parametrize("text", ["10.1.0.2/24", "../10.1.0.2", "", "fe80::1%eth0"])
def test_what_is_no_address_is_refused(leases: Leases, text: str) -> None:
    with leases.transaction() as work:
        steps: list[Callable[[], object]] = [
            lambda: work.holder(text), lambda: work.put(Attachment(owner("a"), (text,)))]
        for step in steps:
            with pytest.raises(CniError, match="is not an address") as caught:
                step()
            assert caught.value.code == errors.INTERNAL
        assert work.get(owner("a")) is None


@pytest.mark.parametrize("network", ["", ".", "..", "a/b", "/etc"])
def test_a_network_that_leads_out_of_the_store_is_refused(network: str, tmp_path: Path) -> None:
    for step in (lambda: MemoryLeases(network), lambda: DiskLeases(network, str(tmp_path), boot=BOOT)):
        with pytest.raises(CniError, match=r"network .* cannot name a file"):
            step()
    assert list(tmp_path.iterdir()) == []


def test_what_was_done_before_an_error_stays_and_the_lock_is_free(leases: Leases) -> None:
    with pytest.raises(ZeroDivisionError), leases.transaction() as work:
        work.put(Attachment(owner("a"), ("10.1.0.2",)))
        raise ZeroDivisionError
    assert held(leases, "a") == ("10.1.0.2",)


def test_a_lock_that_cannot_be_had_in_time_is_a_reason_to_try_again(make: Make) -> None:
    leases = make(0.01)
    with leases.transaction():
        with pytest.raises(CniError, match="lock .* held by") as caught, leases.transaction():
            pytest.fail("two transactions at once")
        assert caught.value.code == errors.TRY_AGAIN
    assert add(leases, "a", SMALL) == ("10.1.0.2",)


def test_threads_never_get_the_same_address(leases: Leases) -> None:
    found: list[tuple[str, ...]] = []

    def run(number: int) -> None:
        found.extend(add(leases, f"c{number}-{turn}", pool("10.3.0.0/24"), LARGE) for turn in range(10))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(len(set(addresses)) == 80 for addresses in zip(*found, strict=True))
    assert {attachment.addresses for attachment in attached(leases)} == set(found)


def test_what_is_kept_in_mind_of_a_network(leases: Leases) -> None:
    with leases.transaction() as work:
        assert work.memo() == b""
        work.keep_memo(b"one")
    put(leases, "a", "10.1.0.2")
    delete(leases, "a")
    with leases.transaction() as work:
        assert work.memo() == b"one"
        work.keep_memo(b"another")
        assert work.memo() == b"another"
        assert list(work.attachments()) == []


def test_further_addresses_of_an_attachment_that_is_there(leases: Leases) -> None:
    put(leases, "a", "10.1.0.2")
    put(leases, "b", "10.1.0.3")
    before = attached(leases)
    with leases.transaction() as work:
        with pytest.raises(CniError, match="10.1.0.3 is taken: held by b eth0"):
            work.add_addresses(Attachment(owner("a"), ("10.1.0.4", "10.1.0.2", "10.1.0.3")))
    assert attached(leases) == before and held(leases, "a") == ("10.1.0.2",)
    longer = Attachment(owner("a"), ("10.1.0.4", "10.1.0.2"), reuse=("after", "after"))
    with leases.transaction() as work:
        work.add_addresses(longer)
        assert work.get(owner("a")) == longer and work.holder("10.1.0.4") == "a eth0"
    shorter = Attachment(owner("a"), ("10.1.0.4",), reuse=("after",))
    with leases.transaction() as work:
        work.remove_addresses(shorter)
        assert work.get(owner("a")) == shorter and work.holder("10.1.0.2") is None
    with leases.transaction() as work:
        assert work.drop(owner("a")) == shorter
    assert held(leases, "b") == ("10.1.0.3",) and len(attached(leases)) == 1


def test_whether_an_address_was_given_that_is_given_once(leases: Leases) -> None:
    with leases.transaction() as work:
        given = work.choose(0, LARGE)
        work.put(Attachment(owner("a"), (given,), reuse=("never",)))
        asked = "2001:db8:0:1::77"
        assert work.was_used(given) and not work.was_used(asked)
        work.add_addresses(Attachment(owner("a"), (given, asked), reuse=("never", "never")))
        assert work.was_used(asked)
        work.remove_addresses(Attachment(owner("a"), (asked,), reuse=("never",)))
        assert work.was_used(given)


def test_a_look_without_the_lock(leases: Leases) -> None:
    assert list(leases.peek()) == []
    put(leases, "a", "10.1.0.2", "2001:db8::2")
    put(leases, "b")
    with leases.transaction() as work:  # which holds the lock
        assert set(leases.peek()) == set(work.attachments())


def test_what_became_of_an_address(leases: Leases) -> None:
    small, large = add(leases, "a", SMALL, LARGE)
    assert leases.past("10.1.0.6") == Past()
    assert leases.past(large) == Past(used=True)
    assert leases.past("2001:db8::ff:7") == Past()  # reserved ahead, and not handed out
    delete(leases, "a")
    waiting = leases.past(small)
    assert waiting.released is not None and not waiting.used
    assert leases.past(large) == Past(used=True)


def test_what_is_spent_and_what_waits_is_counted_without_the_lock(leases: Leases) -> None:
    assert leases.count(LARGE) == leases.count(SMALL) == (0, 0)
    add(leases, "a", SMALL, LARGE)
    add(leases, "b", SMALL, LARGE)
    delete(leases, "a")
    with leases.transaction() as work:
        assert leases.count(LARGE) == (work.spent(LARGE), 0) == (2, 0)
        assert leases.count(SMALL) == (work.spent(SMALL), 1)


def test_the_traces_of_a_set_are_read_without_the_lock(leases: Leases) -> None:
    assert leases.traces(LARGE) == leases.traces(SMALL) == Traces()
    small, large = add(leases, "a", SMALL, LARGE)
    add(leases, "b", SMALL, LARGE)
    delete(leases, "a")
    with leases.transaction():
        [(value, released)] = leases.traces(SMALL).waiting
        assert value == from_text(small)[1] and released >= 0
        [(first, last)] = leases.traces(LARGE).spent
        assert first <= from_text(large)[1] == last - 1
        assert leases.traces(LARGE).waiting == leases.traces(SMALL).spent == ()


def test_the_traces_of_addresses_by_lot(leases: Leases) -> None:
    with leases.transaction() as work:
        given = {work.choose(0, LARGE, AllocationPolicy(RANDOM)) for _ in range(5)}
    traces = leases.traces(LARGE)
    assert {to_text(6, first) for first, last in traces.spent if first == last} == given
    assert traces.omitted == 0
