"""Deletes interfaces of the node, many at once, and returns at the kernel's notification of their deletion.

The kernel acknowledges an RTM_DELLINK after an RCU wait of about 20 ms. Its notification (RTNLGRP_LINK) comes after
less than 1 ms; by then the interface and its peer are gone from both namespaces. So one thread sends deletions and
waits for their acknowledgements, another one reads notifications, and a notification lets its caller continue.
Deletions that arrive while the kernel waits go out together, as one link group: the wait is the same for one or sixty.
"""

from __future__ import annotations

import errno
import queue
import sys
import threading
from collections.abc import Callable, Sequence

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.deadline import without_token
from cni_v6.kernel.facts import Link
from cni_v6.kernel.netlink import answers, requests, uapi
from cni_v6.kernel.netlink.socket import (
    RECEIVE_BYTES,
    RouteSocket,
    explain,
    is_link_deleted,
    new_group,
    split,
    subscribe,
)

PATIENCE_SECONDS = 30.0  # a busy kernel takes tenths of a second; after this time something is stuck
BRIDGE_KIND = b"bridge\0"  # in a message about a bridge: only a message with these bytes is read
RECEIVE_BUFFER = 8 << 20  # bytes; the notifications of a thousand interfaces take two megabytes


class _Waiting:
    """An interface for whose deletion a caller waits."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error = ""


class Reaper:
    """The engine's, for its whole life, in the network namespace of the thread that makes it.

    :param on_bridge: takes a bridge that somebody has deleted, in a thread that waits for nothing. Lost notifications
        are not made up for: the next call looks for itself.
    :param on_port: takes the name of an interface that has left its bridge, and may be about to end, in that thread.
    """

    def __init__(
        self, on_bridge: Callable[[Link], None] = lambda _: None, on_port: Callable[[str], None] = lambda _: None
    ) -> None:
        self._on_bridge = on_bridge
        self._on_port = on_port
        self._waiting: dict[int, _Waiting] = {}
        self._ours: set[int] = set()  # deleted by calls, until the kernel has told of it
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._route = RouteSocket()
        self._look = RouteSocket()
        self._events = subscribe((uapi.RTNLGRP_LINK,), is_link_deleted(), RECEIVE_BUFFER)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._delete, "reaper"), (self._listen, "reaper-events"))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait for deletions that were sent. The listening thread is a daemon thread: it ends with the process."""
        self._queue.put(None)
        self._threads[0].join()

    def remove(self, indices: Sequence[int]) -> None:
        """Delete interfaces by index; return when all are gone from both namespaces.

        :raises CniError: KERNEL_REFUSED with the kernel's error.
        """
        entries = []
        with self._lock:
            self._ours.update(indices)
            for index in indices:
                entry = self._waiting.setdefault(index, _Waiting())
                entries.append(entry)
        for index in indices:
            self._queue.put(index)
        with without_token():
            for index, entry in zip(indices, entries):
                if not entry.done.wait(PATIENCE_SECONDS):
                    entry.error = f"it is there after {PATIENCE_SECONDS:.0f} seconds"
                if entry.error:
                    raise CniError(KERNEL_REFUSED, f"cannot delete interface number {index}", entry.error)

    def _finish(self, index: int, error: str = "") -> None:
        with self._lock:
            entry = self._waiting.pop(index, None)
        if entry:
            entry.error = error
            entry.done.set()

    def _forget(self, indices: Sequence[int]) -> None:
        """Nothing is told of these that would be this call's doing."""
        with self._lock:
            self._ours.difference_update(indices)

    def _delete(self) -> None:
        while (first := self._queue.get()) is not None:
            indices = [first, *self._more()]
            try:
                answers = self._route.request(requests.deletion(indices, new_group()))
            except (CniError, OSError) as error:  # the thread must survive for later deletions
                self._refused(indices, str(error))
                continue
            if answers[-1].error in (0, errno.ENODEV):
                self._forget([index for index, answer in zip(indices, answers) if answer.error])  # gone before
                for index in indices:
                    self._finish(index)  # if the notification was lost, or is still to be read
            else:
                self._refused(indices, explain(answers[-1]))

    def _more(self) -> list[int]:
        """The deletions that have arrived while the kernel waited."""
        found: list[int] = []
        while not self._queue.empty():
            index = self._queue.get()
            if index is None:
                self._queue.put(None)
                break
            found.append(index)
        return list(dict.fromkeys(found))

    def _refused(self, indices: Sequence[int], words: str) -> None:
        print(f"cni-v6 engine: cannot delete interfaces {list(indices)}: {words}", file=sys.stderr, flush=True)
        self._forget(indices)
        for index in indices:
            self._finish(index, words)

    def _listen(self) -> None:
        while True:
            try:
                data = self._events.recv(RECEIVE_BYTES)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._look_again()
                    continue
                return
            for _, _, _, message in split(data):
                index = answers.index_of(message)
                if answers.family_of(message) == uapi.AF_BRIDGE:
                    if index not in self._ours:  # it goes with an interface that a call deletes
                        self._on_port(answers.name_of(message))
                    continue
                self._forget([index])
                self._finish(index)
                if BRIDGE_KIND in message and (link := answers.read_link(message)[0]).kind == "bridge":
                    self._on_bridge(link)

    def _look_again(self) -> None:
        """Notifications were lost: look up all interfaces that somebody waits for."""
        with self._lock:
            self._ours.intersection_update(self._waiting)
            indices = list(self._waiting)
        for index, answer in zip(indices, self._look.request([*map(requests.get_link_by_index, indices)])):
            if answer.error == errno.ENODEV:
                self._finish(index)
