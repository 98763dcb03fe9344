"""The leases of the node's network, counted by blocks: the kernel tells of those that come and go (inotify(7)).

A lease is a file of the network's folder, with the name of the address (docs/design/leases.md). So nothing is locked,
and no file is read. All names are read at the start, and after news were lost. A container that comes or goes wakes the
agent only if it decides something: ``capacity.situation``.
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from cni_v6.cluster import blocks, files
from cni_v6.cluster.capacity import Used
from cni_v6.cluster.config import Pool
from cni_v6.kernel import inotify
from cni_v6.net.addresses import values

COME, GO = inotify.IN_CREATE | inotify.IN_MOVED_TO, inotify.IN_DELETE | inotify.IN_MOVED_FROM
LOST = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT | inotify.IN_Q_OVERFLOW | inotify.IN_IGNORED
CHANGES = COME | GO | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_ONLYDIR


class LeaseFolder:
    """
    :param path: of the network's folder. It is made for the first container.
    :param pools: whose blocks are counted.
    :param situation: of the node's blocks and the leases; when it is another one, that is news.
    """

    def __init__(
        self, path: str, pools: Sequence[Pool], situation: Callable[[Sequence[str], Used], object]
    ) -> None:
        self._path = os.path.abspath(path)
        self._pools = pools
        self._situation = situation
        self._own: Sequence[str] = ()
        self._told: object = None  # the situation that the agent knows
        self._block_of: dict[str, str] | None = None  # lease -> block; None if that is not known
        self._is_there = False  # the folder, when the agent began to listen
        self._changes = -1
        self._poll = select.epoll()

    def fileno(self) -> int:
        return self._poll.fileno()

    def drain(self) -> bool:
        """Take all news; whether they are of importance. What cannot be counted is: the agent then says why."""
        self._take()
        return self._block_of is None or self._situation(self._own, self._count()) != self._told

    def used(self) -> Used | None:
        self._take()
        if self._block_of is None:
            return self.look()
        return self._count() if self._is_there else None

    def look(self) -> Used | None:
        self._block_of = None
        with files.naming(self._path):
            self._listen()
            names = os.listdir(self._path) if self._is_there else []
        self._block_of = {}
        for name in names:
            self._come(name)
        return self._count() if self._is_there else None

    def attend(self, own: Sequence[str]) -> None:
        self._own = own
        self._told = self._situation(own, self._count())

    def close(self) -> None:
        self._end()
        self._poll.close()

    def _count(self) -> Used:
        return Counter((self._block_of or {}).values())

    def _come(self, name: str) -> None:
        for pool in self._pools:
            for value in values([name], pool.family):
                block = blocks.containing(pool, value)
                if block is not None and self._block_of is not None:
                    self._block_of[name] = block

    def _take(self) -> None:
        """Take what the kernel has told by now."""
        if self._changes < 0:
            return
        with suppress(BlockingIOError):
            while content := os.read(self._changes, inotify.READ_BYTES):
                for mask, name in inotify.events(content):
                    self._hear(mask, os.fsdecode(name))

    def _hear(self, mask: int, name: str) -> None:
        if mask & LOST or not self._is_there:
            self._block_of = None
        elif self._block_of is not None and mask & COME:
            self._come(name)
        elif self._block_of is not None:
            self._block_of.pop(name, None)

    def _listen(self) -> None:
        """Listen to the folder, or to the nearest one above it that is there. It may be another one than before."""
        self._end()
        self._changes = inotify.watch_nothing()
        self._poll.register(self._changes, select.EPOLLIN)
        folder, below = self._path, ""
        while not self._add(folder):
            folder, below = os.path.dirname(folder), folder
        self._is_there = folder == self._path
        if below and os.path.isdir(below):  # made in between
            self._listen()

    def _add(self, folder: str) -> bool:
        try:
            inotify.add(self._changes, folder, CHANGES)
        except FileNotFoundError:
            return False
        return True

    def _end(self) -> None:
        if self._changes >= 0:
            os.close(self._changes)  # epoll forgets it
            self._changes = -1
