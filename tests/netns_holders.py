"""Ways to keep a network namespace alive, and processes that do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.sandbox import COMMANDS

PRELUDE = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
path = sys.argv[1]
def wait():
    os.write(1, b"ready\\n")
    os.read(0, 1)
def call(name, *arguments):
    assert getattr(libc, name)(*arguments) == 0, os.strerror(ctypes.get_errno())
def mount(source, target, flags):
    call("mount", source.encode(), target.encode(), b"tmpfs", flags, None)
BIND, DETACH, NEWNET, NEWNS, FILES = 4096, 2, 0x40000000, 0x20000, 0x400
"""
WAIT = "wait()"
IN_A_THREAD = """
def enter():
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    call("setns", file, NEWNET)
    os.close(file)
    wait()
threading.Thread(target=enter).start()
"""
WITHOUT_ITS_FIRST_THREAD = IN_A_THREAD + """
libc.pthread_exit.argtypes = [ctypes.c_void_p]
libc.pthread_exit(None)
"""
OPEN = """
file = os.open(path, os.O_RDONLY)
wait()
"""
OPEN_IN_A_THREAD = """
def enter():
    call("unshare", FILES)
    file = os.open(path, os.O_RDONLY)
    wait()
threading.Thread(target=enter).start()
"""
MOUNTED_ELSEWHERE = """
mount("none", "/mnt", 0)
place = "/mnt/a name\\twith blanks"
os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
mount(path, place, BIND)
call("umount2", path.encode(), DETACH)
"""
ROOT_ELSEWHERE = MOUNTED_ELSEWHERE + """
os.chroot("/proc")
os.chdir("/")
"""
ELSEWHERE = ("unshare", "--mount", "--propagation", "private")


@contextmanager
def running(program: str, path: str, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that has told that it is ready; ``before``: commands that start it."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", PRELUDE + program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=COMMANDS,
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        process.communicate(b"\n")


@contextmanager
def stopped(path: str) -> Iterator[None]:
    with running(WAIT, path, "nsenter", f"--net={path}") as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


NETNS_HOLDERS: dict[str, Callable[[str], AbstractContextManager[object]]] = {
    "process": lambda path: running(WAIT, path, "nsenter", f"--net={path}"),
    "stopped process": stopped,
    "process in another pid namespace": lambda path: running(
        WAIT, path, "nsenter", f"--net={path}", "unshare", "--pid", "--fork"),
    "thread": lambda path: running(IN_A_THREAD, path),
    "thread whose process's first has ended": lambda path: running(WITHOUT_ITS_FIRST_THREAD, path),
    "descriptor": lambda path: running(OPEN, path),
    "descriptor of a thread": lambda path: running(OPEN_IN_A_THREAD, path),
    "mount elsewhere": lambda path: running(MOUNTED_ELSEWHERE + WAIT, path, *ELSEWHERE),
    "mount out of its process's sight": lambda path: running(ROOT_ELSEWHERE + WAIT, path, *ELSEWHERE),
}
