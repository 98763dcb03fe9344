"""Sysctls below ``net/``, read and written in a namespace; written only when different.

A key is a path such as ``ipv6/conf/eth0/accept_ra``: with slashes, since interface names may hold dots.
"""

from __future__ import annotations

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
    found = read(folders, key)
    if found == value:
        return
    wanted = f"net/{key}={value}"
    if found is None:
        raise CniError(IO_FAILURE, f"cannot set {wanted}", "the kernel has no such key; the interface may be gone")
    folder, name = _locate(folders, key)
    try:
        file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(file, value.encode())
        finally:
            os.close(file)
    except OSError as error:
        hint = f"{error.strerror}; it is {found}: set it on the node, or make /proc/sys writable for the plugin"
        raise CniError(IO_FAILURE, f"cannot set {wanted}", hint) from error


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
