"""Messages that pyroute2 builds and reads for us, against bytes put together by hand from the kernel's headers."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace

import pytest

from cni_v6.kernel import ops
from cni_v6.kernel.facts import FOREVER, Lifetime, TokenBucket
from cni_v6.kernel.netlink import pyroute2_messages as messages, pyroute2_rules
from cni_v6.kernel.netlink.message import HEADER, Message, address, attribute, nest, text, u8, u32

IFINFOMSG, IFADDRMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
AF_BRIDGE, AF_INET6 = 7, 10
NDA_DST, NDA_LLADDR, NDA_IFINDEX, NTF_PROXY, NUD_PERMANENT, NUD_REACHABLE = 1, 2, 8, 8, 0x80, 0x02
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS, IFA_F_NODAD = 1, 2, 6, 8, 2
IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_BRIDGE_FLAGS, IFLA_BRIDGE_VLAN_INFO, RTEXT_FILTER_BRVLAN = 26, 29, 0, 2, 2
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_BR_VLAN_FILTERING = 3, 10, 18, 1, 2, 7
CREATE, EXCL, REPLACE = 0x400, 0x200, 0x100
AF_INET, NTF_USE, NUD_INCOMPLETE, NUD_FAILED = 2, 1, 1, 0x20
IFLA_ADDRESS, IFLA_MTU, IFLA_LINK, IFLA_NET_NS_FD, IFLA_MACVLAN_MODE = 1, 4, 5, 28, 1
IFLA_IPVLAN_MODE, IFLA_VLAN_ID = 1, 1  # linux/if_link.h
IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES = 36, 37
ECHO, IFLA_TXQLEN = 0x8, 13
FRA_IIFNAME, FRA_PRIORITY, FRA_SUPPRESS_IFGROUP, FRA_TABLE = 3, 6, 13, 15  # linux/fib_rules.h
TCA_KIND, TCA_OPTIONS, TCA_TBF_PARMS, ROOT = 1, 2, 1, 0xFFFFFFFF

IP = "2001:db8::2"
PREFIX = f"{IP}/64"
PROXY = NDMSG.pack(AF_INET6, 3, NUD_PERMANENT, NTF_PROXY, 0) + address(NDA_DST, IP)
# struct tc_tbf_qopt, linux/pkt_sched.h: struct tc_ratespec of the rate and of the peak rate, limit, buffer, mtu
BUCKET = struct.pack("=BBHhHI12xIII", 3, 1, 0, -1, 0, 125_000, 64_000, 1000, 0)
FILTERING = nest(
    IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nest(IFLA_INFO_DATA, u8(IFLA_BR_VLAN_FILTERING, 1))
)


def queue(handle: int, parent: int) -> bytes:
    """struct tcmsg, linux/rtnetlink.h, of the interface with index 3."""
    return struct.pack("=BxxxiIII", 0, 3, handle, parent, 0)


def vlans(*entries: tuple[int, int]) -> bytes:
    """IFLA_AF_SPEC with a struct bridge_vlan_info of each (vid, flags)."""
    infos = (attribute(IFLA_BRIDGE_VLAN_INFO, struct.pack("=HH", flags, vid)) for vid, flags in entries)
    return nest(IFLA_AF_SPEC, *infos)


def preferred(seconds: int) -> bytes:
    own = address(IFA_LOCAL, IP) + address(IFA_ADDRESS, IP) + u32(IFA_FLAGS, IFA_F_NODAD)
    times = struct.pack("=IIII", seconds, FOREVER, 0, 0)
    return IFADDRMSG.pack(AF_INET6, 64, 0, 0, 3) + own + attribute(IFA_CACHEINFO, times)


MACVLAN = ops.CreateChildLink(
    "", "up0", "/run/netns/a", "eth0", "new0", "macvlan", "vepa", "02:00:00:00:00:0a", 1400, "x")
VEPA = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "macvlan"), nest(IFLA_INFO_DATA, u32(IFLA_MACVLAN_MODE, 2)))


IPVLAN = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "ipvlan"), nest(IFLA_INFO_DATA, attribute(IFLA_IPVLAN_MODE, b"\2\0")))
VLAN = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan"),
            nest(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, struct.pack("=H", 4094))))


@pytest.mark.parametrize(("made", "expected"), [
    pytest.param(
        messages.create_child_link(MACVLAN, 3, 9),
        Message(16, CREATE | EXCL, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "new0") + u32(IFLA_LINK, 3) + VEPA
                + attribute(IFLA_ADDRESS, b"\2\0\0\0\0\x0a") + u32(IFLA_MTU, 1400) + u32(IFLA_NET_NS_FD, 9)),
        id="macvlan",
    ),
    pytest.param(
        messages.create_child_link(replace(MACVLAN, mac="", mtu=0), 3, None),
        Message(16, CREATE | EXCL,
                IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "new0") + u32(IFLA_LINK, 3) + VEPA),
        id="macvlan with its master's MAC and MTU, in its namespace",
    ),
    *(pytest.param(
        messages.create_child_link(replace(MACVLAN, mac="", mtu=0, kind=kind, mode=mode), 3, 9),
        Message(16, CREATE | EXCL, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "new0") + u32(IFLA_LINK, 3) + info
                + u32(IFLA_NET_NS_FD, 9)),
        id=kind,
    ) for kind, mode, info in (("ipvlan", "l3s", IPVLAN), ("vlan", "4094", VLAN))),
    pytest.param(
        messages.rename(3, "eth0"), Message(19, 0, IFINFOMSG.pack(0, 0, 3, 0, 0) + text(IFLA_IFNAME, "eth0")),
        id="rename",
    ),
    pytest.param(
        messages.ask_neighbour(IP, 3),
        Message(28, CREATE, NDMSG.pack(AF_INET6, 3, 0, NTF_USE, 0) + address(NDA_DST, IP)),
        id="ask for a neighbour",
    ),
    pytest.param(
        messages.ask_neighbour("192.0.2.1", 3),
        Message(28, CREATE, NDMSG.pack(AF_INET, 3, 0, NTF_USE, 0) + address(NDA_DST, "192.0.2.1")),
        id="ask for a neighbour of IPv4",
    ),
    pytest.param(messages.add_proxy(ops.AddProxy("eth0", IP), 3), Message(28, CREATE, PROXY), id="answer for one"),
    pytest.param(messages.remove_proxy(ops.RemoveProxy("eth0", IP), 3), Message(29, 0, PROXY), id="no more"),
    pytest.param(
        messages.plug_in(ops.PlugIn("veth0", "br0"), 3),
        Message(19, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "veth0") + u32(IFLA_MASTER, 3)),
        id="plug in",
    ),
    pytest.param(messages.get_lifetimes(3), Message(22, 0, IFADDRMSG.pack(AF_INET6, 0, 0, 0, 3)), id="lifetimes"),
    pytest.param(
        messages.set_preferred(ops.SetPreferred("", "eth0", PREFIX, preferred=True), 3),
        Message(20, REPLACE, preferred(FOREVER)),
        id="preferred",
    ),
    pytest.param(
        messages.set_preferred(ops.SetPreferred("", "eth0", PREFIX, preferred=False), 3),
        Message(20, REPLACE, preferred(0)),
        id="deprecated",
    ),
    pytest.param(
        messages.get_neighbours(3),
        Message(30, 0, NDMSG.pack(0, 0, 0, 0, 0) + u32(NDA_IFINDEX, 3)),
        id="neighbours",
    ),
    pytest.param(
        messages.set_bridge(ops.SetBridge("br0", vlan_filtering=True)),
        Message(16, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "br0") + FILTERING),
        id="vlan filtering",
    ),
    pytest.param(
        messages.set_bridge(ops.SetBridge("br0", netfilter=frozenset((4, 6)))),
        Message(16, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, "br0") + nest(
            IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"),
            nest(IFLA_INFO_DATA, u8(IFLA_BR_NF_CALL_IPTABLES, 1), u8(IFLA_BR_NF_CALL_IP6TABLES, 1)),
        )),
        id="netfilter",
    ),
    pytest.param(
        messages.tune_link(ops.TuneLink("", "eth0", promisc=True, allmulti=False, tx_queue=500)),
        Message(19, 0, IFINFOMSG.pack(0, 0, 0, 0x100, 0x300) + text(IFLA_IFNAME, "eth0") + u32(IFLA_TXQLEN, 500)),
        id="tuned",
    ),
    pytest.param(
        messages.tune_link(ops.TuneLink("", "eth0", arp=False)),
        Message(19, 0, IFINFOMSG.pack(0, 0, 0, 0x80, 0x80) + text(IFLA_IFNAME, "eth0")),
        id="no ARP",
    ),
    pytest.param(
        messages.tune_link(ops.TuneLink("", "eth0", allmulti=True)),
        Message(19, 0, IFINFOMSG.pack(0, 0, 0, 0x200, 0x200) + text(IFLA_IFNAME, "eth0")),
        id="all multicast",
    ),
    pytest.param(
        messages.create_ifb(ops.CreateIfb("ifb0")),
        Message(16, CREATE | EXCL, IFINFOMSG.pack(0, 0, 0, 1, 1) + text(IFLA_IFNAME, "ifb0") + nest(
            IFLA_LINKINFO, text(IFLA_INFO_KIND, "ifb")
        )),
        id="ifb",
    ),
    pytest.param(
        messages.set_bucket(ops.SetBucket("ifb0", TokenBucket(125_000, 1000, 64_000)), 3),
        Message(36, CREATE | REPLACE, queue(0x10000, ROOT) + text(TCA_KIND, "tbf") + nest(
            TCA_OPTIONS, attribute(TCA_TBF_PARMS, BUCKET)
        )),
        id="token bucket",
    ),
    pytest.param(
        messages.hook_ingress(ops.HookIngress("veth0"), 3),
        Message(36, CREATE | EXCL, queue(0xFFFF0000, 0xFFFFFFF1) + text(TCA_KIND, "ingress")),
        id="hook",
    ),
    pytest.param(messages.get_queue(3), Message(38, ECHO, queue(0, ROOT)), id="queue"),
    pytest.param(messages.get_filters(3), Message(46, 0, queue(0, 0xFFFF0000)), id="filters"),
    pytest.param(
        messages.get_port_vlans(),
        Message(18, 0, IFINFOMSG.pack(AF_BRIDGE, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)),
        id="vlans of all ports",
    ),
    pytest.param(
        messages.add_port_vlans(ops.AddPortVlans("veth0", 100, ((200, 200), (300, 310))), 5),
        Message(19, 0, IFINFOMSG.pack(AF_BRIDGE, 0, 5, 0, 0) + vlans((100, 6), (200, 0), (300, 8), (310, 16))),
        id="add vlans",
    ),
    pytest.param(
        messages.add_port_vlans(ops.AddPortVlans("veth0", 0, ((200, 200),)), 5),
        Message(19, 0, IFINFOMSG.pack(AF_BRIDGE, 0, 5, 0, 0) + vlans((200, 0))),
        id="a trunk alone",
    ),
    pytest.param(
        messages.remove_port_vlan(ops.RemovePortVlan("veth0", 1), 5),
        Message(17, 0, IFINFOMSG.pack(AF_BRIDGE, 0, 5, 0, 0) + vlans((1, 0))),
        id="take off a vlan",
    ),
])
def test_requests(made: Message, expected: Message) -> None:
    assert made == expected


def told(kind: int, body: bytes) -> bytes:
    """A message of the kernel's."""
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


@pytest.mark.parametrize("ip", [IP, "192.0.2.2"])
def test_a_neighbour_that_was_set_for_good_is_read(ip: str) -> None:
    mac = attribute(NDA_LLADDR, bytes.fromhex("02005e100001"))
    family = AF_INET6 if ":" in ip else 2
    body = NDMSG.pack(family, 3, NUD_PERMANENT, 0, 0) + address(NDA_DST, ip) + mac
    assert messages.read_neighbour(told(28, body)) == (3, (ip, "02:00:5e:10:00:01"))
    learnt = NDMSG.pack(family, 3, NUD_REACHABLE, 0, 0) + address(NDA_DST, ip) + mac
    assert messages.read_neighbour(told(28, learnt)) is None


@pytest.mark.parametrize(("flags", "wanted"), [
    (0x80, Lifetime(PREFIX, 60, 120)),
    (0x20, Lifetime(PREFIX, 0, 120)),
    (0x01, Lifetime(PREFIX, 60, 120, temporary=True)),
])
def test_lifetimes_are_read(flags: int, wanted: Lifetime) -> None:
    times = attribute(IFA_CACHEINFO, struct.pack("=IIII", 60, 120, 1, 2))
    body = IFADDRMSG.pack(AF_INET6, 64, 0, 0, 3) + address(IFA_ADDRESS, IP) + times + u32(IFA_FLAGS, flags)
    assert messages.read_lifetime(told(20, body)) == (3, wanted)


def test_the_lifetime_of_an_address_with_a_peer_is_that_of_our_end() -> None:
    times = attribute(IFA_CACHEINFO, struct.pack("=IIII", 60, 120, 1, 2))
    ends = address(IFA_LOCAL, IP) + address(IFA_ADDRESS, "2001:db8::99")
    body = IFADDRMSG.pack(AF_INET6, 128, 0, 0, 3) + ends + times + u32(IFA_FLAGS, 0x80)
    assert messages.read_lifetime(told(20, body)) == (3, Lifetime(f"{IP}/128", 60, 120))


def test_vlans_of_a_port_are_read() -> None:
    infos = ((1, 6), (200, 8), (203, 16))
    entries = [attribute(IFLA_BRIDGE_FLAGS, b"\1\0")]  # which does not belong here, and is passed over
    entries += [attribute(IFLA_BRIDGE_VLAN_INFO, struct.pack("=HH", flags, vid)) for vid, flags in infos]
    data = told(16, IFINFOMSG.pack(AF_BRIDGE, 0, 4, 0, 0) + nest(IFLA_AF_SPEC, *entries))
    assert messages.read_port_vlans(data) == ((1, True), (200, False), (201, False), (202, False), (203, False))


def test_a_port_without_vlans_has_none() -> None:
    assert messages.read_port_vlans(told(16, IFINFOMSG.pack(AF_BRIDGE, 0, 4, 0, 0))) == ()


def test_a_token_bucket_is_read() -> None:
    options = nest(TCA_OPTIONS, attribute(TCA_TBF_PARMS, BUCKET))
    data = told(36, queue(0x10000, ROOT) + text(TCA_KIND, "tbf") + options)
    assert messages.read_bucket(data) == TokenBucket(125_000, 1000, 64_000)
    assert messages.read_bucket(told(36, queue(0, ROOT) + text(TCA_KIND, "noqueue"))) is None


def test_a_redirection_is_read() -> None:
    """What is sent is what is read; the kernel lists the filter's table too, and others' filters."""
    made = messages.redirect(ops.Redirect("veth0", "ifb0"), 3, 7)
    assert (made.type, made.flags) == (44, CREATE) and messages.read_redirect(told(44, made.body)) == 7
    for other in (
        text(TCA_KIND, "matchall"), text(TCA_KIND, "u32"), text(TCA_KIND, "u32") + nest(TCA_OPTIONS, u32(4, 1)),
        text(TCA_KIND, "u32") + nest(TCA_OPTIONS, nest(7, nest(1, text(1, "gact")))),
    ):
        assert messages.read_redirect(told(44, queue(0x80000000, 0xFFFF0000) + other)) == 0


@pytest.mark.parametrize(("state", "mac", "answer"), [
    (NUD_REACHABLE, "02:00:00:00:00:0a", "02:00:00:00:00:0a"), (NUD_INCOMPLETE, "", None), (NUD_FAILED, "", ""),
    (0, "", ""),
])
def test_the_answer_for_a_neighbour_is_read(state: int, mac: str, answer: str | None) -> None:
    lladdr = attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", ""))) if mac else b""
    body = NDMSG.pack(AF_INET6, 3, state, 0, 0) + address(NDA_DST, IP) + lladdr
    assert messages.read_answer(told(28, body)) == (3, IP, answer)


@pytest.mark.parametrize(("info", "mode"), [
    (VEPA, ("macvlan", "vepa")), (IPVLAN, ("ipvlan", "l3s")), (VLAN, ("vlan", "4094")),
    (nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth")), ("", "")), (b"", ("", "")),
])
def test_the_mode_of_a_child_of_an_interface_is_read(info: bytes, mode: tuple[str, str]) -> None:
    body = IFINFOMSG.pack(0, 0, 3, 0, 0) + text(IFLA_IFNAME, "eth0") + info
    assert messages.read_child_mode(told(16, body)) == mode


@pytest.mark.parametrize(("kind", "number", "flags"), [
    (ops.RefuseReturn, 32, CREATE | EXCL), (ops.AllowReturn, 33, 0),
])
def test_what_came_in_is_refused_after_the_usual_tables(
    kind: type[ops.RefuseReturn | ops.AllowReturn], number: int, flags: int
) -> None:
    """Main and default table of IPv4, the main table of IPv6, then nothing (FR_ACT_UNREACHABLE)."""
    every = text(FRA_IIFNAME, "up0") + u32(FRA_PRIORITY, 32_765)

    def rule(family: int, table: int) -> Message:  # struct fib_rule_hdr, linux/fib_rules.h
        own = u32(FRA_TABLE, table) + u32(FRA_SUPPRESS_IFGROUP, 7) if table else b""
        return Message(number, flags, struct.pack("=B6xBI", family, 1 if table else 7, 0) + every + own)

    assert list(pyroute2_rules.returning(kind("up0", 7))) == [
        rule(AF_INET, 254), rule(AF_INET, 253), rule(AF_INET, 0), rule(AF_INET6, 254), rule(AF_INET6, 0),
    ]


def return_rule(family: int, table: int, *more: bytes, flags: int = 0) -> bytes:
    """As the kernel tells of one: with all that it has set, and the length of no prefix that it looks at (-1)."""
    every = text(FRA_IIFNAME, "up0") + u32(FRA_PRIORITY, 32_765) + u32(14, 0xFFFFFFFF) + u32(FRA_TABLE, table)
    group = u32(FRA_SUPPRESS_IFGROUP, 7) if table else b""
    return told(32, struct.pack("=B3xB2xBI", family, table, 1 if table else 7, flags) + every + group + b"".join(more))


MAIN, DEFAULT, NOWHERE = (return_rule(AF_INET, table) for table in (254, 253, 0))
OTHER = return_rule(AF_INET, 254, u32(10, 5))  # with a mark
TURNED, DETACHED = (return_rule(AF_INET, 0, flags=flags) for flags in (2, 8))


@pytest.mark.parametrize(("rules", "refuses"), [
    ((MAIN, DEFAULT, NOWHERE), True), ((OTHER, MAIN, OTHER, DEFAULT, DETACHED, OTHER), True),
    ((), False), ((MAIN, DEFAULT), False), ((MAIN, NOWHERE), False), ((DEFAULT, NOWHERE, MAIN), False),
    ((MAIN, DEFAULT, TURNED), False), ((MAIN, MAIN, DEFAULT, NOWHERE), False), ((OTHER, DEFAULT, NOWHERE), False),
])
def test_whether_rules_refuse_what_came_in(rules: tuple[bytes, ...], refuses: bool) -> None:
    assert pyroute2_rules.refuse(rules, 4, "up0", 7) is refuses
    assert not pyroute2_rules.refuse(rules, 4, "up1", 7) and not pyroute2_rules.refuse(rules, 4, "up0", 8)


def test_ipv6_has_no_table_behind_the_main_one() -> None:
    rules = [return_rule(AF_INET6, table) for table in (254, 0)]
    assert pyroute2_rules.refuse(rules, 6, "up0", 7) and not pyroute2_rules.refuse(rules, 4, "up0", 7)


AT_ONCE = """
from threading import Barrier, Thread
from cni_v6.kernel import ops
from cni_v6.kernel.netlink import pyroute2_messages as messages, pyroute2_rules

made, start = [], Barrier(20)

def call(number):
    start.wait()
    made.append(messages.get_queue(1) if number % 2 else list(pyroute2_rules.returning(ops.AllowReturn("up0", 7))))

threads = [Thread(target=call, args=(number,)) for number in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(made))
"""


def test_the_first_calls_of_an_engine_may_come_at_once() -> None:
    """A node that boots starts all its containers at once. Their calls import pyroute2, which must be done by one."""
    done = subprocess.run((sys.executable, "-c", AT_ONCE), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("20\n", "")
