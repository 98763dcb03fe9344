"""The firewall's tables from the first ADD to the teardown: whatever happens, they hold what the leases say."""

from __future__ import annotations

import itertools
import json
import os
import random
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.firewall import ruleset
from tests.netns import networks, nft, traffic, wire
from tests.netns.networks import DUAL, NODE_OUTSIDE, UPLINK, Pod
from tests.netns.stepped_kernel import CUT, SteppedPlugin
from tests.sandbox import ROOT, Node, need

EGRESS = [{"to": "2001:db8::/32", "ports": ["tcp/443", "udp/5000-5010"]}, {"to": "192.0.2.0/24"}]
OPEN = {"ingress": "open", "guard": False}
EMPTY_STORE = r"\.seen"

# What others have on a node: tables of theirs with the names that everybody takes, in the old manner and the new.
SOMEBODYS = """
table inet filter {
    set addresses {
        type ipv4_addr
        elements = { 10.66.0.2, 192.0.2.2 }
    }
    chain forward {
        type filter hook forward priority filter + 10; policy accept;
        ip daddr @addresses counter accept
        counter
    }
}
table bridge filter {
    chain forward {
        type filter hook forward priority 0; policy accept;
        counter
    }
}
"""
IPTABLES = (
    "iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
    "iptables-nft -A FORWARD -s 172.17.0.0/16 -j ACCEPT",
    "ip6tables-nft -A INPUT -p tcp --dport 22 -j ACCEPT",
)

DELETED_ROUTE, MAIN_TABLE = 25, 254  # RTM_DELROUTE and RT_TABLE_MAIN, linux/rtnetlink.h


def everything(port: int = 8080, subnets: Sequence[str] = DUAL, **keys: Any) -> dict[str, Any]:
    """A network that uses all that there is, and one published port of each kind."""
    mappings = [
        {"hostPort": port, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": port, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
    ]
    return networks.gateway(*subnets, **{
        "masquerade": {}, "nonMasquerade": ["2001:db8:1::/48"], "snat": {"ipv4": "192.0.2.1"}, "egress": EGRESS,
        "runtimeConfig": {"portMappings": mappings}, **keys,
    })


def other_network(port: int) -> dict[str, Any]:
    """Another one, whose leases are elsewhere."""
    subnets = "fd00:7::/64", "10.67.0.0/24"
    return everything(port, subnets, name="other", bridge="other0", ipam={"dataDir": "/var/lib/cni/other"})


def somebody_else(node: Node) -> None:
    """Tables on the node before us."""
    need(os.access("/usr/sbin/iptables-nft", os.X_OK), "needs iptables")
    nft.load(node, SOMEBODYS)
    for command in IPTABLES:
        node.run(*command.split())


def add(node: Node, *names: str, **keys: Any) -> list[Pod]:
    """Containers that use everything, with ports of their own."""
    made = [Pod(node, everything(8000 + number, **keys), name) for number, name in enumerate(names)]
    for pod in made:
        pod.add()
    return made


def reached(node: Node, pod: Pod, port: int) -> None:
    """The container answers at its published port, both families."""
    with traffic.serving(pod.netns, 80) as listeners:
        for family in (4, 6):
            traffic.called(node.path, (NODE_OUTSIDE[family], port), listeners[family])


def test_our_two_tables_stay_and_nothing_else(node: Node) -> None:
    """They are what a machine that never had a container loads; and the tables of others are never written."""
    networks.outside(node)
    somebody_else(node)
    theirs = node.run("nft", "-as", "list", "ruleset").stdout
    tables = set(node.run("nft", "list", "tables").stdout.splitlines())
    before = nft.rules(node)
    first, second = add(node, "a", "b", ingress="isolated")
    reached(node, first, 8000)
    assert [rule for rule in nft.rules(node) if '"cni_v6"' not in rule] == before
    nft.ctl(node, "reload")
    first.delete()
    second.delete()
    elsewhere = node.container("elsewhere")
    nft.load(node, ruleset.text(), elsewhere)
    assert set(node.run("nft", "list", "tables").stdout.splitlines()) - tables == {
        "table inet cni_v6", "table bridge cni_v6"
    }
    for family in ("inet", "bridge"):
        assert nft.table(node, family) == nft.table(node, family, elsewhere)
    assert nft.held(node) == {}
    assert "0 attachments" in nft.ctl(node, "teardown").stdout
    assert node.run("nft", "-as", "list", "ruleset").stdout == theirs


def test_the_rules_load_where_no_file_says_what_a_name_means(node: Node) -> None:
    """A minimal root or image has no /etc/protocols and /etc/services (netbase), no locale, no resolver."""
    bare = ("unshare", "--mount", "sh", "-ec", "mount -t tmpfs none /etc\nexec nft -f -")
    node.run(*bare, stdin=ROOT.joinpath("tests/unit/golden/everything.nft").read_text(encoding="utf-8"))
    assert {"table inet cni_v6", "table bridge cni_v6"} <= set(node.run("nft", "list", "tables").stdout.splitlines())


def test_teardown_takes_the_tables_once_nobody_counts_on_them(node: Node) -> None:
    networks.outside(node)
    assert nft.ctl(node, "teardown").returncode == 0, "nothing there is fine"
    [first] = add(node, "a")
    second = Pod(node, other_network(9000), "b")
    second.add()
    before = nft.held(node)
    for count, pod in ((2, first), (1, second)):
        refused = nft.ctl(node, "teardown", check=False)
        assert refused.returncode == 1 and "error 105" in refused.stderr and "--force" in refused.stderr
        assert f"{pod.config['name']}/{pod.name}/eth0" in refused.stderr
        assert nft.held(node) == before
        assert f"with {count} attachment" in nft.ctl(node, "teardown", "--force").stdout
        assert nft.text(node) == ""
        assert "tables" in pod.check().error(errors.CHECK_FAILED)
        told = json.loads(nft.ctl(node, "reload", "--json").stdout)
        assert told == {"attachments": count, "warnings": []}
        assert nft.held(node) == before and pod.check().ok() is None
        reached(node, pod, pod.config["runtimeConfig"]["portMappings"][0]["hostPort"])
        nft.ctl(node, "teardown", "--force")
        pod.delete()
        nft.ctl(node, "reload")
        before = nft.held(node)
    assert before == {}
    assert json.loads(nft.ctl(node, "teardown", "--json").stdout) == {"attachments": 0}
    assert nft.text(node) == ""


def test_after_a_flush_check_tells_and_the_next_add_or_a_reload_restores(quiet_node: Node) -> None:
    networks.outside(quiet_node)
    first, second = add(quiet_node, "a", "b")
    third = Pod(quiet_node, other_network(9000), "c")
    third.add()
    before = nft.rules(quiet_node), nft.held(quiet_node)
    for damage in ("flush ruleset", "delete table bridge cni_v6", "delete table inet cni_v6"):
        nft.load(quiet_node, damage)
        assert "tables" in third.check().error(errors.CHECK_FAILED)
        nft.ctl(quiet_node, "reload")
        assert (sorted(before[0]), before[1]) == (sorted(nft.rules(quiet_node)), nft.held(quiet_node))
        nft.load(quiet_node, damage)
        late = Pod(quiet_node, everything(9999), "late")
        late.add()
        late.delete()
        assert (sorted(before[0]), before[1]) == (sorted(nft.rules(quiet_node)), nft.held(quiet_node))
    for pod, port in ((first, 8000), (second, 8001), (third, 9000)):
        assert pod.check().ok() is None
        reached(quiet_node, pod, port)
    nft.load(quiet_node, "flush ruleset")
    third.delete()
    assert nft.text(quiet_node) == "", "a network without containers needs none"
    second.delete()
    assert first.check().ok() is None
    reached(quiet_node, first, 8000)
    first.delete()
    assert nft.held(quiet_node) == {}


@pytest.mark.parametrize("command", ["STATUS", "DEL", "CHECK", "GC"])
def test_after_a_flush_the_next_call_of_any_kind_closes_the_node(quiet_node: Node, command: str) -> None:
    """Packets from outside arrive while the tables are gone, and no more after the call. STATUS says so once."""
    beyond = networks.outside(quiet_node)
    stays, goes = add(quiet_node, "stays", "goes")
    valid = [{"containerID": "stays", "ifname": "eth0"}, {"containerID": "goes", "ifname": "eth0"}]
    before = nft.held(quiet_node)
    nft.load(quiet_node, "flush ruleset")
    with traffic.listening(stays.netns, 6, 4000) as listener:
        traffic.called(beyond, (stays.address(6), 4000), listener)
    if command == "STATUS":
        with without_nft(quiet_node):
            words = quiet_node.plugin("cni-v6", "STATUS", stays.config).error(errors.LIMITED)
            assert "tables are gone" in words and "install nftables" in words and "cni-v6ctl reload" in words
        assert "tables are gone" in quiet_node.plugin("cni-v6", "STATUS", stays.config).error(errors.LIMITED)
        quiet_node.plugin("cni-v6", "STATUS", stays.config).ok()
    elif command == "DEL":
        goes.delete()
    elif command == "CHECK":
        assert "tables" in stays.check().error(errors.CHECK_FAILED)
    else:
        quiet_node.plugin("cni-v6", "GC", {**stays.config, "cni.dev/valid-attachments": valid}).ok()
    assert stays.check().ok() is None
    assert command == "DEL" or nft.held(quiet_node) == before
    with traffic.listening(stays.netns, 6, 4001), traffic.listening(stays.netns, 6, 80) as published:
        with traffic.unanswered(beyond, (stays.address(6), 4001)):
            traffic.called(beyond, (NODE_OUTSIDE[6], 8000), published)


def test_check_names_what_an_attachment_lacks(node: Node) -> None:
    [pod] = add(node, "a")
    assert pod.check().ok() is None
    listed = nft.held(node)
    sets = [name for name in listed if name not in ("inet home4", "bridge bound")]
    nft.load(node, "".join(f"flush {kind(name)} {name.replace(' ', ' cni_v6 ')}\n" for name in sets))
    message = pod.check().error(errors.CHECK_FAILED)
    assert all((f"missing in {name}" in message) == (name in sets) for name in listed), message
    nft.ctl(node, "reload")
    assert pod.check().ok() is None and nft.held(node) == listed


def kind(name: str) -> str:
    return "map" if name.split()[1].startswith(("ports", "snat", "inbound")) else "set"


def test_each_operation_is_one_transaction(node: Node) -> None:
    networks.set_up(node, everything())
    pod = Pod(node, everything(), "a")
    for step in (pod.add, lambda: nft.ctl(node, "reload"), pod.delete, lambda: nft.ctl(node, "teardown")):
        before = nft.generation(node)
        step()
        assert nft.generation(node) == before + 1
    before = nft.generation(node)
    networks.set_up(node, networks.gateway(*DUAL, **OPEN))
    assert nft.generation(node) == before


def test_an_add_that_fails_leaves_no_element(node: Node) -> None:
    """It fails at the sysctls, long after its elements were put in."""
    networks.set_up(node, everything())
    pod = Pod(node, everything(), "a")
    with node.unchanged():
        before = nft.generation(node)
        node.run("sh", "-ec", "mount --bind /proc/sys /proc/sys ; mount -o remount,ro,bind /proc/sys")
        assert "Read-only" in pod.call("ADD").error(errors.IO_FAILURE)
        assert nft.generation(node) == before + 2, "in, and out again"
        node.run("umount", "--lazy", "/proc/sys")
    pod.add()


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    yield made
    made.close()


def test_a_killed_add_leaves_no_element_after_its_del(node: Node, stepped: SteppedPlugin) -> None:
    """Nor one that a reload has put in, for what was recorded when it was killed."""
    [other] = add(node, "other")
    before = nft.held(node)
    pod = Pod(node, everything(), "a")
    seen = []
    for position, reloads in itertools.product(range(4), (False, True)):
        assert stepped.call(pod, "ADD", CUT, position).signal == 9
        if reloads:
            nft.ctl(node, "reload")
        seen.append(nft.held(node) != before)
        pod.delete()
        assert nft.held(node) == before, f"killed before operation {position}"
    assert seen == [False] + 7 * [True]
    for position in range(4):
        pod.add()
        stepped.call(pod, "DEL", CUT, position)
        pod.delete()
        assert nft.held(node) == before, f"killed before operation {position} of DEL"
    assert other.check().ok() is None


def test_gc_removes_the_elements_of_what_is_gone(node: Node) -> None:
    stays, goes = add(node, "stays", "goes")
    node.remove_container("goes")
    valid = [{"containerID": "stays", "ifname": "eth0"}]
    node.plugin("cni-v6", "GC", {**stays.config, "cni.dev/valid-attachments": valid}).ok()
    held = nft.held(node)
    assert len(held["inet home4"]) == len(held["inet ports6"]) == 1
    assert len(held["inet home6"]) == 2  # the link-local one is an address too
    assert goes.host not in str(held) and goes.address(6) not in str(held)
    assert stays.check().ok() is None
    stays.delete()
    assert nft.held(node) == {}


@pytest.mark.slow
def test_many_at_once_with_reloads_in_between(node: Node) -> None:
    """Each container comes and goes as it is drawn; whoever reads the sets meanwhile finds them whole."""
    networks.set_up(node, everything())
    pods = [Pod(node, everything(8000 + number), f"c{number}") for number in range(8)]

    def live(pod: Pod) -> bool:
        choices = random.Random(pod.name)
        attached = False
        for _ in range(5):
            if not attached:
                pod.add()
            elif choices.random() < 0.5:
                assert pod.check().ok() is None
                continue
            else:
                pod.delete()
            attached = not attached
        return attached

    with ThreadPoolExecutor(len(pods) + 1) as pool:
        reloading = pool.submit(lambda: [nft.ctl(node, "reload") for _ in range(5)])
        attached = [pod for pod, stays in zip(pods, pool.map(live, pods)) if stays]
        reloading.result()
    assert 0 < len(attached) < len(pods), "the draw must leave some of both"
    held = nft.held(node)
    for name in ("inet home4", "inet ports4", "bridge bound"):
        assert len(held[name]) == len(attached)
    assert len(held["inet home6"]) == 2 * len(attached)  # the link-local one is an address too
    assert all(pod.address(6) in str(held["inet home6"]) for pod in attached)
    nft.ctl(node, "reload")
    assert nft.held(node) == held, "the sets hold what the leases say"
    for pod in attached:
        assert pod.check().ok() is None
        pod.delete()
    assert nft.held(node) == {}


@contextmanager
def without_nft(node: Node) -> Iterator[None]:
    node.run("mount", "-t", "tmpfs", "none", "/usr/sbin")
    yield
    node.run("umount", "--lazy", "/usr/sbin")


def test_without_nft_an_add_says_what_to_do_and_leaves_nothing(node: Node) -> None:
    pod = Pod(node, everything(), "a")
    with node.unchanged(EMPTY_STORE):
        with without_nft(node):
            message = pod.call("ADD").error(errors.FIREWALL_MISSING)
            assert "nft" in message and "install nftables" in message and '"guard": false' in message
            assert networks.leases(node) == set() == networks.veths(node)
            done = nft.ctl(node, "reload", check=False)
            assert done.returncode == 1 and "install nftables" in done.stderr
    networks.set_up(node, everything())
    with without_nft(node):
        pod.add()
        assert pod.check().ok() is None
        pod.delete()
        assert nft.ctl(node, "teardown").returncode == 0


def test_a_network_that_asks_for_nothing_needs_no_nft(node: Node) -> None:
    beyond = networks.outside(node)
    with without_nft(node):
        [pod] = networks.pods(node, networks.gateway(*DUAL, **OPEN), "a")
        assert pod.check().ok() is None
        for family in (4, 6):
            with traffic.listening(pod.netns, family, 80) as listener:
                traffic.called(beyond, (pod.address(family), 80), listener)
        node.plugin("cni-v6", "STATUS", pod.config).ok()
        pod.delete()
        node.plugin("cni-v6", "GC", {**pod.config, "cni.dev/valid-attachments": []}).ok()
    assert nft.text(node) == "" and networks.leases(node) == set()


@pytest.fixture
def router(node: Node, tmp_path: Path) -> str:
    """A router on the uplink: Debian's radvd. The node has its address and its default route from it."""
    need(os.access("/usr/sbin/radvd", os.X_OK), "needs radvd")
    netns = networks.uplink(node)
    networks.set_sysctl(node, "ipv6/conf/all/forwarding", "1", netns)
    prefix = "prefix 2001:db8:aaaa::/64 { };"
    (tmp_path / "radvd.conf").write_text(
        f"interface eth0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {prefix} }};\n"
    )
    log = ("-m", "logfile", "-l", str(tmp_path / "log"))
    node.run("radvd", "-C", str(tmp_path / "radvd.conf"), "-p", str(tmp_path / "pid"), *log, netns=netns)
    wire.await_state(node.path, lambda: default_routes(node), "a default route")
    return str(tmp_path / "pid")


def default_routes(node: Node) -> list[tuple[str, str]]:
    routes = node.ip_json("-6", "route", "show", "default")
    return [(route["dev"], route["protocol"]) for route in routes]


def lost_default_routes(news: bytes) -> int:
    """How many of the kernel's messages say that an IPv6 default route is gone (linux/rtnetlink.h, struct rtmsg)."""
    lost, offset = 0, 0
    while offset < len(news):
        length, kind = struct.unpack_from("=IH", news, offset)
        family, bits, _, _, table = struct.unpack_from("=5B", news, offset + 16)
        lost += (kind, family, bits, table) == (DELETED_ROUTE, 10, 0, MAIN_TABLE)
        offset += length + 3 & ~3
    return lost


def test_a_node_that_lives_on_advertisements_keeps_its_default_route(node: Node, router: str) -> None:
    """All the while, not only at the end; and it goes on listening: the router's last word is that it goes."""
    with wire.events(node.path) as heard:
        heard.setblocking(False)
        [pod] = add(node, "a")
        nft.ctl(node, "reload")
        assert pod.check().ok() is None
        pod.delete()
        nft.ctl(node, "teardown")
        assert default_routes(node) == [(UPLINK, "ra")]
        lost = 0
        while news := receive(heard):
            lost += lost_default_routes(news)
        assert lost == 0
    node.run("kill", Path(router).read_text().strip())
    wire.await_state(node.path, lambda: not default_routes(node), "the router's farewell")


def receive(heard: Any) -> bytes:
    try:
        return bytes(heard.recv(1 << 20))
    except BlockingIOError:
        return b""
