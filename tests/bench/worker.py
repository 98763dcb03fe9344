"""Starts executables on a node the way a runtime does, and times each from exec to exit. Run as a program by ``node``.

It reads a block of calls as a line of JSON and answers with one. It imports little, so that it disturbs little.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from typing import Any

PIPE_BYTES = 1 << 20  # pipe(7): so much can be written before anyone reads, with F_SETPIPE_SZ
PIPE_USUAL = 1 << 16
PIECE = 1 << 16


def main() -> None:
    """Serve blocks until standard input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(Block(**json.loads(line)).run()), flush=True)


class Block:
    """Calls in the order they start, at most ``at_once`` of them at a time.

    :param calls: of each its executable and arguments, environment, input, and ``key``: calls of one never overlap.
    """

    def __init__(self, calls: list[dict[str, Any]], at_once: int) -> None:
        self._calls = calls
        self._at_once = at_once
        self._running: dict[int, tuple[int, int, int]] = {}  # process -> number, start in ns, the end of its output
        self._keys: dict[str, int] = {}  # key -> process
        self._done: list[dict[str, Any]] = [{} for _ in calls]

    def run(self) -> dict[str, Any]:
        """Seconds that the block took, and what became of each call."""
        begin = time.perf_counter()
        for number, call in enumerate(self._calls):
            while len(self._running) >= self._at_once or call["key"] in self._keys:
                self._reap()
            self._start(number, call)
        while self._running:
            self._reap()
        return {"seconds": time.perf_counter() - begin, "done": self._done}

    def _start(self, number: int, call: dict[str, Any]) -> None:
        feed = _filled(call["stdin"].encode())
        read, write = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, feed, 0), (os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        begin = time.perf_counter_ns()
        process = os.posix_spawn(call["argv"][0], call["argv"], call["env"], file_actions=actions)
        os.close(feed)
        os.close(write)
        self._running[process] = number, begin, read
        self._keys[call["key"]] = process

    def _reap(self) -> None:
        process, status, usage = os.wait4(-1, 0)
        end = time.perf_counter_ns()
        number, begin, read = self._running.pop(process)
        del self._keys[self._calls[number]["key"]]
        output = _rest(read)  # to its end: whatever keeps it open would keep a runtime waiting too
        code = os.waitstatus_to_exitcode(status)
        self._done[number] = {
            "ms": (end - begin) / 1e6, "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1e3,
            "code": code, "output": output.decode(errors="replace") if code else "",
        }


def _filled(data: bytes) -> int:
    """The reading end of a pipe with this in it, and nothing after it."""
    if len(data) > PIPE_BYTES:
        raise ValueError(f"{len(data)} bytes of input do not fit a pipe")
    read, write = os.pipe()
    if len(data) > PIPE_USUAL:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.write(write, data)
    os.close(write)
    return read


def _rest(read: int) -> bytes:
    data = b""
    while piece := os.read(read, PIECE):
        data += piece
    os.close(read)
    return data


if __name__ == "__main__":
    main()
