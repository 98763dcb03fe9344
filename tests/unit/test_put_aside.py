"""Files that are written aside and renamed: whatever lies at the name aside is neither opened nor changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_v6.cluster import files
from cni_v6.ctl import metrics
from cni_v6.kernel import whole_file


def _metrics(path: Path) -> None:
    metrics._replace(path, "new")


def _cluster(path: Path) -> None:
    files.replace(str(path), b"new")


@pytest.mark.parametrize("kind", ["file", "hard link", "symbolic link", "fifo"])
@pytest.mark.parametrize(("write", "aside"), [(_metrics, ".x.prom.{pid}"), (_cluster, ".x.prom.new")])
def test_what_somebody_has_put_aside(tmp_path: Path, write: Callable[[Path], None], aside: str, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    there = tmp_path / aside.format(pid=os.getpid())
    if kind == "hard link":
        there.hardlink_to(secret)
    elif kind == "symbolic link":
        there.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(there)
    else:
        there.write_text("left by a process that was killed")
    write(tmp_path / "x.prom")
    assert (tmp_path / "x.prom").read_text() == "new" and not (tmp_path / "x.prom").is_symlink()
    assert secret.read_text() == "mine" and secret.stat().st_mode & 0o777 == 0o600
    assert not os.path.lexists(there)


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="directory"):
        whole_file.replace(str(tmp_path / "x"), b"new", str(tmp_path / ".x"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").is_dir()
