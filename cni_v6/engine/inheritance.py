"""Resets what an engine inherits from the process that started it: limits, priorities, control groups and more.

That process was started for one call; the engine serves all callers, for long. A value that cannot be changed (in a
user namespace, in a container) stays as it is, unless no engine can run with it.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from cni_v6.kernel.netns.enter import libc

UMASK = 0o077
FILES = 1 << 16
STACK_BYTES = 8 << 20  # of every thread; the usual default
UNLIMITED = (
    resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC,
    resource.RLIMIT_RSS,
)
# With a lower limit that cannot be raised, no engine starts: the callers handle their calls themselves.
LEAST = {
    resource.RLIMIT_NOFILE: ("open files", 512), resource.RLIMIT_STACK: ("stack size", 1 << 20),
    resource.RLIMIT_AS: ("address space", 1 << 30), resource.RLIMIT_DATA: ("data size", 1 << 29),
    resource.RLIMIT_FSIZE: ("file size", 1 << 26), resource.RLIMIT_CPU: ("cpu time", resource.RLIM_INFINITY),
}
PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by the interpreter itself, so that a write fails instead
# linux/ioprio.h. libc has no function for ioprio_set(2); its system call number depends on the architecture.
IOPRIO_WHO_PROCESS, IOPRIO_NONE = 1, 0
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "loongarch64": 30, "ppc64le": 273, "s390x": 282}
CGROUP = re.compile(r"^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2? ", re.MULTILINE)  # the mount point, proc_pid_mountinfo(5)


def drop_inherited() -> None:
    """Reset everything inherited but the control groups. The process must have only one thread.

    :raises OSError: a limit that cannot be raised is too low for an engine.
    """
    for step in _STEPS:
        with suppress(OSError, ValueError):
            step()
    for limit, (name, least) in LEAST.items():
        soft, hard = resource.getrlimit(limit)
        if not _covers(soft, least):
            raise OSError(f"an engine cannot live with its starter's limit of {name}: {soft}, which may not be raised")


def _signals() -> None:
    for number in signal.valid_signals() - set(PYTHONS):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _umask() -> None:
    os.umask(UMASK)


def _limits() -> None:
    _raise(resource.RLIMIT_NOFILE, FILES)
    _raise(resource.RLIMIT_STACK, STACK_BYTES)
    for limit in UNLIMITED:
        _raise(limit, resource.RLIM_INFINITY)
    threading.stack_size(STACK_BYTES)  # libc read the old limit when the process began


def _raise(limit: int, wanted: int) -> None:
    """Raise a limit to ``wanted``, or to the hard limit if that cannot be raised."""
    soft, hard = resource.getrlimit(limit)
    if _covers(soft, wanted):
        return
    if _covers(hard, wanted):
        resource.setrlimit(limit, (wanted, hard))
        return
    try:
        resource.setrlimit(limit, (wanted, wanted))
    except (OSError, ValueError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(limit, (hard, hard))


def _covers(has: int, wanted: int) -> bool:
    return has == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and has >= wanted)


def _priority() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def _disk_priority() -> None:
    number = IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        libc().syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_NONE)  # no I/O priority of its own: derived from nice


def _processors() -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _memory() -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("0")


def leave_control_groups() -> None:
    """Move to the root of each hierarchy: the caller's group may be limited, frozen, killed as a whole, or removed
    soon. For a thread of its own: the kernel waits for an RCU grace period (kernel/cgroup/cgroup.c,
    cgroup_threadgroup_rwsem), some ten milliseconds."""
    with suppress(OSError):
        for folder in _hierarchies():
            with suppress(OSError), open(f"{folder}/cgroup.procs", "wb", buffering=0) as file:
                file.write(b"0")  # 0 is the writing process (Documentation/admin-guide/cgroup-v2.rst)


def _hierarchies() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        yield from CGROUP.findall(file.read())


_STEPS: tuple[Callable[[], None], ...] = (
    _signals, _umask, _limits, _priority, _disk_priority, _processors, _memory,
)
