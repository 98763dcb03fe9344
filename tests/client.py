"""A caller of the engine without an executable: what a shim says on the socket, from the test's own process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from cni_v6 import __version__, wire


class Client:
    """One caller after another, each with a connection of its own, as executables are.

    :param path: the engine's socket.
    :param inode: of the node's network namespace, which the callers say they come from.
    """

    def __init__(self, path: str, inode: int, config: Mapping[str, Any]) -> None:
        self._path = path
        self._inode = inode
        self._config = json.dumps(config).encode()

    def call(self, command: str, container: str, netns: str, *, to_the_end: bool = False) -> Any:
        """One call that must succeed, for ``eth0``. Returns what it answers, None for nothing.

        :param to_the_end: return when the engine has nothing of this call open any more: it closes the connection last.
        """
        file = os.open(netns, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(self._path)
                socket.send_fds(connection, [self._request(command, container, netns)], [file])
                word, code, stdout, stderr = wire.unpack(_received(connection), 4)
                assert (word, code) == (wire.DONE, b"0"), f"{word!r} {stdout!r} {stderr!r}"
                connection.sendall(wire.ACK)
                assert not (to_the_end and connection.recv(1)), "it said more"
        finally:
            os.close(file)
        return json.loads(stdout) if stdout else None

    def _request(self, command: str, container: str, netns: str) -> bytes:
        env = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
        }
        packed = wire.pack_environment({key.encode(): value.encode() for key, value in env.items()})
        return wire.pack(__version__.encode(), b"%d" % self._inode, b"cni-v6", packed, self._config)


def _received(connection: socket.socket) -> bytes:
    """The body of one message: the engine then waits for the confirmation."""
    data = b""
    while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[: wire.HEADER]):
        part = connection.recv(1 << 16)
        assert part, "the engine is gone"
        data += part
    return data[wire.HEADER :]
