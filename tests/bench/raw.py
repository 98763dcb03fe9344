"""The engine's own time for an ADD, and the kernel's for the same changes: ``raw.py LIBRARY``, run by ``inside``.

The changes are the requests that one ADD of the engine sent, recorded as bytes, and its sysctls; they are sent again as
they are, in the same datagrams, on sockets that are open already, in a container of which only the namespace differs.
Questions are left out, and so is waiting for the port. In a fresh namespace the interface gets the same index again.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from cni_v6.engine import handle  # noqa: E402
from cni_v6.kernel import awaits, ops, sysctl  # noqa: E402
from cni_v6.kernel.link_deletion import Reaper  # noqa: E402
from cni_v6.kernel.linux import LinuxKernel  # noqa: E402
from cni_v6.kernel.netlink import requests, socket as netlink  # noqa: E402
from cni_v6.kernel.netlink.message import HEADER, Message  # noqa: E402
from cni_v6.kernel.netlink.socket import Answer, RouteSocket  # noqa: E402
from cni_v6.kernel.netns.enter import Namespace, open_namespace  # noqa: E402
from cni_v6.kernel.open_namespaces import Spaces  # noqa: E402
from cni_v6.kernel.ops import HOST, Op  # noqa: E402
from cni_v6.kernel.sysctl import Folders  # noqa: E402
from cni_v6.protocol.invocation import Request  # noqa: E402
from tests.bench.node import settle  # noqa: E402

NETNS_ATTRIBUTE = struct.pack("=HH", 8, 28)  # IFLA_NET_NS_FD (linux/if_link.h), followed by the descriptor
RTM_GET = 2  # of every four message types the third (linux/rtnetlink.h)
ANSWER_BYTES = 1 << 16


@dataclass(slots=True)
class Tape:
    """What an ADD changed: datagrams with the namespace they went to, and operations."""

    datagrams: list[tuple[str, list[Message]]] = field(default_factory=list)
    operations: list[Op] = field(default_factory=list)


class RecordingSocket(RouteSocket):
    """Passes requests on, and keeps those that change something."""

    def __init__(self, inner: RouteSocket, netns: str, tape: Tape) -> None:
        self._inner = inner
        self._netns = netns
        self._tape = tape

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        changes = [message for message in messages if message.type % 4 != RTM_GET]
        if changes:
            self._tape.datagrams.append((self._netns, changes))
        return self._inner.request(messages)

    def dump(self, message: Message, most: int = 0) -> Answer:
        return self._inner.dump(message, most)

    def close(self) -> None:
        self._inner.close()


class RecordingSpaces(Spaces):
    def __init__(self, host: Namespace, tape: Tape) -> None:
        super().__init__(replace(host, route=RecordingSocket(host.route, HOST, tape)))
        self._tape = tape

    def get(self, netns: str) -> Namespace:
        space = super().get(netns)
        if not isinstance(space.route, RecordingSocket):
            space.route = RecordingSocket(space.route, netns, self._tape)
        return space


class RecordingKernel(LinuxKernel):
    def __init__(self, host: Namespace, tape: Tape) -> None:
        super().__init__(RecordingSpaces(host, tape))
        self._tape = tape

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        self._tape.operations += operations
        return super().apply(self._tape.operations)


@dataclass(frozen=True, slots=True)
class Send:
    """One datagram of so many requests."""

    netns: str
    data: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Write:
    netns: str
    family: str
    name: str
    value: bytes


Step = Send | Write


def steps(tape: Tape) -> list[Step]:
    """Datagrams and sysctls in the order of the operations."""
    found: list[Step] = []
    datagrams = list(tape.datagrams)
    waits = awaits.AwaitPort, awaits.AwaitCarrier, awaits.AwaitReception
    operations = [operation for operation in tape.operations if not isinstance(operation, waits)]
    while operations:
        operation = operations[0]
        if isinstance(operation, ops.SetSysctl):
            family, _, name = operation.key.partition("/")
            found.append(Write(operation.netns, family, name, operation.value.encode()))
            del operations[0]
        else:
            netns, messages = datagrams.pop(0)
            found.append(Send(netns, b"".join(map(_encode, messages)), len(messages)))
            del operations[: len(messages)]
    assert not datagrams, "an operation sent more than it should"
    return found


def _encode(message: Message) -> bytes:
    body = message.body + b"\0" * (-len(message.body) % 4)
    flags = message.flags | netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
    return HEADER.pack(HEADER.size + len(message.body), message.type, flags, 1, 0) + body


def into(step: Step, netns: str, file: int) -> Step:
    """The same step for another container, whose namespace is open as ``file``."""
    moved = netns if step.netns != HOST else HOST
    if isinstance(step, Write):
        return replace(step, netns=moved)
    position = step.data.find(NETNS_ATTRIBUTE)
    if position < 0:
        return replace(step, netns=moved)
    position += len(NETNS_ATTRIBUTE)
    return replace(step, netns=moved, data=step.data[:position] + struct.pack("=I", file) + step.data[position + 4 :])


class Player:
    """Plays steps on raw sockets.

    :param spaces: open namespaces, the node's own and a container's, by path.
    """

    def __init__(self, spaces: dict[str, Namespace], sockets: dict[str, socket.socket]) -> None:
        self._spaces = spaces
        self._sockets = sockets

    def play(self, step: Step) -> float:
        """Seconds that it took; of a sysctl without the way into its namespace."""
        taken: list[float] = []
        if isinstance(step, Send):
            self._send(step, taken)
        else:
            self._spaces[step.netns].with_sysctls(lambda folders: self._write(step, folders, taken))
        return taken[0]

    def has(self, step: Step) -> bool:
        """Whether a sysctl has its value already: the engine does not write it then."""
        if isinstance(step, Send):
            return False
        found: list[str | None] = []
        self._spaces[step.netns].with_sysctls(
            lambda folders: found.append(sysctl.read(folders, f"{step.family}/{step.name}"))
        )
        return found == [step.value.decode()]

    def _write(self, step: Write, folders: Folders, taken: list[float]) -> None:
        begin = time.perf_counter()
        file = os.open(step.name, os.O_WRONLY, dir_fd=folders.get(step.family))
        os.write(file, step.value)
        os.close(file)
        taken.append(time.perf_counter() - begin)

    def _send(self, step: Send, taken: list[float]) -> None:
        begin = time.perf_counter()
        sent = self._sockets[step.netns]
        sent.send(step.data)
        missing = step.count
        while missing:
            data, offset = sent.recv(ANSWER_BYTES), 0
            while offset < len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                code = -struct.unpack_from("=i", data, offset + HEADER.size)[0]
                assert kind == netlink.NLMSG_ERROR and code in (0, errno.EEXIST), os.strerror(code)
                missing -= 1
                offset += (length + 3) & ~3
        taken.append(time.perf_counter() - begin)


class Comparison:
    """:param config: the network's, as of ``cni-v6``."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = json.dumps(config).encode()
        self._host = open_namespace(HOST)
        self._reaper = Reaper()
        self._socket = _route_socket()

    def record(self, netns: str) -> list[Step]:
        """The steps of one ADD; its container is taken away again."""
        tape = Tape()
        self._call("ADD", netns, RecordingKernel(self._host, tape))
        self.delete(netns)
        return steps(tape)

    def add(self, netns: str) -> float:
        """Milliseconds of the engine."""
        file = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)  # the engine gets it from the executable
        begin = time.perf_counter()
        self._call("ADD", netns, LinuxKernel(Spaces(self._host, {netns: file}), self._reaper))
        taken = time.perf_counter() - begin
        os.close(file)
        return taken * 1e3

    def delete(self, netns: str) -> None:
        self._call("DEL", netns, LinuxKernel(Spaces(self._host), self._reaper))
        settle()

    def replay(self, tape: Sequence[Step], netns: str) -> tuple[float, list[Step]]:
        """Milliseconds on raw sockets, and the steps that changed something; taken away again."""
        space = open_namespace(netns)
        inside = _in_namespace(netns)
        player = Player({HOST: self._host, netns: space}, {HOST: self._socket, netns: inside})
        moved = [into(step, netns, space.file) for step in tape]
        needed, taken = [], 0.0
        for original, step in zip(tape, moved):
            if not player.has(step):
                needed.append(original)
            taken += player.play(step)
        inside.close()
        [answer] = space.route.request([requests.delete_link(ops.DeleteLink(netns, "eth0"))])
        assert not answer.error, netlink.explain(answer)
        space.close()
        settle()
        return taken * 1e3, needed

    def _call(self, command: str, netns: str, kernel: LinuxKernel) -> None:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": Path(netns).name, "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
               "CNI_PATH": "/usr/lib/cni"}
        reply = handle.handle(Request("cni-v6", env, self._config), handle.real_context(kernel))
        assert not reply.code, reply.stdout.decode() + reply.stderr


def _route_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _in_namespace(netns: str) -> socket.socket:
    """A socket of the namespace that hears no events."""
    space = open_namespace(netns)
    made = space.event_socket(1)
    made.setsockopt(netlink.SOL_NETLINK, 2, 1)  # NETLINK_DROP_MEMBERSHIP of RTNLGRP_LINK, linux/netlink.h
    space.close()
    return made


def main() -> None:
    asked = json.load(sys.stdin)
    comparison, pods = Comparison(asked["config"]), iter(asked["pods"])
    comparison.add(first := next(pods))  # the bridge, and everything that is imported late
    comparison.delete(first)
    tape = comparison.record(next(pods))
    _, tape = comparison.replay(tape, next(pods))
    own, raw = [], []
    for netns, other in zip(pods, pods):
        own.append(comparison.add(netns))
        comparison.delete(netns)
        raw.append(comparison.replay(tape, other)[0])
    requests = sum(step.count for step in tape if isinstance(step, Send))
    print(json.dumps({"own": own, "raw": raw, "requests": requests, "steps": len(tape)}))


if __name__ == "__main__":
    main()
