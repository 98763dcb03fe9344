"""The counters in nf_tables' answers."""

from __future__ import annotations

import struct

from cni_v6.firewall.dropped import COUNTED
from cni_v6.firewall.sets import INET, Element
from cni_v6.kernel.netfilter import counters, messages as nft
from cni_v6.kernel.netlink.message import HEADER, attribute, by_kind, each, nest, text

PACKETS = 0x1_0000_0001  # more than 32 bits
COUNTER = text(1, "counter") + nest(2, attribute(1, struct.pack("!Q", 99)), attribute(2, struct.pack("!Q", PACKETS)))


def rule(chain: str, *expressions: bytes) -> bytes:
    body = text(1, "cni_v6") + text(2, chain) + nest(4, *(nest(1, each) for each in expressions))
    return HEADER.pack(0, 0, 0, 0, 0) + nft.NFGENMSG.pack(1, 0, 0) + body


def test_the_rules_of_a_chain_are_counted_together() -> None:
    drop = text(1, "immediate") + nest(2)
    dump = [rule("published4", COUNTER, drop), rule("published4", COUNTER), rule("publish", drop), rule("empty")]
    assert counters.of_rules(dump) == {"published4": 2 * PACKETS}


def test_counting_rules_by_their_comments() -> None:
    def remarked(comment: str, *expressions: bytes) -> bytes:
        said = comment.encode() + b"\0"
        return rule("forward", *expressions) + attribute(nft.NFTA_RULE_USERDATA, bytes((0, len(said))) + said)

    dump = [remarked("one", COUNTER, COUNTER), remarked("two"), rule("forward", COUNTER)]
    assert list(counters.of_remarked(dump)) == [("one", 2 * PACKETS), ("", PACKETS)]


def test_the_requests() -> None:
    assert counters.dump_rules(INET).body.endswith(text(1, "cni_v6"))
    assert [request.body for request in counters.dumps_of_elements()] == [
        nft.dump_elements(INET, name).body for name in ("allowed4", "allowed6")
    ]


def test_an_element_with_its_counter() -> None:
    element = Element(INET, "allowed4", ("10.1.2.3", "10.0.0.0/8", "6", "80-90"))
    [message] = nft.add_elements([element])
    body = HEADER.pack(0, 0, 0, 0, 0) + message.body
    assert list(counters.of_elements(body)) == [(element, 0)]
    start = HEADER.size + nft.NFGENMSG.size
    [(_, bare)] = each(by_kind(body, start)[nft.NFTA_SET_ELEM_LIST_ELEMENTS])
    listed = nest(nft.NFTA_SET_ELEM_LIST_ELEMENTS, nest(nft.NFTA_LIST_ELEM, bare, nest(7, COUNTER)))
    names = text(1, "cni_v6") + text(2, "allowed4")
    assert list(counters.of_elements(body[:start] + names + listed)) == [(element, PACKETS)]


def test_what_was_dropped_for_whom() -> None:
    assert [request.body for request in counters.dumps_of_dropped()] == [
        nft.dump_elements(*place).body for place in COUNTED
    ]
    whose = ("10.1.2.3", "cni0")
    [message] = nft.add_elements([Element(INET, "home4", whose)])
    body = message.body.replace(text(2, "home4"), text(2, "dropped_closed4"))
    told = HEADER.pack(0, 0, 0, 0, 0) + body
    assert list(counters.of_dropped(told)) == [(Element(INET, "dropped_closed4", whose), 0)]
