"""BIRD 2 on this node: the file that it includes, and its control socket, as ``birdc`` uses it.

A connection stays open, so that its end tells of BIRD's end; inotify(7) tells of a socket that appears, and of a file
that somebody else changes.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from contextlib import ExitStack, suppress

from cni_v6.cluster import files
from cni_v6.cluster.bird_messages import (
    CHECKED,
    IN_PROGRESS,
    NO_PROTOCOLS,
    QUEUED,
    RECONFIGURED,
    Reply,
    Running,
    read_protocols,
    read_reply,
)
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, CniError
from cni_v6.kernel import inotify

TIMEOUT_SECONDS = 5.0
REPLY_BYTES = 1 << 22  # of ten thousand protocols
ABSENT = (errno.ENOENT, errno.ECONNREFUSED)
CHANGES = (inotify.IN_CREATE | inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO
           | inotify.IN_DELETE)


class Bird:
    """
    :param file: what it includes. The folder is made, for all to read: BIRD has a user of its own.
    :param control: its control socket.
    :param seconds: after which it does not answer.
    """

    def __init__(self, file: str, control: str, seconds: float = TIMEOUT_SECONDS) -> None:
        self._file = file
        self._control = control
        self._seconds = seconds
        self._connection: socket.socket | None = None
        folder, name = os.path.split(file)
        self._aside = f"{folder}/.{name}.check"  # BIRD's patterns, such as *.conf, pass it over
        files.make_folder(folder, 0o755)
        with ExitStack() as undo, files.naming(folder):
            self._poll = select.epoll()
            undo.callback(self._poll.close)
            self._changes = inotify.watch_nothing()
            undo.callback(os.close, self._changes)
            self._poll.register(self._changes, select.EPOLLIN)
            self._listen()
            undo.pop_all()

    # News

    def fileno(self) -> int:
        return self._poll.fileno()

    def drain(self) -> bool:
        """Take all of it; whether BIRD has ended or begun, or the file may be another one."""
        own, found = (os.path.basename(self._file), os.path.basename(self._control), ""), False
        with suppress(BlockingIOError):
            while content := os.read(self._changes, inotify.READ_BYTES):
                found = found or any(os.fsdecode(name) in own for _, name in inotify.events(content))
        if self._connection and select.select([self._connection], [], [], 0)[0] and not self._receive():
            self._disconnect()
            found = True
        return found

    def close(self) -> None:
        self._disconnect()
        os.close(self._changes)
        self._poll.close()

    def _listen(self) -> None:
        """Watch both folders. That of the socket may be absent until BIRD has run, or be another one then."""
        for path in (self._file, self._control):
            with suppress(FileNotFoundError):
                inotify.add(self._changes, os.path.dirname(path), CHANGES)

    # What BIRD is asked and told

    def running(self) -> Running | None:
        with files.naming(self._control):
            self._listen()
        reply = self._ask("show protocols all")
        if reply is None:
            return None
        return read_protocols(self._accepted(reply, (0, NO_PROTOCOLS), "BIRD does not say what it does"))

    def read(self) -> str | None:
        content = files.read(self._file)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def check(self, text: str) -> None:
        files.replace(self._aside, text.encode())
        try:
            self._accepted(self._told(f'configure check "{self._aside}"'), (CHECKED,),
                           f"BIRD refuses what {self._file} would be, so it stays as it is")
        finally:
            files.remove(self._aside)

    def replace(self, text: str) -> None:
        files.replace(self._file, text.encode())

    def reload(self) -> bool:
        reply = self._accepted(
            self._told("configure"), (RECONFIGURED, IN_PROGRESS, QUEUED),
            "BIRD refuses its configuration, and goes on with the one before",
        )
        return reply.code == RECONFIGURED

    def _told(self, command: str) -> Reply:
        reply = self._ask(command)
        if reply is None:
            raise CniError(IO_FAILURE, f"cannot use {self._control}", "BIRD has just ended")
        return reply

    def _accepted(self, reply: Reply, codes: tuple[int, ...], words: str) -> Reply:
        """
        :raises CniError: INVALID_CONFIG for an answer with another code.
        """
        if reply.code not in codes:
            raise CniError(INVALID_CONFIG, words, reply.words)
        return reply

    # The connection

    def _ask(self, command: str) -> Reply | None:
        """The answer to a command; None if BIRD does not run.

        :raises CniError: IO_FAILURE.
        """
        known = self._connection is not None
        with files.naming(self._control):
            try:
                if not known and not self._connect():
                    return None
                assert self._connection
                self._connection.settimeout(self._seconds)
                self._connection.sendall(f"{command}\n".encode())
                return self._reply()
            except TimeoutError:
                self._disconnect()
                raise CniError(IO_FAILURE, f"BIRD does not answer at {self._control}",
                               f"within {self._seconds:g} seconds: is it stopped?") from None
            except (BrokenPipeError, ConnectionResetError):
                self._disconnect()
            except (OSError, CniError):
                self._disconnect()
                raise
        return self._ask(command) if known else None  # that BIRD has ended, but another one may run

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._connection = connection
        connection.settimeout(self._seconds)
        try:
            connection.connect(self._control)
        except OSError as error:
            self._disconnect()
            if error.errno in ABSENT:
                return False
            if error.errno == errno.EACCES:
                raise CniError(IO_FAILURE, f"cannot use {self._control}: permission denied",
                               "let the agent into the group of BIRD: SupplementaryGroups=bird in its unit") from None
            raise
        self._reply()  # who it is
        self._poll.register(connection, select.EPOLLIN)
        return True

    def _reply(self) -> Reply:
        assert self._connection
        data, end = b"", time.monotonic() + self._seconds
        while not data.endswith(b"\n") or (reply := read_reply(data)) is None:
            left = end - time.monotonic()
            if left <= 0:  # also for an answer that comes in small parts
                raise TimeoutError
            self._connection.settimeout(left)
            part = self._receive()
            if not part:
                raise ConnectionResetError
            data += part
            if len(data) > REPLY_BYTES:
                raise CniError(IO_FAILURE, f"cannot use {self._control}", "the answer has no end: is it BIRD's?")
        return reply

    def _receive(self) -> bytes:
        assert self._connection
        try:
            return self._connection.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()  # epoll forgets it
            self._connection = None
