"""Messages of segment routing, as pyroute2 reads them, and what the kernel's answers mean."""

from __future__ import annotations

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni_v6.kernel.netfilter import small_rules, small_table
from cni_v6.kernel.netfilter.messages import rule_comment
from cni_v6.kernel.netlink import segments
from cni_v6.kernel.netlink.message import HEADER, Message, packed
from cni_v6.kernel.netlink.socket import encode
from tests.unit.test_netlink import heard

SID, TABLE, HOP = "5f00::1", 166, "192.0.0.8"


def route(what: bytes, dst: str = "fd42::/64") -> bytes:
    """A route as the kernel sends it."""
    return encode(segments.add_route(dst, table=TABLE, protocol=9, index=3, what=what), 1)


def test_what_a_route_does() -> None:
    cases = {
        (SID, None): segments.encapsulate(SID), (None, None): segments.via("fd00::1"),
        (None, segments.END_DT6): segments.act(segments.END_DT6, TABLE, HOP),
        (None, segments.END_DX4): segments.act(segments.END_DX4, TABLE, HOP),
    }
    for read, what in cases.items():
        assert segments.read_segment(route(what), TABLE, HOP) == read
    for other in (segments.act(segments.END_DT6, 254, HOP), segments.act(segments.END_DX4, TABLE, "0.0.0.0")):
        assert segments.read_segment(route(other), TABLE, HOP) == (None, "")


def test_an_encapsulation_that_is_not_ours() -> None:
    """Of another mode, or with more segments: the route is made anew."""
    ours = segments.encapsulate(SID)
    mode = ours.index(segments.SRH.pack(3, 0, 2, 4, 0, 0, 0, 0))
    assert segments.read_segment(route(ours[:mode] + b"\1" + ours[mode + 1:]), TABLE, HOP) == ("", None)


def test_routes_and_rules() -> None:
    fields, attributes = heard(segments.remove_route("10.0.0.0/8", table=TABLE, protocol=9), rtmsg)
    assert (fields["dst_len"], fields["proto"], fields["scope"]) == (8, 9, 255)
    assert attributes == [("RTA_DST", "10.0.0.0"), ("RTA_TABLE", TABLE)]
    rule = segments.add_rule(6, "eth0", "5f00::/16", table=TABLE, protocol=9)
    fields, attributes = heard(rule, fibmsg)
    assert (fields["family"], fields["dst_len"], fields["action"]) == (10, 16, 1)
    assert attributes == [("FRA_DST", "5f00::"), ("FRA_IIFNAME", "eth0"), ("FRA_PRIORITY", TABLE), ("FRA_TABLE", TABLE),
                          ("FRA_PROTOCOL", 9)]
    assert segments.read_rule(encode(rule, 1)) == (9, "eth0", "5f00::/16")
    gone = segments.remove_rule(4, "eth0", None, table=TABLE, protocol=9)
    assert segments.read_rule(encode(gone, 1)) == (9, "eth0", None) and heard(gone, fibmsg)[0]["family"] == 2
    assert heard(segments.get_rules(10), fibmsg)[0]["family"] == 10


def test_a_pair() -> None:
    made = segments.create_pair("one", "two", address="02:00:00:00:00:01", mtu=1400)
    _, [name, mac, mtu, (_, info)] = heard(made, ifinfmsg)
    assert [name, mac, mtu] == [("IFLA_IFNAME", "one"), ("IFLA_ADDRESS", "02:00:00:00:00:01"), ("IFLA_MTU", 1400)]
    [kind, (_, [(_, peer)])] = info
    assert kind == ("IFLA_INFO_KIND", "veth") and ("IFLA_IFNAME", "two") in peer and ("IFLA_MTU", 1400) in peer
    up = encode(segments.set_up_without_arp("one"), 1)
    assert segments.is_up_without_arp(up) and not segments.is_up_without_arp(encode(made, 1))


def test_a_table_that_leaves_packets_untracked() -> None:
    rules = [small_rules.untracked_from("t", "eth0", "first"), small_rules.untracked_to("t", "5f00::/16", "second")]
    messages = small_table.make("t", [small_table.UNTRACKED], rules)
    assert [message.type & 0xFF for message in messages] == [0, 2, 0, 3, 6, 6]
    assert messages[:2] == small_table.remove("t")
    assert [rule_comment(encode(rule, 1)) for rule in rules] == ["first", "second"]
    assert isinstance(small_table.dump_rules("t"), Message) and b"eth0" + bytes(12) in encode(rules[0], 1)
    assert b"\x5f\x00" in encode(rules[1], 1)[HEADER.size:] and b"notrack\0" in encode(rules[1], 1)


def test_a_table_that_knows_whom_to_take_packets_from() -> None:
    chains = (small_table.UNTRACKED, small_table.INPUT, small_table.FORWARD)
    rules = [
        small_rules.drop_strangers_to("t", "5f00::/16", "strangers"), small_rules.drop_udp_of_strangers("t", 9, "udp"),
        small_rules.set_source_to("t", "5f00::/16", "fd00::7", "source"),
    ]
    messages = small_table.make("t", chains, rules, nodes=True)
    assert [message.type & 0xFF for message in messages] == [0, 2, 0, 9, 3, 3, 3, 6, 6, 6]
    assert [b"nodes\0" in encode(rule, 1) and b"counter\0" in encode(rule, 1) for rule in rules] == [True, True, False]
    assert packed("fd00::7") in encode(rules[2], 1)
    addresses = [f"fd00::{number:x}" for number in range(1, 1202)]
    flushed, *added = small_table.set_nodes("t", addresses)
    assert [message.type & 0xFF for message in (flushed, *added)] == [14, 12, 12]
    assert [address for message in added for address in small_table.read_nodes(encode(message, 1))] == addresses
    assert small_table.set_nodes("t", ()) == [flushed] and list(small_table.read_nodes(encode(flushed, 1))) == []
    assert small_table.dump_nodes("t").type & 0xFF == 13


def test_rules_of_a_gate() -> None:
    """What the kernel makes of them, and does by them: tests/contract/test_cluster_kernel.py, tests/netns."""
    rules = [
        small_rules.accept_out_by("t", "eth0", "out"), small_rules.accept_answers("t", "answers"),
        small_rules.accept_translated("t", "translated"), small_rules.accept_echo_requests("t", 6, "echo"),
        small_rules.between("t", "10.128.0.0/9", "10.0.0.0/8", "one to other", accept=False),
        small_rules.between("t", "fd42::/48", "fd43::/48", "six", accept=True),
    ]
    assert [rule_comment(encode(rule, 1)) for rule in rules] == [
        "out", "answers", "translated", "echo", "one to other", "six"]
    four = encode(rules[4], 1)
    assert b"\xff\x80\x00\x00" in four and b"\x0a\x80\x00\x00" in four and b"\x0a\x00\x00\x00" in four


def test_a_table_that_drops() -> None:
    chains = (small_table.INPUT, small_table.FORWARD)
    rules = [small_rules.drop_udp("t", chain, 4789, "of others", not_by="eth0", out_by=out)
             for chain, out in zip(chains, ("", "eth1"))]
    messages = small_table.make("t", chains, rules)
    assert [message.type & 0xFF for message in messages] == [0, 2, 0, 3, 3, 6, 6]
    assert [b"eth1" + bytes(12) in encode(rule, 1) for rule in rules] == [False, True]
    assert all(b"eth0" + bytes(12) in encode(rule, 1) and b"\x12\xb5" in encode(rule, 1) for rule in rules)
