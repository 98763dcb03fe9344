"""How much memory one call takes at most: ``memory.py`` with a call as JSON on standard input. Run as a program.

A child counts its parent's memory as its own until the kernel has run its exec (ru_maxrss, fs/exec.c), so the parent
must be small: a shell starts the call in the background and ends, and this process inherits the call's end.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
BACKGROUND = 'exec 3<&0; "$@" <&3 >/dev/null 2>&1 &'  # a shell gives a background job /dev/null unless told otherwise


def main() -> None:
    """Print the largest process's resident size in KiB, and the exit status."""
    call = json.load(sys.stdin)
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl refused PR_SET_CHILD_SUBREAPER")
    read, write = os.pipe()
    os.write(write, call["stdin"].encode())
    os.close(write)
    actions = [(os.POSIX_SPAWN_DUP2, read, 0)]
    shell = os.posix_spawn("/bin/sh", ["sh", "-c", BACKGROUND, "sh", *call["argv"]], call["env"], file_actions=actions)
    while True:
        process, status, usage = os.wait4(-1, 0)
        if process != shell:
            print(usage.ru_maxrss, os.waitstatus_to_exitcode(status))
            return


if __name__ == "__main__":
    main()
