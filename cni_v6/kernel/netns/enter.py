"""Network namespaces: a thread enters one, takes what is needed, and comes back.

What it takes keeps belonging to the namespace in any thread: a netlink socket, and descriptors of folders of sysctls
(proc resolves one when it is opened, fs/proc/proc_sysctl.c, so a path relative to the descriptor stays in the
namespace). Only the thread that asks moves, for as long as that takes (setns(2)).

Sysctls are read and written from inside all the same. The kernel finds a cached name of a sysctl only for a thread of
its namespace (proc_sys_compare), so every access from outside would add a name to the cache, to be passed by in all
later ones: after some thousand containers that was most of an ADD.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from cni_v6.errors import INVALID_NETNS, IO_FAILURE, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel.netfilter.socket import NetfilterSocket, open_netfilter
from cni_v6.kernel.netlink.socket import RouteSocket, is_about, subscribe
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.sysctl import Folders

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNET = 0x40000000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in the place of a namespace would block
OWN = "/proc/thread-self/ns/net"
# linux/nsfs.h: _IO(0xb7, 3), since 4.11, and _IOR(0xb7, 13, __u64), since 6.18.
NS_GET_NSTYPE, NS_GET_ID = 0xB703, 0x8008B70D
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
T = TypeVar("T")


@dataclass(slots=True)
class Namespace:
    """An open namespace; ``file`` is its own descriptor."""

    path: str
    file: int
    route: RouteSocket
    sysctl: Folders = field(default_factory=Folders)
    _netfilter: NetfilterSocket | None = field(default=None, init=False)

    def netfilter(self) -> NetfilterSocket:
        """The firewall's socket, opened at its first use: not every network has one."""
        if self._netfilter is None:
            self._netfilter = open_netfilter() if self.path == HOST else _inside(self.file, open_netfilter)
        return self._netfilter

    def event_socket(self, group: int, index: int | None = None) -> socket.socket:
        """A netlink socket that hears a group's notifications (RTNLGRP_*) of this namespace.

        :param index: of the interface that they are to be about; None for all.
        """

        def opened() -> socket.socket:
            return subscribe(group, () if index is None else is_about(index))

        return opened() if self.path == HOST else _inside(self.file, opened)

    def with_sysctls(self, work: Callable[[Folders], None]) -> None:
        """Do something with its sysctls, in it: ``work`` gets the folders, and nothing else of the namespace."""
        if self.path == HOST:
            work(self.sysctl)
        else:
            _inside(self.file, lambda: work(self.sysctl))

    def close(self) -> None:
        self.route.close()
        if self._netfilter:
            self._netfilter.close()
        self.sysctl.close()
        os.close(self.file)


def open_namespace(path: str, given: int | None = None, work: Callable[[Folders], None] = lambda _: None) -> Namespace:
    """Open a namespace by its path; ``HOST`` is the caller's own.

    :param given: a descriptor of it that the caller has already, and keeps.
    :param work: to be done with its sysctls while we are in it.
    :raises CniError: UNKNOWN_CONTAINER where there is none, INVALID_NETNS where the file is something else.
    """
    file = _open_file(path, given)

    def take() -> Namespace:
        made = Namespace(path, file, RouteSocket(), Folders(at_once=path == HOST))
        try:
            work(made.sysctl)
        except BaseException:
            made.route.close()
            made.sysctl.close()
            raise
        return made

    try:
        return take() if path == HOST else _inside(file, take)
    except BaseException as error:
        os.close(file)
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EINVAL:
            raise CniError(INVALID_NETNS, f"CNI_NETNS {path} is not a network namespace", str(error)) from error
        raise CniError(IO_FAILURE, f"cannot enter network namespace {path}", str(error)) from error


def identity(path: str, given: int | None = None) -> tuple[int, int]:
    """(device, inode) of a namespace file; arguments and errors as of ``open_namespace``."""
    file = _open_file(path, given)
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    return status.st_dev, status.st_ino


def lasting_identity(path: str, given: int | None = None) -> tuple[int, int]:
    """(id, inode) of a namespace, which no other has or had since the node was started; arguments and errors as above.

    An inode is given again. A kernel that counts no ids (before 6.18) has the device in their place: ``nsfs_device``.
    Zeros for a file that is no network namespace.
    """
    file = _open_file(path, given)
    try:
        return lasting_identity_of(file)
    finally:
        os.close(file)


def lasting_identity_of(file: int) -> tuple[int, int]:
    """The same, of an open file."""
    status = os.fstat(file)
    if status.st_dev != nsfs_device() or fcntl.ioctl(file, NS_GET_NSTYPE) != CLONE_NEWNET:
        return 0, 0
    number = bytearray(8)
    try:
        fcntl.ioctl(file, NS_GET_ID, number)
    except OSError:
        return status.st_dev, status.st_ino
    return int.from_bytes(number, sys.byteorder), status.st_ino


@cache
def nsfs_device() -> int:
    """The device of every namespace's file."""
    return os.stat(OWN).st_dev


def _open_file(path: str, given: int | None) -> int:
    try:
        return os.dup(given) if given is not None else os.open(path or OWN, OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a zero byte, or not encodable
        if isinstance(error, OSError) and error.errno in SHORT:  # which says nothing of the container
            raise CniError(IO_FAILURE, f"cannot open network namespace {path}", str(error.strerror)) from error
        hint = f"{getattr(error, 'strerror', error)}; the container may have ended meanwhile"
        raise CniError(UNKNOWN_CONTAINER, f"cannot open network namespace {path}", hint) from error


def _inside(file: int, work: Callable[[], T]) -> T:
    """Do ``work`` in the namespace, and come back, whatever becomes of it. Nothing else of this thread moves along."""
    home = os.open(OWN, OPEN_FLAGS)
    try:
        _setns(file)
        try:
            return work()
        finally:
            come_back(home)
    finally:
        os.close(home)


def come_back(home: int) -> None:
    """Enter the namespace that a thread came from; one that cannot would go on in the wrong place, so its process ends.

    It needs no more than entering the other did, and memory for a few pointers (prepare_nsset, kernel/nsproxy.c). A
    call that is cut off so is one that was killed: its DEL takes away what it made.
    """
    try:
        _setns(home)
    except OSError as error:
        os.write(2, f"cni-v6: cannot come back from a container's network namespace: {error}\n".encode())
        os.abort()


def _setns(file: int) -> None:
    """setns(2) of the calling thread; Python has it from 3.12 on."""
    if sys.version_info >= (3, 12):
        os.setns(file, CLONE_NEWNET)
    else:
        import ctypes  # only where it is needed: it costs the start-up path milliseconds

        if libc().setns(file, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


@cache
def libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
