"""The lease store against dictionaries: operations, kills, boots, power losses, clocks, foreign changes, in any order.

``docs/design/leases.md`` has the invariants in words.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv6Network, ip_address
from pathlib import Path

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cni_v6 import errors
from cni_v6.allocation import ranges
from cni_v6.allocation.policy import DEFAULT, NEVER, RANDOM, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import LARGE as LARGE_SIZE, RangeSet
from cni_v6.errors import CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import to_text
from tests.killed_processes import Killer, Step
from tests.stores import LARGE, NETWORK, SMALL, Choice, attachment, owner, pool, span

CONTAINERS = "abcde"
NAMES = st.sampled_from(CONTAINERS)
NUMBERS = st.integers(0, 99)  # of one of however many there are
WAIT = 60
AGAIN = AllocationPolicy(wait=WAIT)
WIDER, HOLED = pool("2001:db8::/60"), RangeSet((span("2001:db8::/64", 1, 5), span("2001:db8::/64", 8)), LARGE.ranges)
MIXED = RangeSet((span("fd01::/120", 2, 4), span("fd02::/64")))
STEADY, BLOCKS = pool("fd04::/64"), pool("fd05::/64")
SETS: dict[str, Choice] = {
    "small": (SMALL, AGAIN),
    "small, at random": (pool("10.4.0.0/29"), AllocationPolicy(order=RANDOM, wait=WAIT)),
    "small, once": (pool("10.2.0.0/28"), AllocationPolicy(reuse=NEVER)),
    "small, once, at random": (pool("10.2.0.0/28"), AllocationPolicy(order=RANDOM, reuse=NEVER)),
    "large": (LARGE, DEFAULT),
    "large, wider": (WIDER, DEFAULT),  # the same network, edited
    "large, with holes": (HOLED, DEFAULT),
    "large, at random": (LARGE, AllocationPolicy(order=RANDOM)),
    "large, of two ranges": (MIXED, DEFAULT),
    "large, with prefixes": (BLOCKS, DEFAULT),
    "stable": (STEADY, AllocationPolicy(order=STABLE)),
}
# What a network is configured as, now and then: one story is about few sets, so that much happens to each.
NETWORKS = [
    [("small",)],
    [("small", "large"), ("large", "small")],
    [("small, at random",), ("small, at random", "large, at random")],
    [("small, once",), ("small, once, at random",)],
    [("large",), ("large, wider",), ("large, with holes",), ("large, at random",)],
    [("large, of two ranges",), ("small", "large, of two ranges")],
    [("stable",), ("small, once", "stable")],
]
# Some of what is handed out sooner or later, and some that never is.
ADDRESSES = {**{f"10.1.0.{number}": "small" for number in range(2, 7)},
             **{f"10.2.0.{number}": "small, once" for number in (3, 6, 9)},
             "2001:db8::4": "large", "fd01::3": "large, of two ranges", "192.0.2.1": "small"}
SOME = st.sampled_from(sorted(ADDRESSES))
GARBAGE = st.sampled_from([b"", b"\0\0", b"a b\r\neth0\r\nc", b"../a\r\neth0"])
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk to wait for: what is lost is for the rules
SYNCED = ("cursors/spent", "cursors/spent4", "cursors/secret")


class Store(RuleBasedStateMachine):
    """What must be true, by the rules alone.

    ``holders``: address -> container. ``records``: container -> addresses it was given. ``boots``: container -> boot
    that its record names, "" for what the reference plugin wrote. ``foreign``: addresses whose file it wrote.
    ``garbage``: addresses whose files name nobody. ``spent``: what sets that give nothing twice have handed out;
    ``blocks``: prefixes likewise. ``released``: address -> when, of those that are given again, and whether the store
    has seen it then; forgotten where the store may forget too. ``seen``: all that ever had a file or was handed out.

    Rules look for themselves whether they make sense: what hypothesis draws must not depend on a random address.
    """

    killer: Killer

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(dir=MEMORY)
        self.folder = Path(self.place.name, NETWORK)
        self.holders: dict[str, str] = {}
        self.records: dict[str, list[str]] = {}
        self.boots: dict[str, str] = {}
        self.prefixes: dict[str, str] = {}
        self.foreign: set[str] = set()
        self.garbage: set[str] = set()
        self.spent: set[str] = set()
        self.blocks: list[IPv6Network] = []
        self.released: dict[str, tuple[int, bool]] = {}
        self.seen: set[str] = set()
        self.stable: dict[str, str] = {}
        self.unstable: set[str] = set()  # containers whose own address is not known for theirs any more
        self.halfway: set[str] = set()  # containers whose DEL was killed
        self.on_disk: dict[str, bytes] = {}
        self.killed = False
        self.picks: list[tuple[str, ...]] = []
        self.number = 0
        self.now = 1_000_000
        self.restart(False)

    def teardown(self) -> None:
        self.place.cleanup()

    @initialize(picks=st.sampled_from(NETWORKS))
    def configure(self, picks: list[tuple[str, ...]]) -> None:
        self.picks = picks

    # The process and the machine

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:
        self.number += reboot
        self.leases = DiskLeases(NETWORK, self.place.name, boot=self.boot, now=lambda: self.now)

    @rule()
    def look_at_the_disk(self) -> None:
        """So much of what is not synced is on it when the power goes, later."""
        self.on_disk = {name: path.read_bytes() for name in ("open", "open4")
                        if (path := self.folder / "cursors" / name).exists()}

    @rule(everything=st.booleans())
    def lose_power(self, everything: bool) -> None:
        """Of what was not synced nothing is left, or all but how far the chunks were used since we looked."""
        if not self.folder.exists():
            return
        if everything:
            kept = {name: path.read_bytes() for name in SYNCED if (path := self.folder / name).exists()}
            shutil.rmtree(self.folder)
            for name, content in kept.items():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
            for name in tuple(self.records):
                self._forget(name)
            self.holders.clear()
            self.garbage.clear()
            self.released.clear()
        else:
            for name in ("open", "open4"):
                (self.folder / "cursors" / name).unlink(missing_ok=True)
                if name in self.on_disk:
                    (self.folder / "cursors" / name).write_bytes(self.on_disk[name])
        self.on_disk = {}
        self.restart(True)

    @rule(seconds=st.sampled_from([1, WAIT - 1, WAIT, 10**6, -WAIT, -10**6]))
    def pass_time(self, seconds: int) -> None:
        """Back too: what was released in what is now the future may wait for longer or shorter."""
        self.now += seconds
        if seconds < 0:
            self.released.clear()

    # What the plugins do

    @rule(name=NAMES, number=NUMBERS)
    def add(self, name: str, number: int) -> None:
        self._bury()
        choices = self._choices(name, number)
        try:
            with self.leases.transaction() as work:
                addresses = self._choose(work, choices)
                work.put(attachment(name, addresses, choices, boot=self.boot, created=self.now))
        except CniError as error:
            if error.code != errors.ADDRESSES_EXHAUSTED:
                assert (error.code, name in self.records) == (errors.ALREADY_ATTACHED, True)
            return
        self._give(name, addresses, self.boot)

    @rule(name=NAMES, number=NUMBERS, times=st.integers(2, 8))
    def come_and_go(self, name: str, number: int, times: int) -> None:
        for _ in range(times):
            self.drop(name)
            self.add(name, number)

    @rule(name=NAMES, number=NUMBERS)
    def choose_in_vain(self, name: str, number: int) -> None:
        """An ADD that failed between the two."""
        self._bury()
        try:
            with self.leases.transaction() as work:
                self._choose(work, self._choices(name, number))
        except CniError as error:
            assert error.code == errors.ADDRESSES_EXHAUSTED

    @rule(name=NAMES, length=st.sampled_from([80, 120, 127]))
    def delegate(self, name: str, length: int) -> None:
        self._bury()
        try:
            with self.leases.transaction() as work:
                text = work.choose_prefix(0, BLOCKS, length)
                self._is_new_block(IPv6Network(text))
                work.put(Attachment(owner(name), (), created=self.now, boot=self.boot, prefixes=(text,)))
        except CniError as error:
            assert (error.code, name in self.records) == (errors.ALREADY_ATTACHED, True)
            return
        self._give(name, [], self.boot)
        self.prefixes[name] = text

    @rule(name=NAMES, addresses=st.lists(SOME, max_size=2, unique=True), ours=st.booleans())
    def request(self, name: str, addresses: list[str], ours: bool) -> None:
        self._bury()
        choices, boot = [SETS[ADDRESSES[address]] for address in addresses], self.boot if ours else ""
        try:
            with self.leases.transaction() as work:
                work.put(attachment(name, addresses, choices, boot=boot, created=self.now))
        except CniError as error:
            expected = errors.ALREADY_ATTACHED if name in self.records else errors.ADDRESS_UNAVAILABLE
            assert error.code == expected
            assert name in self.records or set(addresses) & self.taken
            return
        assert not set(addresses) & self.taken
        self._give(name, addresses, boot)
        self.spent |= {address for address, (each, policy) in zip(addresses, choices) if policy.never_reuses(each)}

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        self._bury()
        with self.leases.transaction() as work:
            freed = work.drop(owner(name))
        known, held = name in self.records, self._held(name)
        assert set(freed.addresses) == held if freed else not known
        self._free(held, exact=True)
        self._forget(name)

    @rule(number=NUMBERS, host=st.sampled_from(["veth1", "veth2"]))
    def update(self, number: int, host: str) -> None:
        if not self.records:
            return
        name = _one_of(self.records, number)
        self._bury()
        with self.leases.transaction() as work:
            record = work.get(owner(name))
            assert (record is None) == (name not in self.records)
            if record is None:
                return
            work.update(replace(record, host=host))
            again = work.get(owner(name))
        assert again == replace(record, host=host) and set(again.addresses) == self._held(name)

    @rule(name=NAMES, number=NUMBERS, at=st.integers(0, 100))
    def kill_add(self, name: str, number: int, at: int) -> None:
        """An ADD with little to take in makes some 80 calls of the system."""
        self._kill(name, self._choices(name, number), at)

    @rule(number=NUMBERS, at=st.integers(0, 55))
    def kill_delete(self, number: int, at: int) -> None:
        """A DEL some 50."""
        self._kill(_one_of(self.records or CONTAINERS, number), (), at)

    def _kill(self, name: str, choices: tuple[Choice, ...], at: int) -> None:
        """Or it comes to its end before that. Whatever it did, it did whole."""
        self.killer.run(Step(at, self.place.name, self.boot, self.now, name, choices))
        self.killed = True
        self._has_records()
        if self._unburied():
            with self.leases.transaction():
                self._bury()
        before = self._held(name)
        there = {address for address, holder in _named(self.folder).items() if holder == name}
        path = self.folder / "attachments" / f"{name}:eth0"
        record = records.decode(NETWORK, path.name, path.read_bytes()) if path.exists() else None
        if not choices:
            assert there <= before
            self._free(before - there, exact=False)
            self.halfway.add(name)
            if record is None and not there:
                self._forget(name)
        elif name in self.records:
            assert there == before
        elif record:
            assert there <= set(record.addresses)
            self._is_new(record.addresses, choices)
            self._give(name, list(record.addresses), self.boot)
            for address in set(record.addresses) - there:
                del self.holders[address]
        else:
            assert not there

    # What others do

    @rule(name=NAMES, address=SOME)
    def foreign_add(self, name: str, address: str) -> None:
        if not self.folder.exists():
            return
        if address not in self.taken:
            (self.folder / address).write_bytes(f"{name}\r\neth0".encode())
            self.holders[address] = name
            self.foreign.add(address)
            self.seen.add(address)
            self.released.pop(address, None)
            self.records.setdefault(name, [])
            self.boots.setdefault(name, "")
            if address not in self.records[name]:
                self.records[name].append(address)

    @rule(number=NUMBERS)
    def foreign_delete(self, number: int) -> None:
        """As the reference plugin does: all of one container. Its record stays, and holds nothing."""
        if not self.holders:
            return
        name = self.holders[_one_of(self.holders, number)]
        path = self.folder / "attachments" / f"{name}:eth0"
        known = path.exists() and records.decode(NETWORK, path.name, path.read_bytes())
        for address in self._held(name):
            (self.folder / address).unlink()
            del self.holders[address]
            if known and address in known.addresses and not known.boot:
                self.released[address] = self.now, False
        if not known:
            self._forget(name)

    @rule(address=SOME, content=GARBAGE)
    def plant(self, address: str, content: bytes) -> None:
        """A lease file that names nobody, or goes again."""
        if not self.folder.exists():
            return
        if address in self.garbage:
            (self.folder / address).unlink()
            self.garbage.remove(address)
        elif address not in self.holders and not any(address in given for given in self.records.values()):
            (self.folder / address).write_bytes(content)
            self.garbage.add(address)
            self.seen.add(address)
            self.released.pop(address, None)

    @rule(number=NUMBERS, content=st.sampled_from([None, b"", b"{}", b"\0\0"]))
    def lose_record(self, number: int, content: bytes | None) -> None:
        if not self.records:
            return
        name = _one_of(self.records, number)
        path = self.folder / "attachments" / f"{name}:eth0"
        if not path.exists():
            return
        prefix = self.prefixes.get(name, "")
        file = self.folder / "prefixes" / records.prefix_name(prefix)
        if content is None:
            path.unlink()
            if prefix:
                file.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
        self.unstable.add(name)
        self._forget(name)
        held = self._held(name)
        if held or content is not None:  # its name and the other files say whose it is
            self.records[name], self.boots[name] = sorted(held), ""
            self.foreign |= held  # as good as: nobody has recorded them
        if content is not None and prefix and file.exists():
            self.prefixes[name] = prefix

    @rule(name=st.sampled_from(["attachments/.new", "cursors/.new", "cursors/open", "last_reserved_ip.0"]),
          content=st.sampled_from([b"", b"a\r\neth0", b"{", b"10.1.0.3", b"2001:db8::1"]))
    def leave_something(self, name: str, content: bytes) -> None:
        """A killed writer's file, a lost cursor, one that was moved back."""
        if (self.folder / name).parent.exists():
            (self.folder / name).write_bytes(content)

    # What must be true

    @invariant()
    def the_files_say_who_holds_what(self) -> None:
        if self.folder.exists():
            found = {path.name for path in self.folder.iterdir() if records.canonical(path.name) == path.name}
            assert found == self.taken
            assert _named(self.folder) == self.holders

    @rule()
    def ask(self) -> None:
        self._bury()
        with self.leases.transaction() as work:
            for name in CONTAINERS:
                found = work.get(owner(name))
                assert (found is None) == (name not in self.records)
                assert set(found.addresses if found else ()) == self._held(name)
                assert (found.prefixes if found else ()) == ((self.prefixes[name],) if name in self.prefixes else ())
            for address in (*self.holders, "192.0.2.9"):
                holder = self.holders.get(address)
                assert work.holder(address) == (None if holder is None else f"{holder} eth0")
            assert all(work.holder(address) is not None for address in self.garbage)
            assert {one.owner.container_id for one in work.attachments()} == set(self.records)
            for name, text in self.prefixes.items():
                holder = work.delegated(str(IPv6Network(text)[1]))
                assert holder == f"{name} eth0" or (holder is None and name in self.halfway)
        self.foreign -= {address for address in self.foreign if not self.boots.get(self.holders.get(address, ""))}
        self._has_records()

    # The rest of the model

    @property
    def boot(self) -> str:
        return f"boot {self.number}"

    @property
    def taken(self) -> set[str]:
        return self.garbage | set(self.holders)

    def _held(self, name: str) -> set[str]:
        return {address for address, holder in self.holders.items() if holder == name}

    def _has_records(self) -> None:
        """Whatever is not new to us has a record that names it, at any moment."""
        recorded = {path.name: records.decode(NETWORK, path.name, path.read_bytes())
                    for path in (self.folder / "attachments").glob("*:eth0")}
        for address, name in _named(self.folder).items():
            record = recorded.get(f"{name}:eth0")
            assert address in self.foreign or (record and address in record.addresses)

    def _choices(self, name: str, number: int) -> tuple[Choice, ...]:
        chosen = (SETS[pick] for pick in self.picks[number % len(self.picks)])
        return tuple((each, replace(policy, identity=name) if policy.order == STABLE else policy)
                     for each, policy in chosen)

    def _unburied(self) -> list[str]:
        return [name for name, boot in self.boots.items() if boot not in ("", self.boot)]

    def _bury(self) -> None:
        """The first transaction of a boot frees what containers of earlier ones held of ours."""
        for name in self._unburied():
            theirs = self._held(name) & self.foreign
            self._free(self._held(name) - theirs, exact=False)
            self._forget(name)
            if theirs:
                self.records[name], self.boots[name] = sorted(theirs), ""

    def _choose(self, work: Transaction, choices: Sequence[Choice]) -> list[str]:
        chosen: list[str] = []
        for index, (addresses, policy) in enumerate(choices):
            before = len(work.remarks)
            try:
                address = work.choose(index, addresses, policy)
            except CniError as error:
                assert error.code == errors.ADDRESSES_EXHAUSTED and ranges.size(addresses) < LARGE_SIZE
                had = self.taken | self.seen if policy.never_reuses(addresses) else self.taken
                assert _all(addresses) <= had | set(chosen) or (policy.never_reuses(addresses) and self.killed)
                raise
            assert address not in chosen
            chosen.append(address)
            self._has_waited(address, addresses, policy, remarked=len(work.remarks) > before)
            self._is_new([address], choices[index:index + 1])
        return chosen

    def _is_new(self, addresses: Iterable[str], choices: Sequence[Choice]) -> None:
        """Nobody has it, and of a set that gives nothing twice nobody ever had it from us."""
        for address, (each, policy) in zip(addresses, choices):
            assert address not in self.taken
            if policy.never_reuses(each):
                assert address not in self.spent
                assert ":" not in address or not any(ip_address(address) in block for block in self.blocks)
                self.spent.add(address)
                self.seen.add(address)
            if policy.order == STABLE and policy.identity not in self.unstable:
                own = self.stable.setdefault(policy.identity, address)
                assert address == own or own in self.taken

    def _is_new_block(self, block: IPv6Network) -> None:
        assert not any(block.overlaps(each) for each in self.blocks)
        assert not any(ip_address(address) in block for address in self.spent if ":" in address)
        self.blocks.append(block)

    def _has_waited(self, address: str, addresses: RangeSet, policy: AllocationPolicy, *, remarked: bool) -> None:
        """Or there is no other that has, or that nobody had; and then we are told."""
        since, _ = self.released.get(address, (self.now - policy.wait, False))
        its_own = policy.order == STABLE  # nobody else's, of so many
        if policy.never_reuses(addresses) or its_own or self.now - since >= policy.wait:
            return
        assert remarked
        for other in _all(addresses) - self.taken:
            time, exact = self.released.get(other, (self.now, False))
            assert other in self.seen and not (exact and self.now - time >= policy.wait)

    def _give(self, name: str, addresses: list[str], boot: str) -> None:
        assert name not in self.records
        self.records[name], self.boots[name] = addresses, boot
        self.holders.update(dict.fromkeys(addresses, name))
        self.foreign -= set(addresses)
        self.seen |= set(addresses)
        for address in addresses:
            self.released.pop(address, None)

    def _free(self, addresses: Iterable[str], *, exact: bool) -> None:
        for address in addresses:
            del self.holders[address]
            self.released[address] = self.now, exact

    def _forget(self, name: str) -> None:
        self.halfway.discard(name)
        for table in (self.records, self.boots, self.prefixes):
            table.pop(name, None)


def _one_of(names: Iterable[str], number: int) -> str:
    ordered = sorted(names)
    return ordered[number % len(ordered)]


def _named(folder: Path) -> dict[str, str]:
    """Address -> container, of the lease files that name one."""
    if not folder.exists():
        return {}
    owners = {path.name: records.lease_owner(path.read_bytes()) for path in folder.iterdir()
              if records.canonical(path.name) == path.name}
    return {address: found[0] for address, found in owners.items() if found}


def _all(addresses: RangeSet) -> set[str]:
    """Every address of a small set."""
    skip = ranges.gateways(addresses)
    return {to_text(one.family, value) for one in addresses.ranges for value in range(one.first, one.last + 1)
            if value not in skip}


Store.TestCase.settings = settings(settings.get_profile("ci"), max_examples=80, stateful_step_count=50)


class TestStore(Store.TestCase):  # type: ignore[valid-type, misc]
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        Store.killer = Killer()

    @classmethod
    def tearDownClass(cls) -> None:
        Store.killer.close()
        super().tearDownClass()
