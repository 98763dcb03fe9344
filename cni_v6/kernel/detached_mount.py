"""A file system mounted in no directory: fsopen(2), fsmount(2). Nobody else sees it, and nothing is left of it."""

from __future__ import annotations

import os

from cni_v6.kernel.netns.enter import failure, libc

# asm-generic/unistd.h, the same for every architecture; linux/mount.h
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
FSOPEN_CLOEXEC, FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC = 1, 6, 1
NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8


def mounted(filesystem: str) -> int:
    """A descriptor of the root of a new mount. The mount ends with the last descriptor of it or of a file in it.

    :raises OSError: the kernel has no such file system, or a security policy refuses it.
    """
    context = _call(FSOPEN, filesystem.encode(), FSOPEN_CLOEXEC)
    try:
        _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(FSMOUNT, context, FSMOUNT_CLOEXEC, NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)


def _call(*arguments: bytes | int | None) -> int:
    answer = int(libc().syscall(*arguments))
    if answer < 0:
        raise failure()
    return answer
