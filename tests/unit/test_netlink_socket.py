"""Framing of rtnetlink: what goes out in one datagram, and what of what comes back answers which request."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netlink.message import HEADER, Message
from cni_v6.kernel.netlink.socket import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    Answer,
    RouteSocket,
    attach_filter,
    explain,
    is_about,
    is_link_deleted,
    split,
)

GET, NEW = 18, 16  # RTM_GETLINK, RTM_NEWLINK
Request = tuple[int, int, int, bytes]  # type, flags, sequence, body


class Wire:
    """A kernel that notes what it is sent, and answers with the datagrams it was given."""

    def __init__(self, *datagrams: bytes) -> None:
        self.sent: list[list[Request]] = []
        self.closed = False
        self._answers = iter(datagrams)

    def send(self, data: bytes, /) -> int:
        self.sent.append([(kind, flags, number, whole[HEADER.size :]) for kind, flags, number, whole in split(data)])
        return len(data)

    def recv(self, size: int, /) -> bytes:
        return next(self._answers)

    def close(self) -> None:
        self.closed = True


def message(kind: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    length = HEADER.size + len(body)
    return HEADER.pack(length, kind, flags, sequence, 0) + body + b"\0" * (-length % 4)


def ack(sequence: int, error: int = 0, text: str = "", *, echo: bytes = b"", capped: bool = True) -> bytes:
    """An NLMSG_ERROR: the errno, the request's header (and body), the attributes of the extended acknowledgement."""
    original = HEADER.pack(HEADER.size + len(echo), GET, 0, sequence, 0)
    body = struct.pack("=i", -error) + original + (b"" if capped else echo + b"\0" * (-len(echo) % 4))
    flags = NLM_F_CAPPED if capped else 0
    if text:
        words = text.encode() + b"\0"
        other = struct.pack("=HHI", 8, 2, 24)  # NLMSGERR_ATTR_OFFS
        body += other + struct.pack("=HH", 4 + len(words), NLMSGERR_ATTR_MSG) + words
        flags |= NLM_F_ACK_TLVS
    return message(NLMSG_ERROR, sequence, body, flags)


def requests(number: int) -> list[Message]:
    return [Message(GET, 0, bytes([each % 256]) * 5) for each in range(number)]


def test_requests_go_out_together_and_answers_are_theirs() -> None:
    link = message(NEW, 2, b"link")
    wire = Wire(link, ack(3, errno.ENODEV))
    assert RouteSocket(wire).request(requests(3)) == [Answer(), Answer(messages=(link,)), Answer(errno.ENODEV)]
    flags = NLM_F_REQUEST
    assert wire.sent == [
        [(GET, flags, 1, b"\0" * 5), (GET, flags, 2, b"\1" * 5), (GET, flags | NLM_F_ACK, 3, b"\2" * 5)]
    ]


def test_only_the_last_request_is_acknowledged_and_every_failure_is_told() -> None:
    wire = Wire(ack(1, 1), ack(2, 2), ack(4))
    assert [answer.error for answer in RouteSocket(wire).request(requests(4))] == [1, 2, 0, 0]


def test_what_answers_an_earlier_request_is_passed_over() -> None:
    wire = Wire(ack(1), message(NEW, 1) + ack(0, 9) + ack(7, 9) + ack(2, errno.EEXIST))
    route = RouteSocket(wire)
    assert route.request(requests(1)) == [Answer()]
    assert route.request(requests(1)) == [Answer(errno.EEXIST)]


def test_own_flags_are_kept() -> None:
    wire = Wire(ack(1))
    RouteSocket(wire).request([Message(NEW, 0x600, b"")])
    assert wire.sent == [[(NEW, 0x600 | NLM_F_REQUEST | NLM_F_ACK, 1, b"")]]


def test_nothing_to_ask() -> None:
    wire = Wire()
    assert RouteSocket(wire).request([]) == []
    assert wire.sent == []


def test_many_requests_go_out_in_batches() -> None:
    count = 2 * BATCH_MESSAGES + 1
    wire = Wire(*(ack(number, number) for number in range(1, count + 1)))
    assert [answer.error for answer in RouteSocket(wire).request(requests(count))] == list(range(1, count + 1))
    assert [len(batch) for batch in wire.sent] == [BATCH_MESSAGES, BATCH_MESSAGES, 1]


def test_large_requests_go_out_in_batches() -> None:
    large = Message(GET, 0, b"x" * (BATCH_BYTES // 2))
    wire = Wire(ack(1), ack(2), ack(3))
    RouteSocket(wire).request([large, large, large])
    assert [len(batch) for batch in wire.sent] == [1, 1, 1]


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words(capped: bool) -> None:
    wire = Wire(ack(1, errno.EINVAL, "Invalid MTU", echo=b"seventeen bytes..", capped=capped))
    [answer] = RouteSocket(wire).request(requests(1))
    assert answer == Answer(errno.EINVAL, "Invalid MTU")
    assert explain(answer) == "Invalid argument (Invalid MTU)"


def test_an_error_without_words() -> None:
    wire = Wire(ack(1, errno.ENODEV, echo=b"body", capped=False))
    [answer] = RouteSocket(wire).request(requests(1))
    assert (answer, explain(answer)) == (Answer(errno.ENODEV), "No such device")


@pytest.mark.parametrize("tail", [struct.pack("=HH", 0, 1), struct.pack("=HHI", 8, 2, 0), b"", b"\1\0"], ids=repr)
def test_an_acknowledgement_whose_attributes_say_nothing(tail: bytes) -> None:
    body = struct.pack("=i", -1) + HEADER.pack(HEADER.size, GET, 0, 1, 0) + tail
    wire = Wire(message(NLMSG_ERROR, 1, body, NLM_F_CAPPED | NLM_F_ACK_TLVS))
    assert RouteSocket(wire).request(requests(1)) == [Answer(1)]


def test_dump() -> None:
    parts = [message(NEW, 1, bytes([number] * 4), NLM_F_MULTI) for number in range(3)]
    wire = Wire(parts[0] + parts[1], message(NEW, 9) + parts[2], message(NLMSG_DONE, 1, b"\0\0\0\0", NLM_F_MULTI))
    assert RouteSocket(wire).dump(Message(GET, 0, b"")) == Answer(messages=tuple(parts))
    assert wire.sent == [[(GET, NLM_F_REQUEST | NLM_F_DUMP, 1, b"")]]


def test_a_dump_that_changed_meanwhile_is_asked_for_again() -> None:
    old, new = message(NEW, 1, b"past", NLM_F_DUMP_INTR), message(NEW, 2, b"news")
    wire = Wire(old + message(NLMSG_DONE, 1), new + message(NLMSG_DONE, 2))
    assert RouteSocket(wire).dump(Message(GET, 0, b"")) == Answer(messages=(new,))


def test_a_dump_that_changes_all_the_time_is_taken_in_the_end() -> None:
    def changing() -> Iterator[bytes]:
        for number in range(1, 100):
            yield message(NEW, number, b"same") + message(NLMSG_DONE, number, flags=NLM_F_DUMP_INTR)

    wire = Wire(*changing())
    answer = RouteSocket(wire).dump(Message(GET, 0, b""))
    assert len(wire.sent) == 8
    assert answer.messages == (message(NEW, 8, b"same"),)


def test_a_dump_that_is_too_long_is_not_read_to_its_end() -> None:
    rest = [message(NEW, 1, b"more"), message(NEW, 1, b"more")]
    wire = Wire(message(NEW, 1, b"one.") + message(NEW, 1, b"two."), message(NEW, 1, b"more"), *rest)
    assert RouteSocket(wire).dump(Message(GET, 0, b""), 2) == Answer(errno.EOVERFLOW)
    assert [wire.recv(1 << 16) for _ in rest] == rest


def test_a_dump_that_is_refused() -> None:
    wire = Wire(ack(1, errno.EOPNOTSUPP, "no"))
    assert RouteSocket(wire).dump(Message(GET, 0, b"")) == Answer(errno.EOPNOTSUPP, "no")


def test_closing() -> None:
    wire = Wire()
    RouteSocket(wire).close()
    assert wire.closed


AF_UNSPEC, AF_BRIDGE = 0, 7
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR = 16, 17, 20


def told(kind: int, family: int, index: int) -> bytes:
    """News of an interface or of one of its addresses; both headers have family and index in the same places."""
    return message(kind, 0, struct.pack("=BxHi", family, 1, index) + bytes(8))


NEWS = [
    told(kind, family, index)
    for kind in (RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR)
    for family in (AF_UNSPEC, AF_BRIDGE)
    for index in (3, 0x0300, 0x0300_0000)
]


@pytest.mark.parametrize(("tests", "passed"), [
    ((), NEWS),
    (is_about(3), [each for each in NEWS if each[HEADER.size + 4] == 3]),
    (is_about(0x0300), [each for each in NEWS if each[HEADER.size + 5] == 3]),
    (is_about(4), []),
    (is_link_deleted(), [told(RTM_DELLINK, family, index)
                         for family in (AF_UNSPEC, AF_BRIDGE) for index in (3, 0x0300, 0x0300_0000)]),
    ((*is_link_deleted(), *is_about(3)), [told(RTM_DELLINK, family, 3) for family in (AF_UNSPEC, AF_BRIDGE)]),
])
def test_the_kernel_lets_only_those_news_through(tests: Sequence[tuple[int, int, int]], passed: list[bytes]) -> None:
    """A filter is one whatever the socket's family is."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach_filter(receiver, tests)
        for each in NEWS:
            sender.send(each)
        sender.close()
        receiver.setblocking(False)
        heard: list[bytes] = []
        try:
            while len(heard) < len(NEWS):
                heard.append(receiver.recv(4096))
        except BlockingIOError:
            pass
    assert heard == passed


def test_too_short_for_a_test_does_not_pass() -> None:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach_filter(receiver, is_about(3))
        sender.send(b"short")
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(4096)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "has not answered for 30 seconds"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "was lost.*No buffer space"),
    ],
    ids=["late", "lost"],
)
def test_an_answer_that_does_not_come(error: OSError, words: str) -> None:
    class Silent(Wire):
        def recv(self, size: int, /) -> bytes:
            raise error

    route = RouteSocket(Silent())
    for ask in (lambda: route.request([Message(GET, 0, b"")]), lambda: route.dump(Message(GET, 0, b""))):
        with pytest.raises(CniError, match=words) as caught:
            ask()
        assert caught.value.code == KERNEL_REFUSED
