"""The fake firewall and the real one keep the same promises; what ours put into the kernel is what nft itself would."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.firewall import loopback, ruleset
from cni_v6.firewall.sets import BRIDGE, INET, SETS, TABLE, Element
from cni_v6.kernel import apply_firewall, ops
from cni_v6.kernel.netfilter import conntrack, messages
from cni_v6.kernel.netfilter.socket import NetfilterSocket, NoNetfilter
from cni_v6.kernel.netlink.message import HEADER, each
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAllElements, GetElements, GetRuleset, IsLocal
from tests.contract.kernels import KernelTestbed, LinuxTestbed, linux_testbed
from tests.contract.test_kernel import refused
from tests.sandbox import Node

A4, B4, A6, B6 = "10.1.2.3", "10.1.2.4", "2001:db8::3", "2001:db8::4"
P6 = "2001:db8:0:0:1::/80"
OWNER, OTHER = "pods 0123abcd/eth0", "pods 4567cdef/eth0"
PORT = Element(INET, "ports4", ("6", "8080"), (A4, "80"), OWNER)

# Of every set one, and every form that a field has.
ALL = (
    Element(INET, "home4", (A4, "br0"), comment=OWNER),
    Element(INET, "home6", (A6, "br-0.100"), comment=OWNER),
    Element(INET, "containers4", (A4,)),
    Element(INET, "containers6", (A6,)),
    Element(INET, "published4", (A4, "cni0")),
    Element(INET, "published6", (A6, "cni0"), comment="x"),
    Element(INET, "isolated4", (A4, "cni0")),
    Element(INET, "isolated6", (A6, "cni0")),
    Element(INET, "masquerade4", (A4, "cni0")),
    Element(INET, "masquerade6", (A6, "cni0")),
    Element(INET, "snat4", (A4, "cni0"), ("192.0.2.1",)),
    Element(INET, "snat6", (A6, "cni0"), ("2001:db8:1::1",), OWNER),
    Element(INET, "keep4", (A4, "10.0.0.0/8")),
    Element(INET, "keep6", (A6, "2001:db8::/33")),
    Element(INET, "inbound6", ("2001:db8:2::3",), (A6,), OWNER),
    Element(INET, "outside6", ("2001:db8:2::3",)),
    PORT,
    Element(INET, "ports4", ("132", "8080"), (A4, "65535"), OWNER),
    Element(INET, "ports6", ("17", "53"), (A6, "1053"), OWNER),
    Element(INET, "ports_at4", ("127.0.0.1", "6", "1"), (A4, "1"), OWNER),
    Element(INET, "ports_at6", ("::1", "17", "65535"), (A6, "256"), "c" * 127),
    Element(INET, "loopback6", ("17", "53")),
    Element(INET, "loopback_at6", ("17", "65535")),
    Element(INET, "limited4", (A4, "br0")),
    Element(INET, "limited6", ("fe80::3", "br-0.100")),
    Element(INET, "allowed4", (A4, "0.0.0.0/0", "0-255", "0-65535")),
    Element(INET, "allowed4", (B4, "192.0.2.7", "6", "443")),
    Element(INET, "allowed4", (B4, "192.0.2.9-192.0.2.20", "6", "8000-8001"), comment=OWNER),
    Element(INET, "allowed6", (A6, "::/0", "17", "53")),
    Element(INET, "neighbours4", (A4, "536870912")),
    Element(INET, "neighbours6", (A6, "805306367")),
    Element(INET, "neighbour_prefixes6", (P6, "536870913")),
    Element(INET, "bound", ("veth0123456789a",), comment=OWNER),
    Element(INET, "home_prefixes6", (P6, "br-0.100"), comment=OWNER),
    Element(INET, "container_prefixes6", (P6, "0-255")),
    Element(INET, "published_prefixes6", (P6, "cni0")),
    Element(INET, "isolated_prefixes6", ("2001:db8:0:1::/64", "cni0")),
    Element(INET, "masquerade_prefixes6", (P6, "cni0")),
    Element(INET, "snat_prefixes6", (P6, "cni0"), ("2001:db8:1::1",)),
    Element(INET, "limited_prefixes6", ("2001:db8::/127", "cni0")),
    Element(BRIDGE, "bound", ("veth0123456789a",), comment=OWNER),
    Element(BRIDGE, "macs", ("veth1", "02:00:00:00:00:ff")),
    Element(BRIDGE, "guarded", ("veth1",)),
    Element(BRIDGE, "pinned", ("veth1",)),
    Element(BRIDGE, "sources4", ("veth1", "02:00:00:00:00:ff", A4)),
    Element(BRIDGE, "sources6", ("veth1", "02:00:00:00:00:ff", "fe80::1")),
    Element(BRIDGE, "targets6", ("veth1", "fe80::1")),
    Element(BRIDGE, "options6", ("veth1", "02:00:00:00:00:ff")),
    Element(BRIDGE, "source_prefixes6", ("veth0123456789a", P6)),
)


@pytest.fixture
def linux() -> Iterator[LinuxTestbed]:
    with linux_testbed() as made:
        yield made


def load(testbed: KernelTestbed, *elements: Element) -> None:
    testbed.kernel.apply([ops.LoadRuleset(elements)])


def there(testbed: KernelTestbed, *elements: Element) -> tuple[Element, ...]:
    return testbed.kernel.observe([GetElements(elements)]).elements(elements)


def mark(testbed: KernelTestbed) -> str:
    return testbed.kernel.observe([GetRuleset()]).ruleset()


def test_every_set_is_here() -> None:
    assert {(element.family, element.set) for element in ALL} == set(SETS)


def test_rules_are_loaded_once_more_and_unloaded_twice(testbed: KernelTestbed) -> None:
    assert mark(testbed) == ""
    load(testbed, PORT)
    assert (mark(testbed), there(testbed, PORT)) == (ruleset.mark(), (PORT,))
    load(testbed, *ALL[:3])
    assert (mark(testbed), there(testbed, *ALL)) == (ruleset.mark(), ALL[:3])
    for _ in range(2):
        testbed.kernel.apply([ops.UnloadRuleset()])
        assert (mark(testbed), there(testbed, *ALL)) == ("", ())


def test_the_route_of_loopback_comes_and_goes_with_the_rules(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([ops.SetLink(HOST, "lo", up=True)])

    def there() -> bool:
        seen = testbed.kernel.observe([IsLocal(loopback.STANDS_FOR), IsLocal("::1"), IsLocal("2001:db8::7")])
        assert seen.is_local("::1") and not seen.is_local("2001:db8::7")
        return seen.is_local(loopback.STANDS_FOR)

    assert not there()
    for step in (ops.LoadRuleset(()), ops.RouteLoopback()):
        for _ in range(2):
            testbed.kernel.apply([step])
            assert there()
        for _ in range(2):
            testbed.kernel.apply([ops.UnloadRuleset()])
            assert not there()


def test_the_rules_come_with_a_route_to_what_stands_for_loopback(linux: LinuxTestbed) -> None:
    """The route goes with them. The node has no such address, so it calls nobody from there."""
    def there() -> list[dict[str, Any]]:
        assert loopback.STANDS_FOR not in linux.node.run("ip", "address", "show").stdout
        return [*linux.node.ip_json("-6", "route", "show", "table", "local", "type", "local", loopback.STANDS_FOR)]

    linux.node.run("ip", "link", "set", "lo", "up")
    for _ in range(2):
        load(linux)
        [found] = there()
        assert found["dev"] == "lo"
    for _ in range(2):
        linux.kernel.apply([ops.UnloadRuleset()])
        assert there() == []
    linux.node.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    load(linux)
    linux.kernel.apply([ops.RouteLoopback(), ops.UnloadRuleset()])


def test_elements_are_added_twice_and_removed_twice(testbed: KernelTestbed) -> None:
    load(testbed)
    for _ in range(2):
        testbed.kernel.apply([ops.AddElements(ALL)])
        assert there(testbed, *ALL) == ALL
    for _ in range(2):
        testbed.kernel.remove([ops.RemoveElements(ALL)])
        assert there(testbed, *ALL) == ()


def test_what_is_left_is_removed(testbed: KernelTestbed) -> None:
    load(testbed, *ALL[::2])
    testbed.kernel.apply([ops.RemoveElements(ALL)])
    assert there(testbed, *ALL) == ()


def test_nothing_at_all(testbed: KernelTestbed) -> None:
    load(testbed)
    testbed.kernel.apply([ops.AddElements(()), ops.RemoveElements(())])
    assert there(testbed) == ()


def test_a_failed_add_takes_its_elements_back(testbed: KernelTestbed) -> None:
    load(testbed)
    with refused(errors.PORT_TAKEN):
        testbed.kernel.apply([ops.AddElements(ALL), ops.AddElements((replace(PORT, data=(B4, "80")),))])
    assert there(testbed, *ALL) == ()


def test_a_port_that_is_taken_names_its_owner(testbed: KernelTestbed) -> None:
    load(testbed, PORT)
    mine = Element(INET, "published4", (B4, "cni0"))
    with refused(errors.PORT_TAKEN, "port tcp/8080 is taken", OWNER):
        testbed.kernel.apply([ops.AddElements((mine, replace(PORT, data=(B4, "80"), comment=OTHER)))])
    assert there(testbed, mine, PORT) == (PORT,)


def test_a_port_of_one_address_that_is_taken(testbed: KernelTestbed) -> None:
    taken = Element(INET, "ports_at6", ("::1", "17", "53"), (A6, "53"), OWNER)
    load(testbed, taken)
    with refused(errors.PORT_TAKEN, "port udp/53 of ::1 is taken", OWNER):
        testbed.kernel.apply([ops.AddElements((replace(taken, data=(B6, "53")),))])


def test_who_has_no_port_takes_it_from_nobody_at_loopback(testbed: KernelTestbed) -> None:
    """A call that was killed may leave a record of a port that another attachment has."""
    port = Element(INET, "ports6", ("6", "80"), (A6, "80"))
    at = Element(INET, "ports_at6", ("::1", "6", "81"), (A6, "80"))
    owned = port, at, Element(INET, "loopback6", ("6", "80")), Element(INET, "loopback_at6", ("6", "81"))
    load(testbed, *owned)
    mine = replace(port, data=(B6, "80")), replace(at, data=(B6, "80")), *owned[2:], Element(INET, "containers6", (B6,))
    testbed.kernel.remove([ops.RemoveElements(mine)])
    assert there(testbed, *owned) == owned
    testbed.kernel.remove([ops.RemoveElements(owned)])
    assert there(testbed, *owned) == ()
    load(testbed, *owned[2:])  # without the entries that they go with, they are nobody's
    testbed.kernel.remove([ops.RemoveElements(owned)])
    assert there(testbed, *owned) == ()


def test_an_outside_address_that_is_taken_by_nobody_knows_whom(testbed: KernelTestbed) -> None:
    taken = Element(INET, "inbound6", ("2001:db8:2::3",), (A6,))
    load(testbed, taken)
    with refused(errors.PORT_TAKEN, "2001:db8:2::3", A6):
        testbed.kernel.apply([ops.AddElements((replace(taken, data=(B6,)),))])


def test_all_elements(testbed: KernelTestbed) -> None:
    asked = GetAllElements()
    assert testbed.kernel.observe([asked]).all_elements() == ()
    load(testbed, *ALL)
    assert sorted(testbed.kernel.observe([asked]).all_elements(), key=repr) == sorted(ALL, key=repr)


def test_the_same_port_of_another_protocol_or_family_is_another(testbed: KernelTestbed) -> None:
    more = replace(PORT, key=("17", "8080")), Element(INET, "ports6", ("6", "8080"), (A6, "80"))
    load(testbed, PORT)
    testbed.kernel.apply([ops.AddElements(more)])
    assert there(testbed, PORT, *more) == (PORT, *more)


def test_a_port_that_another_one_has_now_stays(testbed: KernelTestbed) -> None:
    load(testbed, PORT)
    old = replace(PORT, data=(B4, "80"))
    gone = Element(INET, "published4", (B4, "cni0"))
    testbed.kernel.apply([ops.AddElements((gone,)), ops.RemoveElements((gone, old))])
    assert there(testbed, PORT, gone) == (PORT,)


def test_a_comment_is_not_what_makes_an_element(testbed: KernelTestbed) -> None:
    load(testbed, PORT)
    testbed.kernel.apply([ops.AddElements((replace(PORT, comment=OTHER),))])
    assert there(testbed, replace(PORT, comment="")) == (PORT,)
    testbed.kernel.apply([ops.RemoveElements((replace(PORT, comment=""),))])
    assert there(testbed, PORT) == ()


def test_without_tables(testbed: KernelTestbed) -> None:
    with refused(errors.FIREWALL_MISSING, "gone"):
        testbed.kernel.apply([ops.AddElements((PORT,))])
    testbed.kernel.remove([ops.RemoveElements((PORT, *ALL))])
    assert there(testbed, PORT) == ()


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        (("10.0.0.0/8", "6", "80"), ("10.0.0.0/8", "6", "80"), True),
        (("10.0.0.0/8", "6", "80"), ("10.0.0.0/8", "6", "81"), True),
        (("10.0.0.0/8", "6", "80"), ("10.0.0.0/8", "17", "80"), True),
        (("10.1.0.0/16", "6", "80"), ("10.2.0.0/16", "6", "80"), True),
        (("10.1.0.0/16", "6", "80"), ("10.0.0.0/8", "6", "80"), True),  # the wider one after: found by its ends only
        (("10.0.0.0/8", "6", "80"), ("10.1.0.0/16", "6", "80"), False),
        (("10.0.0.0/16", "6", "80"), ("10.0.0.0/8", "6", "80"), False),
        (("10.0.0.0/8", "6", "70-80"), ("10.0.0.0/8", "6", "80-90"), False),
        (("10.0.0.0/8", "6", "80-90"), ("10.0.0.0/8", "6", "70-80"), False),
        (("10.0.0.0/8", "0-255", "80"), ("10.0.0.0/8", "6", "80"), False),
    ],
)
def test_intervals_that_overlap(
    testbed: KernelTestbed, first: tuple[str, ...], second: tuple[str, ...], fits: bool
) -> None:
    one, two = (Element(INET, "allowed4", (A4, *rest)) for rest in (first, second))
    load(testbed, one)
    if fits:
        testbed.kernel.apply([ops.AddElements((two,))])
        assert there(testbed, one, two) == (one, two)
        return
    with refused(errors.KERNEL_REFUSED, "allowed4", second[0]):
        testbed.kernel.apply([ops.AddElements((two,))])
    assert there(testbed, one, two) == (one,)


def test_one_interval_is_not_another_that_contains_it(testbed: KernelTestbed) -> None:
    wide, narrow = (Element(INET, "keep4", (A4, prefix)) for prefix in ("10.0.0.0/8", "10.0.0.0/16"))
    load(testbed, wide)
    assert there(testbed, narrow) == ()
    testbed.kernel.apply([ops.RemoveElements((narrow,))])
    assert there(testbed, wide) == (wide,)


def test_intervals_in_one_another_are_removed_together(testbed: KernelTestbed) -> None:
    both = tuple(Element(INET, "keep4", (A4, prefix)) for prefix in ("10.1.0.0/16", "10.0.0.0/8"))
    load(testbed)
    testbed.kernel.apply([ops.AddElements(both)])
    testbed.kernel.apply([ops.RemoveElements((*both, *both))])
    for element in both:
        testbed.kernel.apply([ops.AddElements((element,)), ops.RemoveElements((element,))])
    assert there(testbed, *both) == ()


def test_a_thousand_ports_are_one_transaction(testbed: KernelTestbed) -> None:
    ports = tuple(replace(PORT, key=("6", str(number))) for number in range(1, 3001))
    load(testbed, ports[-1])
    with refused(errors.PORT_TAKEN, "tcp/3000"):
        testbed.kernel.apply([ops.AddElements((*ports[:-1], replace(ports[-1], data=(B4, "80"))))])
    assert there(testbed, *ports) == ports[-1:]
    testbed.kernel.apply([ops.AddElements(ports)])
    assert there(testbed, *ports) == ports
    testbed.kernel.apply([ops.RemoveElements(ports)])
    assert there(testbed, *ports) == ()


def test_a_mark_that_both_tables_do_not_have(testbed: KernelTestbed) -> None:
    load(testbed)
    if isinstance(testbed, LinuxTestbed):
        testbed.node.run("nft", "flush", "chain", "bridge", TABLE, "version")
        assert mark(testbed) == ""
        testbed.node.run("nft", "add", "rule", "bridge", TABLE, "version", "counter", "comment", '"another"')
        assert mark(testbed) == ""
        load(testbed)
        testbed.node.run("nft", "delete", "table", "bridge", TABLE)
        assert mark(testbed) == ""
        testbed.kernel.apply([ops.UnloadRuleset()])
        assert listed(testbed) == ""


@pytest.mark.netns
def test_elements_are_removed_on_a_kernel_that_knows_only_how_to_delete(linux: LinuxTestbed) -> None:
    """As before Linux 6.3."""
    load(linux, *ALL[::2])
    netfilter = linux.elsewhere.run(lambda: linux.elsewhere.kernel._spaces.get(HOST).netfilter())
    netfilter.destroys = False
    linux.kernel.apply([ops.RemoveElements(ALL), ops.AddElements(ALL), ops.RemoveElements(ALL)])
    assert there(linux, *ALL) == ()


@pytest.mark.netns
def test_a_kernel_without_netfilter(linux: LinuxTestbed) -> None:
    space = linux.elsewhere.run(lambda: linux.elsewhere.kernel._spaces.get(HOST))
    space._netfilter = NoNetfilter()
    flows_too = ops.FlushFlows((A4, A6), ((4, 53), (6, 53)))
    linux.kernel.apply([ops.RemoveElements(ALL), ops.UnloadRuleset(), flows_too])
    assert (mark(linux), there(linux, *ALL)) == ("", ())
    with refused(errors.KERNEL_REFUSED, "add elements"):
        linux.kernel.apply([ops.AddElements(ALL)])


# Against nft


def test_everything_in_the_sets(testbed: KernelTestbed) -> None:
    """Nothing where there are no tables."""
    assert testbed.kernel.observe([GetAllElements()]).all_elements() == ()
    testbed.kernel.apply([ops.LoadRuleset(ALL)])
    found = testbed.kernel.observe([GetAllElements()]).all_elements()
    assert sorted(found, key=str) == sorted(there(testbed, *ALL), key=str) and len(found) == len(ALL)


def dumped(linux: LinuxTestbed) -> list[bytes]:
    """The kernel's messages about all sets."""

    def dump() -> list[bytes]:
        with closing(NetfilterSocket()) as netfilter:
            requests = [messages.dump_elements(*place) for place in SETS]
            return [data for request in requests for data in netfilter.dump(request).messages]

    return linux.elsewhere.run(dump)


def listed(linux: LinuxTestbed) -> str:
    return linux.node.run("nft", "list", "ruleset").stdout


@pytest.mark.netns
def test_elements_are_what_nft_makes_of_them(linux: LinuxTestbed) -> None:
    def contents() -> list[bytes]:
        """Each element's bytes with its set's; the kernel lists them in any order."""
        found = []
        for data in dumped(linux):
            given = dict(each(data, HEADER.size + messages.NFGENMSG.size))
            name = given[messages.NFTA_SET_ELEM_LIST_SET]
            found += [name + payload for _, payload in each(given.get(messages.NFTA_SET_ELEM_LIST_ELEMENTS, b""))]
        return sorted(found)

    load(linux, *ALL)
    by_nft, as_text = contents(), listed(linux)
    assert len(by_nft) == len(ALL)
    load(linux)
    linux.kernel.apply([ops.AddElements(ALL)])
    assert contents() == by_nft
    assert sorted(listed(linux).split()) == sorted(as_text.split())
    assert as_text.count(f'comment "{OWNER}"') == sum(element.comment == OWNER for element in ALL)


@pytest.mark.netns
def test_elements_of_nft_are_read(linux: LinuxTestbed) -> None:
    load(linux, *ALL)
    found = [element for data in dumped(linux) for element in messages.read_elements(data)]
    assert sorted(found, key=str) == sorted(ALL, key=str)


@pytest.mark.netns
def test_rules_that_nft_refuses(linux: LinuxTestbed) -> None:
    with refused(errors.KERNEL_REFUSED, "nft", "bad"):
        load(linux, replace(PORT, key=("6", "bad")))
    assert mark(linux) == ""


def test_nft_is_found_where_the_system_has_it_though_not_in_path(tmp_path: Path) -> None:
    (tmp_path / "nft").mkdir()
    assert apply_firewall._executable("nft", (str(tmp_path), *apply_firewall.SYSTEM_PATH)).endswith("bin/nft")
    with pytest.raises(FileNotFoundError, match="not in"):
        apply_firewall._executable("nft", [str(tmp_path)])


# Flows


def udp(linux: LinuxTestbed, source: str, *targets: tuple[str, int]) -> None:
    """A flow from an address of the node to each of these."""

    def send() -> None:
        with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            for target in targets:
                try:
                    sender.sendto(b"x", target)
                except OSError as error:  # of the one before: nobody listens
                    assert error.errno == errno.ECONNREFUSED

    linux.elsewhere.run(send)


@pytest.fixture
def tracked(linux: LinuxTestbed) -> LinuxTestbed:
    """A node with these addresses that tracks its flows."""
    for address in (f"{A4}/32", f"{B4}/32", f"{A6}/128", f"{B6}/128"):
        linux.node.run("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    linux.node.run("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }")
    linux.node.run("nft", "add rule inet t c ct state new counter")
    return linux


def flows(node: Node) -> set[str]:
    """``source destination port`` of every UDP flow's original direction."""
    table = node.run("cat", "/proc/thread-self/net/nf_conntrack").stdout
    lines = [line.split() for line in table.splitlines() if " udp " in line]
    found = [dict(word.split("=") for word in reversed(line) if "=" in word) for line in lines]
    return {f"{str_of(flow['src'])} {str_of(flow['dst'])} {flow['dport']}" for flow in found}


def str_of(address: str) -> str:
    """/proc spells IPv6 addresses out."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, address))


def flush(linux: LinuxTestbed, addresses: tuple[str, ...], ports: tuple[tuple[int, int], ...], way: str) -> None:
    if way == "filter":
        linux.kernel.apply([ops.FlushFlows(addresses, ports)])
        return

    def look() -> None:
        with closing(NetfilterSocket()) as netfilter:
            for what in conntrack.wanted(addresses, ports):
                assert {answer.error for answer in apply_firewall.flush_one_by_one(netfilter, what)} == {0}

    linux.elsewhere.run(look)


@pytest.mark.netns
@pytest.mark.parametrize("way", ["filter", "one by one"])
def test_flows_are_forgotten(tracked: LinuxTestbed, way: str) -> None:
    udp(tracked, A4, (B4, 53), ("127.0.0.1", 53))
    udp(tracked, B4, (A4, 53), (B4, 1), (B4, 2))
    udp(tracked, A6, (B6, 53))
    udp(tracked, B6, (A6, 53), (B6, 1), (B6, 2))
    both = {f"{B4} {B4} 1", f"{B4} {B4} 2", f"{B6} {B6} 1", f"{B6} {B6} 2"}
    own4 = {f"{A4} {B4} 53", f"{A4} 127.0.0.1 53", f"{B4} {A4} 53"}
    own6 = {f"{A6} {B6} 53", f"{B6} {A6} 53"}
    assert flows(tracked.node) == both | own4 | own6
    flush(tracked, (A4,), (), way)
    assert flows(tracked.node) == both | own6
    flush(tracked, (A6,), ((4, 1),), way)
    assert flows(tracked.node) == {f"{B4} {B4} 2", f"{B6} {B6} 1", f"{B6} {B6} 2"}
    flush(tracked, (), ((6, 2), (6, 9)), way)
    assert flows(tracked.node) == {f"{B4} {B4} 2", f"{B6} {B6} 1"}


@pytest.mark.netns
def test_flows_of_many_ports_are_forgotten(tracked: LinuxTestbed) -> None:
    udp(tracked, B4, *((B4, number) for number in range(1, 101)))
    tracked.kernel.apply([ops.FlushFlows((), tuple((4, number) for number in range(1, 101) if number != 50))])
    assert flows(tracked.node) == {f"{B4} {B4} 50"}


@pytest.mark.netns
@pytest.mark.parametrize("way", ["filter", "one by one"])
def test_tcp_flows_stay(tracked: LinuxTestbed, way: str) -> None:
    def listen() -> socket.socket:
        return socket.create_server((A4, 0))

    with tracked.elsewhere.run(listen) as server:
        port = server.getsockname()[1]
        with tracked.elsewhere.run(lambda: socket.create_connection((A4, port))):
            udp(tracked, B4, (B4, port))  # so that there is something to forget
            flush(tracked, (A4,), ((4, port),), way)
            assert f"dport={port}" in tracked.node.run("cat", "/proc/thread-self/net/nf_conntrack").stdout
            assert flows(tracked.node) == set()


def test_no_flows_to_forget(testbed: KernelTestbed) -> None:
    testbed.kernel.apply([ops.FlushFlows((A4, A6), ((4, 53), (6, 53)))])
    testbed.kernel.apply([ops.FlushFlows((), tuple((4, number) for number in range(1, 100)))])
    testbed.kernel.apply([ops.FlushFlows(())])
