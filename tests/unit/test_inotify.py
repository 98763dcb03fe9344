"""A folder that cannot be watched is an error, and leaves no descriptor."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from cni_v6.kernel import inotify


def test_what_changes_is_told_by_name(tmp_path: Path) -> None:
    changes = inotify.watch(str(tmp_path), inotify.IN_CREATE | inotify.IN_DELETE)
    try:
        (tmp_path / "a file").touch()
        (tmp_path / "a file").unlink()
        told = list(inotify.events(os.read(changes, inotify.READ_BYTES)))
    finally:
        os.close(changes)
    assert told == [(inotify.IN_CREATE, b"a file"), (inotify.IN_DELETE, b"a file")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError, match="inotify"):
        inotify.watch(str(tmp_path / "none"), inotify.IN_CREATE)
    assert os.listdir("/proc/self/fd") == before


def test_without_a_descriptor_left(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="inotify") as caught:
            inotify.watch(str(tmp_path), inotify.IN_CREATE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
