"""Sysctls below ``net/``, read and written in a namespace; written only if the value differs.

A key is a path such as ``ipv6/conf/eth0/accept_ra``, with slashes, because an interface name may contain dots.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import Protocol

from cni_v6.errors import IO_FAILURE, CniError

ROOT = "/proc/sys/net/"
# A container's runtime makes its /proc/sys read-only. There the node's is mounted (deploy/kubernetes). Both show the
# sysctls of the namespace of the thread that looks (net/sysctl_net.c, net_ctl_header_lookup).
MOUNTED_ROOT = "/host/proc/sys/net/"
READ_BYTES = 4096
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBADF)  # EBADF: the file could only be opened for reading


class Unwritable(CniError):
    """A value differs from the wanted one and cannot be written. ``found``: the present value."""

    def __init__(self, key: str, value: str, found: str, words: str) -> None:
        hint = f"{words}; it is {found}: {beforehand(key, value)}, or make /proc/sys writable for the plugin"
        super().__init__(IO_FAILURE, f"cannot set net/{key}={value}", hint)


def beforehand(key: str, value: str) -> str:
    """The advice to set a value before the call; the interface may not exist yet."""
    family, *rest = key.split("/")
    if len(rest) == 3 and rest[0] == "conf" and rest[1] not in ("all", "default"):
        default = f"net/{family}/conf/default/{rest[2]}={value}"
        return f"set {default} beforehand in its network namespace, for interfaces to come (this one: {rest[1]})"
    return "set it on the node"


class Mounted(Protocol):
    """A mount of proc, while somebody has this object. ``file``: a descriptor of its root."""

    file: int


class Proc(Protocol):
    """Mounts of proc (``private_proc``), which an engine has."""

    def mount(self) -> Mounted | None:
        """The one to use this time; None for none."""
        ...


class Folders:
    """``/proc/sys/net/ipv4`` and ``ipv6`` of one namespace, each opened at its first use by a thread in the namespace.

    Each is opened only if needed: the kernel searches its name among those of all namespaces (``proc_sys_compare``),
    which takes long on a node with many containers. A descriptor stays in its namespace.

    :param root: the folder above them; "" for this machine's.
    :param at_once: open both now. For the node's own namespace, which an engine keeps open for long: later mounts must
        not matter.
    :param proc: where to open them instead, unless the folder above them is read-only: whoever made it so means us too.
    """

    def __init__(self, root: str = "", *, at_once: bool = False, proc: Proc | None = None) -> None:
        self._root = root or _root()
        self._proc = proc
        self._files: dict[str, int | None] = {}
        for family in ("ipv4", "ipv6") if at_once else ():
            self.get(family)

    def get(self, family: str) -> int | None:
        """The folder's descriptor; None if the kernel lacks the family."""
        if family not in self._files:
            try:
                self._files[family] = self._opened(family)
            except FileNotFoundError:
                self._files[family] = None
        return self._files[family]

    def _opened(self, family: str) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        mount = None
        if self._proc and not os.statvfs(self._root).f_flag & os.ST_RDONLY:
            mount = self._proc.mount()
        if mount:
            return os.open(f"sys/net/{family}", flags, dir_fd=mount.file)
        return os.open(self._root + family, flags)

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files.clear()


def read(folders: Folders, key: str) -> str | None:
    """The value without its newline; None if the kernel has no such key."""
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
    """Write a value unless the sysctl has it already. So a right value is no error on a read-only /proc/sys.

    :raises CniError: IO_FAILURE naming the key, the wanted value and the present one; ``Unwritable`` if the sysctl is
        read-only.
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
        if found != value:  # at offset 0, as sysctl_writes_strict requires
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
    """Open the file for reading and writing, or only for reading if it is read-only; None: it does not exist."""
    if folder is None:
        return None
    try:
        return os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)


def interfaces(folders: Folders) -> tuple[str, ...]:
    """The interfaces that have IPv6 settings, sorted; () if the kernel has no IPv6."""
    folder = folders.get("ipv6")
    if folder is None:
        return ()
    conf = os.open("conf", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return tuple(sorted(set(os.listdir(conf)) - {"all", "default"}))
    finally:
        os.close(conf)


@cache
def _root() -> str:
    return MOUNTED_ROOT if os.path.isdir(f"{MOUNTED_ROOT}core") else ROOT  # every kernel has it; an empty folder not


def _text(content: bytes) -> str:
    return content.decode().strip()


def _locate(folders: Folders, key: str) -> tuple[int | None, str]:
    family, _, name = key.partition("/")
    return folders.get(family), name
