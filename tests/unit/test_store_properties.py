"""The lease store against a dictionary, through every operation, restart, foreign change and leftover."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.leases import Attachment
from cni_v6.ranges import RangeSet
from cni_v6.records import decode
from cni_v6.store import DiskLeases
from tests.stores import BESIDE, LARGE, NETWORK, SMALL, delete, owner, pool, span

NAMES = st.sampled_from("abcdefgh")
MIXED = RangeSet((span("fd01::/120", 2, 4), span("fd02::/64")))
SETS = st.sampled_from([(SMALL,), (LARGE,), (SMALL, LARGE), (LARGE, SMALL), (MIXED,), (SMALL, MIXED),
                        (pool("2001:db8::/60"),)])
# Some of what is handed out sooner or later, and some that never is.
ADDRESSES = st.sampled_from([f"10.1.0.{number}" for number in range(2, 7)] + ["2001:db8::4", "fd01::3", "192.0.2.1"])


class Store(RuleBasedStateMachine):
    """``holders``: address -> container id. ``records``: container id -> addresses it was given. Both by the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name, NETWORK)
        self.holders: dict[str, str] = {}
        self.records: dict[str, list[str]] = {}
        self.spent: set[str] = set()  # of the large sets
        self.boots = 0
        self.restart(False)

    def teardown(self) -> None:
        self.place.cleanup()

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:
        self.boots += reboot
        self.leases = DiskLeases(NETWORK, self.place.name, boot=f"boot {self.boots}")

    @rule(name=NAMES, sets=SETS)
    def add(self, name: str, sets: tuple[RangeSet, ...]) -> None:
        try:
            with self.leases.transaction() as work:
                addresses = []
                for index, one in enumerate(sets):
                    addresses.append(work.choose(index, one))
                    if one is not SMALL:
                        assert addresses[-1] not in self.spent
                        self.spent.add(addresses[-1])
                assert not set(addresses) & set(self.holders)
                work.put(Attachment(owner(name), tuple(addresses)))
        except CniError as error:
            if error.code == errors.ADDRESSES_EXHAUSTED:
                assert {f"10.1.0.{number}" for number in range(2, 7)} <= set(self.holders)
            else:
                assert (error.code, name in self.records) == (errors.ALREADY_ATTACHED, True)
            return
        assert name not in self.records
        self.records[name] = addresses
        self.holders.update(dict.fromkeys(addresses, name))

    @rule(name=NAMES, addresses=st.lists(ADDRESSES, max_size=2, unique=True))
    def request(self, name: str, addresses: list[str]) -> None:
        try:
            with self.leases.transaction() as work:
                work.put(Attachment(owner(name), tuple(addresses)))
        except CniError as error:
            expected = errors.ALREADY_ATTACHED if name in self.records else errors.ADDRESS_UNAVAILABLE
            assert error.code == expected
            assert name in self.records or set(addresses) & set(self.holders)
            return
        assert name not in self.records and not set(addresses) & set(self.holders)
        self.records[name] = addresses
        self.holders.update(dict.fromkeys(addresses, name))

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        freed = delete(self.leases, name)
        known = self.records.pop(name, None)
        held = {address for address, holder in self.holders.items() if holder == name}
        assert freed is None if known is None else set(freed or ()) == held
        for address in held:
            del self.holders[address]

    @precondition(lambda self: self.folder.exists())
    @rule(name=NAMES, address=ADDRESSES)
    def foreign_add(self, name: str, address: str) -> None:
        if address not in self.holders:
            (self.folder / address).write_bytes(f"{name}\r\neth0".encode())
            self.holders[address] = name
            self.records.setdefault(name, []).append(address)

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 99))
    def foreign_delete(self, number: int) -> None:
        """As the reference plugin does: all of one container. Its record stays, and holds nothing."""
        name = self.holders[sorted(self.holders)[number % len(self.holders)]]
        path = self.folder / "attachments" / f"{name}:eth0"
        if not path.exists() or decode(NETWORK, path.name, path.read_bytes()) is None:  # so nothing will be known of it
            del self.records[name]
        for address in [address for address, holder in self.holders.items() if holder == name]:
            (self.folder / address).unlink()
            del self.holders[address]

    @precondition(lambda self: self.records)
    @rule(number=st.integers(0, 99), content=st.sampled_from([None, b"", b"{}", b"\0\0"]))
    def lose_record(self, number: int, content: bytes | None) -> None:
        name = sorted(self.records)[number % len(self.records)]
        path = self.folder / "attachments" / f"{name}:eth0"
        if not path.exists():
            return
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        self.records[name] = [address for address, holder in self.holders.items() if holder == name]
        if not self.records[name]:
            del self.records[name]

    @precondition(lambda self: (self.folder / "attachments").exists())
    @rule(name=st.sampled_from(["attachments/.new", "cursors/.new", "cursors/open", "last_reserved_ip.0"]),
          content=st.sampled_from([b"", b"a\r\neth0", b"{", b"10.1.0.3", b"2001:db8::1"]))
    def leave_something(self, name: str, content: bytes) -> None:
        """A killed writer's file, a lost cursor, one that was moved back."""
        if (self.folder / name).parent.exists():
            (self.folder / name).write_bytes(content)

    @invariant()
    def the_files_say_who_holds_what(self) -> None:
        if self.folder.exists():
            found = {path.name for path in self.folder.iterdir() if path.name not in BESIDE}
            assert {name for name in found if not name.startswith("last_reserved_ip.")} == set(self.holders)

    @rule()
    def ask(self) -> None:
        with self.leases.transaction() as work:
            for name in "abcdefgh":
                found = work.get(owner(name))
                assert (found is None) == (name not in self.records)
                held = {address for address, holder in self.holders.items() if holder == name}
                assert set(found.addresses if found else ()) == held
            for address in (*self.holders, "192.0.2.9"):
                holder = self.holders.get(address)
                assert work.holder(address) == (None if holder is None else f"{holder} eth0")
            assert {one.owner.container_id for one in work.attachments()} == set(self.records)


Store.TestCase.settings = settings(settings.get_profile("ci"), max_examples=60, stateful_step_count=30)
TestStore = Store.TestCase
