"""``cni-v6ctl engine``: runs the engine in the foreground, for systemd (socket activation) or a DaemonSet; --stop."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterable
from typing import Any

from cni_v6.engine import start, suspect
from cni_v6.engine.metrics import VARIABLE, listen_on
from cni_v6.engine.server import Server
from cni_v6.errors import NODE_CONFLICT, TRY_AGAIN, CniError
from cni_v6.kernel.netns.enter import identity
from cni_v6.kernel.ops import HOST
from cni_v6.shim import SHARED_SOCKET
from cni_v6.wire import STOP_SECONDS

RUN_DIR = "/run/cni-v6"
FIRST_PASSED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def register(commands: Any) -> None:
    parser = commands.add_parser("engine", help="run the resident engine in the foreground")
    parser.add_argument(
        "--idle", type=float, default=0.0, metavar="SECONDS", help="end after so long without a call (0: never)"
    )
    parser.add_argument(
        "--metrics", default=os.environ.get(VARIABLE), metavar="ADDRESS:PORT",
        help=f"serve the metrics on a loopback address too, such as [::1]:9164 (default: ${VARIABLE})",
    )
    parser.add_argument("--stop", action="store_true", help="end the one that a call left behind, and wait for it")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace) -> int:
    path = own_socket()
    if chosen.stop:
        return stop(sockets())
    metrics = listen_on(chosen.metrics) if chosen.metrics else None
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return _passed(socket.socket(fileno=FIRST_PASSED), chosen.idle, metrics)
    try:
        claimed = start.claim(os.path.dirname(path), path)
    except OSError as error:
        raise CniError(NODE_CONFLICT, f"cannot listen at {os.fsdecode(path)}", str(error)) from error
    if claimed is None:
        words = f"an engine serves this network namespace already ({os.fsdecode(path)})"
        raise CniError(NODE_CONFLICT, words, "stop it first: it ends on SIGTERM when its calls are answered")
    listener, alive = claimed
    start.sign(alive)
    _serve(listener, path, chosen.idle, metrics)
    os.close(alive)
    return 0


def _passed(listener: socket.socket, idle: float, metrics: socket.socket | None) -> int:
    """Serve at systemd's socket. The kernel says that systemd listens: ``.alive`` says who serves."""
    alive = start.be_alive(os.fsencode(listener.getsockname()))
    if alive is not None:
        start.sign(alive)
    _serve(listener, None, idle, metrics)
    return 0


def own_socket() -> bytes:
    """The path of the socket of this network namespace's engine."""
    folder = os.fsencode(os.environ.get("CNI_V6_RUN_DIR", RUN_DIR))
    return folder + b"/engine-%d.sock" % identity(HOST)[1]


def sockets() -> tuple[bytes, bytes]:
    """Where an engine of this network namespace may listen: at its own socket, and at systemd's."""
    own = own_socket()
    return own, os.path.join(os.path.dirname(own), SHARED_SOCKET)


def _serve(listener: socket.socket, path: bytes | None, idle: float, metrics: socket.socket | None) -> None:
    try:
        server = Server(listener, path=path, idle=idle, metrics=metrics)
    except BaseException:
        start.give_back(listener, path)
        raise
    server.run()


def stop(paths: Iterable[bytes], seconds: float = STOP_SECONDS) -> int:
    """Stop the engines that listen at sockets, and tell it; returns the exit status. Errors as of ``end``."""
    found = end(paths, seconds)
    print("the engine has ended" if found else "no engine serves this network namespace")
    return 0


def end(paths: Iterable[bytes], seconds: float = STOP_SECONDS) -> bool:
    """Stop the engines that listen at sockets; whether there was one.

    :raises CniError: TRY_AGAIN if one has not ended after this number of seconds; NODE_CONFLICT if signalling it fails.
    """
    return any([_end(path, seconds) for path in paths])


def _end(path: bytes, seconds: float) -> bool:
    try:
        return start.stop(path, seconds)
    except TimeoutError as error:
        raise CniError(TRY_AGAIN, f"cannot stop the engine: {error}", suspect.advice(path)) from error
    except (OSError, ValueError) as error:
        raise CniError(NODE_CONFLICT, f"cannot stop the engine at {os.fsdecode(path)}", str(error)) from error
