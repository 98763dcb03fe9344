"""Sysctls, on folders that look like those of a namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cni_v6.errors import IO_FAILURE, CniError
from cni_v6.kernel import sysctl

KEY = "ipv6/conf/eth0/accept_ra"


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Mapping[str, int]]:
    for name in ("all", "default", "lo", "eth0"):
        (tmp_path / "conf" / name).mkdir(parents=True)
    (tmp_path / "conf" / "eth0" / "accept_ra").write_text("1\n")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield {"ipv6": descriptor}
    os.close(descriptor)


def test_read(folders: Mapping[str, int]) -> None:
    assert sysctl.read(folders, KEY) == "1"
    assert sysctl.read(folders, "ipv6/conf/eth1/accept_ra") is None
    assert sysctl.read(folders, "ipv4/ip_forward") is None


def test_write(folders: Mapping[str, int], tmp_path: Path) -> None:
    sysctl.write(folders, KEY, "2")
    assert (tmp_path / "conf/eth0/accept_ra").read_text()[:1] == "2"


def test_what_is_so_already_is_not_written(folders: Mapping[str, int], tmp_path: Path) -> None:
    """On a read-only /proc/sys, as in a container of the plugin, a value that is right is fine."""
    before = (tmp_path / "conf/eth0/accept_ra").stat()
    sysctl.write(folders, KEY, "1")
    assert (tmp_path / "conf/eth0/accept_ra").stat().st_mtime_ns == before.st_mtime_ns


def test_a_key_that_is_not_there(folders: Mapping[str, int]) -> None:
    with pytest.raises(CniError, match="cannot set net/ipv6/conf/eth1/accept_ra=0") as caught:
        sysctl.write(folders, "ipv6/conf/eth1/accept_ra", "0")
    assert caught.value.code == IO_FAILURE
    assert "no such key" in caught.value.details


def test_a_key_that_cannot_be_written() -> None:
    """/proc/version is a file that everybody may read and nobody, root included, can write."""
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(CniError, match="cannot set net/ipv6/version=9") as caught:
            sysctl.write({"ipv6": descriptor}, "ipv6/version", "9")
    finally:
        os.close(descriptor)
    assert caught.value.code == IO_FAILURE
    assert "it is Linux" in caught.value.details


def test_interfaces(folders: Mapping[str, int]) -> None:
    assert sysctl.interfaces(folders) == ("eth0", "lo")
    assert sysctl.interfaces({}) == ()
