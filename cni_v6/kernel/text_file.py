"""Reads files whose names come from a configuration: regular files only, of limited size, without blocking.

A fifo would block its reader until a writer comes. A device may give data without end, or act when it is opened.
"""

from __future__ import annotations

import os
import stat

LIMIT = 1 << 16  # bytes; a resolv.conf has a few hundred, a secret a few dozen
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
         stat.S_IFSOCK: "socket"}


def read(path: str, limit: int = LIMIT) -> str:
    """The text of a regular file; symbolic links are followed. CRLF becomes LF.

    :raises OSError: also if it is not a regular file, or longer than ``limit`` bytes.
    :raises UnicodeDecodeError: it is not UTF-8.
    """
    _require_plain(os.stat(path))
    file = os.open(path, FLAGS)
    try:
        _require_plain(os.fstat(file))  # another file may have replaced it
        content = b""
        while part := os.read(file, limit + 1 - len(content)):
            content += part
        if len(content) > limit:
            raise OSError(f"it is longer than {limit} bytes")
    finally:
        os.close(file)
    return content.decode("utf-8").replace("\r\n", "\n")


def _require_plain(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"it is a {KINDS.get(stat.S_IFMT(found.st_mode), 'special file')}, no plain file")
