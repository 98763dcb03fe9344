"""An engine that does not answer: which process it is, what that does, and what a person can do about it."""

from __future__ import annotations

import os
import re
from contextlib import suppress

STATE = re.compile(rb"^State:\s*(\w)", re.MULTILINE)
STOPPED = b"Tt"  # by a signal, by a debugger (proc(5), /proc/pid/stat)


def advice(path: bytes) -> str:
    """Where to look and what to do, for the engine that listens at a socket."""
    name = os.fsdecode(path)
    pid = process(path)
    if pid is None:
        return f"find the process that listens at {name} (ss -lxp), look what it waits for, or end it"
    if state(pid) in STOPPED:
        return f"its process {pid} is stopped: let it go on (kill -CONT {pid}), or end it (kill -KILL {pid})"
    return f"look what its process {pid} waits for (/proc/{pid}/task/*/stack), or end it (kill -KILL {pid})"


def process(path: bytes) -> int | None:
    """The process that listens at a socket, by its own word (``start.sign``); None where that cannot be told.

    An engine in a pid namespace of its own, a container's, wrote a number that is somebody else's here: an engine has
    that file open.
    """
    with suppress(OSError, ValueError), open(path + b".alive", "rb", opener=_no_link) as file:
        pid, wanted = int(file.read(20)), os.fstat(file.fileno())
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted):
                    return pid
    return None


def state(pid: int) -> bytes:
    """The letter of a process's state; nothing where it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        found = STATE.search(status.read(4096))
        return found[1] if found else b""
    return b""


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
