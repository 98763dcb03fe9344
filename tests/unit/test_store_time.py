"""The lease store over reboots, old copies of its folder, and a clock that jumps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.allocation.allocator import BACKLOG
from cni_v6.allocation.policy import AFTER, DEFAULT, NEVER, RANDOM, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.allocation.used import CHUNK, RATE
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.net.addresses import from_text
from tests.stores import BOOT, LARGE, NETWORK, SMALL, add, delete, held, lease_files, owner, pool, record_files

NEXT_BOOT = "99999999-2222-4333-8444-555555555555"
START = 1_790_000_000.0
HOUR = 3600
BASE = from_text("2001:db8::")[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / NETWORK


def at(tmp_path: Path, time: float = START, boot: str = BOOT) -> DiskLeases:
    return DiskLeases(NETWORK, str(tmp_path), boot=boot, now=lambda: time)


def value(address: str) -> int:
    return from_text(address)[1] - BASE


def one(leases: DiskLeases, addresses: RangeSet = LARGE, policy: AllocationPolicy = DEFAULT) -> str:
    """Choose an address and leave it."""
    with leases.transaction() as work:
        return work.choose(0, addresses, policy)


# A reboot

def test_a_reboot_frees_what_was_held_before_it_and_says_so(tmp_path: Path, folder: Path) -> None:
    add(at(tmp_path), "a", SMALL, LARGE)
    add(at(tmp_path), "b", SMALL)
    with at(tmp_path, boot=NEXT_BOOT).transaction() as work:
        assert sorted(work.remarks) == [
            "freed 10.1.0.2, 2001:db8::2 of a/eth0: held since before the node was started",
            "freed 10.1.0.3 of b/eth0: held since before the node was started"]
        assert list(work.attachments()) == []
    assert (lease_files(folder), record_files(folder)) == ({}, {})
    with at(tmp_path, boot=NEXT_BOOT).transaction() as work:
        assert work.remarks == []


def test_a_reboot_frees_prefixes(tmp_path: Path) -> None:
    with at(tmp_path).transaction() as work:
        prefix = work.choose_prefix(0, LARGE, 80)
        work.put(Attachment(owner("a"), ("2001:db8::2",), boot=BOOT, prefixes=(prefix,)))
    with at(tmp_path, boot=NEXT_BOOT).transaction() as work:
        assert work.delegated("2001:db8:0:0:1::5") is None


def test_what_was_held_at_a_reboot_waits_as_what_was_released(tmp_path: Path) -> None:
    for number in range(5):
        add(at(tmp_path), f"c{number}", SMALL)
    late = at(tmp_path, START + HOUR, NEXT_BOOT)
    with late.transaction() as work:
        work.remarks.clear()
        work.choose(0, SMALL)
        assert "was released 0 s ago" in work.remarks[0]


def test_nothing_is_freed_where_the_boot_is_not_known(tmp_path: Path) -> None:
    addresses = add(at(tmp_path), "a", SMALL)
    assert held(at(tmp_path, boot=""), "a") == addresses


def test_a_lease_of_this_boot_another_plugin_wrote_again_is_kept(tmp_path: Path, folder: Path) -> None:
    """podman starts a container again under its id, and the reference plugin gives it the address it had."""
    add(at(tmp_path), "a", SMALL, LARGE)
    (folder / "10.1.0.2").unlink()
    (folder / "10.1.0.2").write_bytes(b"a\r\neth0")
    with at(tmp_path, boot=NEXT_BOOT).transaction() as work:
        found = work.get(owner("a"))
        assert found and (found.addresses, found.boot) == (("10.1.0.2",), "")
        assert len(work.remarks) == 1
    assert set(lease_files(folder)) == {"10.1.0.2"}
    assert held(at(tmp_path, boot="a third"), "a") == ("10.1.0.2",)


def test_leases_of_the_reference_plugin_are_not_told_by_a_boot(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "10.1.0.5").write_bytes(b"theirs\r\neth0")
    for boot in (BOOT, NEXT_BOOT):
        assert held(at(tmp_path, boot=boot), "theirs") == ("10.1.0.5",)


def test_killed_in_the_middle_of_freeing_after_a_reboot_the_next_goes_on(tmp_path: Path, folder: Path) -> None:
    for number in range(3):
        add(at(tmp_path), f"c{number}", SMALL)
    (folder / "10.1.0.2").unlink()
    (folder / "attachments" / "c1:eth0").unlink()  # its lease is found as another's: nobody can tell
    with at(tmp_path, boot=NEXT_BOOT).transaction() as work:
        assert [each.owner.container_id for each in work.attachments()] == ["c1"]


@pytest.mark.parametrize("boot", [BOOT, NEXT_BOOT])
def test_a_damaged_account_keeps_nobody_from_cleaning_up(tmp_path: Path, folder: Path, boot: str) -> None:
    add(at(tmp_path), "a", SMALL, LARGE)
    add(at(tmp_path), "b", SMALL)
    (folder / "2001:db8::77").write_bytes(b"theirs\r\neth0")
    for name in ("spent", "spent4", "round4", "released4"):
        (folder / "cursors" / name).write_bytes(b"{")
    leases = at(tmp_path, boot=boot)
    for name in ("a", "b", "theirs"):
        delete(leases, name)
    assert (lease_files(folder), record_files(folder)) == ({}, {})
    with pytest.raises(CniError, match="cursors/spent4? is damaged"):
        one(leases, SMALL)


# A power failure

def test_what_the_queue_lost_is_found_after_a_boot(tmp_path: Path, folder: Path) -> None:
    for number in range(5):
        add(at(tmp_path), f"c{number}", SMALL)
        delete(at(tmp_path), f"c{number}")
    (folder / "cursors" / "released4").write_bytes(b"\0" * 100)
    with pytest.raises(CniError, match="no free address"):
        one(at(tmp_path), SMALL)
    seen = {add(at(tmp_path, START + HOUR, NEXT_BOOT), f"d{number}", SMALL)[0] for number in range(5)}
    assert len(seen) == 5


def test_very_many_that_were_lost_are_left_to_the_round(tmp_path: Path, folder: Path) -> None:
    many = pool("10.0.0.0/8")
    add(at(tmp_path), "a", many)
    (folder / "cursors" / "round4").write_text(f'{{"round": [["10.0.0.1", "10.{BACKLOG >> 16}.0.9"]]}}')
    assert add(at(tmp_path, boot=NEXT_BOOT), "b", many) == ("10.0.0.3",)
    assert (folder / "cursors" / "released4").stat().st_size < 1000


def test_a_random_order_after_a_power_failure_repeats_nothing(tmp_path: Path, folder: Path) -> None:
    by_lot, few = AllocationPolicy(RANDOM, NEVER), pool("10.6.0.0/25")
    seen: list[str] = []
    for boot in range(6):
        leases = at(tmp_path, boot=f"boot {boot}")
        seen += [one(leases, few, by_lot) for _ in range(10)]
        (folder / "cursors" / "open4").write_bytes(b"")
    assert len(set(seen)) == 60


# An old copy of the folder

def copied(folder: Path, step: Path) -> None:
    shutil.copytree(folder, step, copy_function=shutil.copy2)


@pytest.mark.parametrize("boot", [BOOT, NEXT_BOOT], ids=["in the same boot", "after a boot"])
def test_a_folder_from_a_backup_an_hour_old_repeats_nothing(tmp_path: Path, folder: Path, boot: str) -> None:
    one(at(tmp_path))
    copied(folder, tmp_path / "backup")
    with at(tmp_path).transaction() as work:
        seen = {work.choose(0, LARGE) for _ in range(3 * CHUNK)}
    shutil.rmtree(folder)
    copied(tmp_path / "backup", folder)
    later = at(tmp_path, START + HOUR, boot)
    assert one(later) not in seen
    assert value(one(later)) >= HOUR * RATE  # more than any node can have given meanwhile
    assert value(one(later)) - value(one(later)) == -1  # and it is settled then


@pytest.mark.parametrize("into", [False, True], ids=["in place of the files", "into the files"])
def test_a_random_order_from_a_backup_repeats_nothing(tmp_path: Path, folder: Path, into: bool) -> None:
    """Files in their place may have their inodes again, content that is copied into them has."""
    by_lot = AllocationPolicy(RANDOM)
    one(at(tmp_path), LARGE, by_lot)
    copied(folder, tmp_path / "backup")
    with at(tmp_path).transaction() as work:
        seen = {work.choose(0, LARGE, by_lot) for _ in range(2 * CHUNK)}
    if into:
        for path in (tmp_path / "backup").rglob("*"):
            if path.is_file():
                (folder / path.relative_to(tmp_path / "backup")).write_bytes(path.read_bytes())
    else:
        shutil.rmtree(folder)
        copied(tmp_path / "backup", folder)
    later = at(tmp_path, START + HOUR)
    assert not seen & {one(later, LARGE, by_lot) for _ in range(50)}


def test_a_set_that_cannot_afford_it_goes_on_behind_the_chunk(tmp_path: Path) -> None:
    barely = pool("fd00::/95")
    first = one(at(tmp_path), barely)
    second = one(at(tmp_path, START + 1000 * HOUR, NEXT_BOOT), barely)
    assert from_text(second)[1] - from_text(first)[1] == CHUNK


def test_a_request_before_the_first_choice_of_a_boot_skips_nothing_more(tmp_path: Path) -> None:
    one(at(tmp_path))
    later = at(tmp_path, START + 2, NEXT_BOOT)
    with later.transaction() as work:
        work.put(Attachment(owner("asked"), ("2001:db8::9:9:9:9",), boot=NEXT_BOOT, reuse=(NEVER,)))
    much_later = at(tmp_path, START + HOUR, NEXT_BOOT)
    assert value(one(much_later)) == 2 + CHUNK + 2 * RATE


@pytest.mark.parametrize("jump", [-10**8, 10**8])
def test_a_clock_that_jumps_repeats_nothing(tmp_path: Path, jump: float) -> None:
    seen = [one(at(tmp_path, START, "boot 0")), one(at(tmp_path, START + jump, "boot 0")),
            one(at(tmp_path, START + jump, "boot 1")), one(at(tmp_path, START, "boot 2"))]
    assert len(set(seen)) == 4


# Kills

@pytest.mark.parametrize("kept", ["queue and round", "round alone", "record alone"])
def test_a_release_that_was_cut_off_is_finished_by_the_next_call(tmp_path: Path, folder: Path, kept: str) -> None:
    """By a DEL again, or by whoever comes next: the address waits, once."""
    for number in range(5):
        add(at(tmp_path), f"c{number}", SMALL)
    before = {name: (folder / "cursors" / name).read_bytes() for name in os.listdir(folder / "cursors")}
    record = (folder / "attachments" / "c0:eth0").read_bytes()
    delete(at(tmp_path), "c0")
    (folder / "attachments" / "c0:eth0").write_bytes(record)
    if kept != "queue and round":
        (folder / "cursors" / "released4").unlink()
    if kept == "record alone":
        (folder / "cursors" / "round4").write_bytes(before["round4"])
    assert delete(at(tmp_path), "c0") == ()
    assert add(at(tmp_path, START + HOUR), "d", SMALL) == ("10.1.0.2",)
    with pytest.raises(CniError) as caught:
        add(at(tmp_path, START + HOUR), "e", SMALL)
    assert caught.value.code == errors.ADDRESSES_EXHAUSTED


def test_what_the_reference_plugin_released_waits(tmp_path: Path, folder: Path) -> None:
    for number in range(5):
        add(at(tmp_path), f"c{number}", SMALL)
    (folder / "10.1.0.4").unlink()
    with at(tmp_path).transaction() as work:
        assert work.choose(0, SMALL, AllocationPolicy(reuse=AFTER)) == "10.1.0.4"
        assert "was released 0 s ago" in work.remarks[0]
