"""A rtnetlink socket that sends many requests in one datagram and reads all their answers.

Ours, not pyroute2's ``IPRoute``: that one keeps an event loop and a socket per thread, acts on another thread's
namespace when it is handed on, and waits for each acknowledgement before the next request.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cni_v6.kernel.message import HEADER, Message
from typing import Protocol

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_MULTI, NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x2, 0x10, 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
RECEIVE_BYTES = 1 << 18  # a dump fills at most 32 KiB a datagram (net/netlink/af_netlink.c), acknowledgements less
BATCH_BYTES = 1 << 16  # well below the default send buffer (net.core.wmem_default, 212,992)
BATCH_MESSAGES = 32  # their answers, up to 4 KiB each with the kernel's overhead, fit in the receive buffer (as large)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``error`` is 0 or an errno, ``text`` the kernel's own words, ``messages`` with their headers."""

    error: int = 0
    text: str = ""
    messages: tuple[bytes, ...] = ()


class Datagrams(Protocol):
    """What is used of a socket."""

    def send(self, data: bytes, /) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def _open() -> Datagrams:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    opened.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    return opened


class RouteSocket:
    """NETLINK_ROUTE in the namespace of the thread that makes it. Not for two threads at once.

    :param opened: what to talk through instead.
    """

    def __init__(self, opened: Datagrams | None = None) -> None:
        self._socket = opened or _open()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        """Send requests that are no dumps together, and return their answers in order.

        The kernel handles each one whatever became of the one before (netlink_rcv_skb).
        """
        answers: list[Answer] = []
        for batch in _batches(messages):
            answers += self._exchange(batch)
        return answers

    def dump(self, message: Message) -> Answer:
        """Send one dump and read it to its end; again when it changed meanwhile (NLM_F_DUMP_INTR)."""
        for _ in range(8):
            first = self._send([replace(message, flags=message.flags | NLM_F_DUMP)])
            answer, interrupted = self._read_dump(first)
            if not interrupted:
                break
        return answer

    def _exchange(self, messages: Sequence[Message]) -> list[Answer]:
        first = self._send(messages)
        collected: list[list[bytes]] = [[] for _ in messages]
        answers: dict[int, Answer] = {}
        while len(answers) < len(messages):
            for kind, _, sequence, data in self._receive():
                position = sequence - first
                if not 0 <= position < len(messages):
                    continue  # left over from a request somebody gave up on
                if kind == NLMSG_ERROR:
                    error, text = _error(data)
                    answers[position] = Answer(error, text, tuple(collected[position]))
                else:
                    collected[position].append(data)
        return [answers[position] for position in range(len(messages))]

    def _read_dump(self, sequence: int) -> tuple[Answer, bool]:
        collected: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, number, data in self._receive():
                if number != sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_ERROR:
                    error, text = _error(data)
                    return Answer(error, text), False
                if kind == NLMSG_DONE:
                    return Answer(messages=tuple(collected)), interrupted
                collected.append(data)

    def _send(self, messages: Sequence[Message]) -> int:
        first = self._sequence + 1
        self._sequence += len(messages)
        data = b"".join(_encode(message, first + position) for position, message in enumerate(messages))
        self._socket.send(data)
        return first

    def _receive(self) -> Iterable[tuple[int, int, int, bytes]]:
        return split(self._socket.recv(RECEIVE_BYTES))


def split(data: bytes) -> Iterable[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, the message with its header) of every message of a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def new_group() -> int:
    """A link group of nobody else's: administrators' are small numbers."""
    return int.from_bytes(os.urandom(4), "big") >> 1 | 1 << 30


def explain(answer: Answer) -> str:
    """What the kernel said, in words."""
    words = os.strerror(answer.error)
    return f"{words} ({answer.text})" if answer.text else words


def _encode(message: Message, sequence: int) -> bytes:
    length = HEADER.size + len(message.body)
    flags = message.flags | NLM_F_REQUEST | (0 if message.flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
    padding = b"\0" * (-length % 4)
    return HEADER.pack(length, message.type, flags, sequence, 0) + message.body + padding


def _batches(messages: Sequence[Message]) -> Iterable[list[Message]]:
    batch: list[Message] = []
    size = 0
    for message in messages:
        if batch and (size + len(message.body) > BATCH_BYTES or len(batch) == BATCH_MESSAGES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.body) + HEADER.size
    if batch:
        yield batch


def _error(data: bytes) -> tuple[int, str]:
    """errno and extended acknowledgement text of an NLMSG_ERROR (struct nlmsgerr, linux/netlink.h)."""
    _, _, flags, _, _ = HEADER.unpack_from(data)
    error, original = struct.unpack_from("=iI", data, HEADER.size)
    if not flags & NLM_F_ACK_TLVS:
        return -error, ""
    echoed = HEADER.size if flags & NLM_F_CAPPED else original
    offset = HEADER.size + 4 + ((echoed + 3) & ~3)
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        if kind == NLMSGERR_ATTR_MSG:
            return -error, data[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return -error, ""
