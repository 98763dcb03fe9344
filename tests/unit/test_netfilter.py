"""Our nf_tables and conntrack messages against pyroute2's reading, and what a transaction's answers mean."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_rule_msg, nft_set_elem_list_msg, nft_table_msg

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.firewall.sets import BRIDGE, INET, TABLE, Element
from cni_v6.kernel.netfilter import conntrack, keys, messages as nft
from cni_v6.kernel.netfilter.socket import NO_NETFILTER, SO_SNDBUFFORCE, NetfilterSocket, NoNetfilter
from cni_v6.kernel.netlink.message import HEADER, Message, attribute, nest
from cni_v6.kernel.netlink.socket import NLM_F_ACK, NLM_F_REQUEST, Answer
from tests.unit.test_netlink_socket import Wire, ack

PORT = Element(INET, "ports4", ("6", "8080"), ("10.1.2.3", "80"), "pods a/eth0")
RANGE = Element(INET, "allowed4", ("10.1.2.3", "10.0.0.0/8", "6", "80-90"))


def whole(message: Message) -> bytes:
    return HEADER.pack(HEADER.size + len(message.body), message.type, message.flags, 1, 0) + message.body


def heard(message: Message, kind: type[Any]) -> tuple[int, dict[str, Any]]:
    """The family and the attributes of a request, as pyroute2 reads it."""
    read = kind(whole(message))
    read.decode()
    return read["nfgen_family"], dict(read["attrs"])


def test_an_entry_of_a_map() -> None:
    [message] = nft.add_elements([PORT])
    assert message.type == 10 << 8 | 12
    family, given = heard(message, nft_set_elem_list_msg)
    assert (family, given["NFTA_SET_ELEM_LIST_TABLE"], given["NFTA_SET_ELEM_LIST_SET"]) == (1, TABLE, "ports4")
    [element] = given["NFTA_SET_ELEM_LIST_ELEMENTS"]
    fields = dict(element["attrs"])
    assert fields["NFTA_SET_ELEM_KEY"].get_attr("NFTA_DATA_VALUE") == b"\6\0\0\0\x1f\x90\0\0"
    assert fields["NFTA_SET_ELEM_DATA"].get_attr("NFTA_DATA_VALUE") == b"\n\1\2\3\0P\0\0"
    assert fields["NFTA_SET_ELEM_USERDATA"] == [("NFTNL_UDATA_SET_ELEM_COMMENT", b"pods a/eth0")]


def test_an_interval_is_taken_out_by_both_its_ends() -> None:
    [message] = nft.delete_elements([RANGE])
    assert (message.type, nft.destroy_elements([RANGE])[0].type) == (10 << 8 | 14, 10 << 8 | 30)
    [element] = heard(message, nft_set_elem_list_msg)[1]["NFTA_SET_ELEM_LIST_ELEMENTS"]
    names = "NFTA_SET_ELEM_KEY", "NFTA_SET_ELEM_KEY_END"
    ends = [element.get_attr(name).get_attr("NFTA_DATA_VALUE") for name in names]
    assert ends == [b"\n\1\2\3\n\0\0\0\6\0\0\0\0P\0\0", b"\n\1\2\3\n\xff\xff\xff\6\0\0\0\0Z\0\0"]


def test_a_set_has_one_message_until_it_is_full() -> None:
    ports = [Element(INET, "ports4", ("6", str(number)), ("10.1.2.3", "80")) for number in range(1, 2001)]
    bound = Element(BRIDGE, "bound", ("veth0",))
    messages = nft.add_elements([ports[0], bound, *ports[1:]])
    assert [heard(each, nft_set_elem_list_msg)[0] for each in messages] == [1, 1, 7]
    assert all(len(each.body) < 1 << 16 for each in messages)
    found = [element for each in messages for element in nft.read_elements(whole(each))]
    assert found == [*ports, bound]


def test_other_requests() -> None:
    assert heard(nft.delete_table(BRIDGE), nft_table_msg) == (7, {"NFTA_TABLE_NAME": TABLE})
    rules = heard(nft.dump_rules(INET, "version"), nft_rule_msg)
    assert rules == (1, {"NFTA_RULE_TABLE": TABLE, "NFTA_RULE_CHAIN": "version"})
    assert nft.get_element(PORT).type == nft.dump_elements(INET, "ports4").type == 10 << 8 | 13


@pytest.mark.parametrize(
    ("userdata", "comment"),
    [(b"\0\2a\0", "a"), (b"\1\4\0\0\0\0\0\2b\0", "b"), (b"\1\1\0", ""), (b"", ""), (b"\0", "")],
)
def test_a_rules_comment(userdata: bytes, comment: str) -> None:
    rule = nft.dump_rules(INET, "version")
    given = attribute(nft.NFTA_RULE_USERDATA, userdata) if userdata else b""
    assert nft.rule_comment(whole(Message(rule.type, 0, rule.body + given))) == comment


@pytest.mark.parametrize(
    ("first", "last", "spelt"),
    [
        ("10.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1-10.0.0.2"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.1-10.0.0.3"),
        ("10.0.0.1", "10.0.0.6", "10.0.0.1-10.0.0.6"),
    ],
)
def test_a_span_is_spelt_the_shortest_way(first: str, last: str, spelt: str) -> None:
    ends = [keys.pack(("ipv4_addr",), (each,)) for each in (first, last)]
    assert keys.span_text("ipv4_addr", ends[0], ends[1]) == spelt


def test_what_is_in_the_way() -> None:
    other = Element(INET, "ports_at4", ("10.0.0.1", "47", "1"), ("10.1.2.4", "1"))
    assert str(nft.clash(other, other)).startswith("port 47/1 of 10.0.0.1 is taken: it leads to 10.1.2.4 port 1")
    assert not keys.overlaps(RANGE, PORT) and not keys.overlaps(PORT, PORT)


# Transactions


class Narrow(Wire):
    """A socket that takes nothing until its buffer is made larger."""

    def __init__(self, *datagrams: bytes) -> None:
        super().__init__(*datagrams)
        self.refusal = errno.EMSGSIZE
        self.options: list[tuple[int, int]] = []

    def send(self, data: bytes, /) -> int:
        if self.refusal:
            raise OSError(self.refusal, "no")
        return super().send(data)

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        self.options.append((option, value))
        self.refusal = 0


class Bound(Narrow):
    """A socket of a user namespace's root: its buffer grows as far as anybody's, or not even so far."""

    def __init__(self, *datagrams: bytes, enough: bool) -> None:
        super().__init__(*datagrams)
        self._enough = enough

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        if option == SO_SNDBUFFORCE:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        super().setsockopt(level, option, value)
        self.refusal = 0 if self._enough else errno.EMSGSIZE


class Open(Narrow):
    """A socket that takes everything."""

    def __init__(self, *datagrams: bytes) -> None:
        super().__init__(*datagrams)
        self.refusal = 0


MESSAGES = [Message(10 << 8 | 12, 0, b"body"), Message(10 << 8 | 12, 0, b"more")]


def test_a_large_transaction_in_a_user_namespace() -> None:
    wire = Bound(ack(3), enough=True)
    assert NetfilterSocket(wire).transact(MESSAGES) == []
    assert [option for option, _ in wire.options] == [socket.SO_SNDBUF]


def test_a_transaction_that_is_too_large_there() -> None:
    with pytest.raises(CniError, match="too large for the kernel.*net.core.wmem_max") as caught:
        NetfilterSocket(Bound(enough=False)).transact(MESSAGES)
    assert caught.value.code == KERNEL_REFUSED


def test_a_transaction_is_one_datagram_and_its_last_message_is_acknowledged() -> None:
    wire = Open(ack(3))
    assert NetfilterSocket(wire).transact(MESSAGES) == []
    [sent] = wire.sent
    assert [(kind, flags) for kind, flags, _, _ in sent] == [
        (0x10, NLM_F_REQUEST), (0xA0C, NLM_F_REQUEST), (0xA0C, NLM_F_REQUEST | NLM_F_ACK), (0x11, NLM_F_REQUEST)
    ]
    assert [body for _, _, _, body in sent] == [b"\0\0\0\n", b"body", b"more", b"\0\0\0\n"]


def test_failures_come_before_the_last_answer() -> None:
    wire = Open(ack(2, errno.EEXIST), ack(3) + ack(3))
    assert NetfilterSocket(wire).transact(MESSAGES) == [Answer(errno.EEXIST)]


def test_a_transaction_that_fails_as_a_whole() -> None:
    wire = Open(ack(1, errno.EPERM), ack(3), ack(6, errno.ENOENT), ack(7))
    netfilter = NetfilterSocket(wire)
    assert netfilter.transact(MESSAGES) == [Answer(errno.EPERM)]
    assert netfilter.transact(MESSAGES) == [Answer(errno.ENOENT)]  # and not what was left of the first


def test_no_messages_are_no_transaction() -> None:
    wire = Open()
    assert NetfilterSocket(wire).transact([]) == []
    assert wire.sent == []


def test_a_transaction_larger_than_the_buffer() -> None:
    wire = Narrow(ack(3))
    assert NetfilterSocket(wire).transact(MESSAGES) == []
    assert wire.options == [(SO_SNDBUFFORCE, 80)]


def test_a_socket_that_sends_nothing() -> None:
    wire = Narrow()
    wire.refusal = errno.ENOBUFS
    with pytest.raises(OSError, match="no"):
        NetfilterSocket(wire).transact(MESSAGES)


def test_a_kernel_without_netfilter() -> None:
    nothing = NoNetfilter()
    answers = [*nothing.request(MESSAGES), *nothing.transact(MESSAGES), nothing.dump(MESSAGES[0])]
    assert [answer.error in NO_NETFILTER for answer in answers] == [True] * 4
    assert nothing.transact([]) == []
    nothing.close()


# Flows


def flow(source: bytes, reply_source: bytes, port: int, protocol: int = 17, *more: bytes) -> bytes:
    """A message of a dump."""

    def direction(side: int, address: bytes) -> bytes:
        ip = attribute(conntrack.CTA_IP_V6_SRC if len(address) == 16 else conntrack.CTA_IP_V4_SRC, address)
        ports = attribute(conntrack.CTA_PROTO_NUM, bytes((protocol,)))
        if protocol == 17:
            ports += attribute(conntrack.CTA_PROTO_DST_PORT, struct.pack("!H", port))
        return nest(side, nest(conntrack.CTA_TUPLE_IP, ip), nest(conntrack.CTA_TUPLE_PROTO, ports))

    body = direction(conntrack.CTA_TUPLE_ORIG, source) + direction(conntrack.CTA_TUPLE_REPLY, reply_source)
    return whole(Message(0, 0, b"\2\0\0\0" + body + b"".join(more)))


A, B, A6 = b"\n\1\2\3", b"\n\1\2\4", bytes(15) + b"\3"


@pytest.mark.parametrize(
    ("data", "goes"),
    [
        (flow(A, B, 5), True),
        (flow(B, A, 5), True),
        (flow(B, B, 53), True),
        (flow(B, B, 5), False),
        (flow(A, A, 53, 6), False),
        (flow(A, A, 0, 1), False),
    ],
)
def test_which_flows_are_forgotten(data: bytes, goes: bool) -> None:
    [what] = conntrack.wanted(["10.1.2.3"], [(4, 53)])
    assert (conntrack.delete_if_wanted(what, data) is not None) is goes


def test_a_flow_is_named_by_its_tuple_zone_and_number() -> None:
    [what] = conntrack.wanted(["::3"], [])
    more = attribute(conntrack.CTA_ID, b"\1\2\3\4"), attribute(conntrack.CTA_ZONE, b"\0\7")
    message = conntrack.delete_if_wanted(what, flow(A6, A6, 1, 17, *more))
    assert message and message.type == 1 << 8 | 2
    family, given = heard(message, nfct_msg)
    assert (family, list(given)) == (10, ["CTA_TUPLE_ORIG", "CTA_ZONE", "CTA_ID"])


def test_what_a_filter_looks_at() -> None:
    four, six = conntrack.wanted(["10.1.2.3", "2001:db8::3"], [(4, 53), (6, 53)])
    assert [four.filterable() == four, six.filterable() == six] == [True, False]
    found = [heard(message, nfct_msg) for what in (four, six) for message in conntrack.delete_matching(what)]
    assert [(family, *(name for name in given)) for family, given in found] == [
        (2, "CTA_TUPLE_ORIG", "CTA_FILTER"),
        (2, "CTA_TUPLE_REPLY", "CTA_FILTER"),
        (2, "CTA_TUPLE_ORIG", "CTA_FILTER"),
        (10, "CTA_TUPLE_ORIG", "CTA_FILTER"),
    ]


def test_nothing_is_wanted() -> None:
    assert conntrack.wanted([], []) == []
    body = conntrack.count_flows().body + attribute(conntrack.CTA_STATS_GLOBAL_ENTRIES, b"\0\0\1\0")
    assert conntrack.read_count(whole(Message(0, 0, body))) == 256
