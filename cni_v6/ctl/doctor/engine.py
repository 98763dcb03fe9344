"""Asks the engine of this node how it is, and looks for containers with CAP_NET_ADMIN."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from cni_v6 import __version__, wire
from cni_v6.ctl import screen
from cni_v6.engine import suspect
from cni_v6.kernel.netns.enter import identity
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.privilege import has_net_admin
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.data_dirs import RUN_DIR
from cni_v6.plan.health.engine import NONE, OTHER, SAME, SILENT, EngineFacts

ASK = wire.pack_environment({b"CNI_COMMAND": b"VERSION"})
CONFIG = b'{"cniVersion": "1.0.0"}'
SHARED = "engine.sock"  # systemd's or a DaemonSet's


def read() -> EngineFacts:
    """The engine of this network namespace, or a shared one."""
    folder = os.environ.get("CNI_V6_RUN_DIR", RUN_DIR)
    inode = identity(HOST)[1]
    own = f"{folder}/engine-{inode}.sock"
    paths = [path for path in (own, f"{folder}/{SHARED}") if os.path.exists(path)]
    problem = _problem(folder)
    for path in paths:
        answer = _ask(path, inode)
        if answer != NONE:
            pid = suspect.process(os.fsencode(path)) or 0
            return EngineFacts(path, answer, pid, _age(pid), problem, _stuck(pid), suspect.advice(os.fsencode(path)))
    return EngineFacts(own, run_dir_problem=problem)


def _problem(folder: str) -> str:
    """Why an engine would not use the run folder (``engine.start``), "" if it would or can make it."""
    try:
        status = os.lstat(folder)
    except OSError:
        return ""
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is no folder"
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to user {status.st_uid}"
    mode = stat.S_IMODE(status.st_mode)
    return f"{folder} has mode {mode:04o}, so that others may write to it" if mode & 0o022 else ""


def _ask(path: str, inode: int) -> str:
    """What the engine behind a socket says to VERSION."""
    request = wire.pack(__version__.encode(), b"%d" % inode, b"cni-v6", ASK, CONFIG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wire.ASK_SECONDS)
        try:
            connection.connect(path)
        except TimeoutError:
            return SILENT
        except OSError:  # nobody listens: it ended, and left its socket
            return NONE
        try:
            connection.sendall(request)
            data = b""
            while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[:wire.HEADER]):
                part = connection.recv(1 << 16)
                if not part:
                    return SILENT
                data += part
            word = wire.unpack_reply(data[wire.HEADER:])[0]
            connection.sendall(wire.ACK)
        except (OSError, ValueError):
            return SILENT
    return SAME if word == wire.DONE else OTHER


def _age(pid: int) -> str:
    """How long a process runs, from its start in ticks since the boot (proc(5), /proc/pid/stat, field 22)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = int(file.read().rpartition(b") ")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return ""
    return screen.age(time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def _stuck(pid: int) -> int:
    """The threads of a process in state D, uninterruptible sleep (proc(5))."""
    count = 0
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task") if pid else ():
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                count += file.read().rpartition(b") ")[2][:1] == b"D"
    return count


def privileged(records: Sequence[Attachment]) -> list[str]:
    """Containers with a process that has CAP_NET_ADMIN in this process's user namespace, which is the node's."""
    owners = {record.netns[1]: str(record.owner) for record in records if any(record.netns)}
    home = os.stat("/proc/self/ns/user").st_ino
    found: dict[str, str] = {}
    for pid in _processes() if owners else ():
        with suppress(OSError):
            owner = owners.get(os.stat(f"/proc/{pid}/ns/net").st_ino)
            if owner and os.stat(f"/proc/{pid}/ns/user").st_ino == home:
                with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                    if has_net_admin(file.read()):
                        found.setdefault(owner, f"{owner} (process {pid})")
    return sorted(found.values())


def _processes() -> Iterator[str]:
    yield from (name for name in os.listdir("/proc") if name.isdigit())
