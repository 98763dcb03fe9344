"""Sysctls, on folders that look like those of a namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_v6.errors import IO_FAILURE, CniError
from cni_v6.kernel import sysctl
from cni_v6.kernel.sysctl import Folders, Unwritable

KEY = "ipv6/conf/eth0/accept_ra"


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    for name in ("all", "default", "lo", "eth0"):
        (tmp_path / "ipv6/conf" / name).mkdir(parents=True)
    (tmp_path / "ipv6/conf/eth0/accept_ra").write_text("1\n")
    made = Folders(f"{tmp_path}/")
    yield made
    made.close()


def test_read(folders: Folders) -> None:
    assert sysctl.read(folders, KEY) == "1"
    assert sysctl.read(folders, "ipv6/conf/eth1/accept_ra") is None
    assert sysctl.read(folders, "ipv4/ip_forward") is None


def test_write(folders: Folders, tmp_path: Path) -> None:
    sysctl.write(folders, KEY, "2")
    assert (tmp_path / "ipv6/conf/eth0/accept_ra").read_text()[:1] == "2"


def test_what_is_so_already_is_not_written(folders: Folders, tmp_path: Path) -> None:
    """On a read-only /proc/sys, as in a container of the plugin, a value that is right is fine."""
    before = (tmp_path / "ipv6/conf/eth0/accept_ra").stat()
    sysctl.write(folders, KEY, "1")
    assert (tmp_path / "ipv6/conf/eth0/accept_ra").stat().st_mtime_ns == before.st_mtime_ns


def test_a_key_that_is_not_there(folders: Folders) -> None:
    with pytest.raises(CniError, match="cannot set net/ipv6/conf/eth1/accept_ra=0") as caught:
        sysctl.write(folders, "ipv6/conf/eth1/accept_ra", "0")
    assert caught.value.code == IO_FAILURE
    assert "no such key" in caught.value.details


def test_a_key_that_cannot_be_written() -> None:
    """Everybody may read /proc/version, and nobody, root included, can write it."""
    folders = Folders("/")
    try:
        with pytest.raises(CniError, match="cannot set net/proc/version=9") as caught:
            sysctl.write(folders, "proc/version", "9")
    finally:
        folders.close()
    assert caught.value.code == IO_FAILURE
    assert "it is Linux" in caught.value.details


def test_a_key_that_cannot_even_be_read(tmp_path: Path, folders: Folders) -> None:
    (tmp_path / "ipv6/conf/eth0/mtu").mkdir()
    with pytest.raises(CniError, match="cannot set net/ipv6/conf/eth0/mtu=0") as caught:
        sysctl.write(folders, "ipv6/conf/eth0/mtu", "0")
    assert not isinstance(caught.value, Unwritable) and "Is a directory" in caught.value.details


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("ipv4/ip_forward", "set it on the node"),
        ("ipv6/conf/all/forwarding", "set it on the node"),
        (KEY, "set net/ipv6/conf/default/accept_ra=0 beforehand .* for interfaces to come .*eth0"),
    ],
)
def test_what_to_set_beforehand(key: str, words: str) -> None:
    assert re.match(words, sysctl.beforehand(key, "0"))


def test_the_nodes_own_are_opened_at_once(tmp_path: Path, folders: Folders) -> None:
    """What is mounted over them later must not be what an engine sees for the rest of its life."""
    kept = Folders(f"{tmp_path}/", at_once=True)
    (tmp_path / "ipv6").rename(tmp_path / "elsewhere")
    assert sysctl.read(kept, KEY) == "1"
    assert sysctl.read(folders, KEY) is None
    kept.close()


def test_interfaces(folders: Folders) -> None:
    assert sysctl.interfaces(folders) == ("eth0", "lo")


def test_a_kernel_without_ipv6(tmp_path: Path) -> None:
    folders = Folders(f"{tmp_path}/")
    assert sysctl.interfaces(folders) == ()
    assert sysctl.read(folders, KEY) is None
    with pytest.raises(CniError, match="cannot set net/ipv6/conf/eth0/accept_ra=0"):
        sysctl.write(folders, KEY, "0")
