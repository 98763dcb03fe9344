"""Runs other programs to their end, with a time limit, a limit for their output, and an end when the caller is gone.

``subprocess.run`` waits for the end of the output too. A daemon that the program left behind may hold the output open
for ever. After a timeout it waits again, for the output of the program's children.
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

from cni_v6.kernel.deadline import Patience, without_token

if TYPE_CHECKING:
    from subprocess import Popen

OUTPUT_BYTES = 1 << 20  # of stdout; a result has a few hundred
LOG_BYTES = 1 << 16  # of stderr; more is read and dropped
PART = 1 << 16
MOST_PARTS = (1 << 20) // PART  # that a pipe holds: fs.pipe-max-size, pipe(7)
KILL_SECONDS = 2.0  # from SIGKILL to the end; only a process that waits for a hanging disk takes longer


@dataclass(frozen=True, slots=True)
class Done:
    """A program's exit status (negative: the number of the signal that ended it) and its output."""

    status: int
    stdout: bytes
    stderr: bytes


class Stopped(Exception):
    """The program was killed. The message says why, as the rest of a sentence that begins with the program's name.

    ``logged``: what it had written to stderr.
    """

    logged = b""


def pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends; None before Linux 5.3."""
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
    """Run a program in its own session, so that it can be killed together with its children.

    :param seconds: its time limit; ``patience`` may shorten it.
    :param watch: see ``pidfd``.
    :raises OSError: it cannot be started.
    :raises Stopped: it was killed. ``patience`` has given up then.
    """
    from subprocess import PIPE, Popen  # imported here: it would slow down every start

    limit = patience.left(seconds)
    process = Popen(argv, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0, start_new_session=True)
    talk = _Talk(process, memoryview(stdin), watch(process.pid))
    try:
        with without_token():
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
    """Writes a process's stdin and reads its stdout and stderr at the same time: any of the pipes may be full."""

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
        """Wait until the process has ended. Output after its end is not read.

        :param seconds: the time limit.
        :param caller: reports POLLHUP when the caller is gone.
        :param after_caller: seconds that the process has after that.
        :raises Stopped: it has to be killed.
        """
        if caller is not None:
            self._poll.register(caller, 0)  # POLLHUP is always reported
        deadline = time.monotonic() + seconds
        late = f"did not end within {round(seconds, 1):g} seconds"
        ended = False
        while not ended and (self.end is not None or self._is_heard()):
            ready = [descriptor for descriptor, _ in self._poll.poll(_milliseconds(deadline))]
            if not ready or time.monotonic() > deadline:  # one that logs without end is always ready
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
            for _ in range(MOST_PARTS if name != "stdin" else 0):  # what it has left behind may write without end
                if not self._move(descriptor):
                    break

    def has_ended(self, seconds: float) -> bool:
        """Wait for the process; whether it ends in this time."""
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
        """Write or read some bytes; False if no more can be moved now."""
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
        except BrokenPipeError:  # the process does not read its stdin
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
    """Milliseconds from now to a deadline, which is in seconds of time.monotonic()."""
    return max(0.0, deadline - time.monotonic()) * 1000
