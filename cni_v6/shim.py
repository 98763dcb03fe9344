"""What the executables run: environment and stdin go to the engine, its answer to stdout. Parses nothing.

Start-up is the cost that decides, so nothing is imported on this path but what the interpreter has built in: ``posix``
and ``_socket`` for ``os`` and ``socket``; not even ``__future__``, which is a file like any other. Without an engine
the request is handled in this very process.

No wait is without an end: where an engine is stopped or hangs, the caller says so (``wire.ANSWER_SECONDS``). The kernel
keeps the time (``SO_RCVTIMEO``, ``SO_SNDTIMEO``, socket(7)), which a connection's attempt is bound by too.
"""

import _socket
import posix
from sys import argv, byteorder, maxsize

from cni_v6 import __version__, wire

RUN_DIR = b"/run/cni-v6"
OWN_NETNS = "/proc/self/ns/net"
SHARED_SOCKET = b"engine.sock"  # systemd's or a DaemonSet's; any other engine's name carries its namespace's inode

LONG = 8 if maxsize > 1 << 32 else 4  # bytes of either half of struct timeval

Answer = tuple[int, bytes, bytes]  # exit status, stdout, stderr


def main(plugin: str, answer_seconds: int = wire.ANSWER_SECONDS) -> int:
    """One call of a runtime, or a person who wants to know what this is.

    :param plugin: the executable's CNI type.
    :param answer_seconds: for an engine's answer.
    :returns: the exit status.
    """
    environment = posix.environ
    is_courier = argv[1:2] in (["--lost"], ["--silent"])  # courier/courier.c leaves it to us to say what went wrong
    is_first = argv[1:2] == ["--starting"] and argv[-1].isdigit()
    starting = int(argv[-1]) if is_first else -1  # a lock of the courier's, see ``engine.start.claim``
    if not is_courier and starting < 0 and (len(argv) > 1 or (b"CNI_COMMAND" not in environment and posix.isatty(0))):
        told = _tell(plugin, environment)
        if told is not None:
            _print(told)
            return told[0]
    stdin = _read(0, wire.stdin_bytes(environment.get(b"CNI_COMMAND", b"")) + 1)
    answer = None
    if is_courier:
        from cni_v6.engine.inprocess import for_courier

        answer = for_courier(argv[1:], stdin)
        if answer is not None:
            _print(answer)
            return answer[0]
    if environment.get(b"CNI_V6_ENGINE") != b"off" and not _refuses(stdin):
        answer = _ask(plugin, environment, stdin, answer_seconds, starting)
    if answer is None:
        from cni_v6.engine.inprocess import handle

        answer = handle(plugin, environment, stdin)
        _print(answer)
    return answer[0]


def _tell(plugin: str, environment: dict[bytes, bytes]) -> Answer | None:
    """The answer to a person; None for a runtime's call, whatever its arguments."""
    from cni_v6.engine import usage

    told = usage.answer(plugin, argv[1:], called=b"CNI_COMMAND" in environment)
    return None if told is None else (told[0], told[1].encode(), told[2].encode("utf-8", "backslashreplace"))


def _refuses(stdin: bytes) -> bool:
    """Whether the configuration says ``"engine": "off"``; only where the word occurs is it worth reading it."""
    if b'"engine"' not in stdin:
        return False
    from cni_v6.engine.inprocess import refuses_engine

    return refuses_engine(stdin)


def _ask(
    plugin: str, environment: dict[bytes, bytes], stdin: bytes, answer_seconds: int, starting: int
) -> Answer | None:
    """The engine's answer, printed and confirmed; None where the request has to be handled here."""
    inode = b"%d" % posix.stat(OWN_NETNS).st_ino
    connected = _connect(environment.get(b"CNI_V6_RUN_DIR", RUN_DIR), inode, environment, starting)
    if connected is None:
        return None
    connection, path = connected
    request = wire.pack(
        __version__.encode(), inode, plugin.encode(), wire.pack_environment(environment), stdin
    )
    if not _send(connection, request, environment.get(b"CNI_NETNS", b"")):
        connection.close()
        return None  # it cannot have begun: it never had the whole request
    try:
        word, code, stdout, stderr = wire.unpack_reply(_receive(connection, answer_seconds))
    except BlockingIOError:  # the time is over
        connection.close()  # before it is told: from here on nobody takes the answer, and an ADD is taken back
        return _silent(stdin, path, answer_seconds)
    except (OSError, ValueError):
        return _lost(stdin)
    if word == wire.HANDLE_LOCALLY:
        return None
    try:
        connection.send(wire.ACK)  # before it is printed: an engine that gave up waiting has taken an ADD back
    except OSError:
        return _lost(stdin)
    answer = (code, stdout, stderr)
    _print(answer)
    return answer


def _connect(
    run_dir: bytes, inode: bytes, environment: dict[bytes, bytes], starting: int
) -> tuple[_socket.socket, bytes] | None:
    """A connection to an engine, and the path of its socket."""
    own = run_dir + b"/engine-" + inode + b".sock"
    for path in (own, run_dir + b"/" + SHARED_SOCKET):
        connection = try_connect(path)
        if connection is not None:
            return connection, path
    if environment.get(b"CNI_COMMAND") in (None, b"VERSION"):
        return None  # nothing that an engine would make faster
    from cni_v6.engine.start import start

    connection = try_connect(own) if start(run_dir, own, starting) else None
    return (connection, own) if connection else None


def try_connect(path: bytes) -> _socket.socket | None:
    """A connection to the engine behind a socket, when it is one of the same user as this process."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _timeval(wire.ASK_SECONDS))
    try:
        connection.connect(path)
        credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # pid, uid, gid
    except OSError:
        connection.close()
        return None
    if int.from_bytes(credentials[4:8], byteorder) != posix.geteuid():
        connection.close()
        return None
    return connection


def _timeval(seconds: int) -> bytes:
    return seconds.to_bytes(LONG, byteorder) + bytes(LONG)


def _send(connection: _socket.socket, request: bytes, netns: bytes) -> bool:
    """Send a request, with the container's namespace as a descriptor where there is one. False: it did not arrive."""
    rights = []
    try:
        rights = [posix.open(netns, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)] if netns else []
    except OSError:
        pass  # a DEL after the namespace's end; otherwise the engine finds the same, and says so
    passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, byteorder) for fd in rights))]
    try:
        sent = connection.sendmsg([request], passed if rights else [])
        connection.sendall(request[sent:])
    except OSError:
        return False
    return True


def _receive(connection: _socket.socket, seconds: int) -> bytes:
    """The body of the answer.

    :raises BlockingIOError: where it does not come in time.
    """
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _timeval(seconds))
    data = connection.recv(1 << 16)  # nearly always all of it
    while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[: wire.HEADER]):
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _timeval(wire.ASK_SECONDS))
        part = connection.recv(1 << 20)
        if not part:
            raise ValueError("the engine is gone")
        data += part
    if len(data) > wire.HEADER + wire.body_length(data[: wire.HEADER]):
        raise ValueError("more than a reply")
    return data[wire.HEADER :]


def _lost(stdin: bytes) -> Answer:
    from cni_v6.engine.inprocess import lost_engine

    answer = lost_engine(stdin)
    _print(answer)
    return answer


def _silent(stdin: bytes, path: bytes, seconds: int) -> Answer:
    from cni_v6.engine.inprocess import silent_engine

    answer = silent_engine(stdin, path, seconds)
    _print(answer)
    return answer


def _print(answer: Answer) -> None:
    try:
        _write(2, answer[2])
    except OSError:
        pass  # stderr is closed, or its reader is gone: the log is lost, the result must not be
    _write(1, answer[1])


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[posix.write(descriptor, data) :]


def _read(descriptor: int, most: int) -> bytes:
    """All there is, but for what goes beyond ``most`` bytes: one too many is refused.

    Nothing where the descriptor is closed, and then the parser says what is missing.
    """
    parts = []
    try:
        while most > 0 and (part := posix.read(descriptor, min(most, 1 << 16))):
            parts.append(part)
            most -= len(part)
    except OSError:
        pass
    return b"".join(parts)
