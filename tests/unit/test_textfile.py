"""Files that a configuration names: plain, bounded, read without waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cni_v6.kernel import text_file


def test_a_plain_file_by_way_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nameserver ::1\n# é\n", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    assert text_file.read(str(tmp_path / "link")) == "nameserver ::1\n# é\n"


def test_the_kernels_files_whose_size_is_0() -> None:
    assert text_file.read("/proc/sys/kernel/ostype") == "Linux\n"


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
def test_what_is_no_plain_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    with pytest.raises(OSError, match=f"it is a {kind}, no plain file"):
        text_file.read(str(path))


def test_a_device_is_not_even_opened() -> None:
    with pytest.raises(OSError, match="it is a device, no plain file"):
        text_file.read("/dev/zero")


def test_no_more_is_read_than_there_can_be(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: 1 TiB of zeros
    with pytest.raises(OSError, match="it is longer than 65536 bytes"):
        text_file.read(str(path))
    path.write_text("x" * text_file.LIMIT)
    assert len(text_file.read(str(path))) == text_file.LIMIT


def test_what_is_not_there_and_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        text_file.read(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert text_file.read(str(tmp_path / "bytes")) == "\udcff"
