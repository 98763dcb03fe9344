"""Sysctls below ``net/``, read and written in a namespace; written only when different.

A key is a path such as ``ipv6/conf/eth0/accept_ra``: with slashes, since interface names may hold dots.
"""

from __future__ import annotations

import errno
import os

from cni_v6.errors import IO_FAILURE, CniError

ROOT = "/proc/sys/net/"
READ_BYTES = 4096
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBADF)  # the last: of a file that was opened to be read


class Unwritable(CniError):
    """A value is another one than wanted, and cannot be changed here. ``found``: what it is."""

    def __init__(self, key: str, value: str, found: str, words: str) -> None:
        hint = f"{words}; it is {found}: {beforehand(key, value)}, or make /proc/sys writable for the plugin"
        super().__init__(IO_FAILURE, f"cannot set net/{key}={value}", hint)


def beforehand(key: str, value: str) -> str:
    """What a person can set, of an interface that may not be there yet."""
    family, *rest = key.split("/")
    if len(rest) == 3 and rest[0] == "conf" and rest[1] not in ("all", "default"):
        default = f"net/{family}/conf/default/{rest[2]}={value}"
        return f"set {default} beforehand in its network namespace, for interfaces to come (this one: {rest[1]})"
    return "set it on the node"


class Folders:
    """``/proc/sys/net/ipv4`` and ``ipv6`` of one namespace, each opened at its first use by a thread that is in it.

    The kernel finds a folder's name in a list of those of all namespaces (``proc_sys_compare``), long on a node with
    many containers: none is opened that nobody asks for. A descriptor stays in its namespace.

    :param at_once: open both now: of the node's own, which an engine has for long, so that nothing depends on what is
        mounted later.
    """

    def __init__(self, root: str = ROOT, *, at_once: bool = False) -> None:
        self._root = root
        self._files: dict[str, int | None] = {}
        for family in ("ipv4", "ipv6") if at_once else ():
            self.get(family)

    def get(self, family: str) -> int | None:
        """The folder's descriptor; None where the kernel lacks the family."""
        if family not in self._files:
            try:
                self._files[family] = os.open(self._root + family, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._files[family] = None
        return self._files[family]

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files.clear()


def read(folders: Folders, key: str) -> str | None:
    """The value without its newline; None when the kernel has no such key."""
    folder, name = _locate(folders, key)
    if folder is None:
        return None
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return _text(os.read(file, READ_BYTES))
    finally:
        os.close(file)


def write(folders: Folders, key: str, value: str) -> None:
    """Write a value unless it is there already: on a read-only /proc/sys a right value is fine.

    :raises CniError: IO_FAILURE naming the key, the value wanted and the value found; ``Unwritable`` where it may not
        be written.
    """
    folder, name = _locate(folders, key)
    found = "not to be seen"
    file = None
    try:
        file = _open(name, folder)
        if file is None:
            words = "the kernel has no such key; the interface may be gone"
            raise CniError(IO_FAILURE, f"cannot set net/{key}={value}", words)
        found = _text(os.read(file, READ_BYTES))
        if found != value:  # at the start: a number is written as a whole (sysctl_writes_strict)
            os.pwrite(file, value.encode(), 0)
    except OSError as error:
        words = os.strerror(errno.EROFS if error.errno == errno.EBADF else error.errno or 0)
        if error.errno in READ_ONLY:
            raise Unwritable(key, value, found, words) from error
        raise CniError(IO_FAILURE, f"cannot set net/{key}={value}", f"{words}; it is {found}") from error
    finally:
        if file is not None:
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


def interfaces(folders: Folders) -> tuple[str, ...]:
    """The interfaces that have IPv6 settings, in order; () where the kernel has no IPv6."""
    folder = folders.get("ipv6")
    if folder is None:
        return ()
    conf = os.open("conf", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return tuple(sorted(set(os.listdir(conf)) - {"all", "default"}))
    finally:
        os.close(conf)


def _text(content: bytes) -> str:
    return content.decode().strip()


def _locate(folders: Folders, key: str) -> tuple[int | None, str]:
    family, _, name = key.partition("/")
    return folders.get(family), name
