"""Network namespaces: a thread enters one, opens what is needed, and comes back.

The opened descriptors belong to the namespace in any thread: a netlink socket, and sysctl folders. proc resolves a
folder when it is opened (fs/proc/proc_sysctl.c), so a path relative to its descriptor stays in the namespace. Only the
calling thread changes its namespace, during the visit (setns(2)).

Sysctls are read and written from inside the namespace all the same. A sysctl name in the kernel's cache matches only
for a thread of its namespace (proc_sys_compare). Each access from outside would add a name to the cache, and every
later access would have to pass it. After a few thousand containers that was most of an ADD's time.
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
from cni_v6.kernel.sysctl import Folders, Proc

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNET = 0x40000000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # opening a fifo would block otherwise
OWN = "/proc/thread-self/ns/net"
# linux/nsfs.h: _IO(0xb7, 3), since 4.11, and _IOR(0xb7, 13, __u64), since 6.18.
NS_GET_NSTYPE, NS_GET_ID = 0xB703, 0x8008B70D
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
T = TypeVar("T")


@dataclass(slots=True)
class Namespace:
    """An open namespace. ``file``: a descriptor of the namespace itself.

    ``home``: a descriptor of the namespace in which the threads are that use it, to come back to; None to open it for
    each visit.
    """

    path: str
    file: int
    route: RouteSocket
    sysctl: Folders = field(default_factory=Folders)
    home: int | None = None
    _netfilter: NetfilterSocket | None = field(default=None, init=False)
    _identity: tuple[int, int] | None = field(default=None, init=False)

    def identity(self) -> tuple[int, int]:
        """See ``lasting_identity``. Asked once: what is open stays the same namespace."""
        if self._identity is None:
            self._identity = lasting_identity_of(self.file)
        return self._identity

    def netfilter(self) -> NetfilterSocket:
        """The netfilter socket, opened at its first use: not every network has a firewall."""
        if self._netfilter is None:
            self._netfilter = open_netfilter() if self.path == HOST else inside(self.file, open_netfilter, self.home)
        return self._netfilter

    def event_socket(self, group: int, index: int | None = None) -> socket.socket:
        """A netlink socket for the notifications of a group (RTNLGRP_*) in this namespace.

        :param index: of the interface whose notifications are wanted; None for all.
        """

        def opened() -> socket.socket:
            return subscribe((group,), () if index is None else is_about(index))

        return opened() if self.path == HOST else inside(self.file, opened, self.home)

    def with_sysctls(self, work: Callable[[Folders], None]) -> None:
        """Run ``work`` with the sysctl folders, inside the namespace. It must use nothing else of the namespace."""
        if self.path == HOST:
            work(self.sysctl)
        else:
            inside(self.file, lambda: work(self.sysctl), self.home)

    def close(self) -> None:
        self.route.close()
        if self._netfilter:
            self._netfilter.close()
        self.sysctl.close()
        os.close(self.file)


def open_namespace(
    path: str,
    given: int | None = None,
    work: Callable[[Folders], None] = lambda _: None,
    *,
    home: int | None = None,
    proc: Proc | None = None,
) -> Namespace:
    """Open a namespace by its path; ``HOST`` is the caller's own.

    :param given: a descriptor of it, if the caller has one. The caller closes it.
    :param work: run with the sysctl folders during the visit.
    :param home: as in ``Namespace``.
    :param proc: as in ``Folders``.
    :raises CniError: UNKNOWN_CONTAINER if the path does not exist, INVALID_NETNS if it is not a network namespace,
        IO_FAILURE.
    """
    file = _open_file(path, given)

    def take() -> Namespace:
        made = Namespace(path, file, RouteSocket(), Folders(at_once=path == HOST, proc=proc), home)
        try:
            work(made.sysctl)
        except BaseException:
            made.route.close()
            made.sysctl.close()
            raise
        return made

    try:
        return take() if path == HOST else inside(file, take, home)
    except BaseException as error:
        os.close(file)
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EINVAL:
            raise CniError(INVALID_NETNS, f"CNI_NETNS {path} is not a network namespace", str(error)) from error
        raise CniError(IO_FAILURE, f"cannot enter network namespace {path}", str(error)) from error


def identity(path: str, given: int | None = None) -> tuple[int, int]:
    """(device, inode) of a namespace file; arguments and errors as for ``open_namespace``."""
    file = _open_file(path, given)
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    return status.st_dev, status.st_ino


def lasting_identity(path: str, given: int | None = None) -> tuple[int, int]:
    """(id, inode) of a namespace, unique since the node booted; arguments and errors as for ``open_namespace``.

    The kernel reuses inodes, but not ids. Before Linux 6.18 there are no ids: the first value is the device
    (``nsfs_device``). (0, 0) if the file is not a network namespace.
    """
    if given is not None:
        return lasting_identity_of(given)
    file = _open_file(path, given)
    try:
        return lasting_identity_of(file)
    finally:
        os.close(file)


def lasting_identity_of(file: int) -> tuple[int, int]:
    """As ``lasting_identity``, for an open file."""
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
    """The device number of all namespace files."""
    return os.stat(OWN).st_dev


def _open_file(path: str, given: int | None) -> int:
    try:
        return os.dup(given) if given is not None else os.open(path or OWN, OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: the path has a zero byte, or cannot be encoded
        if isinstance(error, OSError) and error.errno in SHORT:  # the container may well exist
            raise CniError(IO_FAILURE, f"cannot open network namespace {path}", str(error.strerror)) from error
        hint = f"{getattr(error, 'strerror', error)}; the container may have ended meanwhile"
        raise CniError(UNKNOWN_CONTAINER, f"cannot open network namespace {path}", hint) from error


def inside(file: int, work: Callable[[], T], home: int | None = None) -> T:
    """Run ``work`` in the namespace and come back, even after an exception. Only the network namespace changes.

    :param file: a descriptor of the namespace.
    :param home: as in ``Namespace``.
    """
    back = os.open(OWN, OPEN_FLAGS) if home is None else home
    try:
        _setns(file)
        try:
            return work()
        finally:
            come_back(back)
    finally:
        if back != home:
            os.close(back)


def come_back(home: int) -> None:
    """Enter the namespace that a thread came from. If it cannot, its process ends.

    Otherwise it would continue in the wrong namespace. Entering needs only memory for a few pointers (prepare_nsset,
    kernel/nsproxy.c). The effect is that of a kill: the DEL of the call removes what it made.
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
        if libc().setns(file, CLONE_NEWNET) != 0:
            raise failure()


@cache
def libc() -> ctypes.CDLL:
    import ctypes  # imported here: it would cost every start milliseconds

    return ctypes.CDLL(None, use_errno=True)


def failure(what: str = "") -> OSError:
    """The error of this thread's last call of ``libc``.

    :param what: what failed, before the kernel's words.
    """
    import ctypes

    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}" if what else os.strerror(code))
