"""An answer on its way to its caller, who may have gone."""

from __future__ import annotations

import select
import socket

from cni_v6 import wire
from cni_v6.engine.handle import Reply


def packed(reply: Reply) -> bytes:
    """As it goes to the caller."""
    return wire.pack(wire.DONE, b"%d" % reply.code, reply.stdout, reply.stderr.encode(errors="replace"))


def has_gone(caller: socket.socket) -> bool:
    """Whether the caller has closed its end: it told its runtime so, which may have called again meanwhile."""
    poll = select.poll()
    poll.register(caller, 0)  # POLLHUP is always told
    return bool(poll.poll(0))


def deliver(connection: socket.socket, reply: Reply) -> bool:
    """Send the answer; whether the caller confirmed that it has it. From a No on the caller can no longer confirm."""
    try:
        connection.sendall(packed(reply))
        try:
            return connection.recv(1) == wire.ACK
        except TimeoutError:
            connection.shutdown(socket.SHUT_RD)  # what it sends from here on fails; what it had sent is still there
            return connection.recv(1) == wire.ACK
    except OSError:
        return False
