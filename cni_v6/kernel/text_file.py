"""Files whose names come from a configuration: read without waiting for anybody, and no more of one than there can be.

A fifo would keep its reader waiting for a writer, a device give without end or do something when it is opened.
"""

from __future__ import annotations

import os
import stat

LIMIT = 1 << 16  # bytes; a resolv.conf has some hundred, a secret some dozen
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
         stat.S_IFSOCK: "socket"}


def read(path: str, limit: int = LIMIT) -> str:
    """The text of a plain file, symbolic links followed. Bytes that are not UTF-8 become surrogates (PEP 383).

    :raises OSError: also for what is no plain file, or longer than ``limit`` bytes.
    """
    _require_plain(os.stat(path))
    file = os.open(path, FLAGS)
    try:
        _require_plain(os.fstat(file))  # something else may have come in its place
        content = b""
        while part := os.read(file, limit + 1 - len(content)):
            content += part
        if len(content) > limit:
            raise OSError(f"it is longer than {limit} bytes")
    finally:
        os.close(file)
    return content.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _require_plain(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"it is a {KINDS.get(stat.S_IFMT(found.st_mode), 'special file')}, no plain file")
