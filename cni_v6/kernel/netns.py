"""Network namespaces: opened by a short-lived thread that enters, takes what is needed, and ends.

What it takes keeps belonging to the namespace in any thread: a netlink socket, and descriptors of
``/proc/sys/net/ipv4`` and ``ipv6`` (proc resolves a sysctl folder when it is opened, fs/proc/proc_sysctl.c, so a path
relative to the descriptor stays in the namespace). No other thread ever moves.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cni_v6.errors import INVALID_NETNS, IO_FAILURE, UNKNOWN_CONTAINER, CniError
from cni_v6.kernel.rtnl import RouteSocket
from cni_v6.ops import HOST

CLONE_NEWNET = 0x40000000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in the place of a namespace would block
OWN = "/proc/thread-self/ns/net"
SYSCTL = "/proc/sys/net/"
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

    def event_socket(self, group: int) -> socket.socket:
        """A netlink socket that hears one group of notifications (RTNLGRP_*, linux/rtnetlink.h) of this namespace."""

        def subscribe() -> socket.socket:
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            events.bind((0, 1 << (group - 1)))
            return events

        return subscribe() if self.path == HOST else _inside(self.file, subscribe)

    def close(self) -> None:
        self.route.close()
        for descriptor in (self.file, *self.sysctl.values()):
            os.close(descriptor)


def open_namespace(path: str, given: int | None = None) -> Namespace:
    """Open a namespace by its path; ``HOST`` is the caller's own.

    :param given: a descriptor of it that the caller has already, and keeps.
    :raises CniError: UNKNOWN_CONTAINER where there is none, INVALID_NETNS where the file is something else.
    """
    file = _open_file(path, given)
    try:
        route, sysctl = _take() if path == HOST else _inside(file, _take)
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
    failure: list[OSError] = []

    def run() -> None:
        try:
            _setns(file)
            outcome.append(work())
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _setns(file: int) -> None:
    """setns(2) of the calling thread; Python has it from 3.12 on."""
    if sys.version_info >= (3, 12):
        os.setns(file, CLONE_NEWNET)
        return
    import ctypes  # only where it is needed: it costs the start-up path milliseconds

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
