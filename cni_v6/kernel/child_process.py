"""Other programs, run to their end: not for longer than a call can wait, nor for a caller that has gone, and without
keeping more of what they print than anybody can use.

``subprocess.run`` waits for the end of their output too, which a daemon that they leave behind may hold open for ever,
and after its timeout for that of their children.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cni_v6.kernel.deadline import Patience

if TYPE_CHECKING:
    from subprocess import Popen

OUTPUT_BYTES = 1 << 20  # of what is printed: a result has some hundred bytes
LOG_BYTES = 1 << 16  # of what goes to its stderr; more is read and dropped
PART = 1 << 16
KILL_SECONDS = 2.0  # from SIGKILL to the end; longer takes only who waits for a disk that does not answer


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended (negative: by a signal), and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


class Stopped(Exception):
    """It was ended by us; the words say why, as the end of a sentence that begins with its name.

    ``logged``: what it had written to its stderr.
    """

    logged = b""


def pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable at a process's end; None before Linux 5.3."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return None


def run(
    argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str], patience: Patience, seconds: float,
    watch: Callable[[int], int | None] = pidfd,
) -> Done:
    """Run a program in a session of its own, so that it can be ended with all that it has started.

    :param seconds: it may take, if the call can wait so long.
    :param watch: see ``pidfd``.
    :raises OSError: where it cannot be started.
    :raises Stopped: where it was ended; ``patience`` has given up then.
    """
    from subprocess import PIPE, Popen  # only where it is needed: the start-up path pays for every import

    limit = patience.left(seconds)
    process = Popen(argv, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0, start_new_session=True)
    talk = _Talk(process, memoryview(stdin), watch(process.pid))
    try:
        talk.hold(limit, patience.caller, patience.limits.gone)
    except Stopped as stopped:
        stopped.logged = bytes(talk.logged)
        patience.give_up()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        talk.has_ended(KILL_SECONDS)
        raise
    finally:
        talk.close()
    return Done(process.returncode, bytes(talk.printed), bytes(talk.logged))


@dataclass
class _Talk:
    """Feeds a process and listens to it, all at once: any of its pipes may be full."""

    process: Popen[bytes]
    left: memoryview
    end: int | None
    printed: bytearray = field(default_factory=bytearray)
    logged: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._poll = select.poll()
        self._pipes: dict[int, str] = {}
        for name, events in (("stdin", select.POLLOUT), ("stdout", select.POLLIN), ("stderr", select.POLLIN)):
            descriptor = getattr(self.process, name).fileno()
            os.set_blocking(descriptor, False)
            self._pipes[descriptor] = name
            self._poll.register(descriptor, events)
        if self.end is not None:
            self._poll.register(self.end, select.POLLIN)

    def close(self) -> None:
        for descriptor in tuple(self._pipes):
            self._drop(descriptor)
        if self.end is not None:
            os.close(self.end)

    def hold(self, seconds: float, caller: int | None, after_caller: float) -> None:
        """Until the process has ended; what it printed by then is all.

        :param after_caller: seconds that it has once the caller has gone.
        :raises Stopped: where it has to be ended.
        """
        if caller is not None:
            self._poll.register(caller, 0)  # POLLHUP is always told
        deadline = time.monotonic() + seconds
        late = f"did not end within {round(seconds, 1):g} seconds"
        ended = False
        while not ended and (self.end is not None or self._is_heard()):
            ready = [descriptor for descriptor, _ in self._poll.poll(_milliseconds(deadline))]
            if not ready:
                raise Stopped(late)
            if caller is not None and caller in ready:
                self._poll.unregister(caller)
                deadline = min(deadline, time.monotonic() + after_caller)
                late = "was ended: its caller has gone"
            for descriptor in ready:
                if descriptor in self._pipes:
                    self._move(descriptor)
            ended = self.end in ready
        if not self.has_ended(deadline - time.monotonic()):
            raise Stopped(late)
        for descriptor, name in tuple(self._pipes.items()):
            while name != "stdin" and self._move(descriptor):
                pass

    def has_ended(self, seconds: float) -> bool:
        """Whether the process ends in time."""
        from subprocess import TimeoutExpired

        if self.end is not None:
            poll = select.poll()
            poll.register(self.end, select.POLLIN)
            if poll.poll(max(0.0, seconds) * 1000):
                self.process.wait()
                return True
            return False
        try:
            self.process.wait(max(0.0, seconds))
        except TimeoutExpired:
            return False
        return True

    def _is_heard(self) -> bool:
        return any(name != "stdin" for name in self._pipes.values())

    def _move(self, descriptor: int) -> bool:
        """Pass some bytes on; False where there is no more to pass now."""
        name = self._pipes[descriptor]
        try:
            if name == "stdin":
                self.left = self.left[os.write(descriptor, self.left[:PART]) if self.left else 0 :]
                if not self.left:
                    self._drop(descriptor)
                return bool(self.left)
            part = os.read(descriptor, PART)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # it does not read its input
            part = b""
        if not part:
            self._drop(descriptor)
            return False
        self._take(name, part)
        return True

    def _take(self, name: str, part: bytes) -> None:
        if name == "stderr":
            self.logged += part[: LOG_BYTES - len(self.logged)]
            return
        self.printed += part
        if len(self.printed) > OUTPUT_BYTES:
            raise Stopped(f"printed more than {OUTPUT_BYTES} bytes")

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        getattr(self.process, self._pipes.pop(descriptor)).close()


def _milliseconds(deadline: float) -> float:
    """From now on, by time.monotonic()."""
    return max(0.0, deadline - time.monotonic()) * 1000
