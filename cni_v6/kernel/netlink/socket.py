"""A netlink socket, mostly for rtnetlink, that sends many requests in one datagram and reads all their answers.

pyroute2's ``IPRoute`` is not used. It keeps an event loop and a socket for each thread, so a thread that gets it from
another one acts on another namespace. It also waits for each acknowledgement before it sends the next request.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netlink import uapi
from cni_v6.kernel.netlink.message import HEADER, Message
from cni_v6.values import dataclass

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_MULTI, NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x2, 0x10, 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
# A dump has at most 32 KiB per datagram (net/netlink/af_netlink.c), everything else less. The buffer is not much
# larger: from 128 KiB on (M_MMAP_THRESHOLD, mallopt(3)), malloc maps and unmaps every buffer separately.
RECEIVE_BYTES = 1 << 16
ANSWER_SECONDS = 30  # the kernel answers before send(2) returns; an answer that is not there by then is lost
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33  # asm-generic/socket.h; Python does not define them
SUCCESS = (0, "")  # errno and text
BATCH_BYTES = 1 << 16  # well below the default send buffer (net.core.wmem_default, 212,992)
BATCH_MESSAGES = 32  # their answers, up to 4 KiB each with the kernel's overhead, fit in the default receive buffer


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``error``: 0 or an errno. ``text``: the kernel's message. ``messages``: with their headers."""

    error: int = 0
    text: str = ""
    messages: tuple[bytes, ...] = ()


class Datagrams(Protocol):
    """The part of a socket that is used here."""

    def send(self, data: bytes, /) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Growing(Datagrams, Protocol):
    """A socket whose buffers can be enlarged."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


class NetlinkSocket:
    """A socket of any netlink protocol, in the namespace of the thread that made it. Not thread-safe."""

    def __init__(self, opened: Datagrams) -> None:
        self._socket = opened
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        """Send requests together, and return their answers in order. None may be a dump.

        The kernel continues after a request that failed (netlink_rcv_skb).
        """
        return [answer for batch in _batches(messages) for answer in self._exchange(batch)]

    def dump(self, message: Message, most: int = 0) -> Answer:
        """Send a dump request and read the whole dump; again if the data changed meanwhile (NLM_F_DUMP_INTR).

        :param most: messages, 0: any number; with more the answer is EOVERFLOW, and the socket can dump no more.
        """
        for _ in range(8):
            first = self._send([replace(message, flags=message.flags | NLM_F_DUMP)])
            answer, interrupted = self._read_dump(first, most)
            if not interrupted:
                break
        return answer

    def _exchange(self, messages: Sequence[Message]) -> list[Answer]:
        """The kernel answers in the order of the requests, and always if one fails. So only the last is acknowledged.

        An error that it could not queue is the next error of the socket (netlink_ack, net/netlink/af_netlink.c).
        """
        first = self._send(messages)
        last = first + len(messages) - 1
        collected: dict[int, list[bytes]] = {}
        ends: dict[int, tuple[int, str]] = {}
        while last not in ends:
            for kind, _, sequence, data in self._receive():
                if not first <= sequence <= last:
                    continue  # the answer to an abandoned request
                if kind == NLMSG_ERROR:
                    ends[sequence] = read_error(data)
                else:
                    collected.setdefault(sequence, []).append(data)
        return [
            Answer(*ends.get(number, SUCCESS), tuple(collected.get(number, ()))) for number in range(first, last + 1)
        ]

    def _read_dump(self, sequence: int, most: int) -> tuple[Answer, bool]:
        collected: list[bytes] = []
        interrupted = False
        while not 0 < most < len(collected):
            for kind, flags, number, data in self._receive():
                if number != sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_ERROR:
                    return Answer(*read_error(data)), False
                if kind == NLMSG_DONE:
                    return Answer(messages=tuple(collected)), interrupted
                collected.append(data)
        return Answer(errno.EOVERFLOW), False

    def _send(self, messages: Sequence[Message]) -> int:
        first = self._sequence + 1
        self._sequence += len(messages)
        numbered = enumerate(messages, first)
        self._socket.send(b"".join([encode(message, number, number == self._sequence) for number, message in numbered]))
        return first

    def _receive(self) -> Iterable[tuple[int, int, int, bytes]]:
        """
        :raises CniError: KERNEL_REFUSED if an answer was lost.
        """
        try:
            return split(self._socket.recv(RECEIVE_BYTES))
        except BlockingIOError:
            words = f"the kernel has not answered for {ANSWER_SECONDS} seconds"
            raise CniError(KERNEL_REFUSED, words, "see its log (dmesg); then run the command again") from None
        except OSError as error:
            remedy = f"{error.strerror}; run the command again"
            raise CniError(KERNEL_REFUSED, "an answer of the kernel was lost", remedy) from error


class RouteSocket(NetlinkSocket):
    """A NETLINK_ROUTE socket, ``opened`` or a new one, in the namespace of the thread that makes it."""

    def __init__(self, opened: Datagrams | None = None) -> None:
        super().__init__(opened or open_route())


def open_netlink(protocol: int) -> socket.socket:
    """A netlink socket with a receive timeout and extended acknowledgements."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_SECONDS, 0))  # struct timeval
    opened.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return opened


def open_route() -> socket.socket:
    """As ``open_netlink``, for rtnetlink."""
    opened = open_netlink(socket.NETLINK_ROUTE)
    opened.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    return opened


def split(data: bytes) -> Iterable[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, the message with its header) of every message of a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


# linux/bpf_common.h, linux/filter.h: load 1, 2 or 4 bytes; jump if equal; return
BYTE, _HALF, _WORD, _IF_EQUAL, _RETURN = 0x30, 0x28, 0x20, 0x15, 0x06
Test = tuple[int, int, int]  # load instruction, offset, expected value (network byte order, as BPF loads it)
OF_INTERFACE = 4  # offset of the index in struct ifinfomsg and struct ifaddrmsg


def is_about(index: int) -> tuple[Test, ...]:
    """Matches notifications about one interface or its addresses."""
    return ((_WORD, HEADER.size + OF_INTERFACE, socket.htonl(index)),)


def is_of_protocol(protocol: int) -> tuple[Test, ...]:
    """Matches notifications about routes of a protocol (RTPROT_*): rtm_protocol, the sixth byte of struct rtmsg."""
    return ((BYTE, HEADER.size + 5, protocol),)


def is_link_deleted() -> tuple[Test, ...]:
    """Matches RTM_DELLINK: of family AF_UNSPEC an interface is deleted, of AF_BRIDGE a port leaves its bridge."""
    return ((_HALF, 4, socket.htons(uapi.RTM_DELLINK)),)


def subscribe(groups: Iterable[int], tests: Sequence[Test] = (), receive_buffer: int = 0) -> socket.socket:
    """A socket for those notifications of groups (RTNLGRP_*) that pass all tests, in the namespace of this thread.

    The kernel applies the tests. Otherwise each of the dozen notifications of an ADD would wake up all subscribers.

    :param receive_buffer: in bytes; 0 for the default.
    """
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    attach_filter(events, tests)  # before it receives anything
    if receive_buffer:
        enlarge(events, receive_buffer, SO_RCVBUFFORCE, socket.SO_RCVBUF)
    events.bind((0, sum(1 << (group - 1) for group in groups)))
    return events


def enlarge(opened: Growing, size: int, force: int, within: int) -> None:
    """Enlarge a buffer to ``size`` bytes.

    :param force: the socket option that needs CAP_NET_ADMIN in the initial user namespace.
    :param within: the option to use without it, which is limited by net.core.rmem_max or wmem_max.
    """
    try:
        opened.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, within, size)


def attach_filter(receiver: socket.socket, tests: Sequence[Test]) -> None:
    """Receive only datagrams that pass all tests, with a classic BPF filter (struct sock_filter, linux/filter.h)."""
    program = array("Q")
    for number, (load, offset, value) in enumerate(tests):
        otherwise = 2 * (len(tests) - number) - 1  # instructions to skip, up to the last one
        program.extend(filter_instructions((load, 0, 0, offset), (_IF_EQUAL, 0, otherwise, value)))
    program.extend(filter_instructions((_RETURN, 0, 0, 0xFFFF_FFFF), (_RETURN, 0, 0, 0)))
    attach_program(receiver, program)


def attach_program(receiver: socket.socket, program: array[int]) -> None:
    """Let only those datagrams through for which the program returns something else than 0."""
    address, length = program.buffer_info()
    receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", length, address))


def filter_instructions(*code: tuple[int, int, int, int]) -> array[int]:
    """The instructions of a program; each is code, jump if true, jump if false, value."""
    return array("Q", b"".join(struct.pack("=HBBI", *instruction) for instruction in code))


def new_group() -> int:
    """A random link group from 2^30 on: administrators and our segments (``firewall.policy``) use small numbers."""
    return int.from_bytes(os.urandom(4), "big") >> 1 | 1 << 30


def explain(answer: Answer) -> str:
    """The kernel's error as text."""
    words = os.strerror(answer.error)
    return f"{words} ({answer.text})" if answer.text else words


def encode(message: Message, sequence: int, acknowledged: bool = True) -> bytes:
    """The bytes of a request. A dump asks for no acknowledgement: it has an end message of its own (NLMSG_DONE)."""
    length = HEADER.size + len(message.body)
    asked = acknowledged and message.flags & NLM_F_DUMP != NLM_F_DUMP
    flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if asked else 0)
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


def read_error(data: bytes) -> tuple[int, str]:
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
