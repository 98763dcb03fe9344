"""Sends an answer to its caller, who may be gone."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import TYPE_CHECKING

from cni_v6 import wire

if TYPE_CHECKING:  # the node agent's metrics need none of that
    from cni_v6.engine.handle import Reply


def packed(reply: Reply) -> bytes:
    """A reply as a message."""
    return wire.pack(wire.DONE, b"%d" % reply.code, reply.stdout, reply.stderr.encode(errors="replace"))


def is_own(caller: socket.socket) -> bool:
    """Whether a connection is of this process's user."""
    credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def has_gone(caller: socket.socket) -> bool:
    """Whether the caller has closed its connection. Its runtime knows that it failed, and may have called again."""
    poll = select.poll()
    poll.register(caller, 0)  # POLLHUP is always reported
    return bool(poll.poll(0))


def deliver(connection: socket.socket, reply: Reply) -> bool:
    """Send the answer; return whether the caller confirmed it. After False, the caller can no longer confirm."""
    try:
        connection.sendall(packed(reply))
        try:
            return connection.recv(1) == wire.ACK
        except TimeoutError:
            connection.shutdown(socket.SHUT_RD)  # it can send nothing more; what it has sent can still be read
            return connection.recv(1) == wire.ACK
    except OSError:
        return False
