"""A log file of bounded size: lines are appended; when it is full, it becomes ``<path>.1`` in place of the one before.

Several processes may write to it. A line is one write(2) with O_APPEND, so that lines do not mix. Whoever finds the
file full takes its lock (flock(2)) to rename it; the others go on writing meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

RUN_FILE = "calls.jsonl"  # in the run folder
RUN_BYTES = 2 << 20  # of it: the folder is in memory (tmpfs)
BYTES = 16 << 20  # of a file that a configuration names
OLD = ".1"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def append(path: str, line: bytes, most: int = BYTES) -> None:
    """Append a line.

    :param most: the size in bytes from which the file is renamed.
    :raises OSError: it cannot be written, or is no plain file of this user's.
    """
    if not _append(path, line, most):
        _append(path, line, None)


def _append(path: str, line: bytes, most: int | None) -> bool:
    """Append a line; False, and nothing is written, if the file was full and has been renamed."""
    file = os.open(path, _FLAGS, 0o600)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{path} is no file of this user's")
        if most is not None and found.st_size + len(line) > most and _rotate(path, file):
            return False
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk has taken a part of it
        return True
    finally:
        os.close(file)


def _rotate(path: str, file: int) -> bool:
    """Rename a full file; False if somebody else does so."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
            return True  # it has been renamed in the meantime
        os.rename(path, path + OLD)
        return True
    return False
