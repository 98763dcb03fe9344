"""The lease store when its writers are killed, when there are many, and when the disk refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni_v6 import errors
from tests import killed_processes
from tests.sandbox import need

PRIVATE_MOUNTS = ("unshare", "-m")


@pytest.mark.parametrize("scenario", ["fresh", "add", "del"])
def test_killed_before_any_system_call_nothing_is_lost_track_of_or_handed_out_twice(
        scenario: str, tmp_path: Path) -> None:
    rounds = killed_processes.run("kill", str(tmp_path / "data"), scenario)
    assert len(rounds) > 30
    assert [one["killed"] for one in rounds] == [True] * (len(rounds) - 1) + [False]
    seen: set[str] = set()
    for one in rounds:
        name = f"c{one['number']}"
        recorded = {address for addresses in one["records"].values() for address in addresses}
        # Every lease file is whole, and its owner's record names it: DEL and GC find it whatever happened.
        assert set(one["leases"].values()) <= {f"{name}\r\neth0"}
        assert set(one["leases"]) <= recorded
        assert set(one["records"]) <= {f"{name}:eth0"}
        # A retry is either refused because of what is there, or it works; then DEL leaves nothing.
        again = one["after"]["again"]
        assert again == errors.ALREADY_ATTACHED if one["records"] else len(again) == 2
        assert one["after"]["leases"] == one["after"]["records"] == {}
        # What may have reached a container, of the large set, was never there before.
        fresh = {address for address in (*one["leases"], *one["given"], *(again if not one["records"] else ()))
                 if ":" in address}
        assert not seen & fresh
        seen |= fresh if scenario != "fresh" else set()


def test_killed_while_it_takes_in_what_another_wrote(tmp_path: Path) -> None:
    rounds = killed_processes.run("kill", str(tmp_path / "data"), "walk")
    assert len(rounds) > 30
    for one in rounds:
        assert set(one["leases"].values()) <= {f"c{one['number']}\r\neth0"}
        assert one["after"]["again"] == errors.ALREADY_ATTACHED if one["records"] or one["leases"] else True
        assert one["after"]["leases"] == one["after"]["records"] == {}


def test_fifty_processes_at_once_never_get_the_same_address(tmp_path: Path) -> None:
    (storm,) = killed_processes.run("storm", str(tmp_path / "data"), "50")
    assert storm["codes"] == [0] * 50
    given = storm["given"]
    assert len(given) == 150
    assert len({large for _, _, large in given}) == 150
    kept = [(name, small, large) for name, small, large in given if not name.endswith("-0")]
    assert storm["leases"] == {address: f"{name}\r\neth0" for name, *addresses in kept for address in addresses}
    assert storm["records"] == {f"{name}:eth0": [small, large] for name, small, large in kept}


@pytest.mark.parametrize(("kind", "word"), [
    ("inodes", "No space left on device"), ("space", "No space left on device"), ("ro", "Read-only file system")])
def test_a_disk_that_refuses_is_named_and_nothing_is_left_behind(kind: str, word: str, tmp_path: Path) -> None:
    need(os.geteuid() == 0, "needs root, to mount a file system of its own")
    *rounds, last = killed_processes.run("full", str(tmp_path), kind, wrapper=PRIVATE_MOUNTS)
    before = {"10.1.0.2": "before\r\neth0", "2001:db8::2": "before\r\neth0"}
    failed = [one for one in rounds if isinstance(one["result"][0], int)]
    assert len(failed) >= (3 if kind == "inodes" else 1)
    for one in failed:
        code, msg, details = one["result"]
        assert (code, one["leases"], one["spare"]) == (errors.STORE_FAILED, before, False)
        assert list(one["records"]) == ["before:eth0"]
        assert msg.startswith(f"lease store: {tmp_path}/pods") and msg.endswith(word)
        assert "file system" in details
    assert len(last["result"]) == 2
    assert len(last["leases"]) == 4
