"""Network namespaces without a name, and sockets in them.

Such a namespace ends with the descriptor that its object holds, and so with this process, however that ends: nothing is
mounted, and the kernel deletes the interfaces that are in it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from threading import Thread
from typing import Protocol, TypeVar

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netns.enter import CLONE_NEWNET, OPEN_FLAGS, OWN, inside, libc
from cni_v6.kernel.ops import HOST

T = TypeVar("T")


class Place(Protocol):
    """A network namespace to open sockets in. ``path``: as in ``kernel.ops``."""

    @property
    def path(self) -> str: ...

    def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the namespace; what it opens stays in it."""
        ...


class Own:
    """The namespace of this process."""

    path = HOST

    def run(self, work: Callable[[], T]) -> T:
        """See ``Place``."""
        return work()


class Opened:
    """A namespace that somebody else has made."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, OPEN_FLAGS)
        self.path = path

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def run(self, work: Callable[[], T]) -> T:
        """See ``Place``."""
        return inside(self._file, work)


class Throwaway:
    """A namespace of our own. ``path`` leads to it for every process of the node, as long as this object is open."""

    def __init__(self) -> None:
        self._file = _made()
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"

    def __enter__(self) -> Throwaway:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def run(self, work: Callable[[], T]) -> T:
        """See ``Place``."""
        return inside(self._file, work)


def _made() -> int:
    """A descriptor of a new namespace: of a thread that ends at once."""
    found: list[int] = []

    def work() -> None:
        if libc().unshare(CLONE_NEWNET) == 0:
            found.append(os.open(OWN, OPEN_FLAGS))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    if not found:
        raise CniError(KERNEL_REFUSED, "cannot make a network namespace", "see sysctl user.max_net_namespaces")
    return found[0]


def open_socket(place: Place, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in a namespace, for use from any thread."""
    return place.run(lambda: socket.socket(family, kind, protocol))
