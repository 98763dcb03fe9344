"""A table of nf_tables with a few rules that stay as they are, as messages; made whole, or not at all. Pure.

By hand, as it is small, and no program is needed that way: the node agent has it loaded (``cluster.tables``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from cni_v6.firewall.sets import INET
from cni_v6.kernel.netfilter import rules as rules_of
from cni_v6.kernel.netfilter.conntrack import IPPROTO_UDP
from cni_v6.kernel.netfilter.listing import NFTA_SET_NAME, NFTA_SET_TABLE, attributes, dump_rules as dump_rules_of
from cni_v6.kernel.netfilter.messages import (
    DELSETELEM,
    DELTABLE,
    FAMILIES,
    GETSETELEM,
    NEWSETELEM,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_RULE_USERDATA,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_TABLE_NAME,
    UDATA_COMMENT,
)
from cni_v6.kernel.netfilter.rules import (
    NEWTABLE,
    NFT_CMP_NEQ,
    NFT_CT_STATE,
    NFT_CT_STATUS,
    NFT_META_IIFNAME,
    NFT_META_L4PROTO,
    NFT_META_NFPROTO,
    NFT_META_OIFNAME,
    NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER,
    NFT_REG_1,
    NFTA_IMMEDIATE_DATA,
    NFTA_IMMEDIATE_DREG,
    NFTA_PAYLOAD_BASE,
    NFTA_PAYLOAD_LEN,
    NFTA_PAYLOAD_OFFSET,
    compare,
    connection,
    expression,
    ifname,
    masked,
    matches,
    meta,
    nested,
    number,
    payload,
)
from cni_v6.kernel.netlink.message import Message, attribute, by_kind, each, packed, text
from cni_v6.kernel.netlink.uapi import AF_INET, AF_INET6, NLM_F_CREATE
from cni_v6.net.addresses import BITS, to_text, version
from cni_v6.values import dataclass

NLM_F_APPEND = 0x800  # linux/netlink.h
# linux/netfilter/nf_tables.h
_NEWSET = NFNL_SUBSYS_NFTABLES << 8 | 9
NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_ID = 4, 5, 10
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_SET_ID, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV = 1, 2, 4, 5, 1
NFTA_PAYLOAD_SREG = 5
NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFT_REG_VERDICT = 2, 1, 0
NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_DROP, NF_ACCEPT = 0, 1, 2, 0, 1  # linux/netfilter.h
NF_IP_PRI_RAW, NF_IP_PRI_FILTER = -300, 0  # linux/netfilter_ipv4.h
TYPE_IP6ADDR = 8  # by which nft prints the elements of a set (include/datatype.h of nftables)
ELEMENTS = 1000  # of a message: the length of an attribute has 16 bits
SENDERS = "nodes"  # the table's only set: IPv6 addresses
_FAMILY, _FLAGS = FAMILIES[INET], NLM_F_CREATE | NLM_F_APPEND
DESTINATION = 24  # offset in the IPv6 header
SOURCE = 8  # as well
SOURCES, DESTINATIONS = {6: SOURCE, 4: 12}, {6: DESTINATION, 4: 16}  # offsets in the header of each family
NFPROTO = {6: AF_INET6, 4: AF_INET}
ECHO_REQUEST = {6: (58, 128), 4: (1, 8)}  # protocol and type (RFC 4443, RFC 792)
# linux/netfilter/nf_conntrack_common.h: NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED; IPS_DST_NAT
ANSWERED, TRANSLATED = 1 << 1 | 1 << 2, 1 << 5
DESTINATION_PORT = 2  # offset in the UDP header


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the table, at a hook."""

    name: str
    hook: int
    priority: int


UNTRACKED = Chain("prerouting_untracked", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW)
INPUT = Chain("input", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER)
FORWARD = Chain("forward", NF_INET_FORWARD, NF_IP_PRI_FILTER)


def make(table: str, chains: Iterable[Chain], rules: Iterable[Message], *, senders: bool = False) -> list[Message]:
    """What makes the table anew, as one transaction; it may be there or not.

    :param rules: as the functions below make them, those of a chain in order.
    :param senders: it has the set SENDERS, empty.
    """
    made = [_of_table(NEWTABLE, table), *([_set(table)] if senders else [])]
    hooked = (rules_of.chain(_FAMILY, table, chain.name, chain.hook, chain.priority, _FLAGS) for chain in chains)
    return [*remove(table), *made, *hooked, *rules]


def remove(table: str) -> list[Message]:
    """What removes the table, as one transaction; it may be there or not."""
    return [_of_table(kind, table) for kind in (NEWTABLE, DELTABLE)]


def _set(table: str) -> Message:
    names = text(NFTA_SET_TABLE, table) + text(NFTA_SET_NAME, SENDERS)
    key = number(NFTA_SET_KEY_TYPE, TYPE_IP6ADDR) + number(NFTA_SET_KEY_LEN, 16)
    return Message(_NEWSET, _FLAGS, NFGENMSG.pack(_FAMILY, 0, 0) + names + key + number(NFTA_SET_ID, 1))


def set_senders(table: str, addresses: Iterable[str]) -> list[Message]:
    """What gives the set SENDERS these IPv6 addresses and no other ones, as one transaction."""
    elements = [nested(NFTA_LIST_ELEM, nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, packed(address))))
                for address in addresses]
    parts = (elements[first:first + ELEMENTS] for first in range(0, len(elements), ELEMENTS))
    add = (Message(NEWSETELEM, NLM_F_CREATE, _of_set(table) + nested(NFTA_SET_ELEM_LIST_ELEMENTS, *part))
           for part in parts)
    return [Message(DELSETELEM, 0, _of_set(table)), *add]  # without elements: all of them


def dump_senders(table: str) -> Message:
    """A dump of the set SENDERS."""
    return Message(GETSETELEM, 0, _of_set(table))


def read_senders(data: bytes) -> Iterator[str]:
    """The addresses in a message of the dump; "" for the element that stands for all (``*``), which has no key."""
    for _, element in each(attributes(data).get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
        key = by_kind(element).get(NFTA_SET_ELEM_KEY)
        yield to_text(6, int.from_bytes(by_kind(key)[NFTA_DATA_VALUE], "big")) if key else ""


def _of_set(table: str) -> bytes:
    names = text(NFTA_SET_ELEM_LIST_TABLE, table) + text(NFTA_SET_ELEM_LIST_SET, SENDERS)
    return NFGENMSG.pack(_FAMILY, 0, 0) + names


def untracked_from(table: str, name: str, comment: str) -> Message:
    """A rule: what comes in by an interface is not tracked."""
    return _rule(table, UNTRACKED, comment, matches(NFT_META_IIFNAME, ifname(name)), expression("notrack"))


def untracked_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is not tracked."""
    return _rule(table, UNTRACKED, comment, *_to(prefix), expression("notrack"))


def drop_strangers_to(table: str, prefix: str, comment: str) -> Message:
    """A rule: what is for an IPv6 prefix of whole bytes is dropped, unless its source is one of SENDERS."""
    return _rule(table, UNTRACKED, comment, *_to(prefix), *_of_a_stranger(), expression("counter"), _verdict(NF_DROP))


def drop_from(table: str, source: str, comment: str, *, by: str = "", not_by: str = "") -> Message:
    """A rule: what has a source of a prefix is dropped, before connections are tracked.

    :param by: only what comes in by this interface; "" for all.
    :param not_by: only what comes in by another interface than this one; "" for all.
    """
    way = matches(NFT_META_IIFNAME, ifname(by)) if by else b""
    other_way = meta(NFT_META_IIFNAME) + compare(ifname(not_by), NFT_CMP_NEQ) if not_by else b""
    return _rule(table, UNTRACKED, comment, *_from(source), way, other_way, expression("counter"), _verdict(NF_DROP))


def accept_from(table: str, source: str, comment: str) -> Message:
    """A rule: what has a source of a prefix passes the rules after this one."""
    return _rule(table, UNTRACKED, comment, *_from(source), _verdict(NF_ACCEPT))


def set_source_to(table: str, prefix: str, address: str, comment: str) -> Message:
    """A rule: what is forwarded to an IPv6 prefix of whole bytes gets a source. No checksum is changed."""
    loaded = nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, packed(address)))
    written = expression("payload", number(NFTA_PAYLOAD_SREG, NFT_REG_1),
                         number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER), number(NFTA_PAYLOAD_OFFSET, SOURCE),
                         number(NFTA_PAYLOAD_LEN, 16))
    source = expression("immediate", number(NFTA_IMMEDIATE_DREG, NFT_REG_1), loaded)
    return _rule(table, FORWARD, comment, *_to(prefix), source, written)


def _to(prefix: str) -> tuple[bytes, ...]:
    network, _, length = prefix.partition("/")
    size = int(length) // 8
    return _of_ipv6(), payload(NFT_PAYLOAD_NETWORK_HEADER, DESTINATION, size), compare(packed(network)[:size])


def _of_a_stranger() -> tuple[bytes, ...]:
    """The source of the packet, of IPv6, is none of SENDERS."""
    return payload(NFT_PAYLOAD_NETWORK_HEADER, SOURCE, 16), expression(
        "lookup", text(NFTA_LOOKUP_SET, SENDERS), number(NFTA_LOOKUP_SREG, NFT_REG_1), number(NFTA_LOOKUP_SET_ID, 1),
        number(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV),
    )


def drop_udp(table: str, chain: Chain, port: int, comment: str, *, not_by: str, out_by: str = "") -> Message:
    """A rule: UDP over IPv6 to a port is dropped, unless it comes in by an interface.

    :param out_by: only what goes out by this interface; "" for all.
    """
    out = matches(NFT_META_OIFNAME, ifname(out_by)) if out_by else b""
    by_another = meta(NFT_META_IIFNAME), compare(ifname(not_by), NFT_CMP_NEQ)
    return _rule(table, chain, comment, *_udp(port), *by_another, out, expression("counter"), _verdict(NF_DROP))


def drop_udp_of_strangers(table: str, port: int, comment: str) -> Message:
    """A rule: UDP over IPv6 to a port of the node is dropped, unless its source is one of SENDERS."""
    return _rule(table, INPUT, comment, *_udp(port), *_of_a_stranger(), expression("counter"), _verdict(NF_DROP))


def _udp(port: int) -> tuple[bytes, ...]:
    """The packet is UDP over IPv6 to a port."""
    return (_of_ipv6(), matches(NFT_META_L4PROTO, bytes((IPPROTO_UDP,))),
            payload(NFT_PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT, 2), compare(struct.pack("!H", port)))


def accept_out_by(table: str, name: str, comment: str) -> Message:
    """A rule: what is forwarded to an interface is accepted."""
    return _rule(table, FORWARD, comment, matches(NFT_META_OIFNAME, ifname(name)), _verdict(NF_ACCEPT))


def accept_answers(table: str, comment: str) -> Message:
    """A rule: what belongs to a connection that is answered already, or to an error of one, is accepted."""
    return _rule(table, FORWARD, comment, *_connection(NFT_CT_STATE, ANSWERED), _verdict(NF_ACCEPT))


def accept_translated(table: str, comment: str) -> Message:
    """A rule: what has another destination than it was sent to, as by a published port, is accepted."""
    return _rule(table, FORWARD, comment, *_connection(NFT_CT_STATUS, TRANSLATED), _verdict(NF_ACCEPT))


def accept_echo_requests(table: str, family: int, comment: str) -> Message:
    """A rule: echo requests are accepted."""
    protocol, kind = ECHO_REQUEST[family]
    of_protocol = matches(NFT_META_NFPROTO, bytes((NFPROTO[family],))), matches(NFT_META_L4PROTO, bytes((protocol,)))
    of_type = payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1), compare(bytes((kind,)))
    return _rule(table, FORWARD, comment, *of_protocol, *of_type, _verdict(NF_ACCEPT))


def between(table: str, source: str, target: str, comment: str, *, accept: bool) -> Message:
    """A rule: what is forwarded from one prefix to another one of its family is accepted, or dropped."""
    family = version(source)
    ends = _within(SOURCES[family], source), _within(DESTINATIONS[family], target)
    of_family = matches(NFT_META_NFPROTO, bytes((NFPROTO[family],)))
    return _rule(table, FORWARD, comment, of_family, *ends, _verdict(NF_ACCEPT if accept else NF_DROP))


def dump_rules(table: str) -> Message:
    """A dump of the table's rules."""
    return dump_rules_of(_FAMILY, table)


def _rule(table: str, chain: Chain, comment: str, *expressions: bytes) -> Message:
    content = comment.encode() + b"\0"
    remark = attribute(NFTA_RULE_USERDATA, bytes((UDATA_COMMENT, len(content))) + content)
    return rules_of.rule(_FAMILY, table, chain.name, *expressions, flags=_FLAGS, remark=remark)


def _of_ipv6() -> bytes:
    return matches(NFT_META_NFPROTO, bytes((AF_INET6,)))


def _from(source: str) -> tuple[bytes, bytes]:
    """The source is of a prefix."""
    family = version(source)
    return matches(NFT_META_NFPROTO, bytes((NFPROTO[family],))), _within(SOURCES[family], source)


def _within(offset: int, prefix: str) -> bytes:
    """The address at an offset of the header is of a prefix."""
    network, _, length = prefix.partition("/")
    value, bits = packed(network), BITS[version(prefix)]
    mask = ((1 << int(length)) - 1 << bits - int(length)).to_bytes(len(value), "big")
    return payload(NFT_PAYLOAD_NETWORK_HEADER, offset, len(value)) + masked(mask) + compare(value)


def _connection(key: int, bits: int) -> tuple[bytes, ...]:
    """One of these bits is set in what is known of the connection: a number in the order of the machine."""
    return connection(key), masked(struct.pack("=I", bits)), compare(bytes(4), NFT_CMP_NEQ)


def _verdict(code: int) -> bytes:
    verdict = nested(NFTA_DATA_VERDICT, number(NFTA_VERDICT_CODE, code))
    data = nested(NFTA_IMMEDIATE_DATA, verdict)
    return expression("immediate", number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), data)


def _of_table(kind: int, table: str) -> Message:
    return Message(kind, _FLAGS, NFGENMSG.pack(_FAMILY, 0, 0) + text(NFTA_TABLE_NAME, table))
