"""nf_tables messages as bytes: elements of our sets, and the few other messages that a call needs.

``nft`` loads the rules as text (``cni_v6.firewall.ruleset``). Elements are messages of our own, because starting nft
costs more than the rest of an ADD. They equal nft's own, byte for byte (``tests/contract/test_firewall.py``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from cni_v6.errors import KERNEL_REFUSED, PORT_TAKEN, CniError
from cni_v6.firewall.sets import BRIDGE, INET, PORT, PROTOCOL, SETS, TABLE, Element, Set
from cni_v6.kernel.netfilter.keys import field_text, key, pack, set_of, span_text, split
from cni_v6.kernel.netlink.message import HEADER, Message, as_text, attribute, by_kind, each, nest, text
from cni_v6.kernel.netlink.uapi import NLA_F_NESTED, NLM_F_CREATE

# linux/netfilter.h, linux/netfilter/nfnetlink.h
FAMILIES = {INET: 1, BRIDGE: 7}  # NFPROTO_*
FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
NFGENMSG = struct.Struct("!BBH")  # family, version, resource id: the subsystem at the ends of a transaction
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10

# linux/netfilter/nf_tables.h
DELTABLE, GETRULE, NEWSETELEM, GETSETELEM, DELSETELEM, _DESTROYSETELEM = (
    NFNL_SUBSYS_NFTABLES << 8 | number for number in (2, 7, 12, 13, 14, 30)
)
NFTA_TABLE_NAME = NFTA_RULE_TABLE = NFTA_SET_ELEM_LIST_TABLE = 1
NFTA_RULE_CHAIN, NFTA_RULE_USERDATA = 2, 7
NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_USERDATA, NFTA_SET_ELEM_KEY_END = 1, 2, 6, 10
NFTA_LIST_ELEM = NFTA_DATA_VALUE = 1
_DATA = struct.Struct("=HHHH")  # an attribute that contains only another one: length and type of each
UDATA_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT and NFTNL_UDATA_SET_ELEM_COMMENT, libnftnl/udata.h
COMMENT_BYTES = 127  # without its zero: NFTNL_UDATA_COMMENT_MAXLEN is 128
LIST_BYTES = 60_000  # of elements in a message: the length of an attribute has 16 bits

PROTOCOL_NAMES = {"6": "tcp", "17": "udp", "132": "sctp"}


def add_elements(elements: Iterable[Element]) -> list[Message]:
    """Messages of a transaction that add elements, one for each set."""
    return _lists(elements, NEWSETELEM, NLM_F_CREATE, _whole)


def delete_elements(elements: Iterable[Element]) -> list[Message]:
    """Messages of a transaction that remove elements. An element that does not exist fails it (ENOENT)."""
    return _lists(elements, DELSETELEM, 0, _key_only)


def destroy_elements(elements: Iterable[Element]) -> list[Message]:
    """As ``delete_elements``, but an element may be absent. Linux 6.3 and later; EINVAL before."""
    return _lists(elements, _DESTROYSETELEM, 0, _key_only)


def get_element(element: Element) -> Message:
    """A request for an element; ``read_elements`` reads the answer. ENOENT if the element does not exist.

    In a set with intervals the answer may be another element, which contains the start of this one.
    """
    [message] = _lists([element], GETSETELEM, 0, _key_only)
    return message


def dump_elements(family: str, name: str) -> Message:
    """A dump of a set."""
    return Message(GETSETELEM, 0, _named(family, name))


def delete_table(family: str) -> Message:
    """A message of a transaction that deletes a table of ours."""
    return Message(DELTABLE, 0, _header(family) + text(NFTA_TABLE_NAME, TABLE))


def dump_rules(family: str, chain: str) -> Message:
    """A dump of the rules in a chain of ours."""
    return Message(GETRULE, 0, _header(family) + text(NFTA_RULE_TABLE, TABLE) + text(NFTA_RULE_CHAIN, chain))


def begin() -> Message:
    """The first message of a transaction."""
    return Message(NFNL_MSG_BATCH_BEGIN, 0, NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES))


def end() -> Message:
    """The last message of a transaction."""
    return Message(NFNL_MSG_BATCH_END, 0, NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES))


def rule_comment(data: bytes) -> str:
    """The comment of the rule in a message of a dump."""
    given = by_kind(data, HEADER.size + NFGENMSG.size)
    return _comment(given.get(NFTA_RULE_USERDATA, b""))


def read_elements(data: bytes, sets: Mapping[tuple[str, str], Set] = SETS) -> Iterator[Element]:
    """The elements of one of our sets in a message.

    :param sets: the declared ones.
    """
    family = FAMILY_NAMES[data[HEADER.size]]
    given = by_kind(data, HEADER.size + NFGENMSG.size)
    declared = sets[family, as_text(given[NFTA_SET_ELEM_LIST_SET])]
    for _, payload in each(given[NFTA_SET_ELEM_LIST_ELEMENTS]):
        found = by_kind(payload)
        first = split(declared.key, _value(found[NFTA_SET_ELEM_KEY]))
        if declared.intervals:
            last = split(declared.key, _value(found[NFTA_SET_ELEM_KEY_END]))
            spelt = tuple(map(span_text, declared.key, first, last))
        else:
            spelt = tuple(map(field_text, declared.key, first))
        data_fields = split(declared.data, _value(found[NFTA_SET_ELEM_DATA])) if declared.data else ()
        comment = _comment(found.get(NFTA_SET_ELEM_USERDATA, b""))
        yield Element(family, declared.name, spelt, tuple(map(field_text, declared.data, data_fields)), comment)


def clash(asked: Element, there: Element | None) -> CniError:
    """The error for an element that cannot be added.

    :param there: the map's entry under the same key; None if the element overlaps with an interval instead.
    """
    what = f"{asked.set} {' . '.join(asked.key)}"
    if there is None:
        return CniError(KERNEL_REFUSED, f"cannot add to the firewall: {what}", "it overlaps with what is there")
    whose = f"published by {there.comment}" if there.comment else f"it leads to {' port '.join(there.data)}"
    if SETS[asked.family, asked.set].key[-2:] == (PROTOCOL, PORT):
        *at, protocol, port = asked.key
        name = f"port {PROTOCOL_NAMES.get(protocol, protocol)}/{port}" + (f" of {at[0]}" if at else "")
        return CniError(PORT_TAKEN, f"{name} is taken: {whose}", "publish another port, or end that container")
    return CniError(PORT_TAKEN, f"{what} is taken: {whose}", "choose another address, or end that container")


# Parts


def _header(family: str) -> bytes:
    return NFGENMSG.pack(FAMILIES[family], 0, 0)


@cache
def _named(family: str, name: str) -> bytes:
    """The start of a message about a set."""
    return _header(family) + text(NFTA_SET_ELEM_LIST_TABLE, TABLE) + text(NFTA_SET_ELEM_LIST_SET, name)


def _lists(elements: Iterable[Element], kind: int, flags: int, encode: Callable[[Element], bytes]) -> list[Message]:
    """A message for each set; several if one attribute cannot contain all elements."""
    by_set: dict[tuple[str, str], list[bytes]] = {}
    for element in elements:
        by_set.setdefault((element.family, element.set), []).append(encode(element))
    messages = []
    for (family, name), encoded in by_set.items():
        start = _named(family, name)
        for part in _parts(encoded):
            messages.append(Message(kind, flags, start + _nested(NFTA_SET_ELEM_LIST_ELEMENTS, part)))
    return messages


def _parts(encoded: list[bytes]) -> Iterator[bytes]:
    """The encoded elements joined, in parts of at most LIST_BYTES."""
    part: list[bytes] = []
    size = 0
    for element in encoded:
        if size + len(element) > LIST_BYTES:
            yield b"".join(part)
            part, size = [], 0
        part.append(element)
        size += len(element)
    yield b"".join(part)


def _whole(element: Element) -> bytes:
    declared = set_of(element)
    body = _keys(element)
    if declared.data:
        body += _data(NFTA_SET_ELEM_DATA, pack(declared.data, element.data))
    if element.comment:
        comment = element.comment.encode()[:COMMENT_BYTES] + b"\0"
        body += attribute(NFTA_SET_ELEM_USERDATA, bytes((UDATA_COMMENT, len(comment))) + comment)
    return _nested(NFTA_LIST_ELEM, body)


def _key_only(element: Element) -> bytes:
    return _nested(NFTA_LIST_ELEM, _keys(element))


def _keys(element: Element) -> bytes:
    first, last = key(element)
    return _data(NFTA_SET_ELEM_KEY, first) + (_data(NFTA_SET_ELEM_KEY_END, last) if last else b"")


def _nested(kind: int, body: bytes) -> bytes:
    return nest(kind | NLA_F_NESTED, body)


def _data(kind: int, value: bytes) -> bytes:
    size = len(value)
    return _DATA.pack(size + 8, kind | NLA_F_NESTED, size + 4, NFTA_DATA_VALUE) + value + b"\0" * (-size % 4)


def _value(payload: bytes) -> bytes:
    return by_kind(payload)[NFTA_DATA_VALUE]


def _comment(userdata: bytes) -> str:
    """The comment among (type, length, value) entries."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == UDATA_COMMENT:
            return as_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""
