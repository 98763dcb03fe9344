"""Requests and responses of one byte between two network namespaces by UDP: the median time of one, run on a node.

Both ends are on one processor, so that what is told is work, and not how fast another processor wakes up.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import threading
import time
from typing import Any

PATIENCE = 20.0  # seconds, for what never comes
WARM = 500
CLONE_NEWNET = 0x40000000  # linux/sched.h


def main() -> None:
    """A request as JSON, an answer as JSON."""
    asked = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    server = _made(asked["to"], asked["target"])
    server.bind((asked["target"], 0))
    client = _made(asked["from"], asked["target"])
    client.connect(server.getsockname()[:2])
    total = asked["trips"] + WARM
    answering = threading.Thread(target=_answer, args=(server, total), daemon=True)
    answering.start()
    taken = []
    for _ in range(total):
        begin = time.perf_counter_ns()
        client.send(b"?")
        client.recv(1)
        taken.append(time.perf_counter_ns() - begin)
    answering.join(PATIENCE)
    print(json.dumps({"us": statistics.median(taken[WARM:]) / 1000}))


def _answer(server: socket.socket, total: int) -> None:
    for _ in range(total):
        _, caller = server.recvfrom(1)
        server.sendto(b"!", caller)


def _made(netns: str, target: str) -> socket.socket:
    """A socket in a namespace: it stays there when its thread has left."""
    made: list[socket.socket] = []

    def make() -> None:
        _enter(netns)
        made.append(socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM))

    worker: Any = threading.Thread(target=make)
    worker.start()
    worker.join()
    made[0].settimeout(PATIENCE)
    return made[0]


def _enter(netns: str) -> None:
    import ctypes

    with open(netns, "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            sys.exit(f"cannot enter {netns}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
