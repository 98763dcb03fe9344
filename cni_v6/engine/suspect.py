"""Advice about an engine that does not answer: its process, the state of that process, and what to do."""

from __future__ import annotations

import os
import re
from contextlib import suppress

STATE = re.compile(rb"^State:\s*(\w)", re.MULTILINE)
STOPPED = b"Tt"  # by a signal, by a debugger (proc(5), /proc/pid/stat)


def advice(path: bytes) -> str:
    """Where to look and what to do about the engine that listens at a socket."""
    name = os.fsdecode(path)
    pid = process(path)
    if pid is None:
        return f"find the process that listens at {name} (ss -lxp), look what it waits for, or end it"
    if state(pid) in STOPPED:
        return f"its process {pid} is stopped: let it go on (kill -CONT {pid}), or end it (kill -KILL {pid})"
    return f"look what its process {pid} waits for (/proc/{pid}/task/*/stack), or end it (kill -KILL {pid})"


def process(path: bytes) -> int | None:
    """The id of the process that listens at a socket, from the file written by ``start.sign``; None if not known.

    An engine in a container's pid namespace wrote an id that is another process's here. So the process must have that
    file open.
    """
    with suppress(OSError, ValueError), open(path + b".alive", "rb", opener=_no_link) as file:
        pid, wanted = int(file.read(20)), os.fstat(file.fileno())
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted):
                    return pid
    return None


def state(pid: int) -> bytes:
    """The letter of a process's state; b"" if it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        found = STATE.search(status.read(4096))
        return found[1] if found else b""
    return b""


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
