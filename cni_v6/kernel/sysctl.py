"""Sysctls below ``net/``, read and written in a namespace; written only when different.

A key is a path such as ``ipv6/conf/eth0/accept_ra``: with slashes, since interface names may hold dots.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from cni_v6.errors import IO_FAILURE, CniError


def read(folders: Mapping[str, int], key: str) -> str | None:
    """The value without its newline; None when the kernel has no such key."""
    folder, name = _locate(folders, key)
    if folder is None:
        return None
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, 4096).decode().strip()
    finally:
        os.close(file)


def write(folders: Mapping[str, int], key: str, value: str) -> None:
    """Write a value unless it is there already: on a read-only /proc/sys a right value is fine.

    :raises CniError: IO_FAILURE naming the key, the value wanted and the value found.
    """
    folder, name = _locate(folders, key)
    wanted = f"net/{key}={value}"
    file = _open(name, folder)
    if file is None:
        raise CniError(IO_FAILURE, f"cannot set {wanted}", "the kernel has no such key; the interface may be gone")
    found = ""
    try:
        found = os.read(file, 4096).decode().strip()
        if found != value:  # at the start: a number is written as a whole (sysctl_writes_strict)
            os.pwrite(file, value.encode(), 0)
    except OSError as error:
        words = os.strerror(errno.EROFS) if error.errno == errno.EBADF else error.strerror
        hint = f"{words}; it is {found}: set it on the node, or make /proc/sys writable for the plugin"
        raise CniError(IO_FAILURE, f"cannot set {wanted}", hint) from error
    finally:
        os.close(file)


def _open(name: str, folder: int | None) -> int | None:
    """The file for reading and writing, or for reading alone where nothing can be written; None: there is none."""
    if folder is None:
        return None
    try:
        return os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)


def interfaces(folders: Mapping[str, int]) -> tuple[str, ...]:
    """The interfaces that have IPv6 settings, in order; () where the kernel has no IPv6."""
    if "ipv6" not in folders:
        return ()
    conf = os.open("conf", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folders["ipv6"])
    try:
        return tuple(sorted(set(os.listdir(conf)) - {"all", "default"}))
    finally:
        os.close(conf)


def _locate(folders: Mapping[str, int], key: str) -> tuple[int | None, str]:
    family, _, name = key.partition("/")
    return folders.get(family), name
