"""The lease store on disk: its layout, its neighbour the reference plugin, and whatever can lie in its folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.allocation import ranges
from cni_v6.allocation.used import CHUNK
from cni_v6.errors import CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.directory import Folder, naming
from cni_v6.leases.disk.lease_files import PATIENCE
from cni_v6.leases.disk.lock import lock_holder
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.net.addresses import to_text
from tests import killed_processes
from tests.processes import opened
from tests.sandbox import need
from tests.stores import (
    BOOT,
    HOST_LOCAL,
    LARGE,
    NETWORK,
    SMALL,
    HostLocal,
    add,
    addresses_of,
    delete,
    held,
    lease_files,
    owner,
    pool,
    record_files,
    waiters,
)

NOBODY = 65534
NEXT_BOOT = "99999999-2222-4333-8444-555555555555"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def folder(data: Path) -> Path:
    return data / NETWORK


@pytest.fixture
def leases(data: Path) -> DiskLeases:
    return DiskLeases(NETWORK, str(data), boot=BOOT)


@pytest.fixture
def reference(data: Path) -> HostLocal:
    need(HOST_LOCAL.exists(), f"needs the reference plugins: {HOST_LOCAL}")
    return HostLocal(data, "10.1.0.0/29", "2001:db8::/64")


def attached(leases: DiskLeases) -> list[Attachment]:
    with leases.transaction() as work:
        return sorted(work.attachments(), key=lambda attachment: attachment.owner)


def fails(leases: DiskLeases, match: str) -> CniError:
    """Any ADD fails with STORE_FAILED; the error, for more questions."""
    with pytest.raises(CniError, match=match) as caught:
        add(leases, "new", SMALL, LARGE)
    assert caught.value.code == errors.STORE_FAILED
    return caught.value


# Layout

def test_the_layout_is_the_reference_plugins_plus_records(leases: DiskLeases, folder: Path) -> None:
    assert add(leases, "a", SMALL, LARGE) == ("10.1.0.2", "2001:db8::2")
    assert {path.name for path in folder.iterdir()} == {
        "10.1.0.2", "2001:db8::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock", "attachments", "cursors"}
    assert (folder / "10.1.0.2").read_bytes() == (folder / "2001:db8::2").read_bytes() == b"a\r\neth0"
    assert (folder / "last_reserved_ip.0").read_bytes() == b"10.1.0.2"
    assert (folder / "last_reserved_ip.1").read_bytes() == b"2001:db8::2"
    assert json.loads((folder / "attachments" / "a:eth0").read_text()) == {
        "containerID": "a", "ifname": "eth0", "addresses": ["10.1.0.2", "2001:db8::2"], "host": "veth0",
        "netns": [4, 17], "created": 1e9, "boot": BOOT, "reuse": ["after", "never"]}
    delete(leases, "a")
    assert (lease_files(folder), record_files(folder)) == ({}, {})


def test_nobody_else_can_read_it_whatever_the_umask(leases: DiskLeases, folder: Path) -> None:
    before = os.umask(0)
    try:
        add(leases, "a", SMALL, LARGE)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder.parent, folder, *folder.rglob("*")]}
    folders = {"data", NETWORK, "attachments", "cursors"}
    assert modes == {name: 0o700 if name in folders else 0o600 for name in modes}


def test_a_folder_that_everyone_could_read_is_narrowed(leases: DiskLeases, folder: Path) -> None:
    for path in (folder, folder / "attachments"):
        path.mkdir(parents=True, mode=0o755)
        path.chmod(0o755)
    add(leases, "a", SMALL)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "attachments")} == {0o700}
    assert stat.S_IMODE(folder.parent.stat().st_mode) != 0o700  # not ours alone


def test_a_container_id_longer_than_a_file_name(leases: DiskLeases) -> None:
    long = "a" * 400
    assert add(leases, long, SMALL) == ("10.1.0.2",)
    assert held(leases, long) == ("10.1.0.2",)
    assert [attachment.owner.container_id for attachment in attached(leases)] == [long]
    assert delete(leases, long) == ("10.1.0.2",)


# Cost

def test_reservation_and_release_read_no_folder(leases: DiskLeases, data: Path) -> None:
    for number in range(3):
        add(leases, f"c{number}", SMALL, LARGE)

    def churn() -> None:
        add(leases, "new", SMALL, LARGE)
        held(leases, "new")
        delete(leases, "new")
        delete(leases, "new")

    assert killed_processes.listings(churn) == 0


@pytest.mark.parametrize(("subnet", "listings"), [("10.3.0.0/24", 0), ("10.3.0.0/21", 1)])
def test_a_full_set_costs_one_listing_at_most(leases: DiskLeases, subnet: str, listings: int) -> None:
    """Of a small one not even that: a listing may hold a million addresses of other sets."""
    many = pool(subnet)
    size = ranges.size(many)
    with leases.transaction() as work:
        texts = (to_text(4, value) for value in ranges.candidates(many, None, False))
        work.put(Attachment(owner("all"), tuple(texts)))

    def try_it() -> None:
        with pytest.raises(CniError, match=f"{size} taken"), leases.transaction() as work:
            work.choose(0, many)

    assert (size > PATIENCE) == bool(listings)
    assert killed_processes.listings(try_it) == listings


def test_a_large_set_is_synced_once_a_chunk(leases: DiskLeases) -> None:
    add(leases, "first", SMALL, LARGE)

    def churn(count: int) -> None:
        with leases.transaction() as work:
            for _ in range(count):
                work.choose(1, LARGE)

    assert killed_processes.syncs(lambda: churn(50)) == 0
    churn(CHUNK - 101)
    assert killed_processes.syncs(lambda: churn(50)) == 0
    assert killed_processes.syncs(lambda: churn(1)) == 2  # the file and its folder


# Power loss

def test_nothing_of_a_large_set_comes_twice_when_the_last_writes_are_lost(data: Path, folder: Path) -> None:
    seen: list[str] = []
    for boot in range(5):
        leases = DiskLeases(NETWORK, str(data), boot=f"{boot}")
        for number in range(boot + 1):
            seen += add(leases, f"c{boot}-{number}", SMALL, LARGE)[1:]
            delete(leases, f"c{boot}-{number}")
        # What was synced is all that is left.
        spent = (folder / "cursors" / "spent").read_bytes()
        shutil.rmtree(folder)
        (folder / "cursors").mkdir(parents=True)
        (folder / "cursors" / "spent").write_bytes(spent)
    assert len(set(seen)) == len(seen) == 15


def test_after_a_boot_a_large_set_goes_on_behind_what_was_reserved(data: Path, leases: DiskLeases) -> None:
    assert add(leases, "a", LARGE) == ("2001:db8::2",)
    assert add(DiskLeases(NETWORK, str(data), boot=NEXT_BOOT), "b", LARGE) == ("2001:db8::1002",)  # 0x1000: a chunk
    assert add(DiskLeases(NETWORK, str(data), boot=NEXT_BOOT), "c", LARGE) == ("2001:db8::1003",)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff", b'{"containerID": "b", "ifname": "eth0"}'])
@pytest.mark.parametrize("boot", [BOOT, NEXT_BOOT])
def test_a_record_that_lost_its_content_is_made_anew(
        leases: DiskLeases, data: Path, folder: Path, content: bytes, boot: str) -> None:
    addresses = add(leases, "a", SMALL, LARGE)
    (folder / "attachments" / "a:eth0").write_bytes(content)
    leases = DiskLeases(NETWORK, str(data), boot=boot)
    assert held(leases, "a") == addresses
    assert [attachment.addresses for attachment in attached(leases)] == [addresses]
    assert delete(leases, "a") == addresses
    assert (lease_files(folder), record_files(folder)) == ({}, {})


def test_a_record_that_lost_its_content_and_its_leases_is_known_by_its_name(leases: DiskLeases, folder: Path) -> None:
    """It may have a container, which somebody must look for."""
    add(leases, "a", SMALL)
    (folder / "attachments" / "a:eth0").write_bytes(b"")
    (folder / "10.1.0.2").unlink()
    assert leases.damaged() == ["a/eth0"]
    assert [(each.owner.container_id, each.addresses, each.damaged) for each in attached(leases)] == [("a", (), True)]
    assert leases.damaged() == ["a/eth0"]
    assert delete(leases, "a") == () and leases.damaged() == [] and attached(leases) == []


@pytest.mark.parametrize("name", ["b\x1b[2J:eth0", "b:eth\x1b]0;owned\x07", "b:et h0"])
def test_a_file_whose_name_no_call_can_have_is_no_record(leases: DiskLeases, folder: Path, name: str) -> None:
    """An operator's screen would do what the name says."""
    add(leases, "a", SMALL)
    (folder / "attachments" / name).write_bytes(b"")
    assert [record.owner.container_id for record in leases.peek()] == ["a"]
    assert [record.owner.container_id for record in attached(leases)] == ["a"]
    assert set(record_files(folder)) == {"a:eth0"}


def test_a_damaged_record_keeps_its_prefix(leases: DiskLeases, folder: Path) -> None:
    with leases.transaction() as work:
        work.put(Attachment(owner("a"), ("2001:db8::2",), prefixes=("2001:db8:0:0:1::/80",)))
    (folder / "attachments" / "a:eth0").write_bytes(b"")
    [record] = attached(leases)
    assert (record.damaged, record.addresses, record.prefixes) == (True, ("2001:db8::2",), ("2001:db8:0:0:1::/80",))
    delete(leases, "a")
    assert list((folder / "prefixes").iterdir()) == []


def test_a_lease_that_lost_its_content_is_freed_by_its_record(leases: DiskLeases, folder: Path) -> None:
    addresses = add(leases, "a", SMALL, LARGE)
    (folder / "10.1.0.2").write_bytes(b"")
    assert delete(leases, "a") == addresses
    assert lease_files(folder) == {}


def test_a_boot_is_followed_by_one_walk_that_finds_everything(leases: DiskLeases, data: Path, folder: Path) -> None:
    add(leases, "a", SMALL)
    (folder / "attachments" / "a:eth0").unlink()
    for name in ("", "attachments", "attachments/.seen.gone"):
        (folder / name).touch()
    leases = DiskLeases(NETWORK, str(data), boot=NEXT_BOOT)
    assert held(leases, "a") == ("10.1.0.2",)
    assert len(list((folder / "attachments").glob(".seen.*"))) == 1
    assert killed_processes.listings(lambda: held(leases, "a")) == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 64], ids=["empty", "no list", "zeros"])
def test_a_damaged_account_of_what_is_spent_is_reported(leases: DiskLeases, folder: Path, content: bytes) -> None:
    add(leases, "a", LARGE)
    (folder / "cursors" / "spent").write_bytes(content)
    error = fails(leases, "cursors/spent is damaged")
    assert "can be handed out again" in error.details
    assert add(leases, "b", SMALL) == ("10.1.0.3",)  # other sets are not concerned


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"10.1.0.99", b"10.1.0.4/29", b"10.1.0.4\n"])
def test_a_cursor_with_anything_in_it_is_no_obstacle(leases: DiskLeases, folder: Path, content: bytes) -> None:
    add(leases, "a", SMALL)
    (folder / "last_reserved_ip.0").write_bytes(content)
    assert add(leases, "b", SMALL) == ("10.1.0.5" if content == b"10.1.0.4\n" else "10.1.0.3",)


# The reference plugin

def test_a_folder_the_reference_plugin_wrote_is_picked_up(
        leases: DiskLeases, reference: HostLocal, folder: Path) -> None:
    theirs = reference.add("theirs")
    assert theirs == ("10.1.0.2", "2001:db8::2")
    with leases.transaction() as work:
        found = work.get(owner("theirs"))
        assert found and found.addresses == theirs
        assert (found.boot, found.host, found.netns) == ("", "", (0, 0))
        assert found.created == max((folder / address).stat().st_mtime for address in theirs)
        assert work.holder("10.1.0.2") == "theirs eth0"
    assert add(leases, "ours", SMALL, LARGE) == ("10.1.0.3", "2001:db8::3")
    assert delete(leases, "theirs") == theirs
    assert set(lease_files(folder)) == {"10.1.0.3", "2001:db8::3"}


def test_the_reference_plugin_goes_on_with_ours(leases: DiskLeases, reference: HostLocal, folder: Path) -> None:
    ours = add(leases, "ours", SMALL, LARGE)
    theirs = reference.add("theirs")
    assert theirs == ("10.1.0.3", "2001:db8::3")
    assert add(leases, "more", SMALL, LARGE) == ("10.1.0.4", "2001:db8::4")
    reference.delete("ours")
    assert set(lease_files(folder)) == {*theirs, "10.1.0.4", "2001:db8::4"}
    assert ours == ("10.1.0.2", "2001:db8::2")


def test_both_in_turn_never_hand_out_the_same(leases: DiskLeases, reference: HostLocal, folder: Path) -> None:
    seen: list[str] = []
    for turn in range(6):
        seen += reference.add(f"theirs{turn}")[1:]
        reference.delete(f"theirs{turn}")
        seen += add(leases, f"ours{turn}", SMALL, LARGE)[1:]
        (reference.delete if turn % 2 else lambda name: delete(leases, name))(f"ours{turn}")
    assert len(set(seen)) == 12
    assert lease_files(folder) == {}


def test_a_record_whose_leases_the_reference_plugin_freed_holds_nothing(
        leases: DiskLeases, reference: HostLocal, folder: Path) -> None:
    add(leases, "ours", SMALL, LARGE)
    reference.delete("ours")
    assert held(leases, "ours") == ()
    assert [(one.owner, one.addresses) for one in attached(leases)] == [(owner("ours"), ())]
    (folder / "10.1.0.2").write_bytes(b"other\r\neth0")
    assert delete(leases, "ours") == ()
    assert lease_files(folder) == {"10.1.0.2": "other\r\neth0"}
    assert set(record_files(folder)) == {"other:eth0"}


def test_the_reference_plugin_waits_for_our_lock_and_we_for_its(
        leases: DiskLeases, reference: HostLocal, data: Path, folder: Path) -> None:
    with leases.transaction() as work:
        process = reference.start("ADD", "theirs")
        while process.pid not in waiters(folder / "lock"):
            assert process.poll() is None, "it did not wait"
        work.put(Attachment(owner("ours"), ("10.1.0.2",)))
    assert addresses_of(process) == ("10.1.0.3", "2001:db8::2")


@pytest.mark.parametrize("content", [b"old", b"old\r\n"])
def test_a_lease_that_names_the_container_alone_stands_for_any_interface(
        leases: DiskLeases, folder: Path, content: bytes) -> None:
    add(leases, "other", SMALL)
    (folder / "10.1.0.5").write_bytes(content)
    assert held(leases, "old") == held(leases, "old", "net1") == ("10.1.0.5",)
    with pytest.raises(CniError, match="holds 10.1.0.5 already"):
        add(leases, "old", SMALL)
    with leases.transaction() as work:
        assert [one.owner.ifname for one in work.attachments() if one.owner.container_id == "old"] == [""]
        created = (folder / "10.1.0.5").stat().st_mtime
        assert work.drop(owner("old", "net1")) == Attachment(owner("old", "net1"), ("10.1.0.5",), created=created)
    assert set(lease_files(folder)) == {"10.1.0.2"}


def test_leases_added_to_an_attachment_of_ours_join_its_record(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    for address in ("2001:db8::7", "10.1.0.6"):
        (folder / address).write_bytes(b"a\r\neth0")
    assert held(leases, "a") == ("10.1.0.2", "10.1.0.6", "2001:db8::7")
    assert record_files(folder) == {"a:eth0": ["10.1.0.2", "10.1.0.6", "2001:db8::7"]}


def test_a_foreign_change_in_the_same_tick_of_the_clock_is_noticed(leases: DiskLeases, folder: Path) -> None:
    with leases.transaction() as work:
        work.put(Attachment(owner("a"), ("10.1.0.2",)))
        tick = folder.stat().st_mtime_ns  # what the kernel's clock said at our last change
    (folder / "10.1.0.5").write_bytes(b"theirs\r\neth0")
    os.utime(folder, ns=(tick, tick))
    assert held(leases, "theirs") == ("10.1.0.5",)


def test_a_record_that_somebody_removed_is_made_anew(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    (folder / "attachments" / "a:eth0").unlink()
    assert held(leases, "a") == ("10.1.0.2",)


def test_what_is_no_lease_is_left_alone_and_counts_as_taken(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    (folder / "10.1.0.3").write_bytes(b"")
    (folder / "10.1.0.4").write_bytes(b"\xff\xfe")
    (folder / "10.1.0.5").mkdir()
    (folder / "notes").write_bytes(b"a\r\neth0")
    assert add(leases, "b", SMALL) == ("10.1.0.6",)
    with leases.transaction() as work:
        assert [work.holder(f"10.1.0.{number}") for number in range(2, 6)] == ["a eth0", "", "", ""]
        with pytest.raises(CniError, match="10.1.0.5 is taken: its lease file names no holder"):
            work.put(Attachment(owner("c"), ("10.1.0.5",)))
    assert [one.owner.container_id for one in attached(leases)] == ["a", "b"]
    assert held(leases, "a") == ("10.1.0.2",)


def test_a_fifo_keeps_nobody_waiting(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    os.mkfifo(folder / "10.1.0.3")
    with leases.transaction() as work:
        assert work.holder("10.1.0.3") == ""
    os.mkfifo(folder / "attachments" / "new:eth0")
    fails(leases, "attachments/new:eth0: not a plain file")


def test_a_writer_that_ignores_the_lock_is_noticed_at_the_last_moment(leases: DiskLeases, folder: Path) -> None:
    """Between the look at an address and the link: no test can be sure to hit that, so the link is asked directly."""
    add(leases, "a", SMALL)
    (folder / "attachments" / "aside").write_bytes(b"b\r\neth0")
    root, attachments = Folder(str(folder)), Folder(str(folder / "attachments"))
    assert not attachments.link("aside", root, "10.1.0.2")
    assert attachments.link("aside", root, "10.1.0.3")
    for one in (root, attachments):
        one.close()
    assert lease_files(folder) == {"10.1.0.2": "a\r\neth0", "10.1.0.3": "b\r\neth0"}


# Symbolic links

def test_the_data_folder_may_be_reached_through_links(leases: DiskLeases, data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data.symlink_to(elsewhere)
    add(leases, "a", SMALL)
    assert set(lease_files(elsewhere / NETWORK)) == {"10.1.0.2"}


@pytest.mark.parametrize("name", ["", "attachments", "cursors"])
def test_a_link_in_the_place_of_a_folder_is_refused(
        leases: DiskLeases, folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(elsewhere)
    error = fails(leases, str(folder / name))
    assert "find out who put something else there" in error.details
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", [
    "lock", "last_reserved_ip.0", "last_reserved_ip.1", "cursors/spent", "cursors/open", "attachments/new:eth0"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_the_place_of_a_file_is_refused(
        leases: DiskLeases, folder: Path, tmp_path: Path, name: str, dangling: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    if not dangling:
        elsewhere.write_bytes(b"precious")
    add(leases, "a", SMALL, LARGE)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(elsewhere)
    fails(leases, f"{folder / name}: ")
    assert (folder / name).is_symlink()
    assert elsewhere.read_bytes() == b"precious" if not dangling else not elsewhere.exists()
    assert set(lease_files(folder)) == {"10.1.0.2", "2001:db8::2"}


@pytest.mark.parametrize("name", ["attachments/.new", "cursors/.new"])
def test_a_link_in_the_place_of_a_file_being_written_is_replaced(
        leases: DiskLeases, data: Path, folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    add(leases, "a", SMALL, LARGE)
    (folder / name).symlink_to(elsewhere)
    add(DiskLeases(NETWORK, str(data), boot=NEXT_BOOT), "b", SMALL, LARGE)
    assert not (folder / name).is_symlink()
    assert elsewhere.read_bytes() == b"precious"


def test_a_link_in_the_place_of_the_marker_costs_a_walk_and_nothing_else(
        leases: DiskLeases, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    add(leases, "a", SMALL)
    (marker,) = (folder / "attachments").glob(".seen.*")
    marker.unlink()
    marker.symlink_to(elsewhere)
    assert add(leases, "b", SMALL) == ("10.1.0.3",)
    assert not elsewhere.exists()


def test_a_link_in_the_place_of_a_lease_counts_as_taken_and_is_not_touched(
        leases: DiskLeases, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"a\r\neth0")
    add(leases, "a", SMALL)
    (folder / "10.1.0.2").unlink()
    (folder / "10.1.0.2").symlink_to(elsewhere)
    (folder / "10.1.0.3").symlink_to(tmp_path / "nowhere")
    assert add(leases, "b", SMALL) == ("10.1.0.4",)
    with leases.transaction() as work:
        assert [work.holder(address) for address in ("10.1.0.2", "10.1.0.3")] == ["", ""]
        with pytest.raises(CniError, match="10.1.0.3 is taken: its lease file names no holder"):
            work.put(Attachment(owner("c"), ("10.1.0.3",)))
    assert delete(leases, "a") == ()
    assert (folder / "10.1.0.2").is_symlink()
    assert elsewhere.read_bytes() == b"a\r\neth0"


# The lock

def test_whoever_holds_the_lock_is_named(data: Path, folder: Path) -> None:
    leases = DiskLeases(NETWORK, str(data), boot=BOOT, timeout=0)
    with leases.transaction(), pytest.raises(CniError) as caught, leases.transaction():
        pytest.fail("two transactions at once")
    assert caught.value.code == errors.TRY_AGAIN
    assert caught.value.msg == f"lock {folder / 'lock'} is held by process {os.getpid()}"


def test_a_lock_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with DiskLeases(NETWORK, str(tmp_path), boot=BOOT).transaction():
        assert lock_holder(os.stat(tmp_path / "lock")) is None
        assert lock_holder(os.stat(tmp_path / NETWORK / "lock")) == os.getpid()


def open_files() -> list[str]:
    """Paths of this process's descriptors."""
    return [path for path in opened() if path.startswith("/")]


def test_a_folder_removed_while_we_wait_for_its_lock_is_made_anew(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    lock = str(folder / "lock")
    waiting = threading.Thread(target=add, args=(leases, "b", SMALL))
    with closing(Folder(str(folder))) as another:  # as another process would: not by taking turns
        taken = another.lock("lock", 0)
        assert taken is not None
        waiting.start()
        while open_files().count(lock) < 2:  # ours and the thread's
            assert waiting.is_alive()
        shutil.rmtree(folder)
        os.close(taken)
    waiting.join()
    assert set(lease_files(folder)) == {"10.1.0.2"}
    assert held(leases, "b") == ("10.1.0.2",)


def test_who_waits_for_the_lock_waits_in_the_kernels_queue(leases: DiskLeases, folder: Path) -> None:
    add(leases, "a", SMALL)
    waiting = threading.Thread(target=add, args=(leases, "b", SMALL))
    with closing(Folder(str(folder))) as another:
        taken = another.lock("lock", 0)
        assert taken is not None
        waiting.start()
        while os.getpid() not in waiters(folder / "lock"):
            assert waiting.is_alive()
        os.close(taken)
    waiting.join()
    assert held(leases, "b") == ("10.1.0.3",)


def test_who_gave_up_leaves_one_that_waits_for_the_next(leases: DiskLeases, data: Path, folder: Path) -> None:
    """However often somebody gives up while another process hangs."""
    add(leases, "a", SMALL)
    before, lock = open_files(), str(folder / "lock")
    with closing(Folder(str(folder))) as another:
        taken = another.lock("lock", 0)
        assert taken is not None
        for _ in range(3):
            with pytest.raises(CniError, match="is held by process"):
                add(DiskLeases(NETWORK, str(data), boot=BOOT, timeout=0.01), "b", SMALL)
        left = [thread for thread in threading.enumerate() if thread.name == f"waits for {lock}"]
        assert len(left) == 1
        os.close(taken)
    assert add(leases, "b", SMALL) == ("10.1.0.3",)
    left[0].join()
    assert open_files() == before


def test_a_removed_folder_gives_no_lock(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    folder = Folder(str(gone))
    gone.rmdir()
    assert folder.lock("lock", 0) is None
    folder.close()


def test_no_descriptor_is_left_open(leases: DiskLeases, data: Path, folder: Path) -> None:
    add(leases, "a", SMALL, LARGE)
    before = open_files()
    add(leases, "b", SMALL, LARGE)
    delete(leases, "b")
    with pytest.raises(CniError), leases.transaction():
        held(DiskLeases(NETWORK, str(data), boot=BOOT, timeout=0), "a")
    (folder / "attachments").rename(folder / "was")
    (folder / "attachments").write_bytes(b"")
    fails(leases, "attachments: Not a directory")
    assert open_files() == before


# Errors of the system

@pytest.fixture
def refused(tmp_path: Path) -> Iterator[DiskLeases]:
    (tmp_path / "file").write_bytes(b"")
    yield DiskLeases(NETWORK, str(tmp_path / "file"), boot=BOOT)


def test_a_data_folder_that_is_a_file_is_named(refused: DiskLeases) -> None:
    fails(refused, r"file/pods: Not a directory")


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that is somebody's who is not root, and this process that somebody."""
    need(os.geteuid() == 0, "needs root, to be somebody else")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_a_folder_that_is_not_ours_to_narrow_is_named(nobody: Path) -> None:
    os.seteuid(0)
    (nobody / NETWORK).mkdir()
    os.seteuid(NOBODY)
    before = open_files()
    error = fails(DiskLeases(NETWORK, str(nobody), boot=BOOT), f"{nobody / NETWORK}: Operation not permitted")
    assert "as root" in error.details
    assert open_files() == before


def test_a_lease_that_may_not_be_read_is_named(nobody: Path) -> None:
    leases = DiskLeases(NETWORK, str(nobody), boot=BOOT)
    add(leases, "a", SMALL)
    os.seteuid(0)
    os.chown(nobody / NETWORK / "10.1.0.2", 0, 0)
    os.seteuid(NOBODY)
    with leases.transaction() as work, pytest.raises(CniError, match="10.1.0.2: Permission denied"):
        work.holder("10.1.0.2")


@pytest.mark.parametrize(("number", "remedy"), [
    (errno.ENOSPC, "free space or inodes"), (errno.EDQUOT, "free space or inodes"), (errno.EROFS, "writable"),
    (errno.EACCES, "as root"), (errno.EPERM, "as root"), (errno.EIO, "dmesg"), (errno.ELOOP, "remove it"),
])
def test_every_system_error_names_the_path_and_a_remedy(number: int, remedy: str) -> None:
    with pytest.raises(CniError, match="lease store: /some/file: ") as caught, naming("/some/file"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == errors.STORE_FAILED
    assert os.strerror(number) in caught.value.msg
    assert remedy in caught.value.details


# Looking without the lock

def test_a_look_changes_nothing_whatever_lies_there(leases: DiskLeases, folder: Path) -> None:
    """Records that are damaged, leases of the reference plugin, a folder that everybody can read."""
    assert list(leases.peek()) == [] and not folder.exists()
    for name in ("a", "b", "c"):
        add(leases, name, SMALL, LARGE)
    (folder / "10.1.0.6").write_text("theirs\r\neth0")
    (folder / "attachments/b:eth0").write_text("{")
    (folder / "attachments/nobody").write_text("{")
    (folder / "10.1.0.4").unlink()  # of c, by a DEL of the reference plugin
    folder.chmod(0o755)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    found = {record.owner.container_id: record for record in leases.peek()}
    assert {name: record.addresses for name, record in found.items()} == {
        "a": ("10.1.0.2", "2001:db8::2"), "b": ("10.1.0.3", "2001:db8::3"), "c": ("2001:db8::4",),
        "theirs": ("10.1.0.6",),
    }
    assert [name for name, record in found.items() if record.damaged] == ["b"]
    assert leases.past("2001:db8::2").used and leases.count(LARGE) == (3, 0)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in (folder, *folder.rglob("*"))} == before
