"""One flow between two network namespaces, and what it takes: ``stream.py``, run by ``ways`` and ``flowtable``.

All of it is on one processor: sender, receiver, and what the kernel does between them. It works for a packet in the
time of whoever sends, or in that processor's ksoftirqd, so its CPU time is told from that of others on the machine.
With ``apart`` the receiver is on another processor, as in a cluster: for the time that passes, not for the CPU time.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path
from typing import Any

PIECE = bytes(1 << 20)
DATAGRAM = bytes(100)
WARM = 4 * len(PIECE)  # windows are open then, and neighbours known
PATIENCE = 20.0  # seconds, for what never comes
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def main() -> None:
    """A request as JSON, an answer as JSON. The two ends are this program again, each in its namespace."""
    asked = json.loads(sys.stdin.readline())
    print(json.dumps({"receive": receive, "send": send}[sys.argv[1]](asked) if len(sys.argv) > 1 else both(asked)))


def both(asked: dict[str, Any]) -> dict[str, float]:
    """
    :param asked: ``kind``, namespaces ``from`` and ``to``, ``source`` and ``target`` as address and port, ``amount``
        in pieces (TCP) or datagrams (UDP); ``apart``: where there are two processors; absent for no.
    :returns: ``seconds`` from the first byte sent to the last received, and ``cpu``, in seconds too.
    """
    processors = os.sched_getaffinity(0)
    cpu = max(processors)
    os.sched_setaffinity(0, {min(processors) if asked.get("apart") else cpu})
    thread = _ksoftirqd(cpu)
    receiver = _start("receive", asked["to"], asked)
    assert receiver.stdout
    receiver.stdout.readline()  # it listens
    os.sched_setaffinity(0, {cpu})
    begin = _spent(thread)
    sent = _answer(_start("send", asked["from"], asked))
    softirq = _spent(thread) - begin
    received = _answer(receiver)
    return {"seconds": sent["seconds"], "cpu": sent["cpu"] + received["cpu"] + softirq}


def receive(asked: dict[str, Any]) -> dict[str, float]:
    """The end that answers. Of UDP it reads the first datagram and the last; the kernel drops what its buffer cannot
    hold, the same for every way that packets took."""
    with _socket(asked, asked["target"]) as made:
        if asked["kind"] == "udp":
            print("ready", flush=True)
            _, caller = made.recvfrom(len(DATAGRAM))
            made.sendto(b"!", caller)
            sys.stdin.read()  # until the sender is through: without the socket, errors would come back
            return {"cpu": 0.0}
        made.listen()
        print("ready", flush=True)
        connection, _ = made.accept()
        with connection:
            connection.settimeout(PATIENCE)
            _take(connection, WARM)
            connection.sendall(b"!")
            begin = time.process_time()
            _take(connection, asked["amount"] * len(PIECE))
            spent = time.process_time() - begin
            connection.sendall(b"!")
    return {"cpu": spent}


def send(asked: dict[str, Any]) -> dict[str, float]:
    """The end that begins."""
    with _socket(asked, asked["source"]) as made:
        made.connect(tuple(asked["target"]))
        if asked["kind"] == "udp":
            made.send(DATAGRAM)
        else:
            made.sendall(bytes(WARM))
            # RST at the end: the next one has the same ports, without waiting for them.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.recv(1)
        begin, clock = time.process_time(), time.monotonic()
        if asked["kind"] == "udp":
            for _ in repeat(None, asked["amount"]):
                made.send(DATAGRAM)
        else:
            for _ in repeat(None, asked["amount"]):
                made.sendall(PIECE)
            made.recv(1)
        return {"cpu": time.process_time() - begin, "seconds": time.monotonic() - clock}


def _socket(asked: dict[str, Any], end: list[Any]) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in asked["target"][0] else socket.AF_INET, KINDS[asked["kind"]])
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(tuple(end))
    return made


def _take(connection: socket.socket, count: int) -> None:
    buffer = bytearray(len(PIECE))
    while count:
        read = connection.recv_into(buffer, min(count, len(buffer)))
        if not read:
            raise ConnectionError(f"{count} bytes did not come")
        count -= read


def _start(role: str, netns: str, asked: dict[str, Any]) -> subprocess.Popen[str]:
    argv = ["nsenter", f"--net={netns}", sys.executable, "-ISE", __file__, role]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdin
    print(json.dumps(asked), file=started.stdin, flush=True)
    return started


def _answer(process: subprocess.Popen[str]) -> dict[str, float]:
    said, _ = process.communicate()  # which ends its input
    if process.returncode:
        sys.exit(f"an end of the flow ended with {process.returncode}")
    answer: dict[str, float] = json.loads(said)
    return answer


def _ksoftirqd(cpu: int) -> Path:
    """The kernel's thread of a processor, which works off packets when there are too many at once."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if f"(ksoftirqd/{cpu})" in path.read_text(encoding="utf-8", errors="replace"):
                return path.with_name("schedstat")
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            pass
    raise LookupError(f"no ksoftirqd/{cpu}: not the machine's /proc")


def _spent(thread: Path) -> float:
    """Seconds on a processor so far (Documentation/scheduler/sched-stats.rst)."""
    return int(thread.read_text(encoding="ascii").split()[0]) / 1e9


if __name__ == "__main__":
    main()
