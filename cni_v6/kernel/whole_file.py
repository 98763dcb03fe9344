"""Writes a file that its readers see whole: the old content or the new one."""

from __future__ import annotations

import os
from contextlib import suppress


def replace(path: str, content: bytes, aside: str, mode: int = 0o644) -> None:
    """Write a file by rename.

    :param aside: a name in the same folder that its readers pass over. The folder may be another user's, so whatever
        lies there is removed, and not opened.
    :param mode: whatever the umask is.
    :raises OSError: then the file is as it was, and nothing is aside.
    """
    with suppress(FileNotFoundError):
        os.unlink(aside)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
