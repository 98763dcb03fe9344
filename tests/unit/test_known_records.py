"""What an engine knows of records: it reads a record again after anybody wrote to it, and no other."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk import known_records
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.known_records import DAMAGED, OPEN, Known, KnownRecords, Said
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.firewall.policy import Policy
from tests.stores import BOOT, NETWORK, SMALL, add, delete, owner

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def leases(tmp_path: Path) -> DiskLeases:
    """A network with the attachments a, b and c, at which a first look found nothing."""
    leases = DiskLeases(NETWORK, str(tmp_path), boot=BOOT, known=KnownRecords())
    for name in "abc":
        add(leases, name, SMALL)
    assert leases.damaged() == []
    return leases


@pytest.fixture
def folder(tmp_path: Path, leases: DiskLeases) -> Path:
    return tmp_path / NETWORK / "attachments"


@pytest.fixture
def opened(folder: Path) -> Iterator[Folder]:
    with closing(Folder(str(folder))) as opened:
        yield opened


def write_mapped(file: Path) -> None:
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as content:
        content[:] = bytes(len(content))


def replace(file: Path) -> None:
    (aside := file.with_name(".aside")).write_bytes(b"{")
    aside.rename(file)


@pytest.mark.parametrize("damage", [
    lambda file: file.write_bytes(b"{"), lambda file: os.truncate(file, 20), write_mapped, replace,
    lambda file: subprocess.run(["cp", "/dev/null", file], check=True),
], ids=["written", "cut", "through a mapping", "replaced", "by another process"])
def test_a_record_that_anybody_damages_is_found(
        leases: DiskLeases, folder: Path, damage: Callable[[Path], object]) -> None:
    damage(folder / "b:eth0")
    assert leases.damaged() == leases.damaged() == ["b/eth0"]
    (folder / "new:eth0").write_bytes(b"")
    assert leases.damaged() == ["b/eth0", "new/eth0"]
    delete(leases, "b")
    (folder / "new:eth0").unlink()
    assert leases.damaged() == []


def test_what_nobody_wrote_to_is_not_read_again(leases: DiskLeases, folder: Path, opened: Folder) -> None:
    known, read = KnownRecords(), list[str]()

    def reading(name: str) -> Said:
        read.append(name)
        return OPEN

    def looked_at() -> list[str]:
        read.clear()
        assert known.of(opened, reading) == Known((), False)
        return [name for name in read if not name.startswith(".")]

    assert sorted(looked_at()) == ["a:eth0", "b:eth0", "c:eth0"]
    assert looked_at() == []
    add(leases, "d", SMALL)
    delete(leases, "a")
    (folder / "c:eth0").read_bytes()
    assert looked_at() == ["d:eth0"] and looked_at() == []


def test_a_damaged_one_is_read_until_it_is_none(leases: DiskLeases, folder: Path) -> None:
    before = (folder / "a:eth0").read_bytes()
    (folder / "a:eth0").write_bytes(b"")
    assert leases.damaged() == ["a/eth0"]
    (folder / "a:eth0").write_bytes(before)
    assert leases.damaged() == leases.damaged() == []


def test_it_tells_whether_a_record_may_have_a_policy(leases: DiskLeases, tmp_path: Path) -> None:
    """One that had one may have it again; whoever has looked at nothing yet does not know."""
    assert not leases.may_be_guarded()
    assert DiskLeases(NETWORK, str(tmp_path), boot=BOOT).may_be_guarded()
    assert not DiskLeases("none", str(tmp_path), boot=BOOT, known=KnownRecords()).may_be_guarded()
    policy = Policy("br0", "veth0", addresses=("10.1.0.6",))
    with leases.transaction() as work:
        work.put(Attachment(owner("d"), ("10.1.0.6",), policy=policy))
    assert leases.may_be_guarded() and leases.damaged() == []
    delete(leases, "d")
    assert leases.may_be_guarded()


def test_all_are_read_where_news_were_lost(leases: DiskLeases, folder: Path) -> None:
    (folder / "b:eth0").write_bytes(b"{")
    with open(folder / "a:eth0", "r+b", buffering=0) as one, open(folder / "c:eth0", "r+b", buffering=0) as other:
        for _ in range(int(LIMIT.read_text())):  # news that repeat the last ones would be one
            for file in (one, other):
                os.pwrite(file.fileno(), b"{", 0)
    (folder / "d:eth0").write_bytes(b"{")
    assert leases.damaged() == ["b/eth0", "d/eth0"]


@pytest.mark.parametrize("way", ["made anew", "exchanged"])
def test_all_are_read_of_another_folder(leases: DiskLeases, folder: Path, way: str) -> None:
    (aside := folder.with_name("aside")).mkdir()
    shutil.copy(folder / "a:eth0", aside / "a:eth0")
    (aside / "b:eth0").write_bytes(b"{")
    if way == "made anew":
        shutil.rmtree(folder)
    else:
        folder.rename(folder.with_name("before"))
    aside.rename(folder)
    assert leases.damaged() == ["b/eth0"]


def test_a_look_that_failed_is_made_again(leases: DiskLeases, folder: Path, opened: Folder) -> None:
    known = KnownRecords()

    def broken(name: str) -> Said:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            known.of(opened, broken)
    assert "b:eth0" in known.of(opened, lambda name: DAMAGED).damaged


def test_it_reads_all_where_nothing_tells_of_changes(opened: Folder) -> None:
    """As without /proc, or beside too many watches of others."""

    class Unwatched(Folder):
        def __init__(self) -> None:
            self.fd, self.opened = -1, opened.opened

        def names(self) -> list[str]:
            return opened.names()

    known = KnownRecords()
    for _ in range(2):
        assert "b:eth0" in known.of(Unwatched(), lambda name: DAMAGED).damaged


def test_it_keeps_few_descriptors(tmp_path: Path) -> None:
    known, before = KnownRecords(), len(os.listdir("/proc/self/fd"))
    for number in [*range(2 * known_records.FOLDERS)] * 2:
        with closing(Folder(str(tmp_path / f"{number}"))) as each_folder:
            assert known.of(each_folder, lambda name: OPEN) == Known((), False)
    assert len(os.listdir("/proc/self/fd")) - before == known_records.FOLDERS
