"""What the kernel tells of a packet's way, in words. ``tests/netns/test_trace.py`` has the kernel tell it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cni_v6.kernel.drops import read_format
from cni_v6.kernel.netfilter import flow, trace
from cni_v6.kernel.netfilter.messages import NFGENMSG
from cni_v6.kernel.netfilter.trace import POLICY, RULE, Event
from cni_v6.kernel.netlink.message import HEADER, Message, attribute, nest, text
from cni_v6.net import packets
from cni_v6.net.packets import ICMP, ICMPV6, TCP, UDP, Headers
from cni_v6.plan import journey
from cni_v6.plan.journey import BACK, ERROR, OTHER, OUT, REFUSED, SILENT, TOO_BIG, UNSENT, End, Names, Outcome, Step

A, B, NODE, VETH, OWN = "192.0.2.2", "198.51.100.7", "192.0.2.1", "veth1", "cni_v6_trace_1"
PROBE = Headers(A, B, TCP, (4000, 80))
CLOSES = "counter goto drop_closed4"
NAMES = Names(
    {("inet", "cni_v6", 7): "ip daddr . oifname @isolated4 jump published4", ("inet", "cni_v6", 8): CLOSES},
    {("inet", "cni_v6", "forward_ingress"): "forward"}, {3: VETH, 4: "eth0"},
)


def number(kind: int, value: int, size: int = 4) -> bytes:
    return attribute(kind, value.to_bytes(size, "big", signed=value < 0))


def message(kind: int, family: int, *attributes: bytes) -> bytes:
    body = NFGENMSG.pack(family, 0, 0) + b"".join(attributes)
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body


def test_what_is_asked_of_the_kernel() -> None:
    """``tests/netns/test_trace.py`` has it taken; here, that it is of the container and of no other."""
    messages = list(trace.tables(OWN, VETH, (A, "2001:db8::2"), B))
    assert all(isinstance(sent, Message) and OWN.encode() in sent.body for sent in messages)
    bodies = b"".join(sent.body for sent in messages)
    assert bodies.count(VETH.encode().ljust(16, b"\0")) == 2 and bodies.count(packets.packed(A)) == 4
    assert bodies.count(packets.packed(B)) == 2 and bodies.count(packets.packed("2001:db8::2")) == 4
    assert packets.packed(B) not in b"".join(sent.body for sent in trace.tables(OWN, VETH, (A,)))


def test_the_hooks_of_chains() -> None:
    assert trace.dump_chains().body == bytes(4)
    hook = nest(4, number(1, 2), number(2, 0))
    chain = text(1, "filter"), text(3, "f")
    assert trace.read_hook(message(0, 2, *chain, hook)) == (("ip", "filter", "f"), "forward")
    assert trace.read_hook(message(0, 5, *chain, nest(4, number(1, 9)))) == (("netdev", "filter", "f"), "ingress")
    assert trace.read_hook(message(0, 2, *chain)) is None


def test_an_event() -> None:
    packet = packets.udp(A, B, 9, b"")
    told = message(
        trace.TRACE, 1, text(1, "cni_v6"), text(2, "forward_ingress"), number(3, 8, 8), number(4, RULE),
        nest(5, number(1, -3), text(2, "published4")), number(6, 77), attribute(8, packet[:20]),
        attribute(9, packet[20:]), number(10, 3), number(12, 4),
    )
    assert trace.read(told) == Event(77, "inet", "cni_v6", "forward_ingress", RULE, "jump", 8, "published4", 3, 4,
                                     Headers(A, B, UDP, (9, 9)))
    policy = message(trace.TRACE, 7, text(1, "x"), text(2, "y"), number(4, POLICY), number(16, 0), attribute(8, packet))
    found = trace.read(policy)
    assert found and (found.verdict, found.family) == ("drop", "bridge") and found.headers
    ended = trace.read(message(trace.TRACE, 1, number(4, trace.RETURN), nest(5, number(1, -77))))
    assert ended and ended.verdict == "-77" and ended.headers is None
    assert trace.read(message(15, 1)) is None


@pytest.mark.parametrize("packet", [PROBE, Headers(A, B, ICMP, (), 8, 7), Headers("fd00::2", "fd00::3", ICMPV6)])
def test_the_translation_of_a_flow(packet: Headers) -> None:
    request = flow.get_flow(packet)
    assert packets.packed(packet.source) + b"" in request.body and bytes((packet.protocol,)) in request.body
    first = 1 if ":" not in packet.source else 3
    ends = attribute(first, packets.packed(packet.target)), attribute(first + 1, packets.packed(packet.source))
    answer = message(0, 2, nest(2, nest(1, *ends)))
    assert flow.read_translation(answer) == (packet.source, packet.target)


def event(chain: str, verdict: str, kind: int = RULE, **more: object) -> Event:
    table = more.pop("table", "cni_v6")
    return Event(1, str(more.pop("family", "inet")), str(table), chain, kind, verdict, **more)  # type: ignore[arg-type]


def test_events_become_steps() -> None:
    found = journey.steps((
        event("gone", "accept", POLICY),  # of a packet whose beginning was lost
        event("hook0", "continue", table=OWN, headers=PROBE),
        event("forward_ingress", "jump", handle=7, to="published4", iif=3, oif=4, headers=PROBE),
        event("published4", "goto", handle=8, to="drop_closed4"),
        event("drop_closed4", "continue", handle=9),  # it counts
        event("drop_closed4", "drop", handle=10),
    ), NAMES, OWN)
    base = ("inet", "cni_v6", "forward_ingress")
    assert found == [Step(1, base, "forward", PROBE, VETH, "eth0", "published4", CLOSES, "drop",
                          ("ip daddr . oifname @isolated4 jump published4",))]
    [step] = found
    assert step.place == "inet cni_v6 published4"
    closed = 'ingress "isolated" closes it, but for replies, ping and published ports'
    assert journey.dropped(step) == f"{closed} (chain published4 of table inet cni_v6)"


def test_a_chain_decides_by_itself() -> None:
    found = journey.steps((event("f", "drop", table="other", headers=PROBE),), NAMES, OWN)
    assert found == [Step(1, ("inet", "other", "f"), "", PROBE, "", "", "f", "", "drop")]


def step(chain: str = "f", verdict: str = "accept", headers: Headers = PROBE, **more: str) -> Step:
    base = ("inet", more.get("table", "cni_v6"), chain)
    return Step(1, base, more.get("hook", ""), headers, more.get("iif", ""), more.get("oif", ""), chain,
                more.get("rule", ""), verdict)


@pytest.mark.parametrize(("table", "chain", "rule", "words"), [
    ("other", "f", "", "chain f of table inet other, which is not of cni-v6, drops it, whose policy is drop"),
    ("other", "f", "udp drop", "chain f of table inet other, which is not of cni-v6, drops it: udp drop"),
    ("cni_v6", "guard_ipv6", "", "only routers say this (chain guard_ipv6 of table inet cni_v6)"),
    ("cni_v6", "to_segment", "", journey.MEANING["to_segment"] + " (chain to_segment of table inet cni_v6)"),
    ("cni_v6", "new", "", "a rule of cni-v6 drops it (chain new of table inet cni_v6)"),
])
def test_who_drops_it(table: str, chain: str, rule: str, words: str) -> None:
    assert journey.dropped(step(chain, "drop", table=table, rule=rule)) == words
    assert journey.dropped(step(chain, table=table)) == ""


PING = Headers(A, B, ICMP, (), 8, 7)


@pytest.mark.parametrize(("probe", "headers", "way"), [
    (PROBE, PROBE, OUT), (PROBE, Headers(B, A, TCP, (80, 4000)), BACK), (PROBE, Headers(B, A, TCP, (80, 1)), OTHER),
    (PROBE, Headers(A, NODE, TCP, (4000, 80)), OUT), (PROBE, Headers(A, B, TCP), OTHER),
    (PROBE, Headers(NODE, A, ICMP, (), 3), BACK), (PROBE, Headers(NODE, B, ICMP, (), 3), OTHER),
    (PING, PING, OUT), (PING, Headers(B, A, ICMP, (), 0, 7), BACK), (PING, Headers(B, A, ICMP, (), 0, 8), OTHER),
    (PING, Headers(NODE, A, ICMP, (), 11), BACK), (PROBE, Headers(NODE, A, UDP, (1, 2)), OTHER),
])
def test_which_way_a_packet_goes(probe: Headers, headers: Headers, way: str) -> None:
    assert journey.direction(probe, headers) == way


def test_a_repeated_packet_is_shown_once() -> None:
    """Its number changes on its way, so it is known by where it has been."""
    answer = step(headers=Headers(B, A, TCP, (80, 4000)))
    other = step(headers=Headers(NODE, NODE, UDP, (1, 1)))
    assert journey.of_probe([step("f"), step("g"), other, step("f"), answer], PROBE) == [
        (OUT, step("f")), (OUT, step("g")), (BACK, answer),
    ]


def test_where_a_destination_is_translated() -> None:
    inner = Headers(A, NODE, TCP, (4000, 8080))
    found = [(OUT, step()), (OUT, step(headers=inner)), (BACK, step(headers=PROBE))]
    assert journey.translations(found) == {1: f"translated: {inner}"}


@pytest.mark.parametrize(("reason", "words"), [
    (("NO_SOCKET", "udp_rcv"), "nobody listens there (the kernel: reason NO_SOCKET, in udp_rcv)"),
    (("NOT_SPECIFIED", "ip6_forward"),
     "the node does not forward it (the kernel: reason NOT_SPECIFIED, in ip6_forward)"),
    (("NEW_ONE", "f"), "the kernel drops it (reason NEW_ONE, in f)"),
    (("", ""), "the kernel drops it (no reason told)"),
])
def test_reasons_of_the_kernel(reason: tuple[str, str], words: str) -> None:
    assert journey.reason(*reason) == words


DROPPED, LOST = step("f", "drop", table="other"), [("IP_RPFILTER", "")]
INPUT = step(hook="input", iif=VETH)
LEFT = step(oif="eth0")
DATAGRAM = Headers(A, NODE, UDP, (1, 2))


@pytest.mark.parametrize(("outcome", "found", "drops", "predicted", "arrived", "words"), [
    (Outcome(journey.ANSWERED), [LEFT], [], "", True, "it is answered"),
    (Outcome(REFUSED), [], [], "", True, "it arrives, and is refused: nobody listens on that port"),
    (Outcome(SILENT), [DROPPED], [], "so it is", False, "it is dropped: chain f of"),
    (Outcome(SILENT), [LEFT], LOST, "", False, "it is dropped: the node would not answer through"),
    (Outcome(SILENT), [], [], "veth1 is down", False, "it does not get to the node - veth1 is down"),
    (Outcome(SILENT), [LEFT], [], "", False, "it leaves the node through eth0, and no answer comes back"),
    (Outcome(SILENT), [INPUT], [], "", False, "it gets to the node itself through veth1, and is not answered"),
    (Outcome(SILENT), [step(iif=VETH)], [], "", False, "it gets to the node through veth1, and no further"),
    (Outcome(SILENT), [step(hook="input", headers=DATAGRAM)], [], "", True, "need not be answered"),
    (Outcome(UNSENT, "no route"), [], [], "", False, "the container cannot send it: no route"),
    (Outcome(ERROR, "unreachable", NODE), [LEFT], [], "why", False, f"it comes back: unreachable, says {NODE} - why"),
    (Outcome(ERROR, "unreachable"), [LEFT], [], "", False, "it is refused: unreachable"),
    (Outcome(ERROR, "unreachable"), [], [], "", False, "it does not leave the container: unreachable; nobody there"),
    (Outcome(TOO_BIG, "too long"), [], [], "why", False, "the container cannot send it: too long"),
    (Outcome(TOO_BIG, "too long", NODE), [LEFT], [("PKT_TOO_BIG", "")], "why", False, "- it is larger than the MTU"),
])
def test_how_it_ends(
    outcome: Outcome, found: Sequence[Step], drops: list[tuple[str, str]], predicted: str, arrived: bool, words: str,
) -> None:
    ended = journey.end(outcome, [(OUT, each) for each in found], drops, predicted)
    assert ended.arrived == arrived and words in ended.words
    assert outcome.kind != TOO_BIG or "why" not in ended.words


def test_an_answer_that_is_dropped_has_arrived() -> None:
    ended = journey.end(Outcome(SILENT), [(OUT, LEFT), (BACK, DROPPED)], [], "")
    assert ended == End(True, f"its answer is dropped: {journey.dropped(DROPPED)}")


def test_a_format_file_of_the_kernel() -> None:
    """As Linux 6.18 has it, shortened."""
    said = read_format(
        "name: kfree_skb\nID: 2310\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
        "\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n"
        "\tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;\n\n"
        'print fmt: "reason: %s", __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 0x10000, "RX_DROP" })\n'
    )
    assert (said.id, said.fields["skbaddr"], said.fields["reason"]) == (2310, (8, 8), (36, 4))
    assert said.names == {2: "NOT_SPECIFIED", 0x10000: "RX_DROP"}
