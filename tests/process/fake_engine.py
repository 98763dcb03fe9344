"""An engine that says whatever a test wants: to the shim and to the courier, which must then do the same."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cni_v6 import wire
from tests.sandbox import TIMEOUT

DEAF = "deaf"  # in place of a reply: it hangs up without having read the request
HANGS = "hangs"  # among a reply's parts: it says no more, until the caller gives up


@dataclass(frozen=True)
class Heard:
    """What an engine had of a caller: the request, the inode of the file that came with it, the confirmation."""

    request: bytes
    passed: int | None
    taken: bytes


@dataclass(frozen=True)
class Call:
    """A caller's whole surroundings. ``stdin`` is a file's content, None for a stream that is closed."""

    env: Mapping[str, str]
    stdin: bytes | None = b"{}"


@dataclass(frozen=True)
class Outcome:
    """What a caller wrote, how it ended, and what the engine heard of it at first."""

    stdout: bytes
    stderr: bytes
    code: int
    heard: Heard | None


@dataclass
class FakeEngine:
    """Listens where an engine of this network namespace listens, with ``folder`` for CNI_V6_RUN_DIR."""

    folder: Path
    name: str = field(default_factory=lambda: f"engine-{os.stat('/proc/self/ns/net').st_ino}.sock")
    heard: list[Heard] = field(default_factory=list)

    @contextmanager
    def answering(self, parts: Sequence[bytes | str]) -> Iterator[list[Heard]]:
        """Answer every caller with these bytes, sent one part after the other, until the block ends."""
        path = self.folder / self.name
        heard: list[Heard] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener, parts, heard))
            thread.start()
            try:
                yield heard
            finally:
                listener.shutdown(socket.SHUT_RD)  # accept(2) ends
                thread.join(TIMEOUT)
                path.unlink()
        assert not thread.is_alive(), "the engine still waits for its caller"

    def outcome(self, argv: Sequence[str], call: Call, parts: Sequence[bytes | str]) -> Outcome:
        """Have a program call this engine."""
        with self.answering(parts) as heard, _file(call.stdin) as stdin:
            closed = ["sh", "-c", 'exec 0<&- "$@"', "sh"] if call.stdin is None else []
            done = subprocess.run(
                [*closed, *argv], env=self.environment(call), stdin=stdin, capture_output=True, timeout=TIMEOUT,
                check=False,
            )
        return Outcome(done.stdout, done.stderr, done.returncode, heard[0] if heard else None)

    def environment(self, call: Call) -> dict[str, str]:
        """A call's, with what has Python not add a locale of its own (PEP 538), and nothing of the test's."""
        return {"CNI_V6_RUN_DIR": str(self.folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **call.env}

    @staticmethod
    def _serve(listener: socket.socket, parts: Sequence[bytes | str], heard: list[Heard]) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(TIMEOUT)
                    heard.append(_converse(connection, parts))


def _converse(connection: socket.socket, parts: Iterable[bytes | str]) -> Heard:
    if DEAF in parts:
        return Heard(b"", None, b"")
    request, passed = _request(connection)
    taken = b""
    with suppress(BrokenPipeError, ConnectionResetError):
        for part in parts:
            if isinstance(part, bytes):
                connection.sendall(part)
        if HANGS not in parts:
            connection.shutdown(socket.SHUT_WR)
        taken = connection.recv(1)
    return Heard(request, passed, taken)


def _request(connection: socket.socket) -> tuple[bytes, int | None]:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    inode = None
    for descriptor in descriptors:
        inode = os.fstat(descriptor).st_ino
        os.close(descriptor)
    while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[: wire.HEADER]):
        part = connection.recv(1 << 20)
        if not part:
            break
        data += part
    return data, inode


@contextmanager
def _file(content: bytes | None) -> Iterator[int]:
    descriptor = os.memfd_create("stdin")
    try:
        os.write(descriptor, content or b"")
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
