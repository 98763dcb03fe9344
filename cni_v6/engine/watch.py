"""Sees to what others do to the node between calls: our firewall's rules changed or flushed, a bridge of ours deleted,
a port taken out of it.

The kernel tells of each; nobody looks without having heard. A thread of its own, as this may take locks: those of all
networks, for the firewall. What cannot be put right is said, and left to the next call, which looks for itself as long
as the watch is not sure.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from cni_v6.attachments import firewall_reload, repair
from cni_v6.attachments.context import Context
from cni_v6.errors import CniError
from cni_v6.firewall import shape
from cni_v6.firewall.shape import Table
from cni_v6.kernel.facts import Link
from cni_v6.kernel.netfilter.events import Change, Changes, own_changes
from cni_v6.kernel.questions import GetTables
from cni_v6.log import counted, few
from cni_v6.protocol import names

PAUSE_SECONDS = 0.2  # between two looks: what changes meanwhile is looked at once
# Somebody who takes our rules away whenever we load them: then they are loaded that often, and no more.
LOADS, LOADS_SECONDS, LONG_PAUSE_SECONDS = 5, 60.0, 10.0
# Somebody who takes a port out again so soon means it, or is a program that fights with us.
PORT_SECONDS = 10.0


class Watch:
    """
    :param make_context: the world, for one look; its kernel is closed after it.
    :param say: takes a line for the operator.
    """

    def __init__(self, make_context: Callable[[], Context], say: Callable[[str], None]) -> None:
        self._make_context = make_context
        self._say = say
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._bridges: deque[Link] = deque()
        self._ports: deque[str] = deque()
        self._plugged: dict[str, float] = {}  # ports that were plugged in again, and when
        self._wanted = False
        self._closing = threading.Event()
        self._changes: Changes | None = None
        self._is_sure = False
        self._known: tuple[Table, ...] = ()  # the tables as they were loaded
        self._odd: tuple[Table, ...] | None = None  # that differ just after they were loaded: it is no use to repeat it
        self._loads: deque[float] = deque(maxlen=LOADS)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @property
    def is_sure(self) -> bool:
        """Whether the firewall's rules are as they were loaded, or what differs will be seen to at once."""
        return self._is_sure

    def firewall(self) -> None:
        """Tables of ours are in use: watch them from now on. Once is enough."""
        if not self._wanted:
            self._wanted = True
            self._wake()

    def bridge_deleted(self, bridge: Link) -> None:
        """A bridge is gone, perhaps one of ours."""
        self._bridges.append(bridge)
        self._wake()

    def port_left(self, port: str) -> None:
        """An interface has left its bridge: perhaps a port of ours, perhaps because it ends."""
        self._ports.append(port)
        self._wake()

    def close(self) -> None:
        """Finish what is under way, and end."""
        self._closing.set()
        self._wake()
        self._thread.join()
        if self._changes:
            self._changes.close()
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1

    def _wake(self) -> None:
        with self._lock, suppress(BlockingIOError):  # it has been woken often enough
            if self._wake_write >= 0:  # news of links come to the end of the process
                os.write(self._wake_write, b".")

    # The thread

    def _run(self) -> None:
        own_changes()
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        self._guarded(self._find_out)
        while not self._closing.is_set():
            if self._wanted and not self._changes:
                self._guarded(lambda: self._subscribe(poll))
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._wake_read in ready:
                os.read(self._wake_read, 1 << 12)
            while self._bridges:
                self._guarded(lambda: self._restore(self._bridges.popleft()))
            while self._ports:
                self._guarded(lambda: self._plug_in(self._ports.popleft()))
            if self._changes and self._changes.fileno() in ready:
                self._guarded(self._look)
                self._is_sure = False  # nobody looks during the pause, so a call compares the tables itself
                self._closing.wait(self._pause())
                self._guarded(self._look)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Whatever fails, the watch goes on."""
        try:
            step()
        except Exception as error:
            self._is_sure = False
            self._say(f"looking at what has changed on the node failed: {type(error).__name__}: {error}")

    def _find_out(self) -> None:
        """An engine that starts may find tables of ours in use."""
        context = self._make_context()
        try:
            self._wanted = self._wanted or bool(context.kernel.observe([GetTables()]).tables())
        finally:
            context.kernel.close()

    def _subscribe(self, poll: select.poll) -> None:
        try:
            self._changes = Changes()
        except OSError as error:
            self._wanted = False  # the next call tries again
            self._say(f"changes of the firewall's rules are not heard of: {error}")
            return
        poll.register(self._changes.fileno(), select.POLLIN)
        self._look_at([])

    def _look(self) -> None:
        assert self._changes
        self._look_at(self._changes.read())

    def _look_at(self, changes: list[Change]) -> None:
        context = self._make_context()
        try:
            tables = context.kernel.observe([GetTables()]).tables()
            if tables == self._odd or not shape.differences(tables, self._known):
                self._known, self._is_sure = tables, True
                return
            self._is_sure = False
            self._put_right(changes, context)
        finally:
            context.kernel.close()

    def _put_right(self, changes: list[Change], context: Context) -> None:
        who = few([str(change) for change in dict.fromkeys(changes)]) or "somebody"
        try:
            differs, count = firewall_reload.put_right(context, self._known, self._say)
        except CniError as error:
            self._say(f"{who} changed the firewall's tables, and they cannot be loaded again: {error}")
            return
        if not differs:  # nobody needs them, or a call was faster
            return
        loaded = f"loaded again, with {counted(count, 'attachment')}"
        self._say(f"{who} changed the firewall's tables: {few(differs)}; {loaded}")
        self._loads.append(time.monotonic())
        tables = context.kernel.observe([GetTables()]).tables()
        left = shape.differences(tables)
        if left:
            self._odd = tables
            self._say(f"the firewall's tables differ as soon as they are loaded: {few(left)}")
        self._known, self._is_sure = tables, not left

    def _pause(self) -> float:
        often = len(self._loads) == LOADS and time.monotonic() - self._loads[0] < LOADS_SECONDS
        return LONG_PAUSE_SECONDS if often else PAUSE_SECONDS

    def _restore(self, bridge: Link) -> None:
        """Leave a bridge alone that somebody else made: he may be about to make it again, with settings of his own."""
        context = self._make_context()
        try:
            if bridge.mac == names.bridge_mac(bridge.name, context.id):
                for words in repair.restore(bridge.name, context):
                    self._say(words)
        finally:
            context.kernel.close()

    def _plug_in(self, port: str) -> None:
        now = time.monotonic()
        self._plugged = {name: since for name, since in self._plugged.items() if now - since < PORT_SECONDS}
        leave = f"again within {PORT_SECONDS:.0f} seconds: left alone" if port in self._plugged else ""
        context = self._make_context()
        try:
            for words in repair.plug_in(port, context, leave):
                self._plugged.setdefault(port, now)
                self._say(words)
        finally:
            context.kernel.close()
