"""Network namespaces: opened by a short-lived thread that enters, takes what is needed, and ends.

What it takes keeps belonging to the namespace in any thread: a netlink socket, and descriptors of
``/proc/sys/net/ipv4`` and ``ipv6`` (proc resolves a sysctl folder when it is opened, fs/proc/proc_sysctl.c, so a path
relative to the descriptor stays in the namespace). No other thread ever moves.

Sysctls are read and written from inside all the same. The kernel finds a cached name of a sysctl only for a thread of
its namespace (proc_sys_compare), so every access from outside would add a name to the cache, to be passed by in all
later ones: after some thousand containers that was most of an ADD.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from cni_v6.errors import INVALID_NETNS, IO_FAILURE, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel.nfnl import NetfilterSocket, open_netfilter
from cni_v6.kernel.rtnl import RouteSocket, hear, is_about
from cni_v6.ops import HOST

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNET = 0x40000000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in the place of a namespace would block
OWN = "/proc/thread-self/ns/net"
SYSCTL = "/proc/sys/net/"
# linux/nsfs.h: _IO(0xb7, 3), since 4.11, and _IOR(0xb7, 13, __u64), since 6.18.
NS_GET_NSTYPE, NS_GET_ID = 0xB703, 0x8008B70D
T = TypeVar("T")


@dataclass(slots=True)
class Namespace:
    """An open namespace; ``file`` is its own descriptor, ``sysctl`` maps ``ipv4`` and ``ipv6`` to folder descriptors.

    A family the kernel lacks has no entry in ``sysctl``.
    """

    path: str
    file: int
    route: RouteSocket
    sysctl: dict[str, int]
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

        def subscribe() -> socket.socket:
            return hear(group, () if index is None else is_about(index))

        return subscribe() if self.path == HOST else _inside(self.file, subscribe)

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
        for descriptor in (self.file, *self.sysctl.values()):
            os.close(descriptor)


Folders = Mapping[str, int]


def open_namespace(path: str, given: int | None = None, work: Callable[[Folders], None] = lambda _: None) -> Namespace:
    """Open a namespace by its path; ``HOST`` is the caller's own.

    :param given: a descriptor of it that the caller has already, and keeps.
    :param work: to be done with its sysctls while we are in it.
    :raises CniError: UNKNOWN_CONTAINER where there is none, INVALID_NETNS where the file is something else.
    """
    file = _open_file(path, given)

    def take() -> tuple[RouteSocket, dict[str, int]]:
        route, folders = _take()
        work(folders)
        return route, folders

    try:
        route, sysctl = take() if path == HOST else _inside(file, take)
    except OSError as error:
        os.close(file)
        if error.errno == errno.EINVAL:
            raise CniError(INVALID_NETNS, f"CNI_NETNS {path} is not a network namespace", str(error)) from error
        raise CniError(IO_FAILURE, f"cannot enter network namespace {path}", str(error)) from error
    return Namespace(path, file, route, sysctl)


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
        hint = f"{getattr(error, 'strerror', error)}; the container may have ended meanwhile"
        raise CniError(UNKNOWN_CONTAINER, f"cannot open network namespace {path}", hint) from error


def _take() -> tuple[RouteSocket, dict[str, int]]:
    sysctl = {}
    for family in ("ipv4", "ipv6"):
        try:
            sysctl[family] = os.open(SYSCTL + family, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    return RouteSocket(), sysctl


def _inside(file: int, work: Callable[[], T]) -> T:
    """Run ``work`` in the namespace, in a thread of its own, and hand over what it returns or raises."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    ended = _thread.allocate_lock()

    def run() -> None:
        try:
            _setns(file)
            outcome.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            ended.release()

    ended.acquire()
    _thread.start_new_thread(run, ())  # threading.Thread also waits for the start: half of what entering costs
    ended.acquire()
    if failure:
        raise failure[0]
    return outcome[0]


def _setns(file: int) -> None:
    """setns(2) of the calling thread; Python has it from 3.12 on."""
    if sys.version_info >= (3, 12):
        os.setns(file, CLONE_NEWNET)
        return
    import ctypes  # only where it is needed: it costs the start-up path milliseconds

    if libc().setns(file, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
