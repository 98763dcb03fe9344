"""ADD and DEL over and over, straight to an engine: ``soak.py LIBRARY``, run on the engine's node by ``inside``.

Without executables, whose start is all that a soak would otherwise measure. Prints the engine's size as it goes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from cni_v6 import __version__, wire  # noqa: E402
from tests.bench.node import Size, settle, size  # noqa: E402

PARTS = 10
RUN_DIR = "/run/cni-v6"


class Client:
    """One caller after another, each with a connection of its own, as executables are."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = json.dumps(config).encode()
        self._inode = os.stat("/proc/self/ns/net").st_ino
        self._path = f"{RUN_DIR}/engine-{self._inode}.sock"

    def call(self, command: str, container: str, netns: str) -> None:
        env = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
        }
        packed = wire.pack_environment({key.encode(): value.encode() for key, value in env.items()})
        request = wire.pack(__version__.encode(), b"%d" % self._inode, b"cni-v6", packed, self._config)
        file = os.open(netns, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(self._path)
                socket.send_fds(connection, [request], [file])
                word, code, stdout, stderr = wire.unpack(_received(connection), 4)
                assert (word, code) == (wire.DONE, b"0"), f"{word!r} {stdout!r} {stderr!r}"
                connection.sendall(wire.TAKEN)
        finally:
            os.close(file)


def _received(connection: socket.socket) -> bytes:
    """The body of one message: the engine then waits for the confirmation."""
    data = b""
    while len(data) < wire.HEADER or len(data) < wire.HEADER + wire.body_length(data[: wire.HEADER]):
        part = connection.recv(1 << 16)
        assert part, "the engine is gone"
        data += part
    return data[wire.HEADER :]


def work(client: Client, netns: str, count: int, first: int) -> None:
    """Attach and detach one container after another in a namespace."""
    for number in range(first, first + count):
        name = f"{Path(netns).name}-{number}"
        client.call("ADD", name, netns)
        client.call("DEL", name, netns)


def main() -> None:
    asked = json.load(sys.stdin)
    client, pods = Client(asked["config"]), asked["pods"]
    sizes: list[Size] = []
    each = max(1, asked["count"] // (PARTS * len(pods)))
    with ThreadPoolExecutor(len(pods)) as pool:
        for part in range(PARTS):
            for done in [pool.submit(work, client, netns, each, part * each) for netns in pods]:
                done.result()
            settle()
            sizes.append(size(asked["engine"]))
    print(json.dumps({"sizes": [asdict(each) for each in sizes], "count": each * PARTS * len(pods)}))


if __name__ == "__main__":
    main()
