"""What only the real kernel can show: the segment, the files behind namespaces, what other processes do meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, observe, ops
from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.kernel.netns.enter import open_namespace
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.private_proc import USES, PrivateProc
from cni_v6.kernel.questions import (
    GetAddresses,
    GetForwardChains,
    GetLink,
    GetNft,
    GetRoutes,
    GetRules,
    GetRuleset,
    RefusesReturn,
    GetSysctl,
    GetUplinks,
    HasRoute,
    Question,
)
from cni_v6.kernel.sysctl import Folders
from tests.contract.kernels import LinuxTestbed, linux_testbed
from tests.processes import opened
from tests.sandbox import need

pytestmark = pytest.mark.netns

BRIDGE = ops.EnsureBridge("br0", "02:00:00:00:00:01", 1500, multicast_snooping=False, vlan_filtering=False)
RTNLGRP_NEIGH = 3  # linux/rtnetlink.h
STALE = "02:00:00:00:00:99"
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20  # seconds, for what takes the kernel one or two


@pytest.fixture
def testbed() -> Iterator[LinuxTestbed]:
    with linux_testbed() as made:
        yield made


def veth(testbed: LinuxTestbed, name: str) -> ops.CreateVeth:
    netns = {"a": testbed.a, "b": testbed.b}[name]
    last = {"a": "0a", "b": "0b"}[name]
    return ops.CreateVeth(
        f"veth-{name}", f"02:00:00:00:01:{last}", "br0", netns, "eth0", f"02:00:00:00:02:{last}", 1500
    )


def attach(testbed: LinuxTestbed, name: str, *addresses: str, dad: bool = False) -> ops.CreateVeth:
    """A container on the bridge, its port forwarding, the addresses set before its interface came up."""
    pair = veth(testbed, name)
    testbed.kernel.apply([
        BRIDGE,
        ops.SetLink(HOST, "br0", up=True),
        pair,
        *(ops.AddAddress(pair.netns, "eth0", each, dad=dad) for each in addresses),
        ops.SetLink(pair.netns, "eth0", up=True),
        awaits.AwaitPort(pair.host),
    ])
    return pair


def flags(testbed: LinuxTestbed, netns: str, address: str) -> set[str]:
    """Flags of one address, as iproute2 names them; ``tentative`` may be among them."""
    [interface] = testbed.node.ip_json("-6", "address", "show", "dev", "eth0", netns=netns)
    found = {each["local"]: {key for key, value in each.items() if value is True} for each in interface["addr_info"]}
    return found[address]


@pytest.mark.parametrize("snooping", [True, False])
def test_multicast_snooping(testbed: LinuxTestbed, snooping: bool) -> None:
    testbed.kernel.apply([replace(BRIDGE, multicast_snooping=snooping)])
    [bridge] = testbed.node.ip_json("-d", "link", "show", "br0")
    assert bridge["linkinfo"]["info_data"]["mcast_snooping"] == snooping


def test_an_address_without_detection_is_usable_at_once(testbed: LinuxTestbed) -> None:
    pair = attach(testbed, "a", "2001:db8::2/64", "fe80::1/64")
    assert flags(testbed, pair.netns, "2001:db8::2") == {"nodad"}
    assert flags(testbed, pair.netns, "fe80::1") == {"nodad"}


def test_an_address_without_detection_is_reached_after_a_wait(testbed: LinuxTestbed) -> None:
    """By the first solicitation: it would be a second otherwise, on one attachment in four where others work."""
    for number in range(8):
        pair = attach(testbed, "a", "2001:db8::2/64", "2001:db8::3/64")
        testbed.kernel.apply([awaits.AwaitReception(pair.netns, "eth0", ("2001:db8::2", "2001:db8::3"))])
        for address in ("2001:db8::2", "2001:db8::3"):
            found = testbed.node.ip_json("-6", "route", "show", "table", "local", address, netns=pair.netns)
            assert [route["dev"] for route in found] == ["eth0"]
        testbed.kernel.remove([ops.DeleteLink(HOST, pair.host)])


def test_an_address_with_detection_is_usable_when_that_ends(testbed: LinuxTestbed) -> None:
    pair = attach(testbed, "a", "2001:db8::2/64", dad=True)
    assert flags(testbed, pair.netns, "2001:db8::2") == {"tentative"}
    testbed.kernel.apply([awaits.AwaitAddresses(pair.netns, "eth0")])
    assert flags(testbed, pair.netns, "2001:db8::2") == set()
    testbed.kernel.apply([awaits.AwaitAddresses(pair.netns, "eth0")])


def test_an_address_that_somebody_has(testbed: LinuxTestbed) -> None:
    attach(testbed, "a", "2001:db8::2/64")
    pair = attach(testbed, "b", "2001:db8::2/64", dad=True)
    with pytest.raises(CniError, match=r"2001:db8::2 of eth0 is a duplicate") as caught:
        testbed.kernel.apply([awaits.AwaitAddresses(pair.netns, "eth0")])
    assert caught.value.code == errors.ADDRESS_UNAVAILABLE
    assert caught.value.details


def test_an_ipv4_broadcast_address_goes_with_the_prefix(testbed: LinuxTestbed) -> None:
    pair = attach(testbed, "a", "192.0.2.2/24", "198.51.100.2/31", "203.0.113.2/32")
    [interface] = testbed.node.ip_json("-4", "address", "show", "dev", "eth0", netns=pair.netns)
    assert {each["local"]: each.get("broadcast") for each in interface["addr_info"]} == {
        "192.0.2.2": "192.0.2.255", "198.51.100.2": None, "203.0.113.2": None,
    }


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_an_announcement_reaches_who_remembers_somebody_else(testbed: LinuxTestbed, address: str) -> None:
    length = 64 if ":" in address else 24
    announcer = attach(testbed, "a", f"{address}/{length}")
    listener = attach(testbed, "b", address[:-1] + f"3/{length}")
    testbed.kernel.apply([
        ops.SetSysctl(announcer.netns, "ipv4/conf/eth0/arp_notify", "1"),
        ops.SetSysctl(announcer.netns, "ipv6/conf/eth0/ndisc_notify", "1"),
    ])
    remember = ("neighbour", "replace", address, "lladdr", STALE, "dev", "eth0", "nud", "stale")
    testbed.node.run("ip", *remember, netns=listener.netns)
    heard = open_namespace(listener.netns)
    try:
        with heard.event_socket(RTNLGRP_NEIGH) as events:
            events.settimeout(PATIENCE)
            testbed.kernel.apply([ops.Announce(announcer.netns, "eth0", announcer.mac)])
            while announcer.mac != (known := neighbour(testbed, listener.netns, address)):
                assert known == STALE
                events.recv(1 << 16)
    finally:
        heard.close()


def neighbour(testbed: LinuxTestbed, netns: str, address: str) -> str:
    [found] = testbed.node.ip_json("neighbour", "show", address, netns=netns)
    return str(found["lladdr"])


def test_waiting_for_a_port_ends_with_the_port(testbed: LinuxTestbed) -> None:
    """The container's namespace vanishes while the plugin waits for its port."""
    testbed.kernel.apply([BRIDGE, ops.SetLink(HOST, "br0", up=True), veth(testbed, "a")])
    testbed.kernel.close()
    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(testbed.kernel.apply, [awaits.AwaitPort("veth-a")])
        testbed.remove_container(testbed.a)
        with pytest.raises(CniError, match="veth-a") as caught:
            waiting.result(PATIENCE)
        assert caught.value.code == errors.KERNEL_REFUSED
        assert "it is gone" in caught.value.details


def test_waiting_for_a_port_hears_of_it(testbed: LinuxTestbed) -> None:
    pair = veth(testbed, "a")
    testbed.kernel.apply([BRIDGE, pair, ops.SetLink(pair.netns, "eth0", up=True)])  # the bridge is down, so the port is
    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(testbed.kernel.apply, [awaits.AwaitPort(pair.host)])
        testbed.node.run("ip", "link", "set", "br0", "up")
        waiting.result(PATIENCE)


def test_uplink(testbed: LinuxTestbed) -> None:
    attach(testbed, "a")

    def uplinks() -> list[str]:
        return [each.ifname for each in testbed.kernel.observe([GetUplinks()]).uplinks()]

    testbed.node.run("ip", "-6", "address", "add", "2001:db8::1/64", "dev", "br0", "nodad")
    assert uplinks() == []
    testbed.node.run("ip", "-6", "route", "add", "unreachable", "default", "metric", "4000")
    for kind, metric in (("unreachable", "4000"), ("prohibit", "3000"), ("blackhole", "2000")):
        testbed.node.run("ip", "route", "add", kind, "default", "metric", metric)
        assert uplinks() == []
    testbed.node.run("ip", "-6", "route", "add", "default", "via", "2001:db8::9", "metric", "2000")
    assert uplinks() == ["br0"]
    testbed.node.run("ip", "-6", "route", "del", "default", "via", "2001:db8::9")
    testbed.node.run("ip", "link", "add", "br1", "type", "bridge")
    testbed.node.run("ip", "link", "set", "br1", "up")
    hops = ("nexthop", "via", "2001:db8::8", "dev", "br0", "nexthop", "via", "fe80::9", "dev", "br1")
    testbed.node.run("ip", "-6", "route", "add", "default", *hops)
    assert sorted(uplinks()) == ["br0", "br1"]
    testbed.node.run("ip", "address", "add", "192.0.2.1/24", "dev", "br1")
    testbed.node.run("ip", "route", "add", "default", "via", "192.0.2.9")
    assert uplinks()[0] == "br1" and len(uplinks()) == 3


def test_a_namespace_under_another_path_is_the_same(testbed: LinuxTestbed, tmp_path: Path) -> None:
    link = tmp_path / "netns"
    link.symlink_to(testbed.a)
    assert testbed.kernel.netns_id(str(link)) == testbed.kernel.netns_id(testbed.a)
    assert testbed.kernel.netns_id(testbed.node.path) == testbed.kernel.netns_id(HOST)


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "another kind of namespace", "device"])
def test_a_file_that_is_no_network_namespace(testbed: LinuxTestbed, tmp_path: Path, kind: str) -> None:
    paths = {"another kind of namespace": Path("/proc/self/ns/uts"), "device": Path("/dev/null")}
    path = paths.get(kind, tmp_path / "netns")
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(CniError, match=re.escape(str(path))) as caught:
        testbed.kernel.observe([GetLink(str(path), "eth0")])
    assert caught.value.code == errors.INVALID_NETNS


@pytest.mark.parametrize("path", ["/run/netns/a\0b", "/run/netns/\udfff", "/run/netns/" + "a" * 300, "/dev/null/a"])
def test_a_path_that_nothing_can_have(testbed: LinuxTestbed, path: str) -> None:
    with pytest.raises(CniError, match="cannot open network namespace") as caught:
        testbed.kernel.netns_id(path)
    assert caught.value.code == errors.UNKNOWN_CONTAINER


def test_the_thread_that_asks_stays_where_it_is(testbed: LinuxTestbed) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with open_kernel_socket(testbed) as inside:
        assert os.readlink("/proc/thread-self/ns/net") == before
        assert inside.type == socket.SOCK_RAW


def test_it_comes_back_whatever_happens(testbed: LinuxTestbed) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    where: list[str] = []

    def fail(_: Folders) -> None:
        where.append(os.readlink("/proc/thread-self/ns/net"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        open_namespace(testbed.a, work=fail)
    with closing(open_namespace(testbed.a)) as space, pytest.raises(ZeroDivisionError):
        space.with_sysctls(fail)
    assert where == [f"net:[{testbed.kernel.netns_id(testbed.a)[1]}]"] * 2
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_who_cannot_come_back_ends() -> None:
    """Anything it did from there on would be done in a container."""
    script = (
        "import os; from cni_v6.kernel.netns.enter import come_back; "
        "come_back(os.open('/dev/null', 0)); print('on')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    assert done.stderr.startswith("cni-v6: cannot come back from a container's network namespace: [Errno 22]")


class WatchedSpaces(Spaces):
    """Notes in which network namespace sysctls are touched."""

    def __init__(self) -> None:
        super().__init__()
        self.visited: list[str] = []

    def with_sysctls(self, netns: str, work: Callable[[Folders], None]) -> None:
        def watched(folders: Folders) -> None:
            self.visited.append(os.readlink("/proc/thread-self/ns/net"))
            work(folders)

        super().with_sysctls(netns, watched)


def test_sysctls_are_touched_in_their_namespace_in_one_visit(testbed: LinuxTestbed) -> None:
    """From outside, each access would leave a name in the kernel's cache that all later ones have to pass by."""
    spaces = WatchedSpaces()
    kernel = LinuxKernel(spaces)
    keys = [f"ipv6/conf/lo/{key}" for key in ("accept_ra", "autoconf", "accept_dad")]
    try:
        seen = kernel.observe([GetSysctl(HOST, keys[0]), *(GetSysctl(testbed.a, key) for key in keys)])
        assert {seen.sysctl(testbed.a, key) for key in keys} <= {"0", "1", "-1"}
        kernel.apply([ops.SetSysctl(testbed.a, key, "0") for key in keys])
        here, inside = (f"net:[{kernel.netns_id(netns)[1]}]" for netns in (HOST, testbed.a))
    finally:
        kernel.close()
    assert spaces.visited == [here, inside, inside]
    values = [testbed.kernel.observe([GetSysctl(testbed.a, key)]).sysctl(testbed.a, key) for key in keys]
    assert values == ["0", "0", "0"]


def test_an_engine_looks_for_sysctls_in_a_proc_of_its_own(testbed: LinuxTestbed) -> None:
    """So lookups in many containers do not slow each other down. What is there is the same."""
    key, devices = "ipv6/conf/lo/accept_ra", []

    def look(folders: Folders) -> None:
        folder = folders.get("ipv6")
        assert folder is not None
        devices.append(os.fstat(folder).st_dev)

    with closing(PrivateProc()) as proc:
        spaces = Spaces(proc=proc)
        with closing(LinuxKernel(spaces)) as kernel:
            for netns in (HOST, testbed.a):
                spaces.with_sysctls(netns, look)
            kernel.apply([ops.SetSysctl(testbed.a, key, "0")])
    usual = os.stat("/proc").st_dev
    assert devices[0] == usual != devices[1]
    assert testbed.kernel.observe([GetSysctl(testbed.a, key)]).sysctl(testbed.a, key) == "0"


def test_a_proc_of_its_own_is_renewed_and_leaves_nothing() -> None:
    before, proc = opened(), PrivateProc()
    used = {proc.mount() for _ in range(3 * USES)}
    assert len(used) == 3 and None not in used
    assert len(opened()) == len(before) + 3, "of each use somebody still has its mount"
    used.clear()
    assert len(opened()) == len(before) + 1
    proc.close()
    assert opened() == before


def test_without_the_right_to_mount_proc_the_usual_one_serves() -> None:
    script = (
        "from cni_v6.kernel.private_proc import PrivateProc; from cni_v6.kernel.sysctl import Folders, read; "
        "proc = PrivateProc(); print(proc.mount(), read(Folders(proc=proc), 'ipv6/conf/lo/accept_ra'))"
    )
    command = ["unshare", "--user", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "None 1\n"


def test_what_was_written_before_a_failure_is_undone(testbed: LinuxTestbed) -> None:
    key = "ipv6/conf/lo/accept_ra"
    before = testbed.kernel.observe([GetSysctl(testbed.a, key)]).sysctl(testbed.a, key)
    steps = [ops.SetSysctl(testbed.a, key, "0", was=before), ops.SetSysctl(testbed.a, "ipv6/conf/lo/no_such_key", "0")]
    with pytest.raises(CniError, match="no_such_key"):
        testbed.kernel.apply(steps)
    assert testbed.kernel.observe([GetSysctl(testbed.a, key)]).sysctl(testbed.a, key) == before


def open_kernel_socket(testbed: LinuxTestbed) -> socket.socket:
    space = open_namespace(testbed.a)
    try:
        return space.event_socket(RTNLGRP_NEIGH)
    finally:
        space.close()


OTHERS = """
table ip filter {
    chain DOCKER { iifname "docker*" accept; }
    chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER; oifname "cni0" counter accept; }
    chain INPUT { type filter hook input priority 0; policy drop; }
}
table inet site {
    chain reject_all { type filter hook forward priority 10; policy accept; counter log; counter reject; }
    chain drop_some { type filter hook forward priority 20; policy accept; ct state invalid drop; }
    chain drop_none { type filter hook forward priority 30; policy drop; accept; }
}
table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
table bridge filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
"""


@pytest.mark.parametrize("change", [
    "ip rule del iif up0 pref 32765 table main suppress_ifgroup 7",
    "ip rule del iif up0 pref 32765 unreachable",
    "ip -6 rule del iif up0 pref 32765 unreachable",
    "ip -6 rule del iif up0 pref 32765 table main; ip -6 rule add iif up0 pref 32765 table main suppress_ifgroup 9",
    # Behind the rule that refuses.
    "ip rule del iif up0 pref 32765 table main; ip rule add iif up0 pref 32765 table main suppress_ifgroup 7",
    "ip rule del iif up0 pref 32765 unreachable; ip rule add iif up0 pref 32765 fwmark 1 unreachable",
    "ip rule del iif up0 pref 32765 unreachable; ip rule add not iif up0 pref 32765 unreachable",
])
def test_rules_that_somebody_has_changed(testbed: LinuxTestbed, change: str) -> None:
    asked, made = RefusesReturn("up0", 7), ops.RefuseReturn("up0", 7)
    for rule in ("pref 32765 fwmark 5 table 99", "pref 9 unreachable"):
        testbed.node.run("ip", "rule", "add", "iif", "up0", *rule.split())
    testbed.kernel.apply([made])
    assert testbed.kernel.observe([asked]).refuses_return("up0", 7), "an administrator's are not looked at"
    testbed.node.run("sh", "-ec", change)
    assert not testbed.kernel.observe([asked]).refuses_return("up0", 7)
    testbed.kernel.apply([ops.AllowReturn("up0", 7), made])
    assert testbed.kernel.observe([asked]).refuses_return("up0", 7)


def test_who_adds_rules_without_end_is_told_so_and_ours_go(testbed: LinuxTestbed) -> None:
    """A container with CAP_NET_ADMIN may have any number of rules."""
    kernel, own = testbed.kernel, GetRules(testbed.a, 1 << 30)
    added = [ops.AddRule(testbed.a, f"10.0.{number >> 8}.{number & 255}/32", 7) for number in range(1000)]
    kernel.apply([*added, ops.AddRule(testbed.a, "192.0.2.2/32", 1 << 30)])
    assert kernel.observe([own]).rules(own.netns, own.table) == ("192.0.2.2/32",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observe, "MOST_OF_A_CONTAINER", 100)
        with pytest.raises(CniError, match="cannot list rules in the container: more than 100") as refused:
            kernel.observe([own])
        assert "remove those that are not needed" in refused.value.details and testbed.a in refused.value.details
        kernel.close()
    kernel.remove([ops.RemoveRule(testbed.a, "192.0.2.2/32", 1 << 30)])
    assert kernel.observe([own]).rules(own.netns, own.table) == ()


def test_who_adds_routes_or_addresses_without_end_is_told_so(testbed: LinuxTestbed) -> None:
    """A container with CAP_NET_ADMIN may have any number of them: whoever looks at it reads no more than so many."""
    kernel, netns = testbed.kernel, testbed.a
    kernel.apply([ops.SetLink(netns, "lo", up=True)])
    routes = "".join(f"route add 2001:db8:{number:x}::/64 dev lo\n" for number in range(120))
    held = "".join(f"address add 2001:db8::{number:x}/128 dev lo nodad\n" for number in range(1, 120))
    testbed.node.run("ip", "-n", netns.rpartition("/")[2], "-batch", "-", stdin=routes + held)
    wanted: dict[Question, str] = {GetRoutes(netns, "lo"): "routes", GetAddresses(netns, "lo"): "addresses"}
    seen = kernel.observe(wanted)
    assert len(seen.routes(netns, "lo")) >= 120 and len(seen.addresses(netns, "lo")) >= 119
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observe, "MOST_OF_A_CONTAINER", 100)
        for asked, what in wanted.items():
            kernel.close()
            with pytest.raises(CniError, match=f"cannot list {what} of lo in the container: more than 100") as refused:
                kernel.observe([asked])
            assert f"remove those that are not needed ({netns})" in refused.value.details
        kernel.close()
        host = testbed.node.run  # the node itself may have any number
        host("ip", "link", "set", "lo", "up")
        host("ip", "-batch", "-", stdin=routes)
        assert len(kernel.observe([GetRoutes(HOST, "lo")]).routes(HOST, "lo")) >= 120


def test_a_route_that_is_not_the_first_choice(testbed: LinuxTestbed) -> None:
    """The kernel answers a look-up with the route that it would take. The one that is asked for may stand behind it."""
    ip = testbed.node.run
    ip("ip", "link", "add", "one0", "type", "veth", "peer", "two0")
    for name in ("one0", "two0"):
        ip("ip", "link", "set", name, "up")
    ip("ip", "address", "add", "192.0.2.1/24", "dev", "one0")
    wanted = ("198.51.100.7/32", "2001:db8:1::7/128", "203.0.113.0/24", "2001:db8:2::/56")
    asked = [HasRoute(HOST, "one0", dst) for dst in wanted]

    def found() -> list[bool]:
        seen = testbed.kernel.observe(asked)
        return [seen.has_route(HOST, "one0", dst) for dst in wanted]

    for dst in wanted:
        ip("ip", "route", "add", dst, "dev", "two0", "metric", "5")
    assert found() == [False] * 4
    for dst in wanted:
        ip("ip", "route", "add", dst, "dev", "one0", "metric", "2000")
    assert found() == [True] * 4
    for family, dst in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        ip("ip", family, "rule", "add", "to", dst, "lookup", "77", "priority", "100")
    for dst in wanted:
        ip("ip", "route", "add", dst, "dev", "one0", "table", "77")
    assert found() == [True] * 4
    for dst in wanted:
        ip("ip", "route", "del", dst, "dev", "one0", "metric", "2000")
    assert found() == [False] * 4


def test_forward_chains_of_others(testbed: LinuxTestbed) -> None:
    asked = GetForwardChains()
    assert testbed.kernel.observe([asked]).forward_chains() == ()
    testbed.kernel.apply([ops.LoadRuleset(())])
    testbed.node.run("nft", "-f", "-", stdin=OTHERS)
    assert set(testbed.kernel.observe([asked]).forward_chains()) == {
        ForwardChain("ip", "filter", "FORWARD", DROPS_REST, frozenset({"docker*", "cni0"})),
        ForwardChain("inet", "site", "reject_all", DROPS_ALL),
        ForwardChain("ip6", "filter", "FORWARD", DROPS_ALL),
    }


def test_forward_chains_that_iptables_made(testbed: LinuxTestbed) -> None:
    need(os.access("/usr/sbin/iptables-nft", os.X_OK), "needs iptables")
    for words in ("-P FORWARD DROP", "-A FORWARD -i docker0 -o docker0 -j ACCEPT", "-A FORWARD -o br+ -j REJECT"):
        testbed.node.run("iptables-nft", *words.split())
    assert testbed.kernel.observe([GetForwardChains()]).forward_chains() == (
        ForwardChain("ip", "filter", "FORWARD", DROPS_REST, frozenset({"docker0", "br*"})),
    )
    testbed.node.run("ip6tables-nft", "-A", "FORWARD", "-j", "DROP")
    assert testbed.kernel.observe([GetForwardChains()]).forward_chains()[-1] == ForwardChain(
        "ip6", "filter", "FORWARD", DROPS_ALL
    )


def test_nft_rehearses_without_a_trace(testbed: LinuxTestbed) -> None:
    seen = testbed.kernel.observe([GetNft(rehearse=True), GetNft(rehearse=False)])
    assert (seen.nft(True), seen.nft(False)) == ("", "")
    assert testbed.kernel.observe([GetRuleset()]).ruleset() == ""
    assert testbed.node.run("nft", "list", "ruleset").stdout == ""
